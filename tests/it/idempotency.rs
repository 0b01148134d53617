//! A key acts once: the promise behind `Idempotency-Key`.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, hold, id, ids, key, let_go, mock, send, within};

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

#[tokio::test]
async fn a_tenant_can_ask_for_a_key_with_every_deletion() {
    let mock = mock("kore_ai").await;
    let setup = Setup::new().mock("acme", "c", &mock, |_| {}).mock("other", "c", &mock, |_| {});
    let gateway = setup.tenant("acme", |file| drop(file.insert("require_idempotency_key".to_owned(), true.into())));
    let gateway = gateway.start().await;
    let known = ids("kore_ai", 1);
    let members = json!({ "contacts": known });
    gateway.post("acme", &members).await.is_problem(428, "idempotency_key_required", "JSON");
    let answer = send(gateway.lines("acme", "", format!("{:?}\n", known[0]))).await;
    answer.is_problem(428, "idempotency_key_required", "JSON Lines");
    let short = format!("/v1/connections/c/contacts/{}", known[0]);
    gateway.delete("acme", &short).await.is_problem(428, "idempotency_key_required", "the short form");
    assert!(mock.journal().is_empty());
    // A dry run takes no notice of keys.
    let dry = json!({ "contacts": known, "dry_run": true });
    assert_eq!(gateway.post("acme", &dry).await.status, 200);
    let dry = gateway.lines("acme", "?dry_run=true", format!("{:?}\n", known[0])).header("idempotency-key", "no key");
    assert_eq!(send(dry).await.status, 200);
    let answer = send(gateway.lines("acme", "", format!("{:?}\n", known[0])).header("idempotency-key", "k")).await;
    assert_eq!(gateway.finished("acme", &answer.id()).await.outcomes(), ["not_found"]);
    assert_eq!(gateway.post("other", &members).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_under_way_is_found_where_there_is_no_room() {
    let mock = mock("wethod").await;
    let setup = Setup::new().durable().set("deletions.max_open_contacts_per_tenant", 1);
    let gateway = setup.mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("wethod", 2);
    known.iter().for_each(|known| mock.seed(&id(known), false));
    hold(&mock);
    let (one, other) = (json!({ "contacts": [known[0]] }), json!({ "contacts": [known[1]] }));
    let ask = async |name: &str, body: &Value| {
        let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
        let request = request.bearer_auth(key("acme")).header("prefer", "respond-async");
        send(request.header("idempotency-key", name).body(body.to_string())).await
    };
    let first = ask("k-1", &one).await;
    within("a call", mock.arrived(1)).await;
    let full = ask("k-2", &other).await;
    full.is_problem(503, "overloaded", "another deletion");
    let again = ask("k-1", &one).await;
    assert_eq!((again.status, again.id()), (202, first.id()), "{}", again.text);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    ask("k-1", &other).await.is_problem(422, "idempotency_key_reused", "another body");
    let_go(&mock);
    gateway.finished("acme", &first.id()).await;
    assert_eq!(ask("k-2", &other).await.headers.get("idempotency-replayed"), None, "it was not taken");
    gateway.stop().await;
}
