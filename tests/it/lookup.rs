//! A deletion that was asked for: results as JSON Lines, and cancelling.

use onedelete::mock::Fault;
use serde_json::{Value, json};

use crate::support::{Setup, attempts, id, ids, key, mock, read_key, send};

#[tokio::test]
async fn results_are_lines_in_the_order_of_the_request() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).mock("other", "c", &mock, |_| {}).start().await;
    let known = ids("kore_ai", 2);
    mock.seed(&id(&known[0]), false);
    let answer = gateway.post("acme", &json!({ "contacts": [known[0], "no id", known[1]] })).await;
    let path = format!("/v1/deletions/{}/results", answer.json["id"].as_str().unwrap());
    let outcomes = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| format!("{} {}", line["index"], line["outcome"].as_str().unwrap())).collect()
    };
    let all = gateway.get("acme", &path).await;
    assert_eq!(all.headers["content-type"], "application/x-ndjson");
    assert_eq!(outcomes(&all.text), ["0 deleted", "1 rejected", "2 not_found"]);
    let some = gateway.get("acme", &format!("{path}?outcome=not_found,deleted")).await;
    assert_eq!(outcomes(&some.text), ["0 deleted", "2 not_found"]);
    assert_eq!(gateway.get("acme", &format!("{path}?outcome=gone")).await.status, 400);
    assert_eq!(gateway.get("acme", &format!("{path}?x=y")).await.status, 400);
    assert_eq!(gateway.get("other", &path).await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_cancelled_before_it_was_sent_is_skipped() {
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "c", &mock, |connection| {
        attempts(1)(connection);
        crate::support::table(connection, "limits").insert("max_in_flight".to_owned(), 1.into());
        crate::support::table(connection, "timeouts").insert("response_ms".to_owned(), 1_500.into());
    });
    let gateway = setup.mock("other", "c", &mock, |_| {}).start().await;
    let known = ids("wethod", 3);
    known.iter().for_each(|known| mock.seed(&id(known), false));
    mock.fault(Fault::Stall);
    let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
    let body = json!({ "contacts": known }).to_string();
    let accepted = send(request.header("prefer", "respond-async").bearer_auth(key("acme")).body(body)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    mock.arrived(1).await;

    let path = format!("/v1/deletions/{}/cancel", accepted.json["id"].as_str().unwrap());
    let cancel = |key: String| send(gateway.client.post(gateway.url(&path)).bearer_auth(key));
    assert_eq!(cancel(key("other")).await.status, 404);
    assert_eq!(cancel(read_key("acme")).await.status, 403);
    let answer = cancel(key("acme")).await;
    // The one in flight may have been carried out for all that the gateway can know.
    assert_eq!(answer.outcomes(), ["unknown", "skipped", "skipped"], "{}", answer.text);
    assert_eq!(answer.errors(), ["response_timeout", "cancelled", "cancelled"]);
    assert_eq!((answer.status, mock.journal().len()), (200, 1));
    assert_eq!(cancel(key("acme")).await.outcomes(), ["unknown", "skipped", "skipped"]);
    gateway.stop().await;
}
