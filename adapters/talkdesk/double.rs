//! Talkdesk's side: the token endpoint, and one record list behind the bulk delete.
//!
//! A contact that is seeded by phone or external id is a record of its own, with an invented record id. The texts and
//! codes of errors are invented too; the page prints only their shape.

use std::collections::HashMap;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use crate::contract::{Identifier, IdentifierKind};
use crate::dialect::{Answer, Double};
use crate::grammar;
use crate::reply::json_reply;

const TOKEN_PATH: &str = "/oauth/token";
const LIST_ID: &str = "d9be9636-528f-45e8-bdf8-27ffd9ee6085";
const CLIENT_ID: &str = "td-demo";
const CLIENT_SECRET: &str = "talkdesk-demo-client-secret";
const SCOPE: &str = "record-lists:manage";
const TOKEN_LIFE_S: u64 = 600;
const MOST: usize = 100;

#[derive(Default)]
struct Talkdesk {
    contacts: HashMap<Identifier, Record>,
    /// Token → the second in which it is over.
    tokens: HashMap<String, u64>,
    /// Ids and tokens made up so far.
    invented: u64,
}

struct Record {
    id: String,
    held: bool,
}

pub(super) fn new() -> Box<dyn Double> {
    Box::new(Talkdesk::default())
}

impl Double for Talkdesk {
    fn seed(&mut self, identifier: &Identifier, held: bool) {
        let id = match identifier {
            Identifier::Id(id) => id.to_string(),
            _ => self.record_id(),
        };
        self.contacts.insert(key(identifier), Record { id, held });
    }

    fn holds(&self, identifier: &Identifier) -> bool {
        self.contacts.contains_key(&key(identifier))
    }

    fn answer(&mut self, request: &Request<Bytes>, now_s: u64) -> Answer {
        let mut deleted = Vec::new();
        let response = if request.uri().path() == TOKEN_PATH {
            self.token(request, now_s)
        } else {
            self.bulk_delete(request, now_s, &mut deleted)
        };
        Answer { response, deleted }
    }
}

impl Talkdesk {
    fn token(&mut self, request: &Request<Bytes>, now_s: u64) -> Response<Bytes> {
        if request.method() != Method::POST {
            return error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed");
        }
        if !header(request, "authorization").is_some_and(is_our_client) {
            return token_error(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed");
        }
        if header(request, "content-type") != Some("application/x-www-form-urlencoded") {
            return token_error(StatusCode::BAD_REQUEST, "invalid_request", "The body must be a form");
        }
        let form = std::str::from_utf8(request.body()).unwrap_or_default();
        let member = |name: &str| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).and_then(|(_, value)| form_decoded(value)).unwrap_or_default()
        };
        if member("grant_type") != "client_credentials" {
            return token_error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Unsupported grant type");
        }
        if !member("scope").split(' ').any(|scope| scope == SCOPE) {
            return token_error(StatusCode::BAD_REQUEST, "invalid_scope", "The requested scope is invalid");
        }
        self.tokens.retain(|_, end_s| *end_s > now_s);
        self.invented += 1;
        let token = format!("td-token-{}", self.invented);
        self.tokens.insert(token.clone(), now_s.saturating_add(TOKEN_LIFE_S));
        let body = json!({ "access_token": token, "token_type": "bearer", "expires_in": TOKEN_LIFE_S, "scope": SCOPE });
        json_reply(StatusCode::OK, &body)
    }

    fn bulk_delete(&mut self, request: &Request<Bytes>, now_s: u64, deleted: &mut Vec<Identifier>) -> Response<Bytes> {
        let token = header(request, "authorization").and_then(|value| value.strip_prefix("Bearer "));
        if token.and_then(|token| self.tokens.get(token)).is_none_or(|end_s| *end_s <= now_s) {
            return error(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized");
        }
        let path = request.uri().path();
        let list = path.strip_prefix("/record-lists/").and_then(|rest| rest.strip_suffix("/records/bulks"));
        match list {
            None => return error(StatusCode::NOT_FOUND, "not_found", "Resource not found"),
            Some(LIST_ID) => {}
            Some(_) => return error(StatusCode::NOT_FOUND, "not_found", "Record list not found"),
        }
        if request.method() != Method::DELETE {
            return error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed");
        }
        let identifiers = match read_body(request.body()) {
            Ok(identifiers) => identifiers,
            Err(why) => return invalid(why),
        };
        let before = deleted.len();
        let mut failed = Vec::new();
        for identifier in identifiers {
            let key = key(&identifier);
            match self.contacts.get(&key) {
                Some(record) if record.held => failed.push(record.id.clone()),
                Some(_) => {
                    self.contacts.remove(&key);
                    deleted.push(identifier);
                }
                None => failed.push(match identifier {
                    Identifier::Id(id) => id.to_string(),
                    _ => self.record_id(),
                }),
            }
        }
        let list = format!("https://api.talkdeskapp.com/record-lists/{LIST_ID}");
        let link = |id: &String| json!({ "id": id, "_links": { "self": { "href": format!("{list}/records/{id}") } } });
        let body = json!({
            "record_list_id": LIST_ID,
            "has_errors": !failed.is_empty(),
            "total_deleted": deleted.len() - before,
            "total_errors": failed.len(),
            "_links": { "self": { "href": format!("{list}/records/bulks") }, "record_list": { "href": list } },
            "_embedded": { "failed_records": failed.iter().map(link).collect::<Vec<_>>() },
        });
        json_reply(StatusCode::OK, &body)
    }

    fn record_id(&mut self) -> String {
        self.invented += 1;
        format!("5eedfa11-0000-4000-8000-{:012x}", self.invented)
    }
}

/// By what the list finds a contact: record ids are hexadecimal, so their case does not matter.
fn key(identifier: &Identifier) -> Identifier {
    match identifier {
        Identifier::Id(id) => Identifier::Id(id.to_ascii_lowercase().into()),
        other => other.clone(),
    }
}

/// The contacts of a body: 1 to 100, all by the same kind of identifier.
fn read_body(body: &Bytes) -> Result<Vec<Identifier>, &'static str> {
    #[derive(Deserialize)]
    struct Item {
        id: Option<String>,
        phone_number: Option<String>,
        external_provider: Option<String>,
        external_id: Option<String>,
    }
    let items: Vec<Item> = serde_json::from_slice(body).map_err(|_| "must be an array of records")?;
    if !(1..=MOST).contains(&items.len()) {
        return Err("must have 1 to 100 records");
    }
    let identifier = |item: Item| match (item.id, item.phone_number, item.external_provider, item.external_id) {
        (Some(id), None, None, None) if grammar::is_uuid(&id) => Ok(Identifier::Id(id.into())),
        (None, Some(phone), None, None) if (1..=20).contains(&phone.len()) => Ok(Identifier::Phone(phone.into())),
        (None, None, Some(provider), Some(id)) if !provider.is_empty() && !id.is_empty() => {
            Ok(Identifier::External { provider: provider.into(), id: id.into() })
        }
        _ => Err("must have valid record identifiers"),
    };
    let identifiers = items.into_iter().map(identifier).collect::<Result<Vec<_>, _>>()?;
    let kind = identifiers.first().map_or(IdentifierKind::Id, Identifier::kind);
    if identifiers.iter().any(|identifier| identifier.kind() != kind) {
        return Err("must choose one type of resource identifiers");
    }
    Ok(identifiers)
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

fn header<'r>(request: &'r Request<Bytes>, name: &str) -> Option<&'r str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

/// HTTP Basic with form-encoded id and secret (RFC 6749, section 2.3.1).
fn is_our_client(value: &str) -> bool {
    let pair = || {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (id, secret) = text.split_once(':')?;
        Some((form_decoded(id)?, form_decoded(secret)?))
    };
    pair().is_some_and(|(id, secret)| id == CLIENT_ID && secret == CLIENT_SECRET)
}

fn form_decoded(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned())
}
