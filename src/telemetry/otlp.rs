//! Sends spans to an OTLP collector: as JSON over HTTP, in batches, from a bounded queue.
//!
//! Whoever records a span never waits: what does not fit into the queue is dropped, and so is what the collector does not take
//! after a few tries; the log says how many. Nothing is sent anywhere unless an endpoint is configured, and no variable of the
//! environment but the gateway's own settings configures one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::origin::hex;

/// Spans that wait for being sent.
const QUEUE: usize = 8_192;
/// Spans in one request.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a batch is sent, and the wait before it is sent again; it doubles.
const TRIES: u32 = 4;
const AGAIN: Duration = Duration::from_secs(1);

/// Where spans are put. Clones put them in the same place.
#[derive(Clone)]
pub struct Queue {
    spans: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// Takes spans out of the queue and to the collector.
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    dropped: Arc<AtomicU64>,
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    /// What all spans have in common.
    resource: Value,
    fails: bool,
}

/// Something that took time.
pub(super) struct Span {
    pub(super) trace: u128,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) state: Option<HeaderValue>,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Nanoseconds since 1970-01-01 UTC.
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) facts: Vec<(&'static str, Fact)>,
    /// In a word, why it failed.
    pub(super) failed: Option<String>,
}

/// On which side of a request a span is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Internal = 1,
    Client = 3,
}

/// What is said of a span.
pub(super) enum Fact {
    Text(String),
    Word(&'static str),
    Number(u64),
}

impl Queue {
    pub(super) fn put(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Exporter {
    /// To a collector at this URL, below which it takes traces at `/v1/traces`, with headers as `NAME=VALUE,NAME=VALUE`.
    ///
    /// # Errors
    /// One line, which does not repeat a header.
    pub fn new(endpoint: &str, headers: Option<&SecretString>) -> Result<(Queue, Self), String> {
        let headers = headers.map_or(Ok(HeaderMap::new()), |headers| parse(headers.expose_secret()))?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .timeout(PATIENCE)
            .build()
            .map_err(|_| "no client for telemetry.otlp.endpoint can be made".to_owned())?;
        let (sender, spans) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let base = endpoint.trim_end_matches('/');
        let url = if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") };
        let instance = uuid::Uuid::new_v4().to_string();
        let resource = facts(&[
            ("service.name", Fact::Word("onedelete")),
            ("service.version", Fact::Word(env!("CARGO_PKG_VERSION"))),
            ("service.instance.id", Fact::Text(instance)),
        ]);
        let queue = Queue { spans: sender, dropped: Arc::clone(&dropped) };
        Ok((queue, Self { spans, dropped, client, url, headers, resource, fails: false }))
    }

    /// Sends what is put into the queue; at the end, what is left in it, once.
    pub async fn run(mut self, end: CancellationToken) {
        let mut batch = Vec::new();
        while end.run_until_cancelled(self.gather(&mut batch)).await.is_some() {
            if end.run_until_cancelled(self.send(&batch)).await.is_none() {
                // Once more, at the end: the collector tells spans apart by their ids.
                break;
            }
            batch.clear();
        }
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
        }
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(BATCH));
            if self.send_once(&self.body(&batch)).await.is_err() {
                self.dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            batch = rest;
        }
        self.tell_dropped();
    }

    /// Waits for spans, and a while for more.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        if self.spans.recv_many(batch, BATCH).await == 0 {
            // Nobody is left to put anything in.
            return std::future::pending().await;
        }
        let more = async {
            while batch.len() < BATCH {
                match self.spans.recv().await {
                    Some(span) => batch.push(span),
                    None => return std::future::pending().await,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, more).await;
    }

    /// Sends a batch, again where that may help. Whether it arrived is for the log alone.
    async fn send(&mut self, batch: &[Span]) {
        let body = self.body(batch);
        let mut wait = AGAIN;
        for attempt in 1..=TRIES {
            let (why, again) = match self.send_once(&body).await {
                Ok(()) => {
                    if std::mem::take(&mut self.fails) {
                        tracing::info!("the collector takes traces again");
                    }
                    break;
                }
                Err(failed) => failed,
            };
            if !std::mem::replace(&mut self.fails, true) {
                tracing::warn!(why, "the collector does not take traces: deletions go on without them");
            }
            if !again || attempt == TRIES {
                self.dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
                break;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.tell_dropped();
    }

    fn tell_dropped(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "spans were dropped");
        }
    }

    /// Why it was not taken, and whether that may pass.
    async fn send_once(&self, body: &str) -> Result<(), (String, bool)> {
        let request = self.client.post(&self.url).headers(self.headers.clone());
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.to_owned());
        // An error's text may have the URL in it; its kind is enough.
        let reply = request.send().await.map_err(|err| {
            let why = if err.is_timeout() { "it took too long" } else { "it cannot be reached" };
            (why.to_owned(), true)
        })?;
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        match reply.status() {
            status if status.is_success() => Ok(()),
            status => Err((format!("it answered {}", status.as_u16()), again.contains(&status))),
        }
    }

    /// A request of the OTLP, in its JSON form.
    fn body(&self, batch: &[Span]) -> String {
        let spans: Vec<_> = batch.iter().map(Span::json).collect();
        let scope = json!({"name": "onedelete", "version": env!("CARGO_PKG_VERSION")});
        let spans = json!([{"scope": scope, "spans": spans}]);
        json!({"resourceSpans": [{"resource": {"attributes": self.resource}, "scopeSpans": spans}]}).to_string()
    }
}

/// Headers as `NAME=VALUE,NAME=VALUE`.
pub(super) fn parse(text: &str) -> Result<HeaderMap, String> {
    let wrong = || "telemetry.otlp.headers must lead to NAME=VALUE,NAME=VALUE".to_owned();
    let mut headers = HeaderMap::new();
    for pair in text.trim().split(',') {
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let name = name.trim().parse::<HeaderName>().map_err(|_| wrong())?;
        let mut value = value.trim().parse::<HeaderValue>().map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

impl Span {
    fn json(&self) -> Value {
        let mut span = Map::new();
        let mut put = |name: &str, value: Value| span.insert(name.to_owned(), value);
        put("traceId", hex(self.trace).into());
        put("spanId", format!("{:016x}", self.id).into());
        if let Some(parent) = self.parent {
            put("parentSpanId", format!("{parent:016x}").into());
        }
        if let Some(state) = self.state.as_ref().and_then(|state| state.to_str().ok()) {
            put("traceState", state.into());
        }
        put("name", self.name.into());
        put("kind", (self.kind as u64).into());
        // 64-bit numbers are texts in JSON made of protocol buffers.
        put("startTimeUnixNano", self.start_ns.to_string().into());
        put("endTimeUnixNano", self.end_ns.to_string().into());
        put("attributes", facts(&self.facts));
        if self.failed.is_some() {
            put("status", json!({"code": 2}));
        }
        span.into()
    }
}

fn facts(facts: &[(&str, Fact)]) -> Value {
    let value = |fact: &Fact| match fact {
        Fact::Text(text) => json!({"stringValue": text}),
        Fact::Word(word) => json!({"stringValue": word}),
        Fact::Number(number) => json!({"intValue": number.to_string()}),
    };
    facts.iter().map(|(key, fact)| json!({"key": key, "value": value(fact)})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_whole_or_not_at_all_and_never_repeated() {
        let headers = parse(" x-api-key=a=b ,x-scope=7\n").unwrap();
        assert_eq!(
            (&headers["x-api-key"], &headers["x-scope"]),
            (&HeaderValue::from_static("a=b"), &"7".parse().unwrap())
        );
        assert!(headers.values().all(HeaderValue::is_sensitive));
        for wrong in ["", "canary", "x=1,canary", "x y=canary", "x=canary\u{7f}", ",x=canary"] {
            let why = parse(wrong).unwrap_err();
            assert!(why.contains("NAME=VALUE") && !why.contains("canary"), "{wrong}: {why}");
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_full_drops_spans_and_nobody_waits() {
        let (queue, exporter) = Exporter::new("http://127.0.0.1:9", None).unwrap();
        let span = || Span {
            trace: 1,
            id: 2,
            parent: None,
            state: None,
            name: "deletion",
            kind: Kind::Internal,
            start_ns: 3,
            end_ns: 4,
            facts: Vec::new(),
            failed: None,
        };
        (0..QUEUE + 5).for_each(|_| queue.put(span()));
        assert_eq!((exporter.spans.len(), exporter.dropped.load(Ordering::Relaxed)), (QUEUE, 5));
    }
}
