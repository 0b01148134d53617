//! Wethod's quirks that no law covers.

use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use super::DIALECT;
use crate::conformance::{example, id_targets, with_settings};
use crate::contract::{Call, Evidence, Fault, FaultCode as C, Finding, Identifier, Reading, TurnedAway, Wait};
use crate::dialect::Dialect;

fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Bytes::from(body.to_owned())).unwrap()
}

fn planned(id: &str) -> (Box<dyn Dialect>, Call) {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[id])).calls.remove(0);
    (dialect, call)
}

fn planned_with(changes: Value) -> Call {
    let Value::Object(changes) = changes else { panic!() };
    with_settings(&DIALECT, &changes).plan(id_targets(&["42"])).calls.remove(0)
}

fn finding(reply: &Response<Bytes>) -> Finding {
    let (dialect, call) = planned("42");
    dialect.interpret(&call, reply).findings(&call).remove(0)
}

fn fault(reply: &Response<Bytes>) -> Fault {
    match finding(reply) {
        Finding::Fault(fault) => fault,
        other => panic!("{other:?}"),
    }
}

/// `deleted`, `not_found`, or the fault's code.
fn check(status: u16, body: &str, expected: &str) {
    let word = match finding(&reply(status, &[], body)) {
        Finding::Deleted(Evidence::Status) => "deleted",
        Finding::NotFound(Evidence::Status) => "not_found",
        Finding::Fault(fault) => fault.code.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(word, expected, "{status} {body}");
}

fn refused(changes: Value) -> String {
    let mut settings = json!({"base_url": "https://api.wethod.com", "company": "acme"});
    let Value::Object(changes) = changes else { panic!() };
    settings.as_object_mut().unwrap().extend(changes.clone());
    (DIALECT.open)(settings).err().unwrap_or_else(|| panic!("{changes:?}")).key
}

#[test]
fn a_success_may_have_any_json_but_an_error() {
    let harmless = [
        "",
        "null",
        "{}",
        "[]",
        "\"ok\"",
        "1",
        "-1",
        "1.5",
        "true",
        "\u{feff}{}",
        r#"{"id":42}"#,
        r#"{"message":"Contact successfully deleted."}"#,
        r#"{"key":null,"error":null,"failures":null}"#,
        r#"["not_found",1,1,1,1]"#,
        r#"[{"key":"not_found"}]"#,
        r#"{"data":{"key":"primary"}}"#,
    ];
    let errors = [
        r#"{"key":"not_found","message":"x"}"#,
        r#"{"key":7}"#,
        r#"{"key":{"deep":[]}}"#,
        r#"{"failures":[]}"#,
        r#"{"error":"x"}"#,
        r#"{"errors":[{}]}"#,
        r#"{"violations":{}}"#,
        r#"{"\u006bey":"x"}"#,
    ];
    let no_json = ["<html></html>", " ", "OK", "{", "[1", "{\"key\":\"x\"", "{} {}", r#"{"key":null,"key":"x"}"#];
    for status in [200, 204] {
        harmless.iter().for_each(|body| check(status, body, "deleted"));
        errors.iter().for_each(|body| check(status, body, "response_contradictory"));
        no_json.iter().for_each(|body| check(status, body, "response_unreadable"));
    }
}

#[test]
fn other_successes_prove_nothing() {
    for status in [201, 203, 205, 206] {
        check(status, "", "response_unreadable");
    }
    check(202, "", "accepted_unconfirmed");
    for body in ["", "{}"] {
        assert_eq!(fault(&reply(200, &[("content-encoding", "gzip")], body)).code, C::ResponseUnreadable);
    }
}

#[test]
fn only_the_own_key_under_404_means_absent() {
    check(404, r#"{"key":"not_found"}"#, "not_found");
    check(404, r#"{"status_code":0,"key":"not_found","message":"x","failures":[]}"#, "not_found");
    for body in [
        "",
        "<html></html>",
        "{}",
        r#"{"key":null}"#,
        r#"{"key":"NOT_FOUND"}"#,
        r#"{"key":"route_not_found"}"#,
        r#"{"key":["not_found"]}"#,
        r#"{"error":{"key":"not_found"}}"#,
        r#"{"message":"not_found"}"#,
        r#"{"key":"not_found","key":"x"}"#,
        r#"["not_found",null,null,null,null]"#,
    ] {
        check(404, body, "upstream_misconfigured");
    }
    check(410, r#"{"key":"not_found"}"#, "upstream_misconfigured");
    check(500, r#"{"key":"not_found"}"#, "upstream_error");
    check(302, r#"{"key":"not_found"}"#, "upstream_misconfigured");
}

#[test]
fn a_refusal_needs_the_own_envelope() {
    for (status, refusal) in
        [(400, "upstream_validation"), (422, "upstream_validation"), (412, "upstream_precondition")]
    {
        check(status, r#"{"key":"some_key"}"#, refusal);
        for body in ["", "<html></html>", "{}", r#"{"key":1}"#, r#"{"error":"x"}"#] {
            check(status, body, "upstream_misconfigured");
            assert!(!fault(&reply(status, &[], body)).still_there);
        }
    }
}

#[test]
fn only_the_precondition_proves_presence() {
    let there = |status, body| fault(&reply(status, &[], body)).still_there;
    assert!(there(412, r#"{"key":"precondition_failure"}"#));
    for (status, body) in [
        (412, r#"{"key":"unsupported_version"}"#),
        (412, r#"{"key":"not_found"}"#),
        (400, r#"{"key":"precondition_failure"}"#),
        (403, r#"{"key":"precondition_failure"}"#),
        (500, r#"{"key":"precondition_failure"}"#),
        (200, r#"{"key":"precondition_failure"}"#),
    ] {
        assert!(!there(status, body), "{status} {body}");
    }
}

#[test]
fn the_upstreams_own_key_is_kept_wherever_a_fault_is() {
    for status in [200, 400, 401, 402, 403, 404, 405, 409, 412, 422, 429, 500, 503] {
        let word = fault(&reply(status, &[], r#"{"key":"some_key"}"#)).upstream.unwrap();
        assert_eq!((word.status, word.code.as_deref()), (status, Some("some_key")));
    }
    // It is dropped where it could be more than a code.
    for key in ["42", "a b", "Ada Byron", ""] {
        assert_eq!(fault(&reply(400, &[], &json!({ "key": key }).to_string())).upstream.unwrap().code, None);
    }
}

#[test]
fn the_wait_is_read_from_the_own_header_first() {
    let check = |headers: &[(&str, &str)], expected: Option<Wait>| {
        let (dialect, call) = planned("42");
        let reading = dialect.interpret(&call, &reply(429, headers, ""));
        let Reading::TurnedAway(TurnedAway::Throttled(fault)) = reading else { panic!("{reading:?}") };
        assert_eq!(fault.wait, expected, "{headers:?}");
    };
    let own = "x-ratelimit-retry-after";
    check(&[(own, "42")], Some(Wait::For(42)));
    check(&[(own, " 42 ")], Some(Wait::For(42)));
    check(&[(own, "0")], Some(Wait::For(0)));
    check(&[(own, "1000000000")], Some(Wait::For(1_000_000_000)));
    check(&[(own, "1795000000")], Some(Wait::Until(1_795_000_000)));
    check(&[(own, "42"), ("retry-after", "7")], Some(Wait::For(42)));
    check(&[(own, "soon"), ("retry-after", "7")], Some(Wait::For(7)));
    check(&[("retry-after", "7")], Some(Wait::For(7)));
    check(&[], None);
}

#[test]
fn ids_end_below_two_to_the_63() {
    let dialect = example(&DIALECT);
    assert_eq!(dialect.plan(id_targets(&["9223372036854775807", "1"])).calls.len(), 2);
    assert_eq!(dialect.plan(id_targets(&["9223372036854775808", "007", "0"])).refused.len(), 3);
}

#[test]
fn the_route_and_the_headers_are_settings() {
    let call = planned_with(json!({
        "base_url": "https://proxy.example/wethod/", "path": "v2/contacts", "company": "globex",
        "api_version": "2025-01-01", "company_header": "X-Company", "version_header": "X-Version",
    }));
    assert_eq!(call.request.uri(), "https://proxy.example/wethod/v2/contacts/42");
    let headers: Vec<_> = call.request.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(headers, [("accept", "application/json"), ("x-company", "globex"), ("x-version", "2025-01-01")]);
}

#[test]
fn bad_settings_are_named() {
    for path in ["", "/", "/api/contact", "api/contact/", "api//contact", "api/../contact", "api/contact?x", "é"] {
        assert_eq!(refused(json!({ "path": path })), "path", "{path:?}");
    }
    for key in ["company", "api_version"] {
        for value in ["", " ", "a b", "acme\r\nx: y", "é"] {
            assert_eq!(refused(json!({ key: value })), key, "{value:?}");
        }
    }
    for key in ["company_header", "version_header"] {
        for name in
            ["", "a b", "a:b", ":path", "é", "Authorization", "HOST", "content-length", "Transfer-Encoding", "accept"]
        {
            assert_eq!(refused(json!({ key: name })), key, "{name:?}");
        }
    }
    assert_eq!(refused(json!({"version_header": "wethod-company"})), "version_header");
    assert_eq!(refused(json!({"max_contacts_per_call": 1})), "max_contacts_per_call");
    assert!((DIALECT.open)(json!({"base_url": "https://api.wethod.com"})).is_err(), "company is required");
}

#[test]
fn the_double_refuses_as_the_vendor_does() {
    let (dialect, call) = planned("42");
    let identifier = Identifier::Id("42".into());
    let mut double = (DIALECT.double)();
    double.seed(&identifier, false);
    let mut good = call.request.clone();
    good.headers_mut().insert("authorization", "Bearer wethod-demo-personal-token".parse().unwrap());
    type Change = fn(&mut Request<Bytes>);
    let changes: [(Change, C); 8] = [
        (|r| *r.uri_mut() = "https://x.example/api/contacts/42".parse().unwrap(), C::UpstreamMisconfigured),
        (|r| *r.uri_mut() = "https://x.example/api/contact/42/x".parse().unwrap(), C::UpstreamMisconfigured),
        (|r| *r.uri_mut() = "https://x.example/api/contact/abc".parse().unwrap(), C::UpstreamValidation),
        (|r| *r.method_mut() = Method::POST, C::UpstreamMisconfigured),
        (|r| drop(r.headers_mut().insert("authorization", "Bearer x".parse().unwrap())), C::UpstreamUnauthenticated),
        (|r| drop(r.headers_mut().insert("wethod-company", "globex".parse().unwrap())), C::UpstreamForbidden),
        (|r| drop(r.headers_mut().remove("wethod-company")), C::UpstreamValidation),
        (|r| drop(r.headers_mut().insert("wethod-version", "1".parse().unwrap())), C::UpstreamValidation),
    ];
    for (change, expected) in changes {
        let mut request = good.clone();
        change(&mut request);
        let answer = double.answer(&request, 1_000);
        assert!(answer.deleted.is_empty() && double.holds(&identifier));
        let Finding::Fault(fault) = dialect.interpret(&call, &answer.response).findings(&call).remove(0) else {
            panic!("{expected:?}")
        };
        assert_eq!(fault.code, expected);
    }
    assert_eq!(double.answer(&good, 1_000).deleted, [identifier]);
    let again = dialect.interpret(&call, &double.answer(&good, 1_000).response);
    assert_eq!(again.findings(&call), [Finding::NotFound(Evidence::Status)]);
}

#[test]
fn the_example_needs_no_defaults_spelt_out() {
    let (_, call) = planned("42");
    let same = planned_with(json!({
        "path": "api/contact", "api_version": "2024-06-15",
        "company_header": "Wethod-Company", "version_header": "Wethod-Version",
    }));
    assert_eq!(call.request.uri(), same.request.uri());
    assert_eq!(call.request.headers(), same.request.headers());
}
