//! Deletions and results as the contract writes them. Identifiers are not known here: index and reference name a contact.

use std::ops::Range;
use std::sync::Arc;

use adapters::{FaultCode, IdentifierRule, Outcome, Profile, UpstreamWord};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::plan::PlannedCall;
use crate::clock;
use crate::engine::{Retry, Settled};
use crate::store::{Page, Summary, Tally};
use crate::tenants::Tenant;

/// A deletion without its results.
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
    cancelled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<&'a [Arc<str>]>,
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Vec<PlannedCall>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results_url: Option<String>,
}

/// A deletion with all its results. Results are most of a large one, and what stands in every one of them needs no escaping:
/// so they are written one after the other, and not as serde would.
pub(super) struct WholeView<'a> {
    view: DeletionView<'a>,
    results: Results<'a>,
}

impl<'a> WholeView<'a> {
    /// A deletion that is put down.
    pub(super) fn new(summary: &'a Summary, pages: &'a [Page], tenant: &'a Tenant) -> Self {
        // Of a deletion that runs, the pages may know more than the summary: what is counted is what is shown.
        let mut tally = Tally::default();
        pages.iter().for_each(|page| tally.add(&page.results.tally()));
        let counts = Counts { requested: summary.contacts, tally };
        let view = DeletionView { counts, ..DeletionView::of(summary) };
        Self { view, results: Results { shares: &summary.head.shares, pages, tenant } }
    }

    /// A dry run is nowhere put down, so it has no id.
    pub(super) fn dry_run(
        summary: &'a Summary,
        pages: &'a [Page],
        tenant: &'a Tenant,
        calls: Vec<PlannedCall>,
    ) -> Self {
        let Self { view, results } = Self::new(summary, pages, tenant);
        Self { view: DeletionView { id: None, dry_run: Some(true), calls: Some(calls), ..view }, results }
    }

    /// It as JSON.
    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(512 + 160 * self.results.count());
        serde_json::to_writer(&mut text, &self.view)?;
        // Its closing brace comes behind the results.
        text.pop();
        text.extend_from_slice(b",\"results\":[");
        self.results.write(&mut text)?;
        text.extend_from_slice(b"]}");
        Ok(text)
    }
}

impl<'a> DeletionView<'a> {
    /// With where its results are.
    pub(super) fn brief(summary: &'a Summary) -> Self {
        let head = &summary.head;
        let results_url = Some(format!("/v1/deletions/{}/results", head.id));
        Self { connections: Some(&head.shares), results_url, ..Self::of(summary) }
    }

    fn of(summary: &'a Summary) -> Self {
        let head = &summary.head;
        Self {
            id: Some(head.id.to_string()),
            dry_run: None,
            state: if summary.finished_ms.is_some() { "finished" } else { "running" },
            created_at: clock::rfc3339(head.created_ms),
            finished_at: summary.finished_ms.map(clock::rfc3339),
            cancelled_at: summary.cancelled_ms.map(clock::rfc3339),
            reason: head.reason.as_deref(),
            reference: head.reference.as_deref(),
            connections: None,
            counts: Counts { requested: summary.contacts, tally: summary.tally },
            calls: None,
            results_url: None,
        }
    }
}

/// How many contacts have which outcome.
struct Counts {
    requested: u32,
    tally: Tally,
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + Outcome::ALL.len()))?;
        map.serialize_entry("requested", &self.requested)?;
        for outcome in Outcome::ALL {
            let count = match outcome {
                Outcome::Pending => self.requested.saturating_sub(self.tally.total()),
                settled => self.tally.settled[settled as usize],
            };
            map.serialize_entry(outcome.as_str(), &count)?;
        }
        map.end()
    }
}

/// The results, in the order of the request.
pub(super) struct Results<'a> {
    shares: &'a [Arc<str>],
    pages: &'a [Page],
    tenant: &'a Tenant,
}

impl Results<'_> {
    fn count(&self) -> usize {
        self.pages.iter().map(|page| page.contacts.len()).sum()
    }

    fn write(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut scribe = Scribe::new(self.shares, self.tenant);
        // Most results are the one before them but for index and reference: what follows these, and the comma, is copied from there.
        let mut before: Option<(u16, &Settled, Range<usize>)> = None;
        for page in self.pages {
            let mut contacts = page.contacts.iter().enumerate();
            for (alike, settled) in page.results.runs() {
                let settled = settled.filter(|settled| settled.duplicate_of.is_none());
                before = before.filter(|(_, same, _)| settled == Some(*same));
                for (n, asked) in contacts.by_ref().take(alike) {
                    if let Some((share, same, rest)) = &before
                        && *share == asked.share
                    {
                        scribe.absent.0.push(same.absent);
                        write_name(text, page.first as usize + n, asked.reference.as_deref())?;
                        text.extend_from_within(rest.clone());
                        continue;
                    }
                    let view = scribe.result(page, n);
                    write_name(text, view.index, view.r#ref)?;
                    let start = text.len();
                    view.write_rest(text)?;
                    text.push(b',');
                    before = settled.map(|settled| (asked.share, settled, start..text.len()));
                }
            }
        }
        // Nothing follows the last one.
        text.pop_if(|last| *last == b',');
        Ok(())
    }
}

/// Writes results one after the other, from the first one on, and remembers what later duplicates need to know of them.
pub(super) struct Scribe<'a> {
    shares: &'a [Arc<str>],
    tenant: &'a Tenant,
    absent: Absences,
}

/// Whether the contacts so far are known to be absent, in the order of slots.
#[derive(Default)]
pub(super) struct Absences(Vec<Option<bool>>);

impl<'a> Scribe<'a> {
    pub(super) fn new(shares: &'a [Arc<str>], tenant: &'a Tenant) -> Self {
        Self::go_on(shares, tenant, Absences::default())
    }

    /// Goes on where another left off.
    pub(super) fn go_on(shares: &'a [Arc<str>], tenant: &'a Tenant, absent: Absences) -> Self {
        Self { shares, tenant, absent }
    }

    /// What whoever goes on needs.
    pub(super) fn pause(self) -> Absences {
        self.absent
    }

    /// The next result: that of the contact at place `n` of a page.
    pub(super) fn result<'p>(&mut self, page: &'p Page, n: usize) -> ResultView<'p>
    where
        'a: 'p,
    {
        let settled = page.results.get(n);
        let absent = match settled.and_then(|settled| settled.duplicate_of) {
            // A twin stands before its duplicates.
            Some(twin) => self.absent.0.get(twin.0 as usize).copied().flatten(),
            None => settled.and_then(|settled| settled.absent),
        };
        self.absent.0.push(absent);
        let asked = page.contacts.get(n);
        let connection = asked.and_then(|asked| self.shares.get(asked.share as usize)).map_or("", |name| name);
        let why = settled.filter(|settled| settled.reason.is_some());
        ResultView {
            index: page.first as usize + n,
            r#ref: asked.and_then(|asked| asked.reference.as_deref()),
            connection,
            outcome: settled.map_or(Outcome::Pending, |settled| settled.outcome).as_str(),
            absent,
            evidence: settled.map_or("none", |settled| settled.evidence.as_str()),
            attempts: settled.map_or(0, |settled| settled.attempts),
            retry: settled.and_then(|settled| settled.retry).map(Retry::as_str),
            retry_after_s: settled.and_then(retry_after_s),
            duplicate_of: settled.and_then(|settled| settled.duplicate_of).map(|slot| slot.0),
            error: why.and_then(|settled| error(settled, profile(self.tenant, connection))),
        }
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

impl ResultView<'_> {
    /// Writes it as serde would. Words of ours and names of connections have nothing in them that JSON escapes.
    pub(super) fn write(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        write_name(text, self.index, self.r#ref)?;
        self.write_rest(text)
    }

    /// What follows index and reference.
    fn write_rest(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        let word = |text: &mut Vec<u8>, before: &str, word: &str| {
            text.extend_from_slice(before.as_bytes());
            text.extend_from_slice(word.as_bytes());
            text.push(b'"');
        };
        word(text, ",\"connection\":\"", self.connection);
        word(text, ",\"outcome\":\"", self.outcome);
        let absent = match self.absent {
            Some(true) => ",\"absent\":true",
            Some(false) => ",\"absent\":false",
            None => ",\"absent\":null",
        };
        text.extend_from_slice(absent.as_bytes());
        word(text, ",\"evidence\":\"", self.evidence);
        text.extend_from_slice(b",\"attempts\":");
        serde_json::to_writer(&mut *text, &self.attempts)?;
        if let Some(retry) = self.retry {
            word(text, ",\"retry\":\"", retry);
        }
        if let Some(seconds) = self.retry_after_s {
            text.extend_from_slice(b",\"retry_after_s\":");
            serde_json::to_writer(&mut *text, &seconds)?;
        }
        if let Some(twin) = self.duplicate_of {
            text.extend_from_slice(b",\"duplicate_of\":");
            serde_json::to_writer(&mut *text, &twin)?;
        }
        if let Some(error) = &self.error {
            text.extend_from_slice(b",\"error\":");
            serde_json::to_writer(&mut *text, error)?;
        }
        text.push(b'}');
        Ok(())
    }
}

/// A result's beginning: which contact it is of.
fn write_name(text: &mut Vec<u8>, index: usize, reference: Option<&str>) -> serde_json::Result<()> {
    text.extend_from_slice(b"{\"index\":");
    serde_json::to_writer(&mut *text, &index)?;
    if let Some(reference) = reference {
        text.extend_from_slice(b",\"ref\":");
        serde_json::to_writer(&mut *text, reference)?;
    }
    Ok(())
}

/// Why a contact is not known to be absent.
#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamWord>,
}

/// The profile behind a connection's name, to say what its identifiers look like.
pub(super) fn profile(tenant: &Tenant, connection: &str) -> Option<&'static Profile> {
    tenant.connections.get(connection).map(|connection| connection.registration.profile)
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

/// Why a contact is not known to be absent, in a sentence that says only what is known.
pub fn reason(settled: &Settled, profile: Option<&'static Profile>) -> Option<String> {
    error(settled, profile).map(|error| error.message)
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
    fn a_result_is_written_as_serde_would() {
        let fault = Fault {
            upstream: Some(UpstreamWord { status: 409, code: Some("a\"b\n".into()) }),
            ..Fault::new(FaultCode::UpstreamError)
        };
        let full = |reference, absent, twin| ResultView {
            index: 10_007,
            r#ref: reference,
            connection: "a-connection_1",
            outcome: Outcome::Unknown.as_str(),
            absent,
            evidence: "none",
            attempts: 4,
            retry: Some(Retry::Safe.as_str()),
            retry_after_s: Some(30),
            duplicate_of: twin,
            error: error(&Settled::unknown(&fault, 4, Retry::Safe), None),
        };
        let mut views = vec![full(None, None, None), full(Some("\u{1f600}\"\\\u{7}/"), Some(true), Some(3))];
        views.push(ResultView { retry: None, retry_after_s: None, error: None, ..full(Some(""), Some(false), None) });
        for view in views {
            let mut text = Vec::new();
            view.write(&mut text).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string(&view).unwrap());
        }
    }

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
