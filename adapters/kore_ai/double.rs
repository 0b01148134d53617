//! Kore.ai's side: a contact store behind the bulk delete, the delete of one contact and the list.
//!
//! It verifies the token's signature with the example's client secret, and its `exp` if it has one; it asks for no scope,
//! no `jti` and no encryption. Deletions are soft: a deleted contact stays in the list as `INACTIVE` (the page says that
//! of the single delete; that the list shows it is assumed, as is the order: active contacts first, each part by id). To
//! every other request a deleted contact is not there. The shape of failed records, all error statuses and the refusal
//! of a held contact are assumed. There is no route that reads one contact.

use base64::Engine;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::contract::Identifier;
use crate::dialect::{Answer, Asked, Double, Limit, Twist};
use crate::grammar;
use crate::reply::{json_reply, with_json};
use crate::request::{NoRoute, header, listed_ids, query_number};
use crate::store::{Fate, Store, case_blind_id};

const STREAM_ID: &str = "st-7dc994f0-4436-5134-9fa8-a94262500001";
const ROOT: &str = "/agentassist/api/v1/public/st-7dc994f0-4436-5134-9fa8-a94262500001/contacts";
const ACCOUNT_ID: &str = "65f7d49a5dd06e2cefa45012";
const CLIENT_ID: &str = "cs-demo";
const CLIENT_SECRET: &str = "kore-demo-client-secret-of-32-bytes";
const LIMIT: Limit = Limit { requests: 60, window_s: 60 };
/// Contacts on a page of the list, unless asked for another number.
const PAGE: usize = 10;
const IN_USE: &str = "Contact is in use";
const NOT_FOUND: &str = "Contact not found";

struct KoreAi {
    contacts: Store,
    /// Deleted here: they are still in the list, and nowhere else.
    inactive: Store,
}

enum Route<'r> {
    DeleteMany,
    DeleteOne(&'r str),
    List,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(KoreAi { contacts: Store::new(case_blind_id), inactive: Store::new(case_blind_id) })
}

impl Double for KoreAi {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        self.inactive.forget(identifier);
        self.contacts.seed(identifier, held);
    }

    fn held(&self, identifier: &Identifier) -> Option<bool> {
        self.contacts.held(identifier)
    }

    fn forget(&mut self, identifier: &Identifier) {
        self.inactive.forget(identifier);
        self.contacts.forget(identifier);
    }

    fn contacts(&self) -> Vec<(Identifier, bool)> {
        self.contacts.contacts()
    }

    fn asked(&self, request: &Request<Bytes>) -> Asked {
        match route(request) {
            Ok(Route::DeleteMany) => Asked::Delete(listed_ids(request.body(), "ids")),
            Ok(Route::DeleteOne(id)) => Asked::Delete(vec![Identifier::Id(id.into())]),
            Ok(Route::List) => Asked::Read,
            Err(_) => Asked::Other,
        }
    }

    fn answer(&mut self, request: &Request<Bytes>, now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = self.respond(request, now_s, &mut deleted);
        Answer { response, deleted }
    }

    /// The text is the vendor's; no page names a header, so it says no wait: its window is a minute.
    fn throttled(&self, _wait_s: u64) -> Response<Bytes> {
        let message = "You've exceeded the per-minute rate limit. Please wait for sometime before retrying.";
        error(StatusCode::TOO_MANY_REQUESTS, 429, message)
    }

    fn limit(&self) -> Option<Limit> {
        Some(LIMIT)
    }

    /// Of a bulk delete alone: the counters stay as they were.
    fn twist(&self, twist: Twist, reply: &Response<Bytes>) -> Option<Response<Bytes>> {
        let mut body: Value = serde_json::from_slice(reply.body()).ok()?;
        let records = body.get_mut("successfulRecords")?.as_array_mut().filter(|records| !records.is_empty())?;
        match twist {
            Twist::WrongIds => {
                for (n, record) in records.iter_mut().enumerate() {
                    *record = json!({ "id": format!("0ddba11d0ddba11d{n:08x}") });
                }
            }
            Twist::MissingIds => records.truncate(records.len() / 2),
            Twist::Contradict => {
                let failed = |record: &Value| json!({ "id": record["id"], "error": IN_USE });
                let failed: Vec<_> = records.iter().map(failed).collect();
                body.get_mut("failedRecords")?.as_array_mut()?.extend(failed);
            }
        }
        Some(with_json(reply, &body))
    }
}

impl KoreAi {
    fn respond(&mut self, request: &Request<Bytes>, now_s: u64, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let route = match route(request) {
            Ok(route) => route,
            Err(NoRoute::Path) => return error(StatusCode::UNAUTHORIZED, 4002, "Invalid SDK credentials"),
            Err(NoRoute::Method) => return error(StatusCode::METHOD_NOT_ALLOWED, 405, "Method not allowed"),
        };
        let is_ours = header(request, "auth").is_some_and(|jwt| is_ours(jwt, now_s));
        if !is_ours || header(request, "accountid") != Some(ACCOUNT_ID) {
            return error(StatusCode::UNAUTHORIZED, 4002, "Invalid JWT token");
        }
        match route {
            Route::DeleteMany => self.delete_many(request.body(), deleted),
            Route::DeleteOne(id) => self.delete_one(id, deleted),
            Route::List => self.list(request),
        }
    }

    fn delete_many(&mut self, body: &Bytes, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        #[derive(Deserialize)]
        struct Body {
            ids: Vec<String>,
        }
        let Ok(Body { ids }) = serde_json::from_slice(body) else {
            return error(StatusCode::PRECONDITION_FAILED, 412, "Validation errors");
        };
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for id in &ids {
            let identifier = Identifier::Id(id.as_str().into());
            match self.delete(&identifier) {
                Fate::Deleted => {
                    deleted.push(identifier);
                    successful.push(json!({ "id": id }));
                }
                Fate::Held => failed.push(json!({ "id": id, "error": IN_USE })),
                Fate::Missing => failed.push(json!({ "id": id, "error": NOT_FOUND })),
            }
        }
        let body = json!({
            "totalRequested": ids.len(), "successful": successful.len(), "failed": failed.len(),
            "successfulRecords": successful, "failedRecords": failed,
        });
        json_reply(StatusCode::OK, &body)
    }

    fn delete_one(&mut self, id: &str, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        if !grammar::is_hex(id, 24) {
            return error(StatusCode::PRECONDITION_FAILED, 412, "Validation errors");
        }
        let identifier = Identifier::Id(id.into());
        match self.delete(&identifier) {
            Fate::Deleted => {
                deleted.push(identifier);
                json_reply(StatusCode::OK, &contact(&id.to_ascii_lowercase(), "INACTIVE"))
            }
            Fate::Held => error(StatusCode::BAD_REQUEST, 400, IN_USE),
            Fate::Missing => error(StatusCode::BAD_REQUEST, 400, NOT_FOUND),
        }
    }

    fn delete(&mut self, identifier: &Identifier) -> Fate {
        let fate = self.contacts.delete(identifier);
        if fate == Fate::Deleted {
            self.inactive.seed(identifier, false);
        }
        fate
    }

    fn list(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let (skip, limit) = (query_number(request, "skip"), query_number(request, "limit"));
        let (skip, limit) = (skip.unwrap_or(0), limit.unwrap_or(PAGE).max(1));
        let active = self.contacts.iter().map(|(identifier, _)| contact(identifier.text(), "ACTIVE"));
        let inactive = self.inactive.iter().map(|(identifier, _)| contact(identifier.text(), "INACTIVE"));
        let results: Vec<_> = active.chain(inactive).skip(skip).take(limit).collect();
        let total = self.contacts.len() + self.inactive.len();
        let body = json!({
            "skip": skip, "limit": limit, "hasMore": total > skip.saturating_add(results.len()),
            "totalPages": total.div_ceil(limit), "totalResults": total, "results": results,
        });
        json_reply(StatusCode::OK, &body)
    }
}

fn route(request: &Request<Bytes>) -> Result<Route<'_>, NoRoute> {
    let rest = request.uri().path().strip_prefix(ROOT).ok_or(NoRoute::Path)?;
    let (route, method) = match rest.strip_prefix('/') {
        Some("bulk-delete") => (Route::DeleteMany, Method::DELETE),
        Some(id) if !id.is_empty() && !id.contains('/') => (Route::DeleteOne(id), Method::DELETE),
        None if rest.is_empty() => (Route::List, Method::GET),
        Some(_) | None => return Err(NoRoute::Path),
    };
    (request.method() == method).then_some(route).ok_or(NoRoute::Method)
}

fn contact(id: &str, status: &str) -> Value {
    json!({
        "firstName": "Ada", "lastName": "Example", "fullName": "Ada Example", "status": status,
        "instanceBotId": STREAM_ID, "accountId": ACCOUNT_ID, "address": [], "twitterDetails": [],
        "createdAt": "2024-05-08T17:37:04.000Z", "updatedAt": "2024-05-08T17:37:04.000Z", "id": id,
    })
}

fn error(status: StatusCode, code: u32, message: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "errors": [{ "msg": message, "code": code }] }))
}

/// Signed with HS256 by our client's secret (RFC 7515, section 5.2), our `appId`, and not over if it says when it ends.
fn is_ours(jwt: &str, now_s: u64) -> bool {
    let decoded = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok();
    let json = |text: &str| -> Option<Value> { serde_json::from_slice(&decoded(text)?).ok() };
    let verified = || {
        let (signed, signature) = jwt.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let mut mac = Hmac::<Sha256>::new_from_slice(CLIENT_SECRET.as_bytes()).ok()?;
        mac.update(signed.as_bytes());
        mac.verify_slice(&decoded(signature)?).ok()?;
        (json(header)?["alg"] == "HS256").then(|| json(payload))?
    };
    verified().is_some_and(|payload| {
        let end_s = payload.get("exp");
        payload["appId"] == CLIENT_ID
            && end_s.is_none_or(|end_s| end_s.as_f64().is_some_and(|end_s| end_s > now_s as f64))
    })
}

#[cfg(test)]
mod tests;
