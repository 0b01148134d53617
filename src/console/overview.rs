//! The first page, and that of the deletions that run.
//!
//! What they count is of this moment; deletions are the ledger's, so that those of other gateways are among them.

use super::connections::{self, is_in_trouble};
use super::door::Visitor;
use super::page::{Count, Many, Page, Place, Span};
use super::{Configuration, Console, Query, Unreadable, charts};
use crate::store::Summary;
use crate::{clock, telemetry};

/// Seconds between two looks.
const OVERVIEW_EVERY: u32 = 5;
const DELETIONS_EVERY: u32 = 2;
/// Deletions on a page.
const DELETIONS: usize = 100;

/// The overview.
pub(super) async fn page(console: &Console, visitor: &Visitor, query: &Query) -> Result<String, Unreadable> {
    let unfinished = console.engine.unfinished(0).await?;
    let mut page = Page::new("Overview", Place::Overview, Some(visitor), OVERVIEW_EVERY);
    let (desk, now_ms) = (&console.desk, clock::unix_ms());
    let (tenants, connections) =
        desk.tenants().iter().fold((0, 0), |(n, all), tenant| (n + 1, all + tenant.connections.len() as u64));
    let (in_flight, most) = desk.in_flight();
    let used = desk.all_opened();
    let trouble = used.iter().filter(|upstream| is_in_trouble(&upstream.standing())).count();
    page.raw("<p class=\"updates\"></p><section id=\"now\" data-live aria-label=\"Now\"><dl class=\"cards\">");
    let healthy = console.engine.healthy();
    page.raw("<div>").term("Store");
    page.raw(if healthy { "<span class=\"mark good\">well</span>" } else { "<span class=\"mark bad\">failed</span>" });
    page.raw("</div><div>").term("Connections in trouble").text(trouble).raw(" <small>of ").text(used.len());
    page.raw(" in use</small></div><div>").term("Calls in flight").text(in_flight).raw(" <small>of ").text(most);
    page.raw("</small></div><div>").term("Contacts not settled").text(Count(unfinished.contacts)).raw(" <small>of ");
    page.text(Many(unfinished.tenants as u64, "tenant"))
        .raw("</small></div><div>")
        .term("Oldest deletion that runs here");
    match telemetry::oldest_ms() {
        Some(since_ms) => page.text(Span((now_ms - since_ms).max(0) as u64)),
        None => page.raw("none"),
    };
    page.raw("</div><div>").term("Configured").text(Many(tenants, "tenant")).raw(" <small>");
    page.text(Many(connections, "connection"))
        .raw("</small></div><div>")
        .term("Gateway")
        .raw(env!("CARGO_PKG_VERSION"))
        .raw(" <small>up for ");
    page.text(Span((now_ms - console.started_ms).max(0) as u64)).raw("</small></div></dl>");
    if let Some(configuration) = (console.configuration)() {
        configured(&mut page, &configuration);
    }
    page.raw("</section>");
    charts::draw(&mut page);
    connections::search(&mut page, desk, query);
    Ok(page.end())
}

/// Which configuration is used, and why a later one is not.
fn configured(page: &mut Page, configuration: &Configuration) {
    page.raw("<h2>Configuration</h2><dl class=\"facts\">").term("Version").text(&configuration.version);
    page.term("Loaded").moment(configuration.loaded_ms);
    if let Some((unix_ms, why)) = &configuration.refused {
        page.term("Refused since").moment(*unix_ms).raw("<p class=\"bad\">").text(why).raw("</p>");
    }
    page.raw("</dl>");
}

/// The deletions that are not finished.
pub(super) async fn deletions(console: &Console, visitor: &Visitor) -> Result<String, Unreadable> {
    let unfinished = console.engine.unfinished(DELETIONS).await?;
    let mut page = Page::new("Deletions that run", Place::Deletions, Some(visitor), DELETIONS_EVERY);
    page.raw("<form class=\"search\" action=\"/console/deletions\"><p><label for=\"id\">A deletion's name</label>");
    page.raw("<input id=\"id\" name=\"id\" maxlength=\"40\" placeholder=\"del_…\" autocomplete=\"off\" spellcheck=\"false\">");
    page.raw("</p><button>Show it</button></form><p class=\"updates\"></p><div id=\"running\" data-live>");
    if unfinished.deletions.is_empty() {
        page.raw("<p>Nothing runs. Finished deletions stand on the pages of their tenants.</p>");
    } else {
        rows(&mut page, "Deletions that are not finished", &unfinished.deletions);
        page.raw("<p>Not settled: ").text(Many(unfinished.contacts, "contact")).raw(" of ");
        page.text(Many(unfinished.tenants as u64, "tenant"));
        page.raw(". Shown are the newest deletions of each tenant, at most 100 in all.</p>");
    }
    page.raw("</div>");
    Ok(page.end())
}

/// A table of deletions.
pub(super) fn rows(page: &mut Page, caption: &'static str, deletions: &[Summary]) {
    page.table(caption, &["Deletion", "Tenant", "Connections", "Accepted", "State", "Progress"]);
    for summary in deletions {
        let head = &summary.head;
        page.row()
            .cell()
            .raw("<a class=\"id\" href=\"/console/deletions/")
            .text(head.id)
            .raw("\">")
            .text(head.id)
            .raw("</a>");
        page.cell().raw("<a href=\"/console/tenants/").part(&head.tenant).raw("\">").text(&head.tenant).raw("</a>");
        page.cell();
        for (n, name) in head.shares.iter().enumerate() {
            page.raw(if n == 0 { "" } else { ", " }).text(name);
        }
        page.cell().moment(head.created_ms).cell().raw(state(summary)).cell();
        progress(page, summary);
    }
    page.end_table();
}

/// How far a deletion is, as a bar and in words.
pub(super) fn progress(page: &mut Page, summary: &Summary) {
    let settled = summary.tally.total().min(summary.contacts);
    page.raw("<progress aria-label=\"Settled contacts\" max=\"")
        .text(summary.contacts)
        .raw("\" value=\"")
        .text(settled);
    page.raw("\"></progress><small>").text(Count(settled.into())).raw(" of ").text(Count(summary.contacts.into()));
    page.raw(" settled</small>");
}

/// A deletion's state in a word.
pub(super) fn state(summary: &Summary) -> &'static str {
    match (summary.finished_ms, summary.cancelled_ms) {
        (Some(_), None) => "finished",
        (Some(_), Some(_)) => "finished, cancelled",
        (None, None) => "running",
        (None, Some(_)) => "being cancelled",
    }
}
