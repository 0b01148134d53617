//! ONLYOFFICE's side: a contact store behind the portal's CRM routes, and the sign-in.
//!
//! It has the routes that delete and read one contact, the batch delete, the list and, because that is where a stray
//! identifier would do harm, the route beside them that deletes all contacts. Deletions are hard; a `held` contact stands
//! on an invoice. It signs in `admin@example.com` with the password `onlyoffice-demo-password`, whom it also takes by
//! HTTP Basic, and knows the token `onlyoffice-demo-token`, which never ends. It has no second factor, no roles, no
//! `.xml` replies and no filters: every list is of all contacts, by id.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::MOST;
use crate::contract::Identifier;
use crate::dialect::{Answer, Asked, Double, Limit, Twist};
use crate::reply::{json_reply, with_json};
use crate::request::{basic, header, query_number};
use crate::store::{Fate, Store, numeric_id};

const SIGN_IN: &str = "/api/2.0/authentication";
const CONTACTS: &str = "/api/2.0/crm/contact";
const TOKEN: &str = "onlyoffice-demo-token";
const USER: &str = "admin@example.com";
const PASSWORD: &str = "onlyoffice-demo-password";
/// A year, unless the portal's owner chose otherwise.
const TOKEN_LIFE_S: u64 = 365 * 86_400;
/// The most contacts that a list shows. A delete of more deletes them all.
const MAX_PAGE: usize = 1000;

struct OnlyOffice {
    contacts: Store,
    /// Token → when it ends.
    tokens: BTreeMap<String, u64>,
    issued: u64,
}

enum Route {
    SignIn,
    /// The digits of a path, which need not be an id.
    DeleteOne(String),
    ReadOne(String),
    DeleteMany,
    DeleteAll,
    List,
}

pub(super) fn new() -> Box<dyn Double> {
    let contacts = Store::new(|identifier| numeric_id(identifier, MOST));
    Box::new(OnlyOffice { contacts, tokens: BTreeMap::new(), issued: 0 })
}

impl Double for OnlyOffice {
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
            Some(Route::DeleteOne(digits)) => Asked::Delete(named(&digits).into_iter().collect()),
            Some(Route::DeleteMany) => {
                Asked::Delete(listed(request.body()).unwrap_or_default().iter().filter_map(id_of).collect())
            }
            // It names nobody.
            Some(Route::DeleteAll) => Asked::Delete(Vec::new()),
            Some(Route::SignIn) => Asked::SignIn,
            Some(Route::ReadOne(_) | Route::List) => Asked::Read,
            None => Asked::Other,
        }
    }

    fn answer(&mut self, request: &Request<Bytes>, now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = self.respond(request, now_s, &mut deleted);
        Answer { response, deleted }
    }

    /// The product throttles nothing; this is what a proxy before it says.
    fn throttled(&self, wait_s: u64) -> Response<Bytes> {
        let mut reply = plain(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests");
        reply.headers_mut().insert(RETRY_AFTER, wait_s.into());
        reply
    }

    fn limit(&self) -> Option<Limit> {
        None
    }

    /// `Contradict` is an error in the envelope of a success. In a list, `MissingIds` leaves contacts out; of a single
    /// contact, its id.
    fn twist(&self, twist: Twist, reply: &Response<Bytes>) -> Option<Response<Bytes>> {
        let mut body: Value = serde_json::from_slice(reply.body()).ok()?;
        if body["status"] != 0 {
            return None;
        }
        match (twist, body.get_mut("response")?) {
            (_, Value::Array(contacts)) if contacts.is_empty() => return None,
            (Twist::WrongIds, Value::Array(contacts)) => {
                for (contact, id) in contacts.iter_mut().zip((1..=MOST).rev()) {
                    contact["id"] = id.into();
                }
            }
            (Twist::WrongIds, contact) => contact["id"] = MOST.into(),
            (Twist::MissingIds, Value::Array(contacts)) => contacts.truncate(contacts.len() / 2),
            (Twist::MissingIds, contact) => drop(contact.as_object_mut()?.remove("id")?),
            (Twist::Contradict, _) => {
                body["status"] = 1.into();
                body["error"] = json!({ "message": "Access Denied", "hresult": -2146233078, "data": {} });
            }
        }
        Some(with_json(reply, &body))
    }
}

impl OnlyOffice {
    fn respond(&mut self, request: &Request<Bytes>, now_s: u64, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let Some(route) = route(request) else { return plain(StatusCode::NOT_FOUND, "") };
        if !matches!(route, Route::SignIn) && !self.knows(request, now_s) {
            let mut reply = plain(StatusCode::UNAUTHORIZED, "Unauthorized");
            let realm = HeaderValue::from_static("Basic Realm=\"portal.example.com\"");
            reply.headers_mut().insert(WWW_AUTHENTICATE, realm);
            return reply;
        }
        match route {
            // The route takes any digits, its argument only an int32 above 0. A body is not looked at.
            Route::DeleteOne(digits) => match named(&digits) {
                Some(identifier) => self.delete_one(identifier, deleted),
                None => error(StatusCode::BAD_REQUEST, "Invalid argument"),
            },
            Route::ReadOne(digits) => match named(&digits) {
                Some(identifier) => match self.contacts.held(&identifier) {
                    Some(held) => success(StatusCode::OK, &contact(&identifier, held)),
                    None => error(StatusCode::NOT_FOUND, "Not found"),
                },
                None => error(StatusCode::BAD_REQUEST, "Invalid argument"),
            },
            Route::DeleteMany => self.delete_many(request, deleted),
            Route::DeleteAll => {
                // No criteria: everything that can be deleted.
                deleted.extend(self.contacts.delete_all());
                list(request, deleted.len(), deleted.iter().map(|identifier| contact(identifier, false)))
            }
            Route::SignIn => self.sign_in(request, now_s),
            Route::List => {
                let contacts = self.contacts.iter().map(|(identifier, held)| contact(identifier, held));
                list(request, self.contacts.len(), contacts)
            }
        }
    }

    fn delete_one(&mut self, identifier: Identifier, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        match self.contacts.delete(&identifier) {
            Fate::Deleted => {
                let reply = success(StatusCode::OK, &contact(&identifier, false));
                deleted.push(identifier);
                reply
            }
            Fate::Held => error(StatusCode::FORBIDDEN, "Access Denied"),
            Fate::Missing => error(StatusCode::NOT_FOUND, "Not found"),
        }
    }

    /// Who is missing or held is passed over in silence.
    fn delete_many(&mut self, request: &Request<Bytes>, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let items = listed(request.body()).unwrap_or_default();
        let identifiers: Option<Vec<_>> = items.iter().map(id_of).collect();
        let Some(identifiers) = identifiers.filter(|identifiers| !identifiers.is_empty()) else {
            return error(StatusCode::BAD_REQUEST, "Invalid argument");
        };
        deleted.extend(identifiers.into_iter().filter(|each| self.contacts.delete(each) == Fate::Deleted));
        list(request, deleted.len(), deleted.iter().map(|identifier| contact(identifier, false)))
    }

    fn sign_in(&mut self, request: &Request<Bytes>, now_s: u64) -> Response<Bytes> {
        let Ok(account) = serde_json::from_slice::<Value>(request.body()) else {
            return error(StatusCode::BAD_REQUEST, "Invalid argument");
        };
        if account["userName"] != USER || account["password"] != PASSWORD {
            // The product does not map this to a status of its own.
            return error(StatusCode::INTERNAL_SERVER_ERROR, "User authentication failed");
        }
        self.issued += 1;
        let token = format!("onlyoffice-token-{now_s}-{}", self.issued);
        let end_s = now_s.saturating_add(TOKEN_LIFE_S);
        self.tokens.retain(|_, end_s| now_s < *end_s);
        self.tokens.insert(token.clone(), end_s);
        success(StatusCode::CREATED, &json!({ "token": token, "expires": date(end_s), "sms": false, "tfa": false }))
    }

    /// A token in the cookie, by itself or as `Bearer`, or the account by HTTP Basic.
    fn knows(&self, request: &Request<Bytes>, now_s: u64) -> bool {
        let is_token = |text: &str| text == TOKEN || self.tokens.get(text).is_some_and(|end_s| now_s < *end_s);
        let cookies = header(request, COOKIE.as_str()).into_iter().flat_map(|cookies| cookies.split("; "));
        let shown = header(request, AUTHORIZATION.as_str());
        cookies.filter_map(|cookie| cookie.strip_prefix("asc_auth_key=")).any(is_token)
            || shown.is_some_and(|text| is_token(text.strip_prefix("Bearer ").unwrap_or(text)))
            || basic(request).is_some_and(|(user, password)| user == USER && password == PASSWORD)
    }
}

/// A method is part of a route; the names in it do not care for case.
fn route(request: &Request<Bytes>) -> Option<Route> {
    let (path, method) = (request.uri().path().to_ascii_lowercase(), request.method());
    if path == SIGN_IN {
        return (method == Method::POST).then_some(Route::SignIn);
    }
    let rest = path.strip_prefix(CONTACTS)?;
    let is_id = |last: &str| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    match (rest.strip_prefix('/'), method) {
        (None, &Method::PUT) if rest.is_empty() => Some(Route::DeleteMany),
        (Some("filter"), &Method::DELETE) => Some(Route::DeleteAll),
        (Some("filter"), &Method::GET) => Some(Route::List),
        (Some(digits), &Method::DELETE) if is_id(digits) => Some(Route::DeleteOne(digits.to_owned())),
        (Some(digits), &Method::GET) if is_id(digits) => Some(Route::ReadOne(digits.to_owned())),
        _ => None,
    }
}

fn named(digits: &str) -> Option<Identifier> {
    numeric_id(&Identifier::Id(digits.into()), MOST)
}

/// The items of `contactids`, whatever the case of that name.
fn listed(body: &Bytes) -> Option<Vec<Value>> {
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else { return None };
    match members.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("contactids"))?.1 {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn id_of(item: &Value) -> Option<Identifier> {
    match item {
        Value::Number(number) => named(&number.as_u64()?.to_string()),
        Value::String(text) => named(text),
        _ => None,
    }
}

fn contact(identifier: &Identifier, held: bool) -> Value {
    json!({
        "firstName": "Ada", "lastName": "Example", "displayName": "Ada Example",
        "isCompany": false, "isPrivate": false, "isShared": true, "shareType": 1, "currency": null,
        "canEdit": true, "canDelete": !held, "id": identifier.text().parse::<u64>().ok(),
    })
}

/// A contact or a token.
fn success(status: StatusCode, response: &Value) -> Response<Bytes> {
    json_reply(status, &json!({ "count": 1, "status": 0, "statusCode": status.as_u16(), "response": response }))
}

/// A page of a list, which the query may make smaller. Counters that are 0 are left out.
fn list(request: &Request<Bytes>, total: usize, contacts: impl Iterator<Item = Value>) -> Response<Bytes> {
    let first = query_number(request, "startIndex").unwrap_or(0);
    let most = query_number(request, "count").filter(|count| *count > 0).unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let page: Vec<_> = contacts.skip(first).take(most).collect();
    let mut body = json!({ "status": 0, "statusCode": 200 });
    for (name, number) in [("count", page.len()), ("startIndex", first), ("total", total)] {
        if number > 0 {
            body[name] = number.into();
        }
    }
    body["response"] = page.into();
    json_reply(StatusCode::OK, &body)
}

fn error(status: StatusCode, message: &str) -> Response<Bytes> {
    let error = json!({ "message": message, "hresult": -2147467259, "data": {} });
    json_reply(status, &json!({ "status": 1, "statusCode": status.as_u16(), "error": error }))
}

fn plain(status: StatusCode, body: &'static str) -> Response<Bytes> {
    let mut reply = Response::new(Bytes::from_static(body.as_bytes()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    reply
}

/// A moment in the vendor's form, for example `2024-05-08T17:37:04.0000000Z`.
fn date(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Years that begin in March have their leap day at the end, and 400 of them 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.0000000Z", 400 * era + year)
}

#[cfg(test)]
mod tests;
