//! A dry run: what would be sent, without an identifier or a credential in it. It sends nothing and puts nothing down.

use std::sync::Arc;

use adapters::{Call, Slot};
use serde::Serialize;

use super::submission::Submission;
use crate::engine::Settled;
use crate::store::Stored;
use crate::tenants::Connection;

/// A call that would be made.
#[derive(Debug, Serialize)]
pub(super) struct PlannedCall {
    connection: Arc<str>,
    method: String,
    url: String,
    contacts: Vec<u32>,
}

/// The results of a dry run, and its calls.
pub(super) fn dry_run(submission: Submission) -> (Stored, Vec<PlannedCall>) {
    let Submission { accept, connections } = submission;
    let mut results: Vec<Option<Settled>> = vec![None; accept.contacts.len()];
    let mut put = |slot: Slot, settled: Settled| {
        if let Some(place) = results.get_mut(slot.0 as usize) {
            *place = Some(settled);
        }
    };
    for (slot, settled) in &accept.settled {
        put(*slot, settled.clone());
    }
    let mut calls = Vec::new();
    for (connection, share) in connections.iter().zip(0..) {
        let plan = connection.dialect.plan(&accept.targets(share));
        for (slot, fault) in plan.refused {
            put(slot, Settled::refused_here(&fault));
        }
        for call in &plan.calls {
            call.targets.iter().for_each(|target| put(target.slot, Settled::would_delete()));
            calls.push(planned(connection, call));
        }
    }
    let stored = accept.stored(Some(accept.created_ms), results);
    (stored, calls)
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
