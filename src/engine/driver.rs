//! Drives deletions: the only part of the engine that waits.
//!
//! A deletion runs on a task of the engine's own, so a caller who hangs up changes nothing. Its shares run side by
//! side; in each, the state machine says what to send and the ledger is told before and after. It decides nothing.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use adapters::{FaultCode, Slot};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Backoff, Lost, Policy, Settled, Share, Step, Ticket, settle_without_a_dialect};
use crate::outbound::{Permit, Upstream};
use crate::store::{Accept, Accepted, DeletionId, Intent, Ledger, Record, ShareKey, StoreError, Stored, Unfinished};
use crate::tenants::Connection;
use crate::{clock, telemetry};

/// Runs deletions.
pub struct Engine {
    ledger: Arc<dyn Ledger>,
    bounds: Bounds,
    tasks: TaskTracker,
    running: Mutex<Register>,
    /// Set when nothing more may be sent.
    halt: CancellationToken,
}

/// How much and how long.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A deletion gives up what is not in flight so many milliseconds after it was accepted.
    pub deadline_ms: u64,
    /// Contacts of deletions that are not finished.
    pub max_open_contacts: usize,
    /// Of them, of one tenant.
    pub max_open_contacts_per_tenant: usize,
}

/// What runs here.
#[derive(Default)]
struct Register {
    all: HashMap<DeletionId, Running>,
    open_contacts: usize,
    by_tenant: HashMap<Arc<str>, usize>,
}

/// Takes a deletion off the register when its task ends, however it ends.
struct Leaving {
    engine: Arc<Engine>,
    deletion: Arc<Accept>,
}

/// Why a share stopped before its end.
#[derive(Debug)]
enum Stopped {
    /// What it learnt could not be put down.
    Store(StoreError),
    /// The process is about to end: the ledger has what is left.
    Halted,
}

impl From<StoreError> for Stopped {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

/// One share's way out: the connection and its runtime side.
#[derive(Debug, Clone)]
pub struct Route {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Its upstream.
    pub upstream: Arc<Upstream>,
}

/// A deletion that was handed to the engine.
pub struct Handle {
    /// Told when the ledger has the deletion, or why it has not. Only a new one is carried out.
    pub accepted: oneshot::Receiver<Result<Accepted, StoreError>>,
    /// The deletion with all its results, once it is finished.
    pub finished: watch::Receiver<Option<Arc<Stored>>>,
}

#[derive(Clone)]
struct Running {
    cancel: CancellationToken,
    finished: watch::Receiver<Option<Arc<Stored>>>,
}

/// How a call ended, still with what it needs to be told on.
struct Ended {
    ticket: Ticket,
    permit: Option<Permit>,
    reply: Result<Result<http::Response<Bytes>, Lost>, Stopped>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut register = self.engine.register();
        let contacts = self.deletion.contacts.len();
        register.all.remove(&self.deletion.id);
        register.open_contacts -= contacts;
        if let Some(open) = register.by_tenant.get_mut(&self.deletion.tenant) {
            *open -= contacts;
            if *open == 0 {
                register.by_tenant.remove(&self.deletion.tenant);
            }
        }
        telemetry::running(register.all.len());
    }
}

impl Engine {
    /// With nothing running.
    pub fn new(ledger: Arc<dyn Ledger>, bounds: Bounds) -> Self {
        let (tasks, running, halt) = (TaskTracker::new(), Mutex::default(), CancellationToken::new());
        Self { ledger, bounds, tasks, running, halt }
    }

    /// Whether a deletion of this size can be taken beside those that are not finished.
    pub fn has_room(&self, deletion: &Accept) -> bool {
        let register = self.register();
        let of_tenant = register.by_tenant.get(&deletion.tenant).copied().unwrap_or(0);
        let contacts = deletion.contacts.len();
        // One alone is always taken, however large requests may be.
        let fits = |open: usize, most: usize| open == 0 || open + contacts <= most;
        fits(register.open_contacts, self.bounds.max_open_contacts)
            && fits(of_tenant, self.bounds.max_open_contacts_per_tenant)
    }

    /// Takes a deletion: accepts it in the ledger, then carries it out, whether or not anybody keeps the handle.
    /// `routes` has one entry for each of its shares.
    pub fn submit(self: &Arc<Self>, deletion: Accept, routes: Vec<Route>) -> Handle {
        let (accepted_tx, accepted) = oneshot::channel();
        let deletion = Arc::new(deletion);
        let (running, finished_tx, leaving) = self.enter(&deletion);
        let finished = running.finished.clone();
        let routes: Vec<_> = routes.into_iter().map(Some).collect();
        let span = tracing::error_span!("deletion", id = %deletion.id, tenant = %deletion.tenant);
        let task = async move {
            let engine = &leaving.engine;
            let accepted = engine.ledger.accept(Arc::clone(&deletion)).await;
            let go_on = accepted == Ok(Accepted::New);
            // Nobody may be listening any more; the deletion goes on all the same.
            let _ = accepted_tx.send(accepted);
            if go_on {
                telemetry::deletion(&deletion.tenant, "accepted");
                count_settled_here(&deletion, &routes);
                engine.run(&deletion, &routes, 1, None, &running.cancel, finished_tx).await;
            }
        };
        self.tasks.spawn(task.instrument(span));
        Handle { accepted, finished }
    }

    /// Goes on with a deletion that an earlier process left unfinished. A share without a route waits for its time to be
    /// over, or for being cancelled.
    pub fn resume(self: &Arc<Self>, unfinished: Unfinished, routes: Vec<Option<Route>>) {
        let (running, finished_tx, leaving) = self.enter(&unfinished.deletion);
        let deletion = Arc::clone(&unfinished.deletion);
        let span = tracing::error_span!("deletion", id = %deletion.id, tenant = %deletion.tenant);
        let task = async move {
            let fence = unfinished.fence;
            let engine = &leaving.engine;
            engine.run(&deletion, &routes, fence, Some(&unfinished), &running.cancel, finished_tx).await;
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// Stops sending for a deletion, if it runs here: what was not sent is skipped.
    pub fn cancel(&self, id: DeletionId) {
        let running = self.register().all.get(&id).cloned();
        running.inspect(|running| running.cancel.cancel());
    }

    /// A deletion and its results so far.
    pub async fn read(&self, id: DeletionId) -> Result<Option<Stored>, StoreError> {
        self.ledger.read(id).await
    }

    /// The deletion with all its results, once it is finished, if it runs here.
    pub fn follow(&self, id: DeletionId) -> Option<watch::Receiver<Option<Arc<Stored>>>> {
        self.register().all.get(&id).map(|running| running.finished.clone())
    }

    /// Whether the ledger can be written to.
    pub fn healthy(&self) -> bool {
        self.ledger.healthy()
    }

    /// Waits until everything that runs has ended. What is started afterwards is waited for as well.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts no further call. Calls in flight come to their end, and what is left stands in the ledger.
    pub fn halt(&self) {
        self.halt.cancel();
    }

    fn enter(self: &Arc<Self>, deletion: &Arc<Accept>) -> (Running, watch::Sender<Option<Arc<Stored>>>, Leaving) {
        let (finished_tx, finished) = watch::channel(None);
        let running = Running { cancel: CancellationToken::new(), finished };
        let mut register = self.register();
        register.all.insert(deletion.id, running.clone());
        register.open_contacts += deletion.contacts.len();
        *register.by_tenant.entry(Arc::clone(&deletion.tenant)).or_default() += deletion.contacts.len();
        telemetry::running(register.all.len());
        drop(register);
        (running, finished_tx, Leaving { engine: Arc::clone(self), deletion: Arc::clone(deletion) })
    }

    fn register(&self) -> std::sync::MutexGuard<'_, Register> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(
        &self,
        deletion: &Arc<Accept>,
        routes: &[Option<Route>],
        fence: u64,
        unfinished: Option<&Unfinished>,
        cancel: &CancellationToken,
        finished: watch::Sender<Option<Arc<Stored>>>,
    ) {
        let shares = routes.iter().zip(0..).map(|(route, share)| {
            let key = ShareKey { deletion: deletion.id, share, fence };
            let name = deletion.shares.get(usize::from(share)).map_or("", |name| name);
            // Spans are of the highest level, so that a log of warnings alone still says where.
            let span = tracing::error_span!("share", connection = name);
            let work = async move {
                match route {
                    Some(route) => self.drive(deletion, key, route, unfinished, cancel).await,
                    None => self.wait_without_a_route(deletion, key, unfinished, cancel).await,
                }
            };
            work.instrument(span)
        });
        let mut results: Vec<Option<Settled>> = vec![None; deletion.contacts.len()];
        put(&mut results, deletion.settled.iter().cloned());
        for share in join_all(shares).await {
            match share {
                Ok(settled) => put(&mut results, settled),
                Err(Stopped::Store(err)) => {
                    tracing::error!(error = %err, "the deletion stops here: what it learnt could not be put down");
                    return;
                }
                Err(Stopped::Halted) => {
                    tracing::info!("not finished: what is left stands in the ledger");
                    return;
                }
            }
        }
        let finished_ms = clock::unix_ms();
        if let Err(err) = self.ledger.finish(deletion.id, finished_ms).await {
            tracing::error!(error = %err, "the end of the deletion could not be put down");
            return;
        }
        telemetry::deletion(&deletion.tenant, "finished");
        let absent = results.iter().flatten().filter(|settled| settled.absent == Some(true)).count();
        tracing::info!(contacts = results.len(), absent, "deletion finished");
        let _ = finished.send(Some(Arc::new(deletion.stored(Some(finished_ms), results))));
    }

    /// Carries out one share and returns its results.
    async fn drive(
        &self,
        deletion: &Accept,
        key: ShareKey,
        route: &Route,
        unfinished: Option<&Unfinished>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(Slot, Settled)>, Stopped> {
        let Route { connection, upstream } = route;
        let deadline_ms = self.deadline_ms(deletion);
        let retry = connection.retry;
        let policy = Policy {
            max_attempts: retry.max_attempts,
            backoff: Backoff { base_ms: retry.base_ms, cap_ms: retry.cap_ms },
            deadline_ms,
            renewable: upstream.renewable(),
        };
        let dialect = Arc::clone(&connection.dialect);
        let mut dice = fastrand::Rng::new();
        let mut share = match unfinished {
            None => Share::new(dialect, policy, &deletion.targets(key.share)),
            Some(unfinished) => {
                let (fresh, past, last_ticket) = unfinished.past(key.share);
                Share::resume(dialect, policy, &fresh, &past, last_ticket, clock::now(), &mut dice)
            }
        };

        let mut results = Vec::new();
        let mut calls = FuturesUnordered::new();
        let mut writes = FuturesUnordered::new();
        let mut cancelled = pin!(cancel.cancelled());
        let mut halted = pin!(self.halt.cancelled());
        let (mut is_cancelled, mut is_halted) = (false, false);
        loop {
            if cancel.is_cancelled() && !is_cancelled {
                is_cancelled = true;
                share.cancel();
            }
            is_halted |= self.halt.is_cancelled();
            // Stations 5 and 6: as many calls as the connection may have in flight.
            let mut wake = None;
            let mut done = false;
            while calls.len() < upstream.max_in_flight() && !is_halted {
                match share.poll(clock::now()) {
                    Step::Send(ticket, call) => {
                        let (attempts, in_doubt) = share.attempt(ticket).unwrap_or((1, false));
                        let slots = call.targets.iter().map(|target| target.slot).collect();
                        let intent = Intent { key, ticket, attempts, in_doubt, slots };
                        calls.push(self.call(upstream, call, intent, deadline_ms, cancel));
                    }
                    Step::Wait(until) => {
                        wake = clock::instant(until);
                        break;
                    }
                    Step::Idle => break,
                    Step::Done => {
                        done = true;
                        break;
                    }
                }
            }
            // Station 8: what was learnt, from a call or from the clock, goes into the ledger before anybody is told.
            let (closed, settled) = (share.take_closed(), share.take_settled());
            if !closed.is_empty() || !settled.is_empty() {
                results.extend(settled.iter().cloned());
                writes.push(self.write_down(connection, Record { key, closed, settled }));
            }
            if (done || is_halted) && calls.is_empty() {
                while let Some(written) = writes.next().await {
                    written?;
                }
                return if done { Ok(results) } else { Err(Stopped::Halted) };
            }
            let nap = async {
                match wake {
                    Some(instant) => tokio::time::sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(written) = writes.next() => written?,
                Some(ended) = calls.next() => {
                    // Station 7.
                    let Ended { ticket, permit, reply } = ended;
                    let reply = match reply {
                        // It never left. The share stands as it is, and so does the ledger.
                        Err(Stopped::Halted) => continue,
                        reply => reply?,
                    };
                    match reply {
                        Ok(reply) => {
                            let signal = share.on_reply(ticket, &reply, clock::now(), &mut dice);
                            permit.inspect(|permit| upstream.heard(permit, signal));
                        }
                        Err(lost) => share.on_lost(ticket, lost, clock::now(), &mut dice),
                    }
                }
                () = &mut cancelled, if !is_cancelled => {}
                () = &mut halted, if !is_halted => {}
                () = nap => {}
            }
        }
    }

    /// Puts down what was learnt, and counts it once it is on the disk.
    async fn write_down(&self, connection: &Arc<Connection>, record: Record) -> Result<(), StoreError> {
        let outcomes: Vec<_> = record.settled.iter().map(|(_, settled)| settled.outcome).collect();
        self.ledger.record(record).await?;
        telemetry::settled(connection, outcomes.into_iter());
        Ok(())
    }

    /// A share whose connection is no longer configured: nothing can be sent for it. What it is worth is settled when it
    /// is cancelled or its time is over; until then, a start with the connection can go on with it.
    async fn wait_without_a_route(
        &self,
        deletion: &Accept,
        key: ShareKey,
        unfinished: Option<&Unfinished>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(Slot, Settled)>, Stopped> {
        let (fresh, past, _) = unfinished.map(|unfinished| unfinished.past(key.share)).unwrap_or_default();
        if fresh.is_empty() && past.is_empty() {
            return Ok(Vec::new());
        }
        tracing::error!("nothing can be sent: the connection is no longer configured");
        let time_over = async {
            match clock::instant(self.deadline_ms(deletion)) {
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            () = self.halt.cancelled() => return Err(Stopped::Halted),
            () = cancel.cancelled() => FaultCode::Cancelled,
            () = time_over => FaultCode::DeadlineExceeded,
        };
        let settled = settle_without_a_dialect(&fresh, &past, why);
        self.ledger.record(Record { key, closed: Vec::new(), settled: settled.clone() }).await?;
        Ok(settled)
    }

    /// When a deletion's time is over, as the engine counts it: it runs from its acceptance, whatever restarts lie between.
    fn deadline_ms(&self, deletion: &Accept) -> u64 {
        let age_ms = u64::try_from(clock::unix_ms() - deletion.created_ms).unwrap_or(0);
        clock::now().ms.saturating_add(self.bounds.deadline_ms.saturating_sub(age_ms))
    }

    /// One call: leave to go, intent, wire.
    async fn call(
        &self,
        upstream: &Arc<Upstream>,
        call: Arc<adapters::Call>,
        intent: Intent,
        deadline_ms: u64,
        cancel: &CancellationToken,
    ) -> Ended {
        let ticket = intent.ticket;
        let ended = |permit, reply| Ended { ticket, permit, reply };
        let admitted = tokio::select! {
            biased;
            () = self.halt.cancelled() => return ended(None, Err(Stopped::Halted)),
            () = cancel.cancelled() => {
                let fault = adapters::Fault::new(FaultCode::Cancelled);
                Err(Lost::NotSent { fault, again: false })
            }
            admitted = upstream.admit(clock::instant(deadline_ms)) => admitted,
        };
        let permit = match admitted {
            Ok(permit) => permit,
            Err(lost) => return ended(None, Ok(Err(lost))),
        };
        if let Err(err) = self.ledger.intent(intent).await {
            return ended(None, Err(err.into()));
        }
        let reply = upstream.send(&permit, &call).await;
        ended(Some(permit), Ok(reply))
    }
}

/// Counts what was settled without an upstream, so that the metrics add up to the results.
fn count_settled_here(deletion: &Accept, routes: &[Option<Route>]) {
    let share_of = |slot: Slot| deletion.contacts.get(slot.0 as usize).map(|contact| contact.share);
    for (route, share) in routes.iter().zip(0..) {
        let Some(route) = route else { continue };
        let here = deletion.settled.iter().filter(|(slot, _)| share_of(*slot) == Some(share));
        telemetry::settled(&route.connection, here.map(|(_, settled)| settled.outcome));
    }
}

fn put(results: &mut [Option<Settled>], settled: impl IntoIterator<Item = (Slot, Settled)>) {
    for (slot, settled) in settled {
        if let Some(place) = results.get_mut(slot.0 as usize) {
            *place = Some(settled);
        }
    }
}
