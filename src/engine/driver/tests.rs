//! What only shows when the ledger takes its time: a cancel between claim and start, and a halt.
//!
//! Everything that can be seen from outside is tested from outside.

mod broken;
mod outage;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use adapters::{FaultCode, Identifier};
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::store::Part;
use crate::store::{Claim, Contact, Intent, Loads, Memory, Purge, Purged, Record, Reply, Turn};

/// A ledger in memory whose claims are held back once they are made.
struct Held {
    inner: Memory,
    claims: AtomicUsize,
    claimed: Notify,
    released: Semaphore,
    /// So many claims fail first.
    failing: AtomicUsize,
}

impl Held {
    fn new(released: usize) -> Arc<Self> {
        let (claims, claimed, failing) = (AtomicUsize::new(0), Notify::new(), AtomicUsize::new(0));
        Arc::new(Self { inner: Memory::default(), claims, claimed, released: Semaphore::new(released), failing })
    }
}

impl Ledger for Held {
    fn claim(&self, loads: Arc<Loads>) -> Reply<'_, Option<Job>> {
        Box::pin(async move {
            let one_less = |left: usize| left.checked_sub(1);
            if self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                return Err(StoreError::Broken("a test made it fail".to_owned()));
            }
            let job = self.inner.claim(loads).await?;
            if job.is_some() {
                assert!(self.claims.fetch_add(1, Ordering::Relaxed) < 100, "the same is claimed again and again");
                self.claimed.notify_one();
                self.released.acquire().await.unwrap().forget();
            }
            Ok(job)
        })
    }

    fn hash_key(&self) -> [u8; 16] {
        self.inner.hash_key()
    }
    fn lease(&self) -> Option<Duration> {
        None
    }
    fn draft(&self, id: DeletionId, tenant: Arc<str>, part: Arc<Part>) -> Reply<'_, ()> {
        self.inner.draft(id, tenant, part)
    }
    fn discard(&self, id: DeletionId) -> Reply<'_, ()> {
        self.inner.discard(id)
    }
    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted> {
        self.inner.accept(deletion)
    }
    fn claimed(&self, claim: Claim) -> Reply<'_, Accepted> {
        self.inner.claimed(claim)
    }
    fn ended(&self) -> Reply<'_, Vec<Head>> {
        self.inner.ended()
    }
    fn renew(&self, keys: Vec<PartKey>) -> Reply<'_, Vec<Hold>> {
        self.inner.renew(keys)
    }
    fn release(&self, key: PartKey) -> Reply<'_, ()> {
        self.inner.release(key)
    }
    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        self.inner.intent(intent)
    }
    fn record(&self, record: Record) -> Reply<'_, ()> {
        self.inner.record(record)
    }
    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, bool> {
        self.inner.finish(id, finished_ms)
    }
    fn cancel(&self, id: DeletionId, cancelled_ms: i64) -> Reply<'_, ()> {
        self.inner.cancel(id, cancelled_ms)
    }
    fn read(&self, id: DeletionId) -> Reply<'_, Option<Summary>> {
        self.inner.read(id)
    }
    fn page(&self, id: DeletionId, part: u32) -> Reply<'_, Option<Page>> {
        self.inner.page(id, part)
    }
    fn list(&self, filter: Filter) -> Reply<'_, Vec<Summary>> {
        self.inner.list(filter)
    }
    fn backlog(&self) -> Reply<'_, std::collections::HashMap<Arc<str>, u64>> {
        self.inner.backlog()
    }
    fn purge(&self, purge: Purge) -> Reply<'_, Purged> {
        self.inner.purge(purge)
    }
    fn turn(&self, turn: Turn) -> Reply<'_, Duration> {
        self.inner.turn(turn)
    }
    fn hold(&self, tenant: Arc<str>, connection: Arc<str>, hold: Duration) -> Reply<'_, ()> {
        self.inner.hold(tenant, connection, hold)
    }
    fn healthy(&self) -> bool {
        true
    }
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inner.close()
    }
}

/// An engine that finds no way out for any share: what it works waits until it is cancelled.
fn engine(ledger: &Arc<Held>) -> Arc<Engine> {
    let bounds = Bounds {
        deadline_ms: 1_000_000_000,
        max_open_contacts: 10,
        max_open_contacts_per_tenant: 10,
        max_worked_contacts: 10,
        max_worked_contacts_per_tenant: 10,
    };
    let engine = Arc::new(Engine::new(Arc::clone(ledger) as Arc<dyn Ledger>, bounds));
    engine.spawn(Arc::clone(&engine).dispatch(|head| vec![None; head.shares.len()]));
    engine
}

/// Puts a deletion of one contact down, which then waits.
async fn accepted(ledger: &Held) -> DeletionId {
    let id = DeletionId::new();
    let head = Head {
        id,
        tenant: "acme".into(),
        created_ms: clock::unix_ms(),
        reason: None,
        reference: None,
        shares: vec!["c".into()],
    };
    let contact = Contact::bare(0, Identifier::Id("1".into()));
    let last = Arc::new(Part::of(0, 0, vec![contact], Vec::new()));
    let accept = Accept { head, last, claim: None, hold: false };
    assert_eq!(ledger.accept(Arc::new(accept)).await, Ok(Accepted::New));
    id
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_between_its_claim_and_its_start_is_not_sent() {
    let ledger = Held::new(0);
    let id = accepted(&ledger).await;
    let engine = engine(&ledger);
    ledger.claimed.notified().await;
    engine.cancel(id).await.unwrap();
    ledger.released.add_permits(1);
    assert!(engine.wait(id, Duration::from_secs(60)).await, "the cancel was not seen");
    let page = engine.page(id, 0).await.unwrap().unwrap();
    let reason = page.results.get(0).and_then(|settled| settled.reason.as_ref()).map(|reason| reason.code);
    assert_eq!(reason, Some(FaultCode::Cancelled));
    engine.idle().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_at_a_halt_is_not_claimed_again() {
    let ledger = Held::new(1_000);
    let id = accepted(&ledger).await;
    let engine = engine(&ledger);
    ledger.claimed.notified().await;
    engine.halt();
    // Whoever waits for it learns at once that nothing more will come.
    assert!(!engine.wait(id, Duration::from_secs(60)).await);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    engine.idle().await;
    assert_eq!(ledger.claims.load(Ordering::Relaxed), 1);
    assert_eq!(ledger.read(id).await.unwrap().unwrap().tally.total(), 0);
}

fn head() -> Arc<Head> {
    Arc::new(Head {
        id: DeletionId::new(),
        tenant: "acme".into(),
        created_ms: 0,
        reason: None,
        reference: None,
        shares: Vec::new(),
    })
}

/// A part without contacts.
fn empty(head: &Arc<Head>, parts: u32, number: u32, fence: u64) -> Job {
    let part = Arc::new(Part::of(number, 0, Vec::new(), Vec::new()));
    let key = PartKey { deletion: head.id, part: number, fence };
    Job { head: Arc::clone(head), parts, key, part, attempts: Vec::new(), cancelled: false }
}

#[tokio::test]
async fn parts_that_end_together_close_their_deletion_once() {
    let engine = engine(&Held::new(0));
    let head = head();
    let part = |number| engine.enter(&empty(&head, 2, number, 1), None, Instant::now()).0;
    let close = || engine.register.first_to_close(head.id);
    for _ in 0..2 {
        let (first, second) = (part(0), part(1));
        assert!(close());
        drop(first);
        assert!(!close());
        // Nothing of it stays.
        drop(second);
    }
    engine.idle().await;
}

#[tokio::test]
async fn what_is_not_accepted_yet_is_not_renewed_and_what_is_claimed_again_ends_its_old_work() {
    let engine = engine(&Held::new(0));
    let head = head();
    let enter = |fence, finished| engine.enter(&empty(&head, 1, 0, fence), finished, Instant::now());
    // A renewal would find nothing in the ledger, and so say that the part is lost.
    let (leaving, running) = enter(1, Some(watch::channel(None).1));
    assert!(engine.register.keys().is_empty());
    running.signals.accept();
    assert_eq!(engine.register.keys().len(), 1);
    assert!(!running.signals.is_lost());
    let (again, _) = enter(2, None);
    assert!(running.signals.is_lost());
    assert_eq!(engine.register.keys().iter().map(|key| key.fence).collect::<Vec<_>>(), [2]);
    leaving.in_order();
    again.in_order();
    assert!(engine.register.keys().is_empty());
    engine.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_failed_is_tried_again_when_there_is_room() {
    let ledger = Held::new(1_000);
    ledger.failing.store(1, Ordering::Relaxed);
    let engine = engine(&ledger);
    let (leaving, _) = engine.enter(&empty(&head(), 1, 0, 1), None, Instant::now());
    while ledger.failing.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    let id = accepted(&ledger).await;
    let start = Instant::now();
    leaving.in_order();
    ledger.claimed.notified().await;
    assert!(start.elapsed() < RARELY, "it waited for {:?}", start.elapsed());
    engine.cancel(id).await.unwrap();
    engine.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_closes_is_told_at_once_of_the_last_part() {
    let ledger = Held::new(1_000);
    let engine = engine(&ledger);
    let (leaving, _) = engine.enter(&empty(&head(), 1, 0, 1), None, Instant::now());
    // By now it is known that nothing waits in the ledger.
    while engine.may_wait.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    let stirred = engine.stirred.subscribe();
    engine.close_claims();
    leaving.in_order();
    assert!(stirred.has_changed().unwrap(), "whoever keeps the leases would go on until its pause is over");
    engine.idle().await;
}
