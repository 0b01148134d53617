//! What a stop, a restart or a crash leaves: every deletion that was accepted, no claim that is not true, and no
//! identifier once a deletion is finished.

use std::path::Path;
use std::time::Duration;

use adapters::Identifier;
use onedelete::mock::{Fault, Mock};
use serde_json::json;

use crate::faults::claims_are_true;
use crate::support::{Setup, hold, id, ids, let_go, mock, within};

/// Whether a file in the folder holds this text.
fn is_in(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).any(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

fn deletes(mock: &Mock) -> usize {
    mock.journal().iter().filter(|entry| !entry.sign_in).count()
}

#[tokio::test]
async fn a_finished_deletion_survives_a_restart() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().durable().mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("kore_ai", 4);
    mock.seed(&id(&known[0]), false);
    mock.seed(&id(&known[2]), true);
    let body = json!({
        "contacts": [{ "id": known[0], "ref": "row-1" }, known[1], known[2], known[0], "no id"],
        "reason": "gdpr_erasure", "reference": "DSR-1042",
    });
    let answer = gateway.post("acme", &body).await;
    assert_eq!(answer.outcomes(), ["deleted", "not_found", "failed", "skipped", "rejected"]);
    let before = mock.journal().len();
    let gateway = gateway.restart().await;
    let kept = gateway.get("acme", &format!("/v1/deletions/{}", answer.id())).await;
    assert_eq!((kept.status, kept.json), (200, answer.json));
    assert_eq!(mock.journal().len(), before, "what is finished is not sent again");
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_in_flight_at_the_stop_goes_on_without_a_false_claim() {
    // Not carried out, carried out and not answered; and what may be said of each afterwards.
    for (fault, expected) in [
        (Fault::Stall, [("deleted", "item"), ("deleted", "status"), ("unknown", "none")]),
        (
            Fault::Delay(Duration::from_secs(60)),
            [("not_found", "inferred"), ("not_found", "inferred"), ("unknown", "none")],
        ),
    ] {
        let (crm, sales, lists) = (mock("kore_ai").await, mock("wethod").await, mock("talkdesk").await);
        let gateway = Setup::new()
            .durable()
            .set("server.drain_ms", 50)
            .mock("acme", "crm", &crm, |_| {})
            .mock("acme", "sales", &sales, |_| {})
            .mock("acme", "lists", &lists, |_| {})
            .start()
            .await;
        let (hex, number) = (ids("kore_ai", 1).remove(0), ids("wethod", 1).remove(0));
        let phone = Identifier::Phone("+14155550100".into());
        crm.seed(&id(&hex), false);
        sales.seed(&id(&number), false);
        lists.seed(&phone, false);
        [&crm, &sales, &lists].iter().for_each(|mock| mock.fault(fault.clone()));
        let deletion = gateway
            .post_async(
                "acme",
                &json!({ "contacts": [
                { "id": hex },
                { "id": number, "connection": "sales" },
                { "phone": "+14155550100", "connection": "lists" },
            ] }),
            )
            .await;
        within("the calls", async { tokio::join!(crm.arrived(1), sales.arrived(1), lists.arrived(2)) }).await;
        let gateway = gateway.restart().await;
        let answer = gateway.finished("acme", &deletion).await;
        let results = answer.json["results"].as_array().unwrap();
        for ((result, contact), (mock, (outcome, evidence))) in results
            .iter()
            .zip([id(&hex), id(&number), phone.clone()])
            .zip([&crm, &sales, &lists].into_iter().zip(expected))
        {
            let told = (result["outcome"].as_str().unwrap(), result["evidence"].as_str().unwrap());
            assert_eq!(told, (outcome, evidence), "{fault:?}: {}", answer.text);
            let there = mock.holds(&contact);
            assert!(!there || result["absent"] != true, "{fault:?}: {result}");
        }
        assert_eq!(results[2]["retry"], "verify_first", "{fault:?}");
        assert_eq!(deletes(&lists), 1, "{fault:?}: a phone that may be gone was sent again");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_deletion_is_on_disk_before_its_first_call() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().durable().set("server.drain_ms", 50).mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("wethod", 12);
    known.iter().for_each(|each| mock.seed(&id(each), false));
    hold(&mock);
    let deletion = gateway.post_async("acme", &json!({ "contacts": known, "reference": "DSR-1" })).await;
    within("a call", mock.arrived(1)).await;
    assert_eq!(mock.deleted().len(), 0, "the mock holds every call back");
    // Whatever reached the mock is in what another process would find now.
    let second = gateway.crashed_copy().await;
    let found = second.get("acme", &format!("/v1/deletions/{deletion}")).await;
    assert_eq!((found.status, &found.json["reference"]), (200, &json!("DSR-1")), "{}", found.text);
    let_go(&mock);
    let answer = second.finished("acme", &deletion).await;
    let contacts: Vec<_> = known.iter().map(|each| id(each)).collect();
    // Two processes at work on one deletion is worse than any crash; still nothing false is said.
    assert!(answer.outcomes().iter().all(|outcome| ["deleted", "not_found"].contains(outcome)), "{}", answer.text);
    assert!(contacts.iter().all(|contact| !mock.holds(contact)));
    second.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_not_sent_at_the_stop_is_sent_after_it() {
    let mock = mock("onlyoffice").await;
    mock.fault_always(Some(Fault::Stall));
    let gateway = Setup::new().durable().set("server.drain_ms", 50).mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("onlyoffice", 30);
    known.iter().step_by(2).for_each(|each| mock.seed(&id(each), false));
    let deletion = gateway.post_async("acme", &json!({ "contacts": known })).await;
    within("the first calls", mock.arrived(4)).await;
    let gateway = gateway.restart().await;
    let look = gateway.get("acme", &format!("/v1/deletions/{deletion}")).await;
    assert_eq!((look.status, &look.json["state"]), (200, &json!("running")));
    assert!(look.outcomes().iter().all(|outcome| *outcome == "pending"), "{}", look.text);
    // Stopped once more with calls in flight, then the upstream comes to itself.
    within("calls after the restart", mock.arrived(8)).await;
    mock.fault_always(None);
    let gateway = gateway.restart().await;
    let answer = gateway.finished("acme", &deletion).await;
    let contacts: Vec<_> = known.iter().map(|each| id(each)).collect();
    claims_are_true(&answer, &contacts, &mock, "after two restarts");
    assert_eq!(answer.json["counts"]["deleted"], 15, "{}", answer.text);
    assert_eq!(answer.json["counts"]["not_found"], 15, "{}", answer.text);
    gateway.stop().await;
}

#[tokio::test]
async fn identifiers_leave_the_ledger_with_the_end_of_the_deletion() {
    let (sales, lists) = (mock("wethod").await, mock("talkdesk").await);
    let gateway = Setup::new()
        .durable()
        .mock("acme", "sales", &sales, |_| {})
        .mock("acme", "lists", &lists, |_| {})
        .start()
        .await;
    hold(&sales);
    // Texts that nothing else in the file could look like.
    let texts = ["7331900123456789", "+14155559371", "canary-provider", "canary-external"];
    let body = json!({ "contacts": [
        texts[0],
        { "phone": texts[1], "connection": "lists" },
        { "external": { "provider": texts[2], "id": texts[3] }, "connection": "lists" },
        "canary/hostile",
    ] });
    let deletion = gateway.post_async("acme", &body).await;
    within("a call", sales.arrived(1)).await;
    assert!(is_in(gateway.folder(), texts[3]), "the deletion is not on disk while it runs, or this test cannot see it");
    let_go(&sales);
    let answer = gateway.finished("acme", &deletion).await;
    assert_eq!(answer.json["counts"]["pending"], 0);
    let folder = gateway.stop_and_keep().await;
    for text in texts.iter().chain(&["canary/hostile"]) {
        assert!(!is_in(folder.path(), text), "{text} is still on disk");
    }
    assert!(is_in(folder.path(), "sales"), "the results themselves are kept");
}
