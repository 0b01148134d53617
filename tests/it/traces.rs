//! What a caller says of its trace and its request goes upstream; spans go to a collector, if there is one.
//!
//! The collector is a listener that takes what comes and keeps it. What a span looks like in somebody's tool is not tried here.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use adapters::DIALECTS;
use onedelete::mock::{Fault, Kind, Mock};
use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, hold, id, ids, key, let_go, mock, send, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A deletion with these headers more.
async fn ask(gateway: &Running, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    send(request.bearer_auth(key("acme")).body(body.to_string())).await
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// The value of this header in each delete.
fn told(mock: &Mock, name: &str) -> Vec<Option<String>> {
    let deletes = mock.journal().into_iter().filter(|entry| entry.kind == Kind::Delete);
    deletes.map(|entry| entry.headers.get(name).map(|value| value.to_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn a_callers_trace_goes_upstream_with_each_attempt_and_with_no_sign_in() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
        let known = ids(dialect, 1);
        mock.seed(&id(&known[0]), false);
        mock.fault(Fault::Busy(0));
        let headers = [("traceparent", &*parent("01")), ("tracestate", "congo=t61"), ("x-request-id", "row-7")];
        let answer = ask(&gateway, &json!({ "contacts": known }), &headers).await;
        assert_eq!(answer.outcomes(), ["deleted"], "{dialect}: {}", answer.text);
        assert_eq!(answer.headers["x-request-id"], "row-7", "{dialect}");
        assert_eq!(answer.headers["traceparent"], parent("01"), "{dialect}");
        let parents: Vec<_> = told(&mock, "traceparent").into_iter().map(Option::unwrap).collect();
        let spans: BTreeSet<_> = parents.iter().map(|text| text[36..52].to_owned()).collect();
        assert!(parents.len() == 2 && spans.len() == 2 && !spans.contains(SPAN), "{dialect}: {parents:?}");
        for parent in &parents {
            let (start, end) = (format!("00-{TRACE}-"), "-01");
            assert!(parent.starts_with(&start) && parent.ends_with(end) && parent.len() == 55, "{dialect}: {parent}");
        }
        for (name, value) in [("tracestate", "congo=t61"), ("x-request-id", "row-7")] {
            assert_eq!(told(&mock, name), vec![Some(value.to_owned()); 2], "{dialect}: {name}");
        }
        for entry in mock.journal().iter().filter(|entry| entry.kind == Kind::SignIn) {
            let stray = headers.iter().find(|(name, _)| entry.headers.contains_key(*name));
            assert_eq!(stray, None, "{dialect}: a sign-in is nobody's own");
        }
        gateway.stop().await;
        mock.stop().await;
    }
}

#[tokio::test]
async fn what_is_not_well_formed_goes_nowhere_and_names_nothing() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    let long = "x".repeat(129);
    for headers in [
        vec![("traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01")],
        vec![("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"), ("tracestate", "a=1")],
        vec![("x-request-id", "a b")],
        vec![("x-request-id", &long)],
        vec![("tracestate", "a=1")],
    ] {
        let answer = ask(&gateway, &json!({ "contacts": ids("wethod", 1) }), &headers).await;
        assert_eq!(answer.outcomes(), ["not_found"], "{headers:?}");
        assert!(!answer.headers.contains_key("traceparent"), "{headers:?}");
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() == 32 && headers.iter().all(|(_, value)| *value != id), "{headers:?}: {id}");
        for name in ["traceparent", "tracestate", "x-request-id"] {
            assert_eq!(told(&mock, name).last(), Some(&None), "{headers:?}: {name}");
        }
    }
    // The trace is well formed, what hangs on it is not; it stands for the request's name as well.
    let headers = [("traceparent", &*parent("00")), ("tracestate", "A=1")];
    let answer = ask(&gateway, &json!({ "contacts": ids("wethod", 1) }), &headers).await;
    assert_eq!(answer.headers["x-request-id"], TRACE);
    assert!(told(&mock, "traceparent").pop().unwrap().unwrap().ends_with("-00"));
    assert_eq!(told(&mock, "tracestate").pop().unwrap(), None);
    // A problem is called what its request is.
    let answer = ask(&gateway, &json!({ "contacts": 1 }), &[("traceparent", &parent("00"))]).await;
    assert_eq!((answer.status, answer.headers["x-request-id"].to_str().unwrap()), (400, TRACE));
    gateway.stop().await;
}

#[tokio::test]
async fn upstreams_are_told_nothing_where_the_settings_say_so() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().set("telemetry.pass_upstream", false).mock("acme", "c", &mock, |_| {}).start().await;
    let headers = [("traceparent", &*parent("01")), ("tracestate", "a=1"), ("x-request-id", "row-7")];
    let answer = ask(&gateway, &json!({ "contacts": ids("wethod", 1) }), &headers).await;
    assert_eq!(answer.headers["x-request-id"], "row-7");
    for (name, _) in headers {
        assert_eq!(told(&mock, name), [None], "{name}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_deletion_that_waits_in_the_store_keeps_its_trace() {
    let mock = mock("wethod").await;
    let gateway =
        Setup::new().set("deletions.max_worked_contacts_per_tenant", 1).mock("acme", "c", &mock, |_| {}).start().await;
    hold(&mock);
    let first = gateway.post_async("acme", &json!({ "contacts": ids("wethod", 1) })).await;
    within("the first call", mock.arrived(1)).await;
    let headers = [("traceparent", &*parent("01")), ("prefer", "respond-async")];
    let second = ask(&gateway, &json!({ "contacts": ids("wethod", 1) }), &headers).await;
    assert_eq!(second.status, 202, "{}", second.text);
    let_go(&mock);
    gateway.finished("acme", &first).await;
    gateway.finished("acme", &second.id()).await;
    let told = told(&mock, "traceparent");
    assert!(told[0].is_none() && told[1].as_ref().unwrap().contains(TRACE), "{told:?}");
    gateway.stop().await;
}

/// A collector on loopback.
struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request to it: its head and its body.
#[derive(Clone)]
struct Seen(String, Value);

impl Collector {
    /// Answers with these statuses, then with 200.
    fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (keep, statuses) = (Arc::clone(&seen), Vec::from(statuses));
        let mut statuses = statuses.into_iter();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let status = statuses.next().unwrap_or(200);
                take(stream.unwrap(), status, &keep);
            }
        });
        Self { address, seen }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// All spans of requests that it took.
    fn spans(&self) -> Vec<Value> {
        let seen = self.seen();
        let scopes = seen.iter().flat_map(|Seen(_, body)| body["resourceSpans"][0]["scopeSpans"].as_array().unwrap());
        scopes.flat_map(|scope| scope["spans"].as_array().unwrap().clone()).collect()
    }
}

/// One request, after which the connection ends.
fn take(mut stream: TcpStream, status: u16, keep: &Mutex<Vec<Seen>>) {
    let (mut reader, mut head) = (BufReader::new(stream.try_clone().unwrap()), String::new());
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    if status == 200 {
        keep.lock().unwrap().push(Seen(head, serde_json::from_slice(&body).unwrap()));
    }
    let end = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
    let _ = stream.write_all(end.as_bytes());
}

/// What is said of a span under this name.
fn fact<'s>(span: &'s Value, name: &str) -> Option<&'s str> {
    let fact = span["attributes"].as_array().unwrap().iter().find(|fact| fact["key"] == name)?;
    fact["value"].as_object().unwrap().values().next().unwrap().as_str()
}

fn named<'s>(spans: &'s [Value], name: &str) -> Vec<&'s Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

#[tokio::test]
async fn a_collector_gets_a_deletion_as_a_tree_of_spans() {
    let (crm, sales) = (mock("kore_ai").await, mock("wethod").await);
    let collector = Collector::start(&[]);
    let setup = Setup::new().mock("acme", "crm", &crm, |_| {}).mock("acme", "sales", &sales, |_| {});
    let setup =
        setup.set("telemetry.otlp.endpoint", collector.endpoint()).set("telemetry.otlp.headers", "file:headers");
    std::fs::write(setup.write().join("headers"), "x-api-key=collector-secret, x-scope=7\n").unwrap();
    let gateway = setup.start().await;
    let (known, numbers) = (ids("kore_ai", 2), ids("wethod", 2));
    known.iter().for_each(|each| crm.seed(&id(each), false));
    sales.seed(&id(&numbers[0]), false);
    sales.fault(Fault::Busy(0));
    let sale = |n: usize| json!({ "connection": "sales", "id": numbers[n] });
    let body = json!({ "contacts": [known[0], known[1], sale(0), sale(1)] });
    let headers = [("traceparent", &*parent("01")), ("tracestate", "congo=t61")];
    let answer = ask(&gateway, &body, &headers).await;
    let mut upstream: Vec<_> = [told(&crm, "traceparent"), told(&sales, "traceparent")].concat();
    // What was put down last is sent before the gateway ends.
    gateway.stop().await;
    let spans = collector.spans();
    for span in &spans {
        assert_eq!((&span["traceId"], &span["traceState"]), (&json!(TRACE), &json!("congo=t61")), "{span}");
        let time = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano") && time("startTimeUnixNano") > 1 << 60, "{span}");
    }
    let children = |name: &str, parent: &Value| -> Vec<&Value> {
        named(&spans, name).into_iter().filter(|span| span["parentSpanId"] == *parent).collect()
    };
    let [deletion] = named(&spans, "deletion")[..] else { panic!("{spans:#?}") };
    assert_eq!((&deletion["parentSpanId"], fact(deletion, "onedelete.deletion")), (&json!(SPAN), Some(&*answer.id())));
    let connections = children("connection", &deletion["spanId"]);
    let mut names: Vec<_> = connections.iter().map(|span| fact(span, "onedelete.connection").unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["crm", "sales"]);
    let mut attempts = Vec::new();
    for connection in connections {
        let is_crm = fact(connection, "onedelete.connection") == Some("crm");
        assert_eq!(fact(connection, "onedelete.dialect"), Some(if is_crm { "kore_ai" } else { "wethod" }));
        assert_eq!(fact(connection, "onedelete.outcome.deleted"), Some(if is_crm { "2" } else { "1" }));
        assert_eq!(fact(connection, "onedelete.outcome.not_found"), (!is_crm).then_some("1"));
        let calls = children("call", &connection["spanId"]);
        let mut tries: Vec<_> = calls.iter().map(|call| fact(call, "onedelete.attempts").unwrap()).collect();
        tries.sort_unstable();
        assert_eq!(tries, if is_crm { vec!["1"] } else { vec!["1", "2"] }, "{spans:#?}");
        for call in calls {
            let of_call = children("attempt", &call["spanId"]);
            assert_eq!(fact(call, "onedelete.attempts"), Some(&*of_call.len().to_string()));
            attempts.extend(of_call);
        }
    }
    assert_eq!((spans.len(), attempts.len()), (1 + 2 + 3 + 4, 4), "{spans:#?}");
    let mut failed: Vec<_> = attempts.iter().filter(|span| span["status"]["code"] == 2).collect();
    failed.retain(|span| fact(span, "error.type") != Some("404"));
    assert_eq!(failed.iter().map(|span| fact(span, "http.response.status_code")).collect::<Vec<_>>(), [Some("429")]);
    // The spans of attempts are what the upstreams were told.
    let mut told: Vec<_> =
        attempts.iter().map(|span| format!("00-{TRACE}-{}-01", span["spanId"].as_str().unwrap())).map(Some).collect();
    told.sort();
    upstream.sort();
    assert_eq!(told, upstream);
    // The collector got its key, and nothing that it should not have.
    let Seen(head, _) = &collector.seen()[0];
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    for line in ["x-api-key: collector-secret", "x-scope: 7", "content-type: application/json"] {
        assert!(head.lines().any(|each| each == line), "{head}");
    }
    let all: String = collector.seen().iter().map(|Seen(_, body)| body.to_string()).collect();
    for hidden in known.iter().chain(&numbers).map(String::as_str).chain([&*key("acme"), "collector-secret", "token"]) {
        assert!(!all.contains(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn a_deletion_without_a_callers_trace_has_one_of_its_own() {
    let mock = mock("wethod").await;
    let collector = Collector::start(&[503]);
    let setup = Setup::new().set("telemetry.otlp.endpoint", format!("{}/v1/traces", collector.endpoint()));
    let gateway = setup.mock("acme", "c", &mock, |_| {}).start().await;
    let answer = ask(&gateway, &json!({ "contacts": ids("wethod", 1) }), &[]).await;
    // One whose caller says that it is not recorded goes on as such.
    let silent = ask(&gateway, &json!({ "contacts": ids("wethod", 1) }), &[("traceparent", &parent("00"))]).await;
    assert_eq!((answer.outcomes(), silent.outcomes()), (vec!["not_found"], vec!["not_found"]));
    let told = told(&mock, "traceparent");
    assert!(told[1].as_ref().unwrap().starts_with(&format!("00-{TRACE}-")), "{told:?}");
    let arrived = async {
        while collector.spans().is_empty() {
            gateway.metrics().await;
        }
    };
    // The first try was refused for a while.
    within("spans", arrived).await;
    let spans = collector.spans();
    let trace = told[0].as_ref().unwrap()[3..35].to_owned();
    assert_eq!(named(&spans, "deletion").len(), 1, "{spans:#?}");
    for span in &spans {
        assert_eq!(span["traceId"], *trace, "{span}");
        assert_eq!(span.get("parentSpanId").is_none(), span["name"] == "deletion", "{span}");
    }
    gateway.stop().await;
    assert_eq!(collector.spans().len(), spans.len());
}

#[tokio::test]
async fn a_collector_that_is_not_there_changes_nothing() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let mock = mock("wethod").await;
    let setup = Setup::new().set("telemetry.otlp.endpoint", format!("http://{nobody}"));
    let gateway = setup.mock("acme", "c", &mock, |_| {}).start().await;
    for _ in 0..20 {
        let answer = gateway.post("acme", &json!({ "contacts": ids("wethod", 1) })).await;
        assert_eq!(answer.outcomes(), ["not_found"]);
    }
    within("the end", gateway.stop()).await;
}
