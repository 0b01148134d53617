//! The practical limit: a translator on hyper, made for these two requests by hand. `limit PORT UPSTREAM SLOW_UPSTREAM`, the
//! last two as addresses.
//!
//! One thread, no task for an upstream's connection: who asks drives it. Ids are found by a scan that copies nothing, and
//! serde is for what the scan does not know. It keeps no books, checks no key, counts nothing, and believes its upstream.

#![allow(clippy::unwrap_used, reason = "a peer of the comparison, not a part of the product")]

use std::cell::RefCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use memchr::{memchr, memmem};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as the gateway's: what goes over the wire is alike.
const CREDENTIAL: &str = "eyJhbGciOiJIUzI1NiJ9.e30.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BULK: &str = "/agentassist/api/v1/public/st-1/contacts/bulk-delete";
const AT_ONCE: usize = 64;
/// What the callers of the comparison send; another text is read by serde.
const BEGIN: &[u8] = b"{\"connection\":\"support\",\"ids\":";

type Outgoing = Full<Bytes>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().unwrap().parse().unwrap();
    let mut upstream = || Upstream { address: arguments.next().unwrap().parse().unwrap(), idle: RefCell::default() };
    let upstreams = Rc::new((upstream(), upstream()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let upstreams = Rc::clone(&upstreams);
            tokio::task::spawn_local(async move {
                let service = hyper::service::service_fn(|request| {
                    let upstreams = Rc::clone(&upstreams);
                    async move { Ok::<_, Infallible>(answer(request, &upstreams).await) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.header_read_timeout(None).max_buf_size(1 << 20);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn answer(request: Request<Incoming>, (fast, slow): &(Upstream, Upstream)) -> Response<Outgoing> {
    let translated = async {
        let asked = read(request.into_body()).await?;
        match asked.strip_prefix(BEGIN).and_then(scan_ids) {
            Some((ids, end)) => {
                let mut body = Vec::with_capacity(end + 8);
                body.extend_from_slice(b"{\"ids\":");
                body.extend_from_slice(&asked[BEGIN.len()..BEGIN.len() + end]);
                body.push(b'}');
                delete_all(fast, body, "support", &ids).await
            }
            None => {
                let asked: Asked = serde_json::from_slice(&asked).ok()?;
                let ids: Vec<_> = asked.ids.iter().map(String::as_str).collect();
                if asked.connection == "support" {
                    let body = serde_json::to_vec(&serde_json::json!({ "ids": ids })).ok()?;
                    delete_all(fast, body, "support", &ids).await
                } else {
                    delete_each(slow, &asked.connection, &ids).await
                }
            }
        }
    };
    match translated.await {
        Some(body) => {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        None => {
            let mut response = Response::new(Outgoing::default());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

#[derive(serde::Deserialize)]
struct Asked {
    connection: String,
    ids: Vec<String>,
}

async fn delete_all(upstream: &Upstream, body: Vec<u8>, connection: &str, ids: &[&str]) -> Option<Vec<u8>> {
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::DELETE;
    *request.uri_mut() = Uri::from_static(BULK);
    let headers = request.headers_mut();
    headers.reserve(5);
    headers.insert(HOST, HeaderValue::from_static("127.0.0.1"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("accountid"), HeaderValue::from_static("acc-1"));
    headers.insert(HeaderName::from_static("auth"), HeaderValue::from_static(CREDENTIAL));
    let (status, reply) = upstream.send(request).await?;
    if status != StatusCode::OK {
        return None;
    }
    let records = memmem::find(&reply, b"\"successfulRecords\":")? + b"\"successfulRecords\":".len();
    let deleted = scan_records(&reply[records..])?;
    // Upstreams keep the order: a set is made when one does not.
    let (mut next, mut set) = (0, None);
    Some(render(connection, ids, |_, id| {
        if set.is_none() && deleted.get(next) == Some(&id) {
            next += 1;
            return true;
        }
        set.get_or_insert_with(|| deleted.iter().copied().collect::<HashSet<_>>()).contains(id)
    }))
}

async fn delete_each(upstream: &Upstream, connection: &str, ids: &[&str]) -> Option<Vec<u8>> {
    let mut deleted = vec![false; ids.len()];
    let mut calls = futures_util::stream::iter(ids.iter().enumerate().map(|(index, id)| async move {
        let mut request = Request::new(Outgoing::default());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = format!("/api/contact/{id}").parse().ok()?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static(CREDENTIAL));
        let (status, _) = upstream.send(request).await?;
        Some((index, status == StatusCode::OK))
    }))
    .buffer_unordered(AT_ONCE);
    while let Some(call) = calls.next().await {
        let (index, good) = call?;
        deleted[index] = good;
    }
    Some(render(connection, ids, |index, _| deleted[index]))
}

/// The answer, in the order of the request.
fn render(connection: &str, ids: &[&str], mut deleted: impl FnMut(usize, &str) -> bool) -> Vec<u8> {
    // The head's numbers are known last: it goes into the room that is left for it.
    const ROOM: usize = 160;
    let mut out = vec![0; ROOM];
    out.reserve(ids.len() * 56);
    let mut count = 0;
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(id.as_bytes());
        let good = deleted(index, id);
        count += usize::from(good);
        out.extend_from_slice(if good { b"\",\"status\":\"deleted\"}" as &[u8] } else { b"\",\"status\":\"failed\"}" });
    }
    out.extend_from_slice(b"]}");
    let mut head = Vec::with_capacity(ROOM);
    let (asked, failed) = (ids.len(), ids.len() - count);
    let numbers = format_args!("\"requested\":{asked},\"deleted\":{count},\"failed\":{failed}");
    let _ = write!(head, "{{\"connection\":\"{connection}\",{numbers},\"results\":[");
    head.truncate(ROOM);
    out[ROOM - head.len()..ROOM].copy_from_slice(&head);
    out.drain(..ROOM - head.len());
    out
}

/// `["a","b"]`: its texts, borrowed, and where it ends. Anything else, and every escape, is somebody else's to read.
fn scan_ids(text: &[u8]) -> Option<(Vec<&str>, usize)> {
    let mut ids = Vec::with_capacity(text.len() / 27);
    let mut at = 1;
    text.starts_with(b"[").then_some(())?;
    loop {
        let (id, end) = scan_text(text, at)?;
        ids.push(id);
        match text.get(end)? {
            b',' => at = end + 1,
            b']' => return Some((ids, end + 1)),
            _ => return None,
        }
    }
}

/// `[{"id":"a"},{"id":"b"}]`, and nothing else.
fn scan_records(text: &[u8]) -> Option<Vec<&str>> {
    let mut ids = Vec::with_capacity(text.len() / 33);
    if text.starts_with(b"[]") {
        return Some(ids);
    }
    let mut at = 1;
    loop {
        text.get(at..)?.starts_with(b"{\"id\":").then_some(())?;
        let (id, end) = scan_text(text, at + 6)?;
        ids.push(id);
        match text.get(end..end + 2)? {
            b"}," => at = end + 2,
            b"}]" => return Some(ids),
            _ => return None,
        }
    }
}

fn scan_text(text: &[u8], at: usize) -> Option<(&str, usize)> {
    (text.get(at) == Some(&b'"')).then_some(())?;
    let length = memchr(b'"', &text[at + 1..])?;
    let inner = &text[at + 1..at + 1 + length];
    let odd = inner.iter().fold(false, |odd, byte| odd | (*byte < b' ') | (*byte == b'\\'));
    (!odd).then_some(())?;
    Some((std::str::from_utf8(inner).ok()?, at + length + 2))
}

struct Upstream {
    address: SocketAddr,
    idle: RefCell<Vec<Kept>>,
}

/// A connection, and what moves its bytes: polled by whoever uses it.
struct Kept {
    sender: SendRequest<Outgoing>,
    driver: Pin<Box<Connection<TokioIo<TcpStream>, Outgoing>>>,
}

impl Upstream {
    async fn send(&self, request: Request<Outgoing>) -> Option<(StatusCode, Bytes)> {
        let idle = self.idle.borrow_mut().pop();
        let mut kept = match idle {
            Some(kept) => kept,
            None => {
                let stream = TcpStream::connect(self.address).await.ok()?;
                stream.set_nodelay(true).ok()?;
                let (sender, driver) =
                    Builder::new().max_buf_size(1 << 20).handshake(TokioIo::new(stream)).await.ok()?;
                Kept { sender, driver: Box::pin(driver) }
            }
        };
        let told = kept.exchange(request).await?;
        self.idle.borrow_mut().push(kept);
        Some(told)
    }
}

impl Kept {
    async fn exchange(&mut self, request: Request<Outgoing>) -> Option<(StatusCode, Bytes)> {
        let Self { sender, driver } = self;
        let exchange = async {
            let response = sender.send_request(request).await.ok()?;
            Some((response.status(), read(response.into_body()).await?))
        };
        let mut exchange = pin!(exchange);
        poll_fn(|cx| {
            // The request is handed over, bytes are moved, the answer is taken.
            if let Poll::Ready(told) = exchange.as_mut().poll(cx) {
                return Poll::Ready(told);
            }
            let ended = driver.as_mut().poll(cx).is_ready();
            match exchange.as_mut().poll(cx) {
                Poll::Pending if ended => Poll::Ready(None),
                told => told,
            }
        })
        .await
    }
}

/// A whole body; one that came in one piece is not copied.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let length = body.size_hint().lower().min(16 << 20) as usize;
    let mut first = Bytes::new();
    let mut whole: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(length);
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Some(if whole.is_empty() { first } else { Bytes::from(whole) })
}
