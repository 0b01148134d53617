//! ONLYOFFICE's quirks that no law covers.

use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use super::DIALECT;
use crate::conformance::{example, id_targets, with_settings};
use crate::contract::{Evidence, Finding, Identifier, Reading, TurnedAway, Wait};

/// What the reply says of contact 1234: `deleted`, `not_found`, or the fault's code.
fn word(status: u16, body: &str) -> &'static str {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&["1234"])).calls.remove(0);
    let reply = Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap();
    match dialect.interpret(&call, &reply).findings(&call).remove(0) {
        Finding::Deleted(how) => {
            assert_eq!(how, Evidence::Item);
            "deleted"
        }
        Finding::NotFound(how) => {
            assert_eq!(how, Evidence::Status);
            "not_found"
        }
        Finding::Fault(fault) => {
            assert!(!fault.still_there, "nothing that this vendor says proves a presence");
            fault.code.as_str()
        }
    }
}

fn check(status: u16, body: &Value, expected: &str) {
    assert_eq!(word(status, &body.to_string()), expected, "{status} {body}");
}

fn success(response: &Value) -> Value {
    json!({"count": 1, "status": 0, "statusCode": 200, "response": response})
}

#[test]
fn the_id_may_stand_there_in_every_form_that_is_its_own() {
    for response in [
        json!({"id": 1234}),
        json!({"ID": 1234}),
        json!({"id": "1234"}),
        json!({"id": 1234, "ID": 1234}),
        json!({"id": null, "ID": 1234}),
        json!({"id": 1234, "canEdit": false, "canDelete": false, "contactStatus": {"id": 7}}),
    ] {
        check(200, &success(&response), "deleted");
    }
    check(200, &json!({"Status": 0, "StatusCode": 200, "Response": {"ID": 1234}}), "deleted");
}

#[test]
fn another_id_is_doubt() {
    for response in [
        json!({"id": 1235}),
        json!({"id": -1234}),
        json!({"id": "01234"}),
        json!({"id": ""}),
        json!({"id": 1234, "ID": 1235}),
        json!({"id": 1235, "ID": 1234}),
    ] {
        check(200, &success(&response), "response_contradictory");
    }
}

#[test]
fn an_envelope_that_says_no_under_200_is_doubt() {
    let contact = json!({"id": 1234});
    for body in [
        json!({"status": 1, "statusCode": 404, "error": {"message": "Not found"}}),
        json!({"status": 1, "statusCode": 200, "response": contact}),
        json!({"status": 0, "statusCode": 500, "response": contact}),
        json!({"status": 0, "statusCode": 200, "response": contact, "error": {}}),
        json!({"status": 1}),
    ] {
        check(200, &body, "response_contradictory");
    }
}

#[test]
fn half_an_envelope_proves_nothing() {
    let contact = json!({"id": 1234});
    for body in [
        json!({"status": 0, "response": contact}),
        json!({"statusCode": 200, "response": contact}),
        json!({"response": contact}),
        json!({"status": 0, "statusCode": 200}),
        json!({"status": 0, "statusCode": 200, "response": null}),
        json!({"status": 0, "statusCode": 200, "response": {}}),
        json!({"status": 0, "statusCode": 200, "response": {"id": null, "displayName": "1234"}}),
    ] {
        check(200, &body, "response_incomplete");
    }
}

#[test]
fn another_shape_is_unreadable() {
    for body in [
        json!({}),
        json!(null),
        json!({"id": 1234}),
        json!({"error": true}),
        json!({"status": "ok", "statusCode": 200, "response": {"id": 1234}}),
        success(&json!([{"id": 1234}])),
        success(&json!({"id": 1234.0})),
        success(&json!({"id": {"id": 1234}})),
        success(&json!({"id": u64::MAX})),
        // By position, these would be an envelope and a contact.
        json!([0, 200, {"id": 1234}, null]),
        success(&json!([1234, null])),
    ] {
        check(200, &body, "response_unreadable");
    }
    for text in [
        "<result><status>0</status><response><id>1234</id></response></result>",
        r#"{"status":0,"statusCode":200,"response":{"id":1234}"#,
        r#"{"status":0,"statusCode":200,"response":{"id":1,"id":1234}}"#,
        r#"{"status":1,"Status":0,"statusCode":200,"response":{"id":1234}}"#,
    ] {
        assert_eq!(word(200, text), "response_unreadable", "{text}");
    }
    for status in [201, 204, 206] {
        check(status, &success(&json!({"id": 1234})), "response_unreadable");
    }
}

#[test]
fn a_status_is_the_vendors_only_in_its_envelope() {
    let error = |code: u16| json!({"status": 1, "statusCode": code, "error": {"message": "x"}});
    for (status, word_in_envelope) in
        [(404, "not_found"), (400, "upstream_validation"), (412, "upstream_validation"), (422, "upstream_validation")]
    {
        check(status, &error(status), word_in_envelope);
        check(status, &json!({"Status": 1, "StatusCode": status}), word_in_envelope);
        for body in [
            error(500),
            json!({"status": 0, "statusCode": status}),
            json!({"statusCode": status}),
            json!({"status": 1}),
            json!({"status": 1, "statusCode": status, "response": {"id": 1234}}),
            json!([1, status]),
            json!({"error": "not found"}),
        ] {
            check(status, &body, "upstream_misconfigured");
        }
        for text in ["", "<html>Not Found</html>"] {
            assert_eq!(word(status, text), "upstream_misconfigured", "{status} {text}");
        }
    }
    for body in [String::new(), error(402).to_string()] {
        assert_eq!(word(402, &body), "upstream_payment_required");
        assert_eq!(word(403, &body), "upstream_forbidden");
    }
}

#[test]
fn only_an_empty_503_comes_before_any_work() {
    let reading = |body: &'static str| {
        let dialect = example(&DIALECT);
        let call = dialect.plan(id_targets(&["1234"])).calls.remove(0);
        let reply = Response::builder().status(503).header("retry-after", "7").body(Bytes::from(body)).unwrap();
        dialect.interpret(&call, &reply)
    };
    let Reading::TurnedAway(TurnedAway::Fault(fault)) = reading("") else { panic!() };
    assert_eq!((fault.code.as_str(), fault.wait), ("upstream_unavailable", Some(Wait::For(7))));
    for body in [" ", "<html></html>", r#"{"status":1,"statusCode":503,"error":{}}"#] {
        let Reading::Unreadable(fault) = reading(body) else { panic!("{body}") };
        assert_eq!(fault.code.as_str(), "upstream_error");
    }
    assert_eq!(word(500, ""), "upstream_error");
    assert_eq!(word(502, ""), "upstream_error");
}

#[test]
fn a_path_prefix_stays_in_front() {
    let settings = json!({"base_url": "https://portal.example.com/office/"});
    let dialect = with_settings(&DIALECT, settings.as_object().unwrap());
    let call = dialect.plan(id_targets(&["7"])).calls.remove(0);
    assert_eq!(call.request.uri(), "https://portal.example.com/office/api/2.0/crm/contact/7");
}

#[test]
fn a_leak_into_the_filter_route_would_be_seen() {
    let id = |text: &str| Identifier::Id(text.into());
    let mut double = (DIALECT.double)();
    for n in 1..=3 {
        double.seed(&id(&n.to_string()), n == 2);
    }
    let mut send = |method: Method, last: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://portal.example.com/api/2.0/crm/contact/{last}"))
            .header("authorization", "onlyoffice-demo-token");
        double.answer(&request.body(Bytes::new()).unwrap(), 0)
    };
    for (method, last, status) in [
        (Method::DELETE, "0", 400),
        (Method::DELETE, "2147483648", 400),
        (Method::DELETE, "9", 404),
        (Method::DELETE, "2", 403),
        (Method::DELETE, "", 404),
        (Method::DELETE, "1/avatar", 404),
        (Method::GET, "filter", 200),
        (Method::PUT, "filter", 404),
        (Method::PUT, "1", 404),
    ] {
        let answer = send(method, last);
        assert_eq!((answer.response.status().as_u16(), answer.deleted.len()), (status, 0), "{last}");
    }
    assert_eq!(send(Method::DELETE, "Filter?x=1").deleted, [id("1"), id("3")]);
    assert!(double.holds(&id("2")) && !double.holds(&id("1")) && !double.holds(&id("3")));
}

#[test]
fn several_contacts_a_call_is_no_setting_here() {
    let settings = json!({"base_url": "https://portal.example.com", "max_contacts_per_call": 1});
    assert_eq!((DIALECT.open)(settings).err().unwrap().key, "max_contacts_per_call");
}
