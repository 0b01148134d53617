//! Logs and metrics. Neither ever has an identifier, a credential, or a byte of an upstream's body.
//!
//! Names and labels are listed in ARCHITECTURE.md. Handles are taken once for each row of labels, and kept: naming a metric costs
//! more than counting.

mod gathered;
mod json;
mod line;
pub mod minutes;
mod origin;
mod otlp;
mod panics;
mod trace;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use adapters::Outcome;
use bytes::Bytes;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::clock;
use crate::engine::Lost;
use crate::maps::HashMap;
use crate::outbound::BreakerState;
use crate::tenants::Connection;

pub use self::gathered::{flush_log, worker_is_idle};
pub(crate) use self::origin::{Origin, about, request_id, under};
pub use self::otlp::{Exporter, Queue};
pub(crate) use self::trace::{Attempt, Trace};
pub use self::trace::{Onward, Tracer};

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
/// Since when the oldest deletion waits that is worked here, in milliseconds since 1970-01-01 UTC; 0 if there is none. Its age
/// is only known when it is asked for.
static OLDEST_MS: AtomicI64 = AtomicI64::new(0);

/// Seconds: from a loopback mock to a whole attempt's timeout.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr, panics among it. Once a process; later calls change nothing of how lines are written.
pub fn log(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::IsTerminal::is_terminal(&std::io::stderr());
    let painted = format == LogFormat::Text && !plain;
    let stderr = gathered::ToStderr { painted };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    // A second start, as tests do, keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(painted).try_init(),
        LogFormat::Json => builder.event_format(json::Json).try_init(),
    };
    panics::to_log();
}

/// Starts counting. Once a process; later calls change nothing.
pub fn count() {
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS).ok()?;
        let handle = builder.install_recorder().ok()?;
        describe_counter!("onedelete_deletions_total", "Deletions by event: accepted, finished, dry_run");
        describe_counter!("onedelete_contacts_total", "Contacts settled, by outcome");
        describe_counter!("onedelete_calls_total", "Calls to upstreams, by HTTP status or by how they were lost");
        describe_histogram!("onedelete_call_seconds", "Duration of calls to upstreams, waits before them left out");
        describe_gauge!("onedelete_breaker_state", "A connection's breaker: 0 closed, 1 half open, 2 open");
        describe_gauge!("onedelete_retries_waiting", "Retries that wait for their connection's retry budget");
        describe_gauge!("onedelete_calls_waiting", "Calls that wait to go out, by what they wait for");
        describe_gauge!(
            "onedelete_held_until_seconds",
            "Until when an upstream asked to be left alone, in seconds since 1970-01-01 UTC; 0 if it never did"
        );
        describe_counter!("onedelete_requests_total", "Requests to the public listener, by route and status");
        describe_histogram!("onedelete_request_seconds", "Duration of requests to the public listener");
        describe_gauge!("onedelete_deletions_running", "Deletions that are not finished");
        describe_counter!("onedelete_config_reloads_total", "Configurations that were read again: done, refused");
        describe_gauge!(
            "onedelete_config_last_good_seconds",
            "When the configuration in use was read, in seconds since 1970-01-01 UTC"
        );
        describe_counter!("onedelete_tls_handshakes_total", "Handshakes of callers, by result: done, failed");
        describe_gauge!(
            "onedelete_tls_certificate_expires_seconds",
            "When the certificate ends, in seconds since 1970-01-01 UTC"
        );
        describe_gauge!(
            "onedelete_oldest_pending_seconds",
            "Age of the oldest deletion that is worked here; 0 if none is"
        );
        Some(handle)
    });
}

/// The metrics in Prometheus' text format.
pub fn metrics_page() -> String {
    RECORDER
        .get()
        .and_then(Option::as_ref)
        .map(|handle| {
            let since = OLDEST_MS.load(Ordering::Relaxed);
            let age_ms = if since == 0 { 0 } else { (clock::unix_ms() - since).max(0) };
            gauge!("onedelete_oldest_pending_seconds").set(age_ms as f64 / 1_000.0);
            handle.run_upkeep();
            handle.render()
        })
        .unwrap_or_default()
}

/// How often what was measured is put into its buckets. Until then, every measurement takes eight bytes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Keeps measurements from piling up where nobody reads the metrics. Does not end.
pub async fn keep_up() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        RECORDER.get().and_then(Option::as_ref).inspect(|handle| handle.run_upkeep());
    }
}

/// The metrics of one connection: its calls, and what became of contacts.
pub struct CallMetrics {
    labels: [(&'static str, String); 3],
    outcomes: [OnceLock<Counter>; Outcome::ALL.len()],
    seconds: Histogram,
    breaker: Gauge,
    retries_waiting: Gauge,
    waiting: [Gauge; WaitsFor::ALL.len()],
    held_until: Gauge,
    ok: Counter,
}

/// What a call waits for before it goes out. A retry that waits for its budget is counted by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitsFor {
    /// One of its connection's places.
    Lane,
    /// The pace, or the end of a time for which the upstream asked to be left alone.
    Pace,
    /// A sign-in.
    Credential,
    /// A place that tenants or connections share.
    Place,
}

impl WaitsFor {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Lane, "lane"), (Self::Pace, "pace"), (Self::Credential, "credential"), (Self::Place, "place")];
}

/// Something that waits, as long as this lives.
pub(crate) struct Waits(Gauge);

impl Waits {
    fn of(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl std::fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallMetrics")
    }
}

impl CallMetrics {
    pub(crate) fn new(connection: &Connection) -> Self {
        let labels = labels(connection);
        Self {
            seconds: histogram!("onedelete_call_seconds", &labels),
            breaker: gauge!("onedelete_breaker_state", &labels),
            retries_waiting: gauge!("onedelete_retries_waiting", &labels),
            waiting: WaitsFor::ALL.map(|(_, reason)| {
                let [tenant, connection, dialect] = labels.clone();
                gauge!("onedelete_calls_waiting", &[tenant, connection, dialect, ("reason", reason.to_owned())])
            }),
            held_until: gauge!("onedelete_held_until_seconds", &labels),
            ok: counter(&labels, "200"),
            outcomes: Default::default(),
            labels,
        }
    }

    pub(crate) fn ended(&self, reply: &Result<http::Response<Bytes>, Lost>, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        if !matches!(reply, Err(Lost::CircuitOpen { .. })) {
            minutes::call(took, reply.is_err());
        }
        match reply {
            Ok(reply) if reply.status() == http::StatusCode::OK => self.ok.increment(1),
            Ok(reply) => counter(&self.labels, reply.status().as_str()).increment(1),
            Err(Lost::MaybeSent(fault) | Lost::NotSent { fault, .. }) => {
                counter(&self.labels, fault.code.as_str()).increment(1);
            }
            Err(Lost::CircuitOpen { .. }) => {}
        }
    }

    pub(crate) fn retry_waits(&self) -> Waits {
        Waits::of(&self.retries_waiting)
    }

    /// Counts a call among those that wait for this.
    pub(crate) fn waits_for(&self, what: WaitsFor) -> Waits {
        Waits::of(&self.waiting[what as usize])
    }

    /// The upstream asked to be left alone until then, in seconds since 1970-01-01 UTC.
    pub(crate) fn held_until(&self, unix_s: u64) {
        self.held_until.set(unix_s as f64);
    }

    /// Counts contacts that were settled.
    pub(crate) fn settled(&self, outcomes: impl IntoIterator<Item = (Outcome, u64)>) {
        for (outcome, contacts) in outcomes {
            let counter = self.outcomes[outcome as usize].get_or_init(|| {
                let [tenant, connection, dialect] = self.labels.clone();
                let labels = [tenant, connection, dialect, ("outcome", outcome.as_str().to_owned())];
                counter!("onedelete_contacts_total", &labels)
            });
            counter.increment(contacts);
            minutes::settled(outcome, contacts);
        }
    }

    pub(crate) fn breaker(&self, state: BreakerState) {
        self.breaker.set(match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
    }
}

fn counter(labels: &[(&'static str, String); 3], status: &str) -> Counter {
    let [(a, tenant), (b, connection), (c, dialect)] = labels.clone();
    let labels = [(a, tenant), (b, connection), (c, dialect), ("status", status.to_owned())];
    counter!("onedelete_calls_total", &labels)
}

fn labels(connection: &Connection) -> [(&'static str, String); 3] {
    [
        ("tenant", connection.tenant.to_string()),
        ("connection", connection.name.to_string()),
        ("dialect", connection.registration.profile.id.to_owned()),
    ]
}

/// Counters by tenant and event.
type Events = HashMap<(Arc<str>, &'static str), Counter>;

/// Counts a deletion's event.
pub(crate) fn deletion(tenant: &Arc<str>, event: &'static str) {
    static KEPT: LazyLock<Mutex<Events>> = LazyLock::new(Mutex::default);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let counter = kept.entry((Arc::clone(tenant), event));
    let counter = counter.or_insert_with_key(
        |(tenant, event)| counter!("onedelete_deletions_total", "tenant" => tenant.to_string(), "event" => *event),
    );
    counter.increment(1);
}

/// Sets how many deletions are not finished, and when the oldest of them was made, in milliseconds since 1970-01-01 UTC.
pub(crate) fn running(deletions: usize, oldest_ms: Option<i64>) {
    static KEPT: LazyLock<Gauge> = LazyLock::new(|| gauge!("onedelete_deletions_running"));
    KEPT.set(deletions as f64);
    OLDEST_MS.store(oldest_ms.unwrap_or(0), Ordering::Relaxed);
}

/// When the oldest deletion was made that is worked here, in milliseconds since 1970-01-01 UTC.
pub fn oldest_ms() -> Option<i64> {
    Some(OLDEST_MS.load(Ordering::Relaxed)).filter(|since| *since != 0)
}
/// What is counted and measured of one kind of request.
struct Answered {
    route: String,
    method: &'static str,
    status: u16,
    count: Counter,
    seconds: Histogram,
}

/// Counts a caller's TLS handshake that came to its end.
pub(crate) fn handshake(is_done: bool) {
    counter!("onedelete_tls_handshakes_total", "result" => if is_done { "done" } else { "failed" }).increment(1);
}

/// Sets when the listeners' certificate ends, in seconds since 1970-01-01 UTC.
pub(crate) fn certificate_expires(unix_s: i64) {
    gauge!("onedelete_tls_certificate_expires_seconds").set(unix_s as f64);
}

/// Counts a configuration that was read: one that is in use since this moment, in seconds since 1970-01-01 UTC, or one that was refused.
pub(crate) fn configured(since_s: Option<i64>) {
    let result = if since_s.is_some() { "done" } else { "refused" };
    counter!("onedelete_config_reloads_total", "result" => result).increment(1);
    since_s.inspect(|since_s| in_use_since(*since_s));
}

/// Sets since when the configuration is in use, in seconds since 1970-01-01 UTC.
pub(crate) fn in_use_since(unix_s: i64) {
    gauge!("onedelete_config_last_good_seconds").set(unix_s as f64);
}

/// Counts requests that were turned away before it was looked at what they ask for.
pub(crate) fn turned_away(requests: usize) {
    if requests > 0 {
        let labels = [("route", "none"), ("method", "other"), ("status", "503")];
        counter!("onedelete_requests_total", &labels).increment(requests as u64);
    }
}

/// Counts a request to the public listener. `route` is a template, never a path: paths can hold identifiers.
pub(crate) fn request(route: &str, method: &'static str, status: u16, took: Duration) {
    // Routes, methods and statuses that occur are few.
    static KEPT: Mutex<Vec<Answered>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |row: &Answered| row.status == status && row.method == method && row.route == route;
    let place = kept.iter().position(same).unwrap_or_else(|| {
        let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
        let count = counter!("onedelete_requests_total", &labels);
        let seconds = histogram!("onedelete_request_seconds", "route" => route.to_owned());
        kept.push(Answered { route: route.to_owned(), method, status, count, seconds });
        kept.len() - 1
    });
    kept[place].count.increment(1);
    kept[place].seconds.record(took.as_secs_f64());
}
