//! What durability costs: 64 callers with one contact each, again and again, at a gateway on SQLite and at one that keeps
//! nothing, in turns. It prints requests a second and their ratio.
//!
//! `cargo bench --bench durable` · shorter: `-- --rounds 1 --requests 2000` · fail below a ratio: `-- --at-least 0.5`.
//! The callers and the mock are this process, on the same cores as the gateways.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench, not a part of the product"
)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use support::{Client, Gateway, mock, rate};

const CALLERS: usize = 64;

fn main() {
    let (mut rounds, mut requests, mut at_least) = (3, 20_000, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--rounds" => rounds = value().parse().unwrap(),
            "--requests" => requests = value().parse().unwrap(),
            "--at-least" => at_least = Some(value().parse::<f64>().unwrap()),
            "--bench" => {}
            other => panic!("{other} is not known"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mock, _) = runtime.block_on(mock("kore_ai", 0));
    let mut rates = [0.0; 2];
    for round in 0..rounds {
        for (place, store) in ["memory:", "sqlite:ledger.db"].into_iter().enumerate() {
            let gateway = Gateway::start(store, &mock, CALLERS as i64);
            run(&gateway, CALLERS * 4);
            let start = Instant::now();
            run(&gateway, requests);
            let rate = rate(requests, start);
            println!("round {} {store:<17} {rate:>8.0} requests/s", round + 1);
            rates[place] += rate / f64::from(rounds);
        }
    }
    runtime.block_on(mock.stop());
    let [memory, durable] = rates;
    println!("durable / memory: {:.2}", durable / memory);
    if let Some(least) = at_least {
        assert!(durable / memory >= least, "less than {least}");
    }
}

/// So many deletions of one contact, from all callers together.
fn run(gateway: &Gateway, requests: usize) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let open = AtomicUsize::new(requests);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.public);
                while open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let body =
                        format!("{{\"contacts\":[\"6960cbe9b155d194{:08x}\"]}}", NEXT.fetch_add(1, Ordering::Relaxed));
                    let answer = client.ask("POST /v1/deletions", "application/json", body.as_bytes());
                    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                }
            });
        }
    });
}
