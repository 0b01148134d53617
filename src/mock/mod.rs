//! The upstreams' doubles as real HTTP/1 servers, with faults on demand, a journal of what came in, and checks on it.
//!
//! A [`Mock`] is one upstream. It holds contacts, checks credentials as the vendor does, answers in the vendor's words,
//! and goes wrong when it is told to:
//!
//! ```
//! use std::io::{Read, Write};
//!
//! use adapters::Identifier;
//! use onedelete::mock::{Fault, Mock, Question, Rule};
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! // On a free port. The connection is what a tenant's file needs to lead here.
//! let mock = Mock::start(&adapters::DIALECTS[2], ([127, 0, 0, 1], 0).into()).await?;
//! let connection = mock.connection_toml();
//!
//! // It has one contact, and answers every second delete with a page of a proxy.
//! let contact = Identifier::Id("1234".into());
//! mock.seed(&contact, false);
//! let mut rule = Rule::always(Fault::Html(502));
//! rule.when.every = Some(2);
//! mock.rule(rule);
//!
//! // What is under test sends its deletes: here, one by hand.
//! let delete = || {
//!     let token = connection["credentials"]["token"].as_str().unwrap().trim_start_matches("plain:");
//!     let mut stream = std::net::TcpStream::connect(mock.addr())?;
//!     write!(stream, "DELETE /api/2.0/crm/contact/1234 HTTP/1.1\r\nhost: mock\r\n")?;
//!     write!(stream, "connection: close\r\nauthorization: {token}\r\n\r\n")?;
//!     let mut reply = String::new();
//!     stream.read_to_string(&mut reply)?;
//!     std::io::Result::Ok(reply)
//! };
//! assert!(delete()?.starts_with("HTTP/1.1 200 "));
//! assert!(delete()?.starts_with("HTTP/1.1 502 "));
//!
//! // The journal is the truth that a test compares with.
//! assert!(!mock.holds(&contact));
//! assert_eq!(mock.journal()[0].deleted, [contact.clone()]);
//! assert_eq!(mock.journal()[1].fault, Some("html"));
//! for question in [Question::DeletedTwice, Question::OnlyAsked, Question::Only { contacts: vec![contact] }] {
//!     let verdict = mock.check(&question);
//!     assert!(verdict.ok, "{}", verdict.why);
//! }
//! mock.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`Mocks`] are several with names, on ports of their own or on one, with a [`Scenario`] over all of them. [`Control`]
//! serves the same to other languages: a JSON API whose description is at `/openapi.json`.
//!
//! What a request meets with is decided in this order: the limit ([`Mock::limit`]), which refuses it before anything else;
//! a reply of the test's own ([`Mock::answer_with`]); for a delete, the next step of the scenario; a queued fault ([`Mock::fault`]); the first rule that fits
//! ([`Mock::rule`]); the fault of all ([`Mock::fault_always`]).
//!
//! It has no TLS, looks no closer at a credential than the double does, and forgets everything when it ends. Whoever can
//! reach its address can use it.

mod checks;
mod contact;
mod control;
#[cfg(test)]
mod credential;
mod effect;
mod fault;
mod fleet;
mod journal;
mod json;
mod latency;
mod limits;
mod rule;
mod scenario;
mod socket;
#[cfg(test)]
mod tests;
mod upstream;
mod wire;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use adapters::{Identifier, Limit, Registration};
use bytes::Bytes;
use http::Response;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use checks::{Check, Place, Question, Record, Verdict, check};
pub use control::Control;
#[cfg(test)]
pub(crate) use credential::signed_jwt;
pub use fault::Fault;
pub use fleet::{Mocks, Named, SeedError, UnknownUpstream};
pub use journal::{Entry, Kind};
pub use latency::{Latency, MAX_LATENCY_MS};
pub use limits::Limits;
pub use rule::{Match, Route, Rule, RuleId, Standing};
pub use scenario::{Progress, Scenario, Step};

use latency::Sampler;
use limits::Window;
use upstream::{Clock, Upstream};
use wire::Door;

use crate::arrivals::Arrivals;

/// Connections at one time; more wait until one ends.
const MAX_CONNECTIONS: usize = 1024;

/// After an accept that failed, mostly for want of file descriptors: time for some to become free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running mock of one upstream. It ends when it is stopped or dropped.
pub struct Mock {
    connection: toml::Table,
    addr: SocketAddr,
    upstream: Arc<Upstream>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Mock {
    /// Starts one; port 0 takes a free port. It needs a tokio runtime with time and I/O.
    ///
    /// Fails if the address cannot be had, or if the registration's example is no connection of its dialect.
    pub async fn start(registration: &'static Registration, listen: SocketAddr) -> io::Result<Self> {
        Self::start_with(registration, listen, None, system_clock()).await
    }

    /// Like [`start`](Self::start), with another clock: it says the time in seconds since 1970-01-01 UTC.
    pub async fn start_with_clock(
        registration: &'static Registration,
        listen: SocketAddr,
        now_s: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_with(registration, listen, None, Box::new(move || now_s().saturating_mul(1_000))).await
    }

    async fn start_with(
        registration: &'static Registration,
        listen: SocketAddr,
        limits: Option<Limits>,
        now_ms: Clock,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let mock = Self::new(registration, addr, &origin(addr), limits, now_ms)?;
        mock.listen(listener, Door::One(Arc::clone(&mock.upstream)));
        Ok(mock)
    }

    /// One that does not listen yet, with the URLs of its connection under `origin`.
    fn new(
        registration: &'static Registration,
        addr: SocketAddr,
        origin: &str,
        limits: Option<Limits>,
        now_ms: Clock,
    ) -> io::Result<Self> {
        let invalid = |err: Box<dyn std::error::Error + Send + Sync>| io::Error::new(io::ErrorKind::InvalidData, err);
        let example: toml::Table = registration.example.parse().map_err(|err| invalid(Box::new(err)))?;
        let upstream = Upstream::new(registration, &example, limits, now_ms).map_err(|err| invalid(Box::new(err)))?;
        let mut connection = example;
        rebase(&mut connection, origin);
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self { connection, addr, upstream: Arc::new(upstream), tasks, stopping })
    }

    /// One that connections arrive at as a simulation has it, under an address that is only a name. It says the time in
    /// milliseconds since 1970-01-01 UTC.
    #[doc(hidden)]
    pub fn simulated(
        registration: &'static Registration,
        addr: SocketAddr,
        arrivals: impl Arrivals,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mock = Self::new(registration, addr, &origin(addr), None, Box::new(now_ms))?;
        mock.listen(arrivals, Door::One(Arc::clone(&mock.upstream)));
        Ok(mock)
    }

    fn listen(&self, listener: impl Arrivals, door: Door) {
        let door = Arc::new(door);
        let serve = move |stream| wire::serve(stream, Arc::clone(&door));
        let accepting = accept(listener, serve, self.tasks.clone(), self.stopping.clone());
        self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(accepting));
    }

    /// The dialect.
    pub fn registration(&self) -> &'static Registration {
        self.upstream.registration
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The `base_url` that leads here: this address, then the path of the example's `base_url`.
    pub fn base_url(&self) -> &str {
        self.connection.get("base_url").and_then(toml::Value::as_str).unwrap_or_default()
    }

    /// The registration's example with all its URLs leading here: a connection for a tenant file, secrets in the clear.
    pub fn connection_toml(&self) -> toml::Table {
        self.connection.clone()
    }

    /// Lets the upstream hold a contact. A `held` one is there, and the upstream refuses to delete it.
    pub fn seed(&self, identifier: &Identifier, held: bool) {
        self.upstream.state().double.seed(identifier, held);
    }

    /// Whether the upstream has the contact now.
    pub fn holds(&self, identifier: &Identifier) -> bool {
        self.upstream.state().double.holds(identifier)
    }

    /// Every contact that the upstream has, and whether it refuses to delete it.
    pub fn contacts(&self) -> Vec<(Identifier, bool)> {
        self.upstream.state().double.contacts()
    }

    /// Takes a contact away, as if it had never been there. No journal says so.
    pub fn forget(&self, identifier: &Identifier) {
        self.upstream.state().double.forget(identifier);
    }

    /// The requests so far, in the order of arrival. Of very many only the latest are kept.
    pub fn journal(&self) -> Vec<Entry> {
        self.upstream.state().journal.entries()
    }

    /// The requests after the one with this number, so many at most.
    pub fn journal_after(&self, n: usize, most: usize) -> Vec<Entry> {
        self.upstream.state().journal.after(n, most, |_| true)
    }

    /// Every contact that was deleted since the start, in order.
    pub fn deleted(&self) -> Vec<Identifier> {
        self.upstream.state().journal.deleted()
    }

    /// Queues a fault for one request. The next request that is not a sign-in takes it, if none was queued before.
    pub fn fault(&self, fault: Fault) {
        self.upstream.state().queued.push_back(fault);
    }

    /// The fault of all requests that are not sign-ins and find none queued and no rule; `None` ends it.
    pub fn fault_always(&self, fault: Option<Fault>) {
        self.upstream.state().always = fault;
    }

    /// Sets a rule, after those that are set.
    pub fn rule(&self, rule: Rule) -> RuleId {
        self.upstream.state().rules.set(rule, self.registration().profile)
    }

    /// The rules, in the order in which they were set.
    pub fn rules(&self) -> Vec<Standing> {
        self.upstream.state().rules.standing()
    }

    /// Takes a rule away. Says whether it was there.
    pub fn drop_rule(&self, id: RuleId) -> bool {
        self.upstream.state().rules.drop(id)
    }

    /// Takes all rules away.
    pub fn clear_rules(&self) {
        self.upstream.state().rules.clear();
    }

    /// Asks `script` for the reply to every request from now on, sign-ins included. What it answers goes out, is not carried
    /// out and meets with no fault; where it says `None`, everything is as without it. The entry is the one of the
    /// journal, without what became of the request. A status that is no final one is sent as 500, and the length that is
    /// told is always the body's own.
    ///
    /// It is asked while the journal is written, so it must not use the mock.
    pub fn answer_with(&self, script: impl Fn(&Entry) -> Option<Response<Bytes>> + Send + Sync + 'static) {
        self.upstream.state().answer_with = Some(Arc::new(script));
    }

    /// Lets go what [`Fault::Hold`] holds, oldest first, so many at most; `usize::MAX` for all of it. Says how many. When
    /// it returns they are carried out; their answers are on the way.
    ///
    /// A fault that still holds requests goes on with those that come. To end it, take it away first.
    pub fn release(&self, most: usize) -> usize {
        self.upstream.release(most)
    }

    /// How many requests are held now.
    pub fn held(&self) -> usize {
        self.upstream.state().held.len()
    }

    /// The most requests, of whatever kind, that were in flight at the same time. One is in flight from its arrival until its
    /// answer begins or its client has gone.
    pub fn most_at_once(&self) -> usize {
        self.upstream.state().most_at_once
    }

    /// Takes away what was queued, all rules, the fault of all and [`answer_with`](Self::answer_with). A scenario goes on, and
    /// what is held stays so.
    pub fn clear_faults(&self) {
        let mut state = self.upstream.state();
        state.answer_with = None;
        state.queued.clear();
        state.rules.clear();
        state.always = None;
    }

    /// The time before every answer; `None` for none. The same seed gives the same times.
    pub fn latency(&self, latency: Option<Latency>, seed: u64) {
        self.upstream.state().latency = latency.map(|latency| Sampler::new(latency, seed));
    }

    /// The limit that holds from now on, and with an empty window; `None` for none. Returns it in numbers: there is none
    /// either where the vendor's is asked for and the vendor documents none.
    pub fn limit(&self, limits: Option<Limits>) -> Option<Limit> {
        let mut state = self.upstream.state();
        let limit = limits.and_then(|limits| limits.at(&*state.double));
        state.window = Window::of(limit);
        limit
    }

    /// Asks a question of the journal. [`Question::ScenarioDone`] is asked of [`Mocks`].
    pub fn check(&self, question: &Question) -> Verdict {
        let record = self.record(self.registration().profile.id);
        check(question, None, &[record], &Progress::default())
    }

    /// Waits until so many requests, sign-ins among them, have arrived since the start. What they delete is deleted then, unless
    /// they are held.
    pub async fn arrived(&self, n: usize) {
        self.upstream.arrived(n).await;
    }

    /// Brings it back to what it was at the start: a new double without contacts, an empty journal, no fault, no latency,
    /// the limit that it was started with. Requests that wait for their answer still get it; those that are held are never
    /// carried out, and their connections close.
    pub fn reset(&self) {
        self.upstream.reset();
    }

    /// Closes the address and all connections, and waits until that is done.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The journal, as far as checks look at it.
    fn record(&self, name: &str) -> Record {
        let state = self.upstream.state();
        Record {
            upstream: name.to_owned(),
            profile: self.registration().profile,
            entries: state.journal.gist(),
            deleted: state.journal.deleted(),
            kinds: Kind::ALL.into_iter().zip(state.journal.kinds()).collect(),
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mock({})", self.base_url())
    }
}

/// Serves connections until it is cancelled.
async fn accept<A: Arrivals, F>(
    listener: A,
    serve: impl Fn(A::Stream) -> F,
    tasks: TaskTracker,
    stopping: CancellationToken,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Nobody closes the semaphore, so this goes on until it is cancelled.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve(stream);
                let serving = async move {
                    connection.await;
                    drop(place);
                };
                tasks.spawn(stopping.clone().run_until_cancelled_owned(serving));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Scheme, host and port by which this machine reaches the address.
fn origin(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    // A base URL must not name its scheme's default port.
    if addr.port() == 80 { format!("http://{host}") } else { format!("http://{host}:{}", addr.port()) }
}

/// Puts another origin before the path of every URL in the table: the base URL, and where tokens are to be had.
fn rebase(table: &mut toml::Table, origin: &str) {
    for (_, value) in table.iter_mut() {
        match value {
            toml::Value::Table(inner) => rebase(inner, origin),
            toml::Value::String(text) => {
                if let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) {
                    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
                    *text = format!("{origin}{}", path.trim_end_matches('/'));
                }
            }
            _ => {}
        }
    }
}

// The one place here that reads the time; tests bring a clock of their own.
#[allow(clippy::disallowed_methods, reason = "a mock has no caller that could tell it the time")]
fn system_clock() -> Clock {
    Box::new(|| std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64))
}
