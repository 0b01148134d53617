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
use crate::engine::{Backoff, Lost, Policy, Run, Share, Signal, Step, Ticket, settle_without_a_dialect};
use crate::outbound::{Permit, Upstream};
use crate::store::{self, DeletionId, Head, Intent, Job, Page, Record, StoreError, Summary, Tally};
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
    places: Mutex<store::Results>,
    /// The number of the last record.
    records: AtomicU32,
}

impl Results {
    fn of(job: &Job) -> Self {
        let places = Mutex::new(job.part.results());
        Self { deletion: job.head.id, first: job.part.first, places, records: AtomicU32::new(0) }
    }

    fn settled(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).tally().total() as usize
    }

    /// Takes results in, and hands back those that count: not what is said of a contact after its first result.
    fn put(&self, settled: Vec<Run>) -> Vec<Run> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = Vec::with_capacity(settled.len());
        for run in settled {
            let mut contacts = 0;
            places.put(store::places(self.first, run.first, run.contacts), &run.settled, |taken| {
                contacts += taken.len() as u32;
                let slot = Slot(self.first + taken.start as u32);
                first.push(Run { first: slot, contacts: taken.len() as u32, settled: run.settled.clone() });
            });
            if contacts < run.contacts {
                tracing::error!(deletion = %self.deletion, "a contact was settled twice: the first result stays");
            }
        }
        first
    }
}

/// Takes away the upstream's own code where it is a piece of the credential: a caller may not have that.
fn withhold(upstream: &Upstream, settled: &mut [Run]) {
    let words = settled.iter_mut().filter_map(|run| run.settled.reason.as_mut()?.upstream.as_mut());
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
    ) -> Result<store::Results, Stopped> {
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
        let working = async {
            let mut shares = shares;
            match (shares.next(), job.head.shares.len()) {
                // Mostly there is but one, which needs no place beside others.
                (Some(only), 1) => vec![only.await],
                (first, _) => join_all(first.into_iter().chain(shares)).await,
            }
        };
        let ended = tokio::select! {
            biased;
            ended = working => ended,
            () = running.signals.lost() => return Err(StoreError::Fenced.into()),
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
        let (engine, signals) = (self.engine, &*self.running.signals);
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
        let has_past = !past.is_empty();
        // What it is while nothing is waited for.
        let mut now = clock::now();
        let mut share = Share::resume(dialect, policy, fresh, past, last_ticket, now, &mut dice);
        // Nobody works there any more, but the ledger has what is in doubt there.
        if has_past && upstream.is_newer_than(self.job.head.created_ms) {
            share.leave();
        }
        let mut traced = self.trace.map(|trace| Arc::clone(trace).share(self.job.head.id, connection));
        let mut told = Told::new(&self.job.head, &connection.name, self.trace.map(|trace| &**trace));

        let mut calls = Flight::new();
        let mut writes = Flight::new();
        // Taken before each look, so that nothing is missed.
        let mut news = pin!(signals.news());
        let (mut is_cancelled, mut is_halted, mut is_moved) = (false, false, false);
        loop {
            if signals.is_cancelled() && !is_cancelled {
                is_cancelled = true;
                share.cancel();
            }
            is_halted |= engine.halt.is_cancelled();
            is_moved |= signals.is_moved() || upstream.is_retired();
            // Stations 5 and 6: as many calls as the connection may have in flight.
            let mut wake = None;
            let mut done = false;
            while calls.len() < upstream.max_in_flight() && !is_halted && !is_moved {
                match share.poll(now) {
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
                signals.move_on();
                if upstream.is_elsewhere() {
                    share.leave();
                }
                done = share.is_over();
            }
            // Station 8: what was learnt, from a call or from the clock, goes into the ledger before anybody is told.
            let (closed, mut settled) = (share.take_closed(), share.take_settled());
            withhold(upstream, &mut settled);
            if !closed.is_empty() || !settled.is_empty() {
                let settled = self.results.put(settled);
                for run in &settled {
                    told.settled(run);
                    if let Some(traced) = &mut traced {
                        run.slots().for_each(|slot| traced.settled(slot, run.settled.outcome));
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
                Some(written) = writes.next() => {
                    now = clock::now();
                    written?;
                }
                Some(ended) = calls.next() => {
                    // Station 7.
                    now = clock::now();
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
                            let signal = share.on_reply(ticket, &reply, now, &mut dice);
                            permit.inspect(|permit| upstream.heard(permit, signal));
                            if signal != Signal::default() {
                                told.answered_badly(attempt, &reply);
                            }
                        }
                        Err(lost) => {
                            told.lost(attempt, &lost);
                            share.on_lost(ticket, lost, now, &mut dice);
                        }
                    }
                }
                () = &mut news => {
                    now = clock::now();
                    news.set(signals.news());
                }
                () = nap => now = clock::now(),
            }
        }
    }

    fn record(&self, closed: Vec<crate::engine::Closed>, settled: Vec<Run>) -> Record {
        let number = self.results.records.fetch_add(1, Ordering::Relaxed) + 1;
        Record { key: self.job.key, number, share: self.share, closed, settled }
    }

    /// Puts down what was learnt, and counts it once it is on the disk.
    async fn write_down(&self, upstream: &Upstream, record: Record) -> Result<(), StoreError> {
        let counts = Tally::of_runs(&record.settled).settled.map(u64::from);
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
        let signals = &*self.running.signals;
        let (mut time_over, mut configured) = (pin!(time_over), pin!(self.engine.configured(tenant, connection)));
        let why = loop {
            let news = signals.news();
            if self.engine.halt.is_cancelled() {
                return Err(Stopped::Halted);
            }
            if signals.is_cancelled() {
                break FaultCode::Cancelled;
            }
            if signals.is_moved() {
                return Err(Stopped::Moved(0));
            }
            tokio::select! {
                biased;
                () = news => {}
                () = &mut time_over => break FaultCode::DeadlineExceeded,
                () = &mut configured => {
                    signals.move_on();
                    return Err(Stopped::Moved(0));
                }
            }
        };
        let settled = self.results.put(settle_without_a_dialect(&fresh, &past, why));
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
        // Who is stopped meanwhile has no leave, whatever came first.
        let admitted = self.unless_stopped(upstream.admit(attempt, clock::instant(self.deadline_ms))).await;
        let signals = &*self.running.signals;
        if engine.halt.is_cancelled() {
            return ended(None, Err(Stopped::Halted));
        }
        if signals.is_moved() && !signals.is_cancelled() {
            return ended(None, Err(Stopped::Moved(0)));
        }
        let cancelled = || Err(Lost::NotSent { fault: adapters::Fault::new(FaultCode::Cancelled), again: false });
        let permit = match admitted.filter(|_| !signals.is_cancelled()).unwrap_or_else(cancelled) {
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

    /// Waits for something until the part is not to be worked on: `None` then.
    async fn unless_stopped<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let (signals, mut waiting) = (&*self.running.signals, pin!(waiting));
        loop {
            let news = signals.news();
            if self.engine.halt.is_cancelled() || signals.is_cancelled() || signals.is_moved() {
                return None;
            }
            tokio::select! {
                biased;
                done = &mut waiting => return Some(done),
                () = news => {}
            }
        }
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
pub(super) fn whole(job: &Job, finished_ms: i64, cancelled_ms: Option<i64>, results: store::Results) -> Whole {
    let tally = results.tally();
    let page = Page { first: job.part.first, contacts: Arc::clone(&job.part.contacts), results };
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
