//! Bad upstreams: whatever they do, what the gateway claims of a contact is true.
//!
//! The oracle is the double behind the mock, never the gateway: a contact that is claimed absent is gone, one that is
//! claimed to be refused, failed or skipped is still there, and of an unknown one nothing is claimed.
//! Above 500 lines because each fault is one test, and all share what a claim is held against.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use adapters::{DIALECTS, Identifier};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName};
use onedelete::mock::{Fault, Mock};
use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, attempts, hold, id, ids, let_go, mock, table, within};

/// Fails if the answer claims of a contact what is not true of it at the mock.
pub(crate) fn claims_are_true(answer: &Answer, contacts: &[Identifier], mock: &Mock, what: &str) {
    let results = answer.json["results"].as_array().expect(&answer.text);
    assert_eq!(results.len(), contacts.len(), "{what}");
    for (result, contact) in results.iter().zip(contacts) {
        let there = mock.holds(contact);
        let true_of_it = match result["outcome"].as_str().unwrap() {
            "deleted" => !there && mock.deleted().contains(contact) && result["absent"] == true,
            "not_found" => !there && result["absent"] == true,
            "rejected" | "failed" | "skipped" => there && result["absent"] != true,
            "unknown" => result["absent"].is_null(),
            other => panic!("{what}: no final outcome: {other}"),
        };
        assert!(true_of_it, "{what}: the upstream {} it, and: {result}", if there { "has" } else { "does not have" });
    }
}

/// What the connections here have in common: no waits that a test would have to sit through.
fn quick(connection: &mut toml::Table) {
    table(connection, "timeouts").insert("response_ms".to_owned(), 5_000.into());
}

/// It says of an absent contact only that it was not deleted. After an attempt that may have been carried out, that
/// leaves the contact unknown.
const NO_REASONS: &str = "talkdesk";

/// One seeded contact at every dialect, with one attempt and with four, under a fault: the outcomes and errors allowed.
async fn each_dialect(fault: impl Fn() -> Fault, first: &[(&str, &str)], at_last: &[(&str, &str)]) {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        for (tries, allowed) in [(1, first), (4, at_last)] {
            let mock = mock(dialect).await;
            let gateway = Setup::new()
                .mock("acme", "c", &mock, |connection| {
                    quick(connection);
                    attempts(tries)(connection);
                })
                .start()
                .await;
            let known = ids(dialect, 1).remove(0);
            mock.seed(&id(&known), false);
            mock.fault(fault());
            let answer = gateway.post("acme", &json!({ "contacts": [known] })).await;
            let what = format!("{dialect} under {:?} with {tries} attempts", fault());
            claims_are_true(&answer, &[id(&known)], &mock, &what);
            let told = (answer.outcomes()[0], answer.errors()[0]);
            let result = &answer.json["results"][0];
            if dialect == NO_REASONS && told == ("unknown", "upstream_unspecified") {
                assert!(allowed.contains(&("not_found", "-")), "{what}: {}", answer.text);
                assert_eq!((&result["retry"], &result["attempts"]), (&json!("safe"), &json!(2)), "{what}");
                gateway.stop().await;
                continue;
            }
            assert!(allowed.contains(&told), "{what}: {told:?} {}", answer.text);
            if told.0 == "not_found" {
                assert_eq!(result["evidence"], "inferred", "{what}: the first attempt deleted it");
            }
            if told.0 == "unknown" {
                // A native id may be repeated; how often this one was, is what the attempts say.
                assert_eq!((&result["retry"], &result["attempts"]), (&json!("safe"), &json!(tries)), "{what}");
            }
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn an_upstream_that_commits_and_drops_is_unknown_then_gone() {
    each_dialect(|| Fault::CommitThenDrop, &[("unknown", "connection_lost")], &[("not_found", "-")]).await;
}

#[tokio::test]
async fn an_upstream_that_drops_before_it_does_anything_is_unknown_then_deleted() {
    each_dialect(|| Fault::DropBeforeCommit, &[("unknown", "connection_lost")], &[("deleted", "-")]).await;
}

#[tokio::test]
async fn half_an_answer_is_no_answer() {
    let lost = [("unknown", "response_unreadable"), ("unknown", "connection_lost")];
    each_dialect(|| Fault::CutBody, &lost, &[("not_found", "-")]).await;
}

#[tokio::test]
async fn an_error_after_the_delete_is_unknown_then_gone() {
    for status in [500, 502, 504] {
        each_dialect(|| Fault::Status(status), &[("unknown", "upstream_error")], &[("not_found", "-")]).await;
    }
}

#[tokio::test]
async fn a_page_instead_of_an_answer_proves_nothing() {
    each_dialect(|| Fault::Html(200), &[("unknown", "response_unreadable")], &[("deleted", "-")]).await;
    each_dialect(|| Fault::Html(500), &[("unknown", "upstream_error")], &[("deleted", "-")]).await;
    // A page that says "not found" is about a route, not about a contact.
    let routed = [("failed", "upstream_misconfigured")];
    each_dialect(|| Fault::Html(404), &routed, &routed).await;
    each_dialect(|| Fault::Empty(404), &routed, &routed).await;
}

#[tokio::test]
async fn an_upstream_that_is_not_available_is_asked_again() {
    let first = [("unknown", "upstream_error"), ("failed", "upstream_unavailable")];
    each_dialect(|| Fault::Empty(503), &first, &[("deleted", "-")]).await;
    each_dialect(|| Fault::Html(503), &first, &[("deleted", "-")]).await;
}

#[tokio::test]
async fn an_empty_success_is_only_a_success_where_the_dialect_has_no_other() {
    for registration in DIALECTS.iter().filter(|each| each.profile.id != "wethod") {
        let dialect = registration.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, attempts(1)).start().await;
        let known = ids(dialect, 2);
        known.iter().for_each(|each| mock.seed(&id(each), false));
        for (each, status) in known.iter().zip([200, 204]) {
            mock.fault(Fault::Empty(status));
            let answer = gateway.post("acme", &json!({ "contacts": [each] })).await;
            assert_eq!(answer.outcomes(), ["unknown"], "{dialect} {status}: {}", answer.text);
            claims_are_true(&answer, &[id(each)], &mock, dialect);
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_gone_was_sent_nothing() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().set("upstream.breaker_failures", 100).mock("acme", "c", &mock, |_| {}).start().await;
        mock.stop().await;
        let known = ids(dialect, 1);
        let answer = gateway.post("acme", &json!({ "contacts": known })).await;
        let (expected, retry) = match answer.errors()[0] {
            // Where a sign-in comes first, it is what fails, and it is known when the next may be tried.
            "credential_unavailable" => ("credential_unavailable", "after"),
            _ => ("connect_failed", "safe"),
        };
        assert_eq!(
            (answer.outcomes(), answer.errors()),
            (vec!["failed"], vec![expected]),
            "{dialect}: {}",
            answer.text
        );
        let result = &answer.json["results"][0];
        assert_eq!(
            (&result["absent"], &result["retry"], &result["attempts"]),
            (&Value::Null, &json!(retry), &json!(4)),
            "{dialect}"
        );
        // The pauses between sign-ins grow, and are longer than a test should wait.
        if expected == "connect_failed" {
            let short = gateway.delete("acme", &format!("/v1/connections/c/contacts/{}", known[0])).await;
            assert_eq!((short.status, &short.json["attempted"]), (502, &json!(false)), "{dialect}: {}", short.text);
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_repeated_only_where_that_is_safe() {
    let number = Identifier::Phone("+14155550100".into());
    let stalled = async |dialect: &str, body: Value, mock: &Mock| {
        let slow = |connection: &mut toml::Table| {
            table(connection, "timeouts").insert("response_ms".to_owned(), 600.into());
        };
        mock.fault(Fault::Stall);
        let gateway = Setup::new().mock("acme", "c", mock, slow).start().await;
        let answer = gateway.post("acme", &body).await;
        assert!(answer.outcomes().len() == 1, "{dialect}");
        gateway.stop().await;
        answer
    };
    let lists = mock("talkdesk").await;
    lists.seed(&number, false);
    let answer = stalled("talkdesk", json!({ "contacts": [{ "phone": "+14155550100" }] }), &lists).await;
    assert_eq!((answer.outcomes(), answer.errors()), (vec!["unknown"], vec!["response_timeout"]));
    let result = &answer.json["results"][0];
    assert_eq!((&result["retry"], &result["attempts"]), (&json!("verify_first"), &json!(1)));
    claims_are_true(&answer, &[number], &lists, "a phone");
    assert_eq!(lists.journal().iter().filter(|entry| !entry.sign_in).count(), 1, "a phone is sent once");
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let (mock, known) = (mock(dialect).await, ids(dialect, 1));
        mock.seed(&id(&known[0]), false);
        let answer = stalled(dialect, json!({ "contacts": known }), &mock).await;
        assert_eq!(
            (answer.outcomes(), &answer.json["results"][0]["attempts"]),
            (vec!["deleted"], &json!(2)),
            "{dialect}"
        );
        claims_are_true(&answer, &[id(&known[0])], &mock, dialect);
    }
    // It answered too late, after the delete: what is gone then is gone by inference.
    let (mock, known) = (mock("onlyoffice").await, ids("onlyoffice", 1));
    mock.seed(&id(&known[0]), false);
    mock.fault(Fault::Delay(Duration::from_secs(30)));
    let slow = |connection: &mut toml::Table| {
        table(connection, "timeouts").insert("response_ms".to_owned(), 600.into());
    };
    let gateway = Setup::new().mock("acme", "c", &mock, slow).start().await;
    let answer = gateway.post("acme", &json!({ "contacts": known })).await;
    assert_eq!((answer.outcomes(), &answer.json["results"][0]["evidence"]), (vec!["not_found"], &json!("inferred")));
    gateway.stop().await;
}

#[tokio::test]
async fn a_phone_that_may_be_gone_is_for_somebody_to_verify() {
    for (fault, error) in [
        (Fault::CommitThenDrop, "connection_lost"),
        (Fault::CutBody, "response_unreadable"),
        (Fault::Status(500), "upstream_error"),
        (Fault::Html(200), "response_unreadable"),
        (Fault::Status(202), "accepted_unconfirmed"),
    ] {
        let mock = mock("talkdesk").await;
        let gateway = Setup::new().mock("acme", "c", &mock, quick).start().await;
        let contacts = [
            Identifier::Phone("+14155550100".into()),
            Identifier::External { provider: "salesforce".into(), id: "003DL0000212DetYAE".into() },
        ];
        contacts.iter().for_each(|contact| mock.seed(contact, false));
        mock.fault(fault.clone());
        mock.fault(fault.clone());
        let body = json!({ "contacts": [
            { "phone": "+14155550100" },
            { "external": { "provider": "salesforce", "id": "003DL0000212DetYAE" } },
        ] });
        let answer = gateway.post("acme", &body).await;
        assert_eq!((answer.outcomes(), answer.errors()), (vec!["unknown"; 2], vec![error; 2]), "{fault:?}");
        for result in answer.json["results"].as_array().unwrap() {
            assert_eq!((&result["retry"], &result["attempts"]), (&json!("verify_first"), &json!(1)), "{fault:?}");
        }
        claims_are_true(&answer, &contacts, &mock, &format!("{fault:?}"));
        gateway.stop().await;
    }
}

/// A refusal by something in between, after an attempt that may have been carried out: the upstream is asked again.
#[tokio::test]
async fn a_refusal_that_follows_a_doubt_is_not_the_last_word() {
    for (first, outcome) in [(Fault::CommitThenDrop, "not_found"), (Fault::DropBeforeCommit, "deleted")] {
        for registration in DIALECTS.iter().filter(|each| each.profile.id != NO_REASONS) {
            let dialect = registration.profile.id;
            let mock = mock(dialect).await;
            let gateway = Setup::new().mock("acme", "c", &mock, quick).start().await;
            let known = ids(dialect, 1).remove(0);
            mock.seed(&id(&known), false);
            mock.fault(first.clone());
            mock.fault(Fault::Html(403));
            let answer = gateway.post("acme", &json!({ "contacts": [known] })).await;
            claims_are_true(&answer, &[id(&known)], &mock, dialect);
            let result = &answer.json["results"][0];
            assert_eq!((answer.outcomes()[0], &result["attempts"]), (outcome, &json!(3)), "{dialect}: {}", answer.text);
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let target = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        target.set_nonblocking(true).unwrap();
        let to = format!("http://{}/elsewhere", target.local_addr().unwrap());
        for status in [301, 302, 303, 307, 308] {
            let mock = mock(dialect).await;
            let gateway = Setup::new().mock("acme", "c", &mock, attempts(1)).start().await;
            let known = ids(dialect, 1);
            mock.seed(&id(&known[0]), false);
            mock.fault_always(Some(Fault::Redirect(status, to.clone())));
            let answer = gateway.post("acme", &json!({ "contacts": known })).await;
            let told = (answer.outcomes()[0], answer.errors()[0]);
            let expected =
                if status == 303 { ("unknown", "response_unreadable") } else { ("failed", "upstream_misconfigured") };
            assert_eq!(told, expected, "{dialect} {status}: {}", answer.text);
            claims_are_true(&answer, &[id(&known[0])], &mock, dialect);
            assert_eq!(mock.journal().iter().filter(|entry| !entry.sign_in).count(), 1, "{dialect} {status}");
            gateway.stop().await;
            let met = target.accept().map(|(_, from)| from);
            assert_eq!(met.unwrap_err().kind(), ErrorKind::WouldBlock, "{dialect} {status}: somebody came");
        }
    }
}

#[tokio::test]
async fn replies_that_are_packed_or_too_large_are_not_read() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let (mock, known) = (mock(dialect).await, ids(dialect, 1));
        mock.seed(&id(&known[0]), false);
        let gateway = Setup::new()
            .set("upstream.breaker_failures", 100)
            .mock("acme", "c", &mock, |connection| {
                attempts(1)(connection);
                table(connection, "limits").insert("max_response_bytes".to_owned(), 1_000.into());
            })
            .start()
            .await;
        // A sign-in, where there is one, comes first and must not take a reply.
        let other = ids(dialect, 1);
        mock.seed(&id(&other[0]), false);
        assert_eq!(gateway.post("acme", &json!({ "contacts": other })).await.outcomes(), ["deleted"], "{dialect}");
        let reply = |more: &str, body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        };
        let endless = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{}",
            "400\r\n".to_owned() + &" ".repeat(1024) + "\r\n"
        );
        let many = (0..80).map(|n| format!("X-{n}: x\r\n")).collect::<String>();
        for (what, bytes) in [
            ("packed", reply("Content-Encoding: gzip\r\n", "\u{1f}gzip?")),
            ("said to be packed", reply("Content-Encoding: gzip\r\n", "{}")),
            ("too large", reply("", &format!("{{}}{}", " ".repeat(1_000)))),
            ("too large, in chunks", endless),
            ("too many headers", reply(&many, "{}")),
            ("no HTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned()),
            ("nothing", String::new()),
        ] {
            mock.fault(Fault::Raw(bytes.into()));
            let answer = gateway.post("acme", &json!({ "contacts": known })).await;
            assert_eq!(answer.outcomes(), ["unknown"], "{dialect}, {what}: {}", answer.text);
            assert!(mock.holds(&id(&known[0])), "{dialect}");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_time_gets_it() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let (mock, known) = (mock(dialect).await, ids(dialect, 2));
        mock.seed(&id(&known[0]), false);
        mock.seed(&id(&known[1]), false);
        let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
        // A sign-in, where there is one, comes first and must not take the reply.
        assert_eq!(gateway.post("acme", &json!({ "contacts": [known[1]] })).await.outcomes(), ["deleted"], "{dialect}");
        let seconds = ["retry-after", "x-ratelimit-retry-after"].map(|name| (HeaderName::from_static(name), 1.into()));
        let headers = HeaderMap::from_iter(seconds);
        mock.fault(Fault::Reply { status: 429, headers, body: String::new() });
        let started = std::time::Instant::now();
        let answer = gateway.post("acme", &json!({ "contacts": [known[0]] })).await;
        assert_eq!(answer.outcomes(), ["deleted"], "{dialect}: {}", answer.text);
        assert_eq!(answer.json["results"][0]["attempts"], 2, "{dialect}");
        assert!(started.elapsed() >= Duration::from_millis(990), "{dialect}: it was asked again too early");
        gateway.stop().await;
    }
}

fn sign_ins(mock: &Mock) -> usize {
    mock.journal().iter().filter(|entry| entry.sign_in).count()
}

/// A connection whose credential comes from a sign-in, at the dialects that have one.
fn signed_in(dialect: &str, password: &str, connection: &mut toml::Table) {
    if dialect == "bas_ip" {
        let text = format!("username = \"admin\"\npassword = \"plain:{password}\"");
        connection.insert("credentials".to_owned(), text.parse::<toml::Table>().unwrap().into());
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    for dialect in ["talkdesk", "bas_ip"] {
        let mock = mock(dialect).await;
        let gateway = Setup::new()
            .mock("acme", "c", &mock, |connection| signed_in(dialect, "door-demo-password", connection))
            .start()
            .await;
        let known = ids(dialect, 3);
        known.iter().for_each(|each| mock.seed(&id(each), false));
        assert_eq!(gateway.post("acme", &json!({ "contacts": [known[0]] })).await.outcomes(), ["deleted"], "{dialect}");
        assert_eq!(sign_ins(&mock), 1, "{dialect}");
        mock.fault(Fault::Empty(401));
        let answer = gateway.post("acme", &json!({ "contacts": [known[1]] })).await;
        assert_eq!(answer.outcomes(), ["deleted"], "{dialect}: {}", answer.text);
        assert_eq!(sign_ins(&mock), 2, "{dialect}");
        mock.fault_always(Some(Fault::Empty(401)));
        let answer = gateway.post("acme", &json!({ "contacts": [known[2]] })).await;
        let told = (answer.outcomes(), answer.errors());
        assert_eq!(told, (vec!["failed"], vec!["upstream_unauthenticated"]), "{dialect}: {}", answer.text);
        claims_are_true(&answer, &[id(&known[2])], &mock, dialect);
        assert_eq!(sign_ins(&mock), 3, "{dialect}: a loop of sign-ins");
        assert_ne!(answer.status, 401, "it is not the caller's key that was refused");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let mock = mock("bas_ip").await;
    let gateway =
        Setup::new().mock("acme", "c", &mock, |connection| signed_in("bas_ip", "wrong", connection)).start().await;
    let known = ids("bas_ip", 20);
    known.iter().for_each(|each| mock.seed(&id(each), false));
    let bodies: Vec<_> = known.iter().map(|each| json!({ "contacts": [each] })).collect();
    let answers = join_all(bodies.iter().map(|body| gateway.post("acme", body))).await;
    for (answer, each) in answers.iter().zip(&known) {
        let told = (answer.outcomes()[0], answer.errors()[0]);
        // A caller may also meet the breaker, which says the same: nothing was sent.
        assert!(matches!(told, ("failed", "credential_unavailable") | ("skipped", "circuit_open")), "{}", answer.text);
        claims_are_true(answer, &[id(each)], &mock, "a wrong password");
    }
    assert!(answers.iter().any(|answer| answer.errors() == ["credential_unavailable"]));
    assert_eq!((sign_ins(&mock), mock.journal().len()), (1, 1), "an account is locked out for less");
    gateway.stop().await;
}

#[tokio::test]
async fn any_number_of_deletions_share_one_sign_in() {
    let mock = mock("talkdesk").await;
    let gateway =
        Setup::new().set("server.max_connections_per_address", 1000).mock("acme", "c", &mock, |_| {}).start().await;
    let known = ids("talkdesk", 200);
    known.iter().for_each(|each| mock.seed(&id(each), false));
    let bodies: Vec<_> = known.iter().map(|each| json!({ "contacts": [each] })).collect();
    let answers = within("200 deletions", join_all(bodies.iter().map(|body| gateway.post("acme", body)))).await;
    assert!(answers.iter().all(|answer| answer.outcomes() == ["deleted"]));
    assert_eq!((sign_ins(&mock), mock.deleted().len()), (1, 200));
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_has_no_more_calls_in_flight_than_it_may() {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .mock("acme", "c", &mock, |connection| {
            table(connection, "limits").insert("max_in_flight".to_owned(), 3.into());
        })
        .start()
        .await;
    let known = ids("wethod", 24);
    known.iter().for_each(|each| mock.seed(&id(each), false));
    hold(&mock);
    // In one deletion and over several.
    let bodies: Vec<_> = known.chunks(12).map(|some| json!({ "contacts": some })).collect();
    let deletions = async { join_all(bodies.iter().map(|body| gateway.post("acme", body))).await };
    let (answers, ()) = tokio::join!(deletions, async {
        within("three calls", mock.arrived(3)).await;
        // Had the gateway more in flight, they would come now: a request through all of it takes longer than one more call.
        for _ in 0..20 {
            assert_eq!(gateway.get("acme", "/v1/connections").await.status, 200);
        }
        assert_eq!(mock.journal().len(), 3, "more calls in flight than allowed");
        let_go(&mock);
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((mock.most_at_once(), mock.deleted().len()), (3, 24));
    gateway.stop().await;
}

async fn one(gateway: &Running, contact: &str) -> Answer {
    gateway.post("acme", &json!({ "contacts": [contact] })).await
}

#[tokio::test]
async fn an_upstream_that_keeps_failing_is_left_alone_and_then_asked_again() {
    let mock = mock("wethod").await;
    let gateway =
        Setup::new().set("upstream.breaker_open_ms", 1500).mock("acme", "c", &mock, attempts(1)).start().await;
    let known = ids("wethod", 7);
    known.iter().for_each(|each| mock.seed(&id(each), false));
    mock.fault_always(Some(Fault::DropBeforeCommit));
    for each in &known[..5] {
        assert_eq!(one(&gateway, each).await.outcomes(), ["unknown"]);
    }
    mock.fault_always(None);
    let answer = one(&gateway, &known[5]).await;
    assert_eq!((answer.outcomes(), answer.errors()), (vec!["skipped"], vec!["circuit_open"]), "{}", answer.text);
    assert_eq!(
        (&answer.json["results"][0]["attempts"], &answer.json["results"][0]["retry"]),
        (&json!(0), &json!("safe"))
    );
    assert_eq!(mock.journal().len(), 5, "an open breaker lets nothing pass");
    claims_are_true(&answer, &[id(&known[5])], &mock, "an open breaker");
    assert_eq!(gateway.get("acme", "/v1/connections/c").await.json["health"]["breaker"], "open");
    // Callers that keep asking are what finds out that it closed.
    let again = async {
        loop {
            let answer = one(&gateway, &known[5]).await;
            if answer.errors() != ["circuit_open"] {
                return answer;
            }
        }
    };
    let answer = within("the breaker", again).await;
    assert_eq!(answer.outcomes(), ["deleted"], "{}", answer.text);
    assert_eq!(one(&gateway, &known[6]).await.outcomes(), ["deleted"]);
    assert_eq!(gateway.get("acme", "/v1/connections/c").await.json["health"]["breaker"], "closed");
    gateway.stop().await;
}
