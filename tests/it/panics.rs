//! A bug in a handler: the request gets a problem, the log one line without what was being worked, and the gateway goes on.
//!
//! The program has no way to be made to panic. So these handlers stand behind the real listener and stack, in a process of
//! their own: this one again, with one test alone.

use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use onedelete::server::{self, ListenerLimits};
use onedelete::telemetry::{self, LogFormat};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{asked, within};

/// Set for the process whose handlers panic.
const HERE: &str = "ONEDELETE_TEST_PANICS";
/// What every panic has at hand and the log must not have.
const CANARY: &str = "canary-7743190255";

/// What the last one says does not stand in the source.
const ROUTES: [&str; 7] = ["/literal", "/filled", "/unwrapped", "/index", "/slice", "/thrown", "/task"];

#[tokio::test]
#[ignore = "a process of its own, which another test starts"]
async fn handlers_that_panic() {
    if std::env::var_os(HERE).is_none() {
        return;
    }
    telemetry::log(LogFormat::Json, "trace");
    let text = || CANARY.to_owned();
    let failed = Err::<&'static str, String>;
    let tasks = TaskTracker::new();
    let routes = Router::new()
        .route("/fine", get(async || "fine"))
        .route("/literal", get(async move || -> &'static str { panic!("the source says this") }))
        .route("/filled", get(async move || -> &'static str { panic!("no such contact: {}", text()) }))
        .route("/unwrapped", get(async move || failed(text()).unwrap()))
        .route(
            "/index",
            get(async move || text().bytes().collect::<Vec<_>>()[usize::from(text().len() > 3) * 99].to_string()),
        )
        .route("/slice", get(async move || format!("é{}", text())[1..].to_owned()))
        .route("/thrown", get(async move || -> &'static str { std::panic::panic_any(text()) }))
        .route(
            "/task",
            get(async move || {
                let broken = tasks.spawn(async move { panic!("no such contact: {}", text()) }).await;
                broken.map_or("broke off", |()| "went on")
            }),
        );
    let limits = ListenerLimits {
        max_connections: 10,
        max_connections_per_address: 10,
        max_uri_bytes: 1_024,
        max_headers: 64,
        max_header_bytes: 16_384,
        header_timeout_ms: 5_000,
        idle_timeout_ms: 5_000,
        write_timeout_ms: 5_000,
        min_answer_bytes_per_s: 0,
        http2_plain: false,
        http2_max_streams: 1,
        drain_ms: 5_000,
    };
    let valve = server::Valve::new(server::ValveRules { max_requests_in_flight: 1, max_lag_ms: 0 });
    let (listener, address) = server::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let stop = CancellationToken::new();
    let asking = async {
        for route in ROUTES {
            let request = format!(
                "GET {route} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {}\r\nConnection: close\r\n\r\n",
                &route[1..]
            );
            let answer = asked(address, request).await;
            assert!(!answer.text.contains("canary"), "{}", answer.text);
            if route == "/task" {
                assert_eq!((answer.status, answer.text.as_str()), (200, "broke off"));
                continue;
            }
            assert_eq!(
                (answer.status, answer.json["code"].as_str()),
                (503, Some("internal")),
                "{route}: {}",
                answer.text
            );
            assert!(answer.json.get("attempted").is_none(), "nobody knows whether it was: {}", answer.text);
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            assert_eq!(answer.headers["x-request-id"], route[1..]);
            // There is place for one request alone: a panic that kept its place would be noticed.
            let next = asked(address, "GET /fine HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            assert_eq!((next.status, next.text.as_str()), (200, "fine"), "after {route}");
        }
        stop.cancel();
    };
    let serving = server::serve(listener, server::guarded(routes, None, valve), limits, None, stop.clone());
    within("the end of the listener", async { tokio::join!(serving, asking) }).await;
}

#[tokio::test]
async fn a_panic_is_a_problem_and_one_line_that_says_where_and_not_what() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "panics::handlers_that_panic", "--ignored", "--nocapture", "--test-threads", "1"]);
    command.env(HERE, "1").env("RUST_BACKTRACE", "full").env("NO_COLOR", "1").stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    let done = tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    let (out, log) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(done.status.success() && out.contains("1 passed"), "{out}{log}");
    assert!(!log.contains("canary") && !out.contains("canary"), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let panics: Vec<_> = lines.iter().filter(|line| line["message"].as_str().unwrap().contains("panicked")).collect();
    assert_eq!(panics.len(), ROUTES.len(), "{log}");
    for (route, line) in ROUTES.iter().zip(panics) {
        assert_eq!(line["level"], "ERROR", "{line}");
        assert!(line["place"].as_str().unwrap().contains(".rs:"), "{line}");
        assert_eq!(line["said"].as_str(), (*route == "/literal").then_some("the source says this"), "{line}");
        // The request that met with it can be found again.
        if *route != "/task" {
            assert_eq!(line["request"], route[1..], "{line}");
        }
    }
}
