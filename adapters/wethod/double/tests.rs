//! What Wethod's double does beyond the laws: the reads, and numbers in their one form.

use super::*;
use crate::conformance::sent;

fn id(n: u64) -> Identifier {
    Identifier::Id(n.to_string().into())
}

fn ask(double: &mut dyn Double, method: &str, path: &str) -> (u16, Value, Vec<String>) {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("wethod-company", COMPANY), ("wethod-version", VERSION)];
    sent(double, 0, (method, &format!("https://api.wethod.com/api/{path}")), &headers, "")
}

#[test]
fn a_read_says_what_is_there() {
    let mut double = new();
    (1..=3).for_each(|n| double.seed(&id(n), n == 2));
    assert_eq!(ask(&mut *double, "DELETE", "contact/003").2, ["3"]);
    assert_eq!(ask(&mut *double, "DELETE", "contact/2").0, 412);
    for (path, status) in [("contacts/1", 200), ("contacts/2", 200), ("contacts/3", 404), ("contacts/x", 400)] {
        assert_eq!(ask(&mut *double, "GET", path).0, status, "{path}");
    }
    assert_eq!(ask(&mut *double, "GET", "contacts/2").1["id"], 2);
    assert_eq!(ask(&mut *double, "GET", "contacts/3").1["key"], "not_found");
    let (_, list, _) = ask(&mut *double, "GET", "contacts");
    assert_eq!(list.as_array().unwrap().iter().map(|each| each["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_page_has_a_hundred_contacts_at_most() {
    let mut double = new();
    (1..=250).for_each(|n| double.seed(&id(n), false));
    for (query, first, count) in
        [("", 1, 100), ("?limit=1000", 1, 100), ("?limit=7&offset=9", 10, 7), ("?offset=200", 201, 50)]
    {
        let (_, list, _) = ask(&mut *double, "GET", &format!("contacts{query}"));
        assert_eq!((&list[0]["id"], list.as_array().unwrap().len()), (&json!(first), count), "{query}");
    }
    assert_eq!(ask(&mut *double, "GET", "contacts?offset=250").1, json!([]));
}

#[test]
fn a_read_needs_what_a_delete_needs() {
    let mut double = new();
    double.seed(&id(1), false);
    for path in ["contacts", "contacts/1"] {
        let uri = format!("https://api.wethod.com/api/{path}");
        let (status, body, _) = sent(&mut *double, 0, ("GET", &uri), &[("authorization", "Bearer x")], "");
        assert_eq!((status, &body["key"]), (401, &json!("unauthorized")));
    }
}

#[test]
fn routes_say_what_they_ask_for() {
    for (method, path, expected) in [
        ("DELETE", "contact/007", Asked::Delete(vec![id(7)])),
        ("DELETE", "contact/x", Asked::Delete(vec![])),
        ("GET", "contacts/7", Asked::Read),
        ("GET", "contacts?limit=1", Asked::Read),
        ("GET", "contact/7", Asked::Other),
        ("DELETE", "contacts/7", Asked::Other),
        ("DELETE", "contacts", Asked::Other),
        ("DELETE", "contact/", Asked::Other),
        ("DELETE", "contact/7/x", Asked::Other),
        ("GET", "contactsx", Asked::Other),
    ] {
        let uri = format!("https://api.wethod.com/api/{path}");
        let request = Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap();
        assert_eq!(new().asked(&request), expected, "{method} {path}");
    }
}
