//! Kore.ai's side: a contact store behind the bulk delete.
//!
//! It checks the token's form and its `appId`, not its signature. Deletions are soft at the vendor; here the contact is gone.

use std::collections::BTreeMap;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::contract::Identifier;
use crate::dialect::{Answer, Double};
use crate::reply::json_reply;

const PATH: &str = "/agentassist/api/v1/public/st-7dc994f0-4436-5134-9fa8-a94262500001/contacts/bulk-delete";
const ACCOUNT_ID: &str = "65f7d49a5dd06e2cefa45012";
const CLIENT_ID: &str = "cs-demo";

#[derive(Default)]
struct KoreAi {
    /// Lower-case id → whether the vendor refuses to delete it.
    contacts: BTreeMap<String, bool>,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(KoreAi::default())
}

impl Double for KoreAi {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        self.contacts.insert(identifier.text().to_ascii_lowercase(), held);
    }

    fn holds(&self, identifier: &Identifier) -> bool {
        self.contacts.contains_key(&identifier.text().to_ascii_lowercase())
    }

    fn answer(&mut self, request: &Request<Bytes>, now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = self.respond(request, now_s, &mut deleted);
        Answer { response, deleted }
    }
}

impl KoreAi {
    fn respond(&mut self, request: &Request<Bytes>, now_s: u64, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        #[derive(Deserialize)]
        struct Body {
            ids: Vec<String>,
        }
        if request.uri().path() != PATH {
            return error(StatusCode::UNAUTHORIZED, 4002, "Invalid SDK credentials");
        }
        if request.method() != Method::DELETE {
            return error(StatusCode::METHOD_NOT_ALLOWED, 405, "Method not allowed");
        }
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        if !header("auth").is_some_and(|jwt| is_ours(jwt, now_s)) || header("accountid") != Some(ACCOUNT_ID) {
            return error(StatusCode::UNAUTHORIZED, 4002, "Invalid JWT token");
        }
        let Ok(Body { ids }) = serde_json::from_slice(request.body()) else {
            return error(StatusCode::PRECONDITION_FAILED, 412, "Validation errors");
        };
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for id in &ids {
            let key = id.to_ascii_lowercase();
            match self.contacts.get(&key) {
                Some(false) => {
                    self.contacts.remove(&key);
                    deleted.push(Identifier::Id(id.as_str().into()));
                    successful.push(json!({ "id": id }));
                }
                Some(true) => failed.push(json!({ "id": id, "error": "Contact is in use" })),
                None => failed.push(json!({ "id": id, "error": "Contact not found" })),
            }
        }
        let body = json!({
            "totalRequested": ids.len(), "successful": successful.len(), "failed": failed.len(),
            "successfulRecords": successful, "failedRecords": failed,
        });
        json_reply(StatusCode::OK, &body)
    }
}

fn error(status: StatusCode, code: u32, message: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "errors": [{ "msg": message, "code": code }] }))
}

/// Three parts, HS256, our `appId`, and not over if it says when it ends.
fn is_ours(jwt: &str, now_s: u64) -> bool {
    let part = |text: Option<&str>| -> Option<Value> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text?).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let mut parts = jwt.split('.');
    let (header, payload) = (part(parts.next()), part(parts.next()));
    let signed = parts.next().is_some_and(|signature| !signature.is_empty()) && parts.next().is_none();
    signed
        && header.is_some_and(|header| header["alg"] == "HS256")
        && payload.is_some_and(|payload| {
            payload["appId"] == CLIENT_ID && payload["exp"].as_u64().is_none_or(|exp| exp > now_s)
        })
}
