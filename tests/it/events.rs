//! `GET /v1/deletions/{deletion}/events`: progress as it is made, and its end.

use onedelete::mock::Fault;
use serde_json::{Value, json};

use crate::support::{Flow, Running, Setup, flow, hold, id, ids, key, let_go, mock, read_key, send, within};

async fn events(gateway: &Running, key: String, deletion: &str) -> Flow {
    flow(gateway.client.get(gateway.url(&format!("/v1/deletions/{deletion}/events"))).bearer_auth(key)).await
}

/// All events until the stream ends in order.
async fn rest(mut events: Flow) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    while let Some(event) = events.event().await.unwrap() {
        all.push(event);
    }
    all
}

#[tokio::test]
async fn progress_is_told_until_the_end() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("wethod", 3);
    mock.seed(&id(&known[0]), false);
    hold(&mock);
    let contacts = json!([known[0], known[1], "no id"]);
    let deletion = gateway.post_async("acme", &json!({ "contacts": contacts, "reference": "R" })).await;
    let mut first = events(&gateway, key("acme"), &deletion).await;
    assert_eq!((first.status, &first.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    assert_eq!(first.headers["cache-control"], "no-store");
    let (name, data) = first.event().await.unwrap().unwrap();
    assert_eq!((name.as_str(), &data["state"], &data["id"]), ("progress", &json!("running"), &json!(deletion)));
    assert_eq!((&data["counts"]["pending"], &data["counts"]["rejected"]), (&json!(2), &json!(1)));
    assert_eq!((data.get("results"), &data["reference"]), (None, &json!("R")));
    // Whoever comes later is told the same, whoever hangs up holds nothing up.
    let second = events(&gateway, read_key("acme"), &deletion).await;
    drop(events(&gateway, key("acme"), &deletion).await);
    let_go(&mock);
    let (first, second) = tokio::join!(rest(first), rest(second));
    let last = first.last().unwrap();
    assert_eq!(second.last(), Some(last));
    assert!(first.iter().chain(&second).filter(|(name, _)| name == "finished").count() == 2);
    let mut settled = 0;
    for (_, data) in &first {
        let counts = &data["counts"];
        let now = 3 - counts["pending"].as_u64().unwrap();
        assert!(now >= settled, "progress goes back: {data}");
        settled = now;
    }
    // The last one is the deletion as it stays.
    let list = gateway.get("acme", "/v1/deletions").await;
    assert_eq!(last.1, list.json["deletions"][0]);
    assert_eq!(last.1["counts"]["deleted"], 1);
    // A browser that comes back after the last event is told to stop.
    let again = gateway.client.get(gateway.url(&format!("/v1/deletions/{deletion}/events")));
    let again = send(again.bearer_auth(key("acme")).header("last-event-id", "finished")).await;
    assert_eq!((again.status, again.text.as_str()), (204, ""));
    // Of a deletion that is finished there is one event.
    let after = rest(events(&gateway, key("acme"), &deletion).await).await;
    assert_eq!(after, std::slice::from_ref(last));
    gateway.stop().await;
}

#[tokio::test]
async fn a_stop_ends_the_stream_without_an_end_of_the_deletion() {
    let mock = mock("wethod").await;
    mock.fault_always(Some(Fault::Stall));
    let gateway = Setup::new().set("server.drain_ms", 400).mock("acme", "c", &mock, |_| {}).start().await;
    let deletion = gateway.post_async("acme", &json!({ "contacts": ids("wethod", 1) })).await;
    let mut stream = events(&gateway, key("acme"), &deletion).await;
    assert_eq!(stream.event().await.unwrap().unwrap().0, "progress");
    gateway.stop().await;
    assert_eq!(rest(stream).await, []);
    mock.stop().await;
}

#[tokio::test]
async fn cancelling_shows() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    hold(&mock);
    let deletion = gateway.post_async("acme", &json!({ "contacts": ids("wethod", 1) })).await;
    within("a call", mock.arrived(1)).await;
    let mut stream = events(&gateway, key("acme"), &deletion).await;
    assert_eq!(stream.event().await.unwrap().unwrap().1.get("cancelled_at"), None);
    let url = gateway.url(&format!("/v1/deletions/{deletion}/cancel"));
    let request = gateway.client.post(url).header("prefer", "respond-async").bearer_auth(key("acme"));
    assert_eq!(request.send().await.unwrap().status(), 202);
    let (name, data) = stream.event().await.unwrap().unwrap();
    assert!(name == "progress" && data["cancelled_at"].is_string(), "{data}");
    let_go(&mock);
    assert_eq!(rest(stream).await.last().unwrap().0, "finished");
    gateway.stop().await;
}
