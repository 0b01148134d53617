//! The terms that every dialect speaks: what a caller asks for and what became of it.
//!
//! These are the words of the inbound contract as Rust types. Nothing here waits, retries,
//! remembers or counts; that is the gateway's part. Above 500 lines because the contract's words are looked up in one place.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Text;

/// Where a contact stands among those that one deletion asks for, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// The three ways in which a caller can name a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentifierKind {
    /// The upstream's own record id.
    Id,
    /// A telephone number in E.164 form.
    Phone,
    /// A third system's id, together with the name of that system.
    External,
}

impl IdentifierKind {
    /// The word that requests and documentation use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Phone => "phone",
            Self::External => "external",
        }
    }
}

/// One contact, as the caller named it. Its text is personal data: `Debug` shows the kind alone.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identifier {
    /// The upstream's own record id, exactly as the caller wrote it.
    Id(Text),
    /// A telephone number: `+`, then 1 to 15 digits.
    Phone(Text),
    /// An id in a third system.
    External {
        /// Which system, for example `salesforce`.
        provider: Arc<str>,
        /// The id there.
        id: Text,
    },
}

impl Identifier {
    /// Which of the three kinds this is.
    #[inline]
    pub fn kind(&self) -> IdentifierKind {
        match self {
            Self::Id(_) => IdentifierKind::Id,
            Self::Phone(_) => IdentifierKind::Phone,
            Self::External { .. } => IdentifierKind::External,
        }
    }

    /// The main text: the id, the number, or the external id.
    #[inline]
    pub fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::Phone(text) | Self::External { id: text, .. } => text,
        }
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(…)", self.kind().as_str())
    }
}

/// One contact to delete: its slot and its identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where the outcome belongs.
    pub slot: Slot,
    /// Whom to delete.
    pub identifier: Identifier,
}

/// What became of one contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An upstream statement that covers this contact says that it is deleted.
    Deleted,
    /// The dialect's own not-found signal for this contact.
    NotFound,
    /// Refused for good, by the gateway or the upstream.
    Rejected,
    /// Not deleted now; it may pass later, or once the set-up is mended.
    Failed,
    /// Sent, and no usable answer: it may or may not be deleted.
    Unknown,
    /// Never sent.
    Skipped,
    /// Accepted, not settled yet.
    Pending,
    /// A dry run would have sent it.
    WouldDelete,
}

impl Outcome {
    /// Every outcome, in the order in which counts are shown.
    pub const ALL: [Self; 8] = [
        Self::Deleted,
        Self::NotFound,
        Self::Rejected,
        Self::Failed,
        Self::Unknown,
        Self::Skipped,
        Self::Pending,
        Self::WouldDelete,
    ];

    /// The word in answers, metrics and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
            Self::Pending => "pending",
            Self::WouldDelete => "would_delete",
        }
    }
}

/// How an outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The upstream named this contact.
    Item,
    /// The HTTP status is the dialect's only documented signal.
    Status,
    /// Totals that account for every contact of the call.
    Aggregate,
    /// Not found, after an attempt that may have deleted it.
    Inferred,
    /// Read back. Reserved.
    Verified,
    /// Nothing is known.
    None,
}

impl Evidence {
    /// The word in answers and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::Status => "status",
            Self::Aggregate => "aggregate",
            Self::Inferred => "inferred",
            Self::Verified => "verified",
            Self::None => "none",
        }
    }
}

/// Why a contact is not known to be absent: the contract's closed list of `error.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "`message` says what each means")]
pub enum FaultCode {
    InvalidIdentifier,
    UnsupportedIdentifier,
    Duplicate,
    Cancelled,
    CircuitOpen,
    DeadlineExceeded,
    ConnectFailed,
    CredentialUnavailable,
    UpstreamValidation,
    UpstreamForbidden,
    UpstreamPrecondition,
    UpstreamPaymentRequired,
    UpstreamUnauthenticated,
    UpstreamMisconfigured,
    UpstreamUnspecified,
    UpstreamRateLimited,
    UpstreamUnavailable,
    ResponseTimeout,
    ConnectionLost,
    UpstreamError,
    ResponseUnreadable,
    ResponseIncomplete,
    ResponseContradictory,
    AcceptedUnconfirmed,
}

impl FaultCode {
    /// The code as answers and documentation write it.
    pub fn as_str(self) -> &'static str {
        self.describe().0
    }

    /// The code with this text.
    pub fn find(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// One sentence for people, that says only what is known.
    pub fn message(self) -> &'static str {
        self.describe().1
    }

    /// The one outcome that this code stands for, unless the contact is in doubt: then it is `unknown`.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::InvalidIdentifier
            | Self::UnsupportedIdentifier
            | Self::UpstreamValidation
            | Self::UpstreamForbidden
            | Self::UpstreamPrecondition
            | Self::UpstreamPaymentRequired => Outcome::Rejected,
            Self::Duplicate | Self::Cancelled | Self::CircuitOpen | Self::DeadlineExceeded => Outcome::Skipped,
            Self::ConnectFailed
            | Self::CredentialUnavailable
            | Self::UpstreamUnauthenticated
            | Self::UpstreamMisconfigured
            | Self::UpstreamUnspecified
            | Self::UpstreamRateLimited
            | Self::UpstreamUnavailable => Outcome::Failed,
            Self::ResponseTimeout
            | Self::ConnectionLost
            | Self::UpstreamError
            | Self::ResponseUnreadable
            | Self::ResponseIncomplete
            | Self::ResponseContradictory
            | Self::AcceptedUnconfirmed => Outcome::Unknown,
        }
    }

    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidIdentifier => (
                "invalid_identifier",
                "The identifier does not have the form that this connection's upstream uses; nothing was sent.",
            ),
            Self::UnsupportedIdentifier => (
                "unsupported_identifier",
                "This connection's upstream cannot delete by this kind of identifier; nothing was sent.",
            ),
            Self::Duplicate => {
                ("duplicate", "The same contact stands earlier in this deletion; its result stands for both.")
            }
            Self::Cancelled => ("cancelled", "The deletion was cancelled before this contact was sent."),
            Self::CircuitOpen => {
                ("circuit_open", "The upstream has been failing and is being left alone; this contact was not sent.")
            }
            Self::DeadlineExceeded => {
                ("deadline_exceeded", "The deletion's time was over before this contact was sent.")
            }
            Self::ConnectFailed => ("connect_failed", "No connection to the upstream could be made; nothing was sent."),
            Self::CredentialUnavailable => (
                "credential_unavailable",
                "The gateway could not obtain a credential for the upstream; nothing was sent.",
            ),
            Self::UpstreamValidation => ("upstream_validation", "The upstream refused the request as invalid."),
            Self::UpstreamForbidden => {
                ("upstream_forbidden", "The upstream does not allow this connection's account to delete the contact.")
            }
            Self::UpstreamPrecondition => {
                ("upstream_precondition", "The upstream refuses to delete the contact in its present state.")
            }
            Self::UpstreamPaymentRequired => {
                ("upstream_payment_required", "The upstream refuses because its account is not paid for.")
            }
            Self::UpstreamUnauthenticated => {
                ("upstream_unauthenticated", "The upstream did not accept the connection's credential.")
            }
            Self::UpstreamMisconfigured => (
                "upstream_misconfigured",
                "The upstream's answer shows that the connection is set up wrongly; the contact was not processed.",
            ),
            Self::UpstreamUnspecified => (
                "upstream_unspecified",
                "The upstream says that the contact was not deleted, and gives no reason that is known.",
            ),
            Self::UpstreamRateLimited => {
                ("upstream_rate_limited", "The upstream takes no more requests for now; the contact was not processed.")
            }
            Self::UpstreamUnavailable => {
                ("upstream_unavailable", "The upstream is out of service for now; the contact was not processed.")
            }
            Self::ResponseTimeout => {
                ("response_timeout", "The upstream did not answer in time; it may have deleted the contact.")
            }
            Self::ConnectionLost => (
                "connection_lost",
                "The connection broke after the request may have been sent; the contact may be deleted.",
            ),
            Self::UpstreamError => {
                ("upstream_error", "The upstream reported an internal error; it may have deleted the contact.")
            }
            Self::ResponseUnreadable => {
                ("response_unreadable", "The upstream's answer could not be read; it may have deleted the contact.")
            }
            Self::ResponseIncomplete => {
                ("response_incomplete", "The upstream's answer does not account for this contact; it may be deleted.")
            }
            Self::ResponseContradictory => (
                "response_contradictory",
                "The upstream's answer contradicts itself about this contact; it may be deleted.",
            ),
            Self::AcceptedUnconfirmed => {
                ("accepted_unconfirmed", "The upstream accepted the request without saying that it was carried out.")
            }
        }
    }

    /// What whoever reads the code can do about it, in a sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::InvalidIdentifier => {
                "Compare the identifier with what the connection takes: `GET /v1/connections/{connection}` says it."
            }
            Self::UnsupportedIdentifier => {
                "Name the contact in one of the ways that `GET /v1/connections/{connection}` lists."
            }
            Self::Duplicate => "Nothing: read the result at `duplicate_of`.",
            Self::Cancelled => "Ask again if the contact is to be deleted after all.",
            Self::CircuitOpen => "Ask again later; the connection's `health` says when it is closed.",
            Self::DeadlineExceeded => {
                "Ask again. If it comes often, the upstream's pace is too slow for what is asked of it."
            }
            Self::ConnectFailed => {
                "Have the operator look at the connection's `base_url`, name and certificate, then ask again."
            }
            Self::CredentialUnavailable => {
                "Have the operator look at the connection's credentials and token URL, then ask again."
            }
            Self::UpstreamValidation => {
                "Look at `upstream.code` in the vendor's documentation. Asking again changes nothing."
            }
            Self::UpstreamForbidden => {
                "Give the connection's account the right to delete this contact at the upstream, then ask again."
            }
            Self::UpstreamPrecondition => "Free the contact at the upstream from what holds it, then ask again.",
            Self::UpstreamPaymentRequired => "Settle the upstream's account, then ask again.",
            Self::UpstreamUnauthenticated => "Have the operator renew the connection's credential, then ask again.",
            Self::UpstreamMisconfigured => {
                "Have the operator compare the connection's settings with the vendor's, then ask again."
            }
            Self::UpstreamUnspecified => "Look at the contact at the upstream; ask again if it is there.",
            Self::UpstreamRateLimited => "Ask again after `retry_after_s`. A lower `rate` of the connection avoids it.",
            Self::UpstreamUnavailable => "Ask again after `retry_after_s`.",
            Self::ResponseTimeout => "Do as `retry` says. If it comes often, raise the connection's `response_ms`.",
            Self::ConnectionLost => {
                "Do as `retry` says: with `verify_first`, look at the upstream before asking again."
            }
            Self::UpstreamError => "Do as `retry` says: with `verify_first`, look at the upstream before asking again.",
            Self::ResponseUnreadable => {
                "Do as `retry` says. If it comes often, something between gateway and upstream changes answers."
            }
            Self::ResponseIncomplete => {
                "Do as `retry` says: with `verify_first`, look at the upstream before asking again."
            }
            Self::ResponseContradictory => {
                "Do as `retry` says: with `verify_first`, look at the upstream before asking again."
            }
            Self::AcceptedUnconfirmed => "Look at the upstream after a while, before asking again.",
        }
    }

    /// Every code, in the order of the contract.
    pub const ALL: [Self; 24] = [
        Self::InvalidIdentifier,
        Self::UnsupportedIdentifier,
        Self::Duplicate,
        Self::Cancelled,
        Self::CircuitOpen,
        Self::DeadlineExceeded,
        Self::ConnectFailed,
        Self::CredentialUnavailable,
        Self::UpstreamValidation,
        Self::UpstreamForbidden,
        Self::UpstreamPrecondition,
        Self::UpstreamPaymentRequired,
        Self::UpstreamUnauthenticated,
        Self::UpstreamMisconfigured,
        Self::UpstreamUnspecified,
        Self::UpstreamRateLimited,
        Self::UpstreamUnavailable,
        Self::ResponseTimeout,
        Self::ConnectionLost,
        Self::UpstreamError,
        Self::ResponseUnreadable,
        Self::ResponseIncomplete,
        Self::ResponseContradictory,
        Self::AcceptedUnconfirmed,
    ];
}

/// What the upstream itself said: its status and its own code, never its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamWord {
    /// The HTTP status.
    pub status: u16,
    /// The upstream's own error code, if it is short, plain and no identifier of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// How long an upstream asks to be left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// So many seconds from now.
    For(u64),
    /// Until this moment, in seconds since 1970-01-01 UTC.
    Until(u64),
}

/// Why one contact, or a whole call, was not settled as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is the matter; it also decides the outcome.
    pub code: FaultCode,
    /// How it is known: `Item` where the upstream named the contact, `Status` where it answered the call.
    pub evidence: Evidence,
    /// The upstream's status and own code, if it answered.
    pub upstream: Option<UpstreamWord>,
    /// How long to wait before another attempt, if the upstream said so.
    pub wait: Option<Wait>,
    /// Whether this very reply proves that the contact is still there. Only the dialect can know;
    /// a refusal of the caller, the company, the scope or the list proves nothing.
    pub still_there: bool,
}

impl Fault {
    /// A fault of which nothing is known but its code.
    pub fn new(code: FaultCode) -> Self {
        Self { code, evidence: Evidence::None, upstream: None, wait: None, still_there: false }
    }

    /// The upstream's reply to the whole call is the reason.
    pub fn of_reply(code: FaultCode, reply: &http::Response<Bytes>) -> Self {
        let word = UpstreamWord { status: reply.status().as_u16(), code: None };
        let evidence = match code.outcome() {
            Outcome::Unknown => Evidence::None,
            _ => Evidence::Status,
        };
        Self { evidence, upstream: Some(word), ..Self::new(code) }
    }

    /// The upstream named this contact.
    pub fn named(mut self) -> Self {
        if self.code.outcome() != Outcome::Unknown {
            self.evidence = Evidence::Item;
        }
        self
    }

    /// This reply proves that the contact is still there.
    pub fn still_there(mut self) -> Self {
        self.still_there = true;
        self
    }

    /// The upstream asks to be left alone for so long.
    pub fn wait(mut self, wait: Option<Wait>) -> Self {
        self.wait = wait;
        self
    }

    /// Adds the upstream's own code, unless it could carry more than a code: it is kept only if it is at
    /// most 40 letters, digits or `_ - .` and neither holds, nor is part of, an identifier of the call.
    pub fn word(mut self, code: Option<&str>, call: &Call) -> Self {
        let plain = |text: &&str| {
            !text.is_empty()
                && text.len() <= 40
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
                && !call.targets.iter().any(|target| match &target.identifier {
                    Identifier::External { provider, id } => overlaps(id, text) || overlaps(provider, text),
                    other => overlaps(other.text(), text),
                })
        };
        if let Some(word) = &mut self.upstream {
            word.code = code.filter(plain).map(str::to_owned);
        }
        self
    }
}

fn overlaps(identifier: &str, code: &str) -> bool {
    identifier.eq_ignore_ascii_case(code)
        || (identifier.len() >= 6 && code.to_ascii_lowercase().contains(&identifier.to_ascii_lowercase()))
        || (code.len() >= 6 && identifier.to_ascii_lowercase().contains(&code.to_ascii_lowercase()))
}

/// One HTTP request to an upstream, without its credential, and the contacts that it covers.
#[derive(Clone)]
pub struct Call {
    /// Method, absolute URI, headers and body, exactly as they go out but for the credential.
    pub request: http::Request<Bytes>,
    /// The contacts that this call covers, in the order in which it names them.
    pub targets: Vec<Target>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} …, {} contacts)", self.request.method(), self.targets.len())
    }
}

/// What a dialect would send for some contacts.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The calls, in the order of their first contact.
    pub calls: Vec<Call>,
    /// Contacts that this dialect cannot send, and why.
    pub refused: Vec<(Slot, Fault)>,
}

/// What one reply says about one contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It says that the contact is deleted.
    Deleted(Evidence),
    /// It gives the dialect's own not-found signal for the contact.
    NotFound(Evidence),
    /// It says something else, or nothing usable.
    Fault(Fault),
}

/// One finding for every contact of a call. What an adapter leaves out stays `response_incomplete`.
#[derive(Debug, Clone)]
pub struct Processed {
    /// What is said of any of them. Most replies say the same of all, and a finding is large.
    findings: Vec<Finding>,
    /// Which of these it is, for each contact of the call.
    said: Vec<u32>,
}

impl PartialEq for Processed {
    fn eq(&self, other: &Self) -> bool {
        self.findings().eq(other.findings())
    }
}
impl Eq for Processed {}

impl Processed {
    /// Starts with nothing said about any contact of the call.
    pub fn nothing_said(call: &Call, reply: &http::Response<Bytes>) -> Self {
        Self::all(call, &Finding::Fault(Fault::of_reply(FaultCode::ResponseIncomplete, reply)))
    }

    /// The same finding for every contact of the call.
    pub fn all(call: &Call, finding: &Finding) -> Self {
        Self { findings: vec![finding.clone()], said: vec![0; call.targets.len()] }
    }

    /// What is said of each contact of the call, in their order, and the same finding for those of which nothing is.
    pub fn said(call: &Call, said: Vec<Option<Finding>>, silent: &Finding) -> Self {
        let mut processed = Self::all(call, silent);
        for (finding, position) in said.into_iter().zip(0..) {
            if let Some(finding) = finding {
                processed.put(position, finding);
            }
        }
        processed
    }

    /// Puts down what is said of the contact at `position` in `call.targets`; out of range changes nothing.
    pub fn put(&mut self, position: usize, finding: Finding) {
        self.put_all(position..position.saturating_add(1), &finding);
    }

    /// The same for contacts that follow each other, of which the same is said.
    pub fn put_all(&mut self, positions: Range<usize>, finding: &Finding) {
        let Some(places) = self.said.get_mut(positions) else { return };
        if self.findings.last() != Some(finding) {
            self.findings.push(finding.clone());
        }
        // A call does not have so many contacts that this would be too small.
        places.fill((self.findings.len() - 1) as u32);
    }

    /// The finding for the contact at `position` in `call.targets`; `None` out of range.
    #[inline]
    pub fn finding(&self, position: usize) -> Option<&Finding> {
        self.findings.get(*self.said.get(position)? as usize)
    }

    /// One finding for each of `call.targets`, in their order.
    pub fn findings(&self) -> impl ExactSizeIterator<Item = &Finding> {
        // `said` holds places in `findings` alone.
        self.said.iter().map(|place| &self.findings[*place as usize])
    }
}

/// What a complete reply means for the contacts that its call covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The upstream processed the call: one finding for each contact.
    Processed(Processed),
    /// The upstream did not process the call.
    TurnedAway(TurnedAway),
    /// Nothing may be assumed; the fault's code is one that means `unknown`.
    Unreadable(Fault),
}

/// Why an upstream did not process a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnedAway {
    /// It did not accept the credential; a renewed one may help.
    Credential(Fault),
    /// It takes no more requests for now. `fault.wait` says how long, if the upstream does.
    Throttled(Fault),
    /// Another reason, the same for every contact of the call.
    Fault(Fault),
}

impl Reading {
    /// The call was processed, and the same holds for all its contacts.
    pub fn for_all(call: &Call, finding: &Finding) -> Self {
        Self::Processed(Processed::all(call, finding))
    }

    /// The call was not processed, for this reason.
    pub fn turned_away(code: FaultCode, reply: &http::Response<Bytes>) -> Self {
        Self::TurnedAway(TurnedAway::Fault(Fault::of_reply(code, reply)))
    }

    /// Nothing may be assumed, for this reason.
    pub fn unreadable(code: FaultCode, reply: &http::Response<Bytes>) -> Self {
        Self::Unreadable(Fault::of_reply(code, reply))
    }

    /// What one attempt alone says of each contact of the call: the reading without the doubt rule.
    pub fn findings(self, call: &Call) -> Vec<Finding> {
        match self {
            Self::Processed(processed) => processed.findings().cloned().collect(),
            Self::TurnedAway(
                TurnedAway::Credential(fault) | TurnedAway::Throttled(fault) | TurnedAway::Fault(fault),
            )
            | Self::Unreadable(fault) => vec![Finding::Fault(fault); call.targets.len()],
        }
    }
}
