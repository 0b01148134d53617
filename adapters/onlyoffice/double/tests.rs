//! What ONLYOFFICE's double does beyond the laws: sign-in, reads, and the two deletes of many.

use base64::Engine;

use super::*;
use crate::conformance::sent;

const ROOT: &str = "https://portal.example.com/api/2.0/";
const OURS: (&str, &str) = ("authorization", TOKEN);

fn id(n: u64) -> Identifier {
    Identifier::Id(n.to_string().into())
}

/// A double with the contacts 1 to `n`, of which 2 is held.
fn portal(n: u64) -> Box<dyn Double> {
    let mut double = new();
    (1..=n).for_each(|n| double.seed(&id(n), n == 2));
    double
}

fn ask(double: &mut dyn Double, method: &str, path: &str, body: &str) -> (u16, Value, Vec<String>) {
    sent(double, 0, (method, &format!("{ROOT}{path}")), &[OURS], body)
}

fn ids(list: &Value) -> Vec<u64> {
    list["response"].as_array().unwrap().iter().map(|contact| contact["id"].as_u64().unwrap()).collect()
}

#[test]
fn a_token_is_issued_for_the_password_and_ends() {
    let mut double = portal(3);
    let sign_in = format!("{ROOT}authentication");
    let mut issue = |body: &str| sent(&mut *double, 1_000, ("POST", &sign_in), &[], body);
    for body in [r#"{"userName":"admin@example.com","password":"guess"}"#, "{}", "[]"] {
        let (status, body, _) = issue(body);
        assert_eq!((status, &body["error"]["message"]), (500, &json!("User authentication failed")));
    }
    assert_eq!(issue("").0, 400);
    let (status, body, _) = issue(r#"{"userName":"admin@example.com","password":"onlyoffice-demo-password"}"#);
    assert_eq!((status, &body["statusCode"], &body["status"]), (201, &json!(201), &json!(0)));
    assert_eq!(body["response"]["expires"], "1971-01-01T00:16:40.0000000Z");
    let token = body["response"]["token"].as_str().unwrap();
    let (bearer, cookie) = (format!("Bearer {token}"), format!("a=b; asc_auth_key={token}"));
    let mut read = |now_s, header| sent(&mut *double, now_s, ("GET", &format!("{ROOT}crm/contact/1")), &[header], "").0;
    for header in [("authorization", token), ("authorization", &bearer), ("cookie", &cookie)] {
        assert_eq!((read(999 + TOKEN_LIFE_S, header), read(1_000 + TOKEN_LIFE_S, header)), (200, 401), "{header:?}");
    }
}

#[test]
fn the_account_is_taken_by_http_basic_too() {
    let mut double = portal(1);
    for (pair, expected) in [
        ("admin@example.com:onlyoffice-demo-password", 200),
        ("admin@example.com:guess", 401),
        ("admin@example.com", 401),
    ] {
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let (status, _, _) =
            sent(&mut *double, 0, ("GET", &format!("{ROOT}crm/contact/1")), &[("authorization", &basic)], "");
        assert_eq!(status, expected, "{pair}");
    }
    for shown in ["Bearer onlyoffice-demo-token", "onlyoffice-demo-token"] {
        let answer = sent(&mut *double, 0, ("GET", &format!("{ROOT}crm/contact/1")), &[("authorization", shown)], "");
        assert_eq!(answer.0, 200);
    }
}

#[test]
fn a_read_says_what_is_there() {
    let mut double = portal(3);
    assert_eq!(ask(&mut *double, "DELETE", "crm/contact/3", "").2, ["3"]);
    for (path, status) in [("1", 200), ("2", 200), ("002", 200), ("3", 404), ("4", 404), ("0", 400)] {
        let (found, body, _) = ask(&mut *double, "GET", &format!("crm/contact/{path}"), "");
        assert_eq!((found, &body["statusCode"]), (status, &status.into()), "{path}");
    }
    assert_eq!(ask(&mut *double, "GET", "crm/contact/2", "").1["response"]["canDelete"], false);
    let (_, list, _) = ask(&mut *double, "GET", "crm/contact/filter", "");
    assert_eq!((ids(&list), &list["count"], &list["total"]), (vec![1, 2], &json!(2), &json!(2)));
    let (_, page, _) = ask(&mut *double, "GET", "crm/contact/filter?startIndex=1&count=1", "");
    assert_eq!((ids(&page), &page["startIndex"], &page["total"]), (vec![2], &json!(1), &json!(2)));
    let (_, list, _) = ask(&mut *new(), "GET", "crm/contact/filter", "");
    assert_eq!(list, json!({ "status": 0, "statusCode": 200, "response": [] }));
}

#[test]
fn a_batch_passes_over_who_is_missing_or_held() {
    let mut double = portal(4);
    let (status, body, deleted) = ask(&mut *double, "PUT", "crm/contact", r#"{"contactIds":[9,2,3,3,"1"]}"#);
    assert_eq!((status, ids(&body), deleted), (200, vec![3, 1], vec!["3".to_owned(), "1".to_owned()]));
    let (_, body, deleted) = ask(&mut *double, "PUT", "crm/contact", r#"{"contactids":[2,3]}"#);
    assert_eq!(body, json!({ "status": 0, "statusCode": 200, "response": [] }));
    assert!(deleted.is_empty());
    for body in ["", "{}", "[4]", r#"{"contactids":[]}"#, r#"{"contactids":[4,0]}"#, r#"{"contactids":[4,"x"]}"#] {
        let (status, _, deleted) = ask(&mut *double, "PUT", "crm/contact", body);
        assert_eq!((status, deleted.len()), (400, 0), "{body}");
    }
    assert_eq!(double.contacts(), [(id(2), true), (id(4), false)]);
}

#[test]
fn a_list_is_cut_and_a_delete_is_not() {
    let mut double = portal(1_203);
    let many: Vec<_> = (3..=1_103).collect();
    let (_, body, deleted) = ask(&mut *double, "PUT", "crm/contact", &json!({ "contactids": many }).to_string());
    assert_eq!((ids(&body).len(), deleted.len()), (1_000, 1_101));
    assert_eq!((&body["count"], &body["total"]), (&json!(1_000), &json!(1_101)));
    let (_, body, deleted) = ask(&mut *double, "DELETE", "crm/contact/filter?count=5", "");
    assert_eq!((ids(&body).len(), deleted.len()), (5, 101));
    assert_eq!(double.contacts(), [(id(2), true)]);
}

#[test]
fn routes_say_what_they_ask_for() {
    let double = new();
    for (method, path, body, expected) in [
        ("DELETE", "crm/contact/007", "", Asked::Delete(vec![id(7)])),
        ("DELETE", "crm/contact/0", "", Asked::Delete(vec![])),
        ("DELETE", "crm/contact/filter", r#"{"contactids":[1]}"#, Asked::Delete(vec![])),
        ("PUT", "crm/contact", r#"{"contactids":[1,"x",-1,"2"]}"#, Asked::Delete(vec![id(1), id(2)])),
        ("PUT", "crm/contact", "", Asked::Delete(vec![])),
        ("POST", "authentication", "", Asked::SignIn),
        ("GET", "CRM/Contact/Filter", "", Asked::Read),
        ("GET", "crm/contact/1", "", Asked::Read),
        ("DELETE", "crm/contact/1/avatar", "", Asked::Other),
        ("POST", "crm/contact", "", Asked::Other),
        ("GET", "authentication", "", Asked::Other),
    ] {
        let request = Request::builder().method(method).uri(format!("{ROOT}{path}"));
        assert_eq!(double.asked(&request.body(Bytes::from(body)).unwrap()), expected, "{method} {path}");
    }
}

#[test]
fn a_date_is_right_around_leap_days() {
    for (unix_s, expected) in [
        (0, "1970-01-01T00:00:00"),
        (951_782_399, "2000-02-28T23:59:59"),
        (951_782_400, "2000-02-29T00:00:00"),
        (1_715_189_824, "2024-05-08T17:37:04"),
        (4_107_542_400, "2100-03-01T00:00:00"),
    ] {
        assert_eq!(date(unix_s), format!("{expected}.0000000Z"));
    }
}
