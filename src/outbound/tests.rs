//! The way out in virtual time: who goes first, how often somebody signs in, what is shown. No socket is opened.
//!
//! What only real sockets can show is in `tests/it/`; what becomes of contacts, in the driver's tests.

mod device;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters::{Call, DIALECTS, Double, Grant, Identifier, Pace, Registration, Slot, Target};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use super::{Outbound, Rules, SharedPace, StandIn, Turn, Upstream};
use crate::engine::Signal;
use crate::tenants::{Connection, CredentialValue, Credentials, Limits, RetryPolicy, Timeouts};

/// The first dialect with one contact a call whose example shows a credential of this kind.
pub(crate) fn sample(grant: impl Fn(&Grant) -> bool) -> &'static Registration {
    let fits = |each: &&Registration| each.profile.max_contacts_per_call == 1 && grant(&form(each).grant);
    DIALECTS.iter().find(fits).unwrap()
}

/// The form of the credentials in a dialect's example.
fn form(registration: &Registration) -> &'static adapters::CredentialForm {
    let example: toml::Table = registration.example.parse().unwrap();
    let given = example["credentials"].as_table().unwrap();
    let fits = |form: &&adapters::CredentialForm| {
        form.members.len() == given.len() && form.members.iter().all(|each| given.contains_key(each.name))
    };
    registration.profile.auth.forms.iter().find(fits).unwrap()
}

/// A dialect's example, with defaults for the rest and no pace. Its double takes the credentials.
pub(crate) fn sample_connection(registration: &'static Registration) -> Connection {
    let mut table: toml::Table = registration.example.parse().unwrap();
    let base_url = table["base_url"].as_str().unwrap().to_owned();
    let given = table.remove("credentials").unwrap();
    let form = form(registration);
    let member = |name: &'static str| {
        let text = given[name].as_str().unwrap();
        (name, CredentialValue::Secret(text.strip_prefix("plain:").unwrap_or(text).to_owned().into()))
    };
    for key in ["dialect", "allow_http", "allow_private"] {
        table.remove(key);
    }
    let settings = serde_json::to_value(table).unwrap();
    let dialect = (registration.open)(settings.clone()).unwrap();
    Connection {
        settings: settings.as_object().unwrap().clone(),
        name: "c".into(),
        tenant: "acme".into(),
        registration,
        dialect: dialect.into(),
        base_url,
        credentials: Credentials { grant: &form.grant, members: form.members.iter().map(|m| member(m.name)).collect() },
        allow_http: true,
        allow_private: true,
        limits: Limits { rate: None, max_in_flight: 4, pool_idle_ms: 4_000, max_response_bytes: 1 << 20 },
        timeouts: Timeouts { connect_ms: 5_000, response_ms: 30_000 },
        retry: RetryPolicy {
            max_attempts: 4,
            doubt_s: 600,
            base_ms: 500,
            cap_ms: 60_000,
            budget_percent: 20,
            budget_floor_per_minute: 10,
        },
    }
}

/// So many places for everybody.
fn outbound(places: usize) -> Outbound {
    Outbound::new(Rules {
        max_in_flight: places,
        max_in_flight_per_tenant: places,
        breaker_failures: 5,
        breaker_open_ms: 30_000,
    })
}

fn fixed() -> Connection {
    sample_connection(sample(|grant| matches!(grant, Grant::Fixed)))
}

/// Takes leave, and gives it back at once: when it came, in milliseconds from `start`.
async fn passes(upstream: &Upstream, attempt: u32, start: Instant) -> u128 {
    let admitted = tokio::time::timeout(Duration::from_secs(600), upstream.admit(attempt, None)).await;
    drop(admitted.expect("leave within ten minutes").unwrap());
    start.elapsed().as_millis()
}

/// Turns by the virtual clock; the usual ones go by the real one.
struct Turns(Mutex<Instant>);

impl SharedPace for Turns {
    fn turn(&self, _: &Connection, every: Duration, _: u32) -> Turn<'_> {
        let now = Instant::now();
        let mut next = self.0.lock().unwrap();
        let at = now.max(*next);
        *next = at + every;
        Box::pin(std::future::ready(Some(at - now)))
    }

    fn hold(&self, _: &Connection, _: Duration) {}
}

#[tokio::test(start_paused = true)]
async fn calls_that_waited_for_a_place_do_not_go_out_in_a_bunch() {
    let outbound = outbound(4).sharing(Some(Arc::new(Turns(Mutex::new(Instant::now())))));
    let limits = Limits { rate: Some(Pace { calls: 2, per_s: 1 }), ..fixed().limits };
    let paced = outbound.open(&Arc::new(Connection { limits, ..fixed() })).unwrap();
    let other = outbound.open(&Arc::new(fixed())).unwrap();
    let busy = join_all((0..4).map(|_| other.admit(1, None))).await;
    let start = Instant::now();
    let release = async {
        sleep(Duration::from_secs(20)).await;
        drop(busy);
    };
    let passed: FuturesUnordered<_> = (0..4).map(|_| passes(&paced, 1, start)).collect();
    let (passed, ()) = tokio::join!(passed.collect::<Vec<_>>(), release);
    // The first had its turn long ago, and so may the second at once; then they are a second apart.
    assert!(passed[0] >= 20_000 && passed[2] >= passed[1] + 1_000 && passed[3] >= passed[2] + 1_000, "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_budget_waits_and_holds_up_no_first_attempt() {
    let retry = RetryPolicy { budget_floor_per_minute: 1, ..fixed().retry };
    // One lane: a retry that waited in it would be seen.
    let limits = Limits { max_in_flight: 1, ..fixed().limits };
    let upstream = outbound(4).open(&Arc::new(Connection { retry, limits, ..fixed() })).unwrap();
    let start = Instant::now();
    assert_eq!(passes(&upstream, 2, start).await, 0, "the floor");
    let mut second = std::pin::pin!(passes(&upstream, 3, start));
    let mut third = std::pin::pin!(passes(&upstream, 2, start));
    assert!(futures_util::poll!(&mut second).is_pending() && futures_util::poll!(&mut third).is_pending());
    for _ in 0..4 {
        assert_eq!(passes(&upstream, 1, start).await, 0);
    }
    assert!(futures_util::poll!(&mut second).is_pending(), "a fifth of 4 is none");
    // The tenth first attempt earns a second retry: one that waits goes at once.
    for _ in 0..5 {
        assert!(passes(&upstream, 1, start).await < 1_000);
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(passes(&upstream, 1, start).await, 2_000);
    assert_eq!((second.await, futures_util::poll!(&mut third).is_pending()), (2_000, true));
    // Time alone gives the rest: the floor, once the others are a minute old.
    assert!((60_000..=63_000).contains(&third.await));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_gives_up_at_the_deadline_and_takes_nothing_with_it() {
    let retry = RetryPolicy { budget_percent: 0, budget_floor_per_minute: 1, ..fixed().retry };
    let upstream = outbound(4).open(&Arc::new(Connection { retry, ..fixed() })).unwrap();
    let start = Instant::now();
    passes(&upstream, 2, start).await;
    let late = upstream.admit(2, Some(start + Duration::from_secs(30))).await;
    let Err(crate::engine::Lost::NotSent { fault, again: false }) = late else { panic!("{:?}", late.err()) };
    assert_eq!(fault.code, adapters::FaultCode::DeadlineExceeded);
    assert!((60_000..=61_100).contains(&passes(&upstream, 2, start).await));
}

#[tokio::test(start_paused = true)]
async fn leave_for_a_retry_that_an_open_breaker_stops_is_not_used_up() {
    let retry = RetryPolicy { budget_percent: 0, budget_floor_per_minute: 1, ..fixed().retry };
    let upstream = outbound(4).open(&Arc::new(Connection { retry, ..fixed() })).unwrap();
    let start = Instant::now();
    let stale = join_all((0..4).map(|_| upstream.admit(1, None))).await;
    // All lanes are taken: the retry has its leave, and waits.
    let mut retry = std::pin::pin!(upstream.admit(2, None));
    assert!(futures_util::poll!(&mut retry).is_pending());
    let failing = Signal { failing: true, ..Signal::default() };
    for permit in &stale {
        upstream.heard(permit.as_ref().unwrap(), failing);
    }
    upstream.heard(stale[0].as_ref().unwrap(), failing);
    drop(stale);
    assert!(matches!(retry.await, Err(crate::engine::Lost::CircuitOpen { .. })));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(passes(&upstream, 2, start).await, 30_000);
}

/// A double behind a stand-in, and how many sign-ins and other calls it saw.
struct Crm {
    double: Mutex<Box<dyn Double>>,
    sign_ins: AtomicUsize,
    takes: Duration,
    /// The values of the header that carries the credential, in the order of arrival.
    shown: Mutex<Vec<String>>,
    header: &'static str,
}

impl Crm {
    fn new(registration: &Registration, takes: Duration) -> Arc<Self> {
        let (double, shown) = (Mutex::new((registration.double)()), Mutex::default());
        let header = registration.profile.auth.header;
        Arc::new(Self { double, sign_ins: AtomicUsize::new(0), takes, shown, header })
    }

    fn stand_in(self: &Arc<Self>) -> StandIn {
        let crm = Arc::clone(self);
        Arc::new(move |request| {
            let crm = Arc::clone(&crm);
            Box::pin(async move {
                if request.method() == http::Method::DELETE {
                    let value = request.headers()[crm.header].to_str().unwrap().to_owned();
                    crm.shown.lock().unwrap().push(value);
                } else {
                    crm.sign_ins.fetch_add(1, Ordering::Relaxed);
                }
                sleep(crm.takes).await;
                let answer = crm.double.lock().unwrap().answer(&request, crate::clock::ms() / 1_000);
                Ok::<http::Response<Bytes>, _>(answer.response)
            })
        })
    }

    fn sign_ins(&self) -> usize {
        self.sign_ins.load(Ordering::Relaxed)
    }
}

fn a_call(connection: &Connection, n: usize) -> Call {
    let forms = [format!("{}", 7_000_001 + n), format!("{n:024x}"), format!("91c615e3-1040-4815-8ecb-{n:012x}")];
    let mut ids = forms.into_iter().map(|text| Identifier::Id(text.into()));
    let identifier = ids.find(|id| connection.registration.profile.admit(id).is_ok()).unwrap();
    connection.dialect.plan(vec![Target { slot: Slot(0), identifier }]).calls.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_that_wait_for_a_token_are_one_sign_in() {
    let signs_in = |each: &&Registration| matches!(form(each).grant, Grant::SignIn);
    let registration = DIALECTS.iter().find(signs_in).unwrap();
    let crm = Crm::new(registration, Duration::from_secs(5));
    let limits = Limits { max_in_flight: 1_000, ..sample_connection(registration).limits };
    let connection = Arc::new(Connection { limits, ..sample_connection(registration) });
    let upstream = outbound(1_000).open(&connection).unwrap().standing_in(crm.stand_in(), true);
    let start = Instant::now();
    let stampede = async || {
        let all = join_all((0..1_000).map(|_| passes(&upstream, 1, start))).await;
        let mut at = HashMap::<_, usize>::new();
        all.iter().for_each(|ms| *at.entry(*ms / 1_000).or_default() += 1);
        at
    };
    assert_eq!(stampede().await, HashMap::from([(5, 1_000)]), "all of them wait for the one");
    assert_eq!(crm.sign_ins(), 1);
    // Ahead of its end, one renews it while the others go on with what holds.
    let every_s = 60;
    let mut renewals = 0;
    for _ in 0..3 * 60 * 60 / every_s {
        sleep(Duration::from_secs(every_s)).await;
        let now_s = start.elapsed().as_secs() as u128;
        let (before, at) = (crm.sign_ins(), stampede().await);
        match crm.sign_ins() - before {
            0 => assert_eq!(at, HashMap::from([(now_s, 1_000)])),
            1 => {
                renewals += 1;
                assert!(at == HashMap::from([(now_s, 999), (now_s + 5, 1)]), "at {now_s}: {at:?}");
            }
            more => panic!("{more} sign-ins for one stampede"),
        }
    }
    assert!(renewals > 0, "no token came to its end in three hours");
}

#[tokio::test(start_paused = true)]
async fn a_signed_token_lives_five_minutes_and_is_signed_for_one_call() {
    let registration = sample_of_jwt();
    let crm = Crm::new(registration, Duration::ZERO);
    let connection = Arc::new(sample_connection(registration));
    let upstream = outbound(4).open(&connection).unwrap().standing_in(crm.stand_in(), true);
    for n in 0..3 {
        let permit = upstream.admit(1, None).await.unwrap();
        upstream.send(&permit, &a_call(&connection, n)).await.unwrap();
    }
    let now_s = crate::clock::now().unix_s;
    let mut seen = std::collections::HashSet::new();
    for shown in crm.shown.lock().unwrap().iter() {
        let payload = shown.rsplit(' ').next().unwrap().split('.').nth(1).unwrap();
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert_eq!(exp - iat, 300);
        // Dated back by 30 s; the clock of this test may have gone on since.
        assert!((now_s - 35..=now_s - 30).contains(&iat), "{iat} at {now_s}");
        assert!(seen.insert(claims["jti"].as_str().unwrap().to_owned()), "a token was used twice");
    }
    assert_eq!(seen.len(), 3);
}

fn sample_of_jwt() -> &'static Registration {
    DIALECTS.iter().find(|each| matches!(form(each).grant, Grant::SignedJwt { .. })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_code_that_is_a_piece_of_the_credential_is_known() {
    let signs_in = |each: &&Registration| matches!(form(each).grant, Grant::SignIn);
    let (with_token, with_sign_in) = (fixed(), sample_connection(DIALECTS.iter().find(signs_in).unwrap()));
    for connection in [with_token, with_sign_in, device::connection("acme", "door-demo-password")] {
        let crm = Crm::new(connection.registration, Duration::ZERO);
        let connection = Arc::new(connection);
        let upstream = outbound(4).open(&connection).unwrap().standing_in(crm.stand_in(), true);
        let permit = upstream.admit(1, None).await.unwrap();
        upstream.send(&permit, &a_call(&connection, 1)).await.unwrap();
        let shown = crm.shown.lock().unwrap()[0].clone();
        let token = shown.rsplit(' ').next().unwrap().to_owned();
        let secret = connection.credentials.members.iter().find_map(|(name, value)| match value {
            CredentialValue::Secret(secret) if !["username", "client_id", "token_url"].contains(name) => {
                Some(secrecy::ExposeSecret::expose_secret(secret).to_owned())
            }
            _ => None,
        });
        let secret = secret.unwrap();
        for text in [&secret, &secret.to_uppercase(), &secret[2..10], &format!("x{secret}"), &token, &token[1..9]] {
            assert!(upstream.is_given_away_by(text), "{text}");
        }
        for text in ["", "not_found", "invalid_authentication", "permission_denied", "system_error", "e"] {
            assert!(!upstream.is_given_away_by(text), "{text}");
        }
    }
    // What a sign-in sends in place of the password: its MD5.
    let connection = Arc::new(device::connection("acme", "door-demo-password"));
    let upstream = outbound(4).open(&connection).unwrap();
    assert!(upstream.is_given_away_by("92f151502b518b3f990215efdccfed07"));
}
