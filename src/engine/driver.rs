//! Drives deletions: the only part of the engine that waits.
//!
//! A part of a deletion runs on a task of the engine's own, so a caller who hangs up changes nothing. What does not fit
//! into memory now waits in the ledger, and is claimed when there is room for it: always of the tenant with the least work. Where
//! several gateways share a ledger, each claims what the others do not work, and renews what it works itself. It
//! decides nothing: in each share, the state machine says what to send.
//! Above 500 lines because whoever asks the engine for something finds all that it does here.

mod draft;
mod flight;
mod register;
mod retention;
mod signals;
#[cfg(test)]
mod tests;
mod told;
mod unfinished;
mod work;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::draft::Draft;
use self::draft::{count, count_settled_here};
use self::register::{Leaving, Register, Running};
pub use self::retention::Retention;
pub use self::unfinished::Unfinished;
use crate::outbound::Upstream;
use crate::store::{
    Accept, Accepted, Claim, DeletionId, Filter, Head, Hold, Job, Ledger, Page, PartKey, StoreError, Summary,
};
use crate::telemetry::Tracer;
use crate::tenants::{Connection, Tenants};
use crate::{clock, telemetry};

/// Runs deletions.
pub struct Engine {
    ledger: Arc<dyn Ledger>,
    tasks: TaskTracker,
    register: Register,
    /// Set when nothing more may be claimed.
    closing: CancellationToken,
    /// Set when nothing more may be sent.
    halt: CancellationToken,
    /// Told when a part may wait in the ledger, or there is room for one.
    stirred: watch::Sender<()>,
    /// Whether a part may wait in the ledger for room, as far as is known here.
    may_wait: AtomicBool,
    tracer: Tracer,
    /// The tenants since they were last replaced; `None` until they are.
    tenants: watch::Sender<Option<Arc<Tenants>>>,
}

/// How much and how long.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A deletion gives up what is not in flight so many milliseconds after it was accepted.
    pub deadline_ms: u64,
    /// Contacts of deletions that are not finished, here and in the ledger.
    pub max_open_contacts: usize,
    /// Of them, of one tenant.
    pub max_open_contacts_per_tenant: usize,
    /// Contacts of the parts that are worked here.
    pub max_worked_contacts: usize,
    /// Of them, of one tenant.
    pub max_worked_contacts_per_tenant: usize,
}

/// One share's way out: the connection and its runtime side.
#[derive(Debug, Clone)]
pub struct Route {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Its upstream.
    pub upstream: Arc<Upstream>,
}

/// The ways out of a deletion's shares, as far as there are any.
pub type Routes = Vec<Option<Route>>;

/// A deletion that was handed to the engine.
pub struct Handle {
    /// Told when the ledger has the deletion, or why it has not. Only a new one is carried out.
    pub accepted: oneshot::Receiver<Result<Accepted, StoreError>>,
    /// The deletion with all its results, once it is finished; `None` if it waits in the ledger. It comes to its end without
    /// results if the deletion is not accepted, or stops here before its end.
    pub finished: Option<Finished>,
}

/// Tells the end of a deletion that runs here.
pub type Finished = watch::Receiver<Option<Arc<Whole>>>;

/// A finished deletion of one part, with its results.
#[derive(Debug)]
pub struct Whole {
    /// The deletion.
    pub summary: Summary,
    /// Its only part.
    pub page: Page,
}

/// How often somebody who waits for a deletion that runs elsewhere looks at the ledger.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often a gateway that shares its ledger looks for work that others left.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);
/// What panicked and must go on is begun again after so long.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
/// After an error of the ledger, or with a ledger of its own, there is no hurry.
const RARELY: Duration = Duration::from_secs(5);

impl Engine {
    /// With nothing running.
    pub fn new(ledger: Arc<dyn Ledger>, bounds: Bounds) -> Self {
        let register = Register::new(bounds);
        let (closing, halt) = (CancellationToken::new(), CancellationToken::new());
        let stirred = watch::Sender::new(());
        let may_wait = AtomicBool::new(true);
        let (tracer, tenants) = (Tracer::default(), watch::Sender::new(None));
        Self { ledger, tasks: TaskTracker::new(), register, closing, halt, stirred, may_wait, tracer, tenants }
    }

    /// From now on, these are the tenants and bounds. Work at upstreams that were given up before is taken up anew, as is work
    /// that waits for a connection that is there now.
    pub fn reconfigure(&self, tenants: Arc<Tenants>, bounds: Bounds) {
        self.register.set_bounds(bounds);
        self.tenants.send_replace(Some(tenants));
        // Whoever works at an upstream that was given up.
        self.register.ring();
        // There may be room now.
        self.stir();
    }

    /// Waits until tenants were put in place that have this connection.
    async fn configured(&self, tenant: &str, connection: &str) {
        let has = |tenants: &Option<Arc<Tenants>>| {
            tenants.as_ref().is_some_and(|tenants| tenants.connection(tenant, connection).is_some())
        };
        if self.tenants.subscribe().wait_for(has).await.is_err() {
            std::future::pending::<()>().await;
        }
        // Where no client can be made for it, it is not asked for all the time.
        tokio::time::sleep(BEGIN_AGAIN).await;
    }

    /// Whether a deletion of this size can be taken beside those that are not finished.
    pub fn has_room(&self, tenant: &Arc<str>, contacts: usize) -> bool {
        self.register.has_room(tenant, contacts)
    }

    /// Begins a deletion that arrives in parts.
    pub fn draft(self: &Arc<Self>, id: DeletionId, tenant: &Arc<str>) -> Draft {
        Draft {
            engine: Arc::clone(self),
            id,
            tenant: Arc::clone(tenant),
            is_down: false,
            settled: BTreeMap::new(),
            adding: None,
        }
    }

    /// Takes a deletion: accepts it in the ledger, then carries it out, whether or not anybody keeps the handle.
    /// `draft` has the parts before its last one, `routes` one entry for each of its shares. One that does not fit beside
    /// what is worked here waits in the ledger.
    pub fn submit(self: &Arc<Self>, deletion: Accept, mut draft: Draft, routes: Vec<Route>) -> Handle {
        let (accepted_tx, accepted) = oneshot::channel();
        let tenant = Arc::clone(&deletion.head.tenant);
        let contacts = deletion.contacts();
        count(&deletion.last, &mut draft.settled);
        let open = contacts.saturating_sub(draft.settled.values().sum());
        self.tracer.begin(deletion.head.id);
        // Before it is accepted: by then, others may have worked it to its end.
        self.register.opened(&tenant, open);
        let hold = deletion.parts() == 1 && self.register.may_start(&tenant, contacts);
        let deletion = Arc::new(Accept { hold, ..deletion });
        let routes: Routes = routes.into_iter().map(Some).collect();
        let entered = hold.then(|| {
            let job = Job::first(&deletion);
            let (finished_tx, finished) = watch::channel(None);
            let (leaving, running) = self.enter(&job, Some(finished.clone()), Instant::now());
            (job, leaving, running, finished_tx, finished)
        });
        let finished = entered.as_ref().map(|entered| entered.4.clone());
        let engine = Arc::clone(self);
        let task = async move {
            let accepted = engine.ledger.accept(Arc::clone(&deletion)).await;
            let go_on = accepted == Ok(Accepted::New);
            // Where the ledger did not say what became of it, it is thrown away, unless it was accepted.
            draft.is_down &= accepted.is_err();
            if go_on {
                telemetry::deletion(&tenant, "accepted");
                count_settled_here(&draft.settled, &routes);
            } else {
                engine.register.settled(&tenant, open);
                engine.tracer.forget(deletion.head.id);
            }
            drop(draft);
            // Nobody may be listening any more; the deletion goes on all the same.
            let _ = accepted_tx.send(accepted);
            match entered {
                Some((job, leaving, running, finished_tx, _)) if go_on => {
                    drop(deletion);
                    running.signals.accept();
                    engine.carry_out(job, &routes, &running, Some(finished_tx)).await;
                    leaving.in_order();
                }
                Some((_, leaving, ..)) => leaving.in_order(),
                // Nothing of it waits to be claimed, so nobody else would close it.
                None if go_on && open == 0 => {
                    engine.close(&deletion.head).await;
                }
                None => engine.stir(),
            }
        };
        // Boxed: it is large, and moved a few times before it runs.
        self.tasks.spawn(Box::pin(task));
        Handle { accepted, finished }
    }

    /// Looks at what an earlier process left. To be called before anything is submitted.
    pub async fn begin(&self) -> Result<(), StoreError> {
        // A crash may have come between the last result and the end.
        for head in self.ledger.ended().await? {
            self.close(&head).await;
        }
        self.count_what_is_open().await
    }

    async fn count_what_is_open(&self) -> Result<(), StoreError> {
        self.register.set_backlog(self.ledger.backlog().await?);
        Ok(())
    }

    /// Claims what waits in the ledger, as long as there is room for it, until the engine closes. `routes` finds the ways
    /// out of a deletion's shares; one without a way out waits for its time to be over, or for being cancelled.
    pub async fn dispatch(self: Arc<Self>, routes: impl Fn(&Head) -> Routes + Send) {
        let mut stirred = self.stirred.subscribe();
        let shared = self.ledger.lease().is_some();
        let mut counted = Instant::now();
        while !self.closing.is_cancelled() {
            stirred.mark_unchanged();
            // What others accept and carry out shows in the ledger alone.
            if shared && counted.elapsed() > RARELY && self.count_what_is_open().await.is_ok() {
                counted = Instant::now();
            }
            let mut again = if shared { CLAIM_AGAIN } else { RARELY };
            while !self.closing.is_cancelled()
                && self.register.holds_all()
                && let Some(loads) = self.register.loads()
            {
                // Counted from before the claim: what the ledger counts from lies later.
                let asked = Instant::now();
                // A tenant that has its share already may have more, which is not handed out yet.
                let full = loads.by_tenant.values().any(|contacts| *contacts >= loads.most.max(1));
                self.may_wait.store(full, Ordering::Relaxed);
                match self.ledger.claim(Arc::new(loads)).await {
                    Ok(Some(job)) => {
                        self.may_wait.store(true, Ordering::Relaxed);
                        self.take_up(job, &routes, asked);
                    }
                    Ok(None) => break,
                    Err(err) => {
                        // What waits is not known: the next part that ends is a reason to ask again.
                        self.may_wait.store(true, Ordering::Relaxed);
                        tracing::error!(error = %err, "the ledger does not hand out what waits in it");
                        again = RARELY;
                        break;
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {}
                _ = stirred.changed() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Keeps what is worked here, where the ledger is shared, until the engine is closed and nothing is worked any more.
    pub async fn keep(self: Arc<Self>) {
        let Some(lease) = self.ledger.lease() else { return };
        let mut stirred = self.stirred.subscribe();
        let pause = (lease / 4).min(CLAIM_AGAIN);
        loop {
            let keys = self.register.keys();
            if keys.is_empty() && self.closing.is_cancelled() {
                return;
            }
            if !keys.is_empty() {
                self.renew(keys, lease).await;
            }
            let rest = tokio::time::sleep(pause);
            if self.closing.is_cancelled() {
                tokio::select! { biased; () = rest => {}, _ = stirred.changed() => {} }
            } else {
                rest.await;
            }
        }
    }

    /// Renews leases. Whether every one of the parts is still held.
    async fn renew(&self, keys: Vec<PartKey>, lease: Duration) -> bool {
        // Counted from before the question: what the ledger counts from lies later.
        let until = Instant::now() + lease;
        let Ok(holds) = self.ledger.renew(keys.clone()).await else { return false };
        for (key, hold) in keys.iter().zip(&holds) {
            self.register.renewed(*key, *hold, until);
        }
        holds.iter().all(|hold| *hold != Hold::Lost)
    }

    /// Stops sending for a deletion: what was not sent is skipped. Durable when this returns.
    pub async fn cancel(&self, id: DeletionId) -> Result<(), StoreError> {
        self.ledger.cancel(id, clock::unix_ms()).await?;
        self.register.cancel(id);
        self.stir();
        Ok(())
    }

    /// What was asked for before under a key.
    pub async fn claimed(&self, claim: Claim) -> Result<Accepted, StoreError> {
        self.ledger.claimed(claim).await
    }

    /// A deletion without its contacts.
    pub async fn read(&self, id: DeletionId) -> Result<Option<Summary>, StoreError> {
        self.ledger.read(id).await
    }

    /// The same, if it is this tenant's.
    pub async fn read_of(&self, tenant: &Arc<str>, id: DeletionId) -> Result<Option<Summary>, StoreError> {
        self.ledger.read_of(Arc::clone(tenant), id).await
    }

    /// One part's contacts and results so far.
    pub async fn page(&self, id: DeletionId, part: u32) -> Result<Option<Page>, StoreError> {
        self.ledger.page(id, part).await
    }

    /// A tenant's deletions, newest first.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Summary>, StoreError> {
        self.ledger.list(filter).await
    }

    /// The end of a deletion, if it runs here as one part.
    pub fn follow(&self, id: DeletionId) -> Option<Finished> {
        self.register.follow(id)
    }

    /// Waits a while for the end of a deletion, wherever it runs. Whether it came, as far as the ledger can be read.
    pub async fn wait(&self, id: DeletionId, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            if let Some(mut finished) = self.follow(id) {
                let ended = async { drop(finished.wait_for(Option::is_some).await) };
                let _ = tokio::time::timeout_at(end, ended).await;
            }
            match self.read(id).await {
                Ok(Some(summary)) if summary.finished_ms.is_some() => return true,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return false,
            }
            if Instant::now() + LOOK_AGAIN > end {
                return false;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.halt.cancelled() => return false,
            }
        }
    }

    /// Whether the ledger can be written to.
    pub fn healthy(&self) -> bool {
        self.ledger.healthy()
    }

    /// The key of identifiers' hashes.
    pub fn hash_key(&self) -> [u8; 16] {
        self.ledger.hash_key()
    }

    /// Runs something that is waited for when the engine ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// The same with something that the engine cannot do without: if it panics, it is begun again after a second. What is
    /// shared with it is left as it stands then, as after an error.
    pub fn tend<T>(&self, task: impl Fn() -> T + Send + Sync + 'static)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(async move {
            while AssertUnwindSafe(async { task().await }).catch_unwind().await.is_err() {
                tracing::error!("a task of the engine broke off and is begun again");
                tokio::time::sleep(BEGIN_AGAIN).await;
            }
        });
    }

    /// Claims nothing more.
    pub fn close_claims(&self) {
        self.closing.cancel();
    }

    /// Claims nothing more, and waits until everything that runs has ended. What is started afterwards is waited for as
    /// well.
    pub async fn idle(&self) {
        self.close_claims();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Claims nothing more and starts no further call. Calls in flight come to their end, and what is left stands in the
    /// ledger.
    pub fn halt(&self) {
        self.closing.cancel();
        self.halt.cancel();
        self.register.ring();
    }

    fn stir(&self) {
        self.may_wait.store(true, Ordering::Relaxed);
        self.stirred.send_replace(());
    }

    /// Goes on with a part that waited in the ledger.
    fn take_up(self: &Arc<Self>, job: Job, routes: &impl Fn(&Head) -> Routes, asked: Instant) {
        // First, so that whatever breaks off from here on gives the part back.
        let (leaving, running) = self.enter(&job, None, asked);
        let routes = routes(&job.head);
        if job.key.fence > 1 {
            tracing::info!(deletion = %job.head.id, tenant = %job.head.tenant, part = job.key.part, "taken up again");
        }
        let engine = Arc::clone(self);
        let task = async move {
            // Whoever cancelled it after it was claimed and before it stood in the register has not found it there.
            if job.cancelled || engine.cancelled_ms(job.head.id).await.is_some() {
                running.signals.cancel();
            }
            engine.carry_out(job, &routes, &running, None).await;
            leaving.in_order();
        };
        self.tasks.spawn(task);
    }

    fn enter(self: &Arc<Self>, job: &Job, finished: Option<Finished>, since: Instant) -> (Leaving, Running) {
        let valid_until = self.ledger.lease().map(|lease| since + lease);
        let running = Running::new(job, finished, valid_until);
        self.register.enter(&running);
        (Leaving { engine: Arc::clone(self), key: job.key, is_over: false }, running)
    }

    /// Carries a part out, and closes its deletion if it was the last.
    async fn carry_out(
        &self,
        job: Job,
        routes: &Routes,
        running: &Running,
        finished: Option<watch::Sender<Option<Arc<Whole>>>>,
    ) {
        let (deletion, tenant, part) = (job.head.id, &*job.head.tenant, job.key.part);
        let trace = self.tracer.of(job.head.id);
        let results = match self.work(&job, routes, running, trace.as_ref()).await {
            Ok(results) => results,
            Err(work::Stopped::Store(StoreError::Fenced)) => {
                tracing::warn!(%deletion, tenant, part, "the part is not held here any more");
                // It may be over, and only the answer to its last record be missing.
                self.close(&job.head).await;
                return;
            }
            Err(work::Stopped::Store(err)) => {
                tracing::error!(%deletion, tenant, part, error = %err, "the deletion stops here: what it learnt could not be put down");
                return;
            }
            Err(work::Stopped::Moved(settled)) => {
                tracing::info!(%deletion, tenant, part, "a connection is configured otherwise now: what is left is taken up anew");
                self.register.settled(&job.head.tenant, settled);
                if let Err(err) = self.ledger.release(job.key).await {
                    tracing::error!(%deletion, tenant, part, error = %err, "the part could not be given back");
                }
                return self.may_wait.store(true, Ordering::Relaxed);
            }
            Err(work::Stopped::Halted) => {
                tracing::info!(%deletion, tenant, part, "not finished: what is left stands in the ledger");
                let _ = self.ledger.release(job.key).await;
                return;
            }
        };
        self.register.settled(&job.head.tenant, job.part.contacts.len() - job.part.settled.len());
        let Some(finished_ms) = self.close(&job.head).await else { return };
        if job.parts > 1 {
            let trace = trace.and_then(|trace| trace.id());
            return tracing::info!(%deletion, tenant, trace, parts = job.parts, "deletion finished");
        }
        let cancelled_ms = match running.signals.is_cancelled() {
            true => self.cancelled_ms(job.head.id).await,
            false => None,
        };
        let whole = work::whole(&job, finished_ms, cancelled_ms, results);
        let (absent, trace) = (whole.summary.tally.absent, trace.and_then(|trace| trace.id()));
        tracing::info!(%deletion, tenant, trace, contacts = whole.page.contacts.len(), absent, "deletion finished");
        finished.inspect(|finished| drop(finished.send_replace(Some(Arc::new(whole)))));
    }

    /// Closes a deletion, if all its parts are over: when, if it is closed now.
    async fn close(&self, head: &Head) -> Option<i64> {
        let finished_ms = clock::unix_ms();
        match self.ledger.finish(head.id, finished_ms).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(err) => {
                let (deletion, tenant) = (head.id, &*head.tenant);
                tracing::error!(%deletion, tenant, error = %err, "the end of the deletion could not be put down");
                return None;
            }
        }
        // Parts that end at the same time find it closed, each of them.
        if self.register.first_to_close(head.id) {
            telemetry::deletion(&head.tenant, "finished");
            self.tracer.finished(head, finished_ms);
        }
        Some(finished_ms)
    }

    /// When a deletion was cancelled, as far as the ledger can be read.
    async fn cancelled_ms(&self, id: DeletionId) -> Option<i64> {
        self.ledger.read(id).await.ok().flatten()?.cancelled_ms
    }
}
