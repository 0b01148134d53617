//! Deletions and results as the contract writes them. Identifiers are not known here: index and reference name a contact.

use adapters::{FaultCode, IdentifierRule, Outcome, Profile, UpstreamWord};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::plan::PlannedCall;
use crate::clock;
use crate::engine::{Retry, Settled};
use crate::store::Stored;
use crate::tenants::Tenant;

/// A deletion with its results.
#[derive(Serialize)]
pub(super) struct DeletionView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    state: &'static str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Vec<PlannedCall>>,
    results: Results<'a>,
}

impl<'a> DeletionView<'a> {
    /// A dry run is nowhere put down, so it has no id.
    pub(super) fn dry_run(stored: &'a Stored, tenant: &'a Tenant, calls: Vec<PlannedCall>) -> Self {
        Self { id: None, dry_run: Some(true), calls: Some(calls), ..Self::new(stored, tenant) }
    }

    pub(super) fn new(stored: &'a Stored, tenant: &'a Tenant) -> Self {
        Self {
            id: Some(stored.id.to_string()),
            dry_run: None,
            state: if stored.finished_ms.is_some() { "finished" } else { "running" },
            created_at: clock::rfc3339(stored.created_ms),
            finished_at: stored.finished_ms.map(clock::rfc3339),
            reason: stored.reason.as_deref(),
            reference: stored.reference.as_deref(),
            counts: Counts::of(&stored.results),
            calls: None,
            results: Results { stored, tenant },
        }
    }
}

/// How many contacts have which outcome.
pub(super) struct Counts([usize; Outcome::ALL.len()]);

impl Counts {
    pub(super) fn of(results: &[Option<Settled>]) -> Self {
        let mut counts = [0; Outcome::ALL.len()];
        for result in results {
            counts[result.as_ref().map_or(Outcome::Pending, |settled| settled.outcome) as usize] += 1;
        }
        Self(counts)
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.0.len()))?;
        map.serialize_entry("requested", &self.0.iter().sum::<usize>())?;
        for outcome in Outcome::ALL {
            map.serialize_entry(outcome.as_str(), &self.0[outcome as usize])?;
        }
        map.end()
    }
}

/// The results, in the order of the request.
pub(super) struct Results<'a> {
    stored: &'a Stored,
    tenant: &'a Tenant,
}

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.stored.results.len()))?;
        for index in 0..self.stored.results.len() {
            list.serialize_element(&ResultView::new(self.stored, index, self.tenant))?;
        }
        list.end()
    }
}

/// One contact's result.
#[derive(Serialize)]
pub(super) struct ResultView<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#ref: Option<&'a str>,
    connection: &'a str,
    outcome: &'static str,
    absent: Option<bool>,
    evidence: &'static str,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_of: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

/// Why a contact is not known to be absent.
#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamWord>,
}

impl<'a> ResultView<'a> {
    pub(super) fn new(stored: &'a Stored, index: usize, tenant: &Tenant) -> Self {
        let asked = stored.contacts.get(index);
        let connection = asked.and_then(|asked| stored.shares.get(asked.share as usize)).map_or("", |name| name);
        let settled = stored.results.get(index).and_then(Option::as_ref);
        Self {
            index,
            r#ref: asked.and_then(|asked| asked.reference.as_deref()),
            connection,
            outcome: settled.map_or(Outcome::Pending, |settled| settled.outcome).as_str(),
            absent: absent(stored, index),
            evidence: settled.map_or("none", |settled| settled.evidence.as_str()),
            attempts: settled.map_or(0, |settled| settled.attempts),
            retry: settled.and_then(|settled| settled.retry).map(Retry::as_str),
            retry_after_s: settled.and_then(retry_after_s),
            duplicate_of: settled.and_then(|settled| settled.duplicate_of).map(|slot| slot.0),
            error: settled.and_then(|settled| error(settled, profile(tenant, connection))),
        }
    }
}

/// The profile behind a connection's name, to say what its identifiers look like.
pub(super) fn profile(tenant: &Tenant, connection: &str) -> Option<&'static Profile> {
    tenant.connections.get(connection).map(|connection| connection.registration.profile)
}

/// Whether a contact is known to be absent; a duplicate is what its twin is.
pub(super) fn absent(stored: &Stored, index: usize) -> Option<bool> {
    let settled = stored.results.get(index)?.as_ref()?;
    match settled.duplicate_of {
        Some(twin) => stored.results.get(twin.0 as usize)?.as_ref()?.absent,
        None => settled.absent,
    }
}

/// Whether every contact is known to be absent.
pub(super) fn all_absent(stored: &Stored) -> bool {
    (0..stored.results.len()).all(|index| absent(stored, index) == Some(true))
}

pub(super) fn retry_after_s(settled: &Settled) -> Option<u64> {
    match settled.retry {
        Some(Retry::After(seconds)) => Some(seconds),
        _ => None,
    }
}

pub(super) fn error(settled: &Settled, profile: Option<&'static Profile>) -> Option<ErrorView> {
    let reason = settled.reason.as_ref()?;
    Some(ErrorView {
        code: reason.code.as_str(),
        message: message(settled, reason.code, profile),
        upstream: reason.upstream.clone(),
    })
}

/// The code's sentence; for identifiers, with what the connection takes. Of a contact in doubt, the sentence of the last
/// attempt alone would say too much.
fn message(settled: &Settled, code: FaultCode, profile: Option<&'static Profile>) -> String {
    if settled.outcome == Outcome::Unknown && code.outcome() != Outcome::Unknown {
        let code = code.as_str();
        return format!("The last attempt ended with `{code}`; an earlier one may have deleted the contact.");
    }
    if settled.sent && matches!(code, FaultCode::ConnectFailed | FaultCode::CredentialUnavailable) {
        let code = code.as_str();
        return format!("The last attempt ended with `{code}`; the upstream turned an earlier one away.");
    }
    let takes = match (code, profile) {
        (FaultCode::InvalidIdentifier | FaultCode::UnsupportedIdentifier, Some(profile)) => profile.identifiers,
        _ => return code.message().to_owned(),
    };
    let takes: Vec<_> = takes.iter().map(describe).collect();
    format!("{} This connection takes {}.", code.message(), takes.join("; "))
}

fn describe(rule: &IdentifierRule) -> String {
    format!("`{}`: {}", rule.kind.as_str(), rule.syntax)
}

#[cfg(test)]
mod tests {
    use adapters::Fault;

    use super::*;

    #[test]
    fn no_message_says_more_than_the_outcome() {
        for code in FaultCode::ALL {
            let fault = Fault::new(code);
            let doubt = Settled { sent: true, ..Settled::unknown(&fault, 2, Retry::Safe) };
            let text = message(&doubt, code, None);
            for claim in ["nothing was sent", "was not processed", "was not sent", "was not deleted"] {
                assert!(!text.contains(claim), "{code:?}: {text}");
            }
            assert!(text.contains("may") || code == FaultCode::AcceptedUnconfirmed, "{code:?}: {text}");
            let tried = Settled { sent: true, ..Settled::fault(&fault, 2, Retry::Safe) };
            let sent_for_sure = !matches!(code.outcome(), Outcome::Skipped) && code != FaultCode::InvalidIdentifier;
            if sent_for_sure && code != FaultCode::UnsupportedIdentifier {
                assert!(!message(&tried, code, None).contains("nothing was sent"), "{code:?}");
            }
        }
    }
}
