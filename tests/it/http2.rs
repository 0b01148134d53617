//! HTTP/2: the same rules as over HTTP/1, and whoever floods the gateway or reads nothing has to go.
//!
//! Attacks are frames made by hand, without TLS around them. Timeouts are long where a count must end a connection, so
//! that nothing else does.

use bytes::Bytes;
use onedelete::mock::Mock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, Setup, ids, key, mock, send, within};
use crate::tls::{Authority, caller, connect, with_tls};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection on which frames go as they are made.
struct Raw(TcpStream);

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Ok,
    BadRequest,
    NotFound,
    Other,
    Reset,
    Closed,
}

fn frame(kind: u8, flags: u8, stream: u32, inside: &[u8]) -> Vec<u8> {
    let length = u32::try_from(inside.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), inside].concat()
}

/// Header lines, none of which is to be remembered (RFC 7541, section 6.2.2).
fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| match u8::try_from(text.len()).unwrap() {
        length @ ..=126 => [&[length], text.as_bytes()].concat(),
        length => [&[127, length - 127], text.as_bytes()].concat(),
    };
    lines.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/docs/problems/overloaded")];

impl Raw {
    /// With these settings of the caller's.
    async fn connect(gateway: &Running, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(gateway.public).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
        Self(stream)
    }

    async fn send(&mut self, bytes: &[u8]) {
        // Who was hung up on learns it by reading.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame; none, once the other side has ended the connection.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut inside = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        self.0.read_exact(&mut inside).await.ok()?;
        Some((kind, u32::from_be_bytes(stream), inside))
    }

    async fn end_of(&mut self, stream: u32) -> End {
        loop {
            match within("a frame", self.next()).await {
                None | Some((GOAWAY, ..)) => return End::Closed,
                Some((RST_STREAM, of, _)) if of == stream => return End::Reset,
                Some((HEADERS, of, block)) if of == stream => {
                    // Behind changes of the table's size comes the status (RFC 7541, appendix A).
                    let first = block.iter().find(|byte| **byte & 0xe0 != 0x20);
                    return match first {
                        Some(0x88) => End::Ok,
                        Some(0x8c) => End::BadRequest,
                        Some(0x8d) => End::NotFound,
                        _ => End::Other,
                    };
                }
                _ => {}
            }
        }
    }

    /// Reads until the other side ends the connection.
    async fn is_hung_up(&mut self, what: &str) {
        within(what, async { while self.next().await.is_some() {} }).await;
    }
}

async fn start(change: impl FnOnce(Setup) -> Setup) -> (Running, Mock) {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("server.http2_plain", true);
    (change(setup).mock("acme", "c", &mock, |_| {}).start().await, mock)
}

/// Timeouts that nothing here waits for.
fn patient(setup: Setup) -> Setup {
    let timeouts = ["server.header_timeout_ms", "server.idle_timeout_ms", "server.write_timeout_ms"];
    timeouts.into_iter().fold(setup, |setup, timeout| setup.set(timeout, 60_000)).set("server.body_timeout_ms", 60_000)
}

#[tokio::test]
async fn requests_go_side_by_side_where_it_was_agreed_on_in_the_handshake() {
    let (authority, mock) = (Authority::new(), mock("wethod").await);
    let setup = with_tls(&authority.server()).set("server.http2", true).mock("acme", "c", &mock, |_| {});
    let gateway = setup.start().await;
    let connector = caller(&authority, None, &[&rustls::version::TLS13], &["h2"]);
    let stream = connect(&gateway, &connector).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let ids = ids("wethod", 20);
    let ask = |id: &String| {
        let (mut requests, uri) = (requests.clone(), format!("https://a/v1/connections/c/contacts/{id}"));
        async move {
            let request = http::Request::delete(uri).header("authorization", format!("Bearer {}", key("acme")));
            let (answer, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
            let mut answer = answer.await.unwrap();
            let mut text = Vec::new();
            while let Some(piece) = answer.body_mut().data().await {
                let piece: Bytes = piece.unwrap();
                answer.body_mut().flow_control().release_capacity(piece.len()).unwrap();
                text.extend_from_slice(&piece);
            }
            let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(text["outcome"], "not_found", "{text}");
            assert_eq!(answer.headers().get("connection"), None);
            answer.status().as_u16()
        }
    };
    let all = futures_util::future::join_all(ids.iter().map(ask));
    tokio::select! {
        statuses = within("the answers", all) => assert_eq!(statuses, vec![200; 20]),
        ended = connection => panic!("{ended:?}"),
    }
    // Whoever does not ask for it gets HTTP/1.
    let stream = connect(&gateway, &caller(&authority, None, &[&rustls::version::TLS13], &[])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    gateway.stop().await;
}

#[tokio::test]
async fn without_the_setting_there_is_no_http2() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().set("server.http2", true).mock("acme", "c", &mock, |_| {}).start().await;
    let mut raw = Raw::connect(&gateway, &[]).await;
    let mut answer = Vec::new();
    let _ = within("a refusal", raw.0.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    gateway.stop().await;
    // With it, HTTP/1 is spoken as before.
    let (gateway, _mock) = start(|setup| setup).await;
    assert_eq!(send(gateway.client.get(gateway.url("/docs/problems/overloaded"))).await.status, 200);
    assert_eq!(crate::support::raw(gateway.public, "PRI * HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 400);
    gateway.stop().await;
}

/// What is wrong, the head, the body, and how it may end besides the end of the connection.
type Case<'a> = (&'a str, Vec<u8>, &'a [u8], &'a [End]);

#[tokio::test]
async fn what_is_refused_over_http1_is_refused_over_http2() {
    let (gateway, mock) = start(patient).await;
    let path = format!("/v1/connections/c/contacts/{}", ids("wethod", 1).remove(0));
    let bearer = format!("Bearer {}", key("acme"));
    let sound = [(":method", "DELETE"), (":scheme", "http"), (":authority", "a"), (":path", &path)];
    let sound = [&sound[..], &[("authorization", &bearer)]].concat();
    let with = |more: &[(&'static str, &'static str)]| block(&[&sound[..], more].concat());
    let but = |name: &str, value: Option<&str>| {
        let lines = sound.iter().filter_map(|line| if line.0 == name { Some((line.0, value?)) } else { Some(*line) });
        block(&lines.collect::<Vec<_>>())
    };
    let cases: [Case<'_>; 21] = [
        ("another host", with(&[("host", "b")]), b"", &[End::BadRequest]),
        ("two hosts", with(&[("host", "a"), ("host", "a")]), b"", &[End::BadRequest]),
        ("no host", but(":authority", None), b"", &[End::BadRequest, End::Reset]),
        ("a user", but(":authority", Some("u@a")), b"", &[End::BadRequest, End::Reset]),
        ("CONNECT", but(":method", Some("CONNECT")), b"", &[End::BadRequest, End::Reset]),
        ("OPTIONS *", but(":path", Some("*")), b"", &[End::BadRequest, End::Reset]),
        ("half an escape", but(":path", Some("/v1/connections/c/contacts/%3")), b"", &[End::BadRequest, End::Reset]),
        ("no path", but(":path", None), b"", &[End::Reset]),
        ("an empty path", but(":path", Some("")), b"", &[End::Reset]),
        ("two paths", with(&[(":path", "/")]), b"", &[End::Reset]),
        ("a connection header", with(&[("connection", "close")]), b"", &[End::Reset]),
        ("chunks", with(&[("transfer-encoding", "chunked")]), b"", &[End::Reset]),
        ("an upgrade", with(&[("upgrade", "h2c")]), b"", &[End::Reset]),
        ("te", with(&[("te", "gzip")]), b"", &[End::Reset]),
        ("an upper-case name", with(&[("X-Y", "z")]), b"", &[End::Reset]),
        ("a blank before a value", with(&[("x-y", " z")]), b"", &[End::BadRequest]),
        ("a line end in a value", with(&[("x-y", "z\r\nhost: b")]), b"", &[End::Reset]),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "0")]), b"", &[End::BadRequest, End::Reset]),
        ("a signed length", with(&[("content-length", "+0")]), b"", &[End::BadRequest, End::Reset]),
        ("a longer body than it says", with(&[("content-length", "1")]), b"ab", &[End::Reset, End::BadRequest]),
        ("an expectation", with(&[("expect", "a miracle")]), b"", &[End::BadRequest]),
    ];
    for (what, lines, body, ends) in cases {
        let mut raw = Raw::connect(&gateway, &[]).await;
        if body.is_empty() {
            raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &lines)).await;
        } else {
            raw.send(&frame(HEADERS, END_HEADERS, 1, &lines)).await;
            raw.send(&frame(DATA, END_STREAM, 1, body)).await;
        }
        let end = raw.end_of(1).await;
        assert!(ends.contains(&end) || end == End::Closed, "{what}: {end:?}");
        assert!(mock.journal().is_empty(), "{what}");
    }
    let mut raw = Raw::connect(&gateway, &[]).await;
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &with(&[]))).await;
    assert_eq!(raw.end_of(1).await, End::Ok);
    assert_eq!(mock.journal().len(), 1);
    let lines = [&GET[..3], &[(":path", "/docs/problems/none")]].concat();
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&lines))).await;
    assert_eq!(raw.end_of(3).await, End::NotFound);
    gateway.stop().await;
}

/// What an attacker sends first, and then again and again; the number counts up from 0.
type Attack = (&'static str, Vec<u8>, Box<dyn Fn(u32) -> Vec<u8> + Send>);

fn attacks() -> Vec<Attack> {
    let get = || block(&GET);
    let open = frame(HEADERS, END_HEADERS, 1, &block(&[&[(":method", "POST")], &GET[1..]].concat()));
    let bomb = {
        // A line of 3,000 bytes is remembered once, and then named by one byte each time.
        let value = "b".repeat(3_000);
        let long =
            [&[0x40, 1, b'a', 127][..], &[(2_873u32 % 128) as u8 | 128, (2_873u32 / 128) as u8], value.as_bytes()];
        [get(), long.concat(), vec![0xbe; 10_000]].concat()
    };
    vec![
        (
            "requests that are taken back",
            Vec::new(),
            Box::new(move |n| {
                let of = 2 * n + 1;
                [frame(HEADERS, END_HEADERS | END_STREAM, of, &get()), frame(RST_STREAM, 0, of, &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            "heads without an end",
            frame(HEADERS, 0, 1, &block(&GET)),
            Box::new(|_| frame(CONTINUATION, 0, 1, &block(&[("a", "b")]))),
        ),
        ("empty heads without an end", frame(HEADERS, 0, 1, &[]), Box::new(|_| frame(CONTINUATION, 0, 1, &[]))),
        ("bodies of nothing", open.clone(), Box::new(|_| frame(DATA, 0, 1, &[]))),
        ("bodies of padding", open, Box::new(|_| frame(DATA, 8, 1, &[3, 0, 0, 0]))),
        ("pings", Vec::new(), Box::new(|n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()))),
        ("settings", Vec::new(), Box::new(|_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("priorities", Vec::new(), Box::new(|n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1]))),
        ("windows", Vec::new(), Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("frames of no known kind", Vec::new(), Box::new(|_| frame(0xbb, 0, 0, b"x"))),
        (
            "requests that are malformed",
            Vec::new(),
            Box::new(|n| {
                let lines = [&GET[..], &[("connection", "close")]].concat();
                frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&lines))
            }),
        ),
        (
            "heads that unfold",
            Vec::new(),
            Box::new(move |n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &bomb)),
        ),
    ]
}

/// Sends until nobody takes it any more. Fails if somebody always does.
async fn flood(gateway: &Running, what: &str, first: &[u8], again: &(dyn Fn(u32) -> Vec<u8> + Send)) -> u32 {
    let Raw(mut stream) = Raw::connect(gateway, &[]).await;
    let (mut reader, mut writer) = stream.split();
    let mut rounds = 0;
    let sending = async {
        let _ = writer.write_all(first).await;
        while rounds < 200_000 && writer.write_all(&again(rounds)).await.is_ok() {
            rounds += 1;
        }
        if rounds < 200_000 {
            std::future::pending::<()>().await;
        }
    };
    let reading = async {
        let mut piece = [0; 8_192];
        while reader.read(&mut piece).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = within(what, reading) => {}
        () = sending => panic!("{what}: everything was taken"),
    }
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_hung_up_and_a_bystander_is_served() {
    let (gateway, _mock) = start(patient).await;
    for (what, first, again) in attacks() {
        let mut flood = std::pin::pin!(flood(&gateway, what, &first, &again));
        loop {
            let bystander = async {
                let mut raw = Raw::connect(&gateway, &[]).await;
                raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET))).await;
                assert_eq!(raw.end_of(1).await, End::Ok, "{what}");
            };
            let mut bystander = std::pin::pin!(bystander);
            tokio::select! {
                () = &mut bystander => {}
                _ = &mut flood => {
                    bystander.await;
                    break;
                }
            }
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_caller_who_pings_now_and_then_and_asks_a_lot_is_no_attacker() {
    let (gateway, _mock) = start(patient).await;
    let mut raw = Raw::connect(&gateway, &[]).await;
    for n in 0..200 {
        raw.send(&frame(PING, 0, 0, &[0; 8])).await;
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&GET))).await;
        assert_eq!(raw.end_of(2 * n + 1).await, End::Ok, "{n}");
        // As much as was read, for the connection.
        raw.send(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 4, 0])).await;
    }
    gateway.stop().await;
}

/// A window of nothing: what is answered stays with the gateway.
const SHUT: [u8; 6] = [0, 4, 0, 0, 0, 0];

#[tokio::test]
async fn whoever_takes_nothing_of_an_answer_has_to_go() {
    let mock = mock("talkdesk").await;
    let setup = patient(Setup::new().set("server.http2_plain", true)).set("server.write_timeout_ms", 300);
    let gateway = setup.mock("acme", "c", &mock, |_| {}).start().await;
    let deletion = gateway.post_async("acme", &json!({ "contacts": ids("talkdesk", 2_000) })).await;
    gateway.finished("acme", &deletion).await;
    let (path, bearer) = (format!("/v1/deletions/{deletion}/results"), format!("Bearer {}", key("acme")));
    let results = [&GET[..3], &[(":path", &path), ("authorization", &bearer)]].concat();
    let mut raw = Raw::connect(&gateway, &SHUT).await;
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&results))).await;
    assert_eq!(raw.end_of(1).await, End::Ok);
    raw.is_hung_up("an answer that is not read").await;
    gateway.stop().await;

    // A short answer is out of the gateway's hands at once, and then the connection is idle.
    let (gateway, _mock) = start(|setup| patient(setup).set("server.idle_timeout_ms", 300)).await;
    let mut raw = Raw::connect(&gateway, &SHUT).await;
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET))).await;
    assert_eq!(raw.end_of(1).await, End::Ok);
    raw.is_hung_up("a short answer that is not read").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_head_and_the_first_request_have_their_time() {
    let (gateway, _mock) = start(|setup| patient(setup).set("server.header_timeout_ms", 300)).await;
    let mut silent = Raw::connect(&gateway, &[]).await;
    silent.is_hung_up("a connection without a request").await;
    let mut half = Raw::connect(&gateway, &[]).await;
    half.send(&frame(HEADERS, 0, 1, &block(&GET))).await;
    half.is_hung_up("half a head").await;
    let mut stream = TcpStream::connect(gateway.public).await.unwrap();
    stream.write_all(b"PRI * HT").await.unwrap();
    let mut rest = Vec::new();
    let _ = within("half a beginning", stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
    gateway.stop().await;
}
