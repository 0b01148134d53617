//! What replies mean that no dialect defines, after RFC 9110, and small readers that dialects share.
//!
//! A dialect reads its own signals first and leaves the rest to [`by_status`].

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::contract::{Fault, FaultCode, Reading, TurnedAway, Wait};

/// What a status means where the dialect has no signal of its own for it. Never says that a contact is absent.
pub fn by_status(reply: &Response<Bytes>) -> Reading {
    use FaultCode as C;
    let status = reply.status();
    match status.as_u16() {
        202 => Reading::unreadable(C::AcceptedUnconfirmed, reply),
        // 303 says that something was done and its result stands elsewhere (RFC 9110, 15.4.4).
        200..=299 | 303 => Reading::unreadable(C::ResponseUnreadable, reply),
        300..=399 => Reading::turned_away(C::UpstreamMisconfigured, reply),
        401 => Reading::TurnedAway(TurnedAway::Credential(Fault::of_reply(C::UpstreamUnauthenticated, reply))),
        402 => Reading::turned_away(C::UpstreamPaymentRequired, reply),
        403 => Reading::turned_away(C::UpstreamForbidden, reply),
        // 408: the server gave up waiting; how far it got is not said.
        408 | 500..=599 => {
            let fault = Fault::of_reply(C::UpstreamError, reply);
            Reading::Unreadable(fault.wait(retry_after(reply.headers())))
        }
        429 => throttled(retry_after(reply.headers()), reply),
        400..=499 => Reading::turned_away(C::UpstreamMisconfigured, reply),
        _ => Reading::unreadable(C::ResponseUnreadable, reply),
    }
}

/// The upstream takes no more requests for now.
pub fn throttled(wait: Option<Wait>, reply: &Response<Bytes>) -> Reading {
    let fault = Fault::of_reply(FaultCode::UpstreamRateLimited, reply).wait(wait);
    Reading::TurnedAway(TurnedAway::Throttled(fault))
}

/// The body as a JSON object of this shape, or `None`: empty, cut, encoded, HTML, another shape or duplicate members.
pub fn json<'r, T: Deserialize<'r>>(reply: &'r Response<Bytes>) -> Option<T> {
    any_json::<Object<T>>(reply).map(|Object(body)| body)
}

/// Like [`json`], for replies that need not be objects: `T` must say itself what an array is to it.
pub fn any_json<'r, T: Deserialize<'r>>(reply: &'r Response<Bytes>) -> Option<T> {
    let body = body(reply)?;
    // Looked at as a whole, each of its texts need not be; where it is no UTF-8, that may stand in a text that nobody reads.
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text).ok(),
        Err(_) => serde_json::from_slice(body).ok(),
    }
}

/// The body as a text, or `None`: encoded, or no UTF-8.
pub(crate) fn text(reply: &Response<Bytes>) -> Option<&str> {
    std::str::from_utf8(body(reply)?).ok()
}

fn body(reply: &Response<Bytes>) -> Option<&[u8]> {
    if is_encoded(reply) {
        return None;
    }
    let body = reply.body().as_ref();
    // Some servers start UTF-8 with a byte order mark; RFC 8259, section 8.1, lets readers ignore it.
    Some(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body))
}

/// A JSON object and nothing else: a derived struct would also take an array, and read its items by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Shape(PhantomData))
    }
}

/// Whether the body is compressed: the gateway asks for `identity`, and reads nothing else.
pub fn is_encoded(reply: &Response<Bytes>) -> bool {
    reply.headers().get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3). Anything else counts as absent.
pub fn retry_after(headers: &HeaderMap) -> Option<Wait> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Some(seconds) = whole_seconds(text) {
        return Some(Wait::For(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Wait::Until(since.as_secs()))
}

/// Digits alone, as a number of seconds.
pub fn whole_seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // So many digits that they overflow still mean "very long".
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A reply with a JSON body, for doubles.
pub fn json_reply(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut reply = Response::new(Bytes::from(body.to_string()));
    *reply.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, json);
    reply
}

/// The same reply with another JSON body, for doubles.
pub fn with_json(reply: &Response<Bytes>, body: &serde_json::Value) -> Response<Bytes> {
    reply.clone().map(|_| Bytes::from(body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &'static str, expected: Option<Wait>) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, http::HeaderValue::from_static(value));
        assert_eq!(retry_after(&headers), expected, "{value}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        check("120", Some(Wait::For(120)));
        check("Fri, 31 Dec 1999 23:59:59 GMT", Some(Wait::Until(946_684_799)));
        check("99999999999999999999999", Some(Wait::For(u64::MAX)));
        for odd in ["", "-1", "1.5", "soon", "0x10"] {
            check(odd, None);
        }
    }

    #[test]
    fn no_status_alone_claims_an_absence() {
        for status in 100..=599 {
            let mut reply = Response::new(Bytes::new());
            *reply.status_mut() = StatusCode::from_u16(status).unwrap();
            assert!(!matches!(by_status(&reply), Reading::Processed(_)), "{status}");
        }
    }
}
