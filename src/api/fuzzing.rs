//! The readers of the contract, opened for the fuzz targets: each does what its handler does, and nothing else.
//!
//! It is not in any build but theirs, and decides nothing.

use std::time::Duration;

use adapters::Identifier;
use axum::body::Body;
use http::HeaderMap;
use http::request::Parts;

use super::body::{self, BodyLimits, Lines, Media};
use super::deletions::Preferences;
use super::request::{self, ContactRequest, DeletionRequest};
use super::{Problem, auth, idempotency};

/// A contact, as a request names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name of its connection.
    pub connection: Option<String>,
    /// Whom to delete.
    pub identifier: Identifier,
    /// The caller's own word for it.
    pub reference: Option<String>,
}

/// A body of JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its contacts, in order.
    pub contacts: Vec<Asked>,
    /// `connection`, `reason` and `reference`.
    pub texts: [Option<String>; 3],
    /// Whether nothing may be sent.
    pub dry_run: bool,
}

impl From<ContactRequest> for Asked {
    fn from(contact: ContactRequest) -> Self {
        Self {
            connection: contact.connection.map(|text| text.to_string()),
            identifier: contact.identifier,
            reference: contact.reference.map(|text| text.to_string()),
        }
    }
}

/// Reads a body of JSON.
///
/// # Errors
/// What its caller is told.
pub fn request(body: &[u8]) -> Result<Whole, Problem> {
    let DeletionRequest { connection, contacts, dry_run, reason, reference } = request::parse(body)?;
    let contacts = contacts.into_vec().into_iter().map(Asked::from).collect();
    Ok(Whole { contacts, texts: [connection.map(|text| text.to_string()), reason, reference], dry_run })
}

/// A body that arrives in these pieces.
pub fn body(pieces: Vec<Result<Vec<u8>, std::io::Error>>) -> Body {
    Body::from_stream(futures_util::stream::iter(pieces))
}

/// Reads a body of JSON Lines, with the number of each contact's line.
///
/// # Errors
/// What its caller is told, and how many contacts were read before.
pub async fn lines(body: Body) -> Result<Vec<(usize, Asked)>, (usize, Problem)> {
    let limits = BodyLimits { max_bytes: 0, timeout_ms: 10_000, min_bytes_per_s: 0 };
    let mut lines = Lines::new(body, limits);
    let mut contacts = Vec::new();
    loop {
        let next = lines.next().await.map_err(|problem| (contacts.len(), problem))?;
        let Some(line) = next else { return Ok(contacts) };
        match request::parse_line(&line, contacts.len(), lines.number) {
            Ok(contact) => contacts.push((lines.number, contact.into())),
            Err(problem) => return Err((contacts.len(), problem)),
        }
    }
}

/// The gateway key that a request presents, if it has the form of one.
pub fn gateway_key(parts: &Parts) -> Option<&str> {
    auth::presented(&parts.headers)
}

/// The `Idempotency-Key` of a request.
///
/// # Errors
/// What its caller is told.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    idempotency::read(headers)
}

/// Whether a body is JSON Lines.
///
/// # Errors
/// What its caller is told: it is neither that nor JSON.
pub fn is_lines(headers: &HeaderMap) -> Result<bool, Problem> {
    body::media(headers).map(|media| media == Media::Lines)
}

/// How long a caller wants to wait.
pub fn wait(headers: &HeaderMap, max_wait_s: u64) -> Duration {
    Preferences::read(headers, max_wait_s).wait
}
