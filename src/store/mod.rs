//! The ledger: what was asked, what may have been sent, and what became of it.
//!
//! The engine needs five things of it, in this order for each deletion: `accept` before anything is sent, `intent`
//! before each call, `record` after it, `finish` at the end, and `read` at any time. Every write names the fence
//! under which the writer works a share; a writer whose share was taken over is told so and must drop what it knows.

mod book;
#[cfg(test)]
mod conformance;
mod id;
mod memory;
mod sqlite;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use adapters::{FaultCode, Identifier, Slot, Target};
use serde::{Deserialize, Serialize};

pub use book::Book;
pub use id::{DeletionId, NotAnId};
pub use memory::Memory;
pub use sqlite::Sqlite;

use crate::engine::{Closed, Settled, Ticket};

/// What the engine needs of a store.
pub trait Ledger: Send + Sync {
    /// Puts a deletion down, unless its claim was used before. It is durable when this returns.
    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted>;

    /// Puts down that a call is about to be sent. Durable when this returns.
    fn intent(&self, intent: Intent) -> Reply<'_, ()>;

    /// Puts down how calls ended and what was settled by it.
    fn record(&self, record: Record) -> Reply<'_, ()>;

    /// Closes a deletion whose contacts are all settled, and erases its identifiers.
    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, ()>;

    /// A deletion and its results so far.
    fn read(&self, id: DeletionId) -> Reply<'_, Option<Stored>>;

    /// The deletions that an earlier process left unfinished, each taken over under a new fence.
    fn take_over(&self) -> Reply<'_, Vec<Unfinished>>;

    /// Whether it can be written to.
    fn healthy(&self) -> bool;

    /// Puts down all that was asked for and lets go of the file.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The answer to a call of the ledger.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the ledger could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another writer has taken the share over; what this one knows is out of date.
    #[error("the share was taken over by another writer")]
    Fenced,
    /// The store cannot be used any more. Nothing that was not answered before can be relied on.
    #[error("the store failed: {0}")]
    Broken(String),
}

/// A deletion as it is accepted.
#[derive(Debug)]
pub struct Accept {
    /// Its id.
    pub id: DeletionId,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// When it was accepted, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// The caller's reason.
    pub reason: Option<String>,
    /// The caller's own name for it.
    pub reference: Option<String>,
    /// The connections that it concerns: one share each.
    pub shares: Vec<Arc<str>>,
    /// Its contacts; the index is the slot.
    pub contacts: Vec<Contact>,
    /// What is settled without being sent: refused identifiers and duplicates.
    pub settled: Vec<(Slot, Settled)>,
    /// The caller's key for it, if there is one.
    pub claim: Option<Claim>,
}

/// A key under which a caller's request acts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// A hash of tenant, route and key: what is claimed.
    pub scope: [u8; 32],
    /// A hash of what is asked for: the same key must ask for the same.
    pub fingerprint: [u8; 32],
}

/// What became of a deletion that was to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is put down, and must now be carried out.
    New,
    /// The same was asked for before under this key: it is that deletion, and nothing was put down.
    Before(DeletionId),
    /// Something else was asked for under this key, and nothing was put down.
    Other,
}

impl Accept {
    /// As it is read back, with these results.
    pub fn stored(&self, finished_ms: Option<i64>, results: Vec<Option<Settled>>) -> Stored {
        let asked = |contact: &Contact| Asked { share: contact.share, reference: contact.reference.clone() };
        Stored {
            id: self.id,
            tenant: Arc::clone(&self.tenant),
            created_ms: self.created_ms,
            finished_ms,
            reason: self.reason.clone(),
            reference: self.reference.clone(),
            shares: self.shares.clone(),
            contacts: self.contacts.iter().map(asked).collect(),
            results,
        }
    }

    /// The contacts of one share that are to be sent.
    pub fn targets(&self, share: u16) -> Vec<Target> {
        let mut done = self.settled.iter().map(|(slot, _)| *slot).peekable();
        let mut targets = Vec::new();
        for (contact, n) in self.contacts.iter().zip(0..) {
            let slot = Slot(n);
            // Both run in the order of slots.
            let settled = done.next_if_eq(&slot).is_some();
            if contact.share == share && !settled {
                targets.push(Target { slot, identifier: contact.identifier.clone() });
            }
        }
        targets
    }
}

/// One contact of a deletion.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Which of the deletion's shares it belongs to.
    pub share: u16,
    /// Whom to delete. Erased when the deletion is finished.
    pub identifier: Identifier,
    /// The caller's own name for the contact.
    pub reference: Option<Arc<str>>,
}

/// One share of a deletion, worked under one fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShareKey {
    /// The deletion.
    pub deletion: DeletionId,
    /// Which of its shares.
    pub share: u16,
    /// Who works it: a later fence shuts out every earlier one.
    pub fence: u64,
}

/// A call that is about to be sent.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Whose.
    pub key: ShareKey,
    /// Which call.
    pub ticket: Ticket,
    /// The attempt's number.
    pub attempts: u32,
    /// Whether its contacts were in doubt before.
    pub in_doubt: bool,
    /// The contacts that it covers.
    pub slots: Vec<Slot>,
}

/// What was learnt by calls that ended.
#[derive(Debug, Clone)]
pub struct Record {
    /// Whose.
    pub key: ShareKey,
    /// The calls.
    pub closed: Vec<Closed>,
    /// What is settled.
    pub settled: Vec<(Slot, Settled)>,
}

/// A deletion as it is read back: no identifier in it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id.
    pub id: DeletionId,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// When it was accepted, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// When its last contact was settled.
    pub finished_ms: Option<i64>,
    /// The caller's reason.
    pub reason: Option<String>,
    /// The caller's own name for it.
    pub reference: Option<String>,
    /// The connections that it concerns.
    pub shares: Vec<Arc<str>>,
    /// What was asked; the index is the slot.
    pub contacts: Vec<Asked>,
    /// The results so far; the index is the slot.
    pub results: Vec<Option<Settled>>,
}

/// One contact as it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which of the deletion's shares it belongs to.
    #[serde(rename = "s")]
    pub share: u16,
    /// The caller's own name for the contact.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Arc<str>>,
}

/// A deletion that an earlier process left unfinished.
#[derive(Debug)]
pub struct Unfinished {
    /// As it was accepted; `settled` has every result so far.
    pub deletion: Arc<Accept>,
    /// The fence under which each share is now worked.
    pub fence: u64,
    /// For each share, the calls that were put down.
    pub attempts: Vec<Vec<Attempt>>,
}

/// A call that the ledger knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub ticket: Ticket,
    /// The attempt's number.
    pub attempts: u32,
    /// Whether its contacts are in doubt, if it ended; whether they were before, if not.
    pub in_doubt: bool,
    /// Whether its end is known.
    pub closed: bool,
    /// How it ended, for contacts that wait for another attempt.
    pub last: Option<FaultCode>,
    /// The contacts that it covers.
    pub slots: Vec<Slot>,
}

impl Unfinished {
    /// What a share needs to go on: contacts that were never sent, groups that were, and the last ticket.
    pub fn past(&self, share: u16) -> (Vec<Target>, Vec<crate::engine::Past>, u64) {
        let open = self.deletion.targets(share);
        let attempts = self.attempts.get(share as usize).map_or(&[][..], Vec::as_slice);
        // The last call that named a contact says where it stands; doubt from an earlier one is carried in it.
        let mut latest: Vec<Option<usize>> = vec![None; self.deletion.contacts.len()];
        for (position, attempt) in attempts.iter().enumerate() {
            for slot in &attempt.slots {
                if let Some(place) = latest.get_mut(slot.0 as usize) {
                    *place = Some(position);
                }
            }
        }
        let mut fresh = Vec::new();
        let mut groups: Vec<Vec<Target>> = vec![Vec::new(); attempts.len()];
        for target in open {
            match latest.get(target.slot.0 as usize).copied().flatten() {
                Some(position) => groups[position].push(target),
                None => fresh.push(target),
            }
        }
        let groups = attempts.iter().zip(groups).filter(|(_, targets)| !targets.is_empty());
        let past = groups.map(|(attempt, targets)| crate::engine::Past {
            targets,
            attempts: attempt.attempts,
            in_doubt: attempt.in_doubt,
            in_flight: !attempt.closed,
            last: attempt.last,
        });
        (fresh, past.collect(), attempts.iter().map(|attempt| attempt.ticket.0).max().unwrap_or(0))
    }
}
