//! One deletion: how far it is, what became of its contacts, what to do next, and the form that cancels it.
//!
//! Contacts are named by their place in the request alone.

use adapters::Outcome;

use super::door::Visitor;
use super::overview::{progress, state};
use super::page::{Count, Many, Page, Place, Span};
use super::{Console, Query, Unreadable, results};
use crate::clock;
use crate::store::{DeletionId, Summary};

/// Seconds between two looks at one that runs.
const EVERY: u32 = 2;

/// The page of a deletion, if there is one.
pub(super) async fn page(
    console: &Console,
    visitor: &Visitor,
    id: DeletionId,
    query: &Query,
) -> Result<Option<String>, Unreadable> {
    let Some(summary) = console.engine.read(id).await? else { return Ok(None) };
    let asked = results::Asked::of(query, summary.contacts);
    let part = console.engine.page(id, asked.part()).await?;
    let runs = summary.finished_ms.is_none();
    let mut page = Page::new("Deletion", Place::Deletions, Some(visitor), if runs { EVERY } else { 0 });
    page.raw("<p class=\"id\">").text(id).raw("</p><p class=\"updates\"></p>");
    page.raw("<section id=\"state\" data-live aria-label=\"State\">");
    told(&mut page, &summary);
    page.raw("</section>");
    // In steps, so that whoever listens is not told of every contact.
    let tenths = u64::from(summary.tally.total()) * 10 / u64::from(summary.contacts.max(1));
    page.raw("<p id=\"said\" role=\"status\" class=\"heard\">").raw(state(&summary)).raw(", ").text(tenths * 10);
    page.raw(" % settled</p>");
    if runs && summary.cancelled_ms.is_none() {
        page.form(format_args!("/console/deletions/{id}/cancel"), visitor);
        page.raw("<details class=\"cancel\"><summary>Cancel this deletion</summary>");
        page.raw("<p>What was not sent yet is skipped. What was sent may be carried out all the same.</p>");
        page.raw("<p><label><input type=\"checkbox\" name=\"sure\" required> Nothing more shall be sent</label></p>");
        page.raw("<button class=\"danger\">Cancel the deletion</button></details></form>");
    }
    let tenants = console.desk.tenants();
    let tenant = tenants.tenant(&summary.head.tenant).map(|tenant| &**tenant);
    if let Some(part) = part {
        results::reasons(&mut page, &summary, &part, tenant);
        results::list(&mut page, &summary, &part, tenant, &asked);
    }
    Ok(Some(page.end()))
}

fn told(page: &mut Page, summary: &Summary) {
    let head = &summary.head;
    progress(page, summary);
    page.raw("<ul class=\"counts\">");
    for outcome in Outcome::ALL {
        let count = match outcome {
            Outcome::WouldDelete => continue,
            Outcome::Pending => summary.contacts.saturating_sub(summary.tally.total()),
            settled => summary.tally.settled[settled as usize],
        };
        page.raw("<li><span class=\"mark ").raw(outcome.as_str()).raw("\">").raw(outcome.as_str()).raw("</span> ");
        page.text(Count(count.into())).raw("</li>");
    }
    page.raw("</ul><h2>Timeline</h2><ol class=\"timeline\"><li><b>accepted</b> ").moment(head.created_ms).raw("</li>");
    if let Some(cancelled_ms) = summary.cancelled_ms {
        page.raw("<li><b>cancelled</b> ").moment(cancelled_ms).raw("</li>");
    }
    match summary.finished_ms {
        Some(finished_ms) => {
            page.raw("<li><b>finished</b> ").moment(finished_ms).raw(", after ");
            page.text(Span((finished_ms - head.created_ms).max(0) as u64)).raw("</li>");
        }
        None => {
            page.raw("<li><b>runs</b> for ")
                .text(Span((clock::unix_ms() - head.created_ms).max(0) as u64))
                .raw("</li>");
        }
    }
    page.raw("</ol><dl class=\"facts\">").term("State").raw(state(summary)).term("Tenant");
    page.raw("<a href=\"/console/tenants/").part(&head.tenant).raw("\">").text(&head.tenant).raw("</a>");
    page.term("Connections");
    for (n, name) in head.shares.iter().enumerate() {
        page.raw(if n == 0 { "" } else { ", " }).text(name);
    }
    page.term("Contacts").text(Count(summary.contacts.into())).raw(" in ").text(Many(summary.parts.into(), "part"));
    for (term, text) in [("Reason", &head.reason), ("Reference", &head.reference)] {
        if let Some(text) = text {
            page.term(term).text(text);
        }
    }
    page.raw("</dl>");
}
