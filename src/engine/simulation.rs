//! The pure core under a random scheduler: shares, ledger and doubles in virtual time, with a network that loses,
//! delays, repeats and garbles, and processes that crash, pause and are taken over.
//!
//! The oracle is the double's own log. Nothing here sleeps: one seed is one schedule, always the same.
//! `ONEDELETE_SCHEDULES=N` runs N schedules a dialect and identifier kind, `ONEDELETE_SEED=S` replays one.
//! Above 500 lines because a schedule's world, its faults and its oracle are one machine.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use adapters::{
    Call, DIALECTS, Dialect, Double, Evidence, Fault, FaultCode, Grant, Identifier, IdentifierKind, Outcome,
    Registration, SignInReading, Slot, Target,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Map, Value};

use super::shortcut::{self, Shortcut, taken};
use super::{Backoff, Lost, Moment, Policy, Run, Settled, Share, Step, Ticket};
use crate::store::{Accept, Book, Contact, DeletionId, Head, Intent, Job, Loads, Part, PartKey, Record, StoreError};

const CONTACTS: usize = 9;
const TIMEOUT_MS: u64 = 10_000;
const SHARE: u16 = 0;

/// What is going to happen.
enum Event {
    /// A request reaches the double. `worker` is who waits for the reply, if anybody still does.
    Arrive { worker: u64, ticket: Ticket, request: Box<Request<Bytes>>, fate: Fate },
    /// A reply reaches the worker.
    Reply { worker: u64, ticket: Ticket, reply: Response<Bytes> },
    /// The worker stops waiting, or learns that nothing was sent.
    Lose { worker: u64, ticket: Ticket, lost: Lost },
    /// The worker looks what to do.
    Poll { worker: u64 },
    /// The process dies, and another takes over.
    Crash,
    /// The process is suspended, another takes over, and the first comes back as a zombie.
    Zombie,
    /// The caller cancels.
    Cancel,
}

/// What becomes of a request that reaches the upstream.
#[derive(Clone, Copy)]
enum Fate {
    Normal,
    ReplyLost,
    ReplyGarbled,
    ErrorAfterCommit,
    ErrorBeforeCommit,
    Throttled,
    Unauthorised,
    Twice,
}

struct Worker {
    share: Share,
    fence: u64,
    records: u32,
    /// Events that reach a suspended process wait for it.
    suspended: bool,
    missed: Vec<Event>,
}

struct World {
    registration: &'static Registration,
    dialect: Arc<dyn Dialect>,
    double: Box<dyn Double>,
    book: Book,
    deletion: DeletionId,
    dice: fastrand::Rng,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    workers: BTreeMap<u64, Worker>,
    current: u64,
    token: String,
    deleted: Vec<Identifier>,
    calm: bool,
}

fn settings(registration: &Registration) -> Map<String, Value> {
    let table: toml::Table = registration.example.parse().unwrap();
    let Value::Object(map) = serde_json::to_value(table).unwrap() else { panic!() };
    map
}

pub(super) fn open(registration: &Registration, rng: &mut fastrand::Rng) -> Arc<dyn Dialect> {
    let mut settings = settings(registration);
    for key in ["dialect", "credentials", "allow_http", "allow_private"] {
        settings.remove(key);
    }
    if registration.profile.contacts_per_call_ceiling > 1 {
        settings.insert("max_contacts_per_call".into(), rng.usize(2..=4).into());
    }
    if registration.profile.evidence.contains(&Evidence::Aggregate) && rng.bool() {
        settings.insert("attribution".into(), "batch".into());
    }
    Arc::from((registration.open)(Value::Object(settings)).unwrap())
}

/// A credential that the double accepts for the whole schedule.
fn token(registration: &Registration, dialect: &dyn Dialect, double: &mut dyn Double) -> String {
    let settings = settings(registration);
    let credentials = settings["credentials"].as_object().unwrap();
    let plain = |name: &str| {
        let text = credentials[name].as_str().unwrap();
        text.strip_prefix("plain:").unwrap_or(text).to_owned()
    };
    let form = registration.profile.auth.forms.iter().find(|form| {
        form.members.len() == credentials.len() && form.members.iter().all(|m| credentials.contains_key(m.name))
    });
    let form = form.unwrap();
    let value = match &form.grant {
        Grant::Fixed => plain(form.members[0].name),
        Grant::SignedJwt { id_claim, .. } => {
            crate::mock::signed_jwt(id_claim, &plain("client_id"), &plain("client_secret"))
        }
        Grant::SignIn => {
            let members: Vec<_> = form.members.iter().map(|m| (m.name, plain(m.name))).collect();
            let members: Vec<_> = members.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let sign_in = dialect.sign_in().unwrap();
            let request = sign_in.request(&adapters::Account(&members)).unwrap();
            // Far in the future, so that it holds for the whole schedule.
            let SignInReading::Token { value, .. } = sign_in.read(&double.answer(&request, 1 << 40).response) else {
                panic!()
            };
            value
        }
    };
    format!("{}{value}", registration.profile.auth.prefix)
}

pub(super) fn identifier(registration: &Registration, kind: IdentifierKind, n: usize) -> Identifier {
    let rule = registration.profile.identifiers.iter().find(|rule| rule.kind == kind).unwrap();
    let forms = match kind {
        IdentifierKind::Id => vec![
            Identifier::Id(format!("{}", n + 7_000_001).into()),
            Identifier::Id(format!("{n:024x}").into()),
            Identifier::Id(format!("91c615e3-1040-4815-8ecb-{n:012x}").into()),
        ],
        IdentifierKind::Phone => vec![Identifier::Phone(format!("+1415{n:07}").into())],
        IdentifierKind::External => {
            vec![Identifier::External { provider: "salesforce".into(), id: format!("003DL{n:09}").into() }]
        }
    };
    forms.into_iter().find(|form| (rule.accepts)(form)).unwrap()
}

/// One schedule. Returns the results, or what is false about them.
fn run(
    registration: &'static Registration,
    kind: IdentifierKind,
    seed: u64,
    calm: bool,
) -> Result<Vec<Settled>, String> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let dialect = open(registration, &mut dice);
    let mut double = (registration.double)();
    let identifiers: Vec<_> = (0..CONTACTS).map(|n| identifier(registration, kind, n)).collect();
    let mut was_there = HashSet::new();
    for (n, identifier) in identifiers.iter().enumerate() {
        match dice.u8(..10) {
            0..=6 => {
                double.seed(identifier, false);
                was_there.insert(n);
            }
            7 | 8 => {
                double.seed(identifier, true);
                was_there.insert(n);
            }
            _ => {}
        }
    }
    let token = token(registration, &*dialect, &mut *double);
    let contacts = identifiers.iter().map(|identifier| Contact::bare(SHARE, identifier.clone())).collect();
    let head = Head {
        id: DeletionId::new(),
        tenant: "t".into(),
        created_ms: 0,
        reason: None,
        reference: None,
        shares: vec!["c".into()],
    };
    let last = Arc::new(Part::of(0, 0, contacts, Vec::new()));
    let accept = Accept { head, last, claim: None, hold: true };
    let mut world = World {
        registration,
        dialect,
        double,
        book: Book::default(),
        deletion: accept.head.id,
        dice,
        now_ms: 0,
        queue: BTreeMap::new(),
        events: 0,
        workers: BTreeMap::new(),
        current: 0,
        token,
        deleted: Vec::new(),
        calm,
    };
    world.book.accept(&accept);
    let targets = Job::first(&accept).past(SHARE).0;
    let share = Share::new(Arc::clone(&world.dialect), policy(&mut world.dice, calm), targets);
    world.hire(share, 1);
    if !calm {
        for (one_in, event) in [(3, Event::Crash), (5, Event::Crash), (4, Event::Zombie), (6, Event::Cancel)] {
            if world.dice.u32(0..one_in) == 0 {
                let at = world.dice.u64(0..40_000);
                world.at(at, event);
            }
        }
    }
    world.play();
    world.judge(&identifiers, &was_there)
}

fn policy(dice: &mut fastrand::Rng, calm: bool) -> Policy {
    let deadline_ms = if calm { u64::MAX } else { *dice.choice(&[20_000, 60_000, 3_600_000]).unwrap() };
    let max_attempts = if calm { 4 } else { dice.u32(1..=4) };
    let doubt_ms = if calm { 600_000 } else { *dice.choice(&[0, 30_000, 600_000]).unwrap() };
    let backoff = Backoff { base_ms: 500, cap_ms: 60_000 };
    Policy { max_attempts, doubt_ms, backoff, deadline_ms, renewable: dice.bool() }
}

impl World {
    fn moment(&self) -> Moment {
        Moment { ms: self.now_ms, unix_s: 1_700_000_000 + self.now_ms / 1_000 }
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.events += 1;
        self.queue.insert((at_ms.max(self.now_ms), self.events), event);
    }

    fn after(&mut self, ms: std::ops::Range<u64>, event: Event) {
        let ms = self.dice.u64(ms);
        self.at(self.now_ms + ms, event);
    }

    fn hire(&mut self, share: Share, fence: u64) {
        self.current += 1;
        let worker = Worker { share, fence, records: 0, suspended: false, missed: Vec::new() };
        self.workers.insert(self.current, worker);
        self.at(self.now_ms, Event::Poll { worker: self.current });
    }

    fn play(&mut self) {
        let mut steps = 0;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now_ms = at;
            steps += 1;
            assert!(steps < 100_000, "the schedule does not end: a wait names no future moment");
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        if let Event::Reply { worker, .. } | Event::Lose { worker, .. } | Event::Poll { worker } = &event
            && let Some(sleeper) = self.workers.get_mut(worker).filter(|w| w.suspended)
        {
            sleeper.missed.push(event);
            return;
        }
        match event {
            Event::Poll { worker } => self.poll(worker),
            Event::Arrive { worker, ticket, request, fate } => self.arrive(worker, ticket, &request, fate),
            Event::Reply { worker, ticket, reply } => {
                let (now, mut dice) = (self.moment(), self.dice.fork());
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.share.on_reply(ticket, &reply, now, &mut dice);
                }
                self.write_down(worker);
            }
            Event::Lose { worker, ticket, lost } => {
                let (now, mut dice) = (self.moment(), self.dice.fork());
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.share.on_lost(ticket, lost, now, &mut dice);
                }
                self.write_down(worker);
            }
            Event::Cancel => {
                let current = self.current;
                if let Some(worker) = self.workers.get_mut(&current) {
                    worker.share.cancel();
                }
                self.write_down(current);
            }
            Event::Crash => {
                self.workers.remove(&self.current);
                self.take_over();
            }
            Event::Zombie => {
                let zombie = self.current;
                if let Some(worker) = self.workers.get_mut(&zombie) {
                    worker.suspended = true;
                }
                self.take_over();
                // It comes back later and believes that nothing happened.
                let back = self.now_ms + self.dice.u64(1..30_000);
                self.wake(zombie, back);
            }
        }
    }

    fn wake(&mut self, worker: u64, at_ms: u64) {
        let Some(sleeper) = self.workers.get_mut(&worker) else { return };
        sleeper.suspended = false;
        // Whatever it missed reaches it in one go. Simulated by waking it now for events from then on.
        let missed = std::mem::take(&mut sleeper.missed);
        for event in missed {
            self.at(at_ms, event);
        }
        let late: Vec<_> = self
            .queue
            .iter()
            .filter(|((at, _), event)| {
                *at < at_ms
                    && matches!(event, Event::Reply { worker: w, .. } | Event::Lose { worker: w, .. } | Event::Poll { worker: w } if *w == worker)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            if let Some(event) = self.queue.remove(&key) {
                self.at(at_ms, event);
            }
        }
    }

    fn take_over(&mut self) {
        self.book.crash();
        let Some(job) = self.book.claim(&Loads { most: 1, ..Loads::default() }) else { return };
        let (fresh, past, last_ticket) = job.past(SHARE);
        let (now, mut dice) = (self.moment(), self.dice.fork());
        let policy = policy(&mut self.dice, self.calm);
        let share = Share::resume(Arc::clone(&self.dialect), policy, fresh, past, last_ticket, now, &mut dice);
        self.hire(share, job.key.fence);
        let current = self.current;
        self.write_down(current);
    }

    fn key(&self, worker: &Worker) -> PartKey {
        PartKey { deletion: self.deletion, part: 0, fence: worker.fence }
    }

    fn poll(&mut self, id: u64) {
        let now = self.moment();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.share.poll(now) {
            Step::Send(ticket, call) => {
                let (attempts, in_doubt) = worker.share.attempt(ticket).unwrap();
                let slots = call.targets.iter().map(|target| target.slot).collect();
                let key = PartKey { deletion: self.deletion, part: 0, fence: worker.fence };
                let intent = Intent { key, share: SHARE, ticket, attempts, in_doubt, slots };
                if !taken(Shortcut::NoIntent) && self.book.intent(intent) == Err(StoreError::Fenced) {
                    self.workers.remove(&id); // We are the zombie: send nothing, claim nothing.
                    return;
                }
                self.send(id, ticket, &call);
                self.at(self.now_ms, Event::Poll { worker: id });
            }
            Step::Wait(until) => {
                assert!(until > self.now_ms, "a wait must name a future moment");
                self.at(until, Event::Poll { worker: id });
            }
            Step::Idle | Step::Done => {}
        }
        self.write_down_news(id);
    }

    /// Lets a call go, with whatever the network makes of it.
    fn send(&mut self, worker: u64, ticket: Ticket, call: &Call) {
        let mut request = call.request.clone();
        request.headers_mut().insert(self.registration.profile.auth.header, self.token.parse().unwrap());
        let request = Box::new(request);
        let timeout = Lost::MaybeSent(Fault::new(FaultCode::ResponseTimeout));
        let deadline = self.now_ms + TIMEOUT_MS;
        let luck = if self.calm { 0 } else { self.dice.u32(0..100) };
        let fate = match luck {
            0..50 => Fate::Normal,
            50..58 => Fate::ReplyLost,
            58..66 => Fate::ReplyGarbled,
            66..72 => Fate::ErrorAfterCommit,
            72..76 => Fate::ErrorBeforeCommit,
            76..80 => Fate::Throttled,
            80..83 => Fate::Unauthorised,
            83..88 => Fate::Twice,
            88..92 => {
                // Refused at the door: nothing was sent.
                let lost = Lost::NotSent { fault: Fault::new(FaultCode::ConnectFailed), again: true };
                self.after(0..3_000, Event::Lose { worker, ticket, lost });
                return;
            }
            92..94 => {
                self.after(0..10, Event::Lose { worker, ticket, lost: Lost::CircuitOpen { wait_ms: 5_000 } });
                return;
            }
            94..97 => {
                // Lost on the way there.
                self.at(deadline, Event::Lose { worker, ticket, lost: timeout });
                return;
            }
            _ => {
                // Held up in the network: it arrives after everybody stopped waiting for it.
                self.at(deadline, Event::Lose { worker, ticket, lost: timeout });
                let arrival = deadline + self.dice.u64(0..60_000);
                self.at(arrival, Event::Arrive { worker: 0, ticket, request, fate: Fate::Normal });
                return;
            }
        };
        if self.dice.u8(..) < 26 && !self.calm {
            // The connection breaks while the upstream is at work.
            let lost = Lost::MaybeSent(Fault::new(FaultCode::ConnectionLost));
            self.after(0..100, Event::Lose { worker, ticket, lost });
        }
        self.at(deadline, Event::Lose { worker, ticket, lost: timeout });
        self.after(1..500, Event::Arrive { worker, ticket, request, fate });
    }

    fn arrive(&mut self, worker: u64, ticket: Ticket, request: &Request<Bytes>, fate: Fate) {
        let plain = |status: u16, body: &'static str| {
            let mut reply = Response::new(Bytes::from_static(body.as_bytes()));
            *reply.status_mut() = StatusCode::from_u16(status).unwrap();
            reply
        };
        let carries_out = !matches!(fate, Fate::ErrorBeforeCommit | Fate::Throttled | Fate::Unauthorised);
        let mut reply = if carries_out { self.commit(request) } else { plain(500, "<html>500</html>") };
        match fate {
            Fate::Normal | Fate::ErrorBeforeCommit => {}
            Fate::ReplyLost => return,
            Fate::ErrorAfterCommit => reply = plain(if self.dice.bool() { 500 } else { 502 }, "<html>502</html>"),
            Fate::Throttled => reply = plain(429, ""),
            Fate::Unauthorised => reply = plain(401, ""),
            // Something between sends it a second time; the first reply is the one that comes back.
            Fate::Twice => drop(self.commit(request)),
            Fate::ReplyGarbled => {
                let body = reply.body().clone();
                *reply.body_mut() = match self.dice.u8(0..3) {
                    0 => body.slice(..self.dice.usize(0..=body.len())),
                    1 => Bytes::from_static(b"<html>OK</html>"),
                    _ => Bytes::from_static(b"{\"unexpected\":true"),
                };
                // Where the status is the evidence, an empty body is no garbling: then the status is.
                if reply.body().is_empty() || reply.body().len() == body.len() {
                    reply = plain(504, "");
                }
            }
        }
        if worker != 0 {
            let slowest = if self.calm { TIMEOUT_MS / 2 } else { TIMEOUT_MS + 2_000 };
            self.after(1..slowest, Event::Reply { worker, ticket, reply });
        }
    }

    fn commit(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let answer = self.double.answer(request, self.moment().unix_s);
        self.deleted.extend(answer.deleted);
        answer.response
    }

    /// Puts down what a worker learnt, and lets it go on.
    fn write_down(&mut self, id: u64) {
        self.write_down_news(id);
        self.at(self.now_ms, Event::Poll { worker: id });
    }

    fn write_down_news(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (closed, settled) = (worker.share.take_closed(), worker.share.take_settled());
        if closed.is_empty() && settled.is_empty() {
            return;
        }
        worker.records += 1;
        let number = worker.records;
        let worker = &self.workers[&id];
        let record = Record { key: self.key(worker), number, share: SHARE, closed, settled };
        if self.book.record(record) == Err(StoreError::Fenced) {
            self.workers.remove(&id);
        }
    }

    /// Compares every result with what the upstream did.
    fn judge(&self, identifiers: &[Identifier], was_there: &HashSet<usize>) -> Result<Vec<Settled>, String> {
        let stored = self.book.page(self.deletion, 0).unwrap();
        let mut results = Vec::new();
        for (n, (identifier, result)) in identifiers.iter().zip(stored.results.iter()).enumerate() {
            let Some(settled) = result else { return Err(format!("contact {n} was never settled")) };
            let is_there = self.double.holds(identifier);
            let ours = self.deleted.contains(identifier);
            let lie = match settled.outcome {
                Outcome::Deleted if !ours => Some("was not deleted by us"),
                Outcome::NotFound if is_there => Some("is there"),
                Outcome::NotFound if ours && settled.evidence != Evidence::Inferred => {
                    Some("was there, and we deleted it")
                }
                Outcome::Rejected | Outcome::Failed | Outcome::Skipped if ours => Some("was deleted by us"),
                Outcome::Pending | Outcome::WouldDelete => Some("is no result"),
                _ if settled.absent == Some(true) && is_there => Some("is not absent"),
                _ if settled.absent == Some(false) && was_there.contains(&n) && !is_there => Some("is absent"),
                _ => None,
            };
            if let Some(lie) = lie {
                return Err(format!(
                    "contact {n} is said to be {:?} ({:?}), but it {lie}",
                    settled.outcome, settled.reason
                ));
            }
            if settled.absent.is_none() != (settled.outcome == Outcome::Unknown) && settled.outcome == Outcome::Unknown
            {
                return Err(format!("contact {n} is unknown, yet {:?}", settled.absent));
            }
            results.push(settled.clone());
        }
        Ok(results)
    }
}

fn everyone() -> impl Iterator<Item = (&'static Registration, IdentifierKind)> {
    DIALECTS.iter().flat_map(|r| r.profile.identifiers.iter().map(move |rule| (r, rule.kind)))
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_schedule_makes_an_outcome_false() {
    let schedules = from_environment("ONEDELETE_SCHEDULES").unwrap_or(1_500);
    let seeds = from_environment("ONEDELETE_SEED").map_or(0..schedules, |seed| seed..seed + 1);
    let (mut unknown, mut contacts, mut ran) = (0, 0, 0);
    for (registration, kind) in everyone() {
        for seed in seeds.clone() {
            let results = run(registration, kind, seed, false).unwrap_or_else(|lie| {
                let id = registration.profile.id;
                panic!("{id} {kind:?}: {lie}; replay: ONEDELETE_SEED={seed} cargo test --lib no_schedule_makes_an_outcome_false")
            });
            unknown += results.iter().filter(|settled| settled.outcome == Outcome::Unknown).count();
            contacts += results.len();
            ran += 1;
        }
    }
    println!("{ran} schedules, {contacts} contacts: 0 false, {unknown} unknown");
}

#[test]
fn without_faults_nothing_is_unknown() {
    for (registration, kind) in everyone() {
        for seed in 0..200 {
            for settled in run(registration, kind, seed, true).unwrap() {
                // A batch of phones with a failure in it cannot be told apart: the upstream names records, not phones.
                let untold = kind != IdentifierKind::Id
                    && settled.reason.as_ref().is_some_and(|r| r.code == FaultCode::ResponseIncomplete);
                assert!(settled.outcome != Outcome::Unknown || untold, "{}: {settled:?}", registration.profile.id);
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_results() {
    for (registration, kind) in everyone() {
        for seed in 0..20 {
            assert_eq!(run(registration, kind, seed, false), run(registration, kind, seed, false));
        }
    }
}

/// Each rule is there for a reason: without it, some schedule ends in a false statement.
#[test]
fn every_short_cut_is_found() {
    for cut in Shortcut::ALL {
        shortcut::take(Some(cut));
        let found = everyone().find_map(|(registration, kind)| {
            (0..4_000).find_map(|seed| {
                run(registration, kind, seed, false).err().map(|lie| (registration.profile.id, seed, lie))
            })
        });
        shortcut::take(None);
        let (id, seed, lie) = found.unwrap_or_else(|| panic!("nobody noticed {cut:?}"));
        println!("{cut:?}: {id}, seed {seed}: {lie}");
    }
}

#[test]
fn a_share_settles_every_slot_once() {
    for (registration, kind) in everyone() {
        let mut dice = fastrand::Rng::with_seed(5);
        let dialect = open(registration, &mut dice);
        let targets: Vec<_> = (0..CONTACTS)
            .map(|n| Target { slot: Slot(n as u32), identifier: identifier(registration, kind, n) })
            .collect();
        let mut share = Share::new(dialect, policy(&mut dice, true), targets);
        let now = Moment { ms: 0, unix_s: 0 };
        while let Step::Send(ticket, _) = share.poll(now) {
            let reply = Response::new(Bytes::new());
            share.on_lost(
                ticket,
                Lost::NotSent { fault: Fault::new(FaultCode::ConnectFailed), again: false },
                now,
                &mut dice,
            );
            // Late and doubled news change nothing.
            share.on_reply(ticket, &reply, now, &mut dice);
            share.on_lost(ticket, Lost::MaybeSent(Fault::new(FaultCode::ConnectionLost)), now, &mut dice);
        }
        let mut slots: Vec<_> = share.take_settled().iter().flat_map(Run::slots).map(|slot| slot.0).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..CONTACTS as u32).collect::<Vec<_>>());
        assert!(matches!(share.poll(now), Step::Done));
    }
}

/// A retry may have to wait for leave that a first attempt does not need.
#[test]
fn after_an_open_circuit_what_was_never_tried_goes_first() {
    let (registration, kind) = everyone().find(|(each, _)| each.profile.max_contacts_per_call == 1).unwrap();
    let mut dice = fastrand::Rng::with_seed(5);
    let targets: Vec<_> =
        (0..3).map(|n| Target { slot: Slot(n as u32), identifier: identifier(registration, kind, n) }).collect();
    let policy = Policy { max_attempts: 4, deadline_ms: 1_000_000, ..policy(&mut dice, true) };
    let mut share = Share::new(open(registration, &mut dice), policy, targets);
    let at = |ms| Moment { ms, unix_s: 0 };
    let sent = |share: &mut Share, ms| match share.poll(at(ms)) {
        Step::Send(ticket, call) => (ticket, call.targets[0].slot.0),
        other => panic!("{other:?}"),
    };
    let (first, _) = sent(&mut share, 0);
    share.on_lost(first, Lost::NotSent { fault: Fault::new(FaultCode::ConnectFailed), again: true }, at(0), &mut dice);
    let calls: Vec<_> = (0..3).map(|_| sent(&mut share, 100_000)).collect();
    assert_eq!(calls.iter().map(|(_, slot)| *slot).collect::<Vec<_>>(), [1, 2, 0]);
    // Something of it has left by now, so that the others wait for the circuit.
    let (second, rest) = calls.split_first().unwrap();
    share.on_lost(second.0, Lost::MaybeSent(Fault::new(FaultCode::ConnectionLost)), at(100_000), &mut dice);
    for (ticket, _) in rest {
        share.on_lost(*ticket, Lost::CircuitOpen { wait_ms: 1 }, at(100_000), &mut dice);
    }
    assert_eq!((sent(&mut share, 100_001).1, sent(&mut share, 100_001).1), (2, 0));
}
