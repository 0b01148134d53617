//! BAS-IP's quirks that no law covers.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response};
use serde_json::{Map, Value, json};

use super::{DIALECT, PROFILE, TOKEN_LIFE_S, double};
use crate::conformance::{example, id_targets, with_settings};
use crate::contract::{Call, Finding, Reading, TurnedAway, Wait};
use crate::dialect::{Account, Dialect, Double, SignInReading};

const A: &str = "91c615e3-1040-4815-8ecb-039a18b756b5";
const B: &str = "79c14a34-c788-48de-a9e7-9d66029f5c78";
const FIXED: &str = "93144b288eb1fd3cbe46d6fc0f241a51766ecd3d";
const ADMIN: Account<'_> = Account(&[("username", "admin"), ("password", "door-demo-password")]);

fn answer(status: u16, body: &str) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap()
}

fn reading(status: u16, body: &str) -> Reading {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[A, B])).calls.remove(0);
    dialect.interpret(&call, &answer(status, body))
}

fn findings(status: u16, body: &str) -> Vec<Finding> {
    let call = example(&DIALECT).plan(id_targets(&[A, B])).calls.remove(0);
    reading(status, body).findings(&call)
}

/// The word for each contact: `deleted`, `not_found`, or the fault's code.
fn check(status: u16, body: &Value, expected: [&str; 2]) {
    let findings = findings(status, &body.to_string());
    let words: Vec<_> = findings.iter().map(word).collect();
    assert_eq!(words, expected, "{status} {body}");
    assert!(findings.iter().all(|f| !matches!(f, Finding::Fault(fault) if fault.still_there)), "{status} {body}");
}

fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Deleted(_) => "deleted",
        Finding::NotFound(_) => "not_found",
        Finding::Fault(fault) => fault.code.as_str(),
    }
}

fn settings(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!() };
    map
}

#[test]
fn only_both_members_together_are_proof() {
    for (item, expected) in [
        (json!({"success": true, "extended_info": "deleted"}), "deleted"),
        (json!({"success": true, "extended_info": "updated"}), "response_contradictory"),
        (json!({"success": true, "extended_info": "entity_not_found"}), "response_contradictory"),
        (json!({"success": true, "extended_info": null}), "response_incomplete"),
        (json!({"success": true}), "response_incomplete"),
        (json!({"success": false, "extended_info": "entity_not_found"}), "not_found"),
        (json!({"success": false, "extended_info": "not_found"}), "not_found"),
        (json!({"success": false, "extended_info": "has_dublicates"}), "upstream_unspecified"),
        (json!({"success": false, "extended_info": "owner_not_found"}), "upstream_unspecified"),
        (json!({"success": false, "extended_info": ["entity_not_found"]}), "upstream_unspecified"),
        (json!({"success": false}), "upstream_unspecified"),
        (json!({"success": false, "extended_info": "deleted"}), "response_contradictory"),
        (json!({"extended_info": "deleted"}), "response_incomplete"),
        (json!({"success": null, "extended_info": "deleted"}), "response_incomplete"),
        (json!({"success": "true", "extended_info": "deleted"}), "response_incomplete"),
        (json!({"success": 1, "extended_info": "deleted"}), "response_incomplete"),
    ] {
        let mut item = settings(item);
        item.insert("link_id".to_owned(), B.into());
        let other = json!({"link_id": A, "success": true, "extended_info": "deleted"});
        check(200, &json!({"result": [other, item]}), ["deleted", expected]);
    }
}

#[test]
fn an_item_without_a_usable_link_id_names_nobody() {
    for id in [json!(null), json!(7), json!([A]), json!({"code": A}), json!("")] {
        let item = json!({"link_id": id, "success": true, "extended_info": "deleted"});
        check(200, &json!({"result": [item, item]}), ["response_incomplete"; 2]);
    }
}

#[test]
fn of_two_results_for_one_contact_only_the_vendors_own_pair_is_no_contradiction() {
    let deleted = ("deleted", json!({"link_id": A, "success": true, "extended_info": "deleted"}));
    let missing = ("not_found", json!({"link_id": A, "success": false, "extended_info": "not_found"}));
    let refused = ("upstream_unspecified", json!({"link_id": A, "success": false, "extended_info": "has_dublicates"}));
    let torn = ("response_contradictory", json!({"link_id": A, "success": true, "extended_info": "created"}));
    let silent = ("response_incomplete", json!({"link_id": A}));
    for one in [&deleted, &missing, &refused, &torn, &silent] {
        for other in [&deleted, &missing, &refused, &torn, &silent] {
            let expected = match (one.0, other.0) {
                (one, other) if one == other => one,
                ("deleted", "not_found") | ("not_found", "deleted") => "deleted",
                _ => "response_contradictory",
            };
            check(200, &json!({"result": [one.1, other.1]}), [expected, "response_incomplete"]);
        }
    }
    // A third result does not mend a contradiction.
    check(
        200,
        &json!({"result": [deleted.1, refused.1, deleted.1]}),
        ["response_contradictory", "response_incomplete"],
    );
}

#[test]
fn order_and_case_do_not_hide_a_contact() {
    let item = |id: &str| json!({"link_id": id.to_uppercase(), "success": true, "extended_info": "deleted"});
    let missing = json!({"link_id": B, "success": false, "extended_info": "entity_not_found"});
    check(200, &json!({"result": [missing, item(A)]}), ["deleted", "not_found"]);
    check(200, &json!({"result": [item(B), item(A)]}), ["deleted", "deleted"]);
}

#[test]
fn another_shape_is_unreadable() {
    let item = json!({"link_id": A, "success": true, "extended_info": "deleted"});
    for body in [
        json!({}),
        json!({"result": null}),
        json!({"result": item}),
        json!({"result": [item, null]}),
        json!({"result": [item, B]}),
        // Members by position are not members.
        json!({"result": [[A, true, "deleted"], [B, true, "deleted"]]}),
        json!([[item]]),
        json!({"results": [item]}),
    ] {
        check(200, &body, ["response_unreadable"; 2]);
    }
    check(200, &json!({"result": []}), ["response_incomplete"; 2]);
    for status in [201, 203, 206, 207] {
        check(status, &json!({"result": [item]}), ["response_unreadable"; 2]);
    }
    let twice =
        format!(r#"{{"result":[{{"link_id":"{A}","success":true,"success":false,"extended_info":"deleted"}}]}}"#);
    assert_eq!(word(&findings(200, &twice)[0]), "response_unreadable");
}

#[test]
fn json_is_read_whatever_it_is_called() {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[A])).calls.remove(0);
    let body =
        format!("\u{feff}{{\"result\":[{{\"link_id\":\"{A}\",\"success\":true,\"extended_info\":\"deleted\"}}]}}");
    let reply = Response::builder().header("content-type", "text/plain").body(Bytes::from(body)).unwrap();
    assert_eq!(dialect.interpret(&call, &reply).findings(&call).iter().map(word).collect::<Vec<_>>(), ["deleted"]);
}

#[test]
fn the_code_decides_before_the_status() {
    let coded = |code: &str| json!({"error": {"code": code, "message": "…"}});
    for status in [200, 400, 401, 403, 404, 429, 500] {
        check(status, &coded("system_error"), ["upstream_error"; 2]);
    }
    for status in [400, 401, 403] {
        check(status, &coded("invalid_authentication"), ["upstream_unauthenticated"; 2]);
        check(status, &coded("permission_denied"), ["upstream_forbidden"; 2]);
    }
    for status in [400, 412, 422] {
        check(status, &coded("not_valid"), ["upstream_validation"; 2]);
        check(status, &coded("brand_new"), ["upstream_validation"; 2]);
    }
    // The vendor prints this one under 401, too.
    check(401, &coded("not_valid"), ["upstream_unauthenticated"; 2]);
    check(404, &coded("not_valid"), ["upstream_misconfigured"; 2]);
    check(500, &coded("permission_denied"), ["upstream_error"; 2]);
    check(200, &coded("permission_denied"), ["response_contradictory"; 2]);
    let torn = r#"{"error":{"code":"not_valid","code":"system_error"}}"#;
    assert_eq!(word(&findings(400, torn)[0]), "upstream_misconfigured");
}

#[test]
fn an_error_need_not_be_an_object() {
    for error in [json!("Wrong JSON body"), json!(true), json!({}), json!({"code": null}), json!({"code": 7})] {
        check(400, &json!({"error": error}), ["upstream_validation"; 2]);
        check(200, &json!({"error": error}), ["response_contradictory"; 2]);
    }
    check(401, &json!({"error": "Log In"}), ["upstream_unauthenticated"; 2]);
    check(403, &json!({"error": "Administrator rights required"}), ["upstream_forbidden"; 2]);
    for error in [json!(null), json!(false)] {
        check(400, &json!({"error": error}), ["upstream_misconfigured"; 2]);
        let item = json!({"link_id": A, "success": true, "extended_info": "deleted"});
        check(200, &json!({"error": error, "result": [item]}), ["deleted", "response_incomplete"]);
    }
    for stranger in ["<html>Bad Request</html>", "", "[]"] {
        assert_eq!(word(&findings(400, stranger)[0]), "upstream_misconfigured", "{stranger}");
    }
}

#[test]
fn an_error_beside_results_is_a_contradiction() {
    let item = json!({"link_id": A, "success": true, "extended_info": "deleted"});
    check(200, &json!({"result": [item], "error": "Log In"}), ["response_contradictory"; 2]);
    check(200, &json!({"result": [item], "error": {"code": "system_error"}}), ["upstream_error"; 2]);
}

#[test]
fn an_error_that_cannot_be_read_is_not_left_out_of_account() {
    let result = format!(r#""result":[{{"link_id":"{A}","success":true,"extended_info":"deleted"}}]"#);
    for error in [r#""error":{"code":"x","code":"y"}"#, r#""error":"Log In","error":null"#, r#""error":1e999"#] {
        for finding in findings(200, &format!("{{{error},{result}}}")) {
            assert!(
                matches!(&finding, Finding::Fault(fault) if fault.code.as_str() == "response_unreadable"),
                "{error}"
            );
        }
    }
}

#[test]
fn the_upstreams_own_word_is_kept() {
    let words = |status, body: Value| -> Vec<_> {
        let kept = |finding| match finding {
            Finding::Fault(fault) => fault.upstream.and_then(|word| word.code),
            _ => None,
        };
        findings(status, &body.to_string()).into_iter().map(kept).collect()
    };
    assert_eq!(words(400, json!({"error": {"code": "not_valid"}}))[0].as_deref(), Some("not_valid"));
    assert_eq!(words(403, json!({"error": {"code": "permission_denied"}}))[0].as_deref(), Some("permission_denied"));
    let held = json!({"link_id": B, "success": false, "extended_info": "has_dublicates"});
    assert_eq!(words(200, json!({"result": [held]})), [None, Some("has_dublicates".to_owned())]);
    assert_eq!(words(400, json!({"error": {"code": A}})), [None, None]);
}

#[test]
fn the_wait_stands_in_the_body() {
    let wait = |seconds: Value, retry_after: Option<&str>| {
        let mut reply = answer(429, &json!({"error": "Too Many Requests", "seconds": seconds}).to_string());
        if let Some(text) = retry_after {
            reply.headers_mut().insert("retry-after", text.parse().unwrap());
        }
        let dialect = example(&DIALECT);
        let call = dialect.plan(id_targets(&[A])).calls.remove(0);
        let Reading::TurnedAway(TurnedAway::Throttled(fault)) = dialect.interpret(&call, &reply) else { panic!() };
        let SignInReading::Throttled(wait) = dialect.sign_in().unwrap().read(&reply) else { panic!() };
        assert_eq!(fault.wait, wait);
        wait
    };
    assert_eq!(wait(json!(60), None), Some(Wait::For(60)));
    assert_eq!(wait(json!("180"), None), Some(Wait::For(180)));
    assert_eq!(wait(json!(60), Some("7")), Some(Wait::For(60)));
    for odd in [json!(null), json!(-1), json!(1.5), json!("soon"), json!([60])] {
        assert_eq!(wait(odd.clone(), Some("7")), Some(Wait::For(7)), "{odd}");
        assert_eq!(wait(odd.clone(), None), None, "{odd}");
    }
}

#[test]
fn an_account_becomes_a_query_or_a_body_without_its_password() {
    let account = Account(&[("username", "a b&c=/é"), ("password", "MySecure123!")]);
    let request = example(&DIALECT).sign_in().unwrap().request(&account).unwrap();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(
        request.uri().to_string(),
        "http://192.0.2.10/api/v0/login?username=a%20b%26c%3D%2F%C3%A9&password=132c17c04695b418b1f2bd9cb82ce8a3"
    );
    assert!(request.body().is_empty());

    let changes = settings(json!({"login_method": "POST", "login_path": "v1/login"}));
    let request = with_settings(&DIALECT, &changes).sign_in().unwrap().request(&account).unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "http://192.0.2.10/api/v0/v1/login");
    let body: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(body, json!({"username": "a b&c=/é", "password": "132c17c04695b418b1f2bd9cb82ce8a3"}));
}

#[test]
fn a_refused_sign_in_is_told_from_a_useless_one() {
    let token = || SignInReading::Token { value: "t".to_owned(), lifetime_s: Some(7200) };
    for (status, body, expected) in [
        (200, r#"{"token":"t","account_type":"admin"}"#, token()),
        (200, r#"{"token":""}"#, SignInReading::Unusable),
        (200, r#"{"token":"t\r\nx"}"#, SignInReading::Unusable),
        (200, r#"{"token":7}"#, SignInReading::Unusable),
        (200, r#"["t"]"#, SignInReading::Unusable),
        (200, r#"{"error":"Wrong login or password"}"#, SignInReading::Unusable),
        (400, r#"{"error":"Wrong login or password"}"#, SignInReading::Refused),
        (400, "", SignInReading::Refused),
        (400, r#"{"error":{"code":"system_error"}}"#, SignInReading::Unusable),
        (401, r#"{"error":{"code":"invalid_authentication"}}"#, SignInReading::Refused),
        (403, "{}", SignInReading::Refused),
        (404, "{}", SignInReading::Unusable),
        (429, "{}", SignInReading::Throttled(None)),
        (500, r#"{"token":"t"}"#, SignInReading::Unusable),
        (302, "", SignInReading::Unusable),
    ] {
        let read = example(&DIALECT).sign_in().unwrap().read(&answer(status, body));
        assert!(read == expected, "{status} {body}: {read:?}");
    }
}

#[test]
fn method_and_paths_are_settings() {
    let changes = settings(json!({"method": "POST", "path": "contacts/delete", "max_contacts_per_call": 1}));
    let plan = with_settings(&DIALECT, &changes).plan(id_targets(&[A, B]));
    assert_eq!(plan.calls.len(), 2);
    assert!(plan.calls.iter().all(|call| call.request.method() == Method::POST));
    assert_eq!(plan.calls[0].request.uri(), "http://192.0.2.10/api/v0/contacts/delete");

    for (key, value) in [
        ("method", "GET"),
        ("method", "delete"),
        ("login_method", "DELETE"),
        ("path", "/contacts"),
        ("path", "contacts/../users"),
        ("path", ""),
        ("path", "contacts?all"),
        ("login_path", "login/"),
    ] {
        let error = (DIALECT.open)(json!({"base_url": "http://192.0.2.10", key: value})).unwrap_err();
        assert_eq!(error.key, key, "{value}");
        assert!(value.is_empty() || !error.message.contains(value), "{error}");
    }
    assert_eq!(
        (DIALECT.open)(json!({"base_url": "http://192.0.2.10", "max_contacts_per_call": 301})).unwrap_err().key,
        "max_contacts_per_call"
    );
}

fn signed(call: &Call, token: &str) -> Request<Bytes> {
    let mut request = call.request.clone();
    request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    request
}

fn sign_in(dialect: &dyn Dialect, double: &mut dyn Double, account: &Account<'_>, now_s: u64) -> SignInReading {
    let sign_in = dialect.sign_in().unwrap();
    sign_in.read(&double.answer(&sign_in.request(account).unwrap(), now_s).response)
}

#[test]
fn the_double_issues_tokens_that_end() {
    for login_method in ["GET", "POST"] {
        let dialect = with_settings(&DIALECT, &settings(json!({"login_method": login_method})));
        let call = dialect.plan(id_targets(&[A])).calls.remove(0);
        let mut double = double::new();
        let SignInReading::Token { value, lifetime_s } = sign_in(&*dialect, &mut *double, &ADMIN, 1000) else {
            panic!()
        };
        assert_eq!(lifetime_s, Some(TOKEN_LIFE_S));
        double.seed(&call.targets[0].identifier, false);
        assert_eq!(double.answer(&signed(&call, &value), 1000 + TOKEN_LIFE_S).response.status(), 401);
        assert_eq!(double.answer(&signed(&call, "another"), 1000).response.status(), 401);
        let last = double.answer(&signed(&call, &value), 999 + TOKEN_LIFE_S);
        assert_eq!(last.deleted, [call.targets[0].identifier.clone()]);
        assert!(!double.holds(&call.targets[0].identifier));
    }
}

#[test]
fn the_double_locks_out_after_five_wrong_passwords() {
    let dialect = example(&DIALECT);
    let mut double = double::new();
    let wrong = Account(&[("username", "admin"), ("password", "guess")]);
    for _ in 0..5 {
        assert_eq!(sign_in(&*dialect, &mut *double, &wrong, 1000), SignInReading::Refused);
    }
    // Now even the right one is not listened to, until the time is over.
    assert_eq!(sign_in(&*dialect, &mut *double, &ADMIN, 1000), SignInReading::Throttled(Some(Wait::For(60))));
    assert_eq!(sign_in(&*dialect, &mut *double, &ADMIN, 1059), SignInReading::Throttled(Some(Wait::For(1))));
    for _ in 0..5 {
        assert_eq!(sign_in(&*dialect, &mut *double, &wrong, 1060), SignInReading::Refused);
    }
    assert_eq!(sign_in(&*dialect, &mut *double, &wrong, 1060), SignInReading::Throttled(Some(Wait::For(180))));
    assert!(matches!(sign_in(&*dialect, &mut *double, &ADMIN, 1240), SignInReading::Token { .. }));
    let fixed = signed(&dialect.plan(id_targets(&[A])).calls[0], FIXED);
    assert_eq!(double.answer(&fixed, 1000).response.status(), 200);
}

#[test]
fn the_double_refuses_what_the_device_refuses() {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[A])).calls.remove(0);
    let mut double = double::new();
    double.seed(&call.targets[0].identifier, false);
    let body = |text: String| {
        let mut request = signed(&call, FIXED);
        *request.body_mut() = text.into();
        request
    };
    let mut route = signed(&call, FIXED);
    *route.uri_mut() = "http://192.0.2.10/api/v0/contacts".parse().unwrap();
    let mut method = signed(&call, FIXED);
    *method.method_mut() = Method::POST;
    for (request, expected) in [
        (body("{\"link_ids\":[]}".to_owned()), "upstream_validation"),
        (body("{\"link_ids\":[\"1\"]}".to_owned()), "upstream_validation"),
        (body(format!("{{\"link_ids\":\"{A}\"}}")), "upstream_validation"),
        (body(String::new()), "upstream_validation"),
        (route, "upstream_misconfigured"),
        (method, "upstream_misconfigured"),
        (signed(&call, "stale"), "upstream_unauthenticated"),
    ] {
        let answer = double.answer(&request, 1000);
        assert!(answer.deleted.is_empty());
        let findings = dialect.interpret(&call, &answer.response).findings(&call);
        assert_eq!(findings.iter().map(word).collect::<Vec<_>>(), [expected]);
    }
    assert!(double.holds(&call.targets[0].identifier));
    // An id that stands twice is deleted once, and the reply says both.
    let answer = double.answer(&body(format!("{{\"link_ids\":[\"{}\",\"{A}\"]}}", A.to_uppercase())), 1000);
    assert_eq!(answer.deleted.len(), 1);
    let findings = dialect.interpret(&call, &answer.response).findings(&call);
    assert_eq!(findings.iter().map(word).collect::<Vec<_>>(), ["deleted"]);
}

#[test]
fn the_documented_names_fit_one_form_each() {
    let forms: Vec<Vec<_>> =
        PROFILE.auth.forms.iter().map(|form| form.members.iter().map(|m| (m.name, m.secret)).collect()).collect();
    assert_eq!(forms, [vec![("token", true)], vec![("username", false), ("password", true)]]);
}
