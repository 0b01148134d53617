//! Wethod's side: one company's contacts behind the single delete.
//!
//! As in a Symfony application, the route and the method are looked at before the token. A wrong route is answered by
//! the web server, without the API's envelope.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use crate::contract::Identifier;
use crate::dialect::{Answer, Double};
use crate::reply::json_reply;

const ROUTE: &str = "/api/contact/";
const TOKEN: &str = "Bearer wethod-demo-personal-token";
const COMPANY: &str = "acme";
const VERSION: &str = "2024-06-15";

#[derive(Default)]
struct Wethod {
    /// Id → whether the vendor refuses to delete it.
    contacts: BTreeMap<u64, bool>,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(Wethod::default())
}

impl Double for Wethod {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        if let Some(id) = number(identifier) {
            self.contacts.insert(id, held);
        }
    }

    fn holds(&self, identifier: &Identifier) -> bool {
        number(identifier).is_some_and(|id| self.contacts.contains_key(&id))
    }

    fn answer(&mut self, request: &Request<Bytes>, _now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = self.respond(request, &mut deleted);
        Answer { response, deleted }
    }
}

impl Wethod {
    fn respond(&mut self, request: &Request<Bytes>, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let Some(text) = request.uri().path().strip_prefix(ROUTE).filter(|id| !id.is_empty() && !id.contains('/'))
        else {
            return no_route();
        };
        if request.method() != Method::DELETE {
            return error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed");
        }
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        if header(AUTHORIZATION.as_str()) != Some(TOKEN) {
            return error(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized");
        }
        match header("wethod-company") {
            None => return invalid("Wethod-Company", "This value should not be blank."),
            Some(COMPANY) => {}
            Some(_) => return error(StatusCode::FORBIDDEN, "forbidden", "You cannot access this company"),
        }
        if header("wethod-version") != Some(VERSION) {
            return invalid("Wethod-Version", "This value is not valid.");
        }
        let identifier = Identifier::Id(text.into());
        let Some(id) = number(&identifier) else {
            return invalid("id", "This value should be of type int.");
        };
        match self.contacts.get(&id) {
            Some(false) => {
                self.contacts.remove(&id);
                deleted.push(identifier);
                Response::new(Bytes::new())
            }
            Some(true) => {
                let why = "The contact is linked to other entities";
                error(StatusCode::PRECONDITION_FAILED, "precondition_failure", why)
            }
            None => error(StatusCode::NOT_FOUND, "not_found", "Contact not found"),
        }
    }
}

fn number(identifier: &Identifier) -> Option<u64> {
    match identifier {
        Identifier::Id(id) => id.parse().ok(),
        Identifier::Phone(_) | Identifier::External { .. } => None,
    }
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
