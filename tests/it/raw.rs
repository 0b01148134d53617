//! HTTP/1 as bytes: a table of requests, each with the section of the standard that it comes from, what must come back,
//! and whether the connection can be used afterwards. The truth on what reached the upstream is the mock's journal.
//!
//! Bodies that mean something to the contract are `refusals`' matter, requests that hide in others `smuggling`'s.

mod bodies;
mod framing;
mod headers;
mod lines;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use adapters::Identifier;
use futures_util::future::join_all;
use onedelete::mock::Mock;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, Setup, id, ids, key, mock, within};

/// One row: bytes in, and what must come of them.
pub(crate) struct Row {
    /// RFC and section.
    section: &'static str,
    /// With `HOST`, `KEY`, `ID`, `JSON` (a body with this id), `LEN` and `HEX` (its length) to be filled in.
    bytes: String,
    statuses: Vec<u16>,
    /// The problem's code, or that of its first error.
    code: Option<&'static str>,
    then: Then,
    deletes: bool,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Usable,
    Closed,
    /// Either, as long as the answer says so: the body was not wanted, and it may be there already or not.
    Said,
}

impl Row {
    fn new(section: &'static str, bytes: impl Into<String>) -> Self {
        let bytes = bytes.into();
        Self { section, bytes, statuses: Vec::new(), code: None, then: Then::Closed, deletes: false }
    }

    /// It is answered, and more can be asked.
    fn answered(self, status: u16) -> Self {
        Self { statuses: vec![status], then: Then::Usable, ..self }
    }

    /// It is answered so, and more can be asked.
    fn problem(self, status: u16, code: &'static str) -> Self {
        Self { code: Some(code), ..self.answered(status) }
    }

    /// It is carried out, and more can be asked.
    fn deletes(self) -> Self {
        Self { deletes: true, ..self.answered(200) }
    }

    /// It is no proper request: 400, and nothing behind it is read.
    fn refused(self, code: &'static str) -> Self {
        self.problem(400, code).then_closed()
    }

    /// Whatever is answered, nothing behind it is read.
    fn then_closed(self) -> Self {
        Self { then: Then::Closed, ..self }
    }

    /// Whether more can be asked is said in the answer.
    fn then_as_said(self) -> Self {
        Self { then: Then::Said, ..self }
    }

    /// What comes behind it is another request, which is refused.
    fn then_refused(mut self) -> Self {
        self.statuses.push(400);
        self.then_closed()
    }
}

/// A request with this first line and these header lines beside its host and key.
pub(crate) fn first(line: &str, lines: &str) -> String {
    format!("{line}\r\nHost: HOST\r\nAuthorization: Bearer KEY\r\n{lines}\r\n")
}

/// A request that deletes, with these header lines more.
pub(crate) fn delete(lines: &str) -> String {
    first("DELETE /v1/connections/c/contacts/ID HTTP/1.1", lines)
}

/// The same by this path.
fn delete_at(path: &str) -> String {
    first(&format!("DELETE {path} HTTP/1.1"), "")
}

/// A deletion as JSON, framed by these header lines.
pub(crate) fn post(lines: &str, body: &str) -> String {
    first("POST /v1/deletions HTTP/1.1", &format!("Content-Type: application/json\r\n{lines}")) + body
}

/// Asks for nothing much, and for an end.
const PROBE: &str = "GET /docs/problems/overloaded HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";

/// A gateway that has little patience, and its upstream.
pub(crate) async fn start() -> (Running, Mock) {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .set("server.max_connections_per_address", 1_000)
        .set("server.header_timeout_ms", 2_000)
        .set("server.body_timeout_ms", 2_000)
        .set("server.max_body_bytes", 100_000)
        .mock("acme", "c", &mock, |_| {})
        .start()
        .await;
    (gateway, mock)
}

/// Fills in the blanks.
pub(crate) fn filled(bytes: &str, gateway: &Running, id: &str) -> String {
    let json = serde_json::json!({ "contacts": [id] }).to_string();
    let bytes = bytes.replace("HOST", &gateway.public.to_string()).replace("KEY", &key("acme"));
    let bytes = bytes.replace("LEN", &json.len().to_string()).replace("HEX", &format!("{:x}", json.len()));
    let encoded = format!("%{:02X}{}", id.as_bytes()[0], &id[1..]);
    bytes.replace("JSON", &json).replace("ENCODED", &encoded).replace("ID", id)
}

/// One answer on a connection.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }
}

/// Sends bytes, and reads until the other side closes the connection: the answers in order, interim ones left out.
pub(crate) async fn exchange(addr: SocketAddr, bytes: &str, heads: bool) -> Vec<Answered> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // Who does not read on resets the connection; what was answered before counts.
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within("the end of a connection", stream.read_to_end(&mut answer)).await;
    answers(&String::from_utf8(answer).unwrap(), heads)
}

/// The answers in a text. To HEAD, none has a body, except the last if it is the probe's.
fn answers(mut text: &str, heads: bool) -> Vec<Answered> {
    let mut answers = Vec::new();
    while !text.is_empty() {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("half an answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap();
        let status = status.strip_prefix("HTTP/1.").unwrap_or_else(|| panic!("no status line: {status:?}"));
        let status: u16 = status[2..5].parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}")));
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        text = rest;
        if status < 200 {
            continue;
        }
        let mut answer = Answered { status, headers, body: String::new() };
        let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
        if !heads || !answers.is_empty() {
            let (body, rest) = text.split_at_checked(length).unwrap_or_else(|| panic!("half a body: {text:?}"));
            answer.body = body.to_owned();
            text = rest;
        }
        answers.push(answer);
    }
    answers
}

async fn run(rows: Vec<Row>, least: usize) {
    assert!(rows.len() >= least, "only {} rows", rows.len());
    let (gateway, mock) = start().await;
    let ids = ids("wethod", rows.len());
    for text in &ids {
        mock.seed(&id(text), false);
    }
    let exchanges = rows.iter().zip(&ids).map(|(row, id)| {
        let bytes = filled(&format!("{}{PROBE}", row.bytes), &gateway, id);
        async move { exchange(gateway.public, &bytes, row.bytes.starts_with("HEAD ")).await }
    });
    let answers = join_all(exchanges).await;
    let wrong: Vec<_> = rows
        .iter()
        .zip(&answers)
        .filter_map(|(row, answers)| {
            let why = check(row, answers).err()?;
            Some(format!("RFC {}: {:?}\n  {why}\n  {answers:?}\n", row.section, row.bytes))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    gateway.stop().await;
    let expected: BTreeSet<_> = rows.iter().zip(&ids).filter(|(row, _)| row.deletes).map(|(_, id)| id).collect();
    let deleted = mock.deleted();
    let deleted: BTreeSet<_> = deleted.iter().map(text).collect();
    let expected: BTreeSet<&str> = expected.into_iter().map(String::as_str).collect();
    assert_eq!(deleted, expected, "deleted at the upstream");
    assert_eq!(mock.journal().len(), expected.len(), "{:?}", mock.journal());
}

/// A native id's text.
pub(crate) fn text(identifier: &Identifier) -> &str {
    match identifier {
        Identifier::Id(text) => text,
        other => panic!("no native id: {other:?}"),
    }
}

fn check(row: &Row, answers: &[Answered]) -> Result<(), String> {
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    let closed = answers.len() == row.statuses.len();
    let usable = row.then == Then::Usable || (row.then == Then::Said && !closed);
    let probe = if usable { &[200][..] } else { &[] };
    let expected = [&row.statuses, probe].concat();
    if statuses != expected {
        return Err(format!("answered {statuses:?} and not {expected:?}"));
    }
    // Whoever keeps connections must be told that this one is not kept.
    let last = answers.last();
    if last.is_some_and(|last| last.header("connection") != Some("close")) && !row.bytes.contains(" HTTP/1.0") {
        return Err("the last answer does not say that the connection is closed".to_owned());
    }
    for answer in &answers[..row.statuses.len()] {
        let needs = match answer.status {
            401 => Some("www-authenticate"),
            405 => Some("allow"),
            _ => None,
        };
        if needs.is_some_and(|name| answer.header(name).is_none()) {
            return Err(format!("{} without {needs:?}", answer.status));
        }
        if answer.header("x-request-id").is_none() || answer.header("date").is_none() {
            return Err("an answer without its id or date".to_owned());
        }
        if answer.status >= 400 && !answer.body.is_empty() {
            let problem: Value = serde_json::from_str(&answer.body).map_err(|err| err.to_string())?;
            if problem["attempted"] != false || answer.header("content-type") != Some("application/problem+json") {
                return Err("not a problem before which nothing was sent".to_owned());
            }
            let code = problem["errors"][0]["code"].as_str().or(problem["code"].as_str());
            if row.code.is_some_and(|expected| code != Some(expected)) {
                return Err(format!("the code is {code:?} and not {:?}", row.code));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn request_lines_are_read_by_the_standard() {
    run(lines::rows(), 60).await;
}

#[tokio::test]
async fn header_lines_are_read_by_the_standard() {
    run(headers::rows(), 60).await;
}

#[tokio::test]
async fn bodies_are_framed_by_the_standard() {
    run(framing::rows(), 60).await;
}

#[tokio::test]
async fn methods_and_media_are_taken_by_the_standard() {
    run(bodies::rows(), 20).await;
}

/// RFC 9110, section 10.1.1: the body is asked for when it is wanted, and not when the answer is known without it.
#[tokio::test]
async fn a_body_is_asked_for_only_if_it_is_wanted() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let head = post("Content-Length: LEN\r\nExpect: 100-continue\r\nConnection: close\r\n", "");
    let mut stream = TcpStream::connect(gateway.public).await.unwrap();
    stream.write_all(filled(&head, &gateway, &id).as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    within("an interim answer", stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(filled("JSON", &gateway, &id).as_bytes()).await.unwrap();
    let mut rest = String::new();
    within("the answer", stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(answers(&rest, false)[0].status, 200, "{rest}");
    assert_eq!(mock.journal().len(), 1);

    let refused = filled(&head, &gateway, &id).replace(&key("acme"), &key("nobody"));
    let mut stream = TcpStream::connect(gateway.public).await.unwrap();
    stream.write_all(refused.as_bytes()).await.unwrap();
    let mut text = String::new();
    within("the answer", stream.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
    gateway.stop().await;
    assert_eq!(mock.journal().len(), 1);
}

/// Health and metrics are asked for by the same rules.
#[tokio::test]
async fn the_admin_listener_reads_as_strictly() {
    let (gateway, _mock) = start().await;
    for (bytes, statuses) in [
        ("GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.0\r\n\r\n", &[200, 200][..]),
        ("GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\nGET /livez HTTP/1.0\r\n\r\n", &[400]),
        ("GET /livez HTTP/1.1\nHost: a\n\nGET /livez HTTP/1.0\r\n\r\n", &[400]),
    ] {
        let answers = exchange(gateway.admin, bytes, false).await;
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), statuses, "{bytes:?}");
    }
    gateway.stop().await;
}

/// What is sent behind a request that is refused does not take the refusal back.
#[tokio::test]
async fn a_refusal_arrives_before_the_connection_ends() {
    let (gateway, mock) = start().await;
    for bytes in [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        post("Content-Length: 100001\r\n", ""),
        post("Transfer-Encoding: chunked\r\n", "no chunk\r\n"),
    ] {
        let bytes = filled(&bytes, &gateway, "1") + &"x".repeat(300_000);
        let answers = exchange(gateway.public, &bytes, false).await;
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!([400, 413].contains(&answers[0].status));
    }
    gateway.stop().await;
    assert!(mock.journal().is_empty());
}
