//! `GET /v1/deletions`: pages, filters, and what a key may see.

use onedelete::mock::Fault;
use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, id, ids, key, mock, send};

fn shown(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let deletions = answer.json["deletions"].as_array().expect(&answer.text);
    deletions.iter().map(|each| each["id"].as_str().unwrap().to_owned()).collect()
}

async fn list(gateway: &Running, tenant: &str, query: &str) -> Vec<String> {
    shown(&gateway.get(tenant, &format!("/v1/deletions{query}")).await)
}

#[tokio::test]
async fn pages_join_up_while_new_deletions_come() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(gateway.post("acme", &json!({ "contacts": ids("kore_ai", 1) })).await.id());
    }
    all.reverse();
    for limit in [1, 2, 3, 7, 8] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = gateway.get("acme", &format!("/v1/deletions?limit={limit}{cursor}")).await;
            let ids = shown(&page);
            assert!(ids.len() <= limit);
            found.extend(ids);
            let Some(next) = page.json["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // It belongs before the first page, so no later one has it.
            gateway.post("acme", &json!({ "contacts": ids_of_one() })).await;
        }
        let before = list(&gateway, "acme", "?limit=500").await;
        assert_eq!(found, before[before.len() - found.len()..], "limit {limit}");
        assert!(found.ends_with(&all), "limit {limit}");
        all = before;
    }
    // The last page says that it is the last, also where it is full.
    let page = gateway.get("acme", &format!("/v1/deletions?limit={}", all.len())).await;
    assert_eq!((shown(&page), page.json.get("next_cursor")), (all.clone(), None));
    // Each is as it is by itself, without its results.
    let alone = gateway.get("acme", &format!("/v1/deletions/{}", all[0])).await;
    let listed = &page.json["deletions"][0];
    for member in ["id", "state", "created_at", "finished_at", "counts"] {
        assert_eq!(listed[member], alone.json[member], "{member}");
    }
    assert_eq!((listed.get("results"), &listed["connections"]), (None, &json!(["c"])));
    assert_eq!(listed["results_url"], format!("/v1/deletions/{}/results", all[0]));
    gateway.stop().await;
}

fn ids_of_one() -> Vec<String> {
    ids("kore_ai", 1)
}

#[tokio::test]
async fn a_list_can_be_narrowed_down() {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("server.drain_ms", 1);
    let gateway = setup.mock("acme", "c", &mock, |_| {}).mock("acme", "d", &mock, |_| {}).start().await;
    let post = async |connection: &str, reference: &str| {
        let body = json!({ "contacts": ids("wethod", 1), "connection": connection, "reference": reference });
        gateway.post("acme", &body).await.id()
    };
    let (a, b, c) = (post("c", "DSR 1&2").await, post("d", "DSR 1&2").await, post("d", "other").await);
    mock.fault_always(Some(Fault::Stall));
    let contacts = json!([{ "id": 1 }, { "id": 2, "connection": "d" }]);
    let both = gateway.post_async("acme", &json!({ "contacts": contacts })).await;
    for (query, expected) in [
        ("", vec![&both, &c, &b, &a]),
        ("?state=finished", vec![&c, &b, &a]),
        ("?state=running", vec![&both]),
        ("?reference=DSR+1%262", vec![&b, &a]),
        ("?reference=DSR", vec![]),
        ("?connection=c", vec![&both, &a]),
        ("?connection=d&state=finished", vec![&c, &b]),
        ("?connection=d&state=finished&limit=1", vec![&c]),
        ("?connection=nowhere", vec![]),
        (&format!("?cursor={c}"), vec![&b, &a]),
        (&format!("?cursor={a}"), vec![]),
    ] {
        assert_eq!(list(&gateway, "acme", query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    for (query, pointer, code) in [
        ("?state=done", "?state", "unknown_state"),
        ("?limit=0", "?limit", "wrong_number"),
        ("?limit=501", "?limit", "wrong_number"),
        ("?limit=-1", "?limit", "wrong_number"),
        ("?limit=1&limit=1", "?limit", "duplicate_parameter"),
        ("?state=running&state=finished", "?state", "duplicate_parameter"),
        ("?cursor=1", "?cursor", "unknown_cursor"),
        ("?order=asc", "?", "unknown_parameter"),
        ("?state", "?state", "unknown_state"),
    ] {
        let answer = gateway.get("acme", &format!("/v1/deletions{query}")).await;
        answer.is_problem(400, "invalid_request", query);
        let first = &answer.json["errors"][0];
        assert_eq!((first["pointer"].as_str(), first["code"].as_str()), (Some(pointer), Some(code)), "{query}");
    }
    mock.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_sees_what_is_wholly_within_its_connections() {
    let mock = mock("kore_ai").await;
    let limited = "odk_a-key-that-reaches-one-connection-0123456789";
    let setup = Setup::new().mock("acme", "c", &mock, |_| {}).mock("acme", "d", &mock, |_| {});
    let setup = setup.mock("other", "c", &mock, |_| {}).mock("other", "theirs", &mock, |_| {});
    let gateway = setup.tenant("acme", |file| {
        let hash = onedelete::api::sha256_hex(limited);
        let key: toml::Table = format!("name = \"c\"\nsha256 = {hash:?}\nconnections = [\"c\"]").parse().unwrap();
        file["api_keys"].as_array_mut().unwrap().push(key.into());
    });
    let gateway = gateway.start().await;
    let known = ids("kore_ai", 2);
    let post = async |tenant: &str, contacts: Value| {
        gateway.post(tenant, &json!({ "contacts": contacts, "reference": "R" })).await.id()
    };
    let within = post("acme", json!([known[0]])).await;
    let outside = post("acme", json!([{ "id": known[0], "connection": "d" }])).await;
    let across = post("acme", json!([known[0], { "id": known[1], "connection": "d" }])).await;
    let foreign = post("other", json!([known[0]])).await;
    let as_limited = |path: String| send(gateway.client.get(gateway.url(&path)).bearer_auth(limited));
    for query in ["", "?reference=R", "?connection=c", "?state=finished&limit=1"] {
        assert_eq!(shown(&as_limited(format!("/v1/deletions{query}")).await), [within.as_str()], "{query}");
    }
    let reader = gateway.client.get(gateway.url("/v1/deletions")).bearer_auth(crate::support::read_key("acme"));
    assert_eq!(shown(&send(reader).await), [across.as_str(), &outside, &within]);
    assert_eq!(list(&gateway, "acme", "").await, [across.as_str(), &outside, &within]);
    assert_eq!(list(&gateway, "other", "").await, [foreign.as_str()]);

    // What one may not see is what is not there, byte for byte: as a name in a filter, and behind every route.
    let absent = "del_01jdx5m0w2e8v9a4k7c3b6n1pq";
    let nothing = as_limited("/v1/deletions?connection=nowhere".to_owned()).await;
    for name in ["d", "theirs"] {
        let hidden = as_limited(format!("/v1/deletions?connection={name}")).await;
        assert_eq!(hidden.fingerprint(), nothing.fingerprint(), "{name}");
    }
    let end = gateway.get("acme", &format!("/v1/deletions?cursor={absent}")).await;
    // One's own oldest and a foreign one are older than none of one's own, as one that never was.
    let older = gateway.get("acme", &format!("/v1/deletions?cursor={within}")).await;
    assert_eq!(end.fingerprint(), older.fingerprint());
    for route in ["", "/results", "/events"] {
        let unknown = as_limited(format!("/v1/deletions/{absent}{route}")).await;
        unknown.is_problem(404, "not_found", route);
        for hidden in [&outside, &across, &foreign] {
            let answer = as_limited(format!("/v1/deletions/{hidden}{route}")).await;
            assert_eq!(answer.fingerprint(), unknown.fingerprint(), "{route}");
        }
        assert_eq!(as_limited(format!("/v1/deletions/{within}{route}")).await.status, 200, "{route}");
    }
    let cancel = |id: &str| {
        send(gateway.client.post(gateway.url(&format!("/v1/deletions/{id}/cancel"))).bearer_auth(key("acme")))
    };
    assert_eq!(cancel(&foreign).await.fingerprint(), cancel(absent).await.fingerprint());
    let nobody = send(gateway.client.get(gateway.url("/v1/deletions"))).await;
    nobody.is_problem(401, "unauthenticated", "no key");
    assert!(!mock.holds(&id(&known[0])));
    gateway.stop().await;
}
