//! Deletions that do not come to their own end: cancelled between two tries, stopped in order, or left without their
//! connection. What is said of them is only what is known.

use onedelete::mock::Fault;
use serde_json::json;

use crate::support::{Running, Setup, hold, id, ids, key, let_go, mock, send, table, within};

async fn cancel(gateway: &Running, deletion: &str) -> crate::support::Answer {
    let url = gateway.url(&format!("/v1/deletions/{deletion}/cancel"));
    send(gateway.client.post(url).bearer_auth(key("acme"))).await
}

#[tokio::test]
async fn what_was_turned_away_and_then_cancelled_is_failed_and_not_skipped() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().durable().mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("kore_ai", 1);
    mock.seed(&id(&known[0]), false);
    // The vendor names no wait, so the dialect waits for a minute.
    mock.fault(Fault::Html(429));
    let deletion = gateway.post_async("acme", &json!({ "contacts": known })).await;
    within("the call", mock.arrived(1)).await;
    let answer = within("the cancelled deletion", cancel(&gateway, &deletion)).await;
    assert_eq!(
        (answer.outcomes(), answer.errors()),
        (vec!["failed"], vec!["upstream_rate_limited"]),
        "{}",
        answer.text
    );
    assert_eq!(answer.json["results"][0]["attempts"], 1);
    assert!(mock.holds(&id(&known[0])));
    gateway.stop().await;
}

#[tokio::test]
async fn a_stop_leaves_no_call_in_doubt() {
    let mock = mock("wethod").await;
    let one_at_a_time = |connection: &mut toml::Table| {
        table(connection, "limits").insert("max_in_flight".to_owned(), 1.into());
    };
    let gateway =
        Setup::new().durable().set("server.drain_ms", 10_000).mock("acme", "c", &mock, one_at_a_time).start().await;
    let known = ids("wethod", 3);
    known.iter().for_each(|known| mock.seed(&id(known), false));
    hold(&mock);
    let deletion = gateway.post_async("acme", &json!({ "contacts": known })).await;
    within("the first call", mock.arrived(1)).await;
    // After half of the time nothing more is begun, and nothing outside shows it but the clock. The call that is under
    // way ends a little later.
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(6_500)).await;
        let_go(&mock);
    };
    let (folder, ()) = tokio::join!(gateway.stop_and_keep(), release);
    assert_eq!(mock.journal().len(), 1, "no call was begun after the halt");
    let gateway = Running::reopen(folder).await;
    let answer = gateway.finished("acme", &deletion).await;
    assert_eq!(answer.outcomes(), ["deleted"; 3], "{}", answer.text);
    assert!(answer.json["results"].as_array().unwrap().iter().all(|result| result["evidence"] == "status"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_gone_holds_up_its_own_contacts_alone() {
    let (kept, gone) = (mock("kore_ai").await, mock("wethod").await);
    let setup = Setup::new().durable().set("server.drain_ms", 1);
    let setup = setup.mock("acme", "kept", &kept, |_| {}).mock("acme", "gone", &gone, |_| {});
    let gateway = setup.start().await;
    let (stays, goes) = (ids("kore_ai", 1), ids("wethod", 1));
    kept.seed(&id(&stays[0]), false);
    kept.fault(Fault::Stall);
    gone.fault(Fault::Stall);
    let contacts = json!([{ "id": stays[0] }, { "connection": "gone", "id": goes[0] }]);
    let deletion = gateway.post_async("acme", &json!({ "contacts": contacts })).await;
    within("both calls", async { tokio::join!(kept.arrived(1), gone.arrived(1)) }).await;
    let folder = gateway.stop_and_keep().await;
    let file = folder.path().join("tenants/acme.toml");
    let mut tenant: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    tenant["connections"].as_table_mut().unwrap().remove("gone");
    std::fs::write(&file, toml::to_string(&tenant).unwrap()).unwrap();

    let gateway = Running::reopen(folder).await;
    within("the call of the connection that is kept", kept.arrived(2)).await;
    let answer = within("the cancelled deletion", cancel(&gateway, &deletion)).await;
    // The call to the one that is gone was in flight when the gateway stopped.
    assert_eq!(answer.outcomes(), ["deleted", "unknown"], "{}", answer.text);
    assert_eq!(answer.json["results"][1]["retry"], "verify_first");
    gateway.stop().await;
}
