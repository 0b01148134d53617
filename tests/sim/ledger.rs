//! The gateway's ledger as a simulation has it: the real one, asked for one thing at a time, on a disk that takes time.
//!
//! Whoever asks is held up before and after, so that a crash can fall between the commit and the answer. What was asked
//! is carried out whole or not at all, since a crash ends nothing in the middle: how the file lives through that is what
//! `tests/crash/` looks at.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use fastrand::Rng;
use onedelete::store::{
    Accept, Accepted, Claim, DeletionId, Filter, Head, Hold, Intent, Job, Ledger, Loads, Page, Part, PartKey, Purge,
    Purged, Record, Reply, StoreError, Summary, Turn,
};

use crate::life::Life;
use crate::trace::Trace;

/// The ledger of one life.
pub(crate) struct Desk {
    pub(crate) inner: Arc<dyn Ledger>,
    pub(crate) life: Arc<Life>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) rng: Mutex<Rng>,
    /// How long the disk takes at most, in microseconds.
    pub(crate) slowest_us: u64,
    /// After how many writes the process is killed, and whether the last of them is carried out.
    pub(crate) fatal: Mutex<Option<(usize, bool)>>,
}

impl Desk {
    /// Reads take no time. Who reads after the same wake-up does so in an order made by chance.
    async fn pause(&self, what: &str) {
        let slowest_us = if READS.contains(&what) { 0 } else { self.slowest_us };
        let us = if slowest_us > 0 { self.rng.lock().unwrap().u64(..=slowest_us) } else { 0 };
        if us > 0 {
            tokio::time::sleep(Duration::from_micros(us)).await;
        }
        self.life.on().await;
    }

    /// Counts a write. Whether it is the last, and carried out.
    fn count(&self) -> Option<bool> {
        let mut fatal = self.fatal.lock().unwrap();
        let (left, carried_out) = fatal.as_mut()?;
        *left = left.checked_sub(1)?;
        (*left == 0).then_some(*carried_out)
    }

    async fn ask<'l, T>(
        &'l self,
        what: &'static str,
        act: impl FnOnce(&'l dyn Ledger) -> Reply<'l, T>,
    ) -> Result<T, StoreError> {
        self.pause(what).await;
        let last = if WRITES.contains(&what) { self.count() } else { None };
        if last == Some(false) {
            self.trace.fault("killed before a write", 0, 0);
            self.life.end();
            self.life.on().await;
        }
        let done = wait_for(act(&*self.inner));
        self.trace.put(what, u64::from(done.is_ok()), 0);
        if last == Some(true) {
            self.trace.fault("killed after a write", 0, 0);
            self.life.end();
        }
        self.pause(what).await;
        done
    }
}

/// What a crash may come with.
const WRITES: [&str; 6] = ["accept", "intent", "record", "finish", "cancel", "claim"];

/// What changes nothing.
const READS: [&str; 7] = ["claimed", "ended", "read", "page", "list", "backlog", "renew"];

/// Drives something to its end where it stands: nothing else happens meanwhile.
pub(crate) fn wait_for<T>(asked: impl Future<Output = T>) -> T {
    struct Bell(Thread);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let bell = Waker::from(Arc::new(Bell(std::thread::current())));
    let mut asked = pin!(tokio::task::unconstrained(asked));
    loop {
        match asked.as_mut().poll(&mut Context::from_waker(&bell)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}

impl Ledger for Desk {
    fn hash_key(&self) -> [u8; 16] {
        self.inner.hash_key()
    }

    fn lease(&self) -> Option<Duration> {
        self.inner.lease()
    }

    fn draft(&self, id: DeletionId, tenant: Arc<str>, part: Arc<Part>) -> Reply<'_, ()> {
        Box::pin(self.ask("draft", move |ledger| ledger.draft(id, tenant, part)))
    }

    fn discard(&self, id: DeletionId) -> Reply<'_, ()> {
        Box::pin(self.ask("discard", move |ledger| ledger.discard(id)))
    }

    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted> {
        Box::pin(self.ask("accept", move |ledger| ledger.accept(deletion)))
    }

    fn claimed(&self, claim: Claim) -> Reply<'_, Accepted> {
        Box::pin(self.ask("claimed", move |ledger| ledger.claimed(claim)))
    }

    fn claim(&self, loads: Arc<Loads>) -> Reply<'_, Option<Job>> {
        Box::pin(self.ask("claim", move |ledger| ledger.claim(loads)))
    }

    fn renew(&self, keys: Vec<PartKey>) -> Reply<'_, Vec<Hold>> {
        Box::pin(self.ask("renew", move |ledger| ledger.renew(keys)))
    }

    fn release(&self, key: PartKey) -> Reply<'_, ()> {
        Box::pin(self.ask("release", move |ledger| ledger.release(key)))
    }

    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        Box::pin(self.ask("intent", move |ledger| ledger.intent(intent)))
    }

    fn record(&self, record: Record) -> Reply<'_, ()> {
        Box::pin(self.ask("record", move |ledger| ledger.record(record)))
    }

    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, bool> {
        Box::pin(self.ask("finish", move |ledger| ledger.finish(id, finished_ms)))
    }

    fn ended(&self) -> Reply<'_, Vec<Head>> {
        Box::pin(self.ask("ended", move |ledger| ledger.ended()))
    }

    fn cancel(&self, id: DeletionId, cancelled_ms: i64) -> Reply<'_, ()> {
        Box::pin(self.ask("cancel", move |ledger| ledger.cancel(id, cancelled_ms)))
    }

    fn read(&self, id: DeletionId) -> Reply<'_, Option<Summary>> {
        Box::pin(self.ask("read", move |ledger| ledger.read(id)))
    }

    fn page(&self, id: DeletionId, part: u32) -> Reply<'_, Option<Page>> {
        Box::pin(self.ask("page", move |ledger| ledger.page(id, part)))
    }

    fn list(&self, filter: Filter) -> Reply<'_, Vec<Summary>> {
        Box::pin(self.ask("list", move |ledger| ledger.list(filter)))
    }

    fn backlog(&self) -> Reply<'_, HashMap<Arc<str>, u64>> {
        Box::pin(self.ask("backlog", move |ledger| ledger.backlog()))
    }

    fn purge(&self, purge: Purge) -> Reply<'_, Purged> {
        Box::pin(self.ask("purge", move |ledger| ledger.purge(purge)))
    }

    fn turn(&self, turn: Turn) -> Reply<'_, Duration> {
        Box::pin(self.ask("turn", move |ledger| ledger.turn(turn)))
    }

    fn hold(&self, tenant: Arc<str>, connection: Arc<str>, hold: Duration) -> Reply<'_, ()> {
        Box::pin(self.ask("hold", move |ledger| ledger.hold(tenant, connection, hold)))
    }

    fn healthy(&self) -> bool {
        self.inner.healthy()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.life.on().await;
            wait_for(self.inner.close());
        })
    }
}
