//! The double, its journal and the faults that wait, behind one lock.
//!
//! A request is carried out and put down in one go, so whoever sees it in the journal also sees what it deleted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adapters::{Account, Asked, Double, Grant, Identifier, Registration, SettingsError};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use tokio::sync::watch;

use super::effect::{Effect, Stage, Step, empty};
use super::fault::Fault;
use super::journal::{Entry, Journal, Kind};
use super::latency::Sampler;
use super::limits::{Limits, Window};
use super::rule::Rules;
use super::scenario::Script;

/// Keys of a connection that the gateway reads; what is left are the dialect's own settings.
const GATEWAY_KEYS: [&str; 4] = ["dialect", "credentials", "allow_http", "allow_private"];

/// Says the time in milliseconds since 1970-01-01 UTC.
pub(super) type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

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
    /// Counts resets: an answer that comes late belongs to the journal that its request stood in.
    resets: u64,
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

    /// Carries a request out, or lets its fault decide. Without a body it was larger than the mock takes.
    pub(super) fn take(&self, head: Parts, body: Option<Bytes>) -> Taken {
        let at_ms = (self.now_ms)();
        let is_too_large = body.is_none();
        let request = Request::from_parts(head, body.unwrap_or_default());
        let mut state = self.state();
        let (mut kind, asked) = self.kind(&*state.double, &request);
        let sign_in = kind == Kind::SignIn;
        let mut fault = None;
        let effect = if is_too_large {
            Effect::answer(empty(StatusCode::PAYLOAD_TOO_LARGE))
        } else if let Err(wait_s) = if sign_in { Ok(()) } else { state.window.take(at_ms) } {
            kind = Kind::Throttled;
            Effect::answer(state.double.throttled(wait_s))
        } else {
            let profile = self.registration.profile;
            fault = state.fault(kind, &asked, self.registration);
            let double = &mut *state.double;
            let stage = Stage { double, profile, request: &request, asked: &asked, now_s: at_ms / 1_000 };
            stage.play(fault.as_ref())
        };
        let Effect { step, deleted, applied, mut wait } = effect;
        wait = wait.saturating_add(state.latency.as_mut().map_or(Duration::ZERO, Sampler::draw));
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let n = state.journal.push(Entry {
            n: 0,
            at_ms,
            kind,
            method: head.method,
            path,
            headers: head.headers,
            body,
            sign_in,
            asked,
            deleted,
            fault_applied: fault.is_some() && applied,
            fault: fault.as_ref().map(Fault::name),
            status: step.status().filter(|_| wait.is_zero()),
        });
        self.arrived.send_replace(n);
        Taken { n, step, wait, resets: state.resets }
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
        *state = State::new(self.registration, self.limits, state.resets + 1);
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
            resets,
        }
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
