//! One upstream's double as a real HTTP/1 server, with faults on demand and a journal of what came in.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use onedelete::mock::{Fault, Mock};
//!
//! let mock = Mock::start(&adapters::DIALECTS[0], ([127, 0, 0, 1], 0).into()).await?;
//! let connection = mock.connection_toml(); // a tenant's connection that leads here
//! mock.fault(Fault::CommitThenDrop); // the next delete is carried out and not answered
//! mock.arrived(1).await;
//! assert!(mock.journal()[0].status.is_none());
//! mock.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! It has no TLS, looks no closer at a credential than the double does, and forgets everything when it ends. Whoever can
//! reach its address can use it.

#[cfg(test)]
mod credential;
mod fault;
mod journal;
#[cfg(test)]
mod tests;
mod upstream;
mod wire;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use adapters::{Identifier, Registration};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[cfg(test)]
pub(crate) use credential::signed_jwt;
pub use fault::Fault;
pub use journal::Entry;
use upstream::{Clock, Upstream};

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
        Self::start_with_clock(registration, listen, system_clock).await
    }

    /// Like [`start`](Self::start), with another clock: it says the time in seconds since 1970-01-01 UTC.
    pub async fn start_with_clock(
        registration: &'static Registration,
        listen: SocketAddr,
        now_s: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let now_s: Clock = Box::new(now_s);
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let invalid = |err: Box<dyn std::error::Error + Send + Sync>| io::Error::new(io::ErrorKind::InvalidData, err);
        let mut connection: toml::Table = registration.example.parse().map_err(|err| invalid(Box::new(err)))?;
        rebase(&mut connection, &origin(addr));
        let upstream = Upstream::new(registration, &connection, now_s).map_err(|err| invalid(Box::new(err)))?;
        let upstream = Arc::new(upstream);

        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let accepting = accept(listener, Arc::clone(&upstream), tasks.clone(), stopping.clone());
        tasks.spawn(stopping.clone().run_until_cancelled_owned(accepting));
        Ok(Self { connection, addr, upstream, tasks, stopping })
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

    /// The requests so far, in the order of arrival. Of very many only the latest are kept.
    pub fn journal(&self) -> Vec<Entry> {
        self.upstream.state().journal.entries()
    }

    /// Every contact that was deleted since the start, in order.
    pub fn deleted(&self) -> Vec<Identifier> {
        self.upstream.state().journal.deleted()
    }

    /// Queues a fault for one request. The next request that is not a sign-in takes it, if none was queued before.
    pub fn fault(&self, fault: Fault) {
        self.upstream.state().queued.push_back(fault);
    }

    /// The fault of all requests that are not sign-ins and find none queued; `None` ends it.
    pub fn fault_always(&self, fault: Option<Fault>) {
        self.upstream.state().always = fault;
    }

    /// Waits until so many requests, sign-ins among them, have arrived since the start. What they delete is deleted then.
    pub async fn arrived(&self, n: usize) {
        self.upstream.arrived(n).await;
    }

    /// Closes the address and all connections, and waits until that is done.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
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

async fn accept(listener: TcpListener, upstream: Arc<Upstream>, tasks: TaskTracker, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Nobody closes the semaphore, so this goes on until it is cancelled.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let upstream = Arc::clone(&upstream);
                let serving = async move {
                    wire::serve(stream, upstream).await;
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
fn system_clock() -> u64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
