//! The `Idempotency-Key`: a caller's name for a request, under which it acts once.
//!
//! The ledger keeps two hashes: of tenant, route and key, and of what was asked for, the second one keyed with the key,
//! which is nowhere kept. So nobody who has the ledger can try identifiers until one fits, unless the key is guessed first.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};

use super::Problem;
use super::submission::Submission;
use crate::store::Claim;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key, in characters.
const LONGEST: usize = 255;

/// The claim of a request that has a key. `route` is the route's template.
pub(super) fn claim(headers: &HeaderMap, route: &str, submission: &Submission) -> Result<Option<Claim>, Problem> {
    let Some(key) = read(headers)? else { return Ok(None) };
    let accept = &submission.accept;
    let scope = hash([accept.tenant.as_bytes(), route.as_bytes(), key.as_bytes()]);
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().as_bytes().to_vec();
    let mut parts = vec![text(&accept.reason), text(&accept.reference)];
    for contact in &accept.contacts {
        let Some(connection) = submission.connections.get(contact.share as usize) else { continue };
        // Two spellings of one contact are the same request, where the connection's identifiers have several.
        let identifier = match connection.registration.profile.admit(&contact.identifier) {
            Ok(rule) => rule.key(&contact.identifier).into_owned(),
            Err(_) => format!("{:?}", contact.identifier) + contact.identifier.text(),
        };
        parts.push(connection.name.as_bytes().to_vec());
        parts.push(contact.identifier.kind().as_str().into());
        parts.push(identifier.into_bytes());
        parts.push(contact.reference.as_deref().unwrap_or_default().into());
    }
    Ok(Some(Claim { scope, fingerprint: fingerprint(key, &parts) }))
}

/// The key: a quoted string (RFC 9651, section 3.3.3), or the same without quotes.
fn read(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
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

/// HMAC (RFC 2104) over the same, with the caller's key.
fn fingerprint(key: &str, parts: &[Vec<u8>]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
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
