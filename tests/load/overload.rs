//! Five times as many requests as the gateway can carry out: what it accepts is carried out about as quickly and in about
//! the same number as at its best, and what it refuses is refused before any work.
//!
//! Each request asks for one contact that nobody asked for before, so each call in the mock's journal belongs to one. Only
//! an answer with 200 is good; 202 is a promise that the mock's journal must show kept at the end.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adapters::{DIALECTS, Identifier};
use futures_util::future::join_all;
use onedelete::mock::Mock;

use crate::caller::{Caller, address};
use crate::figures::{Times, mib, ms};
use crate::gateway::{Gateway, Site, is_apart, key};
use crate::{Wrong, within};

/// Tenants, each with a connection of its own to the one mock.
const TENANTS: [&str; 4] = ["north", "east", "south", "west"];
/// Callers at the same time, when looking for the most that can be carried out.
const STEPS: [usize; 5] = [8, 32, 64, 128, 256];
/// The most callers that still reach so much of the most fill the gateway: how long a request takes with them is what one takes
/// when all is in use. With the fewest, nothing waits for anything.
const ABOUT_ALL: f64 = GOODPUT;
/// Callers under overload, and how many share an address.
const CALLERS: usize = 1_000;
const AN_ADDRESS: usize = 190;
/// How many times the most is asked for.
const TIMES: f64 = 5.0;
/// What must be left of the most, and how much longer an accepted request may take.
const GOODPUT: f64 = 0.8;
const SLOWER: f64 = 2.0;
/// Between a third of the overload's time and its end, memory may grow by so much at most.
const GROWTH_KIB: u64 = 16 << 10;
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Until everything that was accepted is carried out.
const LATER: Duration = Duration::from_secs(60);

pub(crate) async fn run(seconds: u64, quick: bool) -> Result<String, Wrong> {
    let mut figures = Vec::new();
    for store in if quick { &["memory:"][..] } else { &["memory:", "sqlite:ledger.db"] } {
        let held =
            with(store, Duration::from_secs(seconds), quick).await.map_err(|wrong| format!("{store}: {wrong}"))?;
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

async fn with(store: &str, time: Duration, quick: bool) -> Result<String, Wrong> {
    let upstream = Arc::new(Upstream::start());
    let gateway = site(&upstream, store).start().await?;
    let step = if quick { Duration::from_millis(300) } else { Duration::from_secs(3) };
    callers(&upstream, &gateway, 32, None, if quick { step } else { WARM_UP }).await?;
    // The most that can be carried out.
    let mut steps = Vec::new();
    for n in if quick { &STEPS[1..2] } else { &STEPS[..] } {
        let before = gateway.worked();
        let mut seen = callers(&upstream, &gateway, *n, None, step).await?;
        let rate = seen.good.len() as f64 / step.as_secs_f64();
        let worked = (gateway.worked() - before).as_secs_f64();
        steps.push((*n, rate, seen.good.percentile(99), seen.good.len() as f64 / worked.max(0.01)));
    }
    let most = steps.iter().map(|step| step.1).fold(0.0, f64::max);
    let (needed, _, p99, each_second) = *steps.iter().rfind(|step| step.1 >= ABOUT_ALL * most).unwrap();
    // And then five times that.
    let time = if quick { Duration::from_secs(1) } else { time };
    let (worked, ended) = (gateway.worked(), Arc::new(AtomicU64::new(0)));
    let memory = async {
        let mut samples = Vec::new();
        while ended.load(Ordering::Relaxed) == 0 {
            samples.push(gateway.vitals().rss_kib);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        samples
    };
    let asking = async {
        let seen = callers(&upstream, &gateway, CALLERS, Some(TIMES * most), time).await;
        ended.store(1, Ordering::Relaxed);
        seen
    };
    let (samples, seen) = tokio::join!(memory, asking);
    let mut seen = seen?;
    let busy = (gateway.worked() - worked).as_secs_f64() / time.as_secs_f64();
    let at = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (early, peak) = (at(&samples[..samples.len() / 3 + 1]), at(&samples));
    let asked = seen.good.len() + seen.promised.len() + seen.refused.len();
    let goodput = seen.good.len() as f64 / time.as_secs_f64();
    let slow = seen.good.percentile(99);
    judge(&upstream, &seen).await?;
    let calls = gateway.calls().await;
    gateway.stop().await?;
    let figures = format!(
        "most {most:.0}/s, filled by {needed} callers (p99 {}; steps {}); offered {:.0}/s (planned {:.0}/s, {} not asked, p99 late {}): \
         goodput {goodput:.0}/s ({:.2} of the most), p99 {} ({:.2} times), {} promised and kept, {} refused (p50 {}), memory {} after a \
         third, {} at the peak, gateway busy {:.2}, {:.0} \
         carried out in a second of its processor ({each_second:.0} at the most), calls: {calls}; 0 false",
        ms(p99),
        steps.iter().map(|(n, rate, p99, _)| format!("{n}: {rate:.0}/s {}", ms(*p99))).collect::<Vec<_>>().join(", "),
        asked as f64 / time.as_secs_f64(),
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
        busy,
        goodput / busy.max(0.01),
    );
    let mut wrong = Vec::new();
    if !quick {
        if goodput < GOODPUT * most {
            wrong.push("too little is carried out");
        }
        if slow.as_secs_f64() >= SLOWER * p99.as_secs_f64() {
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
