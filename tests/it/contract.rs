//! The contract as callers see it: results, counts, duplicates, dry runs, waiting, the shorthand, what may be looked at.
//!
//! What a bad request gets is in `refusals`, what a bad upstream makes of a deletion in `faults`.

use adapters::{DIALECTS, Identifier};
use onedelete::mock::Fault;
use serde_json::{Value, json};

use crate::support::{Answer, Setup, attempts, hold, id, ids, key, let_go, mock, send, within};

fn phone(text: &str) -> Identifier {
    Identifier::Phone(text.into())
}

fn external(provider: &str, id: &str) -> Identifier {
    Identifier::External { provider: provider.into(), id: id.into() }
}

/// Fails unless the counts are those of the results, every result has its index, and all asked are there.
fn adds_up(answer: &Answer, asked: usize) {
    let results = answer.json["results"].as_array().unwrap();
    assert_eq!(results.len(), asked);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["index"], n, "{}", answer.text);
    }
    let counts = answer.json["counts"].as_object().unwrap();
    for (name, count) in counts {
        let expected =
            if name == "requested" { asked } else { results.iter().filter(|r| r["outcome"] == name.as_str()).count() };
        assert_eq!(*count, expected, "{name}: {}", answer.text);
    }
    assert_eq!(counts.len(), 9, "{}", answer.text);
}

#[tokio::test]
async fn results_stand_in_request_order_whatever_the_connection_and_the_kind() {
    let (crm, lists, sales) = (mock("kore_ai").await, mock("talkdesk").await, mock("wethod").await);
    let gateway = Setup::new()
        .mock("acme", "crm", &crm, |_| {})
        .mock("acme", "lists", &lists, |_| {})
        .mock("acme", "sales", &sales, |_| {})
        .start()
        .await;
    let (known, numbers) = (ids("kore_ai", 3), ids("wethod", 3));
    crm.seed(&id(&known[0]), false);
    crm.seed(&id(&known[2]), true);
    lists.seed(&phone("+14155550100"), false);
    lists.seed(&external("salesforce", "003DL0000212DetYAE"), false);
    sales.seed(&id(&numbers[0]), false);
    sales.seed(&id(&numbers[2]), true);
    let body = json!({
        "contacts": [
            { "id": known[0], "ref": "row-1" },
            { "connection": "sales", "id": numbers[2], "ref": "held" },
            { "connection": "lists", "phone": "+14155550100" },
            known[1],
            { "connection": "sales", "id": numbers[0].parse::<u64>().unwrap() },
            { "connection": "lists", "external": { "provider": "salesforce", "id": "003DL0000212DetYAE" } },
            { "id": known[2], "ref": "row-7" },
            { "connection": "sales", "id": numbers[1] },
            { "id": "filter" },
        ],
        "reason": "gdpr_erasure", "reference": "DSR-1042",
    });
    let answer = gateway.post("acme", &body).await;
    assert_eq!(answer.status, 207);
    adds_up(&answer, 9);
    let outcomes = answer.outcomes();
    let expected =
        ["deleted", "rejected", "deleted", "not_found", "deleted", "deleted", "failed", "not_found", "rejected"];
    assert_eq!(outcomes, expected, "{}", answer.text);
    let member = |name: &str| -> Vec<Value> {
        answer.json["results"].as_array().unwrap().iter().map(|result| result[name].clone()).collect()
    };
    assert_eq!(
        member("ref"),
        [
            json!("row-1"),
            json!("held"),
            json!(null),
            json!(null),
            json!(null),
            json!(null),
            json!("row-7"),
            json!(null),
            json!(null)
        ]
    );
    let connections = ["crm", "sales", "lists", "crm", "sales", "lists", "crm", "sales", "crm"];
    assert_eq!(member("connection"), connections.map(Value::from));
    // One that the upstream left alone without saying why (row-7) is not known to be there.
    let (yes, no, open) = (json!(true), json!(false), json!(null));
    assert_eq!(member("absent"), [&yes, &no, &yes, &yes, &yes, &yes, &open, &yes, &open].map(Clone::clone));
    assert_eq!(answer.json["reason"], "gdpr_erasure");
    assert_eq!(answer.json["reference"], "DSR-1042");
    assert_eq!(answer.json["state"], "finished");
    // The mocks agree.
    assert_eq!(crm.deleted(), [id(&known[0])]);
    assert_eq!(sales.deleted(), [id(&numbers[0])]);
    assert_eq!(lists.deleted().len(), 2);
    assert!(crm.holds(&id(&known[2])) && sales.holds(&id(&numbers[2])));
    // No identifier comes back, and none went where it has no business: a `ref` never leaves the gateway.
    let secret =
        known.iter().chain(&numbers).map(String::as_str).chain(["+14155550100", "4155550100", "003DL", "filter"]);
    for text in secret {
        assert!(!answer.text.contains(text), "{text} is in {}", answer.text);
    }
    for entry in crm.journal().iter().chain(&lists.journal()).chain(&sales.journal()) {
        let seen = format!("{} {:?} {}", entry.path, entry.headers, String::from_utf8_lossy(&entry.body));
        for text in ["row-1", "row-7", "gdpr_erasure", "DSR-1042"] {
            assert!(!seen.contains(text), "{text} was sent upstream");
        }
    }
    // What is kept says the same.
    let kept = gateway.get("acme", &format!("/v1/deletions/{}", answer.id())).await;
    assert_eq!((kept.status, &kept.json), (200, &answer.json));
    gateway.stop().await;
}

#[tokio::test]
async fn a_contact_goes_to_its_own_connection_then_the_requests_then_the_tenants() {
    let (first, second, third) = (mock("wethod").await, mock("wethod").await, mock("wethod").await);
    let gateway = Setup::new()
        .mock("acme", "first", &first, |_| {})
        .mock("acme", "second", &second, |_| {})
        .mock("acme", "third", &third, |_| {})
        .start()
        .await;
    let known = ids("wethod", 4);
    for each in &known {
        [&first, &second, &third].iter().for_each(|mock| mock.seed(&id(each), false));
    }
    // A bare string and a bare integer, at the tenant's default.
    let number: u64 = known[1].parse().unwrap();
    assert_eq!(gateway.post("acme", &json!({ "contacts": [known[0], number] })).await.status, 200);
    assert_eq!(first.deleted(), [id(&known[0]), id(&known[1])]);
    let body = json!({ "connection": "second", "contacts": [known[2], { "id": known[3], "connection": "third" }] });
    assert_eq!(gateway.post("acme", &body).await.status, 200);
    assert_eq!((second.deleted(), third.deleted()), (vec![id(&known[2])], vec![id(&known[3])]));
    assert_eq!(first.deleted().len(), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_duplicate_is_skipped_and_is_what_its_twin_is() {
    // `true`: the dialect's ids are hexadecimal, and their case does not matter.
    for (dialect, hexadecimal) in
        [("kore_ai", true), ("talkdesk", true), ("bas_ip", true), ("wethod", false), ("onlyoffice", false)]
    {
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, attempts(1)).start().await;
        let known = loop {
            let id = ids(dialect, 1).remove(0);
            if !hexadecimal || id.to_uppercase() != id {
                break id;
            }
        };
        mock.seed(&id(&known), false);
        let again = if hexadecimal { known.to_uppercase() } else { known.clone() };
        let body = json!({ "contacts": [known, { "id": again, "ref": "again" }, known] });
        let answer = gateway.post("acme", &body).await;
        assert_eq!(answer.status, 200, "{dialect}: {}", answer.text);
        adds_up(&answer, 3);
        assert_eq!(answer.outcomes(), ["deleted", "skipped", "skipped"], "{dialect}");
        for twin in [1, 2] {
            let result = &answer.json["results"][twin];
            assert_eq!(result["duplicate_of"], 0, "{dialect}");
            assert_eq!((&result["absent"], &result["attempts"]), (&json!(true), &json!(0)), "{dialect}");
            assert_eq!(
                (&result["error"]["code"], &result["retry"]),
                (&json!("duplicate"), &json!("safe")),
                "{dialect}"
            );
        }
        let deletes = mock.journal().iter().filter(|entry| !entry.sign_in).count();
        assert_eq!((deletes, mock.deleted().len()), (1, 1), "{dialect}");
        // A twin whose end nobody knows makes the duplicate's unknown as well.
        let lost = ids(dialect, 1).remove(0);
        mock.seed(&id(&lost), false);
        mock.fault(Fault::CommitThenDrop);
        let answer = gateway.post("acme", &json!({ "contacts": [lost, lost] })).await;
        assert_eq!(answer.outcomes(), ["unknown", "skipped"], "{dialect}: {}", answer.text);
        assert_eq!((answer.status, &answer.json["results"][1]["absent"]), (207, &Value::Null), "{dialect}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_dry_run_sends_nothing_and_names_its_calls_without_identifiers() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
        let known = ids(dialect, 3);
        mock.seed(&id(&known[0]), false);
        let body = json!({ "contacts": [known[0], known[1], "no such/id", known[0], known[2]], "dry_run": true });
        let answer = gateway.post("acme", &body).await;
        assert_eq!(answer.status, 200, "{dialect}: {}", answer.text);
        adds_up(&answer, 5);
        let expected = ["would_delete", "would_delete", "rejected", "skipped", "would_delete"];
        assert_eq!(answer.outcomes(), expected, "{dialect}");
        assert_eq!((&answer.json["id"], &answer.json["dry_run"]), (&Value::Null, &json!(true)), "{dialect}");
        let calls = answer.json["calls"].as_array().unwrap();
        let mut covered: Vec<_> = calls.iter().flat_map(|call| call["contacts"].as_array().unwrap()).collect();
        covered.sort_by_key(|slot| slot.as_u64());
        assert_eq!(covered, [&json!(0), &json!(1), &json!(4)], "{dialect}");
        for call in calls {
            assert!(call["url"].as_str().unwrap().starts_with(mock.base_url()), "{dialect}: {call}");
            assert!(call["method"].is_string() && call["connection"] == "c", "{dialect}: {call}");
        }
        for text in known.iter().map(String::as_str).chain(["no such"]) {
            assert!(!answer.text.contains(text), "{dialect}: {text} is in {}", answer.text);
        }
        assert!(mock.journal().is_empty(), "{dialect}: {:?}", mock.journal());
        assert!(mock.holds(&id(&known[0])), "{dialect}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_identifier_the_dialect_has_no_grammar_for_stops_nobody_else() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
        let known = ids(dialect, 2);
        known.iter().for_each(|each| mock.seed(&id(each), false));
        let takes_phones = registration.profile.identifiers.len() > 1;
        let bad_phone = if takes_phones { "4155550100" } else { "+14155550100" };
        let body = json!({ "contacts": [known[0], "../x", { "phone": bad_phone }, known[1]] });
        let answer = gateway.post("acme", &body).await;
        assert_eq!(answer.status, 207, "{dialect}: {}", answer.text);
        assert_eq!(answer.outcomes(), ["deleted", "rejected", "rejected", "deleted"], "{dialect}");
        let expected = if takes_phones { "invalid_identifier" } else { "unsupported_identifier" };
        assert_eq!(answer.errors(), ["-", "invalid_identifier", expected, "-"], "{dialect}");
        for refused in [1, 2] {
            let result = &answer.json["results"][refused];
            assert_eq!((&result["attempts"], &result["retry"]), (&json!(0), &json!("never")), "{dialect}");
            assert_eq!((&result["absent"], &result["evidence"]), (&Value::Null, &json!("none")), "{dialect}");
        }
        assert_eq!(mock.deleted().len(), 2, "{dialect}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn whoever_does_not_wait_gets_an_address_to_look_at() {
    for (prefer, applied) in
        [("wait=0", "wait=0"), ("respond-async", "respond-async"), ("respond-async, wait=5", "respond-async")]
    {
        let mock = mock("wethod").await;
        let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
        let known = ids("wethod", 2);
        mock.seed(&id(&known[0]), false);
        hold(&mock);
        let body = json!({ "contacts": [{ "id": known[0], "ref": "r" }, known[1], "bad id"], "reason": "why" });
        let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
        let answer = send(request.header("prefer", prefer).bearer_auth(key("acme")).body(body.to_string())).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let address = format!("/v1/deletions/{}", answer.id());
        assert_eq!(answer.headers["location"], address);
        assert_eq!(answer.headers["preference-applied"], applied);
        assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
        adds_up(&answer, 3);
        within("a call", mock.arrived(1)).await;
        let look = gateway.get("acme", &address).await;
        assert_eq!((look.status, &look.json["state"]), (200, &json!("running")), "{}", look.text);
        assert_eq!(look.outcomes(), ["pending", "pending", "rejected"]);
        assert_eq!(look.json["results"][0]["absent"], Value::Null);
        assert_eq!((&look.json["reason"], look.json.get("finished_at")), (&json!("why"), None));
        adds_up(&look, 3);
        let_go(&mock);
        let end = gateway.finished("acme", &answer.id()).await;
        assert_eq!(end.outcomes(), ["deleted", "not_found", "rejected"]);
        assert!(end.json["finished_at"].is_string());
        adds_up(&end, 3);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_wait_that_is_too_short_is_told_so() {
    let mock = mock("wethod").await;
    mock.fault_always(Some(Fault::Stall));
    let gateway = Setup::new()
        .set("deletions.max_wait_s", 0)
        .set("server.drain_ms", 1)
        .mock("acme", "c", &mock, |_| {})
        .start()
        .await;
    let known = ids("wethod", 1).remove(0);
    // The most that may be waited for is a setting: whoever asks for more is told what was applied.
    let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
    let request = request.header("prefer", "wait=3600").bearer_auth(key("acme"));
    let answer = send(request.body(json!({ "contacts": [known] }).to_string())).await;
    assert_eq!((answer.status, &answer.headers["preference-applied"]), (202, &"wait=0".parse().unwrap()));
    // Without a preference there is nothing to have been applied.
    let answer = gateway.post("acme", &json!({ "contacts": [known] })).await;
    assert_eq!((answer.status, answer.headers.get("preference-applied")), (202, None));
    let path = format!("/v1/connections/c/contacts/{known}");
    let answer = gateway.delete("acme", &path).await;
    assert_eq!(answer.status, 202);
    assert!(answer.headers["location"].to_str().unwrap().starts_with("/v1/deletions/del_"));
    mock.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_the_caller_may_use_is_listed_without_secrets_and_addresses() {
    let mut setup = Setup::new();
    let mut mocks = Vec::new();
    for registration in DIALECTS {
        let mock = mock(registration.profile.id).await;
        setup = setup.mock("acme", registration.profile.id, &mock, |_| {});
        mocks.push(mock);
    }
    let gateway = setup.start().await;
    let list = gateway.get("acme", "/v1/connections").await;
    assert_eq!(list.status, 200, "{}", list.text);
    let connections = list.json["connections"].as_array().unwrap();
    assert_eq!(connections.len(), DIALECTS.len());
    for (registration, mock) in DIALECTS.iter().zip(&mocks) {
        let profile = registration.profile;
        let one = gateway.get("acme", &format!("/v1/connections/{}", profile.id)).await;
        assert_eq!(one.status, 200);
        let listed = connections.iter().find(|each| each["name"] == profile.id).unwrap();
        assert_eq!(listed, &one.json);
        assert_eq!((&one.json["dialect"], &one.json["health"]["breaker"]), (&json!(profile.id), &json!("closed")));
        let kinds: Vec<_> = profile.identifiers.iter().map(|rule| json!(rule.kind.as_str())).collect();
        let told: Vec<_> =
            one.json["identifiers"].as_array().unwrap().iter().map(|rule| rule["kind"].clone()).collect();
        assert_eq!(told, kinds);
        assert_eq!(one.json["default"], profile.id == DIALECTS[0].profile.id);
        let table = mock.connection_toml();
        let values = table.iter().chain(table["credentials"].as_table().unwrap());
        for text in values.filter(|(name, _)| *name != "dialect").filter_map(|(_, value)| value.as_str()) {
            let text = text.trim_start_matches("plain:");
            assert!(!one.text.contains(text) && !list.text.contains(text), "{text} is shown");
        }
        assert!(!one.text.contains(&mock.addr().to_string()));
        assert!(mock.journal().is_empty(), "looking sends nothing");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_shorthand_has_a_status_for_every_outcome() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().set("upstream.breaker_failures", 2).mock("acme", "c", &mock, attempts(1)).start().await;
    let known = ids("wethod", 6);
    [0, 2, 3, 4, 5].iter().for_each(|n| mock.seed(&id(&known[*n]), *n == 2));
    let ask = async |which: &str| gateway.delete("acme", &format!("/v1/connections/c/contacts/{which}")).await;

    let done = ask(&known[0]).await;
    assert_eq!((done.status, &done.json["outcome"], &done.json["absent"]), (200, &json!("deleted"), &json!(true)));
    assert!(!done.text.contains(&known[0]));
    let kept = gateway.get("acme", &format!("/v1/deletions/{}", done.json["deletion"].as_str().unwrap())).await;
    assert_eq!(kept.outcomes(), ["deleted"]);
    let gone = ask(&known[1]).await;
    assert_eq!((gone.status, &gone.json["outcome"]), (200, &json!("not_found")));

    let check = |answer: &Answer, status: u16, attempted: bool, outcome: &str, error: &str| {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let told = (&answer.json["attempted"], &answer.json["outcome"], &answer.json["error"]["code"]);
        assert_eq!(told, (&json!(attempted), &json!(outcome), &json!(error)), "{}", answer.text);
        assert!(known.iter().all(|id| !answer.text.contains(id)), "{}", answer.text);
    };
    let before = mock.journal().len();
    check(&ask("filter").await, 422, false, "rejected", "invalid_identifier");
    assert_eq!(mock.journal().len(), before);
    check(&ask(&known[2]).await, 422, true, "rejected", "upstream_precondition");
    assert!(mock.holds(&id(&known[2])));
    mock.fault(Fault::Redirect(302, "http://127.0.0.1:9/".to_owned()));
    check(&ask(&known[3]).await, 502, true, "failed", "upstream_misconfigured");
    assert!(mock.holds(&id(&known[3])));
    // Two replies that cannot be had open the breaker.
    mock.fault(Fault::CommitThenDrop);
    check(&ask(&known[4]).await, 504, true, "unknown", "connection_lost");
    mock.fault(Fault::DropBeforeCommit);
    check(&ask(&known[4]).await, 504, true, "unknown", "connection_lost");
    let before = mock.journal().len();
    let skipped = ask(&known[5]).await;
    check(&skipped, 503, false, "skipped", "circuit_open");
    assert!(skipped.headers.contains_key("retry-after"));
    assert_eq!(mock.journal().len(), before);
    assert!(mock.holds(&id(&known[5])));
    let view = gateway.get("acme", "/v1/connections/c").await;
    assert_eq!(view.json["health"]["breaker"], "open");
    gateway.stop().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_changes_nothing() {
    let mock = mock("onlyoffice").await;
    let gateway = Setup::new().mock("hangs-up", "c", &mock, |_| {}).start().await;
    let known = ids("onlyoffice", 3);
    known.iter().for_each(|each| mock.seed(&id(each), false));
    hold(&mock);
    // The id is only told in an answer that nobody reads, so the truth is what the upstream holds, and the metrics.
    {
        let body = json!({ "contacts": known });
        let mut call = std::pin::pin!(gateway.post("hangs-up", &body));
        tokio::select! {
            answer = &mut call => panic!("an answer while the upstream holds everything: {}", answer.text),
            () = within("a call", mock.arrived(1)) => {}
        }
    }
    let_go(&mock);
    within("the deletes of a caller who is gone", mock.arrived(3)).await;
    assert_eq!(mock.deleted().len(), 3);
    // The metrics are the process's; no other test has a tenant of this name.
    let end = async {
        let line = |page: &str, event: &str| {
            let parts = ["onedelete_deletions_total", "\"hangs-up\"", event];
            page.lines().any(|line| parts.iter().all(|part| line.contains(part)) && line.ends_with(" 1"))
        };
        while !line(&gateway.metrics().await, "\"finished\"") {}
    };
    within("the end of the deletion", end).await;
    gateway.stop().await;
}
