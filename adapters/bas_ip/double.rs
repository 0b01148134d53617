//! BAS-IP's side: a device with its contacts, its tokens and its sign-in lock.
//!
//! It signs in `admin` with the password `door-demo-password`, asked by GET with a query as older firmware wants it
//! or by POST with JSON as newer does. What it answers to a wrong route or method is printed nowhere, and neither is the
//! path of a route that reads contacts: it has none. It does not tell addresses apart, so wrong passwords from anywhere
//! lock everybody out.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{TOKEN_LIFE_S, md5_hex};
use crate::contract::Identifier;
use crate::dialect::{Answer, Asked, Double, Limit, Twist};
use crate::grammar;
use crate::reply::{json_reply, with_json};
use crate::request::{bearer, listed_ids, query};
use crate::store::{Fate, Store, case_blind_id};

const PATH: &str = "/api/v0/contacts/items/link";
const LOGIN_PATH: &str = "/api/v0/login";
const TOKEN: &str = "93144b288eb1fd3cbe46d6fc0f241a51766ecd3d";
const USERNAME: &str = "admin";
const PASSWORD: &str = "door-demo-password";
/// Wrong passwords in a row before the device stops listening, and for how many seconds it does, time after time.
const TRIES: u32 = 5;
const LOCKS_S: [u64; 6] = [60, 180, 600, 1800, 3600, 10_800];

struct BasIp {
    contacts: Store,
    /// Token → when it ends.
    tokens: BTreeMap<String, u64>,
    issued: u64,
    wrong: u32,
    locks: usize,
    locked_until_s: u64,
}

pub(super) fn new() -> Box<dyn Double> {
    let contacts = Store::new(case_blind_id);
    Box::new(BasIp { contacts, tokens: BTreeMap::new(), issued: 0, wrong: 0, locks: 0, locked_until_s: 0 })
}

impl Double for BasIp {
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
        match (request.uri().path(), request.method()) {
            (PATH, &Method::DELETE) => Asked::Delete(listed_ids(request.body(), "link_ids")),
            (LOGIN_PATH, &Method::GET | &Method::POST) => Asked::SignIn,
            _ => Asked::Other,
        }
    }

    fn answer(&mut self, request: &Request<Bytes>, now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = match (request.uri().path(), request.method()) {
            (PATH, &Method::DELETE) => self.delete(request, now_s, &mut deleted),
            (LOGIN_PATH, &Method::GET | &Method::POST) => self.login(request, now_s),
            (PATH | LOGIN_PATH, _) => bare(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
            _ => bare(StatusCode::NOT_FOUND, "Not Found"),
        };
        Answer { response, deleted }
    }

    /// What the device answers to too many sign-ins; for other requests no limit is published.
    fn throttled(&self, wait_s: u64) -> Response<Bytes> {
        json_reply(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": "Too Many Requests", "seconds": wait_s }))
    }

    fn limit(&self) -> Option<Limit> {
        None
    }

    /// `Contradict` is `success: true` beside a word for a contact that is not there.
    fn twist(&self, twist: Twist, reply: &Response<Bytes>) -> Option<Response<Bytes>> {
        let mut body: Value = serde_json::from_slice(reply.body()).ok()?;
        let items = body.get_mut("result")?.as_array_mut()?;
        let done = |item: &Value| item["success"] == true;
        let all = items.iter().filter(|item| done(item)).count();
        if all == 0 {
            return None;
        }
        match twist {
            Twist::WrongIds => {
                for (n, item) in items.iter_mut().filter(|item| done(item)).enumerate() {
                    item["link_id"] = format!("0ddba11d-0000-4000-8000-{n:012x}").into();
                }
            }
            Twist::MissingIds => {
                let mut seen = 0;
                items.retain(|item| {
                    seen += usize::from(done(item));
                    !done(item) || seen <= all / 2
                });
            }
            Twist::Contradict => {
                for item in items.iter_mut().filter(|item| done(item)) {
                    item["extended_info"] = "entity_not_found".into();
                }
            }
        }
        Some(with_json(reply, &body))
    }
}

impl BasIp {
    fn delete(&mut self, request: &Request<Bytes>, now_s: u64, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        #[derive(Deserialize)]
        struct Body {
            link_ids: Vec<String>,
        }
        if !self.knows(request, now_s) {
            let error = json!({ "error": { "code": "invalid_authentication", "message": "Log In" } });
            return json_reply(StatusCode::UNAUTHORIZED, &error);
        }
        let Ok(Body { link_ids }) = serde_json::from_slice(request.body()) else {
            return not_valid("Data validation error", &json!({ "link_ids": "must be an array" }));
        };
        if link_ids.is_empty() {
            return not_valid("List cannot be empty", &json!({ "link_ids": "cannot be empty" }));
        }
        if !link_ids.iter().all(|id| grammar::is_uuid(id)) {
            return not_valid("Data validation error", &json!({ "link_ids": "must be uuids" }));
        }
        let mut result = Vec::with_capacity(link_ids.len());
        for id in link_ids {
            // It answers with the id as it is stored, which may differ in case from the one asked for.
            let stored = id.to_ascii_lowercase();
            let identifier = Identifier::Id(id.into());
            let (success, info) = match self.contacts.delete(&identifier) {
                Fate::Deleted => {
                    deleted.push(identifier);
                    (true, "deleted")
                }
                Fate::Held => (false, "has_dublicates"),
                Fate::Missing => (false, "entity_not_found"),
            };
            result.push(json!({ "link_id": stored, "success": success, "extended_info": info }));
        }
        json_reply(StatusCode::OK, &json!({ "result": result }))
    }

    fn knows(&self, request: &Request<Bytes>, now_s: u64) -> bool {
        bearer(request)
            .is_some_and(|token| token == TOKEN || self.tokens.get(token).is_some_and(|end_s| now_s < *end_s))
    }

    fn login(&mut self, request: &Request<Bytes>, now_s: u64) -> Response<Bytes> {
        if now_s < self.locked_until_s {
            return self.throttled(self.locked_until_s - now_s);
        }
        let Some(account) = account_of(request) else {
            return bare(StatusCode::BAD_REQUEST, "Wrong JSON body");
        };
        if account != (USERNAME.to_owned(), md5_hex(PASSWORD)) {
            self.wrong += 1;
            if self.wrong == TRIES {
                let lock = LOCKS_S.get(self.locks).or(LOCKS_S.last()).copied().unwrap_or_default();
                self.locked_until_s = now_s.saturating_add(lock);
                self.locks += 1;
                self.wrong = 0;
            }
            return bare(StatusCode::BAD_REQUEST, "Wrong login or password");
        }
        (self.wrong, self.locks) = (0, 0);
        self.issued += 1;
        let token = format!("{now_s:020x}{:020x}", self.issued);
        self.tokens.retain(|_, end_s| now_s < *end_s);
        self.tokens.insert(token.clone(), now_s.saturating_add(TOKEN_LIFE_S));
        json_reply(StatusCode::OK, &json!({ "token": token, "account_type": "admin" }))
    }
}

/// User name and hashed password; a query that lacks one has it empty.
fn account_of(request: &Request<Bytes>) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Login {
        username: String,
        password: String,
    }
    if request.method() == Method::POST {
        let login: Login = serde_json::from_slice(request.body()).ok()?;
        return Some((login.username, login.password));
    }
    let member = |name| query(request, name).unwrap_or_default();
    Some((member("username"), member("password")))
}

fn not_valid(message: &str, data: &Value) -> Response<Bytes> {
    let error = json!({ "error": { "code": "not_valid", "message": message, "data": data } });
    json_reply(StatusCode::BAD_REQUEST, &error)
}

/// The envelope of the older pages, whose error is a text.
fn bare(status: StatusCode, text: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "error": text }))
}
