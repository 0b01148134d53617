//! How many requests a second one mock process serves on one core, with no fault set: deletes of contacts that it has, one a
//! request, over connections that are kept.
//!
//! `cargo bench --bench mock` · longer: `-- --requests 200000` · fail below a bound: `-- --at-least 5000`. The mock is a
//! process of its own, kept to the last core where `taskset` is there; this process loads it from the others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench, not a part of the product"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use base64::Engine;
use serde_json::{Value, json};

const DIALECTS: [&str; 2] = ["kore_ai", "wethod"];
const CONNECTIONS: usize = 16;
/// Contacts in one request of the control API.
const SEEDS: usize = 20_000;

/// A mock that is killed when it is dropped.
struct Mock {
    child: Child,
    control: SocketAddr,
    upstream: Value,
}

fn main() {
    let (mut requests, mut at_least) = (100_000, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--requests" => requests = value().parse().unwrap(),
            "--at-least" => at_least = Some(value().parse::<f64>().unwrap()),
            "--bench" => {}
            other => panic!("{other} is not known"),
        }
    }
    for dialect in DIALECTS {
        let mock = Mock::start(dialect);
        let ids: Vec<_> = (0..requests).map(|n| id(dialect, n)).collect();
        for ids in ids.chunks(SEEDS) {
            assert_eq!(mock.ask("PUT", &format!("/upstreams/{dialect}/contacts"), &json!(ids))["seeded"], ids.len());
        }
        let rate = mock.load(&ids);
        let deleted = mock.ask(
            "POST",
            "/checks",
            &json!({ "checks": [
            { "check": "count", "kind": "delete", "exactly": requests }, { "check": "deleted_twice" },
        ] }),
        );
        assert_eq!(deleted["ok"], true, "{deleted}");
        assert_eq!(mock.ask("GET", &format!("/upstreams/{dialect}/contacts"), &Value::Null), json!([]));
        println!("{dialect:<10} {rate:>9.0} requests/s, {requests} deletes on one core");
        if let Some(least) = at_least {
            assert!(rate >= least, "{dialect}: fewer than {least} requests/s");
        }
    }
}

impl Mock {
    fn start(dialect: &str) -> Self {
        let cores = std::thread::available_parallelism().unwrap().get();
        let has_taskset = Command::new("taskset").arg("--version").stdout(Stdio::null()).status().is_ok();
        let mut command = Command::new(if has_taskset { "taskset" } else { env!("CARGO_BIN_EXE_onedelete") });
        if has_taskset {
            command.args(["-c", &(cores - 1).to_string(), env!("CARGO_BIN_EXE_onedelete")]);
        }
        command.args(["mock", dialect, "--port", "0", "--output", "json"]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let control = address(line["control"].as_str().unwrap());
        Self { child, control, upstream: line["upstreams"][0].clone() }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut client = Client::connect(self.control);
        let head = format!("{method} {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n\r\n", body.len());
        let (status, body) = client.exchange((head + &body).as_bytes());
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// Deletes all of them, and returns how many it was a second.
    fn load(&self, ids: &[String]) -> f64 {
        let address = address(self.upstream["base_url"].as_str().unwrap());
        let parts = ids.chunks(ids.len().div_ceil(CONNECTIONS));
        // Made before the clock starts.
        let parts: Vec<Vec<_>> = parts.map(|ids| ids.iter().map(|id| self.request(id)).collect()).collect();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for requests in &parts {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for request in requests {
                        let (status, body) = client.exchange(request);
                        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                    }
                });
            }
        });
        ids.len() as f64 / start.elapsed().as_secs_f64()
    }

    /// A delete as the dialect's own client sends it.
    fn request(&self, id: &str) -> Vec<u8> {
        let connection = &self.upstream["connection"];
        let text = |value: &Value| value.as_str().unwrap().trim_start_matches("plain:").to_owned();
        let credentials = &connection["credentials"];
        if self.upstream["dialect"] == DIALECTS[1] {
            let (token, company) = (text(&credentials["token"]), text(&connection["company"]));
            return format!(
                "DELETE /api/contact/{id} HTTP/1.1\r\nhost: mock\r\nauthorization: Bearer {token}\r\n\
                 wethod-company: {company}\r\nwethod-version: 2024-06-15\r\n\r\n"
            )
            .into_bytes();
        }
        let token = signed(&text(&credentials["client_id"]), &text(&credentials["client_secret"]));
        let (stream, account) = (text(&connection["stream_id"]), text(&connection["account_id"]));
        let body = json!({ "ids": [id] }).to_string();
        format!(
            "DELETE /agentassist/api/v1/public/{stream}/contacts/bulk-delete HTTP/1.1\r\nhost: mock\r\nauth: {token}\r\n\
             accountid: {account}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap()
}

fn id(dialect: &str, n: usize) -> String {
    if dialect == DIALECTS[0] { format!("6960cbe9b155d194{n:08x}") } else { (1_000_000 + n).to_string() }
}

/// A token without an end, signed with HS256 (RFC 7515).
fn signed(client_id: &str, secret: &str) -> String {
    use aws_lc_rs::hmac;
    let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let json = |json: Value| part(json.to_string().as_bytes());
    let text = format!("{}.{}", json(json!({ "alg": "HS256" })), json(json!({ "sub": "1", "appId": client_id })));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", part(signature.as_ref()))
}

/// One connection that is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request and reads its whole answer: status and body.
    fn exchange(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        self.0.get_mut().write_all(request).unwrap();
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the mock closed the connection");
            let text = line.trim_end();
            if text.is_empty() {
                break;
            } else if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if text.len() > 15 && text[..15].eq_ignore_ascii_case("content-length:") {
                length = text[15..].trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }
}
