//! Wethod's side: one company's contacts behind the single delete, the read of one contact and the list.
//!
//! As in a Symfony application, the route and the method are looked at before the token. A wrong route is answered by
//! the web server, without the API's envelope. The routes that read, the names of a contact's members and the list's
//! `limit` and `offset` are those of public clients; that a page has 100 contacts unless asked for fewer is assumed, and
//! so are the texts of errors. It does not filter a list and writes no contact.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::contract::Identifier;
use crate::dialect::{Answer, Asked, Double, Limit, Twist};
use crate::reply::{json_reply, with_json};
use crate::request::{NoRoute, bearer, header, query_number};
use crate::store::{Fate, Store, numeric_id};

/// The delete has the singular, the reads have the plural.
const DELETED: &str = "/api/contact/";
const READ: &str = "/api/contacts/";
const LISTED: &str = "/api/contacts";
const TOKEN: &str = "wethod-demo-personal-token";
const COMPANY: &str = "acme";
const VERSION: &str = "2024-06-15";
const LIMIT: Limit = Limit { requests: 5_000, window_s: 3_600 };
const PAGE: usize = 100;
const IN_USE: &str = "The contact is linked to other entities";
const RETRY_AFTER: HeaderName = HeaderName::from_static("x-ratelimit-retry-after");

struct Wethod {
    contacts: Store,
}

enum Route<'r> {
    Delete(&'r str),
    Read(&'r str),
    List,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(Wethod { contacts: Store::new(|identifier| numeric_id(identifier, super::MOST)) })
}

impl Double for Wethod {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        self.contacts.seed(identifier, held);
    }

    fn held(&self, identifier: &Identifier) -> Option<bool> {
        self.contacts.held(identifier)
    }

    fn forget(&mut self, identifier: &Identifier) {
        self.contacts.forget(identifier);
    }

    fn contacts(&self) -> Vec<(Identifier, bool)> {
        self.contacts.contacts()
    }

    fn asked(&self, request: &Request<Bytes>) -> Asked {
        match route(request) {
            Ok(Route::Delete(id)) => Asked::Delete(named(id).into_iter().collect()),
            Ok(Route::Read(_) | Route::List) => Asked::Read,
            Err(_) => Asked::Other,
        }
    }

    fn answer(&mut self, request: &Request<Bytes>, _now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = self.respond(request, &mut deleted);
        Answer { response, deleted }
    }

    fn throttled(&self, wait_s: u64) -> Response<Bytes> {
        let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too Many Requests");
        reply.headers_mut().insert(RETRY_AFTER, wait_s.into());
        reply
    }

    fn limit(&self) -> Option<Limit> {
        Some(LIMIT)
    }

    /// A success has no body, so there are no ids to be wrong or missing; it can only be contradicted, by an error in it.
    fn twist(&self, twist: Twist, reply: &Response<Bytes>) -> Option<Response<Bytes>> {
        let done = reply.status() == StatusCode::OK && reply.body().is_empty();
        match twist {
            Twist::Contradict if done => {
                let mut twisted = with_json(reply, &json!({ "key": "precondition_failure", "message": IN_USE }));
                twisted.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Some(twisted)
            }
            Twist::Contradict | Twist::WrongIds | Twist::MissingIds => None,
        }
    }
}

impl Wethod {
    fn respond(&mut self, request: &Request<Bytes>, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let route = match route(request) {
            Ok(route) => route,
            Err(NoRoute::Path) => return no_route(),
            Err(NoRoute::Method) => {
                return error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed");
            }
        };
        if bearer(request) != Some(TOKEN) {
            return error(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized");
        }
        match header(request, "wethod-company") {
            None => return invalid("Wethod-Company", "This value should not be blank."),
            Some(COMPANY) => {}
            Some(_) => return error(StatusCode::FORBIDDEN, "forbidden", "You cannot access this company"),
        }
        if header(request, "wethod-version") != Some(VERSION) {
            return invalid("Wethod-Version", "This value is not valid.");
        }
        match route {
            Route::Delete(id) => self.delete(id, deleted),
            Route::Read(id) => self.read(id),
            Route::List => self.list(request),
        }
    }

    fn delete(&mut self, id: &str, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let Some(identifier) = named(id) else { return invalid("id", "This value should be of type int.") };
        match self.contacts.delete(&identifier) {
            Fate::Deleted => {
                deleted.push(identifier);
                Response::new(Bytes::new())
            }
            Fate::Held => error(StatusCode::PRECONDITION_FAILED, "precondition_failure", IN_USE),
            Fate::Missing => error(StatusCode::NOT_FOUND, "not_found", "Contact not found"),
        }
    }

    fn read(&self, id: &str) -> Response<Bytes> {
        let Some(identifier) = named(id) else { return invalid("id", "This value should be of type int.") };
        match self.contacts.held(&identifier) {
            Some(_) => json_reply(StatusCode::OK, &contact(&identifier)),
            None => error(StatusCode::NOT_FOUND, "not_found", "Contact not found"),
        }
    }

    fn list(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let number = |name| query_number(request, name);
        let (skip, take) = (number("offset").unwrap_or(0), number("limit").unwrap_or(PAGE).min(PAGE));
        let page = self.contacts.iter().skip(skip).take(take).map(|(identifier, _)| contact(identifier));
        json_reply(StatusCode::OK, &page.collect())
    }
}

fn route(request: &Request<Bytes>) -> Result<Route<'_>, NoRoute> {
    let one = |id: &&str| !id.is_empty() && !id.contains('/');
    let path = request.uri().path();
    let (route, method) = if let Some(id) = path.strip_prefix(DELETED).filter(one) {
        (Route::Delete(id), Method::DELETE)
    } else if let Some(id) = path.strip_prefix(READ).filter(one) {
        (Route::Read(id), Method::GET)
    } else if path == LISTED {
        (Route::List, Method::GET)
    } else {
        return Err(NoRoute::Path);
    };
    (request.method() == method).then_some(route).ok_or(NoRoute::Method)
}

/// The contact that a path names, its number without leading zeros.
fn named(id: &str) -> Option<Identifier> {
    numeric_id(&Identifier::Id(id.into()), super::MOST)
}

fn contact(identifier: &Identifier) -> Value {
    json!({
        "id": identifier.text().parse::<u64>().ok(), "created_at": "2024-05-08T17:37:04+00:00",
        "updated_at": "2024-05-08T17:37:04+00:00", "client_id": null, "email": null, "name": "Ada", "surname": "Example",
        "role": null, "notes": null, "linkedin": null, "description": null, "telephone": null,
    })
}

fn error(status: StatusCode, key: &str, message: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "key": key, "message": message }))
}

fn invalid(field: &str, message: &str) -> Response<Bytes> {
    let body = json!({
        "key": "invalid_data", "message": "You provided invalid data. Check 'failures' for details.",
        "failures": [{ "field": field, "message": message }],
    });
    json_reply(StatusCode::BAD_REQUEST, &body)
}

fn no_route() -> Response<Bytes> {
    let page = "<!DOCTYPE html><html><head><title>404 Not Found</title></head><body></body></html>";
    let mut reply = Response::new(Bytes::from_static(page.as_bytes()));
    *reply.status_mut() = StatusCode::NOT_FOUND;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
    reply
}

#[cfg(test)]
mod tests;
