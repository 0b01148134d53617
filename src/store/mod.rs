//! The ledger: what was asked, what may have been sent, and what became of it.
//!
//! A deletion stands in it as parts of at most [`PART`] contacts. A part is what a gateway holds in memory and works
//! under one fence, so a million contacts are a hundred small pieces of work. The engine needs this order: `accept`
//! before anything is sent, `intent` before each call, `record` after it, `finish` at the end. Every write names the
//! fence under which the writer works its part; whoever lost the part is told so and must drop what it knows.
//!
//! It does not know what a call is or what a result means.
//!
//! Above 500 lines because every store implements these types, and whoever reads one wants them in one place.

mod book;
#[cfg(test)]
mod conformance;
mod id;
mod memory;
mod postgres;
mod results;
mod sqlite;

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adapters::{FaultCode, Identifier, Outcome, Slot, Target};
use serde::{Deserialize, Serialize};

pub use book::Book;
#[cfg(test)]
pub(crate) use conformance::Contact;
pub use id::{DeletionId, NotAnId};
pub use memory::Memory;
pub use postgres::{Postgres, PostgresSettings};
pub use results::Results;
pub use sqlite::{Options, Report, Sqlite, backup, check};

use crate::engine::{Closed, Past, Run, Settled, Ticket};

/// The most contacts in one part.
pub const PART: usize = 10_000;

/// What the engine needs of a store.
pub trait Ledger: Send + Sync {
    /// The key of the hashes that stay of identifiers; always the same for one store.
    fn hash_key(&self) -> [u8; 16];

    /// How long a part that is claimed stays so without being renewed; `None` where nobody else could claim it.
    fn lease(&self) -> Option<Duration>;

    /// Puts down an earlier part of a deletion that is still arriving. Nothing of it is carried out before it is
    /// accepted; a draft that never is, is thrown away by `discard`, by the next opening or after a while.
    fn draft(&self, id: DeletionId, tenant: Arc<str>, part: Arc<Part>) -> Reply<'_, ()>;

    /// Throws a draft away. A deletion that was accepted stays.
    fn discard(&self, id: DeletionId) -> Reply<'_, ()>;

    /// Puts a deletion down, unless its claim was used before; its drafts are thrown away then. It is durable when
    /// this returns. Its parts wait to be claimed; a single part with `hold` is claimed at once, under fence 1.
    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted>;

    /// What was asked for before under a key: [`Accepted::New`] if nothing was, and it is not taken.
    fn claimed(&self, claim: Claim) -> Reply<'_, Accepted>;

    /// Claims the oldest part that waits, of the tenant that [`Loads::choose`] picks among those with waiting parts.
    fn claim(&self, loads: Arc<Loads>) -> Reply<'_, Option<Job>>;

    /// Says that these parts are still being worked, and learns of each how it stands; in the same order.
    fn renew(&self, keys: Vec<PartKey>) -> Reply<'_, Vec<Hold>>;

    /// Gives a part back that is not worked any further here: it waits to be claimed. Nothing if it was lost.
    fn release(&self, key: PartKey) -> Reply<'_, ()>;

    /// Puts down that a call is about to be sent. Durable when this returns.
    fn intent(&self, intent: Intent) -> Reply<'_, ()>;

    /// Puts down how calls ended and what was settled by it. A part without open contacts is over: nobody works it.
    fn record(&self, record: Record) -> Reply<'_, ()>;

    /// Closes a deletion, if all its parts are over and it is not closed. Whether it is closed now.
    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, bool>;

    /// Deletions whose parts are all over and that nobody has closed, because a crash came between. None where `claim`
    /// closes them on its way.
    fn ended(&self) -> Reply<'_, Vec<Head>>;

    /// Puts down that nothing more shall be sent for a deletion, unless it is finished. Parts that are claimed later
    /// say so, and `renew` says it of those that are being worked.
    fn cancel(&self, id: DeletionId, cancelled_ms: i64) -> Reply<'_, ()>;

    /// A deletion without its contacts.
    fn read(&self, id: DeletionId) -> Reply<'_, Option<Summary>>;

    /// The same, if it is this tenant's. Another's is not looked into: to find it takes as long as to find none.
    fn read_of(&self, tenant: Arc<str>, id: DeletionId) -> Reply<'_, Option<Summary>> {
        Box::pin(async move { Ok(self.read(id).await?.filter(|summary| summary.head.tenant == tenant)) })
    }

    /// One part's contacts and their results so far.
    fn page(&self, id: DeletionId, part: u32) -> Reply<'_, Option<Page>>;

    /// A tenant's deletions, newest first.
    fn list(&self, filter: Filter) -> Reply<'_, Vec<Summary>>;

    /// How many contacts of each tenant are not settled.
    fn backlog(&self) -> Reply<'_, HashMap<Arc<str>, u64>>;

    /// Forgets what is kept longer than it should be, up to a bounded amount of work.
    fn purge(&self, purge: Purge) -> Reply<'_, Purged>;

    /// Reserves a call's turn at a connection whose pace is shared with other gateways: how long to wait for it.
    fn turn(&self, turn: Turn) -> Reply<'_, Duration>;

    /// Lets nobody's turn at a connection come before so long from now.
    fn hold(&self, tenant: Arc<str>, connection: Arc<str>, hold: Duration) -> Reply<'_, ()>;

    /// Whether it can be written to.
    fn healthy(&self) -> bool;

    /// Puts down all that was asked for and lets go of the store.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The answer to a call of the ledger.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the ledger could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another writer has taken the part over; what this one knows is out of date.
    #[error("the part was taken over by another gateway")]
    Fenced,
    /// The store could not do it. Nothing that was not answered before can be relied on.
    #[error("the store failed: {0}")]
    Broken(String),
}

/// What is told of a deletion as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
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
    /// The connections that it concerns: one share each, no name twice.
    pub shares: Vec<Arc<str>>,
}

/// A deletion as it is accepted.
#[derive(Debug)]
pub struct Accept {
    /// What is told of it.
    pub head: Head,
    /// Its last part; the ones before it were put down as drafts.
    pub last: Arc<Part>,
    /// The caller's key for it, if there is one.
    pub claim: Option<Claim>,
    /// Whether whoever accepts it carries it out at once. Only for deletions of one part.
    pub hold: bool,
}

impl Accept {
    /// How many contacts it has.
    pub fn contacts(&self) -> usize {
        self.last.first as usize + self.last.contacts.len()
    }

    /// How many parts it has.
    pub fn parts(&self) -> u32 {
        self.last.number + 1
    }
}

/// Some of a deletion's contacts, at most [`PART`], in the order of the request.
#[derive(Debug)]
pub struct Part {
    /// Its place among the deletion's parts, from 0.
    pub number: u32,
    /// The slot of its first contact. Slots count over the whole deletion.
    pub first: u32,
    /// The contacts, as they are read back.
    pub contacts: Arc<Vec<Asked>>,
    /// Whom to delete, one for each contact. Erased when they are not needed any more.
    pub identifiers: Vec<Identifier>,
    /// Their results so far, in the order of slots: at first, refused identifiers and duplicates.
    pub settled: Vec<(Slot, Settled)>,
}

/// A key under which a caller's request acts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// A hash of tenant, route and key: what is claimed.
    pub scope: [u8; 32],
    /// A hash of what is asked for: the same key must ask for the same.
    pub fingerprint: [u8; 32],
    /// A key whose deletion was finished before this moment is free again, in milliseconds since 1970-01-01 UTC.
    pub free_before_ms: i64,
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

/// A keyed hash of whom a contact names: tenant, connection and canonical identifier (SipHash-2-4, 128 bits).
pub type IdentifierHash = [u8; 16];

/// One part of a deletion, worked under one fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartKey {
    /// The deletion.
    pub deletion: DeletionId,
    /// Which of its parts.
    pub part: u32,
    /// Who works it: a later fence shuts out every earlier one. A part that nobody has worked has fence 0.
    pub fence: u64,
}

/// A part that was claimed.
#[derive(Debug)]
pub struct Job {
    /// The deletion.
    pub head: Arc<Head>,
    /// How many parts the deletion has.
    pub parts: u32,
    /// Under which fence the part is now worked.
    pub key: PartKey,
    /// The part; `settled` has every result so far.
    pub part: Arc<Part>,
    /// For each share, the calls that were put down, in the order in which they were sent.
    pub attempts: Vec<Vec<Attempt>>,
    /// Whether nothing more shall be sent for it.
    pub cancelled: bool,
}

/// How a part stands for whoever works it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is still theirs.
    Held,
    /// It is, and the deletion was cancelled.
    Cancelled,
    /// Somebody else took it over, or it is over.
    Lost,
}

/// What a gateway works already: contacts of each tenant.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    /// Contacts of the parts that are being worked here.
    pub by_tenant: HashMap<Arc<str>, usize>,
    /// A tenant with so many gets no further part here.
    pub most: usize,
}

impl Loads {
    /// The tenant whose turn it is: the one with the least work, if it may have more.
    pub fn choose<'t>(&self, waiting: impl IntoIterator<Item = &'t Arc<str>>) -> Option<&'t Arc<str>> {
        let load = |tenant: &Arc<str>| self.by_tenant.get(tenant).copied().unwrap_or(0);
        waiting.into_iter().filter(|tenant| load(tenant) < self.most.max(1)).min_by_key(|tenant| load(tenant))
    }
}

/// A call that is about to be sent.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Whose.
    pub key: PartKey,
    /// Which of the deletion's shares.
    pub share: u16,
    /// Which call; no two of a part and share have the same.
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
    pub key: PartKey,
    /// Which record of the part under this fence, from 1: the same one, put down twice, counts once. They may come in
    /// any order.
    pub number: u32,
    /// Which of the deletion's shares the calls are of.
    pub share: u16,
    /// The calls.
    pub closed: Vec<Closed>,
    /// What is settled: slots of this part without a result, none twice.
    pub settled: Vec<Run>,
}

/// A deletion as it is read back, without its contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What is told of it.
    pub head: Head,
    /// When its last contact was settled.
    pub finished_ms: Option<i64>,
    /// When it was cancelled.
    pub cancelled_ms: Option<i64>,
    /// How many contacts it has.
    pub contacts: u32,
    /// In how many parts.
    pub parts: u32,
    /// What became of them so far.
    pub tally: Tally,
}

impl Summary {
    /// Whether every contact is known to be absent. A duplicate is what its twin is.
    pub fn all_absent(&self) -> bool {
        self.tally.absent + self.tally.duplicates == self.contacts
    }
}

/// How many contacts were settled, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Contacts settled with each outcome, at its place in [`Outcome::ALL`].
    pub settled: [u32; Outcome::ALL.len()],
    /// Of them, those known to be absent; a duplicate does not count.
    pub absent: u32,
    /// Of them, those that another contact of the deletion stands for.
    pub duplicates: u32,
}

impl Tally {
    /// What its counts are called in tables: the outcomes, in their order, and then two more.
    const COLUMNS: [&'static str; Outcome::ALL.len() + 2] = [
        "deleted",
        "not_found",
        "rejected",
        "failed",
        "unknown",
        "skipped",
        "pending",
        "would_delete",
        "absent",
        "duplicates",
    ];

    /// Counts results.
    pub fn of<'s>(settled: impl IntoIterator<Item = &'s Settled>) -> Self {
        let mut tally = Self::default();
        settled.into_iter().for_each(|settled| tally.count(settled, 1));
        tally
    }

    /// Counts the results of a record.
    pub fn of_runs(runs: &[Run]) -> Self {
        let mut tally = Self::default();
        runs.iter().for_each(|run| tally.count(&run.settled, run.contacts));
        tally
    }

    /// Counts the same result of so many contacts.
    pub fn count(&mut self, settled: &Settled, contacts: u32) {
        self.settled[settled.outcome as usize] += contacts;
        if settled.absent == Some(true) {
            self.absent += contacts;
        }
        if settled.duplicate_of.is_some() {
            self.duplicates += contacts;
        }
    }

    /// How many contacts have a result.
    pub fn total(&self) -> u32 {
        self.settled.iter().sum()
    }

    /// Counts another's as well.
    pub fn add(&mut self, other: &Self) {
        self.settled.iter_mut().zip(other.settled).for_each(|(mine, theirs)| *mine += theirs);
        self.absent += other.absent;
        self.duplicates += other.duplicates;
    }
}

/// One part as it is read back: no identifier in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The slot of its first contact.
    pub first: u32,
    /// What was asked.
    pub contacts: Arc<Vec<Asked>>,
    /// The results so far; one place for each contact.
    pub results: Results,
}

/// One contact as it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which of the deletion's shares it belongs to.
    #[serde(rename = "s")]
    pub share: u16,
    /// The keyed hash of its identifier, in hexadecimal digits where it is put down.
    #[serde(rename = "h", default, with = "hex", skip_serializing_if = "Option::is_none")]
    pub hash: Option<IdentifierHash>,
    /// The caller's own name for the contact.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Arc<str>>,
}

/// Which deletions are asked for.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Whose.
    pub tenant: Arc<str>,
    /// Finished ones, or those that are not.
    pub finished: Option<bool>,
    /// With this reference.
    pub reference: Option<String>,
    /// That concern this connection.
    pub connection: Option<Arc<str>>,
    /// That concern no other connections than these; any, if `None`.
    pub within: Option<Vec<Arc<str>>>,
    /// Older than this one.
    pub before: Option<DeletionId>,
    /// At most so many.
    pub most: usize,
}

/// What need not be kept any longer. All moments are in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy)]
pub struct Purge {
    /// Keys of deletions that were finished before.
    pub keys_before_ms: i64,
    /// Deletions, with their results, that were finished before; `None` keeps them.
    pub deletions_before_ms: Option<i64>,
    /// Identifiers of deletions that were finished before.
    pub identifiers_before_ms: i64,
    /// Drafts that were begun before.
    pub drafts_before_ms: i64,
    /// About so many rows at once.
    pub most: usize,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Keys.
    pub keys: usize,
    /// Deletions with their results.
    pub deletions: usize,
    /// Deletions whose identifiers were erased.
    pub identifiers: usize,
    /// Drafts.
    pub drafts: usize,
    /// Whether there is more to forget.
    pub more: bool,
}

/// A call's turn at a connection.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Whose connection.
    pub tenant: Arc<str>,
    /// Its name.
    pub connection: Arc<str>,
    /// Turns come so far apart.
    pub every: Duration,
    /// But so many at once, after a rest.
    pub burst: u32,
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

impl Page {
    /// The results so far, in the order of slots.
    fn settled(&self) -> Vec<(Slot, Settled)> {
        let results = self.results.iter().zip(self.first..);
        results.filter_map(|(result, n)| Some((Slot(n), result?.clone()))).collect()
    }
}

impl Part {
    /// The contacts of one share that have no result.
    pub fn targets(&self, share: u16) -> Vec<Target> {
        let mut done = self.settled.iter().map(|(slot, _)| *slot).peekable();
        let mut targets = Vec::with_capacity(self.contacts.len());
        for ((contact, identifier), n) in self.contacts.iter().zip(&self.identifiers).zip(self.first..) {
            let slot = Slot(n);
            // Both run in the order of slots.
            let settled = done.next_if_eq(&slot).is_some();
            if contact.share == share && !settled {
                targets.push(Target { slot, identifier: identifier.clone() });
            }
        }
        targets
    }

    /// It as it is read back, with its results so far.
    pub fn page(&self) -> Page {
        Page { first: self.first, contacts: Arc::clone(&self.contacts), results: self.results() }
    }

    /// Its results so far: one place for each contact.
    pub fn results(&self) -> Results {
        let mut results = Results::open(self.contacts.len());
        for (slot, settled) in &self.settled {
            results.put(places(self.first, *slot, 1), settled, |_| {});
        }
        results
    }
}

/// The places of so many contacts from this slot on, in a part whose first slot is `first`. There are none before it.
pub(crate) fn places(first: u32, slot: Slot, contacts: u32) -> Range<usize> {
    let end = (u64::from(slot.0) + u64::from(contacts)).saturating_sub(u64::from(first));
    slot.0.saturating_sub(first) as usize..end as usize
}

impl Job {
    /// The first one of a deletion that was accepted to be carried out at once.
    pub fn first(accepted: &Accept) -> Self {
        Self {
            head: Arc::new(accepted.head.clone()),
            parts: accepted.parts(),
            key: PartKey { deletion: accepted.head.id, part: accepted.last.number, fence: 1 },
            part: Arc::clone(&accepted.last),
            attempts: Vec::new(),
            cancelled: false,
        }
    }

    /// What a share needs to go on: contacts that were never sent, groups that were, and the last ticket.
    pub fn past(&self, share: u16) -> (Vec<Target>, Vec<Past>, u64) {
        let open = self.part.targets(share);
        let attempts = self.attempts.get(share as usize).map_or(&[][..], Vec::as_slice);
        if attempts.is_empty() {
            return (open, Vec::new(), 0);
        }
        let place = |slot: Slot| slot.0.checked_sub(self.part.first).map(|n| n as usize);
        // The last call that named a contact says where it stands; doubt from an earlier one is carried in it.
        let mut latest: Vec<Option<usize>> = vec![None; self.part.contacts.len()];
        for (position, attempt) in attempts.iter().enumerate() {
            for slot in &attempt.slots {
                if let Some(place) = place(*slot).and_then(|n| latest.get_mut(n)) {
                    *place = Some(position);
                }
            }
        }
        let mut fresh = Vec::new();
        let mut groups: Vec<Vec<Target>> = vec![Vec::new(); attempts.len()];
        for target in open {
            match place(target.slot).and_then(|n| latest.get(n).copied().flatten()) {
                Some(position) => groups[position].push(target),
                None => fresh.push(target),
            }
        }
        let groups = attempts.iter().zip(groups).filter(|(_, targets)| !targets.is_empty());
        let past = groups.map(|(attempt, targets)| Past {
            targets,
            attempts: attempt.attempts,
            in_doubt: attempt.in_doubt,
            in_flight: !attempt.closed,
            last: attempt.last,
        });
        (fresh, past.collect(), attempts.iter().map(|attempt| attempt.ticket.0).max().unwrap_or(0))
    }
}

/// Hashes as hexadecimal digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::IdentifierHash;

    pub(super) fn serialize<S: Serializer>(hash: &Option<IdentifierHash>, serializer: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => serializer.collect_str(&format_args!("{:032x}", u128::from_be_bytes(*hash))),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IdentifierHash>, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        let hash = u128::from_str_radix(&text, 16).map_err(|_| de::Error::custom("is no hash"))?;
        Ok(Some(hash.to_be_bytes()))
    }
}
