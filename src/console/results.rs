//! The results of one part of a deletion: how often which reason, what to do about it, and contact by contact.
//!
//! A part is what can be read at once, so a million contacts are a hundred pages' worth. A contact's own name, which the
//! caller gave it, is not shown: it may be anything.

use std::collections::BTreeMap;

use adapters::{FaultCode, Outcome};

use super::Query;
use super::page::{Count, Page};
use crate::api::reason;
use crate::engine::{Retry, Settled};
use crate::store::{PART, Page as Part, Summary};
use crate::tenants::Tenant;

/// Rows on a page.
const ROWS: usize = 100;
/// Reasons on a page.
const REASONS: usize = 100;

/// Which results are asked for.
pub(super) struct Asked {
    from: usize,
    outcome: Option<Outcome>,
}

impl Asked {
    pub(super) fn of(query: &Query, contacts: u32) -> Self {
        let last = (contacts as usize).saturating_sub(1);
        let named = query.member("outcome");
        let outcome = named.and_then(|name| Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name));
        Self { from: query.number("from").min(last), outcome }
    }

    /// The part that they begin in.
    pub(super) fn part(&self) -> u32 {
        u32::try_from(self.from / PART).unwrap_or(u32::MAX)
    }
}

/// What contacts have in common: their connection, outcome, code, and how to go on.
type Kind<'p> = (&'p str, &'static str, &'static str, &'static str);

/// How many contacts of a part ended in which way, why, and what to do next.
pub(super) fn reasons(page: &mut Page, summary: &Summary, part: &Part, tenant: Option<&Tenant>) {
    let mut kinds: BTreeMap<Kind<'_>, (u64, &Settled)> = BTreeMap::new();
    for (asked, settled) in part.contacts.iter().zip(part.results.iter()) {
        let Some(settled) = settled else { continue };
        let connection = summary.head.shares.get(asked.share as usize).map_or("", |name| name);
        let code = settled.reason.as_ref().map_or("", |reason| reason.code.as_str());
        let retry = settled.retry.map_or("", Retry::as_str);
        kinds.entry((connection, settled.outcome.as_str(), code, retry)).or_insert((0, settled)).0 += 1;
    }
    page.raw("<section id=\"reasons\" data-live aria-labelledby=\"reasons-title\">");
    page.raw("<h2 id=\"reasons-title\">Outcomes, reasons and next steps</h2>");
    if kinds.is_empty() {
        page.raw("<p>Nothing is settled yet.</p></section>");
        return;
    }
    let caption = format!("Contacts {} to {}, by outcome and reason", part.first, last(part));
    page.table(caption, &["Contacts", "Connection", "Outcome", "Reason", "Next step"]);
    for ((connection, outcome, code, _), (contacts, settled)) in kinds.iter().take(REASONS) {
        page.row().cell().text(Count(*contacts)).cell().text(connection).cell();
        page.raw("<span class=\"mark ").raw(outcome).raw("\">").raw(outcome).raw("</span>").cell();
        if !code.is_empty() {
            page.raw("<code>").raw(code).raw("</code> ");
        }
        let profile = tenant.and_then(|tenant| tenant.connections.get(*connection));
        let profile = profile.map(|connection| connection.registration.profile);
        page.prose(reason(settled, profile).as_deref().unwrap_or("–")).cell();
        next_step(page, settled);
    }
    page.end_table().raw("</section>");
}

/// The results themselves.
pub(super) fn list(page: &mut Page, summary: &Summary, part: &Part, tenant: Option<&Tenant>, asked: &Asked) {
    let own = asked.outcome.map_or("", Outcome::as_str);
    page.raw("<section aria-labelledby=\"results-title\"><h2 id=\"results-title\">Results</h2><form class=\"search\">");
    page.raw("<p><label for=\"outcome\">Outcome</label><select id=\"outcome\" name=\"outcome\"><option value=\"\">all");
    for outcome in Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::WouldDelete) {
        page.raw("<option value=\"").raw(outcome.as_str()).raw(if outcome.as_str() == own {
            "\" selected>"
        } else {
            "\">"
        });
        page.raw(outcome.as_str());
    }
    page.raw("</select></p><button>Show</button></form><div id=\"results\" data-live>");
    let outcome_of = |n: usize| part.results.get(n).map_or(Outcome::Pending, |each| each.outcome);
    let first = asked.from.saturating_sub(part.first as usize);
    let mut found =
        (first..part.contacts.len()).filter(|n| asked.outcome.is_none_or(|wanted| outcome_of(*n) == wanted));
    let shown: Vec<_> = found.by_ref().take(ROWS).collect();
    // Behind the part's end, the next part begins.
    let next = found.next().map(|n| part.first as usize + n).or_else(|| {
        let end = part.first as usize + part.contacts.len();
        (end < summary.contacts as usize).then_some(end)
    });
    if shown.is_empty() {
        page.raw("<p>No contact from ").text(asked.from).raw(" to ").text(last(part)).raw(" is like that.</p>");
    } else {
        let caption = format!("Results from contact {} on, by place in the request", asked.from);
        page.table(caption, &["Contact", "Connection", "Outcome", "Evidence", "Attempts", "Code", "Upstream"]);
        for n in shown {
            row(page, summary, part, tenant, n);
        }
        page.end_table();
    }
    page.raw("</div><nav class=\"pages\" aria-label=\"More results\">");
    for (from, title) in [((asked.from > 0).then_some(0), "From the first"), (next, "Next")] {
        if let Some(from) = from {
            page.raw("<a href=\"?outcome=")
                .raw(own)
                .raw("&amp;from=")
                .text(from)
                .raw("#results-title\">")
                .raw(title)
                .raw("</a> ");
        }
    }
    page.raw("</nav></section>");
}

fn row(page: &mut Page, summary: &Summary, part: &Part, tenant: Option<&Tenant>, n: usize) {
    let settled = part.results.get(n);
    let share = part.contacts.get(n).and_then(|asked| summary.head.shares.get(asked.share as usize));
    let connection = share.map_or("", |name| name);
    let outcome = settled.map_or(Outcome::Pending, |settled| settled.outcome).as_str();
    page.row().cell().text(part.first as usize + n).cell().text(connection);
    if tenant.is_some_and(|tenant| !tenant.connections.contains_key(connection)) {
        page.raw(" <small>(not configured any more)</small>");
    }
    page.cell().raw("<span class=\"mark ").raw(outcome).raw("\">").raw(outcome).raw("</span>");
    page.cell().raw(settled.map_or("none", |settled| settled.evidence.as_str()));
    page.cell().text(settled.map_or(0, |settled| settled.attempts)).cell();
    let reason = settled.and_then(|settled| settled.reason.as_ref());
    match (reason, settled.and_then(|settled| settled.duplicate_of)) {
        (Some(reason), Some(twin)) => page.raw("<code>").raw(reason.code.as_str()).raw("</code> of ").text(twin.0),
        (Some(reason), None) => page.raw("<code>").raw(reason.code.as_str()).raw("</code>"),
        (None, _) => page.raw("–"),
    };
    page.cell();
    match reason.and_then(|reason| reason.upstream.as_ref()) {
        Some(said) => drop(page.text(said.status).raw(" ").text(said.code.as_deref().unwrap_or_default())),
        None => drop(page.raw("–")),
    }
}

/// What to do about it. Of a contact in doubt, the remedy of the last attempt alone would say too much.
fn next_step(page: &mut Page, settled: &Settled) {
    let code = settled.reason.as_ref().map(|reason| reason.code);
    match settled.retry {
        Some(Retry::VerifyFirst) => {
            page.raw("Look at the upstream whether the contact is still there before it is asked for again. ");
        }
        Some(Retry::After(seconds)) => {
            page.raw("It can be asked for again after ").text(seconds).raw(" s. ");
        }
        Some(Retry::Safe | Retry::Never) | None => {}
    }
    match (code.filter(|code: &FaultCode| code.outcome() == settled.outcome), settled.retry) {
        (Some(code), _) => drop(page.prose(code.remedy())),
        (None, None) => drop(page.raw("Nothing.")),
        (None, Some(Retry::Safe)) => drop(page.raw("It can be asked for again.")),
        (None, Some(_)) => {}
    }
}

fn last(part: &Part) -> usize {
    (part.first as usize + part.contacts.len()).saturating_sub(1)
}
