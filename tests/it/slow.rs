//! Callers who take their time: each has to go, its place is free again, and a bystander is served meanwhile.
//!
//! How long anything takes is not measured; the timeouts are short, and whoever is never sent away fails by a bound
//! that no sound machine reaches. The rules themselves are tested with a clock that stands still, beside them.

use std::time::Duration;

use futures_util::future::join_all;
use onedelete::mock::Mock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Running, Setup, ids, key, mock, send, within};

/// Slow callers at the same time.
const CALLERS: usize = 200;
/// Results of more than 500 bytes each: more than the kernel keeps for a caller who does not read.
const RESULTS: usize = 700;
/// Between two bytes of a slow caller.
const PAUSE: Duration = Duration::from_millis(50);

async fn start() -> (Running, Mock, Mock) {
    let (sales, lists) = (mock("wethod").await, mock("talkdesk").await);
    let gateway = Setup::new()
        // Room for one mode's callers and no more: the next mode's find places only if these were freed.
        .set("server.max_connections_per_address", i64::try_from(CALLERS + 20).unwrap())
        .set("server.header_timeout_ms", 1_500)
        .set("server.idle_timeout_ms", 1_500)
        .set("server.body_timeout_ms", 1_500)
        .set("server.write_timeout_ms", 1_500)
        .mock("acme", "c", &sales, |_| {})
        .mock("acme", "lists", &lists, |_| {})
        .start()
        .await;
    (gateway, sales, lists)
}

/// Sends the bytes, then one now and then, until the other side ends the connection: what it answered.
async fn drip(gateway: &Running, start: String, byte: u8) -> String {
    let mut stream = TcpStream::connect(gateway.public).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let dripping = async {
        let mut ticks = tokio::time::interval(PAUSE);
        loop {
            ticks.tick().await;
            if writer.write_all(&[byte]).await.is_err() {
                // Reading says how it ended.
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        // A reset is an end too.
        _ = reader.read_to_end(&mut answer) => {}
        () = dripping => {}
    }
    String::from_utf8(answer).unwrap()
}

async fn slow_head(gateway: &Running) {
    let head = format!("DELETE /v1/connections/c/contacts/1 HTTP/1.1\r\nHost: {}\r\nX-Y: ", gateway.public);
    assert_eq!(drip(gateway, head, b'z').await, "");
}

async fn slow_body(gateway: &Running) {
    let (host, key) = (gateway.public, key("acme"));
    let head = format!(
        "POST /v1/deletions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    );
    let answer = drip(gateway, head, b' ').await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

/// Asks for a deletion with many results, and reads nothing of it.
async fn slow_reader(gateway: &Running, deletion: &str) {
    let mut stream = deaf(gateway).await;
    let (host, key) = (gateway.public, key("acme"));
    let request =
        format!("GET /v1/deletions/{deletion} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut ticks = tokio::time::interval(PAUSE);
    // Who is gone takes nothing more.
    while stream.write_all(b"\r").await.is_ok() {
        ticks.tick().await;
    }
}

/// Asks once and keeps the connection; every second one does not even ask.
async fn idle(gateway: &Running, n: usize) {
    let mut stream = TcpStream::connect(gateway.public).await.unwrap();
    if n.is_multiple_of(2) {
        let request = format!("GET /docs/problems/overloaded HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.public);
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.starts_with("HTTP/1.1 200 "), n.is_multiple_of(2), "{answer}");
}

/// A connection whose other side soon cannot write any more.
async fn deaf(gateway: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(gateway.public).await.unwrap()
}

/// Serves a bystander until the slow callers are gone, and once more.
async fn beside(gateway: &Running, what: &str, slow: impl Future<Output = Vec<()>>) {
    let mut slow = std::pin::pin!(within(what, slow));
    loop {
        let id = ids("wethod", 1).remove(0);
        // A connection of its own each time: one that is kept could be closed as idle while this process has no time.
        let request = gateway.client.delete(gateway.url(&format!("/v1/connections/c/contacts/{id}")));
        let request = request.header("connection", "close").bearer_auth(key("acme"));
        let mut answer = std::pin::pin!(within("a bystander's answer", request.send()));
        tokio::select! {
            answer = &mut answer => assert_eq!(answer.map(|answer| answer.status().as_u16()).ok(), Some(200), "{what}"),
            _ = &mut slow => {
                assert_eq!(answer.await.map(|answer| answer.status().as_u16()).ok(), Some(200), "{what}, at the end");
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_callers_have_to_go_and_a_bystander_is_served() {
    let (gateway, _sales, _lists) = start().await;
    let long = "\u{1f40c}".repeat(128);
    let contacts: Vec<_> = ids("talkdesk", RESULTS).iter().map(|id| json!({ "id": id, "ref": long })).collect();
    let deletion = gateway.post_async("acme", &json!({ "connection": "lists", "contacts": contacts })).await;
    gateway.finished("acme", &deletion).await;
    beside(&gateway, "slow heads", join_all((0..CALLERS).map(|_| slow_head(&gateway)))).await;
    beside(&gateway, "slow bodies", join_all((0..CALLERS).map(|_| slow_body(&gateway)))).await;
    beside(&gateway, "slow readers", join_all((0..CALLERS).map(|_| slow_reader(&gateway, &deletion)))).await;
    beside(&gateway, "idle connections", join_all((0..CALLERS).map(|n| idle(&gateway, n)))).await;
    beside(&gateway, "slow heads again", join_all((0..CALLERS).map(|_| slow_head(&gateway)))).await;
    gateway.stop().await;
}

/// A request that waits for its own body is not under way: so the places for requests cannot be filled by sending slowly.
#[tokio::test]
async fn who_sends_slowly_takes_no_place_from_others() {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .set("server.max_requests_in_flight", 8)
        .set("server.body_timeout_ms", 60_000)
        .set("server.min_body_bytes_per_s", 0)
        .mock("acme", "c", &mock, |_| {})
        .start()
        .await;
    let (host, key_of) = (gateway.public, key("acme"));
    let mut slow = Vec::new();
    for n in 0..20 {
        let mut stream = TcpStream::connect(host).await.unwrap();
        let head = format!(
            "POST /v1/deletions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key_of}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // It is said when somebody waits for the body.
        let mut answer = [0; 25];
        within("leave to send a body", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n", "connection {n}");
        slow.push(stream);
    }
    let id = ids("wethod", 1).remove(0);
    let request = gateway.client.delete(gateway.url(&format!("/v1/connections/c/contacts/{id}")));
    assert_eq!(send(request.bearer_auth(key("acme"))).await.status, 200);
    drop(slow);
    gateway.stop().await;
}

#[tokio::test]
async fn a_pause_between_requests_may_be_longer_than_a_head() {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .set("server.header_timeout_ms", 100)
        .set("server.idle_timeout_ms", 60_000)
        .mock("acme", "c", &mock, |_| {})
        .start()
        .await;
    let request = format!("GET /docs/problems/overloaded HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.public);
    let mut kept = TcpStream::connect(gateway.public).await.unwrap();
    let mut silent = TcpStream::connect(gateway.public).await.unwrap();
    let mut buffer = [0; 1_024];
    kept.write_all(request.as_bytes()).await.unwrap();
    assert!(within("an answer", kept.read(&mut buffer)).await.unwrap() > 0);
    // Whoever never asked is gone after the time for a head; whoever did is still there.
    assert_eq!(within("the end of a silent connection", silent.read(&mut buffer)).await.unwrap(), 0);
    kept.write_all(&request.as_bytes()[..10]).await.unwrap();
    assert_eq!(within("the end of half a head", kept.read(&mut buffer)).await.unwrap_or(0), 0);
    let mut kept = TcpStream::connect(gateway.public).await.unwrap();
    for _ in 0..3 {
        kept.write_all(request.as_bytes()).await.unwrap();
        assert!(within("an answer", kept.read(&mut buffer)).await.unwrap() > 0);
        let mut silent = TcpStream::connect(gateway.public).await.unwrap();
        assert_eq!(within("the end of a silent connection", silent.read(&mut buffer)).await.unwrap(), 0);
    }
    gateway.stop().await;
}

/// An answer that is written as a stream has a place among few, and whoever does not read it loses it.
#[tokio::test]
async fn a_stream_that_nobody_reads_is_cut_off_and_its_place_freed() {
    let mock = mock("talkdesk").await;
    let gateway = Setup::new()
        .set("server.write_timeout_ms", 300)
        // Two places for streamed answers, and so one for a tenant.
        .set("server.max_requests_in_flight", 16)
        .mock("acme", "c", &mock, |_| {})
        .start()
        .await;
    let deletion = gateway.post_async("acme", &json!({ "contacts": ids("talkdesk", 10_000) })).await;
    gateway.finished("acme", &deletion).await;
    let path = format!("/v1/deletions/{deletion}/results");
    let look = || send(gateway.client.get(gateway.url(&path)).bearer_auth(key("acme")));
    assert_eq!(look().await.text.lines().count(), 10_000);

    let mut reader = deaf(&gateway).await;
    let (host, key) = (gateway.public, key("acme"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n");
    reader.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    within("the head of a stream", reader.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    look().await.is_problem(503, "overloaded", "while the stream is open");
    let freed = async { while look().await.status != 200 {} };
    within("a place", freed).await;
    // What the kernel had is there, and then no end in order.
    let mut rest = Vec::new();
    let _ = within("the end of a stream", reader.read_to_end(&mut rest)).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it was sent whole: {} bytes", rest.len());
    gateway.stop().await;
}

/// Asks for a deletion and reads nothing of the answer but its first byte.
async fn begun(gateway: &Running, tenant: &str, deletion: &str) -> TcpStream {
    let mut stream = deaf(gateway).await;
    let (host, key) = (gateway.public, key(tenant));
    let request = format!(
        "GET /v1/deletions/{deletion} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    within("an answer's begin", stream.peek(&mut [0])).await.unwrap();
    stream
}

/// Answers that nobody reads are held in memory: so many bytes of them, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_read_fills_no_memory() {
    let lists = mock("talkdesk").await;
    let gateway = Setup::new()
        // Room for three of the large answers below, and for one of a tenant's.
        .set("server.max_held_answer_bytes", 1_200_000)
        .mock("acme", "lists", &lists, |_| {})
        .mock("other", "lists", &lists, |_| {})
        .start()
        .await;
    let long = "\u{1f40c}".repeat(128);
    let request = |count: usize| {
        let contacts: Vec<_> = ids("talkdesk", count).iter().map(|id| json!({ "id": id, "ref": long })).collect();
        json!({ "connection": "lists", "contacts": contacts })
    };
    let mut large = Vec::new();
    for tenant in ["acme", "other"] {
        let deletion = gateway.post_async(tenant, &request(RESULTS)).await;
        gateway.finished(tenant, &deletion).await;
        large.push(deletion);
    }
    let small = gateway.post_async("acme", &request(3)).await;
    gateway.finished("acme", &small).await;

    let mut unread = begun(&gateway, "acme", &large[0]).await;
    let refused = gateway.get("acme", &format!("/v1/deletions/{}", large[0])).await;
    refused.is_problem(503, "overloaded", "another of one tenant");
    assert!(refused.headers.contains_key("retry-after"));
    let asked = gateway.get("acme", &format!("/v1/deletions/{small}")).await;
    assert_eq!((asked.status, asked.json["results"].as_array().map(Vec::len)), (200, Some(3)), "a small one");
    let asked = gateway.get("other", &format!("/v1/deletions/{}", large[1])).await;
    assert_eq!((asked.status, asked.json["results"].as_array().map(Vec::len)), (200, Some(RESULTS)), "another tenant");
    // What is accepted is carried out and answered, without results.
    let answer = gateway.post("acme", &request(RESULTS)).await;
    let id = answer.json["id"].as_str().unwrap();
    assert_eq!((answer.json["state"].as_str(), &answer.json["results"]), (Some("finished"), &serde_json::Value::Null));
    assert_eq!(answer.json["results_url"], format!("/v1/deletions/{id}/results"));
    assert_eq!(answer.json["counts"]["requested"], RESULTS);
    let mut planned = request(RESULTS);
    planned["dry_run"] = true.into();
    gateway.post("acme", &planned).await.is_problem(503, "overloaded", "a dry run");

    // Once it is read, or its reader is gone, there is room again.
    let mut answer = Vec::new();
    within("the whole answer", unread.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.len() > RESULTS * 500, "{} bytes", answer.len());
    drop(begun(&gateway, "acme", &large[0]).await);
    let again = async { while gateway.get("acme", &format!("/v1/deletions/{}", large[0])).await.status != 200 {} };
    within("room for an answer", again).await;
    gateway.stop().await;
}
