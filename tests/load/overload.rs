//! Five times as many requests as the gateway can carry out: what it accepts is carried out about as quickly and in about
//! the same number as at its best, and what it refuses is refused before any work.
//!
//! Each request asks for one contact that nobody asked for before, so each call in the mock's journal belongs to one. Only
//! an answer with 200 is good; 202 is a promise that the mock's journal must show kept at the end.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adapters::{DIALECTS, Identifier};
use futures_util::future::join_all;
use onedelete::mock::Mock;

use crate::caller::{Caller, address};
use crate::figures::{Times, median, mib, ms};
use crate::gateway::{Gateway, Site, is_apart, key};
use crate::{Wrong, within};

/// Tenants, each with a connection of its own to the one mock.
const TENANTS: [&str; 4] = ["north", "east", "south", "west"];
/// Callers at the same time, when looking for the most that can be carried out. With the last, as many as calls may be in
/// flight, all is in use: how long a request takes then is its own time. With the fewest, nothing waits for anything.
const STEPS: [usize; 3] = [8, 64, 256];
/// Callers under overload, and how many share an address.
const CALLERS: usize = 1_000;
const AN_ADDRESS: usize = 190;
/// How many times the most is asked for.
const TIMES: f64 = 5.0;
/// What must be left of the most, and how much longer an accepted request may take. The second of each is for a machine that
/// others use as well: it finds what is broken, and says nothing of how good it is.
const GOODPUT: [f64; 2] = [0.8, 0.5];
const SLOWER: [f64; 2] = [2.0, 4.0];
/// Between a third of the overload's time and its end, memory may grow by so much at most.
const GROWTH_KIB: u64 = 16 << 10;
/// A machine that others use as well changes its speed from second to second, so the most and the overload take turns.
const ROUNDS: u32 = 3;
const STEP: Duration = Duration::from_secs(2);
const QUICK: Duration = Duration::from_millis(300);
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Until everything that was accepted is carried out.
const LATER: Duration = Duration::from_secs(60);

pub(crate) async fn run(seconds: u64, shared: bool, quick: bool) -> Result<String, Wrong> {
    let mut figures = Vec::new();
    for store in if quick { &["memory:"][..] } else { &["memory:", "sqlite:ledger.db"] } {
        let held = with(store, Duration::from_secs(seconds), shared, quick).await;
        let held = held.map_err(|wrong| format!("{store}: {wrong}"))?;
        figures.push(format!("{store} {held}"));
    }
    let cores = if is_apart() { "on a core of its own" } else { "on the callers' cores" };
    Ok(format!("gateway {cores}; {}", figures.join("; ")))
}

/// The mock, on a thread of its own: what the callers do must not keep it from answering.
struct Upstream {
    mock: Arc<Mock>,
    runtime: Option<tokio::runtime::Runtime>,
    next: AtomicUsize,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Upstream {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let wethod = DIALECTS.iter().find(|one| one.profile.id == "wethod").unwrap();
        let (sender, mock) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let _ = sender.send(Mock::start(wethod, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap());
        });
        let mock = Arc::new(mock.recv().unwrap());
        Self { mock, runtime: Some(runtime), next: AtomicUsize::new(1_000_000) }
    }

    /// A contact that is there and that nobody asked for.
    fn contact(&self) -> usize {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.mock.seed(&Identifier::Id(n.to_string().into()), false);
        n
    }
}

/// What callers were answered.
#[derive(Default)]
struct Seen {
    /// How long those that ended with 200 took.
    good: Times,
    /// Those that were answered with 202.
    promised: Vec<usize>,
    deleted: Vec<usize>,
    refused: Vec<usize>,
    refusals: Times,
    /// Requests whose time came while their caller still waited for an answer: nobody could ask them.
    unasked: usize,
    /// How late callers were with those that they asked, from their time.
    late: Times,
    wrong: Vec<Wrong>,
}

impl Seen {
    fn join(mut self, other: Self) -> Self {
        self.good.join(other.good);
        self.refusals.join(other.refusals);
        self.late.join(other.late);
        self.promised.extend(other.promised);
        self.deleted.extend(other.deleted);
        self.refused.extend(other.refused);
        self.wrong.extend(other.wrong);
        self.unasked += other.unasked;
        self
    }
}

/// What came of several rounds.
#[derive(Default)]
struct Taken {
    seen: Seen,
    /// Requests that ended with 200, a second, in each.
    rates: Vec<f64>,
    worked: Duration,
}

impl Taken {
    fn add(&mut self, seen: Seen, time: Duration, worked: Duration) {
        self.rates.push(seen.good.len() as f64 / time.as_secs_f64());
        self.seen = std::mem::take(&mut self.seen).join(seen);
        self.worked += worked;
    }

    fn rate(&self) -> f64 {
        median(self.rates.clone())
    }

    /// Carried out in a second of the gateway's processor.
    fn each_second(&self) -> f64 {
        self.seen.good.len() as f64 / self.worked.as_secs_f64().max(0.01)
    }
}

fn most(steps: &[(usize, Taken)]) -> f64 {
    steps.iter().map(|(_, taken)| taken.rate()).fold(0.0, f64::max)
}

async fn with(store: &str, time: Duration, shared: bool, quick: bool) -> Result<String, Wrong> {
    let upstream = Arc::new(Upstream::start());
    let gateway = site(&upstream, store).start().await?;
    callers(&upstream, &gateway, 32, None, if quick { QUICK } else { WARM_UP }).await?;
    let (rounds, step, time) = if quick { (1, QUICK, QUICK) } else { (ROUNDS, STEP, time) };
    let mut steps: Vec<_> = STEPS.iter().map(|n| (*n, Taken::default())).collect();
    let (mut over, mut samples) = (Taken::default(), Vec::new());
    for _ in 0..rounds {
        // The most that can be carried out.
        for (n, taken) in &mut steps {
            let before = gateway.worked();
            let seen = callers(&upstream, &gateway, *n, None, step).await?;
            taken.add(seen, step, gateway.worked() - before);
        }
        // And then five times that.
        let most = most(&steps);
        let ended = AtomicBool::new(false);
        let memory = async {
            while !ended.load(Ordering::Relaxed) {
                samples.push(gateway.vitals().rss_kib);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let asking = async {
            let before = gateway.worked();
            let seen = callers(&upstream, &gateway, CALLERS, Some(TIMES * most), time).await;
            ended.store(true, Ordering::Relaxed);
            seen.map(|seen| over.add(seen, time, gateway.worked() - before))
        };
        tokio::join!(memory, asking).1?;
    }
    let most = most(&steps);
    let each_second = steps.iter().map(|(_, taken)| taken.each_second()).fold(0.0, f64::max);
    let p99 = steps.last_mut().unwrap().1.seen.good.percentile(99);
    let (goodput, each_second_over) = (over.rate(), over.each_second());
    let mut seen = over.seen;
    let at = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (early, peak) = (at(&samples[..samples.len() / 3 + 1]), at(&samples));
    let asked = seen.good.len() + seen.promised.len() + seen.refused.len();
    let slow = seen.good.percentile(99);
    let total = time * rounds;
    judge(&upstream, &seen).await?;
    let calls = gateway.calls().await;
    gateway.stop().await?;
    let figures = format!(
        "most {most:.0}/s ({}; p99 with the last {}); offered {:.0}/s (of {:.0}/s planned, {} not asked, p99 late {}): \
         goodput {goodput:.0}/s ({:.2} of the most), p99 {} ({:.2} times), {} promised and kept, {} refused (p50 {}), memory {} after a \
         third, {} at the peak, {each_second_over:.0} carried out in a second of its processor ({each_second:.0} at the most), \
         calls: {calls}; medians of {rounds}; 0 false",
        steps.iter().map(|(n, taken)| format!("{n}: {:.0}/s", taken.rate())).collect::<Vec<_>>().join(", "),
        ms(p99),
        asked as f64 / total.as_secs_f64(),
        TIMES * most,
        seen.unasked,
        ms(seen.late.percentile(99)),
        goodput / most,
        ms(slow),
        slow.as_secs_f64() / p99.as_secs_f64(),
        seen.promised.len(),
        seen.refused.len(),
        ms(seen.refusals.percentile(50)),
        mib(early),
        mib(peak),
    );
    let mut wrong = Vec::new();
    if !quick {
        if goodput < GOODPUT[usize::from(shared)] * most {
            wrong.push("too little is carried out");
        }
        if slow.as_secs_f64() >= SLOWER[usize::from(shared)] * p99.as_secs_f64() {
            wrong.push("what is accepted takes too long");
        }
        // `memory:` keeps the last million contacts.
        if store != "memory:" && peak > early + GROWTH_KIB {
            wrong.push("memory grows");
        }
        if seen.refused.is_empty() {
            wrong.push("nothing was refused");
        }
    }
    if wrong.is_empty() { Ok(figures) } else { Err(format!("{}: {figures}", wrong.join(", "))) }
}

fn site(upstream: &Upstream, store: &str) -> Site {
    let mut connection = upstream.mock.connection_toml();
    connection.insert("limits".to_owned(), "rate = \"off\"\nmax_in_flight = 64".parse::<toml::Table>().unwrap().into());
    let connections = toml::Table::from_iter([("c".to_owned(), connection.into())]);
    // The gateway is to be the bottleneck, and not what it leaves an upstream alone with.
    let settings = format!(
        "server = {{ max_connections_per_address = 200 }}\nstore = {{ url = {store:?} }}\n\
         upstream = {{ max_in_flight = 256, max_in_flight_per_tenant = 64 }}\n"
    );
    // The store's file is in the folder of the configuration.
    Site::new(&settings, &TENANTS.map(|name| (name, connections.clone())))
}

/// So many callers ask for so long: each again as soon as it is answered, or all together at this rate.
async fn callers(
    upstream: &Arc<Upstream>,
    gateway: &Gateway,
    n: usize,
    rate: Option<f64>,
    time: Duration,
) -> Result<Seen, Wrong> {
    let connecting = (0..n).map(|n| Caller::connect(address(n, AN_ADDRESS), gateway.public));
    let connected = within("connections", Duration::from_secs(20), join_all(connecting)).await?;
    let (start, tasks) = (Instant::now(), tokio_util::task::TaskTracker::new());
    let share = rate.map(|rate| rate / n as f64);
    let tasks = connected.into_iter().enumerate().map(|(n, caller)| {
        let (upstream, host) = (Arc::clone(upstream), gateway.public);
        tasks.spawn(async move {
            let caller = caller.map_err(|err| format!("a caller could not connect: {err}"))?;
            let tenant = TENANTS[n % TENANTS.len()];
            Ok::<_, Wrong>(ask_on(&upstream, caller, host, tenant, share, start, time).await)
        })
    });
    let all = within("answers", time + Duration::from_secs(60), join_all(tasks)).await?;
    let mut seen = Seen::default();
    for one in all {
        seen = seen.join(one.map_err(|err| format!("a caller broke off: {err}"))??);
    }
    if seen.wrong.is_empty() { Ok(seen) } else { Err(seen.wrong[..seen.wrong.len().min(5)].join("\n")) }
}

async fn ask_on(
    upstream: &Upstream,
    mut caller: Caller,
    host: SocketAddr,
    tenant: &str,
    rate: Option<f64>,
    start: Instant,
    time: Duration,
) -> Seen {
    let (mut seen, mut rng) = (Seen::default(), fastrand::Rng::new());
    let head = format!("HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\r\n", key(tenant));
    // As independent callers ask: the times between two requests are random.
    let mut pause = |rate: f64| Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / rate);
    let mut due = start + rate.map_or(Duration::ZERO, &mut pause);
    loop {
        if let Some(rate) = rate {
            while due < Instant::now() && due < start + time {
                // The first is asked late, and the others not at all.
                let next = due + pause(rate);
                if next >= Instant::now() {
                    break;
                }
                seen.unasked += 1;
                due = next;
            }
            if due >= start + time {
                return seen;
            }
            tokio::time::sleep_until(due.into()).await;
            seen.late.add(due.elapsed());
            due += pause(rate);
        }
        if start.elapsed() >= time {
            return seen;
        }
        let contact = upstream.contact();
        let asked = Instant::now();
        let request = format!("DELETE /v1/connections/c/contacts/{contact} {head}");
        let answer = match caller.ask(request.as_bytes()).await {
            Ok(answer) => answer,
            Err(err) => {
                seen.wrong.push(format!("a request was not answered: {err}"));
                return seen;
            }
        };
        match answer.status {
            200 => {
                seen.good.add(asked.elapsed());
                seen.deleted.push(contact);
            }
            202 => seen.promised.push(contact),
            _ if answer.is_proper_refusal() => {
                seen.refusals.add(asked.elapsed());
                seen.refused.push(contact);
            }
            status => {
                let body = String::from_utf8_lossy(answer.body);
                seen.wrong.push(format!("{status} is no refusal as it must be: {}\n{body}", answer.head));
                return seen;
            }
        }
    }
}

/// Compares what callers were told with what the mock deleted.
async fn judge(upstream: &Upstream, seen: &Seen) -> Result<(), Wrong> {
    let kept = async {
        loop {
            let mut deleted = HashMap::new();
            for identifier in upstream.mock.deleted() {
                *deleted.entry(identifier.text().parse::<usize>().unwrap_or(0)).or_insert(0) += 1;
            }
            if seen.promised.iter().all(|contact| deleted.contains_key(contact)) {
                return deleted;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let deleted = within("what was promised", LATER, kept).await?;
    let refused: HashSet<_> = seen.refused.iter().collect();
    let asked_all_the_same = deleted.keys().filter(|contact| refused.contains(contact)).count();
    // Of very many requests the mock keeps the latest; every contact was there, so a call for it deleted it.
    let told = seen.deleted.iter().filter(|contact| !deleted.contains_key(contact)).count();
    let twice = deleted.values().filter(|times| **times > 1).count();
    match (asked_all_the_same, told, twice) {
        (0, 0, 0) => Ok(()),
        (a, b, c) => {
            Err(format!("{a} were refused and deleted, {b} said to be deleted and are not, {c} deleted twice"))
        }
    }
}
