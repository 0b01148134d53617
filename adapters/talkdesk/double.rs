//! Talkdesk's side: the token endpoint, and one record list behind the bulk delete and the routes of single records.
//!
//! A contact that is seeded by phone or external id is a record of its own, with an invented record id. The texts and
//! codes of errors are invented too; the page prints only their shape. Public clients have the routes that read a list
//! and read or delete a record; what these answer is assumed: 204 to a delete, and the form of the vendor's other lists,
//! with `page` from 1 and `per_page`. It has one list, one client and no other scope.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::records::Records;
use crate::contract::{Identifier, IdentifierKind};
use crate::dialect::{Answer, Asked, Double, Limit, Twist};
use crate::grammar;
use crate::reply::{json_reply, with_json};
use crate::request::{NoRoute, basic, bearer, form, form_decoded, header, query_number};
use crate::store::{Fate, Store, case_blind_id};

const TOKEN_PATH: &str = "/oauth/token";
const LISTS: &str = "/record-lists/";
const LIST_ID: &str = "d9be9636-528f-45e8-bdf8-27ffd9ee6085";
const LIST_URL: &str = "https://api.talkdeskapp.com/record-lists/d9be9636-528f-45e8-bdf8-27ffd9ee6085";
const CLIENT_ID: &str = "td-demo";
const CLIENT_SECRET: &str = "talkdesk-demo-client-secret";
const SCOPE: &str = "record-lists:manage";
const MOST: usize = 100;

struct Talkdesk {
    contacts: Store,
    records: Records,
    /// Token → the second in which it is over.
    tokens: BTreeMap<String, u64>,
    issued: u64,
}

enum Route<'r> {
    Token,
    DeleteMany,
    DeleteOne(&'r str),
    ReadOne(&'r str),
    List,
    Records,
}

pub(super) fn new() -> Box<dyn Double> {
    let contacts = Store::new(stored);
    Box::new(Talkdesk { contacts, records: Records::default(), tokens: BTreeMap::new(), issued: 0 })
}

impl Double for Talkdesk {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        if self.contacts.held(identifier).is_none() {
            self.records.add(identifier);
        }
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
        let own = |identifiers: Vec<Identifier>| identifiers.into_iter().map(|each| self.records.own(each)).collect();
        match route(request) {
            Ok(Route::Token) => Asked::SignIn,
            Ok(Route::DeleteMany) => Asked::Delete(own(readable(request.body()))),
            Ok(Route::DeleteOne(id)) => Asked::Delete(own(vec![Identifier::Id(id.into())])),
            Ok(Route::ReadOne(_) | Route::List | Route::Records) => Asked::Read,
            Err(_) => Asked::Other,
        }
    }

    fn answer(&mut self, request: &Request<Bytes>, now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = match route(request) {
            Ok(Route::Token) => self.token(request, now_s),
            Err(why) if request.uri().path() == TOKEN_PATH => no_route(request, why),
            _ if !self.knows(request, now_s) => error(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized"),
            Ok(Route::DeleteMany) => self.delete_many(request.body(), &mut deleted),
            Ok(Route::DeleteOne(id)) => self.delete_one(id, &mut deleted),
            Ok(Route::ReadOne(id)) => self.read_one(id),
            Ok(Route::List) => self.list(),
            Ok(Route::Records) => self.records(request),
            Err(why) => no_route(request, why),
        };
        Answer { response, deleted }
    }

    /// No limit is published for these lists; the envelope is that of every error.
    fn throttled(&self, wait_s: u64) -> Response<Bytes> {
        let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too Many Requests");
        reply.headers_mut().insert(RETRY_AFTER, wait_s.into());
        reply
    }

    fn limit(&self) -> Option<Limit> {
        None
    }

    /// Of a bulk delete alone. A success names no record, so `WrongIds` is one failed record that was not sent,
    /// `MissingIds` a total that does not account for all, and `Contradict` as many failed records as the total says are
    /// deleted. The total of errors stays: were it right for the false records, the reply would only be a false one.
    fn twist(&self, twist: Twist, reply: &Response<Bytes>) -> Option<Response<Bytes>> {
        let mut body: Value = serde_json::from_slice(reply.body()).ok()?;
        let total = body.get("total_deleted")?.as_u64().filter(|total| *total > 0)?;
        let foreign = |n: u64| failed_record(&format!("0ddba11d-0000-4000-8000-{n:012x}"));
        match twist {
            Twist::MissingIds => body["total_deleted"] = (total / 2).into(),
            Twist::WrongIds | Twist::Contradict => {
                let more = if twist == Twist::WrongIds { 1 } else { total };
                body["has_errors"] = true.into();
                let failed = body.pointer_mut("/_embedded/failed_records")?.as_array_mut()?;
                failed.extend((0..more).map(foreign));
            }
        }
        Some(with_json(reply, &body))
    }
}

impl Talkdesk {
    fn token(&mut self, request: &Request<Bytes>, now_s: u64) -> Response<Bytes> {
        if !is_our_client(request) {
            return token_error(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed");
        }
        if header(request, "content-type") != Some("application/x-www-form-urlencoded") {
            return token_error(StatusCode::BAD_REQUEST, "invalid_request", "The body must be a form");
        }
        let text = std::str::from_utf8(request.body()).unwrap_or_default();
        let member = |name| form(text, name).unwrap_or_default();
        if member("grant_type") != "client_credentials" {
            return token_error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Unsupported grant type");
        }
        if !member("scope").split(' ').any(|scope| scope == SCOPE) {
            return token_error(StatusCode::BAD_REQUEST, "invalid_scope", "The requested scope is invalid");
        }
        self.tokens.retain(|_, end_s| *end_s > now_s);
        self.issued += 1;
        let (token, life_s) = (format!("td-token-{}", self.issued), super::TOKEN_LIFE_S);
        self.tokens.insert(token.clone(), now_s.saturating_add(life_s));
        let body = json!({ "access_token": token, "token_type": "bearer", "expires_in": life_s, "scope": SCOPE });
        json_reply(StatusCode::OK, &body)
    }

    fn knows(&self, request: &Request<Bytes>, now_s: u64) -> bool {
        bearer(request).and_then(|token| self.tokens.get(token)).is_some_and(|end_s| now_s < *end_s)
    }

    fn delete_many(&mut self, body: &Bytes, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let identifiers = match read_body(body) {
            Ok(identifiers) => identifiers,
            Err(why) => return invalid(why),
        };
        let mut failed = Vec::new();
        for identifier in identifiers {
            let identifier = self.records.own(identifier);
            if self.contacts.delete(&identifier) == Fate::Deleted {
                deleted.push(identifier);
            } else {
                failed.push(failed_record(&self.records.failed(&identifier)));
            }
        }
        let body = json!({
            "record_list_id": LIST_ID,
            "has_errors": !failed.is_empty(),
            "total_deleted": deleted.len(),
            "total_errors": failed.len(),
            "_links": { "self": { "href": format!("{LIST_URL}/records/bulks") }, "record_list": { "href": LIST_URL } },
            "_embedded": { "failed_records": failed },
        });
        json_reply(StatusCode::OK, &body)
    }

    fn delete_one(&mut self, id: &str, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let identifier = self.records.own(Identifier::Id(id.into()));
        match self.contacts.delete(&identifier) {
            Fate::Deleted => {
                deleted.push(identifier);
                let mut reply = Response::new(Bytes::new());
                *reply.status_mut() = StatusCode::NO_CONTENT;
                reply
            }
            Fate::Held => error(StatusCode::BAD_REQUEST, "record_in_use", "The record is in use"),
            Fate::Missing => error(StatusCode::NOT_FOUND, "not_found", "Record not found"),
        }
    }

    fn read_one(&self, id: &str) -> Response<Bytes> {
        let identifier = self.records.own(Identifier::Id(id.into()));
        match self.contacts.held(&identifier).and_then(|_| stored(&identifier)) {
            Some(identifier) => json_reply(StatusCode::OK, &self.record(&identifier)),
            None => error(StatusCode::NOT_FOUND, "not_found", "Record not found"),
        }
    }

    fn list(&self) -> Response<Bytes> {
        let links = json!({ "self": { "href": LIST_URL }, "records": { "href": format!("{LIST_URL}/records") } });
        let body = json!({ "id": LIST_ID, "name": "Demo", "total_records": self.contacts.len(), "_links": links });
        json_reply(StatusCode::OK, &body)
    }

    fn records(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let number = |name| query_number(request, name).filter(|number| *number > 0);
        let (page, per_page) = (number("page").unwrap_or(1), number("per_page").unwrap_or(MOST).min(MOST));
        let shown = self.contacts.iter().skip((page - 1).saturating_mul(per_page)).take(per_page);
        let records: Vec<_> = shown.map(|(identifier, _)| self.record(identifier)).collect();
        let total = self.contacts.len();
        let body = json!({
            "count": records.len(), "total": total, "page": page, "per_page": per_page,
            "total_pages": total.div_ceil(per_page), "_embedded": { "records": records },
            "_links": { "self": { "href": format!("{LIST_URL}/records?page={page}&per_page={per_page}") } },
        });
        json_reply(StatusCode::OK, &body)
    }

    fn record(&self, identifier: &Identifier) -> Value {
        let id = self.records.id(identifier).unwrap_or_default();
        let mut record = json!({ "id": id, "first_name": "Ada", "last_name": "Example", "_links": record_links(id) });
        match identifier {
            Identifier::Id(_) => {}
            Identifier::Phone(phone) => record["phone_number"] = (**phone).into(),
            Identifier::External { provider, id } => {
                record["external_provider"] = (**provider).into();
                record["external_id"] = (**id).into();
            }
        }
        record
    }
}

/// By what the list finds a contact: record ids are hexadecimal, so their case does not matter.
fn stored(identifier: &Identifier) -> Option<Identifier> {
    case_blind_id(identifier).or_else(|| Some(identifier.clone()))
}

fn route(request: &Request<Bytes>) -> Result<Route<'_>, NoRoute> {
    let (path, method) = (request.uri().path(), request.method());
    if path == TOKEN_PATH {
        return (method == Method::POST).then_some(Route::Token).ok_or(NoRoute::Method);
    }
    let rest = path.strip_prefix(LISTS).and_then(|rest| rest.strip_prefix(LIST_ID)).ok_or(NoRoute::Path)?;
    match (rest, method) {
        ("", &Method::GET) => Ok(Route::List),
        ("/records", &Method::GET) => Ok(Route::Records),
        ("/records/bulks", &Method::DELETE) => Ok(Route::DeleteMany),
        ("" | "/records" | "/records/bulks", _) => Err(NoRoute::Method),
        (rest, method) => {
            let one = rest.strip_prefix("/records/").filter(|id| !id.is_empty() && !id.contains('/'));
            match (one.ok_or(NoRoute::Path)?, method) {
                (id, &Method::GET) => Ok(Route::ReadOne(id)),
                (id, &Method::DELETE) => Ok(Route::DeleteOne(id)),
                _ => Err(NoRoute::Method),
            }
        }
    }
}

fn no_route(request: &Request<Bytes>, why: NoRoute) -> Response<Bytes> {
    let is_of_a_list = request.uri().path().starts_with(LISTS);
    match why {
        NoRoute::Path if is_of_a_list => error(StatusCode::NOT_FOUND, "not_found", "Record list not found"),
        NoRoute::Path => error(StatusCode::NOT_FOUND, "not_found", "Resource not found"),
        NoRoute::Method => error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed"),
    }
}

/// One item of a body. More members than these are not looked at.
#[derive(Deserialize)]
struct Item {
    id: Option<String>,
    phone_number: Option<String>,
    external_provider: Option<String>,
    external_id: Option<String>,
}

impl Item {
    fn identifier(self) -> Option<Identifier> {
        match (self.id, self.phone_number, self.external_provider, self.external_id) {
            (Some(id), None, None, None) if grammar::is_uuid(&id) => Some(Identifier::Id(id.into())),
            (None, Some(phone), None, None) if (1..=20).contains(&phone.len()) => Some(Identifier::Phone(phone.into())),
            (None, None, Some(provider), Some(id)) if !provider.is_empty() && !id.is_empty() => {
                Some(Identifier::External { provider: provider.into(), id: id.into() })
            }
            _ => None,
        }
    }
}

/// The contacts of a body: 1 to 100, all by the same kind of identifier.
fn read_body(body: &Bytes) -> Result<Vec<Identifier>, &'static str> {
    let items: Vec<Item> = serde_json::from_slice(body).map_err(|_| "must be an array of records")?;
    if !(1..=MOST).contains(&items.len()) {
        return Err("must have 1 to 100 records");
    }
    let identifiers: Option<Vec<_>> = items.into_iter().map(Item::identifier).collect();
    let identifiers = identifiers.ok_or("must have valid record identifiers")?;
    let kind = identifiers.first().map_or(IdentifierKind::Id, Identifier::kind);
    if identifiers.iter().any(|identifier| identifier.kind() != kind) {
        return Err("must choose one type of resource identifiers");
    }
    Ok(identifiers)
}

/// The contacts that a body names, also where it is refused.
fn readable(body: &Bytes) -> Vec<Identifier> {
    let items: Vec<Value> = serde_json::from_slice(body).unwrap_or_default();
    items.into_iter().filter_map(|item| serde_json::from_value::<Item>(item).ok()?.identifier()).collect()
}

fn failed_record(id: &str) -> Value {
    json!({ "id": id, "_links": record_links(id) })
}

fn record_links(id: &str) -> Value {
    json!({ "self": { "href": format!("{LIST_URL}/records/{id}") } })
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "code": code, "message": message }))
}

fn invalid(why: &str) -> Response<Bytes> {
    let body = json!({
        "code": "0000001", "message": "Bad request", "description": "Errors were found in the submitted data",
        "fields": [{ "name": "body", "description": why }],
    });
    json_reply(StatusCode::BAD_REQUEST, &body)
}

/// The token endpoint has an error envelope of its own (RFC 6749, section 5.2).
fn token_error(status: StatusCode, error: &str, description: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "error": error, "error_description": description }))
}

/// HTTP Basic with form-encoded id and secret (RFC 6749, section 2.3.1).
fn is_our_client(request: &Request<Bytes>) -> bool {
    basic(request).is_some_and(|(id, secret)| {
        form_decoded(&id).is_some_and(|id| id == CLIENT_ID) && form_decoded(&secret).is_some_and(|s| s == CLIENT_SECRET)
    })
}

#[cfg(test)]
mod tests;
