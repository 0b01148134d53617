//! `memory:`, the ledger that keeps nothing: for tests, for measuring, and for the demo.
//!
//! What is finished stays readable until 1,000,000 contacts have been finished after it.

use std::collections::VecDeque;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Accept, Accepted, Book, DeletionId, Intent, Ledger, Record, Reply, Stored, Unfinished};

const KEPT_CONTACTS: usize = 1_000_000;

/// A ledger in memory.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    finished: VecDeque<(DeletionId, usize)>,
    kept: usize,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before the lock is let go, so a panic elsewhere leaves a usable book.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for Memory {
    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted> {
        let accepted = self.state().book.accept(&deletion);
        Box::pin(ready(Ok(accepted)))
    }

    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        let done = self.state().book.intent(intent);
        Box::pin(ready(done))
    }

    fn record(&self, record: Record) -> Reply<'_, ()> {
        let done = self.state().book.record(record);
        Box::pin(ready(done))
    }

    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, ()> {
        let mut state = self.state();
        if state.book.finish(id, finished_ms) {
            let contacts = state.book.read(id).map_or(0, |stored| stored.contacts.len());
            state.finished.push_back((id, contacts));
            state.kept += contacts;
        }
        while state.kept > KEPT_CONTACTS
            && let Some((oldest, contacts)) = state.finished.pop_front()
        {
            state.kept -= contacts;
            state.book.forget(oldest);
        }
        drop(state);
        Box::pin(ready(Ok(())))
    }

    fn read(&self, id: DeletionId) -> Reply<'_, Option<Stored>> {
        let stored = self.state().book.read(id).cloned();
        Box::pin(ready(Ok(stored)))
    }

    fn take_over(&self) -> Reply<'_, Vec<Unfinished>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn healthy(&self) -> bool {
        true
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}
