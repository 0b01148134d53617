//! ONLYOFFICE's side: a contact store behind the portal's CRM routes.
//!
//! It has the route of one contact and, because that is where a stray identifier would do harm, the route next to
//! it that deletes all contacts. Deletions are hard; a `held` contact stands on an invoice.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::contract::Identifier;
use crate::dialect::{Answer, Double};
use crate::reply::json_reply;

const CONTACTS: &str = "/api/2.0/crm/contact/";
const TOKEN: &str = "onlyoffice-demo-token";

#[derive(Default)]
struct OnlyOffice {
    /// Id → whether the vendor refuses to delete it.
    contacts: BTreeMap<i32, bool>,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(OnlyOffice::default())
}

impl Double for OnlyOffice {
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
        let deleted = deleted.into_iter().map(|id: i32| Identifier::Id(id.to_string().into())).collect();
        Answer { response, deleted }
    }
}

impl OnlyOffice {
    fn respond(&mut self, request: &Request<Bytes>, deleted: &mut Vec<i32>) -> Response<Bytes> {
        // Routes come first, and a method is part of a route; their names do not care for case.
        let path = request.uri().path().to_ascii_lowercase();
        let last = path.strip_prefix(CONTACTS).filter(|_| request.method() == Method::DELETE);
        let is_id = |last: &str| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
        let Some(last) = last.filter(|last| *last == "filter" || is_id(last)) else {
            return plain(StatusCode::NOT_FOUND, "");
        };
        if request.headers().get(AUTHORIZATION).is_none_or(|token| token != TOKEN) {
            let mut reply = plain(StatusCode::UNAUTHORIZED, "Unauthorized");
            let realm = HeaderValue::from_static("Basic Realm=\"portal.example.com\"");
            reply.headers_mut().insert(WWW_AUTHENTICATE, realm);
            return reply;
        }
        if last == "filter" {
            // No criteria: everything that can be deleted.
            deleted.extend(self.contacts.iter().filter(|(_, held)| !**held).map(|(id, _)| *id));
            self.contacts.retain(|_, held| *held);
            return success(&deleted.iter().map(|id| contact(*id)).collect());
        }
        // The route takes any digits, its argument only an int32 above 0. A body is not looked at.
        let Some(id) = last.parse().ok().filter(|id| *id > 0) else {
            return error(StatusCode::BAD_REQUEST, "Invalid argument");
        };
        match self.contacts.get(&id) {
            Some(false) => {
                self.contacts.remove(&id);
                deleted.push(id);
                success(&contact(id))
            }
            Some(true) => error(StatusCode::FORBIDDEN, "Access Denied"),
            None => error(StatusCode::NOT_FOUND, "Not found"),
        }
    }
}

fn number(identifier: &Identifier) -> Option<i32> {
    match identifier {
        Identifier::Id(id) => id.parse().ok(),
        _ => None,
    }
}

fn contact(id: i32) -> Value {
    json!({
        "firstName": "Ada", "lastName": "Example", "displayName": "Ada Example",
        "isCompany": false, "isPrivate": false, "isShared": true, "shareType": 1, "currency": null,
        "canEdit": true, "canDelete": true, "id": id,
    })
}

/// A contact, or a list of them. An empty list has no `count`.
fn success(response: &Value) -> Response<Bytes> {
    let mut body = json!({ "status": 0, "statusCode": 200, "response": response });
    match response.as_array().map_or(1, Vec::len) {
        0 => {}
        count => body["count"] = count.into(),
    }
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
