//! Toy Box's side: a box of toys behind the delete.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::contract::Identifier;
use crate::dialect::{Answer, Double};
use crate::reply::json_reply;

#[derive(Default)]
struct Toy {
    /// Lower-case name → whether the vendor refuses to delete it.
    toys: BTreeMap<String, bool>,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(Toy::default())
}

impl Double for Toy {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        self.toys.insert(identifier.text().to_ascii_lowercase(), held);
    }

    fn holds(&self, identifier: &Identifier) -> bool {
        self.toys.contains_key(&identifier.text().to_ascii_lowercase())
    }

    fn answer(&mut self, request: &Request<Bytes>, _now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = self.respond(request, &mut deleted);
        Answer { response, deleted }
    }
}

impl Toy {
    fn respond(&mut self, request: &Request<Bytes>, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        #[derive(Deserialize)]
        struct Body {
            toys: Vec<String>,
        }
        if request.uri().path() != "/v1/toys" || request.method() != Method::DELETE {
            return error(StatusCode::NOT_FOUND, "no such route");
        }
        if request.headers().get("x-toy-token").is_none_or(|token| token != "toy-demo-token") {
            return error(StatusCode::UNAUTHORIZED, "who are you?");
        }
        let Ok(Body { toys }) = serde_json::from_slice(request.body()) else {
            return error(StatusCode::BAD_REQUEST, "which toys?");
        };
        let mut said = Vec::with_capacity(toys.len());
        for name in toys {
            let key = name.to_ascii_lowercase();
            let state = match self.toys.get(&key) {
                Some(false) => {
                    self.toys.remove(&key);
                    deleted.push(Identifier::Id(name.as_str().into()));
                    "gone"
                }
                Some(true) => "kept",
                None => "never seen",
            };
            said.push(json!({ "name": name, "state": state }));
        }
        json_reply(StatusCode::OK, &json!({ "toys": said }))
    }
}

fn error(status: StatusCode, why: &str) -> Response<Bytes> {
    json_reply(status, &json!({ "error": why }))
}
