//! Logs and metrics. Neither ever has an identifier, a credential, or a byte of an upstream's body.
//!
//! Names and labels are listed in ARCHITECTURE.md. Handles are taken once a connection, not once a call.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adapters::Outcome;
use bytes::Bytes;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::engine::Lost;
use crate::outbound::BreakerState;
use crate::tenants::Connection;

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

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

/// Starts logging to stderr. Once a process; later calls change nothing.
pub fn log(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second start, as tests do, keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(!plain).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
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
        describe_counter!("onedelete_requests_total", "Requests to the public listener, by route and status");
        describe_histogram!("onedelete_request_seconds", "Duration of requests to the public listener");
        describe_gauge!("onedelete_deletions_running", "Deletions that are not finished");
        Some(handle)
    });
}

/// The metrics in Prometheus' text format.
pub fn metrics_page() -> String {
    RECORDER
        .get()
        .and_then(Option::as_ref)
        .map(|handle| {
            handle.run_upkeep();
            handle.render()
        })
        .unwrap_or_default()
}

/// The metrics of one connection's calls.
pub struct CallMetrics {
    labels: [(&'static str, String); 3],
    seconds: Histogram,
    breaker: Gauge,
    retries_waiting: Gauge,
    ok: Counter,
}

/// A retry that waits for its connection's budget, as long as this lives.
pub(crate) struct RetryWaits(Gauge);

impl Drop for RetryWaits {
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
            ok: counter(&labels, "200"),
            labels,
        }
    }

    pub(crate) fn ended(&self, reply: &Result<http::Response<Bytes>, Lost>, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        match reply {
            Ok(reply) if reply.status() == http::StatusCode::OK => self.ok.increment(1),
            Ok(reply) => counter(&self.labels, reply.status().as_str()).increment(1),
            Err(Lost::MaybeSent(fault) | Lost::NotSent { fault, .. }) => {
                counter(&self.labels, fault.code.as_str()).increment(1);
            }
            Err(Lost::CircuitOpen { .. }) => {}
        }
    }

    pub(crate) fn retry_waits(&self) -> RetryWaits {
        self.retries_waiting.increment(1.0);
        RetryWaits(self.retries_waiting.clone())
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

/// Counts contacts that were settled at a connection.
pub(crate) fn settled(connection: &Arc<Connection>, outcomes: impl Iterator<Item = Outcome>) {
    let mut counts = [0u64; Outcome::ALL.len()];
    for outcome in outcomes {
        counts[outcome as usize] += 1;
    }
    for (outcome, count) in Outcome::ALL.into_iter().zip(counts) {
        if count > 0 {
            let [tenant, name, dialect] = labels(connection);
            let labels = [tenant, name, dialect, ("outcome", outcome.as_str().to_owned())];
            counter!("onedelete_contacts_total", &labels).increment(count);
        }
    }
}

/// Counts a deletion's event.
pub(crate) fn deletion(tenant: &str, event: &'static str) {
    counter!("onedelete_deletions_total", "tenant" => tenant.to_owned(), "event" => event).increment(1);
}

/// Sets how many deletions are not finished.
pub(crate) fn running(deletions: usize) {
    gauge!("onedelete_deletions_running").set(deletions as f64);
}

/// Counts a request to the public listener. `route` is a template, never a path: paths can hold identifiers.
pub(crate) fn request(route: &str, method: &str, status: u16, took: Duration) {
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    counter!("onedelete_requests_total", &labels).increment(1);
    histogram!("onedelete_request_seconds", "route" => route.to_owned()).record(took.as_secs_f64());
}
