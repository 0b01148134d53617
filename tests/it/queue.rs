//! What does not fit beside what is worked: it waits, in turn with other tenants, and comes to its end.

use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, hold, id, ids, key, let_go, mock, send, table, within};

fn lines(ids: impl IntoIterator<Item = String>) -> String {
    ids.into_iter().flat_map(|id| [json!(id).to_string(), "\n".to_owned()]).collect()
}

/// Large calls, one at a time.
fn in_bulk(connection: &mut toml::Table) {
    connection.insert("max_contacts_per_call".to_owned(), 5_000.into());
    table(connection, "limits").insert("max_in_flight".to_owned(), 1.into());
}

async fn look(gateway: &Running, tenant: &str, deletion: &str) -> Value {
    gateway.get(tenant, &format!("/v1/deletions/{deletion}")).await.json
}

async fn cancel(gateway: &Running, deletion: &str, prefer: &str) -> Answer {
    let url = gateway.url(&format!("/v1/deletions/{deletion}/cancel"));
    send(gateway.client.post(url).header("prefer", prefer).bearer_auth(key("acme"))).await
}

/// The deletion's state once it is finished, however many contacts it has.
async fn finished(gateway: &Running, tenant: &str, deletion: &str) -> Value {
    let end = async {
        loop {
            let look = look(gateway, tenant, deletion).await;
            if look["state"] == "finished" {
                break look;
            }
        }
    };
    within("the end of a deletion", end).await
}

/// The sum of a tenant's samples of this event.
async fn counted(gateway: &Running, tenant: &str, event: &str) -> usize {
    let (tenant, event) = (format!("tenant={tenant:?}"), format!("event={event:?}"));
    let page = gateway.metrics().await;
    let line = page
        .lines()
        .find(|line| line.starts_with("onedelete_deletions_total") && line.contains(&tenant) && line.contains(&event));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_large_deletion_leaves_room_to_other_tenants() {
    let (slow, fast) = (mock("kore_ai").await, mock("kore_ai").await);
    let gateway = Setup::new()
        .set("deletions.max_worked_contacts", 10_000)
        .set("deletions.max_worked_contacts_per_tenant", 5_000)
        .mock("bulk", "c", &slow, in_bulk)
        .mock("small", "c", &fast, |_| {})
        .start()
        .await;
    let many = ids("kore_ai", 30_000);
    slow.seed(&id(&many[0]), false);
    slow.seed(&id(&many[29_999]), false);
    hold(&slow);
    let bulk = send(gateway.lines("bulk", "", lines(many.clone()))).await.id();
    within("a call", slow.arrived(1)).await;
    // All places are taken by the other tenant, and still one without work gets in: as JSON and as lines.
    let known = ids("kore_ai", 3);
    known.iter().for_each(|known| fast.seed(&id(known), false));
    let answer = within("the small deletion", gateway.post("small", &json!({ "contacts": known[..2] }))).await;
    assert_eq!((answer.status, answer.outcomes()), (200, vec!["deleted", "deleted"]));
    let answer = send(gateway.lines("small", "", lines(known[2..].to_vec()))).await;
    assert_eq!(gateway.finished("small", &answer.id()).await.outcomes(), ["deleted"]);
    let running = look(&gateway, "bulk", &bulk).await;
    assert_eq!((&running["state"], &running["counts"]["pending"]), (&json!("running"), &json!(30_000)));
    assert_eq!((slow.journal().len(), slow.deleted().len()), (1, 0));
    let_go(&slow);
    let end = finished(&gateway, "bulk", &bulk).await;
    let counts = &end["counts"];
    assert_eq!(
        (&counts["deleted"], &counts["not_found"], &counts["requested"]),
        (&json!(2), &json!(29_998), &json!(30_000))
    );
    assert_eq!(slow.deleted().len(), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn what_waits_can_be_cancelled_and_is_not_sent() {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("deletions.max_worked_contacts_per_tenant", 1);
    let gateway = setup.mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("wethod", 3);
    known.iter().for_each(|known| mock.seed(&id(known), false));
    hold(&mock);
    let first = gateway.post_async("acme", &json!({ "contacts": known[..1] })).await;
    within("a call", mock.arrived(1)).await;
    let second = gateway.post_async("acme", &json!({ "contacts": known[1..2] })).await;
    let third = gateway.post_async("acme", &json!({ "contacts": known[2..] })).await;
    let answer = cancel(&gateway, &second, "respond-async").await;
    assert_eq!((answer.status, answer.outcomes()), (202, vec!["pending"]), "{}", answer.text);
    assert!(answer.json["cancelled_at"].is_string());
    let_go(&mock);
    assert_eq!(gateway.finished("acme", &first).await.outcomes(), ["deleted"]);
    let answer = gateway.finished("acme", &second).await;
    assert_eq!((answer.outcomes(), answer.errors()), (vec!["skipped"], vec!["cancelled"]));
    assert_eq!(gateway.finished("acme", &third).await.outcomes(), ["deleted"]);
    assert_eq!((mock.deleted().len(), mock.holds(&id(&known[1])), mock.journal().len()), (2, true, 2));
    gateway.stop().await;
}

#[tokio::test]
async fn a_caller_can_wait_for_what_waits() {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("deletions.max_worked_contacts_per_tenant", 2);
    let gateway = setup.mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("wethod", 4);
    known.iter().for_each(|known| mock.seed(&id(known), false));
    hold(&mock);
    let first = gateway.post_async("acme", &json!({ "contacts": known[..2] })).await;
    within("a call", mock.arrived(1)).await;
    let body = json!({ "contacts": [known[2], known[3], "no id", known[3]] });
    let release = async {
        // It is accepted, and waits: nothing of it arrives.
        let accepted = async { while gateway.listed("acme").await.len() < 2 {} };
        within("the second deletion", accepted).await;
        assert_eq!(look(&gateway, "acme", &first).await["counts"]["pending"], 2);
        let_go(&mock);
    };
    let (answer, ()) = tokio::join!(gateway.post("acme", &body), release);
    assert_eq!(answer.status, 207, "{}", answer.text);
    assert_eq!(answer.outcomes(), ["deleted", "deleted", "rejected", "skipped"]);
    assert_eq!(look(&gateway, "acme", &answer.id()).await, answer.json);
    assert_eq!((mock.deleted().len(), mock.journal().len()), (4, 4));
    gateway.stop().await;
}

#[tokio::test]
async fn what_needs_no_upstream_is_finished_though_nobody_works_it() {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("deletions.max_worked_contacts_per_tenant", 1);
    let gateway = setup.mock("settles-here", "c", &mock, |_| {}).start().await;
    // Two parts, and nothing in them can be sent.
    let answer = send(gateway.lines("settles-here", "", "\"no id\"\n".repeat(10_001))).await;
    let end = finished(&gateway, "settles-here", &answer.id()).await;
    assert_eq!(end["counts"]["rejected"], 10_001);
    // One part, for which there is no room now.
    hold(&mock);
    let known = ids("wethod", 1);
    let first = gateway.post_async("settles-here", &json!({ "contacts": known })).await;
    within("a call", mock.arrived(1)).await;
    let answer = gateway.post("settles-here", &json!({ "contacts": ["no id"] })).await;
    assert_eq!((answer.status, answer.outcomes()), (207, vec!["rejected"]), "{}", answer.text);
    let_go(&mock);
    gateway.finished("settles-here", &first).await;
    assert_eq!(counted(&gateway, "settles-here", "finished").await, 3);
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_settled_makes_room_again() {
    let (mock, beside) = (mock("kore_ai").await, mock("kore_ai").await);
    let setup = Setup::new().set("deletions.max_open_contacts_per_tenant", 10_001);
    let gateway = setup.mock("acme", "c", &mock, in_bulk).mock("other", "c", &beside, |_| {}).start().await;
    // Three times: what did not come back once would be missed the next time. The second part has twins alone.
    let known = ids("kore_ai", 10_000);
    for _ in 0..3 {
        hold(&mock);
        let text = lines(known.iter().chain(&known).cloned());
        let answer = send(gateway.lines("acme", "", text)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        within("a call", mock.arrived(1)).await;
        let more = json!({ "contacts": ids("kore_ai", 2) });
        let refused = gateway.post("acme", &more).await;
        refused.is_problem(503, "overloaded", "two contacts more");
        assert!(refused.headers.contains_key("retry-after"));
        let refused = send(gateway.lines("acme", "", lines(ids("kore_ai", 2)))).await;
        refused.is_problem(503, "overloaded", "two lines more");
        assert_eq!(gateway.post_async("other", &more).await.len(), 30);
        let_go(&mock);
        let end = finished(&gateway, "acme", &answer.id()).await;
        assert_eq!((&end["counts"]["not_found"], &end["counts"]["skipped"]), (&json!(10_000), &json!(10_000)));
    }
    // What was refused or asked for twice takes no room either.
    let body = json!({ "contacts": ids("kore_ai", 6_000) }).to_string();
    for _ in 0..2 {
        let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
        let request = request.header("idempotency-key", "same").bearer_auth(key("acme")).body(body.clone());
        assert_eq!(send(request).await.status, 200);
    }
    assert_eq!(gateway.post("acme", &json!({ "contacts": ids("kore_ai", 10_000) })).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_deletion_of_many_parts_is_cancelled_whole_and_finished_once() {
    let mock = mock("kore_ai").await;
    let setup = Setup::new().set("deletions.max_worked_contacts_per_tenant", 20_000);
    let gateway = setup.mock("acme", "c", &mock, in_bulk).mock("many-parts", "c", &mock, in_bulk).start().await;
    hold(&mock);
    let text = lines(ids("kore_ai", 50_000));
    let request = gateway.lines("many-parts", "", text);
    let deletion = send(request).await.id();
    within("a call", mock.arrived(1)).await;
    let url = gateway.url(&format!("/v1/deletions/{deletion}/cancel"));
    let request = gateway.client.post(url).header("prefer", "respond-async").bearer_auth(key("many-parts"));
    assert_eq!(send(request).await.status, 202);
    let_go(&mock);
    let end = finished(&gateway, "many-parts", &deletion).await;
    // The call that was under way got its answer; nothing else was sent.
    let counts = &end["counts"];
    assert_eq!((&counts["not_found"], &counts["skipped"]), (&json!(5_000), &json!(45_000)), "{end}");
    assert_eq!(mock.journal().len(), 1);
    assert_eq!(counted(&gateway, "many-parts", "finished").await, 1);
    gateway.stop().await;
}
