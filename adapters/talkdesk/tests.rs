//! Talkdesk's quirks that no law covers.

use bytes::Bytes;
use http::Response;
use serde_json::{Map, Value, json};

use super::DIALECT;
use crate::conformance::{example, id_targets, with_settings};
use crate::contract::{Evidence, Finding, Identifier, Slot, Target};
use crate::dialect::{Account, Dialect, SignInReading};

const A: &str = "8858c834-481d-4a02-8176-cffc02c50350";
const B: &str = "f03004be-2853-4660-b6e8-060cc383ddbe";
const C: &str = "ba85ef13-ed0c-4acc-8799-4b2e81e91dcb";

const ACCOUNT: [(&str, &str); 3] = [
    ("token_url", "https://acme.talkdeskid.com/oauth/token"),
    ("client_id", "td-demo"),
    ("client_secret", "talkdesk-demo-client-secret"),
];

fn settings(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!() };
    map
}

fn batch() -> Box<dyn Dialect> {
    with_settings(&DIALECT, &settings(json!({"attribution": "batch"})))
}

fn phone(n: u32) -> Identifier {
    Identifier::Phone(format!("+1415555010{n}").into())
}

fn external(n: u32) -> Identifier {
    Identifier::External { provider: "salesforce".into(), id: format!("003DL000021{n}").into() }
}

fn targets(identifiers: Vec<Identifier>) -> Vec<Target> {
    (0..).zip(identifiers).map(|(n, identifier)| Target { slot: Slot(n), identifier }).collect()
}

fn reply(status: u16, body: &str) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap()
}

/// What one reply says about the contacts of the one call for them.
fn findings(targets: &[Target], status: u16, body: &str) -> Vec<Finding> {
    let dialect = batch();
    let call = dialect.plan(targets.to_vec()).calls.remove(0);
    assert_eq!(call.targets.len(), targets.len());
    dialect.interpret(&call, &reply(status, body)).findings(&call)
}

fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Deleted(Evidence::Aggregate) => "deleted",
        Finding::Deleted(_) | Finding::NotFound(_) => "not this dialect's",
        Finding::Fault(fault) => {
            assert!(!fault.still_there, "no reply proves that a contact is there");
            fault.code.as_str()
        }
    }
}

fn check(targets: &[Target], body: &Value, expected: &[&str]) {
    let words: Vec<_> = findings(targets, 200, &body.to_string()).iter().map(word).collect();
    assert_eq!(words, expected, "{body}");
}

/// A reply with these totals and failed records; `null` leaves a member out.
fn body(deleted: impl Into<Value>, errors: impl Into<Value>, failed: &Value) -> Value {
    let mut body = Map::new();
    for (key, value) in [("total_deleted", deleted.into()), ("total_errors", errors.into())] {
        if !value.is_null() {
            body.insert(key.to_owned(), value);
        }
    }
    if let Some(ids) = failed.as_array() {
        let records: Vec<_> = ids.iter().map(|id| json!({"id": id})).collect();
        body.insert("_embedded".to_owned(), json!({ "failed_records": records }));
    }
    Value::Object(body)
}

const FAILED: &str = "upstream_unspecified";
const INCOMPLETE: &str = "response_incomplete";
const CONTRADICTORY: &str = "response_contradictory";
const NONE: Value = Value::Null;

#[test]
fn by_id_failures_are_named_and_the_others_counted() {
    let abc = id_targets(&[A, B, C]);
    for (reply, expected) in [
        (body(3, 0, &json!([])), ["deleted"; 3]),
        (body(2, 1, &json!([B])), ["deleted", FAILED, "deleted"]),
        (body(1, 2, &json!([C, A])), [FAILED, "deleted", FAILED]),
        (body(0, 3, &json!([A, B, C])), [FAILED; 3]),
        // Hexadecimal case does not matter; a failure listed twice is one.
        (body(2, 1, &json!([B.to_uppercase()])), ["deleted", FAILED, "deleted"]),
        (body(2, 1, &json!([B, B])), ["deleted", FAILED, "deleted"]),
        (body(2, 2, &json!([B, B])), [CONTRADICTORY; 3]),
        // The others are not accounted for.
        (body(1, 1, &json!([B])), [CONTRADICTORY, FAILED, CONTRADICTORY]),
        (body(3, 1, &json!([B])), [CONTRADICTORY, FAILED, CONTRADICTORY]),
        (body(2, 0, &json!([])), [CONTRADICTORY; 3]),
        (body(0, 0, &json!([])), [CONTRADICTORY; 3]),
        (body(4, 0, &json!([])), [CONTRADICTORY; 3]),
        (body(NONE, 1, &json!([B])), [INCOMPLETE, FAILED, INCOMPLETE]),
        (body(NONE, 0, &json!([])), [INCOMPLETE; 3]),
        (body(NONE, 3, &json!([A, B, C])), [FAILED; 3]),
        // Counted but not listed, listed but not counted, not ours, nobody's.
        (body(2, 1, &json!([])), [CONTRADICTORY; 3]),
        (body(2, 1, &NONE), [CONTRADICTORY; 3]),
        (body(0, 3, &NONE), [CONTRADICTORY; 3]),
        (body(2, 0, &json!([B])), [CONTRADICTORY; 3]),
        (body(3, 1, &json!(["5eedfa11-0000-4000-8000-000000000001"])), [CONTRADICTORY; 3]),
        (body(2, 2, &json!([B, "5eedfa11-0000-4000-8000-000000000001"])), [CONTRADICTORY; 3]),
        (body(2, 1, &json!([null])), [CONTRADICTORY; 3]),
        // The number of errors is left out.
        (body(2, NONE, &json!([B])), ["deleted", FAILED, "deleted"]),
        (body(3, NONE, &json!([])), ["deleted"; 3]),
        (body(3, NONE, &NONE), ["deleted"; 3]),
        (body(2, NONE, &NONE), [CONTRADICTORY; 3]),
    ] {
        check(&abc, &reply, &expected);
    }
}

#[test]
fn a_single_id_is_claimed_only_where_both_rules_agree() {
    let a = id_targets(&[A]);
    for (reply, expected) in [
        (body(1, 0, &json!([])), "deleted"),
        (body(0, 1, &json!([A])), FAILED),
        (body(1, 1, &json!([A])), FAILED),
        (body(0, 0, &json!([])), INCOMPLETE),
        (body(2, 0, &json!([])), CONTRADICTORY),
        (body(0, 1, &NONE), CONTRADICTORY),
        (body(0, 1, &json!([B])), CONTRADICTORY),
    ] {
        check(&a, &reply, &[expected]);
    }
}

#[test]
fn one_phone_or_external_id_in_a_call_owns_the_totals() {
    for identifier in [phone(0), external(0)] {
        let one = targets(vec![identifier]);
        for (reply, expected) in [
            (body(1, 0, &json!([])), "deleted"),
            (body(3, 0, &json!([])), "deleted"),
            (body(1, NONE, &NONE), "deleted"),
            (body(0, 1, &json!([A])), FAILED),
            (body(0, 1, &NONE), FAILED),
            (body(0, 2, &json!([A, B])), FAILED),
            (body(NONE, 1, &json!([A])), FAILED),
            (body(0, NONE, &json!([A])), FAILED),
            // Some of its records are gone and some are not: it is not deleted.
            (body(2, 1, &json!([A])), FAILED),
            (body(2, NONE, &json!([A])), FAILED),
            (body(0, 0, &json!([])), INCOMPLETE),
            (body(0, NONE, &NONE), INCOMPLETE),
            (body(NONE, 0, &json!([])), INCOMPLETE),
            (body(1, 0, &json!([A])), CONTRADICTORY),
        ] {
            check(&one, &reply, &[expected]);
        }
    }
}

#[test]
fn several_phones_or_external_ids_share_one_fate() {
    for several in [vec![phone(0), phone(1)], vec![external(0), external(1)]] {
        let two = targets(several);
        for (reply, expected) in [
            (body(2, 0, &json!([])), "deleted"),
            (body(2, NONE, &NONE), "deleted"),
            (body(0, 2, &json!([A, B])), FAILED),
            (body(0, 2, &NONE), FAILED),
            (body(0, NONE, &json!([A, B])), FAILED),
            (body(0, NONE, &json!([A, A])), INCOMPLETE),
            (body(NONE, 2, &json!([A, B])), INCOMPLETE),
            (body(1, 1, &json!([A])), INCOMPLETE),
            (body(2, 1, &json!([A])), INCOMPLETE),
            (body(1, 2, &json!([A, B])), INCOMPLETE),
            (body(1, 0, &json!([])), INCOMPLETE),
            (body(3, 0, &json!([])), INCOMPLETE),
            (body(0, 1, &json!([A])), INCOMPLETE),
            (body(0, 3, &json!([])), INCOMPLETE),
            (body(0, 0, &json!([])), INCOMPLETE),
            (body(2, 0, &json!([A])), CONTRADICTORY),
        ] {
            check(&two, &reply, &[expected; 2]);
        }
    }
}

#[test]
fn failures_carry_how_they_are_known() {
    let evidence = |targets: &[Target], body: &Value| match &findings(targets, 200, &body.to_string())[0] {
        Finding::Fault(fault) => fault.evidence,
        other => panic!("{other:?}"),
    };
    assert_eq!(evidence(&id_targets(&[A]), &body(0, 1, &json!([A]))), Evidence::Item);
    assert_eq!(evidence(&targets(vec![phone(0)]), &body(0, 1, &json!([A]))), Evidence::Aggregate);
    assert_eq!(evidence(&id_targets(&[A]), &body(0, 0, &json!([]))), Evidence::None);
}

#[test]
fn has_errors_decides_nothing_beside_totals() {
    for says in [json!(true), json!(false), json!(null)] {
        let mut reply = body(2, 0, &json!([]));
        reply["has_errors"] = says.clone();
        check(&id_targets(&[A, B]), &reply, &["deleted"; 2]);
        let mut reply = body(1, 1, &json!([B]));
        reply["has_errors"] = says;
        check(&id_targets(&[A, B]), &reply, &["deleted", FAILED]);
    }
}

#[test]
fn no_total_is_no_answer() {
    for several in [id_targets(&[A, B]), targets(vec![phone(0), phone(1)])] {
        for reply in [
            json!({}),
            json!({"has_errors": false}),
            json!({"total_deleted": null, "total_errors": null}),
            json!({"code": "x", "message": "y"}),
            body(NONE, NONE, &json!([A, B])),
        ] {
            check(&several, &reply, &[INCOMPLETE; 2]);
        }
    }
}

#[test]
fn another_shape_is_unreadable() {
    for reply in [
        json!([]),
        json!(null),
        json!("ok"),
        json!(2),
        // Arrays are never read as objects, member by member.
        json!([2, 0, null]),
        json!({"total_deleted": 2, "_embedded": [[]]}),
        json!({"total_deleted": 1, "total_errors": 1, "_embedded": {"failed_records": [[B]]}}),
        json!({"total_deleted": "2", "total_errors": 0}),
        json!({"total_deleted": -2}),
        json!({"total_deleted": 2.0}),
        json!({"total_deleted": 2, "_embedded": {"failed_records": {}}}),
        json!({"total_deleted": 2, "_embedded": {"failed_records": [7]}}),
    ] {
        check(&id_targets(&[A, B]), &reply, &["response_unreadable"; 2]);
    }
    let twice = r#"{"total_deleted":2,"total_deleted":2}"#;
    let words: Vec<_> = findings(&id_targets(&[A, B]), 200, twice).iter().map(word).collect();
    assert_eq!(words, ["response_unreadable"; 2]);
}

#[test]
fn a_refusal_needs_the_vendors_envelope() {
    let ours = r#"{"code":"0000001","message":"Bad request"}"#;
    for (status, body, expected) in [
        (400, ours, "upstream_validation"),
        (422, ours, "upstream_validation"),
        (412, ours, "upstream_precondition"),
        (400, "<html>Bad Request</html>", "upstream_misconfigured"),
        (400, r#"["0000001","Bad request"]"#, "upstream_misconfigured"),
        (400, r#"{"message":"Bad Request"}"#, "upstream_misconfigured"),
        (412, "", "upstream_misconfigured"),
        (422, "{}", "upstream_misconfigured"),
        (404, ours, "upstream_misconfigured"),
        (404, "", "upstream_misconfigured"),
        (405, ours, "upstream_misconfigured"),
        (202, r#"{"total_deleted":1,"total_errors":0}"#, "accepted_unconfirmed"),
        (201, r#"{"total_deleted":1,"total_errors":0}"#, "response_unreadable"),
        (204, "", "response_unreadable"),
    ] {
        assert_eq!(word(&findings(&id_targets(&[A]), status, body)[0]), expected, "{status} {body}");
    }
}

#[test]
fn the_upstreams_own_code_is_kept_unless_it_could_be_an_identifier() {
    for status in [400, 401, 403, 404, 429, 503] {
        let code = |text: &str| {
            let body = json!({"code": text, "message": "m", "fields": [{"name": "n", "description": "d"}]});
            let Finding::Fault(fault) = findings(&id_targets(&[A]), status, &body.to_string()).remove(0) else {
                panic!()
            };
            fault.upstream.unwrap().code
        };
        assert_eq!(code("0000001").as_deref(), Some("0000001"), "{status}");
        assert_eq!(code(A), None, "{status}");
        assert_eq!(code("no such record"), None, "{status}");
    }
}

/// The slots of each call.
fn slots(dialect: &dyn Dialect, targets: &[Target]) -> Vec<Vec<u32>> {
    let calls = dialect.plan(targets.to_vec()).calls;
    calls.iter().map(|call| call.targets.iter().map(|target| target.slot.0).collect()).collect()
}

#[test]
fn a_call_has_one_kind_and_calls_stand_by_their_first_slot() {
    let mixed =
        targets(vec![phone(0), Identifier::Id(A.into()), external(0), phone(1), Identifier::Id(B.into()), external(1)]);
    assert_eq!(slots(&*example(&DIALECT), &mixed), [vec![0], vec![1, 4], vec![2], vec![3], vec![5]]);
    assert_eq!(slots(&*batch(), &mixed), [[0, 3], [1, 4], [2, 5]]);
    let single = with_settings(&DIALECT, &settings(json!({"attribution": "batch", "max_contacts_per_call": 1})));
    assert_eq!(slots(&*single, &mixed), [[0], [1], [2], [3], [4], [5]]);
    let body = &batch().plan(mixed).calls[2].request.body().clone();
    let item = |id: &str| format!("{{\"external_provider\":\"salesforce\",\"external_id\":\"{id}\"}}");
    assert_eq!(body, &format!("[{},{}]", item("003DL0000210"), item("003DL0000211")));
}

#[test]
fn calls_are_filled_to_the_most() {
    let ids: Vec<_> = (0..250).map(|n| format!("91c615e3-1040-4815-8ecb-{n:012x}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let sizes: Vec<_> = example(&DIALECT).plan(id_targets(&ids)).calls.iter().map(|c| c.targets.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn external_ids_are_visible_ascii_and_keep_their_case() {
    let admits = |provider: &str, id: &str| {
        DIALECT.profile.admit(&Identifier::External { provider: provider.into(), id: id.into() }).is_ok()
    };
    assert!(admits("salesforce", "003DL0000212DetYAE") && admits("s", &"x".repeat(128)));
    for (provider, id) in [("", "1"), ("s", ""), ("a b", "1"), ("s", "é"), ("s", "1\n")] {
        assert!(!admits(provider, id), "{provider:?} {id:?}");
    }
    assert!(!admits("s", &"x".repeat(129)) && !admits(&"x".repeat(129), "1"));
    for identifier in [phone(0), external(0)] {
        let rule = DIALECT.profile.admit(&identifier).unwrap();
        assert!(!rule.replay_safe && !rule.case_blind);
    }
}

#[test]
fn bad_settings_are_named_and_not_repeated() {
    for (key, value) in [
        ("attribution", json!("hunter2")),
        ("attribution", json!(7)),
        ("record_list_id", json!("")),
        ("record_list_id", json!("hunter2/..")),
        ("record_list_id", json!("x".repeat(37))),
        ("scope", json!("")),
        ("scope", json!("hunter2  x")),
        ("scope", json!("hunter2\"")),
        ("max_contacts_per_call", json!(101)),
    ] {
        let mut all = settings(json!({"base_url": "https://x.example", "record_list_id": "l"}));
        all.insert(key.to_owned(), value);
        let err = (DIALECT.open)(Value::Object(all)).unwrap_err();
        assert_eq!(err.key, key);
        assert!(!err.message.contains("hunter2"), "{err}");
    }
}

#[test]
fn a_token_is_asked_for_at_a_plain_url_alone() {
    let dialect = example(&DIALECT);
    let sign_in = dialect.sign_in().unwrap();
    assert_eq!(sign_in.request(&Account(&ACCOUNT)).unwrap().uri(), ACCOUNT[0].1);
    for bad in
        ["", "acme.example/oauth/token", "ftp://acme.example/t", "https://u:hunter2@acme.example/t", "https://x/t?q"]
    {
        let account = [("token_url", bad), ACCOUNT[1], ACCOUNT[2]];
        let err = sign_in.request(&Account(&account)).unwrap_err();
        assert_eq!(err.key, "credentials.token_url", "{bad}");
        assert!(!err.message.contains("hunter2"));
    }
    let custom = with_settings(&DIALECT, &settings(json!({"scope": "a:b c"})));
    let request = custom.sign_in().unwrap().request(&Account(&ACCOUNT)).unwrap();
    assert!(request.body().ends_with(b"&scope=a%3Ab%20c"));
}

#[test]
fn a_token_without_a_life_holds_ten_minutes() {
    let dialect = example(&DIALECT);
    for (body, expected) in
        [(r#"{"access_token":"t"}"#, Some(600)), (r#"{"access_token":"t","expires_in":60}"#, Some(60))]
    {
        let SignInReading::Token { lifetime_s, .. } = dialect.sign_in().unwrap().read(&reply(200, body)) else {
            panic!()
        };
        assert_eq!(lifetime_s, expected);
    }
}

#[test]
fn a_flag_of_errors_that_nothing_counts_takes_the_claim_away() {
    let dialect = example(&DIALECT);
    let phone = crate::Target { slot: crate::Slot(0), identifier: crate::Identifier::Phone("+188888888".into()) };
    let call = dialect.plan(vec![phone]).calls.remove(0);
    let reply = Response::new(Bytes::from_static(b"{\"has_errors\":true,\"total_deleted\":1}"));
    let findings = dialect.interpret(&call, &reply).findings(&call);
    assert!(matches!(&findings[0], Finding::Fault(fault) if fault.code.as_str() == "response_contradictory"));
}
