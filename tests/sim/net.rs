//! The simulated network: connections between callers, gateway and upstreams, on one thread and in virtual time.
//!
//! Every stretch of bytes has its own latency, is held up by losses and partitions, and never overtakes another of its
//! connection, as TCP has it; connections overtake each other freely. A connection may be cut between two stretches, with
//! or without what is on its way. A request may be repeated by something in between. It models no congestion and no
//! full buffers.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use onedelete::arrivals::Arrivals;
use onedelete::outbound::{Dial, Dialling};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::life::Life;
use crate::line::{Line, Pipe};
use crate::trace::Trace;

/// What a link does to whatever passes it. Chances are in 10,000.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// The shortest and the longest latency, in milliseconds.
    pub(crate) latency_ms: (u64, u64),
    /// That a stretch is lost and sent again later.
    pub(crate) loss: u64,
    /// That a connection is cut at a stretch.
    pub(crate) cut: u64,
    /// That a whole request is repeated by something in between, within so many milliseconds.
    pub(crate) copy: (u64, u64),
    /// From when to when nothing passes, in milliseconds of the schedule.
    pub(crate) partitions: Vec<(u64, u64)>,
    /// From when to when connections are refused.
    pub(crate) refusals: Vec<(u64, u64)>,
}

/// The network.
#[derive(Clone)]
pub(crate) struct Net(Arc<Shared>);

struct Shared {
    start: Instant,
    trace: Arc<Trace>,
    state: Mutex<State>,
}

struct State {
    seed: u64,
    healed: bool,
    links: BTreeMap<SocketAddr, Weather>,
    listeners: BTreeMap<SocketAddr, (Arc<Life>, mpsc::UnboundedSender<Come>)>,
    /// So far, by who made them and to whom.
    connections: BTreeMap<(SocketAddr, SocketAddr), u64>,
    /// Copies that are on their way.
    copies: usize,
}

type Come = (Line, SocketAddr);

/// After a partition or a loss: how long until what was lost is sent again, at most.
const AGAIN_MS: u64 = 800;

impl Net {
    pub(crate) fn new(mut rng: Rng, trace: Arc<Trace>) -> Self {
        let (links, listeners, connections) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let seed = rng.u64(..);
        let state = Mutex::new(State { seed, healed: false, links, listeners, connections, copies: 0 });
        Self(Arc::new(Shared { start: Instant::now(), trace, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// What the way to this address is like, both ways.
    pub(crate) fn link(&self, to: SocketAddr, weather: Weather) {
        self.state().links.insert(to, weather);
    }

    /// Ends all that is wrong with it.
    pub(crate) fn heal(&self) {
        self.state().healed = true;
    }

    /// Waits until no copy is on its way any more.
    pub(crate) async fn settled(&self) {
        while self.state().copies > 0 {
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Connections to this address arrive here from now on, as long as whoever listens lives.
    pub(crate) fn listen(&self, at: SocketAddr, life: &Arc<Life>) -> Listener {
        let (coming, come) = mpsc::unbounded_channel();
        self.state().listeners.insert(at, (Arc::clone(life), coming));
        Listener { come: tokio::sync::Mutex::new(come), life: Arc::clone(life) }
    }

    /// The way out of whoever lives this life, from this address.
    pub(crate) fn dialler(&self, from: SocketAddr, life: &Arc<Life>) -> Dialler {
        Dialler { net: self.clone(), from, life: Arc::clone(life) }
    }

    fn now_ms(&self) -> u64 {
        self.0.start.elapsed().as_millis() as u64
    }

    /// When what is sent now arrives. Whether it was cut off on its way is the first of the two.
    pub(crate) fn passage(&self, to: SocketAddr, rng: &Mutex<Rng>) -> (bool, Instant) {
        let (now, rng) = (self.now_ms(), &mut *rng.lock().unwrap());
        let State { links, healed, .. } = &*self.state();
        let Some(weather) = links.get(&to) else { return (false, Instant::now()) };
        let mut at = now + rng.u64(weather.latency_ms.0..=weather.latency_ms.1);
        let mut is_cut = false;
        if !*healed {
            is_cut = rng.u64(..10_000) < weather.cut;
            while rng.u64(..10_000) < weather.loss {
                at += rng.u64(200..=AGAIN_MS);
            }
            for (from, until) in &weather.partitions {
                if (*from..*until).contains(&at) {
                    at = until + rng.u64(..=AGAIN_MS);
                }
            }
        }
        (is_cut, self.0.start + Duration::from_millis(at))
    }

    fn is_refused(&self, to: SocketAddr) -> bool {
        let (now, state) = (self.now_ms(), self.state());
        let refusals = state.links.get(&to).map_or(&[][..], |weather| &weather.refusals);
        !state.healed && refusals.iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    async fn connect(&self, from: SocketAddr, to: SocketAddr, life: &Arc<Life>) -> io::Result<Line> {
        // Each connection has chances of its own, so that what happens in one instant may happen in any order.
        let number = {
            let mut state = self.state();
            let count = state.connections.entry((from, to)).or_default();
            *count += 1;
            let count = *count;
            let ends = [from, to].map(|end| match end.ip() {
                std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | u64::from(end.port()),
                std::net::IpAddr::V6(_) => 0,
            });
            let mut mixed = Rng::with_seed(state.seed ^ ends[0].rotate_left(20) ^ ends[1].rotate_left(40) ^ count);
            (mixed.u64(..), mixed.u64(..)).1
        };
        let rng = Arc::new(Mutex::new(Rng::with_seed(number)));
        let (is_cut, at) = self.passage(to, &rng);
        tokio::time::sleep_until(at).await;
        let listener = self.state().listeners.get(&to).cloned().filter(|(life, _)| life.is_on());
        let Some((other, coming)) = listener.filter(|_| !is_cut && !self.is_refused(to)) else {
            self.0.trace.fault("refused", u64::from(to.port()), 0);
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        self.0.trace.put("connected", number, u64::from(from.port()));
        let pipe = || Arc::new(Mutex::new(Pipe::new()));
        let (out, back) = (pipe(), pipe());
        let copier = self.copier(to);
        let near = Line::new(self, number, to, &rng, life, [&back, &out], copier);
        let rng = Arc::new(Mutex::new(Rng::with_seed(!number)));
        let far = Line::new(self, number, to, &rng, &other, [&out, &back], None);
        let _ = coming.send((far, from));
        Ok(near)
    }

    /// Who looks for whole requests to repeat on a connection to this address.
    fn copier(&self, to: SocketAddr) -> Option<Vec<u8>> {
        let state = self.state();
        state.links.get(&to).filter(|weather| weather.copy.0 > 0).map(|_| Vec::new())
    }

    /// Repeats a request on a connection of its own, some time from now, perhaps.
    pub(crate) fn may_copy(&self, to: SocketAddr, rng: &Mutex<Rng>, request: Vec<u8>) {
        let wait_ms = {
            let rng = &mut *rng.lock().unwrap();
            let state = &mut *self.state();
            let (chance, most_ms) = state.links.get(&to).map_or((0, 0), |weather| weather.copy);
            if state.healed || rng.u64(..10_000) >= chance {
                return;
            }
            state.copies += 1;
            rng.u64(..=most_ms)
        };
        let net = self.clone();
        // The runtime's end is its own.
        #[allow(clippy::disallowed_methods, reason = "a simulated middlebox, not a task of the product's")]
        tokio::spawn(async move {
            sleep(Duration::from_millis(wait_ms)).await;
            net.0.trace.fault("copy", u64::from(to.port()), request.len() as u64);
            let repeat = async {
                let mut line = net.connect(([10, 0, 0, 9], 9).into(), to, &Life::forever()).await?;
                line.write_all(&request).await?;
                let mut answer = Vec::new();
                line.read_to_end(&mut answer).await
            };
            let _ = tokio::time::timeout(Duration::from_secs(60), repeat).await;
            net.state().copies -= 1;
        });
    }
}

/// Connects to where the gateway thinks that its upstreams are.
pub(crate) struct Dialler {
    net: Net,
    from: SocketAddr,
    life: Arc<Life>,
}

impl Dialler {
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<Line> {
        self.life.on().await;
        let line = self.net.connect(self.from, to, &self.life).await;
        self.life.on().await;
        line
    }
}

impl Dial for Dialler {
    fn dial<'d>(&'d self, origin: &'d http::Uri) -> Dialling<'d> {
        Box::pin(async move {
            let ip = origin.host().and_then(|host| host.parse().ok()).ok_or(io::ErrorKind::HostUnreachable)?;
            let line = self.connect(SocketAddr::new(ip, origin.port_u16().unwrap_or(80))).await?;
            Ok(Box::new(line) as Box<dyn onedelete::outbound::Stream>)
        })
    }
}

/// Where connections arrive.
pub(crate) struct Listener {
    come: tokio::sync::Mutex<mpsc::UnboundedReceiver<Come>>,
    life: Arc<Life>,
}

impl Arrivals for Listener {
    type Stream = Line;

    async fn accept(&self) -> io::Result<Come> {
        self.life.on().await;
        let come = self.come.lock().await.recv().await;
        self.life.on().await;
        match come {
            Some(come) => Ok(come),
            None => std::future::pending().await,
        }
    }
}
