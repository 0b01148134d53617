//! The double, its journal and the faults that wait, behind one lock.
//!
//! A request is carried out and put down in one go, so whoever sees it in the journal also sees what it deleted. One that is
//! held is put down first, and carried out when it is let go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adapters::{Account, Asked, Double, Grant, Identifier, Registration, SettingsError};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::sync::{oneshot, watch};

use super::effect::{Effect, Stage, Step, empty, sendable};
use super::fault::Fault;
use super::journal::{Entry, Journal, Kind};
use super::latency::Sampler;
use super::limits::{Limits, Window};
use super::rule::Rules;
use super::scenario::Script;

/// Keys of a connection that the gateway reads; what is left are the dialect's own settings.
const GATEWAY_KEYS: [&str; 4] = ["dialect", "credentials", "allow_http", "allow_private"];

/// Requests that are held at one time. One more is carried out at once, as if there were no fault.
const MAX_HELD: usize = 4096;

/// Says the time in milliseconds since 1970-01-01 UTC.
pub(super) type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// What answers in the upstream's place, or leaves a request to it.
pub(super) type AnswerWith = Arc<dyn Fn(&Entry) -> Option<Response<Bytes>> + Send + Sync>;

pub(super) struct Upstream {
    pub(super) registration: &'static Registration,
    pub(super) sign_in_paths: Vec<String>,
    /// The limits that a reset goes back to.
    limits: Option<Limits>,
    now_ms: Clock,
    arrived: watch::Sender<usize>,
    state: Mutex<State>,
}

/// What a change of one member must find the others in step with.
pub(super) struct State {
    pub(super) double: Box<dyn Double>,
    pub(super) journal: Journal,
    pub(super) script: Script,
    pub(super) queued: VecDeque<Fault>,
    pub(super) rules: Rules,
    pub(super) always: Option<Fault>,
    pub(super) latency: Option<Sampler>,
    pub(super) window: Window,
    pub(super) answer_with: Option<AnswerWith>,
    /// What has arrived and waits to be let go, oldest first.
    pub(super) held: VecDeque<Held>,
    in_flight: usize,
    pub(super) most_at_once: usize,
    /// Counts resets: an answer that comes late belongs to the journal that its request stood in.
    resets: u64,
}

/// What becomes of a request that has arrived.
pub(super) enum Arrival {
    Taken(Taken),
    /// It comes back once it was carried out. If it never will be, the sender is gone.
    Held(oneshot::Receiver<Taken>),
}

/// A request that is not carried out yet.
pub(super) struct Held {
    n: usize,
    request: Request<Bytes>,
    asked: Vec<Identifier>,
    free: oneshot::Sender<Taken>,
}

/// Counts a request as in flight until it is dropped.
pub(super) struct InFlight<'u>(&'u Upstream);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
    }
}

/// A request's number, and what is left to do about it.
pub(super) struct Taken {
    pub(super) n: usize,
    pub(super) step: Step,
    /// The time before the answer.
    pub(super) wait: Duration,
    resets: u64,
}

impl Upstream {
    /// `connection` is the registration's example. Fails if the dialect does not open it.
    pub(super) fn new(
        registration: &'static Registration,
        connection: &toml::Table,
        limits: Option<Limits>,
        now_ms: Clock,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            registration,
            sign_in_paths: sign_in_paths(registration, connection)?,
            limits,
            now_ms,
            arrived: watch::Sender::new(0),
            state: Mutex::new(State::new(registration, limits, 0)),
        })
    }

    /// Counts one more request, until its answer begins.
    pub(super) fn begin(&self) -> InFlight<'_> {
        let mut state = self.state();
        state.in_flight += 1;
        state.most_at_once = state.most_at_once.max(state.in_flight);
        InFlight(self)
    }

    /// Carries a request out, or lets its fault decide. Without a body it was larger than the mock takes.
    pub(super) fn take(&self, head: Parts, body: Option<Bytes>) -> Arrival {
        let at_ms = (self.now_ms)();
        let is_too_large = body.is_none();
        let request = Request::from_parts(head, body.unwrap_or_default());
        let mut state = self.state();
        let (mut kind, asked) = self.kind(&*state.double, &request);
        let sign_in = kind == Kind::SignIn;
        let (mut fault, mut is_held) = (None, false);
        let mut effect = if is_too_large {
            Effect::answer(empty(StatusCode::PAYLOAD_TOO_LARGE))
        } else if let Err(wait_s) = if sign_in { Ok(()) } else { state.window.take(at_ms) } {
            kind = Kind::Throttled;
            Effect::answer(state.double.throttled(wait_s))
        } else if let Some(reply) = state.answer(|n| entry(n, at_ms, kind, request.clone(), asked.clone())) {
            Effect::answer(sendable(reply))
        } else {
            let profile = self.registration.profile;
            fault = state.fault(kind, &asked, self.registration);
            let asks_to_hold = fault == Some(Fault::Hold);
            is_held = asks_to_hold && state.held.len() < MAX_HELD;
            let double = &mut *state.double;
            let stage = Stage { double, profile, request: &request, asked: &asked, now_s: at_ms / 1_000 };
            if asks_to_hold && !is_held {
                Effect { applied: false, ..stage.play(None) }
            } else {
                stage.play(fault.as_ref())
            }
        };
        if !is_held {
            effect.wait = state.late(effect.wait);
        }
        let Effect { step, deleted, applied, wait } = effect;
        let (n, status) = (state.journal.next(), step.status().filter(|_| wait.is_zero()));
        let arrival = if is_held {
            let (free, freed) = oneshot::channel();
            state.held.push_back(Held { n, request: request.clone(), asked: asked.clone(), free });
            Arrival::Held(freed)
        } else {
            Arrival::Taken(Taken { n, step, wait, resets: state.resets })
        };
        state.journal.push(Entry {
            deleted,
            fault_applied: fault.is_some() && applied,
            fault: fault.as_ref().map(Fault::name),
            status,
            ..entry(n, at_ms, kind, request, asked)
        });
        self.arrived.send_replace(n);
        arrival
    }

    /// Carries out what is held, oldest first, so many at most. Says how many there were.
    pub(super) fn release(&self, most: usize) -> usize {
        let now_s = (self.now_ms)() / 1_000;
        let profile = self.registration.profile;
        let mut state = self.state();
        let count = most.min(state.held.len());
        let held: Vec<_> = state.held.drain(..count).collect();
        for Held { n, request, asked, free } in held {
            let stage = Stage { double: &mut *state.double, profile, request: &request, asked: &asked, now_s };
            let Effect { step, deleted, wait, .. } = stage.play(None);
            let wait = state.late(wait);
            state.journal.carried_out(n, deleted, step.status().filter(|_| wait.is_zero()));
            // Nobody may be waiting any more. Its request has arrived all the same.
            let _ = free.send(Taken { n, step, wait, resets: state.resets });
        }
        count
    }

    /// Puts down that a late answer was given.
    pub(super) fn answered(&self, taken: &Taken) {
        let mut state = self.state();
        if let Some(status) = taken.step.status()
            && state.resets == taken.resets
        {
            state.journal.answered(taken.n, status);
        }
    }

    /// Waits until so many requests have arrived since the start.
    pub(super) async fn arrived(&self, n: usize) {
        // It fails only once the sender is gone, and that is ours.
        let _ = self.arrived.subscribe().wait_for(|count| *count >= n).await;
    }

    /// As it was at the start.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        let in_flight = state.in_flight;
        let fresh = State::new(self.registration, self.limits, state.resets + 1);
        *state = State { in_flight, most_at_once: in_flight, ..fresh };
        self.arrived.send_replace(0);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A double that panicked took its connection along; the others still get an answer.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kind(&self, double: &dyn Double, request: &Request<Bytes>) -> (Kind, Vec<Identifier>) {
        match double.asked(request) {
            Asked::Delete(contacts) => (Kind::Delete, contacts),
            Asked::SignIn => (Kind::SignIn, Vec::new()),
            _ if self.sign_in_paths.iter().any(|path| path == request.uri().path()) => (Kind::SignIn, Vec::new()),
            Asked::Read => (Kind::Read, Vec::new()),
            Asked::Other => (Kind::Other, Vec::new()),
        }
    }
}

impl State {
    fn new(registration: &Registration, limits: Option<Limits>, resets: u64) -> Self {
        let double = (registration.double)();
        let limit = limits.and_then(|limits| limits.at(&*double));
        Self {
            double,
            journal: Journal::default(),
            script: Script::default(),
            queued: VecDeque::new(),
            rules: Rules::default(),
            always: None,
            latency: None,
            window: Window::of(limit),
            answer_with: None,
            held: VecDeque::new(),
            in_flight: 0,
            most_at_once: 0,
            resets,
        }
    }

    /// What answers in the upstream's place.
    fn answer(&self, entry: impl FnOnce(usize) -> Entry) -> Option<Response<Bytes>> {
        let answer_with = self.answer_with.as_ref()?;
        answer_with(&entry(self.journal.next()))
    }

    /// A time before an answer, with the latency.
    fn late(&mut self, wait: Duration) -> Duration {
        wait.saturating_add(self.latency.as_mut().map_or(Duration::ZERO, Sampler::draw))
    }

    /// The fault that a request meets with: the scenario's, a queued one, a rule's, or that of all.
    fn fault(&mut self, kind: Kind, asked: &[Identifier], registration: &Registration) -> Option<Fault> {
        let ruled = self.rules.find(kind, asked, registration.profile);
        let scripted = if kind == Kind::Delete { self.script.next() } else { None };
        let is_sign_in = kind == Kind::SignIn;
        let fault = scripted
            .or_else(|| if is_sign_in { None } else { self.queued.pop_front() })
            .or_else(|| self.rules.apply(ruled?))
            .or_else(|| if is_sign_in { None } else { self.always.clone() });
        // The plain answer is no fault.
        fault.filter(|fault| *fault != Fault::Plain)
    }
}

/// A request as it arrived.
fn entry(n: usize, at_ms: u64, kind: Kind, request: Request<Bytes>, asked: Vec<Identifier>) -> Entry {
    let (head, body) = request.into_parts();
    Entry {
        n,
        at_ms,
        kind,
        method: head.method,
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body,
        sign_in: kind == Kind::SignIn,
        asked,
        deleted: Vec::new(),
        fault: None,
        fault_applied: false,
        status: None,
    }
}

/// Where the dialect's own requests for a token go, for every form of its credentials.
fn sign_in_paths(registration: &Registration, connection: &toml::Table) -> Result<Vec<String>, SettingsError> {
    let mut settings = connection.clone();
    for key in GATEWAY_KEYS {
        settings.remove(key);
    }
    let settings = serde_json::to_value(settings).map_err(|err| SettingsError::new("", err.to_string()))?;
    let dialect = (registration.open)(settings)?;
    let Some(sign_in) = dialect.sign_in() else { return Ok(Vec::new()) };
    let member = |name| connection.get("credentials").and_then(|table| table.get(name)?.as_str()).unwrap_or_default();
    let forms = registration.profile.auth.forms.iter().filter(|form| matches!(form.grant, Grant::SignIn));
    // A form that the example does not use has its members empty; only the path counts.
    let path = |members: Vec<_>| sign_in.request(&Account(&members)).ok().map(|asked| asked.uri().path().to_owned());
    Ok(forms
        .map(|form| form.members.iter().map(|each| (each.name, member(each.name))).collect())
        .filter_map(path)
        .collect())
}
