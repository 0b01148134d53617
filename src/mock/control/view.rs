//! What the journals say, as JSON. Credentials are masked unless they are asked for.
//!
//! Identifiers are not masked: they are what a test compares.

use axum::extract::{Request, State};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::{Answer, Mocked, Problem, answer};
use crate::mock::Mock;
use crate::mock::contact::Written;
use crate::mock::control::query::Query;
use crate::mock::journal::{Entry, Kind};

/// Entries in one answer, unless the query says otherwise, and at most.
const ENTRIES: usize = 1_000;
const MAX_ENTRIES: usize = 10_000;

const MASK: &str = "***";

/// Headers that carry credentials whatever the dialect.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

pub(super) async fn journal(State(mocks): Mocked, request: Request) -> Answer {
    let query = Query::of(&request, &["upstream", "after", "kind", "limit", "credentials"])?;
    let after: usize = query.parse("after", "a number")?.unwrap_or(0);
    let limit = query.parse("limit", "a number")?.unwrap_or(ENTRIES).min(MAX_ENTRIES);
    let kind = query.text("kind").map(kind).transpose()?;
    let with_credentials = query.parse("credentials", "true or false")?.unwrap_or(false);
    let chosen = query.text("upstream").map(|name| mocks.find(name).map(|_| name)).transpose()?;
    let mut entries = Vec::new();
    for (name, mock) in mocks.iter().filter(|(name, _)| chosen.is_none_or(|chosen| chosen == *name)) {
        // One more than asked for says whether there are more.
        let own =
            mock.upstream.state().journal.after(after, limit + 1, |entry| kind.is_none_or(|kind| entry.kind == kind));
        entries.extend(own.into_iter().map(|entry| (name, mock, entry)));
    }
    // Of one upstream they stay in their order.
    entries.sort_by_key(|(_, _, entry)| entry.at_ms);
    let more = entries.len() > limit;
    let shown: Vec<_> =
        entries.iter().take(limit).map(|(name, mock, entry)| show(name, mock, entry, with_credentials)).collect();
    Ok(answer(StatusCode::OK, &json!({ "entries": shown, "more": more })))
}

pub(super) async fn deleted(State(mocks): Mocked, request: Request) -> Answer {
    let query = Query::of(&request, &["upstream"])?;
    let chosen = query.text("upstream").map(|name| mocks.find(name).map(|_| name)).transpose()?;
    let mut all = Vec::new();
    for (name, mock) in mocks.iter().filter(|(name, _)| chosen.is_none_or(|chosen| chosen == *name)) {
        let deleted = mock.deleted();
        let written = |identifier| serde_json::to_value(Written { upstream: Some(name), identifier, held: None });
        all.extend(deleted.iter().map(|identifier| written(identifier).unwrap_or_default()));
    }
    Ok(answer(StatusCode::OK, &all))
}

fn kind(text: &str) -> Result<Kind, Problem> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| Problem::bad("?kind", format!("must be one of {}", known())))
}

fn show(name: &str, mock: &Mock, entry: &Entry, with_credentials: bool) -> Value {
    let mask = !with_credentials;
    let mut shown = json!({
        "upstream": name,
        "n": entry.n,
        "at_ms": entry.at_ms,
        "kind": entry.kind,
        "method": entry.method.as_str(),
        "path": path(entry, mask),
        "headers": headers(&entry.headers, mock.registration().profile.auth.header, mask),
        "asked": entry.asked,
        "deleted": entry.deleted,
        "fault": entry.fault,
        "fault_applied": entry.fault.map(|_| entry.fault_applied),
        "answered": entry.status,
    });
    match serde_json::from_slice::<Value>(&entry.body) {
        // A request for a token has the account's secrets in it.
        _ if mask && entry.sign_in && !entry.body.is_empty() => shown["body_text"] = MASK.into(),
        Ok(json) => shown["body_json"] = json,
        Err(_) => shown["body_text"] = String::from_utf8_lossy(&entry.body).into(),
    }
    shown
}

/// Some vendors take a password in the query.
fn path(entry: &Entry, mask: bool) -> String {
    match entry.path.split_once('?') {
        Some((path, _)) if mask && entry.sign_in => format!("{path}?{MASK}"),
        _ => entry.path.clone(),
    }
}

/// Values that stand there more than once are joined by a comma, as HTTP allows.
fn headers(headers: &HeaderMap, credential: &str, mask: bool) -> Map<String, Value> {
    let mut shown = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let is_secret = name == credential || SECRET_HEADERS.contains(&name.as_str());
        let text = if mask && is_secret { MASK.to_owned() } else { values.collect::<Vec<_>>().join(", ") };
        shown.insert(name.as_str().to_owned(), text.into());
    }
    shown
}
