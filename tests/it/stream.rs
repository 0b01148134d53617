//! JSON Lines in and out: a body that is read as it comes, and results that are told as they are settled.
//!
//! How lines are cut is tested byte by byte beside the code; what a queue does with large deletions is in `queue`.

use std::collections::BTreeSet;

use adapters::Identifier;
use onedelete::mock::{Fault, Mock};
use serde_json::{Value, json};

use crate::support::{Answer, Flow, Running, Setup, Upload, flow, hold, id, ids, key, let_go, mock, send, within};

/// One contact a line.
fn body(contacts: impl IntoIterator<Item = Value>) -> String {
    contacts.into_iter().flat_map(|contact| [contact.to_string(), "\n".to_owned()]).collect()
}

fn plain(ids: &[String]) -> String {
    body(ids.iter().map(|id| json!(id)))
}

/// Every line of a results route.
async fn results(gateway: &Running, tenant: &str, deletion: &str, query: &str) -> Vec<Value> {
    let request = gateway.client.get(gateway.url(&format!("/v1/deletions/{deletion}/results{query}")));
    rest(flow(request.bearer_auth(key(tenant))).await).await
}

async fn rest(mut flow: Flow) -> Vec<Value> {
    let mut lines = Vec::new();
    while let Some(line) = flow.line().await.unwrap() {
        lines.push(line);
    }
    lines
}

/// Fails unless nothing was sent, nothing is kept, and the only place for a stream is free again.
async fn nothing_is_left(gateway: &Running, mock: &Mock, what: &str) {
    let free = async { while send(gateway.lines("acme", "?dry_run=true", "1\n")).await.status == 503 {} };
    within(what, free).await;
    assert_eq!(gateway.listed("acme").await, [""; 0], "{what}");
    assert!(mock.journal().is_empty(), "{what}: {:?}", mock.journal());
}

#[tokio::test]
async fn lines_are_contacts_however_they_are_cut_and_ended() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).mock("acme", "d", &mock, |_| {}).start().await;
    let known = ids("kore_ai", 3);
    let contacts =
        json!([known[0], { "id": known[1], "ref": "é\u{1f600}" }, "no id", { "id": known[2], "connection": "d" }]);
    let plain = |answer: &Answer| {
        let mut json = answer.json.clone();
        for moment in ["created_at", "finished_at"] {
            json.as_object_mut().unwrap().remove(moment);
        }
        json
    };
    let members =
        json!({ "contacts": contacts, "dry_run": true, "reason": "a b", "reference": "c&d", "connection": "c" });
    let expected = gateway.post("acme", &members).await;
    assert_eq!(expected.outcomes(), ["would_delete", "would_delete", "rejected", "would_delete"], "{}", expected.text);
    let query = "?dry_run=true&reason=a+b&reference=c%26d&connection=c";
    let lines: Vec<_> = contacts.as_array().unwrap().iter().map(Value::to_string).collect();
    for text in [
        lines.join("\n"),
        lines.join("\n") + "\n",
        lines.join("\r\n") + "\r\n",
        format!("\n \n\r\n{}\n\n\t\n", lines.join("\n\n  ")),
    ] {
        let whole = send(gateway.lines("acme", query, text.clone())).await;
        assert_eq!((whole.status, plain(&whole)), (200, plain(&expected)), "{text:?}");
        let mut upload = Upload::chunked(&gateway, "acme", query);
        text.as_bytes().iter().for_each(|byte| upload.chunk(&[*byte]));
        upload.chunk(b"");
        let bytes = upload.answer().await;
        assert_eq!((bytes.status, plain(&bytes)), (200, plain(&expected)), "{text:?}");
    }
    gateway.stop().await;
    assert!(mock.journal().is_empty());
}

#[tokio::test]
async fn a_deletion_by_lines_is_answered_without_results() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("kore_ai", 3);
    mock.seed(&id(&known[0]), false);
    hold(&mock);
    let request = gateway.lines("acme", "?reason=why&reference=DSR-1", plain(&known));
    let answer = send(request.header("prefer", "wait=5")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let path = format!("/v1/deletions/{}", answer.id());
    assert_eq!((&answer.headers["location"], &answer.headers["retry-after"]), (&path.parse().unwrap(), &1.into()));
    // It was not waited, and nothing else is said.
    assert_eq!(answer.headers["preference-applied"], "wait=0");
    assert_eq!(answer.json.get("results"), None);
    assert_eq!(answer.json["results_url"], format!("{path}/results"));
    assert_eq!((&answer.json["reason"], &answer.json["reference"]), (&json!("why"), &json!("DSR-1")));
    assert_eq!((&answer.json["connections"], &answer.json["counts"]["requested"]), (&json!(["c"]), &json!(3)));
    let_go(&mock);
    let end = gateway.finished("acme", &answer.id()).await;
    assert_eq!(end.outcomes(), ["deleted", "not_found", "not_found"]);
    assert_eq!(results(&gateway, "acme", &answer.id(), "").await, *end.json["results"].as_array().unwrap());
    assert_eq!(mock.deleted(), [id(&known[0])]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_wrong_line_refuses_the_whole() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().set("deletions.max_streams", 1).mock("acme", "c", &mock, |_| {}).start().await;
    let id = ids("wethod", 1).remove(0);
    let long = "r".repeat(129);
    let cases: &[(&str, &str, &str)] = &[
        ("{", "invalid_json", ""),
        ("\"ID\" \"ID\"", "invalid_json", ""),
        ("\"ID\",", "invalid_json", ""),
        ("\u{feff}\"ID\"", "invalid_json", ""),
        ("\"\\ud800\"", "invalid_json", ""),
        ("true", "/contacts/2", "wrong_type"),
        ("1.0", "/contacts/2", "wrong_type"),
        ("{\"contacts\":[\"ID\"]}", "/contacts/2/contacts", "unknown_member"),
        ("{\"id\":\"ID\",\"dry_run\":true}", "/contacts/2/dry_run", "unknown_member"),
        ("{\"id\":\"ID\",\"id\":\"ID\"}", "/contacts/2/id", "duplicate_member"),
        ("{\"ref\":\"ID\"}", "/contacts/2", "identifier_count"),
        (&format!("{{\"id\":1,\"ref\":\"{long}\"}}"), "/contacts/2/ref", "too_long"),
        (&format!("\"{}\"", "x".repeat(4_095)), "", "line_too_long"),
    ];
    for (line, pointer, code) in cases {
        let text = format!("\"ID\"\n\n{{\"id\":\"ID\"}}\n{line}\n\"ID\"\n").replace("ID", &id);
        let answer = send(gateway.lines("acme", "", text)).await;
        let expected = if *pointer == "invalid_json" { "invalid_json" } else { "invalid_request" };
        answer.is_problem(400, expected, line);
        assert!(answer.text.to_lowercase().contains("line 4"), "{line}: {}", answer.text);
        assert!(!answer.text.contains(&id), "{line}: {}", answer.text);
        if expected == "invalid_request" {
            let first = &answer.json["errors"][0];
            assert_eq!((first["pointer"].as_str(), first["code"].as_str()), (Some(*pointer), Some(*code)), "{line}");
        }
    }
    // Bytes that are no text, a connection that does not exist, and nothing at all.
    let answer = send(gateway.lines("acme", "", b"1\n\"\xff\"\n".to_vec())).await;
    answer.is_problem(400, "invalid_json", "no UTF-8");
    let unknown = send(gateway.lines("acme", "", "1\n{\"id\":2,\"connection\":\"nowhere\"}\n")).await;
    unknown.is_problem(404, "not_found", "an unknown connection");
    send(gateway.lines("acme", "?connection=nowhere", "1\n")).await.is_problem(404, "not_found", "the same for all");
    for (query, empty) in [("", ""), ("", "\n"), ("", " \r\n\t\n"), ("?dry_run=true", ""), ("?dry_run=true", "\n")] {
        let answer = send(gateway.lines("acme", query, empty)).await;
        answer.is_problem(400, "invalid_request", "no contacts");
        assert_eq!(answer.json["errors"][0]["code"], "no_contacts", "{query} {empty:?}");
    }
    for (query, pointer, code) in [
        ("?filter=all", "?", "unknown_parameter"),
        ("?dry_run=yes", "?dry_run", "wrong_type"),
        ("?connection=c&connection=c", "?connection", "duplicate_parameter"),
        (&format!("?reason={long}"), "?reason", "too_long"),
    ] {
        let answer = send(gateway.lines("acme", query, "1\n")).await;
        answer.is_problem(400, "invalid_request", query);
        let first = &answer.json["errors"][0];
        assert_eq!((first["pointer"].as_str(), first["code"].as_str()), (Some(pointer), Some(code)), "{query}");
    }
    // A part that was put down before the wrong line came is thrown away.
    let text = (1..=10_001).map(|n| format!("{n}\n")).collect::<String>() + "{\n";
    let answer = send(gateway.lines("acme", "", text)).await;
    answer.is_problem(400, "invalid_json", "the last of many");
    assert_eq!(answer.json["detail"], "At line 10002 of the body.");
    nothing_is_left(&gateway, &mock, "wrong lines").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_who_sends_to_the_end() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    // More than fits between the two, from a caller who looks for an answer only afterwards.
    let rest = "1\n".repeat(4_000_000);
    let length = format!("Content-Length: {}\r\nConnection: close", rest.len() + 2);
    let mut upload = Upload::begin(&gateway, "acme", "", &length);
    upload.send(b"{\n").unwrap();
    let upload = tokio::task::spawn_blocking(move || {
        upload.send(rest.as_bytes()).unwrap();
        upload
    });
    upload.await.unwrap().answer().await.is_problem(400, "invalid_json", "the first line of many");
    gateway.stop().await;
}

#[tokio::test]
async fn too_many_lines_are_refused() {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("deletions.max_contacts", 2).set("deletions.max_contacts_streamed", 3);
    let gateway = setup.set("deletions.max_streams", 1).mock("acme", "c", &mock, |_| {}).start().await;
    send(gateway.lines("acme", "", "1\n2\n3\n4\n")).await.is_problem(413, "too_many_contacts", "four");
    let dry = send(gateway.lines("acme", "?dry_run=true", "1\n2\n3\n")).await;
    dry.is_problem(413, "too_many_contacts", "a dry run of three");
    assert_eq!(send(gateway.lines("acme", "?dry_run=true", "1\n2\n")).await.status, 200);
    nothing_is_left(&gateway, &mock, "too many lines").await;
    let answer = send(gateway.lines("acme", "", "1\n2\n3\n")).await;
    // More than fit into one answer: they have an address.
    let path = format!("/v1/deletions/{}", answer.id());
    let end = async {
        loop {
            let look = gateway.get("acme", &path).await;
            if look.json["state"] == "finished" {
                break look;
            }
        }
    };
    let end = within("the end of a deletion", end).await;
    assert_eq!((end.json.get("results"), &end.json["results_url"]), (None, &json!(format!("{path}/results"))));
    assert_eq!(end.json["counts"]["not_found"], 3, "{}", end.text);
    gateway.stop().await;
}

/// Whoever breaks off may get an answer or none; if there is one, it says that nothing was sent.
fn no_more_than_refused(answer: &Answer) {
    if answer.status != 0 {
        answer.is_problem(400, "invalid_request", "a body that breaks off");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("deletions.max_streams", 1).set("server.body_timeout_ms", 2_000);
    let gateway = setup.mock("acme", "c", &mock, |_| {}).start().await;
    let many: String = (1..=10_500).map(|n| format!("{n}\n")).collect();
    // The end of a body in chunks is missing; so is a byte of one whose length was announced.
    let mut upload = Upload::chunked(&gateway, "acme", "");
    upload.chunk(many.as_bytes());
    upload.cut_off();
    no_more_than_refused(&upload.answer().await);
    nothing_is_left(&gateway, &mock, "chunks without an end").await;
    let mut upload = Upload::begin(&gateway, "acme", "", &format!("Content-Length: {}", many.len() + 1));
    upload.send(many.as_bytes()).unwrap();
    upload.cut_off();
    no_more_than_refused(&upload.answer().await);
    nothing_is_left(&gateway, &mock, "a byte too few").await;
    // A caller who goes away without a word.
    let mut upload = Upload::chunked(&gateway, "acme", "");
    upload.chunk(many.as_bytes());
    drop(upload);
    nothing_is_left(&gateway, &mock, "a caller who is gone").await;
    // One who stays and sends nothing more. All lines so far are whole.
    let mut upload = Upload::chunked(&gateway, "acme", "");
    upload.chunk(many.as_bytes());
    upload.answer().await.is_problem(408, "request_timeout", "a caller who waits");
    nothing_is_left(&gateway, &mock, "a caller who waits").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_under_way_is_refused_when_the_gateway_stops() {
    let mock = mock("wethod").await;
    let setup = Setup::new().set("server.drain_ms", 60_000).set("server.body_timeout_ms", 60_000);
    let gateway = setup.set("deletions.max_streams", 1).mock("acme", "c", &mock, |_| {}).start().await;
    let mut upload = Upload::chunked(&gateway, "acme", "");
    upload.chunk(b"1\n2\n");
    // Its place is taken, so it is being read.
    let taken = async { while send(gateway.lines("acme", "?dry_run=true", "1\n")).await.status == 200 {} };
    within("the place to be taken", taken).await;
    let (answer, ()) = within("the stop", async { tokio::join!(upload.answer(), gateway.stop()) }).await;
    answer.is_problem(503, "stopping", "a body under way");
    assert!(mock.journal().is_empty());
}

#[tokio::test]
async fn a_key_stands_for_contacts_and_not_for_a_form() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).mock("acme", "d", &mock, |_| {}).start().await;
    let known = ids("kore_ai", 3);
    known.iter().for_each(|known| mock.seed(&id(known), false));
    let lines =
        |key: &str, query: &str, text: String| send(gateway.lines("acme", query, text).header("idempotency-key", key));
    let json = |name: &str, members: Value| {
        let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
        send(request.header("idempotency-key", name).bearer_auth(key("acme")).body(members.to_string()))
    };
    let contacts = json!([{ "id": known[0], "ref": "r" }, { "connection": "c", "id": known[1] }]);
    let members = json!({ "contacts": contacts, "connection": "d", "reason": "why" });
    let first = json("one", members.clone()).await;
    assert_eq!((first.status, first.outcomes()), (200, vec!["deleted", "deleted"]), "{}", first.text);
    let text = body(contacts.as_array().unwrap().clone());
    let again = lines("one", "?connection=d&reason=why", text.clone()).await;
    // It is finished, so it is not said to be accepted.
    assert_eq!((again.status, again.id()), (200, first.id()), "{}", again.text);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!((again.json.get("results"), again.headers.get("retry-after")), (None, None));
    assert_eq!(again.headers["location"], format!("/v1/deletions/{}", first.id()));
    for (query, text) in [("?connection=d", text.clone()), ("?connection=c&reason=why", text.clone())] {
        lines("one", query, text).await.is_problem(422, "idempotency_key_reused", query);
    }
    lines("one", "?connection=d&reason=why", text.clone() + &plain(&known[2..])).await.is_problem(
        422,
        "idempotency_key_reused",
        "one contact more",
    );
    // The other way round, and as lines again.
    let first = lines("two", "", plain(&known[2..])).await;
    gateway.finished("acme", &first.id()).await;
    let again = json("two", json!({ "contacts": [known[2].to_uppercase()] })).await;
    assert_eq!((again.status, again.id(), again.outcomes()), (200, first.id(), vec!["deleted"]));
    let request = gateway.lines("acme", "", plain(&known[2..])).header("idempotency-key", "two");
    let lines = flow(request.header("accept", "application/x-ndjson")).await;
    assert_eq!((lines.status, &lines.headers["idempotency-replayed"]), (200, &"true".parse().unwrap()));
    assert_eq!(rest(lines).await, *again.json["results"].as_array().unwrap());
    assert_eq!((mock.deleted().len(), gateway.listed("acme").await.len()), (3, 2));
    gateway.stop().await;
}

#[tokio::test]
async fn many_contacts_get_one_result_each() {
    const ALL: usize = 25_000;
    let mock = mock("kore_ai").await;
    let gateway = Setup::new()
        .set("deletions.max_contacts", i64::try_from(ALL).unwrap())
        .mock("acme", "c", &mock, |connection| {
            drop(connection.insert("max_contacts_per_call".to_owned(), 2_000.into()))
        })
        .start()
        .await;
    // In every part: contacts that are there, contacts that are not, bad ones, and twins of what stands in the first.
    let fresh = ids("kore_ai", ALL);
    let id_at = |n: usize| match n % 10 {
        7 if n >= 20 => fresh[n % 20].to_uppercase(),
        8 => "no id".to_owned(),
        _ => fresh[n].clone(),
    };
    let there = |n: usize| n % 10 < 5;
    (0..ALL).filter(|n| there(*n)).for_each(|n| mock.seed(&id(&fresh[n]), false));
    let text = body((0..ALL).map(|n| json!({ "id": id_at(n), "ref": format!("r{n}") })));
    let answer = send(gateway.lines("acme", "", text)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let whole = gateway.finished("acme", &answer.id()).await;

    let results = results(&gateway, "acme", &answer.id(), "").await;
    assert_eq!(results.len(), ALL);
    assert!(results == *whole.json["results"].as_array().unwrap(), "the stream and the answer differ");
    for (n, result) in results.iter().enumerate() {
        let (outcome, absent) = match n % 10 {
            8 => ("rejected", json!(null)),
            // What stands for it is there or is not, and bad ones have no twin.
            7 if n >= 20 => match n % 20 {
                8 | 18 => ("rejected", json!(null)),
                _ => ("skipped", json!(true)),
            },
            digit if digit < 5 => ("deleted", json!(true)),
            _ => ("not_found", json!(true)),
        };
        assert_eq!((&result["index"], &result["ref"]), (&json!(n), &json!(format!("r{n}"))));
        assert_eq!((&result["outcome"], &result["absent"]), (&json!(outcome), &absent), "{result}");
        let twin = if outcome == "skipped" { json!(n % 20) } else { json!(null) };
        assert_eq!(result["duplicate_of"], twin, "{result}");
    }
    let counts = whole.json["counts"].as_object().unwrap();
    for (name, count) in counts.iter().filter(|(name, _)| *name != "requested") {
        assert_eq!(*count, results.iter().filter(|result| result["outcome"] == name.as_str()).count(), "{name}");
    }
    assert_eq!(counts["requested"], ALL);
    // The upstream agrees: each contact once, and nobody else.
    let deleted: Vec<_> = mock.deleted().into_iter().map(|known| known.text().to_owned()).collect();
    let expected: BTreeSet<_> = (0..ALL).filter(|n| there(*n)).map(|n| fresh[n].clone()).collect();
    assert_eq!((deleted.len(), deleted.into_iter().collect::<BTreeSet<_>>()), (expected.len(), expected));
    let mut asked = Vec::new();
    for entry in mock.journal().iter().filter(|entry| !entry.sign_in) {
        let sent: Value = serde_json::from_slice(&entry.body).unwrap();
        asked.extend(sent["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_lowercase()));
    }
    let once: BTreeSet<_> = asked.iter().cloned().collect();
    assert_eq!(asked.len(), once.len(), "a contact was sent twice");

    // Some of the outcomes; and somebody who is slow to read them holds nobody up.
    let path = format!("/v1/deletions/{}/results", answer.id());
    let slow = flow(gateway.client.get(gateway.url(&path)).bearer_auth(key("acme"))).await;
    let some = self::results(&gateway, "acme", &answer.id(), "?outcome=rejected,skipped").await;
    let kept = |result: &&Value| result["outcome"] == "rejected" || result["outcome"] == "skipped";
    assert!(some.iter().eq(results.iter().filter(kept)));
    assert_eq!(gateway.post("acme", &json!({ "contacts": [fresh[0]] })).await.outcomes(), ["not_found"]);
    assert!(rest(slow).await == results);
    gateway.stop().await;
}

#[tokio::test]
async fn results_come_as_soon_as_they_and_those_before_them_are_settled() {
    let (fast, slow) = (mock("wethod").await, mock("wethod").await);
    let setup = Setup::new().mock("acme", "fast", &fast, |_| {});
    let gateway = setup.mock("acme", "slow", &slow, |_| {}).start().await;
    let known = ids("wethod", 4);
    known.iter().for_each(|known| [&fast, &slow].iter().for_each(|mock| mock.seed(&id(known), false)));
    hold(&slow);
    let text = body(
        known
            .iter()
            .zip(["fast", "fast", "slow", "fast"])
            .map(|(id, connection)| json!({ "id": id, "connection": connection })),
    );
    let request = gateway.lines("acme", "", text).header("accept", "text/plain, application/x-ndjson;q=0.5");
    let mut lines = flow(request).await;
    // Whether all will be absent is not known yet.
    assert_eq!((lines.status, &lines.headers["content-type"]), (207, &"application/x-ndjson".parse().unwrap()));
    let deletion = lines.headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(gateway.listed("acme").await, [deletion.as_str()]);
    for index in [0, 1] {
        let line = lines.line().await.unwrap().unwrap();
        assert_eq!((&line["index"], &line["outcome"]), (&json!(index), &json!("deleted")));
    }
    // The last one is settled by now or soon, and waits for the one before it.
    within("the quick upstream", fast.arrived(3)).await;
    assert_eq!(slow.deleted(), []);
    let_go(&slow);
    let last = rest(lines).await;
    assert_eq!(last.len(), 2);
    assert_eq!(last, gateway.finished("acme", &deletion).await.json["results"].as_array().unwrap()[2..]);
    gateway.stop().await;
}

#[tokio::test]
async fn results_that_do_not_come_to_their_end_are_cut_off() {
    let mock = mock("wethod").await;
    mock.fault_always(Some(Fault::Stall));
    let gateway = Setup::new().set("server.drain_ms", 200).mock("acme", "c", &mock, |_| {}).start().await;
    let request = gateway.lines("acme", "", "no-id\n".replace("no-id", "\"no id\"") + &plain(&ids("wethod", 1)));
    let mut lines = flow(request.header("accept", "application/x-ndjson")).await;
    assert_eq!(lines.line().await.unwrap().unwrap()["outcome"], "rejected");
    gateway.stop().await;
    lines.line().await.expect_err("half of the results looked like all of them");
    mock.stop().await;
}

#[tokio::test]
async fn streams_have_places_of_which_a_tenant_gets_half() {
    let mock = mock("kore_ai").await;
    let setup = Setup::new().set("deletions.max_streams", 2).mock("acme", "c", &mock, |_| {});
    let gateway = setup.mock("other", "c", &mock, |_| {}).start().await;
    let dry = |tenant: &'static str| send(gateway.lines(tenant, "?dry_run=true", plain(&ids("kore_ai", 1))));
    let mut upload = Upload::chunked(&gateway, "acme", "?dry_run=true");
    upload.chunk(b"\"x\"\n");
    let taken = async { while dry("acme").await.status == 200 {} };
    within("the place to be taken", taken).await;
    let refused = dry("acme").await;
    refused.is_problem(503, "overloaded", "a second stream");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(dry("other").await.status, 200);
    // JSON needs no such place.
    assert_eq!(gateway.post("acme", &json!({ "contacts": ids("kore_ai", 1), "dry_run": true })).await.status, 200);
    upload.chunk(b"");
    assert_eq!(upload.answer().await.status, 200);
    assert_eq!(dry("acme").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn answers_that_are_streams_have_places_too() {
    let (mock, beside) = (mock("kore_ai").await, mock("kore_ai").await);
    let setup = Setup::new().set("server.max_requests_in_flight", 16);
    let setup = setup.mock("acme", "c", &mock, |_| {}).mock("other", "c", &beside, |_| {});
    let gateway = setup.start().await;
    hold(&mock);
    let known = ids("kore_ai", 1);
    let follow = |tenant: &'static str| {
        let request = gateway.lines(tenant, "", plain(&known));
        flow(request.header("accept", "application/x-ndjson"))
    };
    let first = follow("acme").await;
    assert_eq!(first.status, 207);
    let second = send(gateway.lines("acme", "", plain(&known)).header("accept", "application/x-ndjson")).await;
    second.is_problem(503, "overloaded", "a second answer");
    let deletion = gateway.listed("acme").await;
    assert_eq!(deletion.len(), 1);
    let events = format!("/v1/deletions/{}/events", deletion[0]);
    gateway.get("acme", &events).await.is_problem(503, "overloaded", "events");
    assert!([200, 207].contains(&follow("other").await.status));
    let_go(&mock);
    assert_eq!(rest(first).await.len(), 1);
    let free = async { while gateway.get("acme", &events).await.status == 503 {} };
    within("a free place", free).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_phone_in_a_line_is_a_phone() {
    let mock = mock("talkdesk").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    let phone = Identifier::Phone("+14155550100".into());
    mock.seed(&phone, false);
    let external = json!({ "external": { "provider": "salesforce", "id": "003DL0000212DetYAE" } });
    let text = body([json!({ "phone": "+14155550100" }), external, json!({ "phone": "+1 415" })]);
    let answer = send(gateway.lines("acme", "", text)).await;
    let end = gateway.finished("acme", &answer.id()).await;
    assert_eq!(end.outcomes(), ["deleted", "failed", "rejected"], "{}", end.text);
    assert_eq!(mock.deleted(), [phone]);
    gateway.stop().await;
}
