//! A key acts once: the promise behind `Idempotency-Key`.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, id, ids, key, mock, send};

async fn post(gateway: &Running, tenant: &str, name: &str, body: &Value) -> Answer {
    let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
    send(request.bearer_auth(key(tenant)).header("idempotency-key", name).body(body.to_string())).await
}

#[tokio::test]
async fn the_same_key_and_body_are_the_same_deletion() {
    let mock = mock("kore_ai").await;
    let setup = Setup::new().durable().mock("acme", "c", &mock, |_| {}).mock("other", "c", &mock, |_| {});
    let gateway = setup.start().await;
    let known = ids("kore_ai", 2);
    known.iter().for_each(|known| mock.seed(&id(known), false));
    let body = json!({ "contacts": [{ "id": known[0] }] });

    let first = post(&gateway, "acme", "\"k-1\"", &body).await;
    assert_eq!((first.status, first.headers.get("idempotency-replayed")), (200, None), "{}", first.text);
    mock.seed(&id(&known[0]), false);
    // Quoted or not, spelt in another case, written in another order: the same.
    let again =
        post(&gateway, "acme", "k-1", &json!({ "dry_run": false, "contacts": [known[0].to_uppercase()] })).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.json, first.json);
    assert_eq!(mock.deleted().len(), 1);

    let other = post(&gateway, "acme", "k-1", &json!({ "contacts": [known[1]] })).await;
    assert_eq!((other.status, other.json["code"].as_str()), (422, Some("idempotency_key_reused")), "{}", other.text);
    assert_eq!(other.json["attempted"], false);
    assert_eq!(mock.deleted().len(), 1);

    // Another tenant's key of the same name is another key.
    let elsewhere = post(&gateway, "other", "k-1", &body).await;
    assert_eq!((elsewhere.status, mock.deleted().len()), (200, 2), "{}", elsewhere.text);

    // A restart forgets no key.
    let gateway = gateway.restart().await;
    let after = post(&gateway, "acme", "k-1", &body).await;
    assert_eq!((after.json, after.headers["idempotency-replayed"].as_bytes()), (first.json, b"true".as_slice()));
    assert_eq!(mock.deleted().len(), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_hundred_at_once_are_one_deletion() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().durable().mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("kore_ai", 1);
    mock.seed(&id(&known[0]), false);
    let body = json!({ "contacts": [known[0]] });
    let answers = join_all((0..100).map(|_| post(&gateway, "acme", "storm", &body))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.json["id"] == answers[0].json["id"]));
    let new = answers.iter().filter(|answer| !answer.headers.contains_key("idempotency-replayed"));
    assert_eq!(new.count(), 1);
    let sent = mock.journal().iter().filter(|entry| !entry.sign_in).count();
    assert_eq!((sent, mock.deleted().len()), (1, 1));
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    for bad in ["", "\"\"", "a b", &"x".repeat(256)] {
        let answer = post(&gateway, "acme", bad, &json!({ "contacts": ids("kore_ai", 1) })).await;
        assert_eq!((answer.status, answer.json["attempted"].as_bool()), (400, Some(false)), "{bad:?}: {}", answer.text);
    }
    assert!(mock.journal().is_empty());
    gateway.stop().await;
}
