//! What Talkdesk's double does beyond the laws: tokens, refusals, and records that are known by phone.

use super::*;
use crate::conformance::{example, id_targets, sent, with_settings};
use crate::contract::{Finding, Reading, Slot, Target, TurnedAway};
use crate::dialect::{Account, Dialect, SignInReading};
use crate::talkdesk::DIALECT;

const A: &str = "8858c834-481d-4a02-8176-cffc02c50350";
const B: &str = "f03004be-2853-4660-b6e8-060cc383ddbe";

const ACCOUNT: [(&str, &str); 3] = [
    ("token_url", "https://acme.talkdeskid.com/oauth/token"),
    ("client_id", "td-demo"),
    ("client_secret", "talkdesk-demo-client-secret"),
];

fn changed(key: &str, value: &str) -> Box<dyn Dialect> {
    with_settings(&DIALECT, &serde_json::Map::from_iter([(key.to_owned(), value.into())]))
}

fn id(text: &str) -> Identifier {
    Identifier::Id(text.into())
}

fn phone(n: u32) -> Identifier {
    Identifier::Phone(format!("+1415555010{n}").into())
}

fn targets(identifiers: Vec<Identifier>) -> Vec<Target> {
    (0..).zip(identifiers).map(|(n, identifier)| Target { slot: Slot(n), identifier }).collect()
}

fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Deleted(_) => "deleted",
        Finding::NotFound(_) => "not_found",
        Finding::Fault(fault) => fault.code.as_str(),
    }
}

/// A call with a token that the double issued at second 1000.
fn signed_in(dialect: &dyn Dialect, double: &mut dyn Double, targets: &[Target]) -> (crate::Call, Request<Bytes>) {
    let sign_in = dialect.sign_in().unwrap();
    let request = sign_in.request(&Account(&ACCOUNT)).unwrap();
    let SignInReading::Token { value, .. } = sign_in.read(&double.answer(&request, 1_000).response) else { panic!() };
    let call = dialect.plan(targets.to_vec()).calls.remove(0);
    let mut request = call.request.clone();
    request.headers_mut().insert("authorization", format!("Bearer {value}").parse().unwrap());
    (call, request)
}

#[test]
fn the_doubles_token_is_over_after_ten_minutes() {
    let dialect = example(&DIALECT);
    let mut double = (DIALECT.double)();
    let (call, request) = signed_in(&*dialect, &mut *double, &id_targets(&[A]));
    let mut at = |now_s| dialect.interpret(&call, &double.answer(&request, now_s).response);
    assert!(matches!(at(1_599), Reading::Processed(_)));
    assert!(matches!(at(1_600), Reading::TurnedAway(TurnedAway::Credential(_))));
}

#[test]
fn the_double_knows_its_client() {
    let dialect = example(&DIALECT);
    let mut double = (DIALECT.double)();
    let sign_in = dialect.sign_in().unwrap();
    for (member, value) in [(1, "td-dem"), (2, "talkdesk-demo")] {
        let mut account = ACCOUNT;
        account[member].1 = value;
        let request = sign_in.request(&Account(&account)).unwrap();
        assert_eq!(sign_in.read(&double.answer(&request, 1_000).response), SignInReading::Refused);
    }
    let other = changed("scope", "record-lists:write");
    let request = other.sign_in().unwrap().request(&Account(&ACCOUNT)).unwrap();
    let response = double.answer(&request, 1_000).response;
    assert_eq!(response.status(), 400);
    assert_eq!(sign_in.read(&response), SignInReading::Refused);
}

#[test]
fn the_double_refuses_as_the_vendor_does() {
    let dialect = example(&DIALECT);
    let mut double = (DIALECT.double)();
    double.seed(&Identifier::Id(A.into()), false);
    let (call, request) = signed_in(&*dialect, &mut *double, &id_targets(&[A]));
    let mut answered = |change: &dyn Fn(&mut Request<Bytes>)| {
        let mut request = request.clone();
        change(&mut request);
        let answer = double.answer(&request, 1_000);
        assert!(answer.deleted.is_empty() && double.holds(&Identifier::Id(A.into())));
        let finding = dialect.interpret(&call, &answer.response).findings(&call).remove(0);
        (answer.response.status().as_u16(), word(&finding))
    };
    let wrong_list = "https://api.talkdeskapp.com/record-lists/other/records/bulks";
    let wrong_route = "https://api.talkdeskapp.com/record-lists";
    for uri in [wrong_list, wrong_route] {
        assert_eq!(answered(&|r| *r.uri_mut() = uri.parse().unwrap()), (404, "upstream_misconfigured"));
    }
    assert_eq!(answered(&|r| *r.method_mut() = Method::PUT), (405, "upstream_misconfigured"));
    let mixed = format!(r#"[{{"id":"{A}"}},{{"phone_number":"+1"}}]"#);
    let both = format!(r#"[{{"id":"{A}","phone_number":"+1"}}]"#);
    let many = format!("[{}]", vec![format!(r#"{{"id":"{A}"}}"#); 101].join(","));
    for body in ["", "[", "{}", "[]", "[{}]", r#"[{"id":"1"}]"#, r#"[{"external_id":"1"}]"#, &mixed, &both, &many] {
        let change = |r: &mut Request<Bytes>| *r.body_mut() = Bytes::from(body.to_owned());
        assert_eq!(answered(&change), (400, "upstream_validation"), "{body}");
    }
}

#[test]
fn the_double_names_no_phone() {
    let dialect = changed("attribution", "batch");
    let mut double = (DIALECT.double)();
    double.seed(&phone(0), false);
    double.seed(&phone(1), true);
    let three = targets(vec![phone(0), phone(1), phone(2)]);
    let (call, request) = signed_in(&*dialect, &mut *double, &three);
    let answer = double.answer(&request, 1_000);
    assert_eq!(answer.deleted, [phone(0)]);
    assert!(double.holds(&phone(1)));
    let body: Value = serde_json::from_slice(answer.response.body()).unwrap();
    assert_eq!((body["total_deleted"].clone(), body["total_errors"].clone()), (json!(1), json!(2)));
    assert_eq!(body["_embedded"]["failed_records"].as_array().unwrap().len(), 2);
    assert!(!body.to_string().contains("+1415"));
    let words: Vec<_> = dialect.interpret(&call, &answer.response).findings(&call).iter().map(word).collect();
    assert_eq!(words, ["response_incomplete"; 3]);
}

/// A list with A, B (held) and two phones (the second held), and a token for it.
fn list() -> (Box<dyn Double>, String) {
    let mut double = new();
    double.seed(&id(A), false);
    double.seed(&id(B), true);
    double.seed(&phone(0), false);
    double.seed(&phone(1), true);
    let (_, request) = signed_in(&*example(&DIALECT), &mut *double, &id_targets(&[A]));
    let token = request.headers()["authorization"].to_str().unwrap().to_owned();
    (double, token)
}

fn ask(list: &mut (Box<dyn Double>, String), method: &str, path: &str) -> (u16, Value, Vec<String>) {
    let (double, token) = list;
    sent(&mut **double, 1_000, (method, &format!("{LIST_URL}{path}")), &[("authorization", token)], "")
}

fn record_of(list: &mut (Box<dyn Double>, String), phone: &Identifier) -> String {
    let (_, records, _) = ask(list, "GET", "/records");
    let records = records["_embedded"]["records"].as_array().unwrap().clone();
    let found = records.iter().find(|record| record["phone_number"] == phone.text());
    found.unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_read_says_what_is_there() {
    let mut list = list();
    assert_eq!(ask(&mut list, "DELETE", &format!("/records/{A}")), (204, Value::Null, vec![A.to_owned()]));
    for (id, expected) in [(A, 404), (B, 200), ("x", 404)] {
        assert_eq!(ask(&mut list, "GET", &format!("/records/{id}")).0, expected, "{id}");
    }
    assert_eq!(ask(&mut list, "DELETE", &format!("/records/{A}")).0, 404);
    assert_eq!(ask(&mut list, "DELETE", &format!("/records/{B}")).0, 400);
    let (status, body, _) = ask(&mut list, "GET", "");
    assert_eq!((status, &body["id"], &body["total_records"]), (200, &json!(LIST_ID), &json!(3)));
    let (_, page, _) = ask(&mut list, "GET", "/records?page=2&per_page=2");
    assert_eq!((&page["count"], &page["total"], &page["total_pages"]), (&json!(1), &json!(3), &json!(2)));
    assert_eq!(ask(&mut list, "GET", "/records?page=18446744073709551615").1["count"], 0);
    list.1 = "Bearer td-token-9".to_owned();
    for path in ["", "/records", &format!("/records/{B}")] {
        assert_eq!(ask(&mut list, "GET", path).0, 401, "{path}");
    }
}

#[test]
fn a_record_that_is_known_by_phone_has_an_id_of_its_own() {
    let mut list = list();
    let record = record_of(&mut list, &phone(0));
    let (_, body, _) = ask(&mut list, "GET", &format!("/records/{record}"));
    assert_eq!(body["phone_number"], phone(0).text());
    let asked = |list: &(Box<dyn Double>, String)| {
        let request = Request::builder().method("DELETE").uri(format!("{LIST_URL}/records/{record}"));
        list.0.asked(&request.body(Bytes::new()).unwrap())
    };
    assert_eq!(asked(&list), Asked::Delete(vec![phone(0)]));
    assert_eq!(ask(&mut list, "DELETE", &format!("/records/{record}")).2, [phone(0).text()]);
    assert_eq!((asked(&list), list.0.holds(&phone(0))), (Asked::Delete(vec![phone(0)]), false));
    // Who comes again is another record: the old id does not reach it.
    list.0.seed(&phone(0), false);
    assert_ne!(record_of(&mut list, &phone(0)), record);
    assert_eq!(ask(&mut list, "DELETE", &format!("/records/{record}")).0, 404);
    assert!(list.0.holds(&phone(0)));
}

#[test]
fn a_held_phone_fails_by_the_id_of_its_record() {
    let mut list = list();
    let record = record_of(&mut list, &phone(1));
    let dialect = example(&DIALECT);
    let (call, request) = signed_in(&*dialect, &mut *list.0, &targets(vec![phone(1)]));
    let answer = list.0.answer(&request, 1_000);
    let body: Value = serde_json::from_slice(answer.response.body()).unwrap();
    assert_eq!(body["_embedded"]["failed_records"][0]["id"], record);
    let findings = dialect.interpret(&call, &answer.response).findings(&call);
    assert_eq!(findings.iter().map(word).collect::<Vec<_>>(), ["upstream_unspecified"]);
}

#[test]
fn routes_say_what_they_ask_for() {
    let bulk = format!(r#"[{{"id":"{A}"}},7,{{"phone_number":"+14155550101"}},{{"id":"x"}}]"#);
    for (method, uri, expected) in [
        ("DELETE", format!("{LIST_URL}/records/bulks"), Asked::Delete(vec![id(A), phone(1)])),
        ("DELETE", format!("{LIST_URL}/records/{A}"), Asked::Delete(vec![id(A)])),
        ("GET", format!("{LIST_URL}/records/{A}"), Asked::Read),
        ("GET", format!("{LIST_URL}/records?page=2"), Asked::Read),
        ("GET", LIST_URL.to_owned(), Asked::Read),
        ("POST", format!("https://x.example{TOKEN_PATH}"), Asked::SignIn),
        ("GET", format!("https://x.example{TOKEN_PATH}"), Asked::Other),
        ("POST", format!("{LIST_URL}/records/bulks"), Asked::Other),
        ("DELETE", format!("{LIST_URL}/records/{A}/x"), Asked::Other),
        ("DELETE", LIST_URL.to_owned(), Asked::Other),
        ("DELETE", "https://x.example/record-lists/other/records/bulks".to_owned(), Asked::Other),
    ] {
        let request = Request::builder().method(method).uri(&uri).body(Bytes::from(bulk.clone())).unwrap();
        assert_eq!(new().asked(&request), expected, "{method} {uri}");
    }
}
