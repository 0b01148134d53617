//! The metrics add up: what they count of contacts, calls and deletions is what the results and the upstream's journal say.

use onedelete::mock::{Fault, Kind};
use serde_json::{Value, json};

use crate::support::{Setup, attempts, id, ids, mock, within};

/// The samples of a tenant's metric, by this label.
fn sums<'p>(page: &'p str, metric: &str, label: &str) -> Vec<(&'p str, u64)> {
    let lines =
        page.lines().filter(|line| line.starts_with(&format!("{metric}{{")) && line.contains("tenant=\"sums\""));
    let samples = lines.map(|line| {
        let value = line.split_once(&format!("{label}=\"")).unwrap().1.split('"').next().unwrap();
        (value, line.rsplit(' ').next().unwrap().parse().unwrap())
    });
    let mut samples: Vec<(&str, u64)> = samples.filter(|(_, count)| *count > 0).collect();
    samples.sort_unstable();
    samples
}

#[tokio::test]
async fn metrics_add_up_to_the_results_of_deletions_with_every_outcome() {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .set("upstream.breaker_failures", 1_000)
        .set("upstream.breaker_open_ms", 1)
        .mock("sums", "c", &mock, attempts(2))
        .start()
        .await;
    let mut dice = fastrand::Rng::with_seed(7);
    let (mut expected, mut deletions) = (std::collections::BTreeMap::<String, u64>::new(), 0);
    for round in 0..24 {
        let mut contacts: Vec<Value> = Vec::new();
        let known = ids("wethod", 4);
        mock.seed(&id(&known[0]), false);
        // One that the upstream does not let go.
        mock.seed(&id(&known[1]), true);
        contacts.extend(known.iter().map(|each| json!(each)));
        contacts.push(json!(known[0]));
        contacts.push(json!("no/number"));
        for _ in 0..dice.usize(0..6) {
            mock.fault(match dice.usize(0..6) {
                0 => Fault::CommitThenDrop,
                1 => Fault::Empty(500),
                2 => Fault::CutBody,
                3 => Fault::Html(200),
                4 => Fault::Empty(405),
                _ => Fault::Plain,
            });
        }
        if round % 6 == 5 {
            mock.fault_always(Some(Fault::Empty(500)));
        }
        dice.shuffle(&mut contacts);
        let answer = gateway.post("sums", &json!({ "contacts": contacts })).await;
        mock.fault_always(None);
        let answer = gateway.finished("sums", &answer.id()).await;
        deletions += 1;
        for outcome in answer.outcomes() {
            *expected.entry(outcome.to_owned()).or_default() += 1;
        }
    }
    // What is cancelled before it is sent.
    mock.clear_faults();
    mock.fault_always(Some(Fault::Hold));
    let waits = gateway.post_async("sums", &json!({ "contacts": ids("wethod", 9) })).await;
    within("the first calls", async {
        while mock.held() < 1 {
            gateway.metrics().await;
        }
    })
    .await;
    let url = gateway.url(&format!("/v1/deletions/{waits}/cancel"));
    crate::support::send(gateway.client.post(url).bearer_auth(crate::support::key("sums")).header("prefer", "wait=0"))
        .await;
    crate::support::let_go(&mock);
    let cancelled = gateway.finished("sums", &waits).await;
    deletions += 1;
    for outcome in cancelled.outcomes() {
        *expected.entry(outcome.to_owned()).or_default() += 1;
    }
    for outcome in ["deleted", "not_found", "rejected", "failed", "unknown", "skipped"] {
        assert!(expected.contains_key(outcome), "no contact was {outcome}: {expected:?}");
    }
    let page = gateway.metrics().await;
    let counted = sums(&page, "onedelete_contacts_total", "outcome");
    let expected: Vec<_> = expected.iter().map(|(outcome, contacts)| (outcome.as_str(), *contacts)).collect();
    assert_eq!(counted, expected);
    assert_eq!(sums(&page, "onedelete_deletions_total", "event"), [("accepted", deletions), ("finished", deletions)]);
    // Each call that was made, and none more.
    let deletes = mock.journal().iter().filter(|entry| entry.kind == Kind::Delete).count() as u64;
    let calls: u64 = sums(&page, "onedelete_calls_total", "status").iter().map(|(_, calls)| calls).sum();
    assert_eq!(calls, deletes);
    assert_eq!(sums(&page, "onedelete_call_seconds_count", "dialect"), [("wethod", deletes)]);
    gateway.stop().await;
}
