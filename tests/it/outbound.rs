//! The way out on the wire: what an upstream may answer without hurting the gateway, and what it never gets to see.
//!
//! The upstream is a bare socket that writes what a test says, byte by byte; the truth is what came to that socket. Which
//! addresses may be connected to at all is tested beside the client.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters::DIALECTS;
use bytes::Bytes;
use http::{Method, Response};
use onedelete::mock::Fault;
use serde_json::json;

use crate::support::{Running, Setup, attempts, id, ids, key, mock, send, table, within};

/// What a bare upstream does with one request.
#[derive(Clone)]
enum Play {
    /// Writes these bytes and closes.
    Say(Vec<u8>),
    /// Writes the first bytes, then the second ones again and again until the other side hangs up.
    Endless(Vec<u8>, Vec<u8>),
    /// The same, with a pause before each.
    Drip(Vec<u8>, Vec<u8>, Duration),
}

/// A bare upstream on loopback. Its threads end with the test process.
struct Bare {
    address: SocketAddr,
    stage: Arc<Stage>,
}

#[derive(Default)]
struct Stage {
    plays: Mutex<VecDeque<Play>>,
    /// The bytes that were written of each answer that the other side did not wait for.
    given_up: Mutex<Vec<usize>>,
    requests: Mutex<Vec<String>>,
}

impl Bare {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, stage) = (listener.local_addr().unwrap(), Arc::new(Stage::default()));
        let shared = Arc::clone(&stage);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let stage = Arc::clone(&shared);
                std::thread::spawn(move || stage.serve(stream));
            }
        });
        Self { address, stage }
    }

    /// A connection of this dialect that leads here, with one attempt and a token at hand wherever the dialect takes one.
    fn connection(&self, dialect: &str, change: impl FnOnce(&mut toml::Table)) -> toml::Table {
        let registration = crate::support::registration(dialect);
        let mut connection: toml::Table = registration.example.parse().unwrap();
        lead(&mut connection, self.address);
        attempts(1)(&mut connection);
        table(&mut connection, "limits").insert("rate".to_owned(), "off".into());
        change(&mut connection);
        connection
    }

    fn play(&self, play: Play) {
        self.stage.plays.lock().unwrap().push_back(play);
    }
}

/// Leads all URLs of a connection to this address; their paths stay.
fn lead(connection: &mut toml::Table, to: SocketAddr) {
    for (_, value) in connection.iter_mut() {
        match value {
            toml::Value::Table(inner) => lead(inner, to),
            toml::Value::String(text) => {
                if let Some((_, rest)) = text.split_once("://") {
                    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
                    *text = format!("http://{to}{path}");
                }
            }
            _ => {}
        }
    }
}

impl Stage {
    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut head = Vec::new();
        let mut chunk = [0; 4096];
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(n) => head.extend_from_slice(&chunk[..n]),
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let is_delete = head.starts_with("DELETE ");
        self.requests.lock().unwrap().push(head);
        // A sign-in gets a token, and takes no play.
        let play = if is_delete { self.plays.lock().unwrap().pop_front() } else { None };
        let play = play.unwrap_or_else(|| Play::Say(sign_in()));
        let (first, again, pause) = match play {
            Play::Say(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                return;
            }
            Play::Endless(first, again) => (first, again, Duration::ZERO),
            Play::Drip(first, again, pause) => (first, again, pause),
        };
        let mut written = 0;
        let mut next = first;
        while stream.write_all(&next).is_ok() {
            written += next.len();
            next.clone_from(&again);
            std::thread::sleep(pause);
        }
        self.given_up.lock().unwrap().push(written);
    }
}

fn sign_in() -> Vec<u8> {
    let body = r#"{"access_token":"token-of-the-bare-sign-in","token_type":"Bearer","expires_in":3600,"token":"token-of-the-bare-sign-in"}"#;
    said("Content-Type: application/json\r\n", body.as_bytes())
}

/// A whole 200.
fn said(lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Asks for one contact, and fails unless the answer says nothing of it but that it is not known.
async fn is_unknown(gateway: &Running, dialect: &str, errors: &[&str], what: &str) {
    let answer = within(what, gateway.post("acme", &json!({ "contacts": ids(dialect, 1) }))).await;
    assert_eq!(answer.outcomes(), ["unknown"], "{dialect}, {what}: {}", answer.text);
    assert!(errors.contains(&answer.errors()[0]), "{dialect}, {what}: {}", answer.text);
}

const UNREADABLE: &[&str] = &["response_unreadable"];

#[tokio::test]
async fn bombs_of_every_kind_are_not_read_to_their_end() {
    const CAP: usize = 10_000;
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let bare = Bare::start();
        let connection = bare.connection(dialect, |connection| {
            table(connection, "limits").insert("max_response_bytes".to_owned(), (CAP as i64).into());
        });
        let gateway = Setup::new().set("upstream.breaker_failures", 1000).connection("acme", "c", connection);
        let gateway = gateway.start().await;
        for (what, lines) in [("gzip", "gzip"), ("br", "br"), ("twice", "gzip, gzip"), ("odd", "x-nobody-knows")] {
            bare.play(Play::Say(said(&format!("Content-Encoding: {lines}\r\n"), b"{}")));
            is_unknown(&gateway, dialect, UNREADABLE, what).await;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
        bare.play(Play::Endless(chunked, chunk));
        is_unknown(&gateway, dialect, UNREADABLE, "endless chunks").await;
        bare.play(Play::Endless(format!("{head}\r\n").into_bytes(), vec![b' '; 4096]));
        is_unknown(&gateway, dialect, UNREADABLE, "an endless body").await;
        bare.play(Play::Endless(format!("{head}Content-Length: 99999999999\r\n\r\n").into_bytes(), vec![b' '; 4096]));
        is_unknown(&gateway, dialect, UNREADABLE, "a body that is said to be long").await;
        for headers in [65, 90, 101, 1_000] {
            let lines: String = (0..headers).map(|n| format!("X-{n}: x\r\n")).collect();
            bare.play(Play::Say(said(&lines, b"{}")));
            is_unknown(&gateway, dialect, &["response_unreadable", "connection_lost"], "many headers").await;
        }
        bare.play(Play::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-Again: and again\r\n".to_vec()));
        is_unknown(&gateway, dialect, &["response_unreadable", "connection_lost"], "endless headers").await;
        bare.play(Play::Endless(b"HTTP/1.1 200 OK\r\nX-Long: ".to_vec(), vec![b'x'; 4096]));
        is_unknown(&gateway, dialect, &["response_unreadable", "connection_lost"], "an endless header").await;
        gateway.stop().await;
        let hung_up = async {
            while bare.stage.given_up.lock().unwrap().len() < 5 {
                tokio::task::yield_now().await;
            }
        };
        within("the gateway to hang up on what has no end", hung_up).await;
    }
}

#[tokio::test]
async fn a_reply_that_drips_ends_with_the_attempt() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let bare = Bare::start();
        let connection = bare.connection(dialect, |connection| {
            table(connection, "timeouts").insert("response_ms".to_owned(), 700.into());
        });
        let gateway = Setup::new().set("upstream.breaker_failures", 1000).connection("acme", "c", connection);
        let gateway = gateway.start().await;
        let second = Duration::from_millis(100);
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n".to_vec();
        for (what, first) in [("a body", head), ("a head", b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec())] {
            bare.play(Play::Drip(first, vec![b' '], second));
            is_unknown(&gateway, dialect, &["response_timeout"], what).await;
        }
        gateway.stop().await;
    }
}

/// Everything that the gateway adds to a request of its own accord, and that it remembers nothing of what it was told.
#[tokio::test]
async fn no_cookie_is_kept_and_no_header_tells_of_another_call() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let upstream = mock(dialect).await;
        upstream.answer_with(|arrived| {
            let reply = Response::builder().header("set-cookie", "sid=1; Path=/").header("set-cookie", "b=2");
            let reply = reply.header("alt-svc", "h3=\":1\"").header("strict-transport-security", "max-age=9999");
            let reply = reply.header("content-type", "application/json");
            let token = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600,"token":"t"}"#;
            let body = if arrived.method == Method::DELETE { "{}" } else { token };
            let status = if arrived.method == Method::DELETE { 500 } else { 200 };
            Some(reply.status(status).body(Bytes::from(body)).unwrap())
        });
        let gateway = Setup::new().set("upstream.breaker_failures", 1000).mock("acme", "c", &upstream, attempts(1));
        let gateway = gateway.start().await;
        for _ in 0..3 {
            is_unknown(&gateway, dialect, &["upstream_error"], "an error with cookies").await;
        }
        gateway.stop().await;
        let arrived = upstream.journal();
        assert!(arrived.len() >= 3, "{dialect}");
        for request in &arrived {
            let agent = concat!("onedelete/", env!("CARGO_PKG_VERSION"));
            assert_eq!(request.headers["user-agent"], agent, "{dialect}");
            assert_eq!(request.headers["accept-encoding"], "identity", "{dialect}");
            for absent in [
                "cookie",
                "referer",
                "te",
                "upgrade",
                "via",
                "x-forwarded-for",
                "forwarded",
                "traceparent",
                "tracestate",
                "x-request-id",
            ] {
                assert!(!request.headers.contains_key(absent), "{dialect}: {absent}");
            }
        }
        upstream.stop().await;
    }
}

/// A process that ends with the test.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program with every proxy variable that there is, each naming a listener that nobody must come to.
#[tokio::test]
async fn proxy_variables_have_no_effect() {
    let trap = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    trap.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", trap.local_addr().unwrap());
    let mut setup = Setup::new().durable();
    let mut mocks = Vec::new();
    for registration in DIALECTS {
        let mock = mock(registration.profile.id).await;
        setup = setup.mock(&registration.profile.id.replace('_', "-"), "c", &mock, |_| {});
        mocks.push((registration.profile.id, mock));
    }
    let listen = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let setup = setup.set("server.listen", listen.to_string());
    let folder = setup.write();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_onedelete"));
    command.args(["serve", "--config"]).arg(folder.join("onedelete.toml"));
    for name in ["http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "socks_proxy"] {
        command.env(name, &proxy).env(name.to_uppercase(), &proxy);
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy").stderr(std::process::Stdio::null());
    let program = Program(command.spawn().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (dialect, mock) in &mocks {
        let known = ids(dialect, 1);
        mock.seed(&id(&known[0]), false);
        let ask = async {
            loop {
                let request = client.post(format!("http://{listen}/v1/deletions"));
                let request = request.bearer_auth(crate::support::key(&dialect.replace('_', "-")));
                let request = request.header("content-type", "application/json");
                match request.body(json!({ "contacts": known }).to_string()).send().await {
                    Ok(reply) => return reply.status().as_u16(),
                    // Not listening yet.
                    Err(err) if err.is_connect() => tokio::task::yield_now().await,
                    Err(err) => panic!("{err}"),
                }
            }
        };
        assert_eq!(within("the program", ask).await, 200, "{dialect}");
        assert!(!mock.holds(&id(&known[0])), "{dialect}");
    }
    drop(program);
    assert_eq!(trap.accept().map(|(_, from)| from).unwrap_err().kind(), ErrorKind::WouldBlock, "the proxy was asked");
}

/// Where a redirect leads, nobody comes: not with the delete, not with a sign-in, not with one byte.
#[tokio::test]
async fn a_redirected_sign_in_is_not_followed() {
    let trap = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    trap.set_nonblocking(true).unwrap();
    let to = format!("http://{}/token", trap.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        let leads = to.clone();
        let upstream = mock("talkdesk").await;
        upstream.answer_with(move |_| {
            Some(Response::builder().status(status).header("location", &*leads).body(Bytes::new()).unwrap())
        });
        let gateway = Setup::new().mock("acme", "c", &upstream, attempts(1)).start().await;
        let answer = gateway.post("acme", &json!({ "contacts": ids("talkdesk", 1) })).await;
        assert_eq!(answer.errors(), ["credential_unavailable"], "{status}: {}", answer.text);
        gateway.stop().await;
        assert_eq!(upstream.journal().len(), 1, "{status}");
        assert_eq!(trap.accept().map(|(_, from)| from).unwrap_err().kind(), ErrorKind::WouldBlock, "{status}");
        upstream.stop().await;
    }
}

/// Whoever asks at night why a deletion does not go on finds it in the metrics.
#[tokio::test]
async fn what_calls_wait_for_is_told() {
    let mock = mock("wethod").await;
    mock.fault(Fault::Throttle(600));
    let gateway = Setup::new()
        .mock("waits", "c", &mock, |connection| {
            table(connection, "limits").insert("max_in_flight".to_owned(), 2.into());
        })
        .start()
        .await;
    let known = ids("wethod", 4);
    let first = gateway.post_async("waits", &json!({ "connection": "c", "contacts": known[..1] })).await;
    within("a call that is turned away", mock.arrived(1)).await;
    // The metrics are the process's; no other test has a tenant of this name.
    let value = |page: &str, name: &str, reason: &str| {
        let of = |line: &&str| line.starts_with(name) && line.contains("\"waits\"") && line.contains(reason);
        page.lines().find(of).map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    let until = async |reasons: [(&str, f64); 2]| {
        let told = async {
            loop {
                let page = gateway.metrics().await;
                let waiting = |reason: &str| value(&page, "onedelete_calls_waiting", &format!("reason={reason:?}"));
                if reasons.iter().all(|(reason, calls)| waiting(reason) == *calls) {
                    return page;
                }
            }
        };
        within("what calls wait for", told).await
    };
    let held = async { while value(&gateway.metrics().await, "onedelete_held_until_seconds", "") == 0.0 {} };
    within("a hold", held).await;
    // Two have a place and wait until the upstream may be asked again, and the third waits for a place. The first deletion's
    // contact is not among them: its time has not come.
    let second = gateway.post_async("waits", &json!({ "connection": "c", "contacts": known[1..2] })).await;
    let third = gateway.post_async("waits", &json!({ "connection": "c", "contacts": known[2..] })).await;
    until([("pace", 2.0), ("lane", 1.0)]).await;
    for deletion in [&first, &second, &third] {
        let request = gateway.client.post(gateway.url(&format!("/v1/deletions/{deletion}/cancel")));
        assert_eq!(send(request.bearer_auth(key("waits"))).await.status, 200);
    }
    until([("pace", 0.0), ("lane", 0.0)]).await;
    gateway.stop().await;
}
