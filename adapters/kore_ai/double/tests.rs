//! What Kore.ai's double does beyond the laws: the signature, the soft delete, and the list.

use super::*;
use crate::conformance::{sent, signed_jwt};

const A: &str = "6960cbe9b155d194e2f00001";
const B: &str = "6960cbe9b155d194e2f0000b";
const HELD: &str = "6960cbe9b155d194e2f0000c";

fn id(text: &str) -> Identifier {
    Identifier::Id(text.into())
}

fn platform() -> Box<dyn Double> {
    let mut double = new();
    [A, B, HELD].into_iter().for_each(|each| double.seed(&id(each), each == HELD));
    double
}

fn with_token(double: &mut dyn Double, now_s: u64, jwt: &str, method: &str, path: &str) -> (u16, Value, Vec<String>) {
    let headers = [("auth", jwt), ("accountid", ACCOUNT_ID)];
    sent(double, now_s, (method, &format!("https://platform.kore.ai{ROOT}{path}")), &headers, "")
}

fn ask(double: &mut dyn Double, method: &str, path: &str) -> (u16, Value, Vec<String>) {
    with_token(double, 0, &signed_jwt(&json!({ "appId": CLIENT_ID }), CLIENT_SECRET), method, path)
}

fn listed(list: &Value) -> Vec<(&str, &str)> {
    let results = list["results"].as_array().unwrap().iter();
    results.map(|each| (each["id"].as_str().unwrap(), each["status"].as_str().unwrap())).collect()
}

#[test]
fn only_our_signature_opens() {
    let ours = json!({ "appId": CLIENT_ID });
    let good = signed_jwt(&ours, CLIENT_SECRET);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let part = |json: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
    let none = format!("{}.{payload}.", part("{\"alg\":\"none\"}"));
    // The right signature of our client, for a header of another algorithm.
    let other = {
        let signed = format!("{}.{payload}", part("{\"alg\":\"HS512\"}"));
        let mut mac = Hmac::<Sha256>::new_from_slice(CLIENT_SECRET.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{signed}.{signature}")
    };
    let changed = format!("{header}.{}.{signature}", part("{\"appId\":\"cs-demo\",\"exp\":9}"));
    for (token, expected) in [
        (good.clone(), 200),
        (signed_jwt(&json!({ "appId": CLIENT_ID, "exp": 1_001 }), CLIENT_SECRET), 200),
        (signed_jwt(&json!({ "appId": CLIENT_ID, "exp": 1_000.5 }), CLIENT_SECRET), 200),
        (signed_jwt(&json!({ "appId": CLIENT_ID, "exp": 1_000 }), CLIENT_SECRET), 401),
        (signed_jwt(&json!({ "appId": CLIENT_ID, "exp": "later" }), CLIENT_SECRET), 401),
        (signed_jwt(&json!({ "appId": "cs-other" }), CLIENT_SECRET), 401),
        (signed_jwt(&json!({}), CLIENT_SECRET), 401),
        (signed_jwt(&ours, "another-secret"), 401),
        (signed_jwt(&json!(7), CLIENT_SECRET), 401),
        (format!("{signed}.c2ln"), 401),
        (format!("{signed}."), 401),
        (signed.to_owned(), 401),
        (format!("{good}.{signature}"), 401),
        (format!("Bearer {good}"), 401),
        (none, 401),
        (other, 401),
        (changed, 401),
        (String::new(), 401),
    ] {
        let (status, body, _) = with_token(&mut *platform(), 1_000, &token, "GET", "");
        assert_eq!(status, expected, "{token}");
        assert!(status == 200 || body["errors"][0]["msg"] == "Invalid JWT token", "{body}");
    }
    let uri = format!("https://platform.kore.ai{ROOT}");
    assert_eq!(sent(&mut *platform(), 0, ("GET", &uri), &[("auth", &good), ("accountid", "x")], "").0, 401);
}

#[test]
fn a_deleted_contact_is_inactive_and_nothing_else() {
    let mut double = platform();
    let (status, body, deleted) = ask(&mut *double, "DELETE", &format!("/{}", B.to_uppercase()));
    assert_eq!((status, &body["id"], &body["status"]), (200, &json!(B), &json!("INACTIVE")));
    assert_eq!(deleted, [B.to_uppercase()]);
    assert!(!double.holds(&id(B)));
    for (path, expected) in [(B, 400), (HELD, 400), ("6960cbe9b155d194e2f0000d", 400), ("x", 412)] {
        let (status, _, deleted) = ask(&mut *double, "DELETE", &format!("/{path}"));
        assert_eq!((status, deleted.len()), (expected, 0), "{path}");
    }
    let (_, list, _) = ask(&mut *double, "GET", "");
    assert_eq!(listed(&list), [(A, "ACTIVE"), (HELD, "ACTIVE"), (B, "INACTIVE")]);
    double.seed(&id(B), false);
    double.forget(&id(A));
    let (_, list, _) = ask(&mut *double, "GET", "");
    assert_eq!(listed(&list), [(B, "ACTIVE"), (HELD, "ACTIVE")]);
}

#[test]
fn the_list_has_pages_of_ten() {
    let mut double = new();
    (0..23).for_each(|n| double.seed(&id(&format!("{n:024x}")), false));
    let (_, list, _) = ask(&mut *double, "GET", "");
    assert_eq!((listed(&list).len(), &list["limit"], &list["totalPages"]), (10, &json!(10), &json!(3)));
    assert_eq!((&list["hasMore"], &list["totalResults"]), (&json!(true), &json!(23)));
    let (_, list, _) = ask(&mut *double, "GET", "?skip=20&limit=5");
    assert_eq!((listed(&list).len(), &list["skip"], &list["hasMore"]), (3, &json!(20), &json!(false)));
    for odd in ["?skip=99&limit=0", "?skip=-1&limit=x", "?skip=18446744073709551615"] {
        assert_eq!(ask(&mut *double, "GET", odd).0, 200, "{odd}");
    }
}

#[test]
fn routes_say_what_they_ask_for() {
    for (method, path, expected) in [
        ("DELETE", "/bulk-delete", Asked::Delete(vec![])),
        ("DELETE", "/x", Asked::Delete(vec![id("x")])),
        ("GET", "?limit=1", Asked::Read),
        ("GET", "/6960cbe9b155d194e2f00001", Asked::Other),
        ("POST", "/bulk-delete", Asked::Other),
        ("DELETE", "", Asked::Other),
        ("DELETE", "/a/b", Asked::Other),
        ("GET", "x", Asked::Other),
    ] {
        let request = Request::builder().method(method).uri(format!("{ROOT}{path}")).body(Bytes::new()).unwrap();
        assert_eq!(new().asked(&request), expected, "{method} {path}");
    }
}
