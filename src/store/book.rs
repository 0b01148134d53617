//! The ledger as a plain value: what every store must do, without a disk.
//!
//! `memory:` is this behind a lock, and the engine's simulation crashes and takes over workers around it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Accept, Accepted, Attempt, Claim, DeletionId, Intent, Record, ShareKey, StoreError, Stored, Unfinished};
use crate::engine::Settled;
use crate::engine::shortcut::{Shortcut, taken};

/// Deletions in memory.
#[derive(Debug, Default)]
pub struct Book {
    deletions: HashMap<DeletionId, Entry>,
    /// What was asked for under each key, and the deletion that came of it.
    claims: HashMap<[u8; 32], ([u8; 32], DeletionId)>,
}

#[derive(Debug)]
struct Entry {
    /// Let go when the deletion is finished: it has the identifiers.
    accepted: Option<Arc<Accept>>,
    claim: Option<Claim>,
    head: Stored,
    fence: u64,
    attempts: Vec<Vec<Attempt>>,
    open: usize,
}

impl Book {
    /// Puts a deletion down.
    pub fn accept(&mut self, deletion: &Arc<Accept>) -> Accepted {
        if let Some(claim) = deletion.claim {
            match self.claims.get(&claim.scope) {
                Some((fingerprint, id)) if *fingerprint == claim.fingerprint => return Accepted::Before(*id),
                Some(_) => return Accepted::Other,
                None => drop(self.claims.insert(claim.scope, (claim.fingerprint, deletion.id))),
            }
        }
        let mut results: Vec<Option<Settled>> = vec![None; deletion.contacts.len()];
        for (slot, settled) in &deletion.settled {
            results[slot.0 as usize] = Some(settled.clone());
        }
        let head = deletion.stored(None, results);
        let entry = Entry {
            open: head.results.iter().filter(|result| result.is_none()).count(),
            accepted: Some(Arc::clone(deletion)),
            claim: deletion.claim,
            attempts: vec![Vec::new(); deletion.shares.len()],
            fence: 1,
            head,
        };
        self.deletions.insert(deletion.id, entry);
        Accepted::New
    }

    /// Puts down that a call is about to be sent.
    pub fn intent(&mut self, intent: Intent) -> Result<(), StoreError> {
        let entry = self.entry(intent.key)?;
        let attempts = entry.attempts.get_mut(intent.key.share as usize).ok_or(StoreError::Fenced)?;
        attempts.push(Attempt {
            ticket: intent.ticket,
            attempts: intent.attempts,
            in_doubt: intent.in_doubt,
            closed: false,
            last: None,
            slots: intent.slots,
        });
        Ok(())
    }

    /// Puts down how calls ended.
    pub fn record(&mut self, record: Record) -> Result<(), StoreError> {
        let entry = self.entry(record.key)?;
        let attempts = entry.attempts.get_mut(record.key.share as usize).ok_or(StoreError::Fenced)?;
        for closed in &record.closed {
            // The newest calls end first; a call without an intent was never sent.
            if let Some(attempt) = attempts.iter_mut().rev().find(|attempt| attempt.ticket == closed.ticket) {
                attempt.closed = true;
                attempt.attempts = closed.attempts;
                attempt.in_doubt = closed.in_doubt;
                attempt.last = closed.last;
            }
        }
        for (slot, settled) in record.settled {
            if let Some(place) = entry.head.results.get_mut(slot.0 as usize)
                && place.is_none()
            {
                *place = Some(settled);
                entry.open -= 1;
            }
        }
        Ok(())
    }

    /// Closes a deletion and lets go of its identifiers, unless a contact is open or it is closed already.
    /// Whether it did.
    pub fn finish(&mut self, id: DeletionId, finished_ms: i64) -> bool {
        let Some(entry) = self.deletions.get_mut(&id) else { return false };
        if entry.open > 0 || entry.head.finished_ms.is_some() {
            return false;
        }
        entry.head.finished_ms = Some(finished_ms);
        entry.accepted = None;
        entry.attempts.clear();
        true
    }

    /// A deletion and its results so far.
    pub fn read(&self, id: DeletionId) -> Option<&Stored> {
        self.deletions.get(&id).map(|entry| &entry.head)
    }

    /// Forgets a deletion, and the key that it was asked for under.
    pub fn forget(&mut self, id: DeletionId) {
        let claim = self.deletions.remove(&id).and_then(|entry| entry.claim);
        claim.map(|claim| self.claims.remove(&claim.scope));
    }

    /// Takes every unfinished deletion over: earlier fences are shut out.
    pub fn take_over(&mut self) -> Vec<Unfinished> {
        let mut unfinished = Vec::new();
        for entry in self.deletions.values_mut() {
            let Some(accepted) = &entry.accepted else { continue };
            entry.fence += 1;
            let results = entry.head.results.iter().zip(0..);
            let settled = results.filter_map(|(result, n)| Some((adapters::Slot(n), result.clone()?)));
            let deletion = Accept {
                id: accepted.id,
                tenant: Arc::clone(&accepted.tenant),
                created_ms: accepted.created_ms,
                reason: accepted.reason.clone(),
                reference: accepted.reference.clone(),
                shares: accepted.shares.clone(),
                contacts: accepted.contacts.clone(),
                settled: settled.collect(),
                // It was put down with the deletion.
                claim: None,
            };
            unfinished.push(Unfinished {
                deletion: Arc::new(deletion),
                fence: entry.fence,
                attempts: entry.attempts.clone(),
            });
        }
        unfinished
    }

    fn entry(&mut self, key: ShareKey) -> Result<&mut Entry, StoreError> {
        let entry = self.deletions.get_mut(&key.deletion).ok_or(StoreError::Fenced)?;
        if entry.fence == key.fence || taken(Shortcut::NoFence) { Ok(entry) } else { Err(StoreError::Fenced) }
    }
}
