//! What the control API answers when it does not do what it was asked for (RFC 9457).
//!
//! A problem never repeats a value that was sent.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::mock::fleet::UnknownUpstream;

/// A problem on its way out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// Where in the body, as a JSON Pointer (RFC 6901), or which parameter of the query.
    at: Option<String>,
    /// What there is instead.
    known: Vec<String>,
}

#[derive(Serialize)]
struct Body<'p> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'p str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    known: &'p [String],
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), at: None, known: Vec::new() }
    }

    /// A body or a query that cannot be used.
    pub(super) fn bad(at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { at: Some(at.into()), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// A rule, an upstream or a route that there is not.
    pub(super) fn unknown(detail: &str, known: Vec<String>) -> Self {
        Self { known, ..Self::new(StatusCode::NOT_FOUND, detail) }
    }
}

impl From<UnknownUpstream> for Problem {
    fn from(err: UnknownUpstream) -> Self {
        Self::unknown("There is no upstream with this name.", err.known)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            pointer: self.at.as_deref(),
            known: &self.known,
        };
        // Texts and numbers cannot fail to be written; an empty problem would still have its status.
        let mut response = (self.status, serde_json::to_vec(&body).unwrap_or_default()).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
