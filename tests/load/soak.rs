//! A million contacts over time, at all dialects, while one in ten calls meets with a fault: memory, descriptors and the
//! store's file come to rest, and nothing false is said.
//!
//! The contacts are spread over the time that is given. Who cannot keep up with that is told so in the figures: the rate is
//! not what is tested here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::Value;

use crate::caller::Caller;
use crate::figures::{mib, slope};
use crate::gateway::{Gateway, Site, Vitals, key};
use crate::oracle::{Contact, Tally, World};
use crate::{Wrong, within};

/// Contacts in all the time, and of a quick run in a second.
const CONTACTS: usize = 1_000_000;
const QUICK_RATE: usize = 2_000;
/// Requests under way at the same time, and contacts of one at most.
const CALLERS: usize = 48;
const LARGEST: usize = 2_000;
/// What is finished is kept for so long, in seconds.
const KEPT_S: u64 = 10;
/// Between two readings of the journals; a request that is held is let go then.
const TICK: Duration = Duration::from_millis(500);
/// Between two looks at a deletion.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// From an order to its end. Of its calls each has four attempts of 1.5 s at most, and an upstream that asks to be left alone
/// asks for a second: so this is far above what a deletion needs that goes on.
const FINISH: Duration = Duration::from_secs(120);
/// What is not measured: until everything was used once.
const WARM: f64 = 0.2;
/// Memory that the second half may have above the first, at its peak and by its trend.
const GROWTH_KIB: f64 = 24.0 * 1024.0;
/// Descriptors, the same.
const MORE_DESCRIPTORS: usize = 16;
/// The store's file, compared with its peak in the first half. What is old is forgotten once a minute.
const STORE_GROWTH: f64 = 1.4;
const TWICE: Duration = Duration::from_secs(120);
/// What the log may complain of when upstreams fail as they do here.
const EXPLAINED: [&str; 5] = [
    "a call failed",
    "some contacts are not known to be gone",
    "the upstream keeps failing and is left alone for a while",
    "the upstream does not accept the connection's credential",
    "too much is asked for, and some of it was refused",
];
/// What is logged of an upstream that is left alone for ten seconds or more. None asks for that here; where it happens, all
/// callers soon stand still behind its contacts.
const STANDSTILL: &str = "the upstream asks to be left alone";

/// What all callers share.
struct Soak {
    world: Mutex<World>,
    /// Finished deletions that are not judged yet, with the tick in which they were finished.
    finished: Mutex<VecDeque<(usize, Vec<Contact>, Value)>>,
    tick: Mutex<usize>,
    asked: Mutex<usize>,
    start: Instant,
    time: Duration,
    rate: f64,
}

struct Sample {
    at: f64,
    vitals: Vitals,
    store: u64,
}

pub(crate) async fn run(seconds: u64, seed: u64, quick: bool) -> Result<String, Wrong> {
    let time = Duration::from_secs(if quick { 3 } else { seconds });
    let rate = if quick { QUICK_RATE as f64 } else { CONTACTS as f64 / time.as_secs_f64() };
    let mut rng = Rng::with_seed(seed);
    let world = World::start(rng.fork()).await;
    let site = site(&world);
    let gateway = site.start().await?;
    let soak = Arc::new(Soak {
        world: Mutex::new(world),
        finished: Mutex::default(),
        tick: Mutex::new(0),
        asked: Mutex::new(0),
        start: Instant::now(),
        time,
        rate,
    });
    let callers = join_all((0..CALLERS).map(|_| soak.ask(&gateway, rng.fork())));
    let (ended, mut end) = tokio::sync::watch::channel(false);
    let judging = async {
        let (mut tally, mut samples) = (Tally::default(), Vec::new());
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = end.wait_for(|end| *end) => break,
            }
            soak.judge(&mut tally, false)?;
            if soak.start.elapsed() < soak.time {
                let at = soak.start.elapsed().as_secs_f64();
                samples.push(Sample { at, vitals: gateway.vitals(), store: site.store_bytes() });
            }
        }
        soak.judge(&mut tally, true)?;
        Ok::<_, Wrong>((tally, samples))
    };
    let asking = async {
        let asked = within("the end of all deletions", time + FINISH, callers).await;
        ended.send_replace(true);
        asked?.into_iter().collect::<Result<Vec<()>, Wrong>>()
    };
    let ((tally, samples), _) = tokio::try_join!(judging, asking)?;
    let took = soak.start.elapsed();
    let worked = gateway.worked();
    let complaints = gateway.complaints();
    let standstills = gateway.said(STANDSTILL);
    gateway.stop().await?;
    let unexplained: Vec<_> =
        complaints.iter().filter(|(line, _)| !EXPLAINED.iter().any(|known| line.contains(known))).collect();
    let (calls, faults) = {
        let world = soak.world.lock().unwrap();
        (world.deletes, world.faults)
    };
    let mut wrong = Vec::new();
    let course = course(&samples, time, quick, &mut wrong);
    if !unexplained.is_empty() {
        wrong.push(format!("the log has what no fault explains: {unexplained:?}"));
    }
    if standstills > 0 {
        wrong.push(format!("{standstills} times an upstream was left alone for longer than any fault asks for"));
    }
    let figures = format!(
        "{} contacts in {:.0} s ({:.0}/s; wanted {rate:.0}/s), {calls} calls, {faults} with a fault ({:.1} %), {} deleted, {} unknown \
         ({:.2} %), {} sent more than once, {course}, {} complaints in the log, \
         {:.0} s of processor time, 0 false",
        tally.contacts,
        took.as_secs_f64(),
        tally.contacts as f64 / took.as_secs_f64(),
        100.0 * faults as f64 / calls.max(1) as f64,
        tally.deleted,
        tally.unknown,
        100.0 * tally.unknown as f64 / tally.contacts.max(1) as f64,
        tally.repeated,
        complaints.iter().map(|(_, times)| times).sum::<usize>(),
        worked.as_secs_f64(),
    );
    if wrong.is_empty() { Ok(figures) } else { Err(format!("{}\n{figures}", wrong.join("\n"))) }
}

/// The course of memory, descriptors and the store, and what is wrong with it.
fn course(samples: &[Sample], time: Duration, quick: bool, wrong: &mut Vec<Wrong>) -> String {
    let total = time.as_secs_f64();
    let part = |from: f64, to: f64| {
        samples.iter().filter(move |sample| sample.at >= from * total && sample.at < to * total).collect::<Vec<_>>()
    };
    let half = WARM + (1.0 - WARM) / 2.0;
    let (first, second) = (part(WARM, half), part(half, 1.0));
    let rss = |part: &[&Sample]| part.iter().map(|sample| sample.vitals.rss_kib).max().unwrap_or(0);
    let descriptors = |part: &[&Sample]| part.iter().map(|sample| sample.vitals.descriptors).max().unwrap_or(0);
    let store = |part: &[&Sample]| part.iter().map(|sample| sample.store).max().unwrap_or(0);
    let points: Vec<_> = first.iter().chain(&second).map(|sample| (sample.at, sample.vitals.rss_kib as f64)).collect();
    let trend = slope(&points) * total * (1.0 - WARM);
    let more = rss(&second) as f64 - rss(&first) as f64;
    let grown = store(&second) as f64 / store(&first).max(1) as f64;
    if !quick {
        if more > GROWTH_KIB || trend > GROWTH_KIB {
            wrong.push("memory grows".to_owned());
        }
        if descriptors(&second) > descriptors(&first) + MORE_DESCRIPTORS {
            wrong.push("descriptors are not given back".to_owned());
        }
        // Less is over before anything old was forgotten twice.
        if time >= TWICE && grown > STORE_GROWTH {
            wrong.push("the store's file grows".to_owned());
        }
    }
    format!(
        "memory {} and {} at the peak of each half (trend {:+.1} MiB in all), descriptors {} and {}, store {} and {}",
        mib(rss(&first)),
        mib(rss(&second)),
        trend / 1024.0,
        descriptors(&first),
        descriptors(&second),
        mib(store(&first) >> 10),
        mib(store(&second) >> 10),
    )
}

/// What of a deletion is not settled, where, and how the last look at it was answered.
fn left_of(whole: &Value, status: u16) -> String {
    let mut left = BTreeMap::<(&str, u64), usize>::new();
    for result in whole["results"].as_array().into_iter().flatten().filter(|one| one["outcome"] == "pending") {
        let attempts = result["attempts"].as_u64().unwrap_or_default();
        *left.entry((result["connection"].as_str().unwrap_or_default(), attempts)).or_default() += 1;
    }
    let (id, counts) = (&whole["id"], &whole["counts"]);
    format!("{id} with {counts}, pending by connection and attempts: {left:?}, last answered with {status}")
}

fn site(world: &World) -> Site {
    let mut connections = toml::Table::new();
    for (name, mut connection) in world.connections() {
        let limits: toml::Table = "rate = \"off\"\nmax_in_flight = 8".parse().unwrap();
        connection.insert("limits".to_owned(), limits.into());
        connections.insert(name.to_owned(), connection.into());
    }
    let settings = format!(
        "store = {{ url = \"sqlite:ledger.db\" }}\nretention = {{ deletions_s = {KEPT_S}, keys_s = {KEPT_S} }}\n\
         [log]\nfilter = \"warn,onedelete::app=info,onedelete::outbound=info\"\n[upstream]\nmax_in_flight_per_tenant = 64\n\
         breaker_failures = 1000\nbreaker_open_ms = 100\n\
         retry = {{ base_ms = 5, cap_ms = 100, budget_percent = 100 }}\ntimeouts = {{ response_ms = 1500 }}\n"
    );
    Site::new(&settings, &[("acme", connections)])
}

impl Soak {
    /// Asks for one deletion after the other, as long as there is time, and looks at each until it is finished.
    async fn ask(&self, gateway: &Gateway, mut rng: Rng) -> Result<(), Wrong> {
        let lost = |err| format!("a request is not answered: {err}");
        let mut caller = Caller::connect([127, 0, 0, 1].into(), gateway.public).await.map_err(lost)?;
        loop {
            let most = [10, 200, LARGEST][rng.usize(..3)];
            let size = rng.usize(1..=most);
            let before = {
                let mut asked = self.asked.lock().unwrap();
                *asked += size;
                *asked - size
            };
            let due = self.start + Duration::from_secs_f64(before as f64 / self.rate);
            if due.max(Instant::now()) >= self.start + self.time {
                return Ok(());
            }
            tokio::time::sleep_until(due.into()).await;
            let (contacts, body) = self.world.lock().unwrap().order(size);
            let whole = self.finished(gateway, &mut caller, &body).await?;
            let tick = *self.tick.lock().unwrap();
            self.finished.lock().unwrap().push_back((tick, contacts, whole));
        }
    }

    /// A deletion, from the request to its last result.
    async fn finished(&self, gateway: &Gateway, caller: &mut Caller, body: &str) -> Result<Value, Wrong> {
        let lost = |err| format!("a request is not answered: {err}");
        let (host, key) = (gateway.public, key("acme"));
        let head = format!("host: {host}\r\nauthorization: Bearer {key}");
        let request = format!(
            "POST /v1/deletions HTTP/1.1\r\n{head}\r\ncontent-type: application/json\r\nprefer: wait=5\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut whole = Value::Null;
        let mut next = request;
        let mut started = Instant::now();
        loop {
            let mut pause = LOOK_AGAIN;
            // Who is refused before its body was read finds the connection closed.
            if caller.has_ended() {
                *caller = Caller::connect([127, 0, 0, 1].into(), gateway.public).await.map_err(lost)?;
            }
            let (status, waited) = {
                let answer = caller.ask(next.as_bytes()).await.map_err(lost)?;
                let waited = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
                if let 200 | 202 | 207 = answer.status {
                    whole =
                        serde_json::from_slice(answer.body).map_err(|err| format!("an answer is no JSON: {err}"))?;
                }
                (answer.status, waited)
            };
            match status {
                200 | 202 | 207 if whole["state"] == "finished" => return Ok(whole),
                200 | 202 | 207 => {
                    let id = whole["id"].as_str().unwrap_or_default();
                    next = format!("GET /v1/deletions/{id} HTTP/1.1\r\n{head}\r\n\r\n");
                }
                // Refused before any work: it is asked again when the gateway says, and has not begun until then.
                503 if waited.is_some() => {
                    pause = waited.map_or(pause, Duration::from_secs);
                    if whole.is_null() {
                        started = Instant::now() + pause;
                    }
                }
                status => return Err(format!("answered with {status}: {whole}")),
            }
            if started.elapsed() > FINISH {
                return Err(format!(
                    "a deletion did not come to an end, {}; {}",
                    left_of(&whole, status),
                    gateway.waits().await
                ));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads the journals and judges what was finished two ticks ago; by then all of its calls that were held are let go.
    fn judge(&self, tally: &mut Tally, all: bool) -> Result<(), Wrong> {
        let mut world = self.world.lock().unwrap();
        world.read()?;
        if all {
            // What was held until now stands there at the second reading.
            world.read()?;
        }
        let tick = {
            let mut tick = self.tick.lock().unwrap();
            *tick += 1;
            *tick
        };
        let mut wrong = Vec::new();
        loop {
            let next = {
                let mut finished = self.finished.lock().unwrap();
                let is_due = finished.front().is_some_and(|(at, ..)| all || at + 2 < tick);
                if is_due { finished.pop_front() } else { None }
            };
            let Some((_, contacts, whole)) = next else { break };
            wrong.extend(world.judge(&contacts, &whole, tally));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong[..wrong.len().min(8)].join("\n")) }
    }
}
