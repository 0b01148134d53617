//! Toy Box's side: a box of toys behind the delete.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::contract::Identifier;
use crate::dialect::{Answer, Asked, Double, Limit, Twist};
use crate::reply::{json_reply, with_json};
use crate::request::{header, listed_ids};
use crate::store::{Fate, Store, case_blind_id};

struct Toy {
    toys: Store,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(Toy { toys: Store::new(case_blind_id) })
}

impl Double for Toy {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        self.toys.seed(identifier, held);
    }

    fn held(&self, identifier: &Identifier) -> Option<bool> {
        self.toys.held(identifier)
    }

    fn forget(&mut self, identifier: &Identifier) {
        self.toys.forget(identifier);
    }

    fn contacts(&self) -> Vec<(Identifier, bool)> {
        self.toys.contacts()
    }

    fn asked(&self, request: &Request<Bytes>) -> Asked {
        if is_delete(request) { Asked::Delete(listed_ids(request.body(), "toys")) } else { Asked::Other }
    }

    fn answer(&mut self, request: &Request<Bytes>, _now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = self.respond(request, &mut deleted);
        Answer { response, deleted }
    }

    fn throttled(&self, wait_s: u64) -> Response<Bytes> {
        let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "one at a time");
        reply.headers_mut().insert(RETRY_AFTER, wait_s.into());
        reply
    }

    fn limit(&self) -> Option<Limit> {
        None
    }

    fn twist(&self, twist: Twist, reply: &Response<Bytes>) -> Option<Response<Bytes>> {
        let mut body: Value = serde_json::from_slice(reply.body()).ok()?;
        let toys = body.get_mut("toys")?.as_array_mut()?;
        let gone: Vec<_> = toys.extract_if(.., |toy| toy["state"] == "gone").collect();
        if gone.is_empty() {
            return None;
        }
        match twist {
            Twist::WrongIds => toys.extend(gone.iter().map(|_| json!({ "name": "teddy", "state": "gone" }))),
            Twist::MissingIds => toys.extend(gone.iter().skip(1).cloned()),
            Twist::Contradict => {
                toys.extend(gone.iter().map(|toy| json!({ "name": toy["name"], "state": "kept" })));
                toys.extend(gone);
            }
        }
        Some(with_json(reply, &body))
    }
}

impl Toy {
    fn respond(&mut self, request: &Request<Bytes>, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        #[derive(Deserialize)]
        struct Body {
            toys: Vec<String>,
        }
        if !is_delete(request) {
            return error(StatusCode::NOT_FOUND, "no such route");
        }
        if header(request, "x-toy-token") != Some("toy-demo-token") {
            return error(StatusCode::UNAUTHORIZED, "who are you?");
        }
        let Ok(Body { toys }) = serde_json::from_slice(request.body()) else {
            return error(StatusCode::BAD_REQUEST, "which toys?");
        };
        let mut said = Vec::with_capacity(toys.len());
        for name in toys {
            let identifier = Identifier::Id(name.as_str().into());
            let state = match self.toys.delete(&identifier) {
                Fate::Deleted => {
                    deleted.push(identifier);
                    "gone"
                }
                Fate::Held => "kept",
                Fate::Missing => "never seen",
            };
            said.push(json!({ "name": name, "state": state }));
        }
        json_reply(StatusCode::OK, &json!({ "toys": said }))
    }
}

fn is_delete(request: &Request<Bytes>) -> bool {
    request.uri().path() == "/v1/toys" && request.method() == Method::DELETE
}

fn error(status: StatusCode, why: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "error": why }))
}
