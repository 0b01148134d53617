//! Tenants never meet: not in what they may see, and not in each other's latency when one upstream stalls.

use futures_util::future::join_all;
use onedelete::mock::Fault;
use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, id, ids, key, mock, read_key, send, table, within};

/// Deletions of tenant `quick` while the upstream of tenant `stalled` does not answer.
async fn beside_a_stalled_tenant(deletions: usize, lanes: i64, places: i64) {
    let (slow, fast) = (mock("wethod").await, mock("wethod").await);
    let gateway = Setup::new()
        .set("server.drain_ms", 1)
        .set("upstream.max_in_flight", places)
        .set("upstream.max_in_flight_per_tenant", (places / 4).max(1))
        .mock("stalled", "c", &slow, |connection| {
            table(connection, "limits").insert("max_in_flight".to_owned(), lanes.into());
        })
        .mock("quick", "c", &fast, |_| {})
        .start()
        .await;
    slow.fault_always(Some(Fault::Stall));
    let stuck = ids("wethod", deletions);
    let bodies: Vec<_> = stuck.iter().map(|each| json!({ "contacts": [each] })).collect();
    let waiting = join_all(bodies.iter().map(|body| gateway.post_async("stalled", body))).await;
    within("the first stalled call", slow.arrived(1)).await;

    let known = ids("wethod", 20);
    known.iter().for_each(|each| fast.seed(&id(each), false));
    let bodies: Vec<_> = known.iter().map(|each| json!({ "contacts": [each] })).collect();
    let answers = within("the other tenant", join_all(bodies.iter().map(|body| gateway.post("quick", body)))).await;
    assert!(answers.iter().all(|answer| answer.outcomes() == ["deleted"]));
    // All of them ended while none of the stalled did.
    for deletion in &waiting {
        let look = gateway.get("stalled", &format!("/v1/deletions/{deletion}")).await;
        assert_eq!(look.outcomes(), ["pending"], "{}", look.text);
    }
    assert_eq!(fast.deleted().len(), 20);
    assert!(slow.deleted().is_empty());
    slow.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_stalled_tenant_holds_nobody_up() {
    beside_a_stalled_tenant(40, 4, 64).await;
}

#[tokio::test]
async fn a_stalled_tenant_cannot_take_every_place_there_is() {
    beside_a_stalled_tenant(40, 40, 8).await;
}

async fn ask(gateway: &Running, method: &str, path: &str, key: Option<&str>, body: Option<&Value>) -> Answer {
    let mut request = gateway.client.request(method.parse().unwrap(), gateway.url(path));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    send(request).await
}

#[tokio::test]
async fn what_is_another_tenants_does_not_exist() {
    let (ours, theirs) = (mock("wethod").await, mock("wethod").await);
    let gateway = Setup::new()
        .mock("acme", "shared-name", &ours, |_| {})
        .mock("acme", "ours", &ours, |_| {})
        .mock("other", "shared-name", &theirs, |_| {})
        .mock("other", "theirs", &theirs, |_| {})
        .start()
        .await;
    let known = ids("wethod", 4);
    known.iter().for_each(|each| [&ours, &theirs].iter().for_each(|mock| mock.seed(&id(each), false)));
    // One name, two connections: each tenant's is its own.
    let mine = gateway.post("acme", &json!({ "contacts": [known[0]] })).await;
    let foreign = gateway.post("other", &json!({ "contacts": [known[1]] })).await;
    assert_eq!((ours.deleted(), theirs.deleted()), (vec![id(&known[0])], vec![id(&known[1])]));
    let (own_deletion, foreign_deletion) = (mine.id(), foreign.id());
    // As far from any real one as a well-formed name can be, and some that are not.
    let absent = "del_01jdx5m0w2e8v9a4k7c3b6n1pq";
    let contact = &known[2];
    let routes: [(&str, &str, bool); 6] = [
        ("GET", "/v1/deletions/{deletion}", false),
        ("GET", "/v1/deletions/{deletion}/results", false),
        ("GET", "/v1/deletions/{deletion}/events", false),
        ("POST", "/v1/deletions/{deletion}/cancel", true),
        ("GET", "/v1/connections/{connection}", false),
        ("DELETE", "/v1/connections/{connection}/contacts/{id}", true),
    ];
    let (all, reader) = (key("acme"), read_key("acme"));
    let keys = [("delete", Some(all.as_str())), ("read", Some(reader.as_str())), ("none", None)];
    let (before, other_before) = (ours.journal().len(), theirs.journal().len());
    for (method, route, deletes) in routes {
        let fill = |deletion: &str, connection: &str| {
            route.replace("{deletion}", deletion).replace("{connection}", connection).replace("{id}", contact)
        };
        let (own, strange, nowhere) =
            (fill(&own_deletion, "ours"), fill(&foreign_deletion, "theirs"), fill(absent, "nowhere"));
        for (access, key) in keys {
            let unknown = ask(&gateway, method, &nowhere, key, None).await;
            let found = ask(&gateway, method, &strange, key, None).await;
            assert_eq!(found.fingerprint(), unknown.fingerprint(), "{method} {route} with {access}");
            let (status, code) = match (access, deletes) {
                ("none", _) => (401, "unauthenticated"),
                ("read", true) => (403, "forbidden"),
                _ => (404, "not_found"),
            };
            unknown.is_problem(status, code, &format!("{method} {route} with {access}"));
            if !deletes && access != "none" {
                assert_eq!(ask(&gateway, method, &own, key, None).await.status, 200, "{method} {route} with {access}");
            }
        }
    }
    for odd in ["del_", "del_x", "DEL_01JDX5M0W2E8V9A4K7C3B6N1PQ", "del_01jdx5m0w2e8v9a4k7c3b6n1pqq", "%00", "..%2f"] {
        let unknown = gateway.get("acme", &format!("/v1/deletions/{absent}")).await;
        let found = gateway.get("acme", &format!("/v1/deletions/{odd}")).await;
        assert_eq!(found.fingerprint(), unknown.fingerprint(), "{odd}");
    }
    for (access, key) in keys {
        let body = |connection: &str| json!({ "connection": connection, "contacts": [contact] });
        let unknown = ask(&gateway, "POST", "/v1/deletions", key, Some(&body("nowhere"))).await;
        let found = ask(&gateway, "POST", "/v1/deletions", key, Some(&body("theirs"))).await;
        assert_eq!(found.fingerprint(), unknown.fingerprint(), "POST with {access}");
    }
    // What is listed is one's own, and no word of the other's is in any of it.
    let list = gateway.get("acme", "/v1/connections").await;
    let names: Vec<_> = list.json["connections"].as_array().unwrap().iter().map(|each| each["name"].clone()).collect();
    assert_eq!(names, [json!("ours"), json!("shared-name")]);
    assert!(!list.text.contains("theirs") && !list.text.contains("other"));
    let deletions = gateway.get("acme", "/v1/deletions").await;
    assert!(deletions.text.contains(&own_deletion) && !deletions.text.contains(&foreign_deletion));
    for filter in ["connection=theirs", &format!("cursor={foreign_deletion}")] {
        let found = gateway.get("acme", &format!("/v1/deletions?{filter}")).await;
        assert!(!found.text.contains(&foreign_deletion) && !found.text.contains("\"theirs\""), "{}", found.text);
    }
    assert_eq!((ours.journal().len(), theirs.journal().len()), (before, other_before), "something was sent");
    assert!(ours.holds(&id(contact)) && theirs.holds(&id(contact)));
    gateway.stop().await;
}

#[tokio::test]
async fn a_tenants_waiting_requests_leave_places_to_the_others() {
    let (slow, fast) = (mock("wethod").await, mock("wethod").await);
    let gateway = Setup::new()
        .set("server.drain_ms", 1)
        .set("server.max_requests_in_flight", 8)
        .mock("stalled", "c", &slow, |_| {})
        .mock("quick", "c", &fast, |_| {})
        .start()
        .await;
    slow.fault_always(Some(Fault::Stall));
    let bodies: Vec<_> = ids("wethod", 10).iter().map(|each| json!({ "contacts": [each] })).collect();
    let known = ids("wethod", 1);
    fast.seed(&id(&known[0]), false);
    let body = json!({ "contacts": known });
    let mut waiting = Box::pin(join_all(bodies.iter().map(|body| gateway.post("stalled", body))));
    let other = async {
        within("the stalled calls", slow.arrived(4)).await;
        within("the other tenant", gateway.post("quick", &body)).await
    };
    // The first two wait for their deletions; had all of them, no place would be left.
    tokio::select! {
        _ = &mut waiting => panic!("nobody waits"),
        answer = other => assert_eq!(answer.outcomes(), ["deleted"], "{}", answer.text),
    }
    drop(waiting);
    gateway.stop().await;
}

#[tokio::test]
async fn open_work_is_bounded_for_each_tenant() {
    let (slow, fast) = (mock("wethod").await, mock("wethod").await);
    let gateway = Setup::new()
        .set("server.drain_ms", 1)
        .set("deletions.max_open_contacts_per_tenant", 3)
        .mock("stalled", "c", &slow, |_| {})
        .mock("quick", "c", &fast, |_| {})
        .start()
        .await;
    slow.fault_always(Some(Fault::Stall));
    gateway.post_async("stalled", &json!({ "contacts": ids("wethod", 3) })).await;
    let more = gateway.post("stalled", &json!({ "contacts": ids("wethod", 1) })).await;
    more.is_problem(503, "overloaded", "a fourth contact");
    assert!(more.headers.contains_key("retry-after"));
    assert_eq!(more.json["attempted"], false);
    let other = gateway.post("quick", &json!({ "contacts": ids("wethod", 3) })).await;
    assert_eq!(other.status, 200, "{}", other.text);
    gateway.stop().await;
}
