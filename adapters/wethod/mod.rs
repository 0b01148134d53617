//! Wethod: one DELETE for one contact, by its number in the path; the HTTP status is all that a success says.
//!
//! Vendor page: <https://docs.wethod.com/reference/delete-contact>.

mod double;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    Call, Evidence, Fault, FaultCode, Finding, Identifier, IdentifierKind, Plan, Reading, Target, TurnedAway, Wait,
};
use crate::dialect::{
    AuthScheme, CredentialForm, Dialect, Grant, IdentifierRule, Member, Pace, Profile, Registration, SettingsError,
    SignIn, read_settings,
};
use crate::url::BaseUrl;
use crate::{grammar, reply};

/// The line for `DIALECTS`.
pub(crate) const DIALECT: Registration = Registration {
    profile: &PROFILE,
    open,
    example: r#"
dialect = "wethod"
base_url = "https://api.wethod.com"
company = "acme"
credentials = { token = "plain:wethod-demo-personal-token" }
"#,
    double: double::new,
    fixtures: &[include_str!("fixtures/exchanges.json")],
};

static PROFILE: Profile = Profile {
    id: "wethod",
    title: "Wethod",
    docs: &["https://docs.wethod.com/reference/delete-contact", "https://docs.wethod.com"],
    style: "DELETE /api/contact/{id}, one contact a call",
    max_contacts_per_call: 1,
    contacts_per_call_ceiling: 1,
    identifiers: &[IdentifierRule {
        kind: IdentifierKind::Id,
        syntax: "a whole number from 1 to 9223372036854775807",
        replay_safe: true,
        accepts: |identifier| matches!(identifier, Identifier::Id(id) if grammar::is_positive_integer(id, MOST)),
        case_blind: false,
    }],
    // "5,000 requests per hour" for a personal token, over all of the API.
    pace: Some(Pace { calls: 5_000, per_s: 3_600 }),
    auth: AuthScheme {
        header: "authorization",
        prefix: "Bearer ",
        forms: &[CredentialForm { members: &[Member { name: "token", secret: true }], grant: Grant::Fixed }],
    },
    evidence: &[Evidence::Status],
    assumptions: &[
        "The route is the singular `api/contact`, as the page prints it, though the other routes are plural: setting `path`.",
        "The page names no headers; `Wethod-Company`, `Wethod-Version` and `2024-06-15` are what public clients send: settings.",
        "204 means what 200 does. A body under either changes nothing, unless it has an error member.",
        "`key: \"not_found\"` under 404 speaks of the contact, not of the company or the route.",
        "Only `key: \"precondition_failure\"` under 412 speaks of the contact's state and so proves that it is there.",
        "422 in the vendor's envelope means what 400 does.",
        "`x-ratelimit-retry-after` is in seconds, or a moment in seconds since 1970 if it is above 1,000,000,000.",
        "An id is not given to another contact later.",
    ],
};

/// The vendor says "integer" and no more; below 2^63 it fits every server's.
const MOST: u64 = i64::MAX as u64;

/// From here on a wait is a moment: so many seconds would be 31 years.
const EPOCH_FROM: u64 = 1_000_000_000;

/// Headers that are set elsewhere, frame the message or belong to one hop (RFC 9110, section 7.6.1).
const RESERVED_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    base_url: String,
    company: String,
    #[serde(default = "default_api_version")]
    api_version: String,
    #[serde(default = "default_company_header")]
    company_header: String,
    #[serde(default = "default_version_header")]
    version_header: String,
    #[serde(default = "default_path")]
    path: String,
}

fn default_api_version() -> String {
    "2024-06-15".to_owned()
}

fn default_company_header() -> String {
    "Wethod-Company".to_owned()
}

fn default_version_header() -> String {
    "Wethod-Version".to_owned()
}

fn default_path() -> String {
    "api/contact".to_owned()
}

#[derive(Debug)]
struct Wethod {
    /// What the id is appended to.
    contacts: BaseUrl,
    headers: HeaderMap,
}

fn open(settings: Value) -> Result<Box<dyn Dialect>, SettingsError> {
    let settings: Settings = read_settings(settings)?;
    let contacts = route(&BaseUrl::parse(&settings.base_url)?, &settings.path)?;
    let company_header = header_name("company_header", &settings.company_header)?;
    let version_header = header_name("version_header", &settings.version_header)?;
    if company_header == version_header {
        return Err(SettingsError::new("version_header", "must not be the same as company_header"));
    }
    let headers = [
        (ACCEPT, HeaderValue::from_static("application/json")),
        (company_header, header_value("company", &settings.company)?),
        (version_header, header_value("api_version", &settings.api_version)?),
    ];
    Ok(Box::new(Wethod { contacts, headers: HeaderMap::from_iter(headers) }))
}

fn route(base: &BaseUrl, path: &str) -> Result<BaseUrl, SettingsError> {
    let wrong = || {
        let why = "must be parts of letters, digits and - . _ ~ with a slash between them, and none at either end";
        SettingsError::new("path", why)
    };
    let segments: Vec<_> = path.split('/').collect();
    let uri = base.join(&segments).ok_or_else(wrong)?;
    BaseUrl::parse(&uri.to_string())
}

fn header_name(key: &str, text: &str) -> Result<HeaderName, SettingsError> {
    HeaderName::try_from(text)
        .ok()
        .filter(|name| !RESERVED_HEADERS.contains(&name.as_str()))
        .ok_or_else(|| SettingsError::new(key, "must be the name of a header that HTTP has no other use for"))
}

fn header_value(key: &str, text: &str) -> Result<HeaderValue, SettingsError> {
    HeaderValue::try_from(text)
        .ok()
        .filter(|_| grammar::is_visible_ascii(text))
        .ok_or_else(|| SettingsError::new(key, "must be printable characters without blanks"))
}

impl Dialect for Wethod {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn plan(&self, targets: Vec<Target>) -> Plan {
        let (sendable, mut refused) = PROFILE.sift(targets);
        let mut calls = Vec::with_capacity(sendable.len());
        for target in sendable {
            match self.contacts.join(&[target.identifier.text()]) {
                Some(uri) => calls.push(self.call(uri, target)),
                // Digits always fit; should they ever not, nothing is sent.
                None => refused.push((target.slot, Fault::new(FaultCode::InvalidIdentifier))),
            }
        }
        Plan { calls, refused }
    }

    fn interpret(&self, call: &Call, reply: &Response<Bytes>) -> Reading {
        let body = reply::any_json::<wire::Body<'_>>(reply);
        let key = body.as_ref().and_then(wire::Body::key);
        let reading = match (reply.status().as_u16(), key) {
            (200 | 204, _) => return done(call, reply, body.as_ref()),
            (404, Some("not_found")) => return Reading::for_all(call, &Finding::NotFound(Evidence::Status)),
            (400 | 422, Some(_)) => Reading::turned_away(FaultCode::UpstreamValidation, reply),
            (412, Some(key)) => precondition(key, reply),
            (429, _) => reply::throttled(wait(reply.headers()), reply),
            // Among them 400, 404, 412 and 422 without Wethod's envelope: something in between answered.
            _ => reply::by_status(reply),
        };
        with_key(reading, key, call)
    }

    fn contacts_of(&self, request: &Request<Bytes>) -> Option<Vec<Identifier>> {
        let (_, id) = request.uri().path().rsplit_once('/')?;
        let ours = self.contacts.join(&[id])?.path() == request.uri().path() && request.uri().query().is_none();
        PROFILE.ids([id]).filter(|_| ours && request.method() == Method::DELETE)
    }

    fn max_contacts_per_call(&self) -> usize {
        1
    }

    fn sign_in(&self) -> Option<&dyn SignIn> {
        None
    }
}

impl Wethod {
    fn call(&self, uri: http::Uri, target: Target) -> Call {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Call { request, targets: vec![target] }
    }
}

/// No body is documented, so the status is the proof; a body only takes it away, by being an error or no JSON.
fn done(call: &Call, reply: &Response<Bytes>, body: Option<&wire::Body<'_>>) -> Reading {
    // No encoding makes nothing of something: an encoded body without a byte is one that got lost.
    let empty = reply.body().is_empty() && !reply::is_encoded(reply);
    match body {
        Some(body) if body.is_error() => {
            with_key(Reading::unreadable(FaultCode::ResponseContradictory, reply), body.key(), call)
        }
        None if !empty => Reading::unreadable(FaultCode::ResponseUnreadable, reply),
        _ => Reading::for_all(call, &Finding::Deleted(Evidence::Status)),
    }
}

/// The documented key is about the contact's state. Another one might be about the company or the API version.
fn precondition(key: &str, reply: &Response<Bytes>) -> Reading {
    let fault = Fault::of_reply(FaultCode::UpstreamPrecondition, reply);
    Reading::TurnedAway(TurnedAway::Fault(if key == "precondition_failure" { fault.still_there() } else { fault }))
}

/// Wethod has a header of its own for the wait; `Retry-After` may come from something in between.
fn wait(headers: &HeaderMap) -> Option<Wait> {
    let own = headers.get("x-ratelimit-retry-after").and_then(|value| value.to_str().ok());
    match own.and_then(|text| reply::whole_seconds(text.trim())) {
        Some(moment) if moment > EPOCH_FROM => Some(Wait::Until(moment)),
        Some(seconds) => Some(Wait::For(seconds)),
        None => reply::retry_after(headers),
    }
}

/// Adds the upstream's own `key` to the reading's fault.
fn with_key(reading: Reading, key: Option<&str>, call: &Call) -> Reading {
    use TurnedAway as T;
    match reading {
        Reading::TurnedAway(T::Credential(fault)) => Reading::TurnedAway(T::Credential(fault.word(key, call))),
        Reading::TurnedAway(T::Throttled(fault)) => Reading::TurnedAway(T::Throttled(fault.word(key, call))),
        Reading::TurnedAway(T::Fault(fault)) => Reading::TurnedAway(T::Fault(fault.word(key, call))),
        Reading::Unreadable(fault) => Reading::Unreadable(fault.word(key, call)),
        Reading::Processed(_) => reading,
    }
}
