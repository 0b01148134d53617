//! The gateway over HTTP: one request and its answer, read as far as it is needed.
//!
//! It asks nothing twice: whether to ask again is for [`super::errand`] to say. No error of it names an identifier or the key.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{StatusCode, header};
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;

use super::deletion::Deletion;
use super::events::{Event, Events};
use super::upload::{Sent, Upload};
use crate::cli::Failure;

/// So long nothing may come or go before a connection counts as lost.
const QUIET: Duration = Duration::from_secs(90);

/// So long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// No deletion or dry run is longer, in bytes.
const LONGEST_ANSWER: usize = 64 << 20;

/// No problem and no result is longer, in bytes.
const LONGEST_TEXT: usize = 1 << 20;

/// A running gateway, and the key to it.
pub(super) struct Gateway {
    client: reqwest::Client,
    url: String,
    key: String,
}

/// Why there is no answer to go on with.
#[derive(Debug)]
pub(super) enum Fault {
    /// It said no, for good.
    Refused(Refusal),
    /// Not now: it did nothing, and asks to come back, possibly after a time that it names.
    Busy(Option<Duration>, String),
    /// No connection could be made: nothing was sent.
    Unconnected(String),
    /// The connection broke, or what came is not an answer of the gateway's.
    Lost(String),
}

/// A problem as the gateway words it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) text: String,
    /// What is wrong with single contacts: index, and what.
    pub(super) contacts: Vec<(u64, String)>,
    /// The gateway itself promised that nothing was sent.
    pub(super) nothing_sent: bool,
    /// There is no such thing, or no such way to ask.
    pub(super) is_absent: bool,
}

/// RFC 9457, with the contract's members.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    attempted: Option<bool>,
    #[serde(default)]
    errors: Vec<Violation>,
}

#[derive(Debug, Deserialize)]
struct Violation {
    #[serde(default)]
    pointer: String,
    #[serde(default)]
    message: String,
}

/// The deletion's events, as they come.
pub(super) struct Listening {
    reply: Response,
    events: Events,
    waiting: std::vec::IntoIter<Event>,
}

/// Lines of an answer, as they come.
pub(super) struct Lines {
    reply: Response,
    buffer: BytesMut,
    /// So much of the buffer is known to have no line end.
    searched: usize,
}

impl Gateway {
    /// Trusts the system's authorities, or those of a file alone, and shows it a certificate if there is one.
    pub(super) fn new(
        url: &str,
        key: String,
        authorities: Option<&Path>,
        certificate: Option<&Path>,
    ) -> Result<Self, Failure> {
        let is_http = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_http {
            return Err(Failure::Usage("--url needs an address such as http://127.0.0.1:8080".to_owned()));
        }
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // The key and the identifiers are for the gateway alone.
            .no_proxy()
            // The waits that follow have limits of their own.
            .connect_timeout(CONNECT);
        if let Some(file) = authorities {
            let all = reqwest::Certificate::from_pem_bundle(&pem(file)?).ok().filter(|all| !all.is_empty());
            client = client.tls_certs_only(all.ok_or_else(|| unusable(file, "certificate"))?);
        }
        if let Some(file) = certificate {
            let identity = reqwest::Identity::from_pem(&pem(file)?);
            client = client.identity(identity.map_err(|_| unusable(file, "certificate and private key"))?);
        }
        let client = client.build().map_err(|err| Failure::Failed(err.without_url().to_string()))?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), key })
    }

    /// Its address, without a slash at the end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a deletion as one JSON document; the answer as it came, and what it says.
    pub(super) async fn post(&self, body: Bytes, name: &str, wait_s: u32) -> Result<(String, Deletion), Fault> {
        let request = self.client.post(format!("{}/v1/deletions", self.url)).body(body);
        let request = request.header(header::CONTENT_TYPE, "application/json").header("idempotency-key", name);
        let request = request.header("prefer", format!("wait={wait_s}"));
        deletion(in_time(self.send(request)).await?).await
    }

    /// Sends a deletion as JSON Lines while they are read. `told` hears how many contacts have gone out.
    pub(super) async fn upload(
        &self,
        query: &str,
        body: Upload,
        sent: &Arc<Sent>,
        name: &str,
        mut told: impl FnMut(u64),
    ) -> Result<Deletion, Fault> {
        let request = self.client.post(format!("{}/v1/deletions{query}", self.url)).body(reqwest::Body::wrap(body));
        let request = request.header(header::CONTENT_TYPE, "application/x-ndjson").header("idempotency-key", name);
        let request = request.header("prefer", "respond-async");
        let mut sending = std::pin::pin!(self.send(request));
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let (mut lines, mut moved) = (0, tokio::time::Instant::now());
        let reply = loop {
            tokio::select! {
                reply = &mut sending => break reply?,
                now = tick.tick() => {
                    if std::mem::replace(&mut lines, sent.lines()) != lines {
                        moved = now;
                        told(lines);
                    } else if now.duration_since(moved) > QUIET {
                        return Err(quiet());
                    }
                }
            }
        };
        Ok(deletion(reply).await?.1)
    }

    /// How far a deletion is.
    pub(super) async fn look(&self, id: &str) -> Result<Deletion, Fault> {
        let request = self.client.get(format!("{}/v1/deletions/{}", self.url, escaped(id)));
        Ok(deletion(in_time(self.send(request)).await?).await?.1)
    }

    /// Stops a deletion: what was not sent by now will not be.
    pub(super) async fn cancel(&self, id: &str) -> Result<Deletion, Fault> {
        let request = self.client.post(format!("{}/v1/deletions/{}/cancel", self.url, escaped(id)));
        Ok(deletion(in_time(self.send(request.header("prefer", "respond-async"))).await?).await?.1)
    }

    /// Listens to a deletion's events; `None` where the gateway has none.
    pub(super) async fn listen(&self, id: &str) -> Result<Option<Listening>, Fault> {
        let request = self.client.get(format!("{}/v1/deletions/{}/events", self.url, escaped(id)));
        let reply = in_time(self.send(request.header(header::ACCEPT, "text/event-stream"))).await?;
        let kind = reply.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_stream = kind.starts_with("text/event-stream");
        Ok(is_stream.then(|| Listening { reply, events: Events::default(), waiting: Vec::new().into_iter() }))
    }

    /// A deletion's results, a line each; those with some outcomes, or all.
    pub(super) async fn results(&self, id: &str, outcomes: Option<&str>) -> Result<Lines, Fault> {
        let query = outcomes.map(|outcomes| format!("?outcome={outcomes}")).unwrap_or_default();
        let request = self.client.get(format!("{}/v1/deletions/{}/results{query}", self.url, escaped(id)));
        let reply = in_time(self.send(request)).await?;
        Ok(Lines { reply, buffer: BytesMut::new(), searched: 0 })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Fault> {
        let reply = request.bearer_auth(&self.key).send().await.map_err(|err| self.lost(err))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let after = reply.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
        let text = tokio::time::timeout(QUIET, whole(reply, LONGEST_TEXT)).await.unwrap_or_else(|_| Err(quiet()));
        // The status says enough where the text does not arrive.
        let problem: Problem = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        Err(Fault::from_problem(status, after.map(Duration::from_secs), problem))
    }

    fn lost(&self, err: reqwest::Error) -> Fault {
        let err = err.without_url();
        let text = format!("{}: {}", self.url, cause(&err));
        if err.is_builder() {
            // A key with characters that no header may have.
            return Fault::Refused(Refusal { text, contacts: Vec::new(), nothing_sent: true, is_absent: false });
        }
        if err.is_connect() { Fault::Unconnected(text) } else { Fault::Lost(text) }
    }
}

impl Fault {
    fn from_problem(status: StatusCode, after: Option<Duration>, problem: Problem) -> Self {
        let title = problem.title.as_deref().unwrap_or("the answer is not the gateway's");
        let mut lines = vec![format!("{} ({status})", title.trim_end_matches('.'))];
        lines.extend(problem.detail);
        let mut contacts = Vec::new();
        for error in problem.errors {
            let index = error.pointer.strip_prefix("/contacts/").and_then(|rest| rest.split('/').next()?.parse().ok());
            match index {
                Some(index) => contacts.push((index, format!("{}: {}", error.pointer, error.message))),
                None => lines.push(format!("{}: {}", error.pointer, error.message)),
            }
        }
        let text = lines.join("\n  ");
        match status {
            // It did nothing, but for what an earlier try may have brought about.
            StatusCode::TOO_MANY_REQUESTS => Self::Busy(after, text),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT if problem.attempted == Some(false) => {
                Self::Busy(after, text)
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => Self::Lost(text),
            status => Self::Refused(Refusal {
                text,
                contacts,
                nothing_sent: problem.attempted == Some(false),
                is_absent: problem.code.is_some() && status == StatusCode::NOT_FOUND,
            }),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Refused(Refusal { text, .. }) | Self::Busy(_, text) | Self::Unconnected(text) | Self::Lost(text)) =
            self;
        f.write_str(text)
    }
}

impl Listening {
    /// The next event's name and deletion; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<(String, Deletion)>, Fault> {
        loop {
            if let Some(event) = self.waiting.next() {
                match (&*event.name, serde_json::from_str(&event.data)) {
                    ("progress" | "finished", Ok(deletion)) => return Ok(Some((event.name, deletion))),
                    ("progress" | "finished", Err(_)) => return Err(Fault::Lost("an event cannot be read".to_owned())),
                    _ => continue,
                }
            }
            let Some(bytes) = chunk(&mut self.reply).await? else { return Ok(None) };
            let events = self.events.feed(&bytes).map_err(|_| Fault::Lost("an event cannot be read".to_owned()))?;
            self.waiting = events.into_iter();
        }
    }
}

impl Lines {
    /// The next line without its end; `None` at the end of the answer.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST_TEXT {
                return Err(Fault::Lost("a result is too long".to_owned()));
            }
            match chunk(&mut self.reply).await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => {
                    self.searched = 0;
                    let rest = self.buffer.split().freeze();
                    return Ok((!rest.is_empty()).then_some(rest));
                }
            }
        }
    }
}

/// A query for the other members of a request; empty if there are none.
pub(super) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        let separator = if text.is_empty() { '?' } else { '&' };
        text.push_str(&format!("{separator}{name}={}", escaped(value)));
    }
    text
}

/// A file of certificates or keys. Nothing of it is repeated in an error.
fn pem(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|err| Failure::Usage(format!("{}: {err}", file.display())))
}

fn unusable(file: &Path, what: &str) -> Failure {
    Failure::Usage(format!("{}: there is no {what} (PEM) in it that can be used", file.display()))
}

/// As a part of a path or a query. A blank becomes `%20`: a `+` is read in two ways.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

async fn deletion(reply: Response) -> Result<(String, Deletion), Fault> {
    let text = whole(reply, LONGEST_ANSWER).await?;
    match serde_json::from_str(&text) {
        Ok(deletion) => Ok((text, deletion)),
        Err(_) => Err(Fault::Lost("the answer is not the gateway's".to_owned())),
    }
}

async fn whole(mut reply: Response, most: usize) -> Result<String, Fault> {
    let mut body = Vec::new();
    while let Some(bytes) = chunk(&mut reply).await? {
        if body.len() + bytes.len() > most {
            return Err(Fault::Lost("the answer is too long".to_owned()));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn chunk(reply: &mut Response) -> Result<Option<Bytes>, Fault> {
    match tokio::time::timeout(QUIET, reply.chunk()).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(err)) => Err(Fault::Lost(format!("the answer broke off: {}", cause(&err.without_url())))),
        Err(_) => Err(quiet()),
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(QUIET, asking).await.unwrap_or_else(|_| Err(quiet()))
}

fn quiet() -> Fault {
    Fault::Lost(format!("nothing was heard of the gateway for {} s", QUIET.as_secs()))
}

/// What caused an error: the outermost says little more than that sending failed.
fn cause(err: &reqwest::Error) -> String {
    let mut text = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, after: Option<u64>, problem: &str) -> Fault {
        let problem = serde_json::from_str(problem).unwrap_or_default();
        Fault::from_problem(StatusCode::from_u16(status).unwrap(), after.map(Duration::from_secs), problem)
    }

    #[test]
    fn only_a_promise_that_nothing_was_done_is_busy() {
        let promise = r#"{"code":"overloaded","title":"Busy.","attempted":false}"#;
        let wait = Some(Duration::from_secs(7));
        assert!(matches!(fault(503, Some(7), promise), Fault::Busy(after, _) if after == wait));
        assert!(matches!(fault(429, None, ""), Fault::Busy(None, _)));
        assert!(matches!(fault(408, None, promise), Fault::Busy(None, _)));
        for (status, problem) in
            [(503, ""), (503, r#"{"code":"internal"}"#), (502, promise), (504, "<html>"), (408, "")]
        {
            assert!(matches!(fault(status, Some(7), problem), Fault::Lost(_)), "{status} {problem}");
        }
    }

    #[test]
    fn a_refusal_names_the_contacts_that_are_meant() {
        let text = r#"{"code":"invalid_request","title":"Bad.","attempted":false,"errors":[
            {"pointer":"/contacts/12/ref","message":"too long"},{"pointer":"/reason","message":"too long"}]}"#;
        let Fault::Refused(refusal) = fault(400, None, text) else { panic!() };
        assert_eq!(refusal.text, "Bad (400 Bad Request)\n  /reason: too long");
        assert_eq!(refusal.contacts, [(12, "/contacts/12/ref: too long".to_owned())]);
        assert!(refusal.nothing_sent && !refusal.is_absent);
        let Fault::Refused(refusal) = fault(404, None, "<html>") else { panic!() };
        assert!(!refusal.nothing_sent && !refusal.is_absent, "a proxy's 404 says nothing");
    }

    #[test]
    fn a_query_is_read_in_one_way_only() {
        let query = query(&[("connection", None), ("reason", Some("a b+c&d=é")), ("reference", Some("R-1_~"))]);
        assert_eq!(query, "?reason=a%20b%2Bc%26d%3D%C3%A9&reference=R-1_~");
        assert_eq!(super::query(&[("reason", None)]), "");
        assert_eq!(escaped("../x"), "%2E%2E%2Fx");
    }
}
