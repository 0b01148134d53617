//! Several mocks with names: each on an address of its own, or all on one, told apart by the first part of the path.
//!
//! The mocks do not know of each other. What they share is a scenario, and the checks over all their journals.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use adapters::Registration;
use tokio::net::TcpListener;

use super::checks::{Check, Verdict, check};
use super::contact::{self, Contact};
use super::json;
use super::limits::Limits;
use super::scenario::{Progress, Scenario, Script, Turn};
use super::wire::Door;
use super::{Mock, origin};

/// An upstream to be started: its name, and whose double it is.
///
/// A name has 1 to 64 of `a` to `z`, digits, `_` and `-`.
#[derive(Debug, Clone)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The dialect.
    pub registration: &'static Registration,
}

/// Running mocks. They end when they are stopped or dropped.
pub struct Mocks {
    mocks: Vec<(String, Mock)>,
    scenario: Mutex<Scenario>,
}

/// No mock has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no upstream with this name; there are {}", .known.join(", "))]
pub struct UnknownUpstream {
    /// The names that there are.
    pub known: Vec<String>,
}

/// A line that is no contact. It does not repeat what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SeedError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Named {
    /// With the dialect's id as name.
    pub fn of(registration: &'static Registration) -> Self {
        Self { name: registration.profile.id.to_owned(), registration }
    }
}

impl Mocks {
    /// Starts one on each address; port 0 takes a free port.
    ///
    /// Fails as [`Mock::start`] does, or if a name cannot be one or is there twice.
    pub async fn start(
        upstreams: impl IntoIterator<Item = (Named, SocketAddr)>,
        limits: Option<Limits>,
    ) -> io::Result<Self> {
        let upstreams: Vec<_> = upstreams.into_iter().collect();
        admit(upstreams.iter().map(|(named, _)| named))?;
        let mut mocks = Vec::with_capacity(upstreams.len());
        for (named, listen) in upstreams {
            let mock = Mock::start_with(named.registration, listen, limits, super::system_clock()).await;
            let Named { name, .. } = named;
            let mock =
                mock.map_err(|err| io::Error::new(err.kind(), format!("{name} cannot listen on {listen}: {err}")))?;
            mocks.push((name, mock));
        }
        Ok(Self { mocks, scenario: Mutex::default() })
    }

    /// Starts all on one address: the paths of each begin with `/` and its name.
    ///
    /// Fails as [`start`](Self::start) does.
    pub async fn start_on_one_port(
        upstreams: impl IntoIterator<Item = Named>,
        listen: SocketAddr,
        limits: Option<Limits>,
    ) -> io::Result<Self> {
        let upstreams: Vec<_> = upstreams.into_iter().collect();
        admit(upstreams.iter())?;
        let said = |err: io::Error| io::Error::new(err.kind(), format!("cannot listen on {listen}: {err}"));
        let listener = TcpListener::bind(listen).await.map_err(said)?;
        let addr = listener.local_addr()?;
        let mut mocks = Vec::with_capacity(upstreams.len());
        for Named { name, registration } in upstreams {
            let origin = format!("{}/{name}", origin(addr));
            mocks.push((name, Mock::new(registration, addr, &origin, limits, super::system_clock())?));
        }
        let doors: BTreeMap<_, _> =
            mocks.iter().map(|(name, mock)| (name.clone(), Arc::clone(&mock.upstream))).collect();
        // The first one listens for all. Without one there is nobody to listen for.
        if let Some((_, first)) = mocks.first() {
            first.listen(listener, Door::Named(doors));
        }
        Ok(Self { mocks, scenario: Mutex::default() })
    }

    /// Their names and the mocks, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Mock)> {
        self.mocks.iter().map(|(name, mock)| (name.as_str(), mock))
    }

    /// The mock with this name.
    pub fn find(&self, name: &str) -> Result<&Mock, UnknownUpstream> {
        let found = self.mocks.iter().find(|(each, _)| each == name);
        found.map(|(_, mock)| mock).ok_or_else(|| self.unknown())
    }

    /// Sets a scenario in the place of the one before. Fails, and changes nothing, if a step names no upstream here.
    pub fn play(&self, scenario: Scenario) -> Result<(), UnknownUpstream> {
        if scenario.steps.iter().any(|step| self.find(&step.upstream).is_err()) {
            return Err(self.unknown());
        }
        let mut present = self.scenario.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, mock) in &self.mocks {
            let own = scenario.steps.iter().enumerate().filter(|(_, step)| step.upstream == *name);
            let turns = own.map(|(at, step)| Turn { step: at, fault: step.fault.clone(), times: step.times, taken: 0 });
            mock.upstream.state().script = Script::new(turns);
        }
        *present = scenario;
        Ok(())
    }

    /// How far the scenario has come.
    pub fn progress(&self) -> Progress {
        let scenario = self.scenario.lock().unwrap_or_else(PoisonError::into_inner);
        let mut progress = Progress { steps: scenario.steps.iter().cloned().map(|step| (step, 0)).collect() };
        for (_, mock) in &self.mocks {
            for turn in mock.upstream.state().script.turns() {
                if let Some((_, taken)) = progress.steps.get_mut(turn.step) {
                    *taken = turn.taken;
                }
            }
        }
        progress
    }

    /// Asks these checks of the journals. Fails, and asks none, if one names no upstream here.
    pub fn check(&self, checks: &[Check]) -> Result<Vec<Verdict>, UnknownUpstream> {
        let named = |check: &Check| check.upstream.as_ref().is_none_or(|name| self.find(name).is_ok());
        if !checks.iter().all(named) {
            return Err(self.unknown());
        }
        let (mut records, mut names) = (Vec::new(), Vec::new());
        for (name, mock) in &self.mocks {
            names.push(name.as_str());
            records.push(mock.record(name));
        }
        let progress = self.progress();
        let ask = |each: &Check| {
            let at = each.upstream.as_deref().and_then(|name| names.iter().position(|known| *known == name));
            let records = at.map_or(&records[..], |at| &records[at..=at]);
            check(&each.question, each.upstream.as_deref(), records, &progress)
        };
        Ok(checks.iter().map(ask).collect())
    }

    /// Seeds contacts from JSON Lines: a contact a line as in the gateway's contract, with `upstream` beside it unless there
    /// is only one, and `held`. Empty lines are passed over. Says how many there were; fails, and seeds none, if a line is
    /// no contact that its upstream takes.
    pub fn seed_lines(&self, text: &str) -> Result<usize, SeedError> {
        let mut contacts = Vec::new();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let wrong = |message: String| SeedError { line: number, message };
            let contact: Contact = json::read(line.as_bytes()).map_err(|(pointer, message)| {
                wrong(if pointer.is_empty() { message } else { format!("{pointer}: {message}") })
            })?;
            let mock = match (&contact.upstream, &self.mocks[..]) {
                (Some(name), _) => self.find(name).map_err(|err| wrong(err.to_string()))?,
                (None, [(_, mock)]) => mock,
                (None, _) => return Err(wrong("`upstream` is missing".to_owned())),
            };
            contact::admit(mock.registration().profile, &contact.identifier).map_err(wrong)?;
            contacts.push((mock, contact));
        }
        contacts.iter().for_each(|(mock, contact)| mock.seed(&contact.identifier, contact.held));
        Ok(contacts.len())
    }

    /// Brings all of them back to what they were at the start.
    pub fn reset(&self) {
        let mut scenario = self.scenario.lock().unwrap_or_else(PoisonError::into_inner);
        *scenario = Scenario::default();
        self.mocks.iter().for_each(|(_, mock)| mock.reset());
    }

    /// Closes the addresses and all connections, and waits until that is done.
    pub async fn stop(self) {
        for (_, mock) in self.mocks {
            mock.stop().await;
        }
    }

    fn unknown(&self) -> UnknownUpstream {
        UnknownUpstream { known: self.mocks.iter().map(|(name, _)| name.clone()).collect() }
    }
}

impl fmt::Debug for Mocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Whether these names can stand in a path, each once.
fn admit<'n>(upstreams: impl Iterator<Item = &'n Named>) -> io::Result<()> {
    let mut seen = Vec::new();
    for Named { name, .. } in upstreams {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
            let text = "a name of an upstream has 1 to 64 of a to z, digits, _ and -";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if seen.contains(&name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("two upstreams are called {name}")));
        }
        seen.push(name);
    }
    Ok(())
}
