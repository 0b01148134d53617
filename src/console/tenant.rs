//! One tenant: its connections, its keys with the day of their last use, its deletions.
//!
//! Of a key it knows the name. When it was last used is remembered since this gateway started, and no longer.

use super::door::Visitor;
use super::page::{Page, Place};
use super::{Console, Query, Unreadable, connections, overview};
use crate::clock;
use crate::store::Filter;
use crate::tenants::{Access, Key, Tenant};

/// Deletions on a page.
const DELETIONS: usize = 25;

/// The page of a tenant, if it is configured.
pub(super) async fn page(
    console: &Console,
    visitor: &Visitor,
    id: &str,
    query: &Query,
) -> Result<Option<String>, Unreadable> {
    let tenants = console.desk.tenants();
    let Some(tenant) = tenants.tenant(id) else { return Ok(None) };
    let filter = Filter {
        tenant: tenant.id.clone(),
        finished: None,
        reference: None,
        connection: None,
        within: None,
        before: query.member("before").and_then(|id| id.parse().ok()),
        most: DELETIONS,
    };
    let deletions = console.engine.list(filter).await?;
    let mut page = Page::new(format_args!("Tenant {id}"), Place::Elsewhere, Some(visitor), 0);
    let all: Vec<_> = tenant.connections.values().cloned().collect();
    page.raw("<section aria-labelledby=\"connections-title\"><h2 id=\"connections-title\">Connections</h2>");
    connections::rows(&mut page, &console.desk, &all, "all of this tenant");
    page.raw("</section>");
    let mut own: Vec<_> = tenants.keys().filter(|key| key.tenant.id == tenant.id).collect();
    own.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    keys(&mut page, console, tenant, &own);
    page.raw("<section aria-labelledby=\"deletions-title\"><h2 id=\"deletions-title\">Deletions</h2>");
    if deletions.is_empty() {
        page.raw("<p>There is none.</p>");
    } else {
        overview::rows(&mut page, "Deletions, the newest first", &deletions);
    }
    if let Some(last) = deletions.last().filter(|_| deletions.len() == DELETIONS) {
        page.raw("<nav class=\"pages\" aria-label=\"More deletions\"><a href=\"?before=").text(last.head.id);
        page.raw("#deletions-title\">Older</a></nav>");
    }
    page.raw("</section>");
    Ok(Some(page.end()))
}

fn keys(page: &mut Page, console: &Console, tenant: &Tenant, keys: &[&Key]) {
    page.raw("<section aria-labelledby=\"keys-title\"><h2 id=\"keys-title\">Keys</h2>");
    if !keys.is_empty() {
        page.table("Keys of this tenant", &["Key", "May", "Connections", "Works until", "Last used"]);
    }
    for key in keys {
        page.row().cell().text(&key.name).cell();
        page.raw(match key.access {
            Access::Read => "read",
            Access::Delete => "delete and read",
        });
        page.cell();
        match &key.connections {
            None => drop(page.raw("all")),
            Some(names) => drop(page.text(names.iter().map(|name| &**name).collect::<Vec<_>>().join(", "))),
        }
        page.cell();
        match key.expires_ms {
            None => page.raw("no end"),
            Some(_) if key.has_expired(clock::unix_ms()) => page.raw("<span class=\"mark bad\">over</span>"),
            Some(end_ms) => page.text(clock::rfc3339(end_ms)),
        };
        page.cell();
        match console.desk.key_last_used_ms(&key.sha256) {
            Some(day_ms) => page.text(clock::rfc3339(day_ms).split('T').next().unwrap_or_default()).raw(" UTC"),
            None => page.raw("not since this gateway started"),
        };
    }
    if !keys.is_empty() {
        page.end_table();
    }
    if !tenant.token_rules.is_empty() {
        page.raw("<p>Signed tokens of ").text(tenant.token_rules.len()).raw(" issuers are taken as well.</p>");
    }
    page.raw("</section>");
}
