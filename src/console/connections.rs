//! Connections as rows of a table: health, what is under way, pace, credential.
//!
//! A connection that has not been used has no upstream yet, and nothing is known of its health.

use std::sync::Arc;

use super::Query;
use super::page::{Count, Page, Span};
use crate::desk::Desk;
use crate::outbound::{BreakerState, CredentialStanding, Standing};
use crate::tenants::{Connection, Tenants};

/// Rows on a page.
const ROWS: usize = 50;

const COLUMNS: &[&str] = &["Connection", "Tenant", "Dialect", "Health", "Under way", "Pace", "Credential"];

/// Which connections are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Used,
    Trouble,
}

/// The search, the connections that it finds, and the ways to more of them.
pub(super) fn search(page: &mut Page, desk: &Desk, query: &Query) {
    let text = query.member("q").unwrap_or_default().trim().to_lowercase();
    let show = query.member("show").unwrap_or("all");
    let wanted = match show {
        "used" => Wanted::Used,
        "trouble" => Wanted::Trouble,
        _ => Wanted::All,
    };
    page.raw("<section aria-labelledby=\"connections-title\"><h2 id=\"connections-title\">Connections</h2>");
    page.raw("<form class=\"search\" role=\"search\"><p><label for=\"q\">Tenant, connection or dialect</label>");
    page.raw("<input id=\"q\" name=\"q\" type=\"search\" maxlength=\"100\" value=\"").text(&text).raw("\"></p>");
    page.raw("<p><label for=\"show\">Show</label><select id=\"show\" name=\"show\">");
    for (name, title) in [("all", "all"), ("used", "used since the start"), ("trouble", "in trouble")] {
        page.raw("<option value=\"").raw(name).raw(if name == show { "\" selected>" } else { "\">" }).raw(title);
    }
    page.raw("</select></p><button>Search</button></form>");

    let tenants = desk.tenants();
    let mut found = matching(&tenants, desk, wanted, &text);
    let from = query.number("from").min(found.len());
    let total = found.len();
    let shown: Vec<_> = found.drain(from..total.min(from + ROWS)).collect();
    page.raw("<div id=\"connections\" data-live>");
    match shown.is_empty() {
        true => drop(page.raw("<p>No connection is like that.</p>")),
        false => {
            rows(page, desk, &shown, &format!("{} to {} of {}", from + 1, from + shown.len(), Count(total as u64)))
        }
    }
    page.raw("</div><nav class=\"pages\" aria-label=\"More connections\">");
    let mut link = |from: usize, title: &'static str| {
        page.raw("<a href=\"/console?q=").part(&text).raw("&amp;show=").part(show).raw("&amp;from=").text(from);
        page.raw("#connections-title\">").raw(title).raw("</a> ");
    };
    if from > 0 {
        link(from.saturating_sub(ROWS), "Previous");
    }
    if from + ROWS < total {
        link(from + ROWS, "Next");
    }
    page.raw("</nav></section>");
}

/// A table of these connections.
pub(super) fn rows(page: &mut Page, desk: &Desk, connections: &[Arc<Connection>], which: &str) {
    page.table(format_args!("Connections, {which}"), COLUMNS);
    for connection in connections {
        let standing = desk.opened(connection).map(|upstream| upstream.standing());
        page.row().cell().text(&connection.name).cell().raw("<a href=\"/console/tenants/").part(&connection.tenant);
        page.raw("\">").text(&connection.tenant).raw("</a>").cell().text(connection.registration.profile.id).cell();
        health(page, standing.as_ref());
        page.cell().text(standing.map_or(0, |standing| standing.under_way)).raw(" of ");
        page.text(connection.limits.max_in_flight).cell();
        match connection.limits.rate {
            Some(rate) => drop(page.text(rate.calls).raw(" in ").text(rate.per_s).raw(" s")),
            None => drop(page.raw("off")),
        }
        page.cell();
        credential(page, standing.as_ref());
    }
    page.end_table();
}

/// In the order of their names. Where not all are wanted, only those that have been used are looked at.
fn matching(tenants: &Tenants, desk: &Desk, wanted: Wanted, text: &str) -> Vec<Arc<Connection>> {
    let fits = |connection: &Arc<Connection>| {
        let names = [&*connection.tenant, &*connection.name, connection.registration.profile.id];
        names.iter().any(|name| name.contains(text))
    };
    if wanted == Wanted::All {
        let all = tenants.iter().flat_map(|tenant| tenant.connections.values());
        return all.filter(|connection| fits(connection)).cloned().collect();
    }
    let mut used: Vec<_> = desk
        .all_opened()
        .into_iter()
        .filter(|upstream| wanted == Wanted::Used || is_in_trouble(&upstream.standing()))
        .map(|upstream| Arc::clone(upstream.connection()))
        .filter(fits)
        .collect();
    used.sort_unstable_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
    used
}

/// Whether somebody should look at it.
pub(super) fn is_in_trouble(standing: &Standing) -> bool {
    let signed_out = matches!(standing.credential, CredentialStanding::Paused { .. } | CredentialStanding::Unusable);
    standing.breaker != BreakerState::Closed || standing.left_alone_ms > 0 || signed_out
}

fn health(page: &mut Page, standing: Option<&Standing>) {
    let Some(standing) = standing else {
        page.raw("<span class=\"mark\">not used yet</span>");
        return;
    };
    let (class, word) = match standing.breaker {
        BreakerState::Closed if is_in_trouble(standing) => ("bad", "in trouble"),
        BreakerState::Closed => ("good", "well"),
        BreakerState::HalfOpen => ("bad", "tried again"),
        BreakerState::Open => ("bad", "failing"),
    };
    page.raw("<span class=\"mark ").raw(class).raw("\">").raw(word).raw("</span><small>breaker ");
    page.raw(standing.breaker.as_str());
    if standing.left_alone_ms > 0 {
        page.raw(", left alone for ").text(Span(standing.left_alone_ms));
    }
    page.raw("</small>");
}

/// Its kind and its age, never its value.
fn credential(page: &mut Page, standing: Option<&Standing>) {
    match standing.map(|standing| standing.credential) {
        None => page.raw("not asked for yet"),
        Some(CredentialStanding::Given) => page.raw("from the configuration"),
        Some(CredentialStanding::Signed) => page.raw("signed for each call"),
        Some(CredentialStanding::Token { age_ms, left_ms }) => {
            page.raw("token, ").text(Span(age_ms)).raw(" old, holds for ").text(Span(left_ms))
        }
        Some(CredentialStanding::NotAsked) => page.raw("none held; the next call signs in"),
        Some(CredentialStanding::Paused { left_ms, refused }) => {
            page.raw(if refused {
                "<span class=\"mark bad\">refused</span>"
            } else {
                "<span class=\"mark bad\">failed</span>"
            });
            page.raw("<small>next sign-in in ").text(Span(left_ms)).raw("</small>")
        }
        Some(CredentialStanding::Unusable) => page.raw("<span class=\"mark bad\">unusable</span>"),
    };
}
