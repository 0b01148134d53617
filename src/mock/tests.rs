//! Every double over a socket, every fault, and the journal.
//!
//! The client is a plain blocking socket on the test's own thread; the mock runs on the runtime's other one.

mod checks;
mod faults;
mod fleet;
mod json;
mod rules;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use adapters::{Call, DIALECTS, Dialect, Finding, Grant, Reading, Slot, Target, TurnedAway};
use bytes::Bytes;
use http::{Method, Request, Response};

use super::credential::{open, some_id, with_credential};
use super::*;

/// A mock and a client that speaks its dialect.
struct Scene {
    registration: &'static Registration,
    mock: Mock,
    dialect: Box<dyn Dialect>,
}

impl Scene {
    async fn of(registration: &'static Registration) -> Self {
        let mock =
            Mock::start_with_clock(registration, (Ipv4Addr::LOCALHOST, 0).into(), || 1_000_000_000).await.unwrap();
        let dialect = open(registration, &mock.connection_toml());
        Self { registration, mock, dialect }
    }

    /// A call for one contact, which the upstream holds, with the credential in it. `n` tells contacts apart.
    fn call(&self, n: usize) -> Call {
        self.call_for(&[some_id(self.registration, n)])
    }

    /// A call for these contacts, as many of them as the dialect puts into one.
    fn call_for(&self, identifiers: &[Identifier]) -> Call {
        identifiers.iter().for_each(|identifier| self.mock.seed(identifier, false));
        let targets = (0..).map(Slot).zip(identifiers);
        let targets: Vec<_> = targets.map(|(slot, each)| Target { slot, identifier: each.clone() }).collect();
        let mut call = self.dialect.plan(targets).calls.remove(0);
        let ask = |request| read(&send(&self.mock, &request).unwrap()).unwrap();
        let connection = self.mock.connection_toml();
        call.request = with_credential(self.registration, &*self.dialect, &connection, call.request, ask);
        call
    }

    fn id(&self) -> &str {
        self.registration.profile.id
    }

    fn holds(&self, call: &Call) -> bool {
        self.mock.holds(&call.targets[0].identifier)
    }

    fn last(&self) -> Entry {
        self.mock.journal().pop().unwrap()
    }

    /// Sends a call, and returns what the dialect makes of the reply.
    fn findings(&self, call: &Call) -> Vec<Finding> {
        let reply = reply_of(&self.mock, &call.request);
        self.dialect.interpret(call, &reply).findings(call)
    }
}

/// Sends a request on a connection of its own.
fn connect(mock: &Mock, request: &Request<Bytes>) -> TcpStream {
    let mut stream = TcpStream::connect(mock.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri().path_and_query().unwrap());
    text += &format!("host: mock\r\nconnection: close\r\ncontent-length: {}\r\n", request.body().len());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    stream.write_all(request.body()).unwrap();
    stream
}

/// Sends a request and returns all the bytes that come back until the connection closes.
fn send(mock: &Mock, request: &Request<Bytes>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match connect(mock, request).read_to_end(&mut bytes) {
        Err(err) if err.kind() != io::ErrorKind::ConnectionReset => Err(err),
        Ok(_) | Err(_) => Ok(bytes),
    }
}

/// A whole reply, or `None` if it is not whole.
fn read(bytes: &[u8]) -> Option<Response<Bytes>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut reply = Response::builder().status(status);
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        reply = reply.header(name, value);
    }
    let reply = reply.body(Bytes::copy_from_slice(&bytes[end + 4..])).unwrap();
    let promised = reply.headers().get("content-length").map(|size| size.to_str().unwrap().parse().unwrap());
    (promised.unwrap_or(0) == reply.body().len()).then_some(reply)
}

fn reply_of(mock: &Mock, request: &Request<Bytes>) -> Response<Bytes> {
    read(&send(mock, request).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_double_deletes_over_http() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let call = scene.call(1);
        let before = scene.mock.journal().len();
        assert_eq!(call.request.uri().to_string().find(scene.mock.base_url()), Some(0));
        let reply = reply_of(&scene.mock, &call.request);
        let findings = scene.dialect.interpret(&call, &reply).findings(&call);
        assert!(matches!(findings[..], [Finding::Deleted(_)]), "{}: {findings:?}", scene.id());
        assert!(!scene.holds(&call));
        assert_eq!(scene.mock.deleted(), [call.targets[0].identifier.clone()]);
        let entry = scene.last();
        assert_eq!((entry.n, &entry.method), (before + 1, call.request.method()));
        assert_eq!(entry.path.as_str(), call.request.uri().path_and_query().unwrap().as_str());
        assert_eq!(entry.body, call.request.body());
        for (name, value) in call.request.headers() {
            assert_eq!(entry.headers.get(name), Some(value));
        }
        assert_eq!((entry.status, entry.sign_in), (Some(200), false));
        assert_eq!(entry.deleted, scene.mock.deleted());
        scene.mock.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_credential_is_refused_in_the_vendors_own_way() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let mut call = scene.call(1);
        call.request.headers_mut().remove(registration.profile.auth.header);
        let reply = reply_of(&scene.mock, &call.request);
        let reading = scene.dialect.interpret(&call, &reply);
        assert!(matches!(reading, Reading::TurnedAway(TurnedAway::Credential(_))), "{}: {reading:?}", scene.id());
        assert!(scene.holds(&call) && scene.mock.deleted().is_empty());
        assert_eq!(scene.last().status, Some(reply.status().as_u16()));
    }
}

/// What comes back under a fault, and whether the contact is gone; the same for every dialect.
async fn check(fault: Fault, gone: bool, expected: impl Fn(&[u8], Option<Response<Bytes>>)) {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let (call, other) = (scene.call(1), scene.call(2));
        scene.mock.fault(fault.clone());
        let bytes = send(&scene.mock, &call.request).unwrap();
        assert_eq!(!scene.holds(&call), gone, "{} {fault:?}", scene.id());
        let entry = scene.last();
        assert_eq!(entry.deleted.len(), usize::from(gone), "{fault:?}");
        let status = std::str::from_utf8(bytes.get(9..12).unwrap_or_default()).unwrap().parse().ok();
        assert_eq!(entry.status, status, "{fault:?}");
        expected(&bytes, read(&bytes));
        // The fault is used up.
        let reply = reply_of(&scene.mock, &other.request);
        let findings = scene.dialect.interpret(&other, &reply).findings(&other);
        assert!(matches!(findings[..], [Finding::Deleted(_)]), "{} after {fault:?}", scene.id());
        scene.mock.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dropped_connection_says_nothing() {
    check(Fault::CommitThenDrop, true, |bytes, _| assert!(bytes.is_empty())).await;
    check(Fault::DropBeforeCommit, false, |bytes, _| assert!(bytes.is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cut_reply_has_its_head_and_half_of_its_body() {
    check(Fault::CutBody, true, |bytes, whole| {
        assert!(whole.is_none());
        let text = std::str::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let size = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        assert_eq!(body.len(), size.parse::<usize>().unwrap() / 2, "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_stands_between_answers_without_the_upstream() {
    check(Fault::Html(503), false, |_, reply| {
        let reply = reply.unwrap();
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.headers()["content-type"], "text/html; charset=utf-8");
        assert!(reply.body().starts_with(b"<!DOCTYPE html>"));
    })
    .await;
    check(Fault::Empty(502), false, |_, reply| {
        let reply = reply.unwrap();
        assert_eq!((reply.status().as_u16(), reply.body().len()), (502, 0));
    })
    .await;
    check(Fault::Busy(7), false, |_, reply| {
        let reply = reply.unwrap();
        assert_eq!((reply.status().as_u16(), &reply.headers()["retry-after"]), (429, &7.into()));
    })
    .await;
    check(Fault::Redirect(307, "https://elsewhere.example/".to_owned()), false, |_, reply| {
        let reply = reply.unwrap();
        assert_eq!(reply.status(), 307);
        assert_eq!(reply.headers()["location"], "https://elsewhere.example/");
    })
    .await;
    check(Fault::Empty(7), false, |_, reply| assert_eq!(reply.unwrap().status(), 500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_status_keeps_the_vendors_body() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let plain = reply_of(&scene.mock, &scene.call(1).request).into_body();
        let (call, again) = (scene.call(1), scene.call(1));
        scene.mock.fault(Fault::Status(500));
        let reply = reply_of(&scene.mock, &call.request);
        assert_eq!((reply.status().as_u16(), reply.body()), (500, &plain));
        assert!(!scene.holds(&again));
    }
    check(Fault::Status(500), true, |_, reply| assert_eq!(reply.unwrap().status(), 500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_late_answer_is_carried_out_at_once() {
    let scene = Scene::of(&DIALECTS[0]).await;
    let call = scene.call(1);
    let n = scene.mock.journal().len();
    scene.mock.fault(Fault::Delay(Duration::from_secs(3600)));
    let waiting = connect(&scene.mock, &call.request);
    scene.mock.arrived(n + 1).await;
    assert!(!scene.holds(&call));
    assert_eq!((scene.last().deleted.len(), scene.last().status), (1, None));
    drop(waiting);
    let delay = Duration::from_millis(30);
    scene.mock.fault(Fault::Delay(delay));
    let started = Instant::now();
    let reply = reply_of(&scene.mock, &scene.call(2).request);
    assert!(started.elapsed() >= delay);
    assert_eq!((reply.status().as_u16(), scene.last().status), (200, Some(200)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stalled_request_ends_with_the_mock() {
    for dropped in [false, true] {
        let scene = Scene::of(&DIALECTS[0]).await;
        let call = scene.call(1);
        let n = scene.mock.journal().len();
        scene.mock.fault(Fault::Stall);
        let mut waiting = connect(&scene.mock, &call.request);
        scene.mock.arrived(n + 1).await;
        assert!(scene.holds(&call) && scene.last().status.is_none());
        if dropped {
            drop(scene.mock);
        } else {
            scene.mock.stop().await;
        }
        let mut bytes = Vec::new();
        // The end or a reset, but not the time limit of the socket.
        let ended = waiting.read_to_end(&mut bytes).map_err(|err| err.kind());
        assert!(matches!(ended, Ok(0) | Err(io::ErrorKind::ConnectionReset)), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stalled_request_ends_with_its_client() {
    let scene = Scene::of(&DIALECTS[0]).await;
    let call = scene.call(1);
    let n = scene.mock.journal().len();
    scene.mock.fault(Fault::Stall);
    let waiting = connect(&scene.mock, &call.request);
    scene.mock.arrived(n + 1).await;
    assert!(scene.mock.tasks.len() >= 2);
    drop(waiting);
    let alone = async {
        while scene.mock.tasks.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), alone).await.expect("only the accept loop is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn queued_faults_come_first_and_sign_ins_have_none() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        scene.mock.fault_always(Some(Fault::Empty(503)));
        scene.mock.fault(Fault::Empty(502));
        scene.mock.fault(Fault::Empty(504));
        // A sign-in, where there is one, passes and takes nothing from the queue.
        let statuses: Vec<_> =
            (1..=4).map(|n| reply_of(&scene.mock, &scene.call(n).request).status().as_u16()).collect();
        assert_eq!(statuses, [502, 504, 503, 503], "{}", scene.id());
        scene.mock.fault_always(None);
        assert_eq!(reply_of(&scene.mock, &scene.call(5).request).status(), 200);
        let signs_in = matches!(registration.profile.auth.forms[0].grant, Grant::SignIn);
        let sign_ins = scene.mock.journal().iter().filter(|entry| entry.sign_in && entry.status == Some(200)).count();
        assert_eq!(sign_ins, if signs_in { 5 } else { 0 }, "{}", scene.id());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_form_of_signing_in_is_told_apart_from_a_delete() {
    for registration in
        DIALECTS.iter().filter(|r| r.profile.auth.forms.iter().any(|f| matches!(f.grant, Grant::SignIn)))
    {
        let scene = Scene::of(registration).await;
        let paths = &scene.mock.upstream.sign_in_paths;
        assert_eq!(paths.len(), 1, "{}", scene.id());
        assert_ne!(paths[0], scene.call(1).request.uri().path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_that_is_too_large_is_refused() {
    let scene = Scene::of(&DIALECTS[0]).await;
    let fits = Request::builder().method(Method::DELETE).uri("/x").body(Bytes::from(vec![0; wire::MAX_BODY_BYTES]));
    assert_ne!(reply_of(&scene.mock, &fits.unwrap()).status(), 413);
    let mut stream = TcpStream::connect(scene.mock.addr()).unwrap();
    let head = format!("DELETE /x HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n\r\n", wire::MAX_BODY_BYTES + 1);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![0; wire::MAX_BODY_BYTES + 1]).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    assert_eq!((scene.last().status, scene.last().body.len()), (Some(413), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_examples_urls_lead_here() {
    for registration in DIALECTS {
        let mock = Mock::start(registration, (Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let origin = format!("http://{}", mock.addr());
        let example: toml::Table = registration.example.parse().unwrap();
        let text = toml::to_string(&mock.connection_toml()).unwrap();
        assert!(!text.contains("https://"), "{text}");
        assert_eq!(text.matches("://").count(), registration.example.matches("://").count());
        assert_eq!(text.matches(&origin).count(), text.matches("://").count(), "{text}");
        assert_eq!(mock.connection_toml().len(), example.len());
        assert_eq!(format!("{mock:?}"), format!("Mock({})", mock.base_url()));
    }
}

#[test]
fn an_origin_is_one_that_a_client_can_reach() {
    for (addr, expected) in [
        ("127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("0.0.0.0:8081", "http://127.0.0.1:8081"),
        ("[::]:9", "http://[::1]:9"),
        ("192.0.2.1:80", "http://192.0.2.1"),
    ] {
        assert_eq!(origin(addr.parse().unwrap()), expected);
    }
}
