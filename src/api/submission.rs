//! From a request to what the ledger accepts: connections found, identifiers checked, duplicates set aside.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use adapters::Slot;

use super::auth::Caller;
use super::request::{ContactRequest, DeletionRequest};
use super::{Problem, problem};
use crate::clock;
use crate::engine::Settled;
use crate::store::{Accept, Contact, DeletionId};
use crate::tenants::Connection;

/// A deletion that can be accepted, and the connection of each of its shares.
pub(super) struct Submission {
    pub(super) accept: Accept,
    pub(super) connections: Vec<Arc<Connection>>,
}

/// Finds the connection of every contact; one that does not exist refuses the whole request.
pub(super) fn prepare(caller: &Caller, request: DeletionRequest) -> Result<Submission, Problem> {
    let tenant = &caller.key.tenant;
    let fallback = request.connection.map(Arc::from).or_else(|| tenant.default_connection.clone());
    let mut connections: Vec<Arc<Connection>> = Vec::new();
    let mut shares: HashMap<Arc<str>, u16> = HashMap::new();
    let mut contacts = Vec::with_capacity(request.contacts.len());
    for (n, ContactRequest { connection, identifier, reference }) in request.contacts.into_iter().enumerate() {
        let Some(name) = connection.as_ref().or(fallback.as_ref()) else {
            let message = "names no connection, and neither the request nor the tenant has a default";
            return Err(Problem::invalid(format!("/contacts/{n}"), "no_connection", message));
        };
        let share = match shares.get(name) {
            Some(share) => *share,
            None => {
                let found = caller.connection(name)?;
                // A tenant cannot have so many connections that this fails.
                let share = u16::try_from(connections.len()).map_err(|_| Problem::new(&problem::TOO_LARGE))?;
                connections.push(Arc::clone(found));
                shares.insert(Arc::clone(name), share);
                share
            }
        };
        contacts.push(Contact { share, identifier, reference });
    }
    let settled = settle_here(&contacts, &connections);
    let accept = Accept {
        id: DeletionId::new(),
        tenant: Arc::clone(&tenant.id),
        created_ms: clock::unix_ms(),
        reason: request.reason,
        reference: request.reference,
        shares: connections.iter().map(|connection| Arc::clone(&connection.name)).collect(),
        contacts,
        settled,
        claim: None,
    };
    Ok(Submission { accept, connections })
}

/// What needs no upstream: identifiers that the dialect cannot send, and contacts that stand earlier already.
fn settle_here(contacts: &[Contact], connections: &[Arc<Connection>]) -> Vec<(Slot, Settled)> {
    let mut seen: HashMap<(u16, u8, Cow<'_, str>), Slot> = HashMap::with_capacity(contacts.len());
    let mut settled = Vec::new();
    for (contact, n) in contacts.iter().zip(0..) {
        let slot = Slot(n);
        let Some(connection) = connections.get(contact.share as usize) else { continue };
        match connection.registration.profile.admit(&contact.identifier) {
            Err(fault) => settled.push((slot, Settled::refused_here(&fault))),
            Ok(rule) => {
                let key = (contact.share, rule.kind as u8, rule.key(&contact.identifier));
                match seen.get(&key) {
                    Some(twin) => settled.push((slot, Settled::duplicate(*twin))),
                    None => drop(seen.insert(key, slot)),
                }
            }
        }
    }
    settled
}
