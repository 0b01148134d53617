//! Outages of ten minutes, in virtual time: how much more the upstream is asked for retries, and how hard it is hit when it
//! comes back. The engine, the way out and a dialect's double are the real ones; there are no sockets.
//!
//! Truth is the double's. The choices of the runtime and the dice are not the same in every run: what is asserted holds for
//! all of them. Every test prints its figures.

use std::collections::HashMap;
use std::sync::Mutex;

use adapters::{Double, Fault, Grant, Outcome, Registration};
use bytes::Bytes;
use tokio::time::sleep;

use super::*;
use crate::engine::Lost;
use crate::outbound::{Outbound, Rules, StandIn, sample, sample_connection};
use crate::tenants::{Limits, RetryPolicy};

/// What a call takes at the double.
const LATENCY: Duration = Duration::from_millis(50);
const BEFORE_S: u64 = 90;
const OUTAGE_S: u64 = 600;
const AFTER_S: u64 = 150;
/// Deletions of one contact that arrive in a second.
const PER_S: u64 = 4;

/// What the upstream does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weather {
    Fair,
    /// Nobody listens.
    Refused,
    /// Connections break, and nothing is carried out.
    Broken,
    /// So many calls in a hundred break.
    Brownout(u32),
    /// It answers with this status, and that it is to be asked again in so many seconds.
    Asks(u16, u64),
}

/// An upstream and what arrived at it.
struct Crm {
    double: Mutex<Box<dyn Double>>,
    weather: Mutex<Weather>,
    /// Milliseconds from the start.
    calls: Mutex<Vec<u64>>,
    start: Instant,
}

impl Crm {
    fn new(registration: &Registration) -> Arc<Self> {
        let (double, weather) = (Mutex::new((registration.double)()), Mutex::new(Weather::Fair));
        Arc::new(Self { double, weather, calls: Mutex::default(), start: Instant::now() })
    }

    fn stand_in(self: &Arc<Self>) -> StandIn {
        let crm = Arc::clone(self);
        Arc::new(move |request| {
            let crm = Arc::clone(&crm);
            Box::pin(async move { crm.call(request).await })
        })
    }

    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Lost> {
        let weather = *self.weather.lock().unwrap();
        self.calls.lock().unwrap().push(self.start.elapsed().as_millis() as u64);
        sleep(LATENCY).await;
        match weather {
            Weather::Refused => Err(Lost::NotSent { fault: Fault::new(FaultCode::ConnectFailed), again: true }),
            Weather::Broken => Err(Lost::MaybeSent(Fault::new(FaultCode::ConnectionLost))),
            Weather::Brownout(percent) if fastrand::u32(0..100) < percent => {
                Err(Lost::MaybeSent(Fault::new(FaultCode::ConnectionLost)))
            }
            Weather::Asks(status, seconds) => {
                let reply = http::Response::builder().status(status).header("retry-after", seconds);
                Ok(reply.body(Bytes::new()).unwrap())
            }
            _ => Ok(self.double.lock().unwrap().answer(&request, 1_800_000_000).response),
        }
    }

    /// Calls between two moments, in seconds from the start.
    fn count(&self, from_s: u64, to_s: u64) -> usize {
        let within = |at: &&u64| (from_s * 1_000..to_s * 1_000).contains(*at);
        self.calls.lock().unwrap().iter().filter(within).count()
    }

    /// The most calls in any second between two moments.
    fn peak(&self, from_s: u64, to_s: u64) -> usize {
        let calls = self.calls.lock().unwrap();
        let within: Vec<u64> = calls.iter().copied().filter(|at| (from_s * 1_000..to_s * 1_000).contains(at)).collect();
        let in_second = |(n, from): (usize, &u64)| within[n..].iter().take_while(|at| **at < from + 1_000).count();
        within.iter().enumerate().map(in_second).max().unwrap_or(0)
    }
}

/// A dialect with one contact a call and a fixed credential.
fn registration() -> &'static Registration {
    sample(|grant| matches!(grant, Grant::Fixed))
}

fn connection(tenant: &str, lanes: usize, retry: RetryPolicy) -> Arc<Connection> {
    let limits = Limits { rate: None, max_in_flight: lanes, pool_idle_ms: 4_000, max_response_bytes: 1 << 20 };
    Arc::new(Connection { tenant: tenant.into(), limits, retry, ..sample_connection(registration()) })
}

/// The defaults, with so many attempts.
fn retry(max_attempts: u32) -> RetryPolicy {
    RetryPolicy {
        max_attempts,
        doubt_s: 600,
        base_ms: 500,
        cap_ms: 60_000,
        budget_percent: 20,
        budget_floor_per_minute: 10,
    }
}

/// The gateway's inside: an engine with a ledger in memory, and an upstream for each tenant.
struct Gateway {
    engine: Arc<Engine>,
    outbound: Outbound,
    deletions: Vec<(DeletionId, Arc<Crm>, Vec<Identifier>)>,
    ids: usize,
}

impl Gateway {
    fn new(places: usize, places_per_tenant: usize) -> Self {
        let bounds = Bounds {
            deadline_ms: 86_400_000,
            max_open_contacts: 1_000_000,
            max_open_contacts_per_tenant: 1_000_000,
            max_worked_contacts: 1_000_000,
            max_worked_contacts_per_tenant: 1_000_000,
        };
        let rules = Rules {
            max_in_flight: places,
            max_in_flight_per_tenant: places_per_tenant,
            breaker_failures: 5,
            breaker_open_ms: 30_000,
        };
        let engine = Arc::new(Engine::new(Arc::new(Memory::default()), bounds));
        Self { engine, outbound: Outbound::new(rules), deletions: Vec::new(), ids: 0 }
    }

    fn route(&self, connection: Arc<Connection>, crm: &Arc<Crm>, breaker: bool) -> Route {
        let upstream = self.outbound.open(&connection).unwrap().standing_in(crm.stand_in(), breaker);
        Route { connection, upstream: Arc::new(upstream) }
    }

    /// A deletion of so many contacts, all of which the upstream has.
    async fn delete(&mut self, route: &Route, crm: &Arc<Crm>, contacts: usize) -> DeletionId {
        let identifiers: Vec<_> = (0..contacts).map(|n| some_id(self.ids + n)).collect();
        self.ids += contacts;
        identifiers.iter().for_each(|each| crm.double.lock().unwrap().seed(each, false));
        let id = DeletionId::new();
        let tenant = &route.connection.tenant;
        let head = Head {
            id,
            tenant: Arc::clone(tenant),
            created_ms: clock::unix_ms(),
            reason: None,
            reference: None,
            shares: vec!["c".into()],
        };
        let contacts = identifiers.iter().map(|identifier| Contact::bare(0, identifier.clone())).collect();
        let last = Arc::new(Part::of(0, 0, contacts, Vec::new()));
        let accept = Accept { head, last, claim: None, hold: false };
        let handle = self.engine.submit(accept, self.engine.draft(id, tenant), vec![route.clone()]);
        assert_eq!(handle.accepted.await.unwrap(), Ok(Accepted::New));
        self.deletions.push((id, Arc::clone(crm), identifiers));
        id
    }

    /// Stops everything, and fails if the gateway claims of a contact what is not true of it. Returns how many contacts
    /// have each outcome, and how many none.
    async fn judge(self) -> (HashMap<Outcome, usize>, usize) {
        self.engine.close_claims();
        self.engine.halt();
        self.engine.idle().await;
        let (mut outcomes, mut open) = (HashMap::new(), 0);
        for (id, crm, identifiers) in &self.deletions {
            let page = self.engine.page(*id, 0).await.unwrap().unwrap();
            for (settled, identifier) in page.results.iter().zip(identifiers) {
                let Some(settled) = settled else {
                    open += 1;
                    continue;
                };
                *outcomes.entry(settled.outcome).or_default() += 1;
                let there = crm.double.lock().unwrap().holds(identifier);
                match settled.outcome {
                    Outcome::Deleted | Outcome::NotFound => assert!(!there, "{settled:?}"),
                    Outcome::Failed | Outcome::Skipped | Outcome::Rejected => assert!(there, "{settled:?}"),
                    _ => {}
                }
            }
        }
        (outcomes, open)
    }
}

fn some_id(n: usize) -> Identifier {
    let forms = [format!("{}", n + 7_000_001), format!("{n:024x}"), format!("91c615e3-1040-4815-8ecb-{n:012x}")];
    let mut ids = forms.into_iter().map(|text| Identifier::Id(text.into()));
    ids.find(|id| registration().profile.admit(id).is_ok()).unwrap()
}

/// So many deletions of one contact every second, through an outage.
async fn through(weather: Weather, policy: RetryPolicy, breaker: bool) -> (Arc<Crm>, Gateway) {
    let mut gateway = Gateway::new(64, 16);
    let crm = Crm::new(registration());
    let route = gateway.route(connection("acme", 4, policy), &crm, breaker);
    for n in 0..(BEFORE_S + OUTAGE_S + AFTER_S) * PER_S {
        if n == BEFORE_S * PER_S {
            *crm.weather.lock().unwrap() = weather;
        } else if n == (BEFORE_S + OUTAGE_S) * PER_S {
            *crm.weather.lock().unwrap() = Weather::Fair;
        }
        gateway.delete(&route, &crm, 1).await;
        tokio::time::sleep_until(crm.start + Duration::from_millis((n + 1) * 1_000 / PER_S)).await;
    }
    (crm, gateway)
}

/// The promise: 1.2 times the calls that there are without any retry, and twice the usual rate afterwards.
async fn holds(weather: Weather, breaker: bool) {
    let (outage, end) = (BEFORE_S + OUTAGE_S, BEFORE_S + OUTAGE_S + AFTER_S);
    let without = if breaker {
        let (alone, gateway) = through(weather, retry(1), breaker).await;
        gateway.judge().await;
        alone.count(BEFORE_S, outage)
    } else {
        // Each goes out, and at once.
        (OUTAGE_S * PER_S) as usize
    };
    let (crm, gateway) = through(weather, retry(4), breaker).await;
    let (outcomes, open) = gateway.judge().await;
    let with = crm.count(BEFORE_S, outage);
    let (usual, peak) = (crm.count(0, BEFORE_S) / BEFORE_S as usize, crm.peak(outage, end));
    println!(
        "{weather:?}, breaker {breaker}: {without} calls without retries, {with} with them ({:.2}); {usual} calls/s before, \
         at most {peak} in a second afterwards; {outcomes:?}, {open} open",
        with as f64 / without as f64
    );
    // Where there are hardly any first attempts, the floor is what is left.
    let floor = OUTAGE_S / 60 * 10;
    let most = (without as f64 * 1.2).max((without as u64 + floor) as f64);
    assert!(with as f64 <= most, "{with} calls, {without} without retries");
    assert!(usual == PER_S as usize && peak <= usual * 2, "{peak} calls in a second, {usual} are usual");
}

#[tokio::test(start_paused = true)]
async fn a_total_outage_behind_a_breaker() {
    holds(Weather::Broken, true).await;
    holds(Weather::Refused, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_total_outage_that_no_breaker_sees() {
    holds(Weather::Broken, false).await;
    holds(Weather::Refused, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_brownout_that_no_breaker_sees() {
    holds(Weather::Brownout(45), false).await;
}

/// Who has much to catch up on does not keep others from their usual pace.
#[tokio::test(start_paused = true)]
async fn a_tenant_with_a_backlog_leaves_room_for_another_in_recovery() {
    let mut gateway = Gateway::new(4, 3);
    let (large, small) = (Crm::new(registration()), Crm::new(registration()));
    let to_large = gateway.route(connection("large", 64, retry(4)), &large, true);
    let to_small = gateway.route(connection("small", 4, retry(4)), &small, true);
    gateway.delete(&to_large, &large, 9_000).await;
    let (end, all) = (60 + OUTAGE_S, 60 + OUTAGE_S + 90);
    let mut waits = Vec::new();
    for n in 0..all * 5 {
        if n == 60 * 5 || n == end * 5 {
            for crm in [&large, &small] {
                *crm.weather.lock().unwrap() = if n == end * 5 { Weather::Fair } else { Weather::Broken };
            }
        }
        let (asked, id) = (Instant::now(), gateway.delete(&to_small, &small, 1).await);
        // The breakers close at different moments, a probe apart.
        if n > (end + 35) * 5 {
            assert!(gateway.engine.wait(id, Duration::from_secs(10)).await, "the small tenant waits for the large one");
            waits.push(asked.elapsed());
        }
        tokio::time::sleep_until(small.start + Duration::from_millis((n + 1) * 200)).await;
    }
    let usual = large.count(10, 60) as f64 / 50.0;
    let peak = large.peak(end, all);
    let longest = waits.iter().max().unwrap();
    println!(
        "the large tenant: {usual} calls/s before, at most {peak} in a second afterwards; the small one waits {longest:?} at most"
    );
    assert!(peak as f64 <= usual * 2.0);
    assert!(*longest <= LATENCY * 4, "{longest:?}");
    gateway.judge().await;
}

/// Not one call is made too early, neither the next attempt nor any other; and not even `Retry-After` keeps a connection
/// closed for longer than 15 minutes.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_says_when_to_come_back_is_left_alone_until_then() {
    for (status, asked_s, waited_s) in [(429, 40, 40), (503, 40, 40), (429, 100_000, 900), (503, 100_000, 900)] {
        let mut gateway = Gateway::new(64, 16);
        let crm = Crm::new(registration());
        let route = gateway.route(connection("acme", 4, retry(4)), &crm, true);
        *crm.weather.lock().unwrap() = Weather::Asks(status, asked_s);
        let first = gateway.delete(&route, &crm, 1).await;
        sleep(LATENCY * 2).await;
        *crm.weather.lock().unwrap() = Weather::Fair;
        let second = gateway.delete(&route, &crm, 1).await;
        for id in [first, second] {
            assert!(gateway.engine.wait(id, Duration::from_secs(waited_s + 10)).await, "{status} {asked_s}");
        }
        let calls = crm.calls.lock().unwrap().clone();
        assert_eq!(calls.len(), 3, "{status} {asked_s}: {calls:?}");
        // Counted from the reply; up to half a second more for clocks that differ.
        let from_ms = calls[0] + LATENCY.as_millis() as u64;
        let within = from_ms + waited_s * 1_000 - 1..=from_ms + waited_s * 1_000 + 600;
        assert!(calls[1..].iter().all(|at| within.contains(at)), "{status} {asked_s}: {calls:?}");
        let (outcomes, _) = gateway.judge().await;
        assert_eq!(outcomes[&Outcome::Deleted], 2, "{status} {asked_s}");
    }
}

/// A breaker that such an upstream opens lets no probe go earlier.
#[tokio::test(start_paused = true)]
async fn a_breaker_stays_open_for_as_long_as_the_upstream_asks() {
    let mut gateway = Gateway::new(64, 16);
    let crm = Crm::new(registration());
    let route = gateway.route(connection("acme", 5, retry(1)), &crm, true);
    *crm.weather.lock().unwrap() = Weather::Asks(503, 120);
    gateway.delete(&route, &crm, 5).await;
    for second in 1..=120 {
        sleep(Duration::from_secs(1)).await;
        if second < 119 {
            gateway.delete(&route, &crm, 1).await;
        }
    }
    assert_eq!(crm.calls.lock().unwrap().len(), 5, "it was not left alone");
    *crm.weather.lock().unwrap() = Weather::Fair;
    sleep(Duration::from_secs(2)).await;
    gateway.delete(&route, &crm, 1).await;
    sleep(LATENCY * 2).await;
    assert_eq!(crm.calls.lock().unwrap().len(), 6);
    let (outcomes, open) = gateway.judge().await;
    assert_eq!((outcomes[&Outcome::Skipped], outcomes[&Outcome::Deleted], open), (118, 1, 0), "{outcomes:?}");
}
