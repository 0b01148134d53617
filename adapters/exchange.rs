//! The fixture format: one exchange with an upstream, and the outcomes that one attempt must yield.
//!
//! A fixture file holds `{"dialect": id, "exchanges": [Exchange…]}`. Header values in `<…>`, tokens and Basic
//! credentials are placeholders; everything else is compared, by [`judge`](crate::judge).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::{FaultCode, Finding, Identifier, Outcome, Slot, Target};

/// A fixture file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exchanges {
    /// The dialect's id.
    pub dialect: String,
    /// The exchanges.
    pub exchanges: Vec<Exchange>,
}

/// One exchange with an upstream.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Unique in its file.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// What it shows.
    pub why: String,
    /// The contacts asked for; none in a recorded sign-in.
    pub contacts: Vec<Identifier>,
    /// What must be sent; `None` if nothing may be.
    pub request: Option<WireRequest>,
    /// What the upstream answers.
    pub response: Option<WireResponse>,
    /// The outcome of each contact after this one attempt. A recorded exchange may have none at all.
    pub outcomes: Vec<Expected>,
    /// Settings of the connection other than those of the dialect's example.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, Value>,
    /// The wait that must be read from the reply, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// How sure an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The vendor printed status and shape.
    VendorDocs,
    /// Read in the product's own code, or in public clients.
    SourceCode,
    /// Not published, plausible.
    Inferred,
    /// A fault or a breach.
    Adversarial,
    /// Somebody recorded it.
    Recorded,
}

/// A request as it stands on the wire, path only.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WireRequest {
    /// The method.
    pub method: String,
    /// The path, with its query if there is one.
    pub path: String,
    /// Headers that must be there.
    pub headers: BTreeMap<String, String>,
    /// The body: JSON, or text for a form.
    pub body: Value,
}

/// A reply as it stands on the wire.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WireResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The body's text.
    pub body: String,
}

/// What must become of one contact.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The outcome.
    pub outcome: Outcome,
    /// The `error.code`, if the outcome has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<FaultCode>,
}

impl Expected {
    /// What one attempt alone makes of a contact.
    pub fn of(finding: &Finding) -> Self {
        match finding {
            Finding::Deleted(_) => Self { outcome: Outcome::Deleted, error: None },
            Finding::NotFound(_) => Self { outcome: Outcome::NotFound, error: None },
            Finding::Fault(fault) => Self { outcome: fault.code.outcome(), error: Some(fault.code) },
        }
    }
}

impl Exchange {
    /// The contacts with their slots.
    pub fn targets(&self) -> Vec<Target> {
        let slots = (0..).map(Slot);
        slots.zip(&self.contacts).map(|(slot, identifier)| Target { slot, identifier: identifier.clone() }).collect()
    }
}

impl WireResponse {
    /// As the type that dialects read. Fails on a status or a header that HTTP does not have.
    pub fn to_http(&self) -> Result<http::Response<Bytes>, http::Error> {
        let mut builder = http::Response::builder().status(self.status);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Bytes::from(self.body.clone()))
    }
}
