//! Who asks: a gateway key in `Authorization: Bearer`, or a signed token there, and from it alone the tenant.
//!
//! Known is only each key's SHA-256. Every refusal is the same answer, whatever was wrong: a key whose time is over is one
//! that was never known.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::{Api, Peer, Problem, problem};
use crate::clock;
use crate::tenants::{Access, Connection, Key};

/// The shortest key, in characters.
const SHORTEST_KEY: usize = 32;
/// The longest key that is looked at, in characters.
const LONGEST_KEY: usize = 512;
/// The longest signed token that is looked at, in characters.
const LONGEST_TOKEN: usize = 8_192;

/// A caller with a valid key.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) key: Key,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Self::of(&parts.headers, parts.extensions.get::<Peer>().copied(), api).await
    }
}

impl Caller {
    /// Who sent these headers from there.
    pub(super) async fn of(headers: &HeaderMap, peer: Option<Peer>, api: &Api) -> Result<Self, Problem> {
        // Whoever shows nothing guesses nothing.
        let peer = peer.filter(|_| headers.contains_key(AUTHORIZATION));
        let text = presented(headers);
        let sha256 = text.map(|text| sha256(text.as_bytes()));
        if let Some(wait) = peer.and_then(|peer| api.entry.locked_out(peer, sha256.as_ref())) {
            return Err(Problem::new(&problem::TOO_MANY_WRONG_KEYS).retry_after(whole_seconds(wait)));
        }
        let key = sha256.and_then(|sha256| {
            let tenants = api.desk.tenants();
            let key = tenants.key(&sha256)?;
            // Most keys have no end, and then it is all the same what time it is.
            if key.expires_ms.is_some() && key.has_expired(clock::unix_ms()) {
                return None;
            }
            // The map has found it by its hash; comparing once more in constant time costs nothing.
            aws_lc_rs::constant_time::verify_slices_are_equal(&sha256, &key.sha256).ok()?;
            api.desk.used_key(&sha256);
            Some(key.clone())
        });
        let key = match (key, text) {
            // Boxed, as everything here that is large and rare: each request carries the room for it.
            (None, Some(text)) if is_token(text) && !api.issuers.is_empty() => Box::pin(api.issuers.key(text)).await,
            (key, _) => key,
        };
        let Some(key) = key else {
            peer.inspect(|peer| api.entry.wrong(*peer));
            return Err(Problem::new(&problem::UNAUTHENTICATED));
        };
        peer.zip(sha256).inspect(|(peer, sha256)| api.entry.right(*peer, sha256));
        match key.rate.map_or(Ok(()), |rate| api.entry.request(&key.sha256, rate)) {
            Ok(()) => Ok(Self { key }),
            Err(wait) => Err(Problem::new(&problem::RATE_LIMITED).retry_after(whole_seconds(wait))),
        }
    }

    /// The caller's connection of this name. Others', and those that the key may not use, do not exist.
    pub(super) fn connection(&self, name: &str) -> Result<&Arc<Connection>, Problem> {
        let found = self.key.tenant.connections.get(name).filter(|_| self.key.reaches(name));
        found.ok_or_else(|| Problem::new(&problem::NOT_FOUND))
    }

    /// Fails if the key may only read.
    pub(super) fn may_delete(&self) -> Result<(), Problem> {
        match self.key.access {
            Access::Delete => Ok(()),
            Access::Read => Err(Problem::new(&problem::FORBIDDEN)),
        }
    }
}

/// As `Retry-After` has it: never too short.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

pub(super) fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim_start_matches(' ');
    let longest = if is_token(key) { LONGEST_TOKEN } else { LONGEST_KEY };
    let sound = has_form(key, longest);
    (scheme.eq_ignore_ascii_case("bearer") && sound && values.next().is_none()).then_some(key)
}

/// Whether a text has the form of a key: 32 to 512 visible ASCII characters. No other is looked at.
pub fn is_key(text: &str) -> bool {
    has_form(text, LONGEST_KEY)
}

fn has_form(text: &str, longest: usize) -> bool {
    (SHORTEST_KEY..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text has the form of a signed token (RFC 7515, section 3.1).
fn is_token(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Sixteen bytes of a secret text's SHA-256.
pub fn short_hash(secret: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&sha256(secret.as_bytes())[..16]);
    out
}

/// A key's SHA-256 as tenant files write it: lowercase hex.
pub fn sha256_hex(key: &str) -> String {
    sha256(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
