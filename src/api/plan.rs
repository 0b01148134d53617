//! A dry run: what would be sent, without an identifier or a credential in it. It sends nothing and puts nothing down.

use std::sync::Arc;

use adapters::{Call, Slot};
use serde::Serialize;

use super::submission::Submission;
use crate::engine::Settled;
use crate::store::{Page, Part, Summary, Tally, places};
use crate::tenants::Connection;

/// A call that would be made.
#[derive(Debug, Serialize)]
pub(super) struct PlannedCall {
    connection: Arc<str>,
    method: String,
    url: String,
    contacts: Vec<u32>,
}

/// The results of a dry run, and its calls. `earlier` are the parts before the last one.
pub(super) fn dry_run(submission: Submission, earlier: Vec<Part>) -> (Summary, Vec<Page>, Vec<PlannedCall>) {
    let Submission { accept, connections } = submission;
    let mut pages = Vec::new();
    let mut calls = Vec::new();
    for part in earlier.iter().chain([&*accept.last]) {
        let mut page = part.page();
        let mut put = |slot: Slot, settled: Settled| page.results.put(places(part.first, slot, 1), &settled, |_| {});
        for (connection, share) in connections.iter().zip(0..) {
            let plan = connection.dialect.plan(part.targets(share));
            for (slot, fault) in plan.refused {
                put(slot, Settled::refused_here(&fault));
            }
            for call in &plan.calls {
                call.targets.iter().for_each(|target| put(target.slot, Settled::would_delete()));
                calls.push(planned(connection, call));
            }
        }
        pages.push(page);
    }
    let mut tally = Tally::default();
    pages.iter().for_each(|page| tally.add(&page.results.tally()));
    let summary = Summary {
        finished_ms: Some(accept.head.created_ms),
        cancelled_ms: None,
        contacts: accept.contacts() as u32,
        parts: accept.parts(),
        tally,
        head: accept.head,
    };
    (summary, pages, calls)
}

fn planned(connection: &Connection, call: &Call) -> PlannedCall {
    PlannedCall {
        connection: Arc::clone(&connection.name),
        method: call.request.method().to_string(),
        url: redacted_url(call),
        contacts: call.targets.iter().map(|target| target.slot.0).collect(),
    }
}

/// The call's URL, with `{id}` where an identifier stands in its path.
pub(crate) fn redacted_url(call: &Call) -> String {
    let url = call.request.uri().to_string();
    match (url.rsplit_once('/'), call.targets.as_slice()) {
        (Some((route, last)), [only]) if last == only.identifier.text() => format!("{route}/{{id}}"),
        _ => url,
    }
}
