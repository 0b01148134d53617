//! Problems (RFC 9457): every error that the gateway answers, from one closed list.
//!
//! A problem with `attempted: false` promises that no delete left the gateway. Nothing that a caller sent is repeated
//! in one, but the names of members and connections-to-be that the caller must find again.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::render::ErrorView;

/// One kind of problem: its code, status and title. `/docs/problems/{code}` explains it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The code, for programs.
    pub code: &'static str,
    /// The status.
    pub status: StatusCode,
    /// The title, for people.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

macro_rules! kinds {
    ($($name:ident $code:literal $status:ident $title:literal $cause:literal $remedy:literal;)*) => {
        $(#[doc = $title] pub const $name: Kind =
            Kind { code: $code, status: StatusCode::$status, title: $title, cause: $cause, remedy: $remedy };)*
        /// Every kind of problem.
        pub const KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    INVALID_JSON "invalid_json" BAD_REQUEST "The body is not valid JSON."
        "The body is cut, has something after its end, or is not JSON at all."
        "Send one JSON object in UTF-8. `detail` names the line and column at which reading stopped.";
    INVALID_REQUEST "invalid_request" BAD_REQUEST "The request does not follow the contract."
        "A member, parameter or header is unknown, missing, given twice or of the wrong form; or what came is not strictly HTTP/1.1."
        "Each entry of `errors` names a member by its JSON Pointer (RFC 6901) and says what is wrong with it.";
    UNAUTHENTICATED "unauthenticated" UNAUTHORIZED "A valid gateway key is needed."
        "There is no `Authorization` header, it is not of the form `Bearer KEY`, or the key is nobody's."
        "Send `Authorization: Bearer odk_…` with a key of the tenant. `onedelete key new` makes one.";
    FORBIDDEN "forbidden" FORBIDDEN "The key may not do this."
        "The key has `access = \"read\"`, and the request would delete or cancel something."
        "The key may only read. Use one with `access = \"delete\"`.";
    NOT_FOUND "not_found" NOT_FOUND "There is nothing here."
        "The path is misspelt, the connection or deletion is another tenant's, or the key is limited to other connections."
        "The route, connection or deletion does not exist, or is not this key's. Nothing else is said on purpose.";
    METHOD_NOT_ALLOWED "method_not_allowed" METHOD_NOT_ALLOWED "The route does not take this method."
        "The path is right, and the method is one that it does not take."
        "The `Allow` header lists the methods that it takes.";
    REQUEST_TIMEOUT "request_timeout" REQUEST_TIMEOUT "The body did not arrive in time."
        "The body paused for too long, or came more slowly than `server.min_body_bytes_per_s`."
        "Send the body at once and without long pauses.";
    HEADERS_TOO_LARGE "headers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE "The header lines are too many or too long."
        "There are more header lines than `server.max_headers`, or more bytes in them than `server.max_header_bytes`."
        "Send fewer headers, and shorter ones.";
    TOO_LARGE "too_large" PAYLOAD_TOO_LARGE "The body is too large."
        "The body has more bytes than `server.max_body_bytes`."
        "Split the contacts over several deletions.";
    TOO_MANY_CONTACTS "too_many_contacts" PAYLOAD_TOO_LARGE "There are too many contacts in one deletion."
        "There are more than `deletions.max_contacts` in a JSON body, or than `deletions.max_contacts_streamed` in JSON Lines."
        "Split the contacts over several deletions.";
    UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The body must be JSON or JSON Lines."
        "`Content-Type` is missing or another, its charset is not UTF-8, or there is a `Content-Encoding`."
        "Send `Content-Type: application/json` or `application/x-ndjson`, without a content coding.";
    KEY_REQUIRED "idempotency_key_required" PRECONDITION_REQUIRED "An idempotency key is needed."
        "The tenant's file has `require_idempotency_key = true`, and the request has no `Idempotency-Key`."
        "This tenant asks for an `Idempotency-Key` with every deletion. Send a new one with each new request.";
    KEY_REUSED "idempotency_key_reused" UNPROCESSABLE_ENTITY "The idempotency key was used for another request."
        "An earlier request with this key asked for other contacts, connections, `reason` or `reference`."
        "Send a new key with a new request, and the same key only with the same contacts, connection and options.";
    RATE_LIMITED "rate_limited" TOO_MANY_REQUESTS "The key is used too often."
        "More requests came with this key than its `rate` allows."
        "Try again after the time in `Retry-After`. The key's `rate` in the tenant's file says how often it may be used.";
    TOO_MANY_WRONG_KEYS "too_many_wrong_keys" TOO_MANY_REQUESTS "Too many wrong keys came from this address."
        "More than `server.max_wrong_keys_per_min` keys from this address were nobody's."
        "Try again after the time in `Retry-After`, with a key that is right. Until then none is looked at.";
    OVERLOADED "overloaded" SERVICE_UNAVAILABLE "The gateway has too much to do."
        "Too many requests or streams are under way, too much that was answered is not read yet, or too many contacts are not settled yet, of this tenant or of all."
        "Try again after the time in `Retry-After`. Nothing was sent.";
    STOPPING "stopping" SERVICE_UNAVAILABLE "The gateway is stopping."
        "The gateway was told to stop and lets only end what it has begun."
        "Try again after the time in `Retry-After`, at this or another gateway. Nothing was sent.";
    STORE_UNAVAILABLE "store_unavailable" SERVICE_UNAVAILABLE "The gateway cannot put deletions down."
        "The disk or the database did not take what was to be written, or could not be read."
        "The store failed; the operator must look at it. Without `attempted: false`, look the deletion up before asking again.";
    INTERNAL "internal" SERVICE_UNAVAILABLE "The gateway failed at this request."
        "A mistake in the gateway. What was sent, if anything, is in the store."
        "Ask the operator, with the request id. If the request asked for a deletion, look it up before asking again.";
    CONTACT_REJECTED "contact_rejected" UNPROCESSABLE_ENTITY "The contact was refused."
        "The identifier has a form that this upstream does not use, or the upstream refused for good."
        "`error` says by whom and why. Asking again changes nothing until something else changes.";
    CONTACT_FAILED "contact_failed" BAD_GATEWAY "The contact was not deleted."
        "The upstream could not be reached, or it answered and did not do it."
        "`error` says why, `retry` how to go on.";
    CONTACT_UNKNOWN "contact_unknown" GATEWAY_TIMEOUT "Nobody can know whether the contact was deleted."
        "The request was sent, and no usable answer came back."
        "`error` says why. With retry `verify_first`, look at the upstream before asking again.";
    CONTACT_SKIPPED "contact_skipped" SERVICE_UNAVAILABLE "The contact was not sent."
        "The upstream has been failing and is left alone, the deletion was cancelled, or its time was over."
        "`error` says why. It is safe to ask again.";
}

/// A problem on its way to the caller.
#[derive(Debug)]
pub struct Problem {
    kind: &'static Kind,
    detail: Option<String>,
    errors: Vec<Violation>,
    attempted: Option<bool>,
    outcome: Option<Box<OutcomeView>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What is wrong with one member of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) to the member; for a query parameter or a header, its name.
    pub pointer: String,
    /// What is wrong, for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

/// What became of the shorthand's one contact.
#[derive(Debug, Serialize)]
pub(super) struct OutcomeView {
    pub(super) deletion: String,
    pub(super) outcome: &'static str,
    pub(super) absent: Option<bool>,
    pub(super) error: Option<ErrorView>,
    pub(super) retry: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_s: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempted: Option<bool>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
    #[serde(flatten)]
    outcome: Option<&'a OutcomeView>,
}

impl Problem {
    /// A problem for which nothing was sent.
    pub fn new(kind: &'static Kind) -> Self {
        Self { kind, detail: None, errors: Vec::new(), attempted: Some(false), outcome: None, headers: Vec::new() }
    }

    /// A problem of which it is not said whether anything was sent.
    pub fn unsaid(kind: &'static Kind) -> Self {
        Self { attempted: None, ..Self::new(kind) }
    }

    /// A request that breaks the contract at one place.
    pub fn invalid(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self::violations(vec![Violation { pointer: pointer.into(), code, message: message.into() }])
    }

    /// A request that breaks the contract at these places.
    pub fn violations(errors: Vec<Violation>) -> Self {
        Self { errors, ..Self::new(&INVALID_REQUEST) }
    }

    pub(super) fn of_outcome(kind: &'static Kind, attempted: bool, outcome: OutcomeView) -> Self {
        Self { attempted: Some(attempted), outcome: Some(Box::new(outcome)), ..Self::new(kind) }
    }

    /// Adds a sentence on this occurrence. It must not repeat what the caller sent.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Asks the caller to wait for so many seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The code, for programs.
    pub fn code(&self) -> &'static str {
        self.kind.code
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("/docs/problems/{}", self.kind.code),
            title: self.kind.title,
            status: self.kind.status.as_u16(),
            code: self.kind.code,
            detail: self.detail.as_deref(),
            attempted: self.attempted,
            errors: &self.errors,
            outcome: self.outcome.as_deref(),
        };
        // Texts and numbers cannot fail to serialise; an empty problem would still have its status.
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.kind.status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.kind.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"onedelete\""));
        }
        headers.extend(self.headers);
        response
    }
}
