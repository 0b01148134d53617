//! The `Idempotency-Key`: a caller's name for a request, under which it acts once.
//!
//! The ledger keeps two hashes: of tenant, route and key, and of what was asked for, the second one keyed with the key,
//! which is nowhere kept. So nobody who has the ledger can try identifiers until one fits, unless the key is guessed first.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};

use super::{Problem, problem};
use crate::store::Claim;
use crate::tenants::Tenant;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key, in characters.
const LONGEST: usize = 255;

/// A caller's key for a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestKey<'h> {
    text: &'h str,
    scope: [u8; 32],
}

impl<'h> RequestKey<'h> {
    /// The key of a request, if it has one. `route` is the route's template.
    pub(super) fn read(headers: &'h HeaderMap, route: &str, tenant: &Tenant) -> Result<Option<Self>, Problem> {
        let Some(text) = read(headers)? else {
            return if tenant.require_idempotency_key { Err(Problem::new(&problem::KEY_REQUIRED)) } else { Ok(None) };
        };
        Ok(Some(Self { text, scope: hash([tenant.id.as_bytes(), route.as_bytes(), text.as_bytes()]) }))
    }
}

/// A hash of everything that a request asks for under a key: HMAC (RFC 2104) with the key, over parts that are each
/// preceded by their length.
pub(super) struct Fingerprint {
    scope: [u8; 32],
    /// Boxed: it is large, and most requests have none.
    hmac: Box<hmac::Context>,
}

impl Fingerprint {
    pub(super) fn new(key: RequestKey<'_>, reason: Option<&str>, reference: Option<&str>) -> Self {
        let hmac = Box::new(hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.text.as_bytes())));
        let mut fingerprint = Self { scope: key.scope, hmac };
        for text in [reason, reference] {
            fingerprint.part(text.unwrap_or_default().as_bytes());
        }
        fingerprint
    }

    /// One contact; the identifier as its connection reads it.
    pub(super) fn add(&mut self, connection: &str, kind: &str, identifier: &[u8], reference: &str) {
        for part in [connection.as_bytes(), kind.as_bytes(), identifier, reference.as_bytes()] {
            self.part(part);
        }
    }

    /// The claim to all of it. The key of a deletion that was finished before a moment is free again.
    pub(super) fn claim(self, free_before_ms: i64) -> Claim {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(self.hmac.sign().as_ref());
        Claim { scope: self.scope, fingerprint, free_before_ms }
    }

    fn part(&mut self, part: &[u8]) {
        self.hmac.update(&(part.len() as u64).to_be_bytes());
        self.hmac.update(part);
    }
}

/// The key: a quoted string (RFC 9651, section 3.3.3), or the same without quotes.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let wrong = || {
        let message = format!("must be one text of 1 to {LONGEST} printable characters, quoted or not");
        Problem::invalid("Idempotency-Key", "invalid_key", message)
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let plain = key.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if values.next().is_some() || key.is_empty() || key.len() > LONGEST || !plain {
        return Err(wrong());
    }
    Ok(Some(key))
}

/// SHA-256 over parts of any length: each is preceded by its length, so that no two lists look the same.
fn hash<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: Result<Option<&str>, ()>) {
        let headers = values.iter().map(|value| (IDEMPOTENCY_KEY, value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        assert_eq!(read(&headers).map_err(drop), expected, "{values:?}");
    }

    #[test]
    fn a_key_may_be_quoted() {
        check(&[], Ok(None));
        check(&["abc"], Ok(Some("abc")));
        check(&["\"8e03978e-40d5\""], Ok(Some("8e03978e-40d5")));
        for bad in ["", "\"\"", "\"", "a b", "a\"b", "a\\b"] {
            check(&[bad], Err(()));
        }
        check(&["a", "a"], Err(()));
        check(&["x".repeat(256).as_str()], Err(()));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash([b"ab".as_slice(), b"c"]), hash([b"a".as_slice(), b"bc"]));
    }
}
