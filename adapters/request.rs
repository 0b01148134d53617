//! Small readers of requests, for doubles: what a server takes from a head, a query or a form.
//!
//! They never fail loudly, whatever the bytes, and decide nothing.

use base64::Engine;
use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::contract::Identifier;

/// Why a request meets no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// There is none with this path.
    Path,
    /// There is one, with another method.
    Method,
}

/// A header's text; `None` if it is not there or no ASCII.
pub(crate) fn header<'r>(request: &'r Request<Bytes>, name: &str) -> Option<&'r str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

/// What stands behind `Bearer ` in `Authorization` (RFC 6750, section 2.1).
pub(crate) fn bearer(request: &Request<Bytes>) -> Option<&str> {
    header(request, AUTHORIZATION.as_str())?.strip_prefix("Bearer ")
}

/// User and password of HTTP Basic (RFC 7617).
pub(crate) fn basic(request: &Request<Bytes>) -> Option<(String, String)> {
    let text = header(request, AUTHORIZATION.as_str())?.strip_prefix("Basic ")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let (user, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// A member of the query, decoded.
pub(crate) fn query(request: &Request<Bytes>, name: &str) -> Option<String> {
    form(request.uri().query()?, name)
}

/// A member of the query that is a whole number.
pub(crate) fn query_number(request: &Request<Bytes>, name: &str) -> Option<usize> {
    query(request, name)?.parse().ok()
}

/// A member of `application/x-www-form-urlencoded` text, decoded.
pub(crate) fn form(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| form_decoded(value))
}

/// Text as it stood before it was put into a form.
pub(crate) fn form_decoded(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned())
}

/// The native ids in a body's list, as far as they can be read: for what a request asks for, good or not.
pub(crate) fn listed_ids(body: &Bytes, member: &str) -> Vec<Identifier> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let items = body.get(member).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(|id| Identifier::Id(id.into())).collect()
}
