//! The ledger as a plain value: what every store must do, without a disk.
//!
//! `memory:` is this behind a lock, and the engine's simulation crashes and takes over workers around it. Leases do not
//! run out here: [`Book::crash`] says when whoever worked a part is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{
    Accept, Accepted, Attempt, Claim, DeletionId, Filter, Head, Hold, Intent, Job, Loads, Page, Part, PartKey, Purge,
    Purged, Record, StoreError, Summary, Tally, places,
};
use crate::engine::shortcut::{Shortcut, taken};

/// Deletions in memory.
#[derive(Debug, Default)]
pub struct Book {
    deletions: BTreeMap<DeletionId, Entry>,
    drafts: HashMap<DeletionId, Vec<Share>>,
    /// What was asked for under each key, and the deletion that came of it.
    claims: HashMap<[u8; 32], ([u8; 32], DeletionId)>,
    /// Parts that nobody works, and whose they are.
    waiting: BTreeMap<(DeletionId, u32), Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    head: Arc<Head>,
    claim: Option<Claim>,
    finished_ms: Option<i64>,
    cancelled_ms: Option<i64>,
    contacts: u32,
    parts: Vec<Share>,
}

/// A part and what became of it.
#[derive(Debug)]
struct Share {
    /// Let go when the part is over: it has the identifiers.
    part: Option<Arc<Part>>,
    page: Page,
    tally: Tally,
    fence: u64,
    attempts: Vec<Vec<Attempt>>,
    /// The records that were put down: fence and number.
    records: BTreeSet<(u64, u32)>,
}

impl Share {
    fn new(part: &Arc<Part>) -> Self {
        let tally = Tally::of(part.settled.iter().map(|(_, settled)| settled));
        let page = part.page();
        let mut share = Self {
            part: Some(Arc::clone(part)),
            page,
            tally,
            fence: 0,
            attempts: Vec::new(),
            records: BTreeSet::new(),
        };
        share.close_if_over();
        share
    }

    fn is_over(&self) -> bool {
        self.tally.total() as usize == self.page.contacts.len()
    }

    fn close_if_over(&mut self) {
        if self.is_over() {
            self.part = None;
            self.attempts = Vec::new();
            self.records = BTreeSet::new();
        }
    }

    /// Its part with every result so far.
    fn so_far(&self) -> Option<Arc<Part>> {
        let part = self.part.as_ref()?;
        let settled = self.page.settled();
        if settled.len() == part.settled.len() {
            return Some(Arc::clone(part));
        }
        let (contacts, identifiers) = (Arc::clone(&part.contacts), part.identifiers.clone());
        Some(Arc::new(Part { number: part.number, first: part.first, contacts, identifiers, settled }))
    }
}

impl Book {
    /// Puts down an earlier part of a deletion that is still arriving.
    pub fn draft(&mut self, id: DeletionId, part: &Arc<Part>) {
        self.drafts.entry(id).or_default().push(Share::new(part));
    }

    /// Throws a draft away.
    pub fn discard(&mut self, id: DeletionId) {
        self.drafts.remove(&id);
    }

    /// Puts a deletion down.
    pub fn accept(&mut self, deletion: &Accept) -> Accepted {
        let id = deletion.head.id;
        if let Some(claim) = deletion.claim {
            let answer = self.claimed(claim);
            if answer != Accepted::New {
                self.discard(id);
                return answer;
            }
            self.claims.insert(claim.scope, (claim.fingerprint, id));
        }
        // Most have one part, and there can be a million of them.
        let mut parts = self.drafts.remove(&id).unwrap_or_else(|| Vec::with_capacity(1));
        parts.push(Share::new(&deletion.last));
        let hold = deletion.hold && parts.len() == 1;
        for (share, n) in parts.iter_mut().zip(0..) {
            share.fence = u64::from(hold);
            if !hold && !share.is_over() {
                self.waiting.insert((id, n), Arc::clone(&deletion.head.tenant));
            }
        }
        let entry = Entry {
            head: Arc::new(deletion.head.clone()),
            claim: deletion.claim,
            finished_ms: None,
            cancelled_ms: None,
            contacts: deletion.contacts() as u32,
            parts,
        };
        self.deletions.insert(id, entry);
        Accepted::New
    }

    /// What was asked for before under a key.
    pub fn claimed(&self, claim: Claim) -> Accepted {
        match self.claims.get(&claim.scope).filter(|(_, before)| !self.is_free(*before, claim)) {
            Some((fingerprint, before)) if *fingerprint == claim.fingerprint => Accepted::Before(*before),
            Some(_) => Accepted::Other,
            None => Accepted::New,
        }
    }

    /// Whether a key's deletion was finished so long ago that the key is free, or is gone.
    fn is_free(&self, id: DeletionId, claim: Claim) -> bool {
        let entry = self.deletions.get(&id);
        entry.is_none_or(|entry| entry.finished_ms.is_some_and(|finished| finished < claim.free_before_ms))
    }

    /// Claims a part that waits.
    pub fn claim(&mut self, loads: &Loads) -> Option<Job> {
        let tenant = Arc::clone(loads.choose(self.waiting.values())?);
        let (id, number) = *self.waiting.iter().find(|(_, of)| **of == tenant)?.0;
        self.waiting.remove(&(id, number));
        let entry = self.deletions.get_mut(&id)?;
        let parts = entry.parts.len() as u32;
        let share = entry.parts.get_mut(number as usize)?;
        let part = share.so_far()?;
        share.fence += 1;
        Some(Job {
            head: Arc::clone(&entry.head),
            parts,
            key: PartKey { deletion: id, part: number, fence: share.fence },
            part,
            attempts: share.attempts.clone(),
            cancelled: entry.cancelled_ms.is_some(),
        })
    }

    /// How a part stands for whoever works it.
    pub fn renew(&mut self, key: PartKey) -> Hold {
        let cancelled = self.deletions.get(&key.deletion).is_some_and(|entry| entry.cancelled_ms.is_some());
        match self.share(key) {
            Err(_) => Hold::Lost,
            Ok(_) if cancelled => Hold::Cancelled,
            Ok(_) => Hold::Held,
        }
    }

    /// Gives a part back.
    pub fn release(&mut self, key: PartKey) {
        if self.share(key).is_ok()
            && let Some(entry) = self.deletions.get(&key.deletion)
        {
            self.waiting.insert((key.deletion, key.part), Arc::clone(&entry.head.tenant));
        }
    }

    /// Whoever worked anything is gone: every part that is not over waits to be claimed.
    pub fn crash(&mut self) {
        self.drafts.clear();
        for (id, entry) in &self.deletions {
            let open = entry.parts.iter().zip(0..).filter(|(share, _)| !share.is_over());
            self.waiting.extend(open.map(|(_, n)| ((*id, n), Arc::clone(&entry.head.tenant))));
        }
    }

    /// Puts down that a call is about to be sent.
    pub fn intent(&mut self, intent: Intent) -> Result<(), StoreError> {
        let share = self.share(intent.key)?;
        let place = usize::from(intent.share);
        if share.attempts.len() <= place {
            share.attempts.resize_with(place + 1, Vec::new);
        }
        share.attempts[place].push(Attempt {
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
        let share = self.share(record.key)?;
        if !share.records.insert((record.key.fence, record.number)) {
            return Ok(());
        }
        if let Some(attempts) = share.attempts.get_mut(usize::from(record.share)) {
            for closed in &record.closed {
                // The newest calls end first; a call without an intent was never sent.
                if let Some(attempt) = attempts.iter_mut().rev().find(|attempt| attempt.ticket == closed.ticket) {
                    attempt.closed = true;
                    attempt.attempts = closed.attempts;
                    attempt.in_doubt = closed.in_doubt;
                    attempt.last = closed.last;
                }
            }
        }
        let first = share.page.first;
        let mut new = Tally::default();
        for run in &record.settled {
            let places = places(first, run.first, run.contacts);
            share.page.results.put(places, &run.settled, |taken| new.count(&run.settled, taken.len() as u32));
        }
        share.tally.add(&new);
        share.close_if_over();
        Ok(())
    }

    /// Closes a deletion whose parts are all over. Whether it is closed.
    pub fn finish(&mut self, id: DeletionId, finished_ms: i64) -> bool {
        let Some(entry) = self.deletions.get_mut(&id) else { return false };
        if entry.finished_ms.is_none() && entry.parts.iter().all(Share::is_over) {
            entry.finished_ms = Some(finished_ms);
        }
        entry.finished_ms.is_some()
    }

    /// Whether a deletion is closed.
    pub fn is_finished(&self, id: DeletionId) -> bool {
        self.deletions.get(&id).is_some_and(|entry| entry.finished_ms.is_some())
    }

    /// How many contacts a deletion has.
    pub fn contacts(&self, id: DeletionId) -> u32 {
        self.deletions.get(&id).map_or(0, |entry| entry.contacts)
    }

    /// Deletions whose parts are all over and that nobody has closed.
    pub fn ended(&self) -> Vec<Head> {
        let ended = self
            .deletions
            .values()
            .filter(|entry| entry.finished_ms.is_none() && entry.parts.iter().all(Share::is_over));
        ended.map(|entry| Head::clone(&entry.head)).collect()
    }

    /// Puts down that nothing more shall be sent for a deletion.
    pub fn cancel(&mut self, id: DeletionId, cancelled_ms: i64) {
        if let Some(entry) = self.deletions.get_mut(&id)
            && entry.finished_ms.is_none()
        {
            entry.cancelled_ms.get_or_insert(cancelled_ms);
        }
    }

    /// A deletion without its contacts.
    pub fn read(&self, id: DeletionId) -> Option<Summary> {
        self.deletions.get(&id).map(Entry::summary)
    }

    /// One part's contacts and results.
    pub fn page(&self, id: DeletionId, part: u32) -> Option<&Page> {
        self.deletions.get(&id)?.parts.get(part as usize).map(|share| &share.page)
    }

    /// A tenant's deletions, newest first.
    pub fn list(&self, filter: &Filter) -> Vec<Summary> {
        let fits = |entry: &&Entry| {
            let head = &entry.head;
            head.tenant == filter.tenant
                && filter.finished.is_none_or(|finished| finished == entry.finished_ms.is_some())
                && filter.reference.as_ref().is_none_or(|wanted| head.reference.as_ref() == Some(wanted))
                && filter.connection.as_ref().is_none_or(|wanted| head.shares.contains(wanted))
                && filter.within.as_ref().is_none_or(|all| head.shares.iter().all(|share| all.contains(share)))
                && filter.before.is_none_or(|before| head.id < before)
        };
        self.deletions.values().rev().filter(fits).take(filter.most).map(Entry::summary).collect()
    }

    /// How many contacts of each tenant are not settled.
    pub fn backlog(&self) -> HashMap<Arc<str>, u64> {
        let mut backlog = HashMap::new();
        for entry in self.deletions.values().filter(|entry| entry.finished_ms.is_none()) {
            let settled: u32 = entry.parts.iter().map(|share| share.tally.total()).sum();
            *backlog.entry(Arc::clone(&entry.head.tenant)).or_default() += u64::from(entry.contacts - settled);
        }
        backlog.retain(|_, open| *open > 0);
        backlog
    }

    /// Forgets what is kept longer than it should be. Identifiers are gone already.
    pub fn purge(&mut self, purge: &Purge) -> Purged {
        let finished_before = |before_ms: Option<i64>| {
            move |entry: &Entry| entry.finished_ms.zip(before_ms).is_some_and(|(finished, before)| finished < before)
        };
        let old = finished_before(purge.deletions_before_ms);
        let old: Vec<_> = self.deletions.iter().filter(|(_, entry)| old(entry)).map(|(id, _)| *id).collect();
        old.iter().for_each(|id| self.forget(*id));
        let before = self.claims.len();
        let free = finished_before(Some(purge.keys_before_ms));
        self.claims.retain(|_, (_, id)| self.deletions.get(id).is_some_and(|entry| !free(entry)));
        Purged { keys: before - self.claims.len(), deletions: old.len(), ..Purged::default() }
    }

    /// Forgets a deletion, and the key that it was asked for under.
    pub fn forget(&mut self, id: DeletionId) {
        let claim = self.deletions.remove(&id).and_then(|entry| entry.claim);
        if let Some(claim) = claim
            && self.claims.get(&claim.scope).is_some_and(|(_, of)| *of == id)
        {
            self.claims.remove(&claim.scope);
        }
    }

    /// The part that a writer works; whoever does not is shut out.
    fn share(&mut self, key: PartKey) -> Result<&mut Share, StoreError> {
        let waits = self.waiting.contains_key(&(key.deletion, key.part));
        let share = self.deletions.get_mut(&key.deletion).and_then(|entry| entry.parts.get_mut(key.part as usize));
        let share = share.filter(|share| !share.is_over()).ok_or(StoreError::Fenced)?;
        let works = share.fence == key.fence && key.fence > 0 && !waits;
        if works || taken(Shortcut::NoFence) { Ok(share) } else { Err(StoreError::Fenced) }
    }
}

impl Entry {
    fn summary(&self) -> Summary {
        let mut tally = Tally::default();
        self.parts.iter().for_each(|share| tally.add(&share.tally));
        Summary {
            head: Head::clone(&self.head),
            finished_ms: self.finished_ms,
            cancelled_ms: self.cancelled_ms,
            contacts: self.contacts,
            parts: self.parts.len() as u32,
            tally,
        }
    }
}
