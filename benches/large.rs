//! A million contacts through one gateway: read as a stream, carried out in calls of 100 at a mock, results read as a
//! stream. It prints contacts a second and the gateway's memory above idle.
//!
//! `cargo bench --bench large` · fewer: `-- --contacts 100000` · fail above a bound: `-- --max-mib 64` · another store:
//! `-- --store memory:`. The mock and the client are this process, on the same cores as the gateway: the figures are the
//! least that it can do. Memory is read from Linux' `/proc`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench, not a part of the product"
)]

mod support;

use std::time::{Duration, Instant};

use support::{Client, Gateway, mock, rate};

const LINES: usize = 2_000;

fn main() {
    let (mut contacts, mut max_mib, mut store) = (1_000_000, None, "sqlite:ledger.db".to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--contacts" => contacts = value().parse().unwrap(),
            "--max-mib" => max_mib = Some(value().parse::<f64>().unwrap()),
            "--store" => store = value(),
            "--bench" => {}
            other => panic!("{other} is not known"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mock, ids) = runtime.block_on(mock("kore_ai", contacts));
    let gateway = Gateway::start(&store, &mock, 8);
    let mut client = Client::connect(gateway.public);
    // Idle, but warm.
    let one = client.ask("POST /v1/deletions", "application/json", br#"{"contacts":["6960cbe9b155d194ffffffff"]}"#);
    assert_eq!(one.status, 200, "{}", String::from_utf8_lossy(&one.body));
    let (idle, _) = gateway.memory_kib();

    let start = Instant::now();
    let pieces =
        ids.chunks(LINES).map(|ids| ids.iter().flat_map(|id| format!("{{\"id\":\"{id}\"}}\n").into_bytes()).collect());
    let accepted = client.send("POST /v1/deletions", "application/x-ndjson", pieces);
    let text = String::from_utf8_lossy(&accepted.body).into_owned();
    assert_eq!(accepted.status, 202, "{text}");
    // The gateway closes a connection after a chunked body.
    let mut client = Client::connect(gateway.public);
    let id = serde_json::from_str::<serde_json::Value>(&text).unwrap()["id"].as_str().unwrap().to_owned();
    println!("accepted   {:>9.0} contacts/s", rate(contacts, start));
    loop {
        let list = client.ask("GET /v1/deletions?limit=1", "text/plain", b"");
        let list: serde_json::Value = serde_json::from_slice(&list.body).unwrap();
        if list["deletions"][0]["state"] == "finished" {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("finished   {:>9.0} contacts/s, from the first byte of the request to the end", rate(contacts, start));
    let (_, peak) = gateway.memory_kib();

    let reading = Instant::now();
    let (mut lines, mut deleted, mut rest) = (0, 0, Vec::new());
    let status = client.read(&format!("GET /v1/deletions/{id}/results"), |piece| {
        rest.extend_from_slice(piece);
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let index = format!("{{\"index\":{lines},");
            assert!(line.starts_with(index.as_bytes()), "{}", String::from_utf8_lossy(line));
            deleted += usize::from(line.windows(19).any(|text| text == b"\"outcome\":\"deleted\""));
            lines += 1;
        }
        rest.drain(..end);
    });
    assert_eq!((status, lines, deleted), (200, contacts, contacts));
    assert_eq!(mock.deleted().len(), contacts, "the mock deleted as many as the results say");
    println!("results    {:>9.0} lines/s", rate(contacts, reading));
    let (_, after) = gateway.memory_kib();
    let above = |kib: u64| kib.saturating_sub(idle) as f64 / 1_024.0;
    println!(
        "memory     {:>9.1} MiB idle, {:.1} MiB above it at the peak, {:.1} with the results",
        idle as f64 / 1_024.0,
        above(peak),
        above(after)
    );
    drop(gateway);
    runtime.block_on(mock.stop());
    if let Some(most) = max_mib {
        assert!(above(after) <= most, "more than {most} MiB above idle");
    }
}
