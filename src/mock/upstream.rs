//! The double, its journal and the faults that wait, behind one lock.
//!
//! A request is carried out and put down in one go, so whoever sees it in the journal also sees what it deleted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adapters::{Account, Double, Grant, Registration, SettingsError};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use tokio::sync::watch;

use super::fault::{Fault, Step, empty};
use super::journal::{Entry, Journal};

/// Keys of a connection that the gateway reads; what is left are the dialect's own settings.
const GATEWAY_KEYS: [&str; 4] = ["dialect", "credentials", "allow_http", "allow_private"];

pub(super) type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

pub(super) struct Upstream {
    pub(super) sign_in_paths: Vec<String>,
    now_s: Clock,
    arrived: watch::Sender<usize>,
    state: Mutex<State>,
}

/// What a change of one member must find the others in step with.
pub(super) struct State {
    pub(super) double: Box<dyn Double>,
    pub(super) journal: Journal,
    pub(super) queued: VecDeque<Fault>,
    pub(super) always: Option<Fault>,
}

/// A request's number, and what is left to do about it.
pub(super) struct Taken {
    pub(super) n: usize,
    pub(super) step: Step,
}

impl Upstream {
    /// `connection` is the registration's example. Fails if the dialect does not open it.
    pub(super) fn new(
        registration: &Registration,
        connection: &toml::Table,
        now_s: Clock,
    ) -> Result<Self, SettingsError> {
        let state = State {
            double: (registration.double)(),
            journal: Journal::default(),
            queued: VecDeque::new(),
            always: None,
        };
        Ok(Self {
            sign_in_paths: sign_in_paths(registration, connection)?,
            now_s,
            arrived: watch::Sender::new(0),
            state: Mutex::new(state),
        })
    }

    /// Carries a request out, or lets its fault decide. Without a body it was larger than the mock takes.
    pub(super) fn take(&self, head: Parts, body: Option<Bytes>) -> Taken {
        let sign_in = self.sign_in_paths.iter().any(|path| path == head.uri.path());
        let mut state = self.state();
        let State { double, journal, queued, always } = &mut *state;
        let mut deleted = Vec::new();
        let (request, step) = match body {
            None => (Request::from_parts(head, Bytes::new()), Step::Answer(empty(StatusCode::PAYLOAD_TOO_LARGE))),
            Some(body) => {
                let request = Request::from_parts(head, body);
                let fault = if sign_in { None } else { queued.pop_front().or_else(|| always.clone()) };
                let step = Step::of(fault, || {
                    let answer = double.answer(&request, (self.now_s)());
                    deleted = answer.deleted;
                    answer.response
                });
                (request, step)
            }
        };
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let status = step.status();
        let (method, headers) = (head.method, head.headers);
        let n = journal.push(Entry { n: 0, method, path, headers, body, sign_in, status, deleted });
        self.arrived.send_replace(n);
        Taken { n, step }
    }

    /// Puts down that a late answer was given.
    pub(super) fn answered(&self, n: usize, status: u16) {
        self.state().journal.answered(n, status);
    }

    /// Waits until so many requests have arrived since the start.
    pub(super) async fn arrived(&self, n: usize) {
        // It fails only once the sender is gone, and that is ours.
        let _ = self.arrived.subscribe().wait_for(|count| *count >= n).await;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A double that panicked took its connection along; the others still get an answer.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
