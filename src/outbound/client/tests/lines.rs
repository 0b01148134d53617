//! Which connection a request goes out on, and which is used again. The server is the other end of a pipe in memory, and time is
//! virtual: each thing happens exactly when the test says so.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Context, Waker};

use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance};

use super::*;
use crate::outbound::dial::Dialling;

/// Connects to whoever holds the other end of the channel, and says to which origin.
struct Pipes(Mutex<Vec<Uri>>, mpsc::UnboundedSender<DuplexStream>);

impl Dial for Pipes {
    fn dial<'d>(&'d self, origin: &'d Uri) -> Dialling<'d> {
        self.0.lock().unwrap().push(origin.clone());
        let (near, far) = duplex(1 << 16);
        let made = self.1.send(far).map_err(|_| io::ErrorKind::ConnectionRefused.into());
        Box::pin(std::future::ready(made.map(|()| Box::new(near) as Box<_>)))
    }
}

/// A client, where it went, and who it talks to.
struct World {
    client: Client,
    pipes: Arc<Pipes>,
    come: mpsc::UnboundedReceiver<DuplexStream>,
}

const URL: &str = "http://crm.example/contacts/1";
const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

type Reply = Result<Response<Bytes>, Lost>;

impl World {
    fn new(max_idle: usize) -> Self {
        let (going, come) = mpsc::unbounded_channel();
        let pipes = Arc::new(Pipes(Mutex::default(), going));
        let client = Client::dialled_by(ClientRules { max_idle, ..rules(false) }, Arc::clone(&pipes) as Arc<dyn Dial>);
        Self { client, pipes, come }
    }

    fn dialled(&self) -> usize {
        self.pipes.0.lock().unwrap().len()
    }

    /// One call on a new connection, which is answered so.
    async fn first(&mut self, answer: &str) -> (Reply, DuplexStream) {
        let call = delete(&self.client, URL);
        let serve = async {
            let mut far = self.come.recv().await.unwrap();
            assert!(heard(&mut far).await.is_some());
            far.write_all(answer.as_bytes()).await.unwrap();
            far
        };
        tokio::join!(call, serve)
    }

    /// One call on a connection that is there, which is answered so.
    async fn next(&mut self, far: &mut DuplexStream, answer: &str) -> Reply {
        let before = self.dialled();
        let serve = async {
            assert!(heard(far).await.is_some(), "nothing came on the connection that was kept");
            far.write_all(answer.as_bytes()).await.unwrap();
        };
        let (reply, ()) = tokio::join!(delete(&self.client, URL), serve);
        assert_eq!(self.dialled(), before);
        reply
    }
}

/// The next request's head; `None` if the connection is closed instead.
async fn heard(far: &mut DuplexStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = far.read_u8().await else {
            assert!(head.is_empty(), "a part of a request came");
            return None;
        };
        head.push(byte);
    }
    Some(String::from_utf8(head).unwrap())
}

fn is_maybe_sent(reply: &Reply, code: FaultCode) -> bool {
    matches!(reply, Err(Lost::MaybeSent(fault)) if fault.code == code)
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_the_latest_first() {
    let mut world = World::new(4);
    let (first, second) = (delete(&world.client, URL), delete(&world.client, URL));
    let serve = async {
        let mut ends = [world.come.recv().await.unwrap(), world.come.recv().await.unwrap()];
        for far in &mut ends {
            assert!(heard(far).await.is_some());
            far.write_all(DONE.as_bytes()).await.unwrap();
            advance(Duration::from_millis(1)).await;
        }
        ends
    };
    let (first, second, [_earlier, mut latest]) = tokio::join!(first, second, serve);
    assert!(first.is_ok() && second.is_ok());
    for _ in 0..3 {
        assert!(world.next(&mut latest, DONE).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_server_closed_or_spoke_on_meanwhile_is_not_used() {
    for unasked in ["", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"] {
        let mut world = World::new(4);
        let (reply, mut first) = world.first(DONE).await;
        assert!(reply.is_ok());
        match unasked {
            "" => first.shutdown().await.unwrap(),
            _ => first.write_all(unasked.as_bytes()).await.unwrap(),
        }
        let (reply, mut second) = world.first(DONE).await;
        assert_eq!(reply.unwrap().status(), 204);
        assert_eq!(heard(&mut first).await, None);
        assert!(world.next(&mut second, DONE).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_in_doubt_and_what_was_not_is_not_sent() {
    // Closed when the request has come, on a new connection and on a kept one.
    for kept in [false, true] {
        let mut world = World::new(4);
        let mut far = None;
        if kept {
            far = Some(world.first(DONE).await.1);
        }
        let call = delete(&world.client, URL);
        let serve = async {
            let mut far = match far {
                Some(far) => far,
                None => world.come.recv().await.unwrap(),
            };
            assert!(heard(&mut far).await.is_some());
        };
        let (reply, ()) = tokio::join!(call, serve);
        assert!(is_maybe_sent(&reply, FaultCode::ConnectionLost), "{reply:?}");
        assert_eq!(world.dialled(), 1, "it is not sent twice");
    }
    // Closed before a byte of it, and there is no other connection.
    let mut world = World::new(4);
    drop(world.first(DONE).await.1);
    world.come.close();
    let reply = delete(&world.client, URL).await;
    assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{reply:?}");
    assert!(matches!(reply, Err(Lost::NotSent { again: true, .. })));
    // A new connection that is closed at once.
    struct Closed;
    impl Dial for Closed {
        fn dial<'d>(&'d self, _: &'d Uri) -> Dialling<'d> {
            Box::pin(std::future::ready(Ok(Box::new(duplex(1_000).0) as Box<_>)))
        }
    }
    let reply = delete(&Client::dialled_by(rules(false), Arc::new(Closed)), URL).await;
    assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_its_time_and_no_longer() {
    let mut world = World::new(4);
    let (_, mut far) = world.first(DONE).await;
    advance(Duration::from_millis(3_999)).await;
    world.client.close_idle();
    assert!(world.client.has_idle());
    assert!(world.next(&mut far, DONE).await.is_ok());
    advance(Duration::from_millis(4_000)).await;
    assert!(world.client.has_idle());
    world.client.close_idle();
    assert!(!world.client.has_idle());
    assert_eq!(heard(&mut far).await, None);
    // Nor is it used where nobody closed it.
    let (_, mut far) = world.first(DONE).await;
    advance(Duration::from_millis(4_000)).await;
    let (reply, _) = world.first(DONE).await;
    assert!(reply.is_ok());
    assert_eq!(heard(&mut far).await, None);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_kept_and_no_more() {
    for (max_idle, kept) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)] {
        let mut world = World::new(max_idle);
        let calls = futures_util::future::join_all((0..3).map(|_| delete(&world.client, URL)));
        let serve = async {
            let mut ends = Vec::new();
            for _ in 0..3 {
                let mut far = world.come.recv().await.unwrap();
                assert!(heard(&mut far).await.is_some());
                ends.push(far);
            }
            for far in &mut ends {
                far.write_all(DONE.as_bytes()).await.unwrap();
            }
            ends
        };
        let (replies, mut ends) = tokio::join!(calls, serve);
        assert!(replies.iter().all(Result::is_ok));
        let mut open = 0;
        for far in &mut ends {
            let mut byte = [0];
            let mut reading = std::pin::pin!(far.read(&mut byte));
            open += usize::from(reading.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(open, kept, "of {max_idle}");
        // Whoever gives the client up gives them up.
        world.client.keep_none();
        for far in &mut ends {
            assert_eq!(heard(far).await, None);
        }
        assert!(world.first(DONE).await.0.is_ok() && !world.client.has_idle());
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_reply_that_did_not_end_well_the_connection_is_closed() {
    let many: String = (0..65).map(|n| format!("X-{n}: x\r\n")).collect();
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1_001));
    let two = format!("{DONE}{DONE}");
    for (what, answer, is_read) in [
        ("two replies in one segment", two.as_str(), true),
        ("a byte behind it", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokx", true),
        ("the server is done", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", true),
        ("too long", &long, false),
        ("packed", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", false),
        ("too many headers", &format!("HTTP/1.1 204 No Content\r\n{many}\r\n"), false),
        ("wrong in the middle", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nx\r\n", false),
    ] {
        let mut world = World::new(4);
        let (reply, mut far) = world.first(answer).await;
        match is_read {
            true => assert!(reply.is_ok(), "{what}: {reply:?}"),
            false => assert!(is_maybe_sent(&reply, FaultCode::ResponseUnreadable), "{what}: {reply:?}"),
        }
        assert!(!world.client.has_idle(), "{what}");
        assert_eq!(heard(&mut far).await, None, "{what}");
        assert!(world.first(DONE).await.0.is_ok(), "{what}");
    }
    // Cut off.
    let mut world = World::new(4);
    let call = delete(&world.client, URL);
    let serve = async {
        let mut far = world.come.recv().await.unwrap();
        assert!(heard(&mut far).await.is_some());
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
    };
    let (reply, ()) = tokio::join!(call, serve);
    assert!(is_maybe_sent(&reply, FaultCode::ResponseUnreadable), "{reply:?}");
    assert!(!world.client.has_idle());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_no_longer_closes_the_connection() {
    for told in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"] {
        // Given up by the caller.
        let mut world = World::new(4);
        let mut call = Box::pin(delete(&world.client, URL));
        let serve = async {
            let mut far = world.come.recv().await.unwrap();
            assert!(heard(&mut far).await.is_some());
            far.write_all(told.as_bytes()).await.unwrap();
            far
        };
        let mut far = tokio::select! {
            reply = &mut call => panic!("{reply:?}"),
            far = serve => far,
        };
        // What was told is heard.
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(call);
        assert_eq!(heard(&mut far).await, None, "{told:?}");
        assert!(!world.client.has_idle());

        // Over time.
        let start = Instant::now();
        let (reply, mut far) = world.first(told).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        let Err(Lost::MaybeSent(fault)) = reply else { panic!("{reply:?}") };
        assert_eq!(fault.code, FaultCode::ResponseTimeout);
        assert_eq!(fault.upstream.is_some(), told.contains("\r\n\r\n"), "{told:?}");
        assert_eq!(heard(&mut far).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_is_waited_for_as_long_as_is_said() {
    struct Never;
    impl Dial for Never {
        fn dial<'d>(&'d self, _: &'d Uri) -> Dialling<'d> {
            Box::pin(std::future::pending())
        }
    }
    for (connect_ms, response_ms) in [(2_000, 10_000), (2_000, 1_000)] {
        let start = Instant::now();
        let client = Client::dialled_by(ClientRules { connect_ms, response_ms, ..rules(false) }, Arc::new(Never));
        let reply = delete(&client, URL).await;
        assert_eq!(start.elapsed(), Duration::from_millis(connect_ms.min(response_ms)));
        match connect_ms < response_ms {
            true => assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{reply:?}"),
            false => assert!(is_maybe_sent(&reply, FaultCode::ResponseTimeout), "{reply:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_in_pieces_is_read_whole_and_the_connection_goes_on() {
    let pieces = [
        ["HTTP/1.1 200 OK\r\nContent-Le", "ngth: 5\r\n\r\nhe", "l", "lo"],
        ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", "2\r", "\nlo\r\n0\r\n", "\r\n"],
        ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hell", "o"],
    ];
    let mut world = World::new(4);
    let mut far = world.first(DONE).await.1;
    for pieces in pieces {
        let serve = async {
            assert!(heard(&mut far).await.is_some());
            for piece in pieces {
                far.write_all(piece.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (reply, ()) = tokio::join!(delete(&world.client, URL), serve);
        assert_eq!(reply.unwrap().body(), "hello");
    }
    assert_eq!(world.dialled(), 1);
    // One that ends with its connection.
    let serve = async {
        assert!(heard(&mut far).await.is_some());
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\nhel").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        far.write_all(b"lo").await.unwrap();
        drop(far);
    };
    let (reply, ()) = tokio::join!(delete(&world.client, URL), serve);
    assert_eq!(reply.unwrap().body(), "hello");
    assert!(!world.client.has_idle());
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_for_its_own_origin_alone() {
    let mut world = World::new(8);
    let urls = ["http://a.example/", "https://a.example/", "http://a.example:81/", "http://b.example/"];
    let mut ends = Vec::new();
    for url in urls {
        let (call, serve) = (delete(&world.client, url), async {
            let mut far = world.come.recv().await.unwrap();
            assert!(heard(&mut far).await.is_some());
            far.write_all(DONE.as_bytes()).await.unwrap();
            far
        });
        let (reply, far) = tokio::join!(call, serve);
        assert!(reply.is_ok());
        ends.push(far);
    }
    // Nobody who dials learns more of a request than where it goes.
    assert_eq!(*world.pipes.0.lock().unwrap(), urls);
    for (url, far) in urls.into_iter().zip(&mut ends) {
        let serve = async {
            assert!(heard(far).await.is_some());
            far.write_all(DONE.as_bytes()).await.unwrap();
        };
        assert!(tokio::join!(delete(&world.client, url), serve).0.is_ok());
    }
    assert_eq!(world.dialled(), 4);
    // A URI that leads nowhere is never sent.
    assert!(is_not_sent(&delete(&world.client, "/contacts/1").await, FaultCode::UpstreamMisconfigured));
}

#[tokio::test(start_paused = true)]
async fn requests_are_these_bytes_on_new_connections_and_on_kept_ones() {
    let agent = concat!("user-agent: onedelete/", env!("CARGO_PKG_VERSION"));
    for (url, line, host) in [
        ("http://crm.example", "/", "crm.example"),
        ("http://crm.example:80/a?b=c&d", "/a?b=c&d", "crm.example"),
        ("https://crm.example:443/a", "/a", "crm.example"),
        ("https://CRM.example:80/a//b/../%2e", "/a//b/../%2e", "CRM.example:80"),
        ("http://[::1]:8080/?", "/?", "[::1]:8080"),
        ("http://user@127.0.0.1:8443/a", "/a", "127.0.0.1:8443"),
    ] {
        let World { client, mut come, .. } = World::new(1);
        let mut kept = None;
        for (body, length) in [("", ""), ("{}", "content-length: 2\r\n"), ("", "")] {
            let request = Request::delete(url).header("X-Company", "7").header("accept", "*/*");
            let serve = async {
                let mut far = match kept.take() {
                    Some(far) => far,
                    None => come.recv().await.unwrap(),
                };
                let mut sent = heard(&mut far).await.unwrap();
                for _ in 0..body.len() {
                    sent.push(far.read_u8().await.unwrap().into());
                }
                far.write_all(DONE.as_bytes()).await.unwrap();
                kept = Some(far);
                sent
            };
            let (reply, sent) = tokio::join!(client.send(request.body(body.into()).unwrap()), serve);
            assert!(reply.is_ok());
            let lines = "x-company: 7\r\naccept: */*\r\naccept-encoding: identity\r\n";
            let want = format!("DELETE {line} HTTP/1.1\r\n{lines}{agent}\r\nhost: {host}\r\n{length}\r\n{body}");
            assert_eq!(sent, want);
        }
    }
    // Whoever names a host is not talked over.
    let World { client, mut come, .. } = World::new(1);
    let request = Request::get(URL).header("host", "other.example").body(Bytes::new()).unwrap();
    let mut call = std::pin::pin!(client.send(request));
    let sent = tokio::select! {
        reply = &mut call => panic!("{reply:?}"),
        sent = async { heard(&mut come.recv().await.unwrap()).await } => sent.unwrap(),
    };
    assert!(sent.contains("host: other.example\r\n") && !sent.contains("host: crm.example"), "{sent}");
}

/// However much of its turn a task has used up already, the reply is heard.
#[tokio::test(start_paused = true)]
async fn a_call_at_the_end_of_its_tasks_turn_goes_on_in_the_next() {
    let whole_turn = 128;
    let answers = ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""];
    let late = (whole_turn - 8..=whole_turn).flat_map(|used| [(used, false), (used, true)]);
    for ((used, mut is_late), answer) in late.flat_map(|late| answers.map(|answer| (late, answer))) {
        let mut world = World::new(1);
        let (_, mut far) = world.first(DONE).await;
        let mut call = Box::pin(delete(&world.client, URL));
        let call = poll_fn(|context| {
            // Every second time, or nothing could ever go on.
            is_late = !is_late;
            for _ in 0..if is_late { used } else { 0 } {
                let _ = std::pin::pin!(tokio::task::consume_budget()).poll(context);
            }
            call.as_mut().poll(context)
        });
        let serve = async {
            assert!(heard(&mut far).await.is_some());
            far.write_all(answer.as_bytes()).await.unwrap();
            if answer.is_empty() {
                far.shutdown().await.unwrap();
            }
        };
        let start = Instant::now();
        let (reply, ()) = tokio::join!(call, serve);
        match answer {
            "" => assert!(is_maybe_sent(&reply, FaultCode::ConnectionLost), "{used}: {reply:?}"),
            _ => assert_eq!(reply.unwrap().body(), "ok", "{used}"),
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "{used}");
    }
}

#[tokio::test]
async fn what_a_call_is_waiting_with_is_small() {
    let world = World::new(1);
    let size = size_of_val(&delete_now(&world.client));
    assert!(size <= 1_024, "{size} bytes");
}

fn delete_now(client: &Client) -> impl Future<Output = Reply> {
    client.send(Request::delete(URL).body(Bytes::new()).unwrap())
}
