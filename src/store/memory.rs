//! `memory:`, the ledger that keeps nothing: for tests, for measuring, and for the demo.
//!
//! What is finished stays readable until 1,000,000 contacts have been finished after it.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Accept, Accepted, Book, Claim, DeletionId, Filter, Head, Hold, Intent, Job, Ledger, Loads, Page, Part, PartKey,
    Purge, Purged, Record, Reply, Summary, Turn,
};

const KEPT_CONTACTS: usize = 1_000_000;

/// A ledger in memory.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    hash_key: [u8; 16],
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    finished: VecDeque<(DeletionId, usize)>,
    kept: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Mutex::default(), hash_key: *uuid::Uuid::new_v4().as_bytes() }
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before the lock is let go, so a panic elsewhere leaves a usable book.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<'a, T: Send + 'a>(&self, act: impl FnOnce(&mut Book) -> T) -> Reply<'a, T> {
        let done = act(&mut self.state().book);
        Box::pin(ready(Ok(done)))
    }
}

impl Ledger for Memory {
    fn hash_key(&self) -> [u8; 16] {
        self.hash_key
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn draft(&self, id: DeletionId, _: Arc<str>, part: Arc<Part>) -> Reply<'_, ()> {
        self.with(|book| book.draft(id, &part))
    }

    fn discard(&self, id: DeletionId) -> Reply<'_, ()> {
        self.with(|book| book.discard(id))
    }

    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted> {
        self.with(|book| book.accept(&deletion))
    }

    fn claimed(&self, claim: Claim) -> Reply<'_, Accepted> {
        self.with(|book| book.claimed(claim))
    }

    fn claim(&self, loads: Arc<Loads>) -> Reply<'_, Option<Job>> {
        self.with(|book| book.claim(&loads))
    }

    fn renew(&self, keys: Vec<PartKey>) -> Reply<'_, Vec<Hold>> {
        self.with(|book| keys.into_iter().map(|key| book.renew(key)).collect())
    }

    fn release(&self, key: PartKey) -> Reply<'_, ()> {
        self.with(|book| book.release(key))
    }

    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        let done = self.state().book.intent(intent);
        Box::pin(ready(done))
    }

    fn record(&self, record: Record) -> Reply<'_, ()> {
        let done = self.state().book.record(record);
        Box::pin(ready(done))
    }

    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, bool> {
        let mut state = self.state();
        let before = state.book.is_finished(id);
        let finished = state.book.finish(id, finished_ms);
        if finished && !before {
            let contacts = state.book.contacts(id) as usize;
            state.finished.push_back((id, contacts));
            state.kept += contacts;
        }
        // The newest stays, however large it is.
        while state.kept > KEPT_CONTACTS
            && state.finished.len() > 1
            && let Some((oldest, contacts)) = state.finished.pop_front()
        {
            state.kept -= contacts;
            state.book.forget(oldest);
        }
        drop(state);
        Box::pin(ready(Ok(finished)))
    }

    fn ended(&self) -> Reply<'_, Vec<Head>> {
        self.with(|book| book.ended())
    }

    fn cancel(&self, id: DeletionId, cancelled_ms: i64) -> Reply<'_, ()> {
        self.with(|book| book.cancel(id, cancelled_ms))
    }

    fn read(&self, id: DeletionId) -> Reply<'_, Option<Summary>> {
        self.with(|book| book.read(id))
    }

    fn page(&self, id: DeletionId, part: u32) -> Reply<'_, Option<Page>> {
        self.with(|book| book.page(id, part).cloned())
    }

    fn list(&self, filter: Filter) -> Reply<'_, Vec<Summary>> {
        self.with(|book| book.list(&filter))
    }

    fn backlog(&self) -> Reply<'_, HashMap<Arc<str>, u64>> {
        self.with(|book| book.backlog())
    }

    fn purge(&self, purge: Purge) -> Reply<'_, Purged> {
        self.with(|book| book.purge(&purge))
    }

    fn turn(&self, _: Turn) -> Reply<'_, Duration> {
        Box::pin(ready(Ok(Duration::ZERO)))
    }

    fn hold(&self, _: Arc<str>, _: Arc<str>, _: Duration) -> Reply<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn healthy(&self) -> bool {
        true
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}
