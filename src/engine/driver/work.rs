//! Works one part: its shares side by side, each with its state machine, calls and writes.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adapters::{FaultCode, Outcome, Slot};
use bytes::Bytes;
use futures_util::future::join_all;

use super::flight::Flight;
use super::register::Running;
use super::told::Told;
use super::{Engine, Route, Routes, Whole};
use crate::clock;
use crate::engine::{Backoff, Lost, Policy, Settled, Share, Signal, Step, Ticket, settle_without_a_dialect};
use crate::outbound::{Permit, Upstream};
use crate::store::{DeletionId, Head, Intent, Job, Page, Record, StoreError, Summary, Tally};
use crate::telemetry::{Attempt, Trace};

/// Why a part stopped before its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// What it learnt could not be put down.
    Store(StoreError),
    /// The process is about to end: the ledger has what is left.
    Halted,
    /// A connection is configured otherwise now: the ledger has what is left, for whoever claims it next. So many contacts
    /// were settled here.
    Moved(usize),
}

impl From<StoreError> for Stopped {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

/// How a call ended, still with what it needs to be told on.
struct Ended {
    ticket: Ticket,
    attempt: u32,
    permit: Option<Permit>,
    reply: Result<Result<http::Response<Bytes>, Lost>, Stopped>,
}

/// One share of a part that is being worked.
struct Work<'w> {
    engine: &'w Engine,
    job: &'w Job,
    share: u16,
    running: &'w Running,
    results: &'w Results,
    deadline_ms: u64,
    trace: Option<&'w Arc<Trace>>,
}

/// What is known of a part's contacts so far.
struct Results {
    deletion: DeletionId,
    first: u32,
    places: Mutex<Vec<Option<Settled>>>,
    /// The number of the last record.
    records: AtomicU32,
}

impl Results {
    fn of(job: &Job) -> Self {
        let places = Mutex::new(job.part.results());
        Self { deletion: job.head.id, first: job.part.first, places, records: AtomicU32::new(0) }
    }

    fn settled(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().count()
    }

    /// Takes results in. Whatever is said of a contact after its first result does not count.
    fn put(&self, settled: &mut Vec<(Slot, Settled)>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        settled.retain(|(slot, settled)| {
            let place = slot.0.checked_sub(self.first).and_then(|n| places.get_mut(n as usize));
            match place {
                Some(place @ None) => {
                    *place = Some(settled.clone());
                    true
                }
                _ => {
                    tracing::error!(deletion = %self.deletion, "a contact was settled twice: the first result stays");
                    false
                }
            }
        });
    }
}

/// Takes away the upstream's own code where it is a piece of the credential: a caller may not have that.
fn withhold(upstream: &Upstream, settled: &mut [(Slot, Settled)]) {
    let words = settled.iter_mut().filter_map(|(_, settled)| settled.reason.as_mut()?.upstream.as_mut());
    // To judge one takes longer than to remember it, and most are the same.
    let mut judged = BTreeMap::new();
    for word in words {
        let Some(code) = &word.code else { continue };
        let gives_away = match judged.get(code) {
            Some(known) => *known,
            None => *judged.entry(code.clone()).or_insert_with(|| upstream.is_given_away_by(code)),
        };
        if gives_away {
            word.code = None;
        }
    }
}

impl Engine {
    /// Works a part to its end, and returns its results.
    pub(super) async fn work(
        &self,
        job: &Job,
        routes: &Routes,
        running: &Running,
        trace: Option<&Arc<Trace>>,
    ) -> Result<Vec<Option<Settled>>, Stopped> {
        let results = Results::of(job);
        let deadline_ms = self.deadline_ms(&job.head);
        let shares = job.head.shares.iter().zip(0..).map(|(name, share)| {
            let work = Work { engine: self, job, share, running, results: &results, deadline_ms, trace };
            let route = routes.get(usize::from(share)).and_then(Option::as_ref);
            async move {
                match route {
                    Some(route) => work.drive(route).await,
                    None => work.wait_without_a_route(name).await,
                }
            }
        });
        let ended = tokio::select! {
            biased;
            ended = join_all(shares) => ended,
            () = running.lost.cancelled() => return Err(StoreError::Fenced.into()),
        };
        let mut moved = false;
        for ended in ended {
            match ended {
                Err(Stopped::Moved(_)) => moved = true,
                ended => ended?,
            }
        }
        if moved {
            return Err(Stopped::Moved(results.settled().saturating_sub(job.part.settled.len())));
        }
        Ok(results.places.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// When a deletion's time is over, as the engine counts it: it runs from its acceptance, whatever restarts lie between.
    fn deadline_ms(&self, head: &Head) -> u64 {
        let age_ms = u64::try_from(clock::unix_ms() - head.created_ms).unwrap_or(0);
        clock::ms().saturating_add(self.register.deadline_ms().saturating_sub(age_ms))
    }
}

impl Work<'_> {
    /// Carries out one share.
    async fn drive(&self, route: &Route) -> Result<(), Stopped> {
        let (engine, cancel) = (self.engine, &self.running.cancel);
        let Route { connection, upstream } = route;
        let retry = connection.retry;
        let policy = Policy {
            max_attempts: retry.max_attempts,
            doubt_ms: retry.doubt_s.saturating_mul(1_000),
            backoff: Backoff { base_ms: retry.base_ms, cap_ms: retry.cap_ms },
            deadline_ms: self.deadline_ms,
            renewable: upstream.renewable(),
        };
        let mut dice = fastrand::Rng::new();
        let (fresh, past, last_ticket) = self.job.past(self.share);
        if fresh.is_empty() && past.is_empty() {
            return Ok(());
        }
        let dialect = Arc::clone(&connection.dialect);
        let mut share = Share::resume(dialect, policy, &fresh, &past, last_ticket, clock::now(), &mut dice);
        // Nobody works there any more, but the ledger has what is in doubt there.
        if !past.is_empty() && upstream.is_newer_than(self.job.head.created_ms) {
            share.leave();
        }
        drop((fresh, past));
        let mut traced = self.trace.map(|trace| Arc::clone(trace).share(self.job.head.id, connection));
        let mut told = Told::new(&self.job.head, &connection.name, self.trace.map(|trace| &**trace));

        let mut calls = Flight::new();
        let mut writes = Flight::new();
        let mut cancelled = pin!(cancel.cancelled());
        let mut halted = pin!(engine.halt.cancelled());
        let (mut is_cancelled, mut is_halted) = (false, false);
        let mut moving = pin!(self.moving(upstream));
        let mut is_moved = false;
        loop {
            if cancel.is_cancelled() && !is_cancelled {
                is_cancelled = true;
                share.cancel();
            }
            is_halted |= engine.halt.is_cancelled();
            is_moved |= self.running.moved.is_cancelled() || upstream.is_retired();
            // Stations 5 and 6: as many calls as the connection may have in flight.
            let mut wake = None;
            let mut done = false;
            while calls.len() < upstream.max_in_flight() && !is_halted && !is_moved {
                match share.poll(clock::now()) {
                    Step::Send(ticket, call) => {
                        let (attempts, in_doubt) = share.attempt(ticket).unwrap_or((1, false));
                        let slots: Vec<_> = call.targets.iter().map(|target| target.slot).collect();
                        let trace = traced.as_mut().map(|traced| traced.attempt(&slots, attempts));
                        let intent = Intent { key: self.job.key, share: self.share, ticket, attempts, in_doubt, slots };
                        calls.push(self.call(route, call, intent, trace));
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
            if is_moved {
                self.running.moved.cancel();
                if upstream.is_elsewhere() {
                    share.leave();
                }
                done = share.is_over();
            }
            // Station 8: what was learnt, from a call or from the clock, goes into the ledger before anybody is told.
            let (closed, mut settled) = (share.take_closed(), share.take_settled());
            withhold(upstream, &mut settled);
            if !closed.is_empty() || !settled.is_empty() {
                self.results.put(&mut settled);
                for (slot, settled) in &settled {
                    told.settled(settled);
                    if let Some(traced) = &mut traced {
                        traced.settled(*slot, settled.outcome);
                    }
                }
                writes.push(self.write_down(upstream, self.record(closed, settled)));
            }
            if (done || is_halted || is_moved) && calls.is_empty() {
                while let Some(written) = writes.next().await {
                    written?;
                }
                told.end();
                return match (done, is_halted) {
                    (true, _) => Ok(()),
                    (false, true) => Err(Stopped::Halted),
                    (false, false) => Err(Stopped::Moved(0)),
                };
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
                    let Ended { ticket, attempt, permit, reply } = ended;
                    let reply = match reply {
                        // It never left. The share stands as it is, and so does the ledger.
                        Err(Stopped::Halted) => continue,
                        Err(Stopped::Moved(_)) => {
                            share.take_back(ticket);
                            continue;
                        }
                        reply => reply?,
                    };
                    match reply {
                        Ok(reply) => {
                            let signal = share.on_reply(ticket, &reply, clock::now(), &mut dice);
                            permit.inspect(|permit| upstream.heard(permit, signal));
                            if signal != Signal::default() {
                                told.answered_badly(attempt, &reply);
                            }
                        }
                        Err(lost) => {
                            told.lost(attempt, &lost);
                            share.on_lost(ticket, lost, clock::now(), &mut dice);
                        }
                    }
                }
                () = &mut cancelled, if !is_cancelled => {}
                () = &mut halted, if !is_halted => {}
                () = &mut moving, if !is_moved => is_moved = true,
                () = nap => {}
            }
        }
    }

    /// Waits until the part's work is to be given back: for this upstream, or for another one of it.
    async fn moving(&self, upstream: &Upstream) {
        tokio::select! {
            biased;
            () = upstream.retired() => {}
            () = self.running.moved.cancelled() => {}
        }
    }

    fn record(&self, closed: Vec<crate::engine::Closed>, settled: Vec<(Slot, Settled)>) -> Record {
        let number = self.results.records.fetch_add(1, Ordering::Relaxed) + 1;
        Record { key: self.job.key, number, share: self.share, closed, settled }
    }

    /// Puts down what was learnt, and counts it once it is on the disk.
    async fn write_down(&self, upstream: &Upstream, record: Record) -> Result<(), StoreError> {
        let mut counts = [0; Outcome::ALL.len()];
        record.settled.iter().for_each(|(_, settled)| counts[settled.outcome as usize] += 1);
        self.engine.ledger.record(record).await?;
        upstream.settled(Outcome::ALL.into_iter().zip(counts).filter(|(_, contacts)| *contacts > 0));
        Ok(())
    }

    /// A share whose connection is no longer configured: nothing can be sent for it. What it is worth is settled when it
    /// is cancelled or its time is over; until then, whoever has the connection can go on with it.
    async fn wait_without_a_route(&self, connection: &str) -> Result<(), Stopped> {
        let (fresh, past, _) = self.job.past(self.share);
        if fresh.is_empty() && past.is_empty() {
            return Ok(());
        }
        let (deletion, tenant) = (self.job.head.id, &*self.job.head.tenant);
        tracing::error!(%deletion, tenant, connection, "nothing can be sent: the connection is no longer configured");
        let time_over = async {
            match clock::instant(self.deadline_ms) {
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            biased;
            () = self.engine.halt.cancelled() => return Err(Stopped::Halted),
            () = self.running.cancel.cancelled() => FaultCode::Cancelled,
            () = time_over => FaultCode::DeadlineExceeded,
            () = self.running.moved.cancelled() => return Err(Stopped::Moved(0)),
            () = self.engine.configured(tenant, connection) => {
                self.running.moved.cancel();
                return Err(Stopped::Moved(0));
            }
        };
        let mut settled = settle_without_a_dialect(&fresh, &past, why);
        self.results.put(&mut settled);
        Ok(self.engine.ledger.record(self.record(Vec::new(), settled)).await?)
    }

    /// One call: leave to go, intent, wire.
    async fn call(
        &self,
        route: &Route,
        call: Arc<adapters::Call>,
        intent: Intent,
        mut trace: Option<Attempt>,
    ) -> Ended {
        let (engine, upstream) = (self.engine, &route.upstream);
        let (ticket, attempt) = (intent.ticket, intent.attempts);
        let ended = |permit, reply| Ended { ticket, attempt, permit, reply };
        let stopped = async {
            tokio::select! {
                biased;
                () = engine.halt.cancelled() => {}
                () = self.running.cancel.cancelled() => {}
                () = self.running.moved.cancelled() => {}
            }
        };
        // Mostly there is leave at once, and nothing to wait for. Who is stopped meanwhile has none, whatever came first.
        let admitted = tokio::select! {
            biased;
            admitted = upstream.admit(attempt, clock::instant(self.deadline_ms)) => Some(admitted),
            () = stopped => None,
        };
        if engine.halt.is_cancelled() {
            return ended(None, Err(Stopped::Halted));
        }
        if self.running.moved.is_cancelled() && !self.running.cancel.is_cancelled() {
            return ended(None, Err(Stopped::Moved(0)));
        }
        let cancelled = || Err(Lost::NotSent { fault: adapters::Fault::new(FaultCode::Cancelled), again: false });
        let permit = match admitted.filter(|_| !self.running.cancel.is_cancelled()).unwrap_or_else(cancelled) {
            Ok(permit) => permit.telling(trace.as_mut().and_then(Attempt::goes_out)),
            Err(lost) => return ended(None, Ok(Err(lost))),
        };
        if let Err(err) = engine.ledger.intent(intent).await {
            return ended(None, Err(err.into()));
        }
        // Whoever was stopped for longer than the lease must not send what another may be sending by now.
        if let Err(err) = self.make_sure().await {
            return ended(None, Err(err.into()));
        }
        let reply = upstream.send(&permit, &call).await;
        if let Some(trace) = trace {
            trace.ended(call.request.method(), &reply);
        }
        ended(Some(permit), Ok(reply))
    }

    /// Fails unless the part is certainly held.
    async fn make_sure(&self) -> Result<(), StoreError> {
        let lease = match self.engine.ledger.lease() {
            Some(lease) if !self.running.is_held() => lease,
            _ => return Ok(()),
        };
        let held = self.engine.renew(vec![self.job.key], lease).await;
        if held && self.running.is_held() { Ok(()) } else { Err(StoreError::Fenced) }
    }
}

/// A deletion of one part as it reads after its end.
pub(super) fn whole(job: &Job, finished_ms: i64, cancelled_ms: Option<i64>, results: Vec<Option<Settled>>) -> Whole {
    let tally = Tally::of(results.iter().flatten());
    let page = Page { first: job.part.first, contacts: job.part.asked(), results };
    let summary = Summary {
        head: Head::clone(&job.head),
        finished_ms: Some(finished_ms),
        cancelled_ms,
        contacts: page.contacts.len() as u32,
        parts: job.parts,
        tally,
    };
    Whole { summary, page }
}
