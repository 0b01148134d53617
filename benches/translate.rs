//! What a dialect costs by itself: plan, then interpret every reply, for 1, 100 and 10,000 contacts.
//!
//! The replies are made beforehand by the dialect's own double, which holds every contact, so all of it is success.
//! `plan+interpret/N` puts the profile's usual number of contacts into a call; `plan+interpret@M/N` the most that the
//! profile allows, where that is more. No socket, no credential, no engine.
//!
//! `cargo bench --bench translate` · one dialect: `-- kore_ai` · a quick look: `-- --quick`

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench, not a part of the product")]

#[path = "../src/mock/credential.rs"]
mod credential;

use std::hint::black_box;

use adapters::{Call, DIALECTS, Dialect, Finding, Registration, Slot, Target};
use bytes::Bytes;
use credential::{open, some_id, with_credential};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::Response;

const NOW_S: u64 = 1_000_000_000;

fn translate(criterion: &mut Criterion) {
    for registration in DIALECTS {
        let profile = registration.profile;
        let mut group = criterion.benchmark_group(profile.id);
        for n in [1, 100, 10_000] {
            let mut bench = |name: String, max_contacts_per_call: Option<usize>| {
                let (dialect, targets, replies) = scene(registration, max_contacts_per_call, n);
                group.throughput(Throughput::Elements(n as u64));
                group.bench_with_input(BenchmarkId::new(name, n), &targets, |bencher, targets| {
                    let whole = |targets| {
                        let plan = dialect.plan(black_box(targets));
                        for (call, reply) in plan.calls.iter().zip(&replies) {
                            black_box(dialect.interpret(call, black_box(reply)));
                        }
                        plan
                    };
                    bencher.iter_batched(|| targets.clone(), whole, BatchSize::LargeInput);
                });
            };
            bench("plan+interpret".to_owned(), None);
            let most = profile.contacts_per_call_ceiling;
            if n > profile.max_contacts_per_call && most > profile.max_contacts_per_call {
                bench(format!("plan+interpret@{most}"), Some(most));
            }
        }
    }
}

/// A dialect, `n` contacts for it, and the reply to each call that it plans for them.
fn scene(
    registration: &Registration,
    max_contacts_per_call: Option<usize>,
    n: usize,
) -> (Box<dyn Dialect>, Vec<Target>, Vec<Response<Bytes>>) {
    let mut connection: toml::Table = registration.example.parse().unwrap();
    if let Some(most) = max_contacts_per_call {
        connection.insert("max_contacts_per_call".to_owned(), (most as i64).into());
    }
    let dialect = open(registration, &connection);
    let slots = (0..).map(Slot);
    let targets: Vec<_> =
        slots.zip(0..n).map(|(slot, i)| Target { slot, identifier: some_id(registration, i) }).collect();
    let mut double = (registration.double)();
    for target in &targets {
        double.seed(&target.identifier, false);
    }
    let reply = |call: &Call| {
        let request = call.request.clone();
        let ask = |request| double.answer(&request, NOW_S).response;
        let request = with_credential(registration, &*dialect, &connection, request, ask);
        let reply = double.answer(&request, NOW_S).response;
        let findings = dialect.interpret(call, &reply).findings(call);
        assert!(findings.iter().all(|finding| matches!(finding, Finding::Deleted(_))), "{}", registration.profile.id);
        reply
    };
    let replies = dialect.plan(targets.clone()).calls.iter().map(reply).collect();
    (dialect, targets, replies)
}

criterion_group!(benches, translate);
criterion_main!(benches);
