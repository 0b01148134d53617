//! Drives deletions: the only part of the engine that waits.
//!
//! A deletion runs on a task of the engine's own, so a caller who hangs up changes nothing. Its shares run side by
//! side; in each, the state machine says what to send and the ledger is told before and after. It decides nothing.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use adapters::Slot;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Backoff, Lost, Policy, Settled, Share, Signal, Step, Ticket};
use crate::outbound::{Permit, Upstream};
use crate::store::{Accept, Accepted, DeletionId, Intent, Ledger, Record, ShareKey, StoreError, Stored, Unfinished};
use crate::tenants::Connection;
use crate::{clock, telemetry};

/// Runs deletions.
pub struct Engine {
    ledger: Arc<dyn Ledger>,
    deadline_ms: u64,
    tasks: TaskTracker,
    running: Mutex<HashMap<DeletionId, Running>>,
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
    reply: Result<Result<http::Response<Bytes>, Lost>, StoreError>,
}

impl Engine {
    /// With nothing running. A deletion gives up `deadline_ms` after it was started.
    pub fn new(ledger: Arc<dyn Ledger>, deadline_ms: u64) -> Self {
        Self { ledger, deadline_ms, tasks: TaskTracker::new(), running: Mutex::default() }
    }

    /// Takes a deletion: accepts it in the ledger, then carries it out, whether or not anybody keeps the handle.
    /// `routes` has one entry for each of its shares.
    pub fn submit(self: &Arc<Self>, deletion: Accept, routes: Vec<Route>) -> Handle {
        let (accepted_tx, accepted) = oneshot::channel();
        let deletion = Arc::new(deletion);
        let (running, finished_tx) = self.enter(deletion.id);
        let finished = running.finished.clone();
        let engine = Arc::clone(self);
        let span = tracing::info_span!("deletion", id = %deletion.id, tenant = %deletion.tenant);
        let task = async move {
            let accepted = engine.ledger.accept(Arc::clone(&deletion)).await;
            let go_on = accepted == Ok(Accepted::New);
            // Nobody may be listening any more; the deletion goes on all the same.
            let _ = accepted_tx.send(accepted);
            if go_on {
                telemetry::deletion(&deletion.tenant, "accepted");
                count_settled_here(&deletion, &routes);
                engine.run(&deletion, &routes, 1, None, &running.cancel, finished_tx).await;
            }
            engine.leave(deletion.id);
        };
        self.tasks.spawn(task.instrument(span));
        Handle { accepted, finished }
    }

    /// Goes on with a deletion that an earlier process left unfinished.
    pub fn resume(self: &Arc<Self>, unfinished: Unfinished, routes: Vec<Route>) {
        let (running, finished_tx) = self.enter(unfinished.deletion.id);
        let engine = Arc::clone(self);
        let deletion = Arc::clone(&unfinished.deletion);
        let span = tracing::info_span!("deletion", id = %deletion.id, tenant = %deletion.tenant);
        let task = async move {
            let fence = unfinished.fence;
            engine.run(&deletion, &routes, fence, Some(&unfinished), &running.cancel, finished_tx).await;
            engine.leave(deletion.id);
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// Stops sending for a deletion: what was not sent is skipped. `false` if it does not run here.
    pub fn cancel(&self, id: DeletionId) -> bool {
        let running = self.running().get(&id).cloned();
        running.inspect(|running| running.cancel.cancel()).is_some()
    }

    /// A deletion and its results so far.
    pub async fn read(&self, id: DeletionId) -> Result<Option<Stored>, StoreError> {
        self.ledger.read(id).await
    }

    /// The deletion with all its results, once it is finished, if it runs here.
    pub fn follow(&self, id: DeletionId) -> Option<watch::Receiver<Option<Arc<Stored>>>> {
        self.running().get(&id).map(|running| running.finished.clone())
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

    fn enter(&self, id: DeletionId) -> (Running, watch::Sender<Option<Arc<Stored>>>) {
        let (finished_tx, finished) = watch::channel(None);
        let running = Running { cancel: CancellationToken::new(), finished };
        let mut all = self.running();
        all.insert(id, running.clone());
        telemetry::running(all.len());
        (running, finished_tx)
    }

    fn leave(&self, id: DeletionId) {
        let mut all = self.running();
        all.remove(&id);
        telemetry::running(all.len());
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<DeletionId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(
        &self,
        deletion: &Arc<Accept>,
        routes: &[Route],
        fence: u64,
        unfinished: Option<&Unfinished>,
        cancel: &CancellationToken,
        finished: watch::Sender<Option<Arc<Stored>>>,
    ) {
        let shares = routes.iter().zip(0..).map(|(route, share)| {
            let key = ShareKey { deletion: deletion.id, share, fence };
            let span = tracing::info_span!("share", connection = %route.connection.name);
            self.drive(deletion, key, route, unfinished, cancel).instrument(span)
        });
        let mut results: Vec<Option<Settled>> = vec![None; deletion.contacts.len()];
        put(&mut results, deletion.settled.iter().cloned());
        for share in join_all(shares).await {
            match share {
                Ok(settled) => put(&mut results, settled),
                Err(err) => {
                    tracing::error!(error = %err, "the deletion stops here: what it learnt could not be put down");
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
        let _ = finished.send(Some(Arc::new(stored(deletion, finished_ms, results))));
    }

    /// Carries out one share and returns its results.
    async fn drive(
        &self,
        deletion: &Accept,
        key: ShareKey,
        route: &Route,
        unfinished: Option<&Unfinished>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(Slot, Settled)>, StoreError> {
        let Route { connection, upstream } = route;
        let deadline_ms = clock::now().ms.saturating_add(self.deadline_ms);
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
        let mut is_cancelled = false;
        loop {
            // Station 8: what was learnt goes into the ledger before anybody is told.
            let (closed, settled) = (share.take_closed(), share.take_settled());
            if !closed.is_empty() || !settled.is_empty() {
                telemetry::settled(connection, settled.iter().map(|(_, settled)| settled.outcome));
                results.extend(settled.iter().cloned());
                writes.push(self.ledger.record(Record { key, closed, settled }));
            }
            // Stations 5 and 6: as many calls as the connection may have in flight.
            let mut wake = None;
            let mut done = false;
            while calls.len() < upstream.max_in_flight() {
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
            // A share can settle contacts without a call, for example when its time is over.
            let settled = share.take_settled();
            if !settled.is_empty() {
                telemetry::settled(connection, settled.iter().map(|(_, settled)| settled.outcome));
                results.extend(settled.iter().cloned());
                writes.push(self.ledger.record(Record { key, closed: Vec::new(), settled }));
            }
            if done && calls.is_empty() {
                while let Some(written) = writes.next().await {
                    written?;
                }
                return Ok(results);
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
                    let signal = match reply? {
                        Ok(reply) => Some(share.on_reply(ticket, &reply, clock::now(), &mut dice)),
                        Err(lost) => {
                            share.on_lost(ticket, lost, clock::now(), &mut dice);
                            None
                        }
                    };
                    self.tell(upstream, permit.as_ref(), signal);
                }
                () = &mut cancelled, if !is_cancelled => {
                    is_cancelled = true;
                    share.cancel();
                }
                () = nap => {}
            }
        }
    }

    fn tell(&self, upstream: &Upstream, permit: Option<&Permit>, signal: Option<Signal>) {
        if let (Some(permit), Some(signal)) = (permit, signal) {
            upstream.heard(permit, signal);
        }
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
            admitted = upstream.admit(clock::instant(deadline_ms)) => admitted,
            () = cancel.cancelled() => {
                let fault = adapters::Fault::new(adapters::FaultCode::Cancelled);
                Err(Lost::NotSent { fault, again: false })
            }
        };
        let permit = match admitted {
            Ok(permit) => permit,
            Err(lost) => return ended(None, Ok(Err(lost))),
        };
        if let Err(err) = self.ledger.intent(intent).await {
            upstream.unused(&permit);
            return ended(None, Err(err));
        }
        let reply = upstream.send(&permit, &call).await;
        ended(Some(permit), Ok(reply))
    }
}

/// Counts what was settled without an upstream, so that the metrics add up to the results.
fn count_settled_here(deletion: &Accept, routes: &[Route]) {
    let share_of = |slot: Slot| deletion.contacts.get(slot.0 as usize).map(|contact| contact.share);
    for (route, share) in routes.iter().zip(0..) {
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

fn stored(deletion: &Accept, finished_ms: i64, results: Vec<Option<Settled>>) -> Stored {
    Stored {
        id: deletion.id,
        tenant: Arc::clone(&deletion.tenant),
        created_ms: deletion.created_ms,
        finished_ms: Some(finished_ms),
        reason: deletion.reason.clone(),
        reference: deletion.reference.clone(),
        shares: deletion.shares.clone(),
        contacts: deletion
            .contacts
            .iter()
            .map(|contact| crate::store::Asked { share: contact.share, reference: contact.reference.clone() })
            .collect(),
        results,
    }
}
