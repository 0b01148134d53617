//! Kore.ai's quirks that no law covers.

use bytes::Bytes;
use http::Response;
use serde_json::json;

use super::DIALECT;
use crate::conformance::{example, id_targets};
use crate::contract::{FaultCode as C, Finding, Reading};

const A: &str = "6960cbe9b155d194e2f00001";
const B: &str = "6960cc07b155d194e2f00002";

fn findings(status: u16, body: &str) -> Vec<Finding> {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[A, B])).calls.remove(0);
    let reply = Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap();
    dialect.interpret(&call, &reply).findings(&call)
}

/// The word for each contact: `deleted`, `not_found`, or the fault's code.
fn check(status: u16, body: &serde_json::Value, expected: [&str; 2]) {
    let words: Vec<_> = findings(status, &body.to_string()).iter().map(word).collect();
    assert_eq!(words, expected, "{status} {body}");
}

fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Deleted(_) => "deleted",
        Finding::NotFound(_) => "not_found",
        Finding::Fault(fault) => fault.code.as_str(),
    }
}

#[test]
fn failed_records_are_read_in_every_plausible_shape() {
    let reasons = [
        (json!({"id": B, "error": "Contact not found"}), "not_found"),
        (json!({"_id": B, "reason": "the contact does not exist"}), "not_found"),
        (json!({"contactId": B, "message": "Invalid id"}), "upstream_validation"),
        (json!({"id": B, "msg": {"msg": "not found"}}), "not_found"),
        (json!({"id": B, "error": {"message": "Invalid"}}), "upstream_validation"),
        (json!({"id": B, "error": ["x"]}), "upstream_unspecified"),
        (json!({"id": B}), "upstream_unspecified"),
        (json!(B), "upstream_unspecified"),
        (json!({"id": B, "_id": A, "error": "not found"}), "response_incomplete"),
        (json!({"id": 7, "error": "not found"}), "response_incomplete"),
        (json!(null), "response_incomplete"),
    ];
    for (record, expected) in reasons {
        let body = json!({"totalRequested": 2, "successful": 1, "failed": 1, "successfulRecords": [{"id": A}], "failedRecords": [record]});
        check(200, &body, ["deleted", expected]);
    }
}

#[test]
fn an_id_in_both_lists_is_doubt() {
    let body = json!({"successfulRecords": [{"id": A}, {"id": B}], "failedRecords": [{"id": B, "error": "not found"}]});
    check(200, &body, ["deleted", "response_contradictory"]);
}

#[test]
fn a_body_that_did_not_arrive_is_a_set_up_fault() {
    let body = json!({"totalRequested": 0, "successful": 0, "failed": 0, "successfulRecords": [], "failedRecords": []});
    check(200, &body, ["upstream_misconfigured"; 2]);
}

#[test]
fn a_wrong_scope_is_not_a_bad_token() {
    let body = json!({"errors": [{"msg": "Permission denied. Scope is incorrect!", "code": 4002}]});
    check(401, &body, ["upstream_forbidden"; 2]);
}

#[test]
fn another_shape_is_unreadable() {
    for body in [json!({}), json!([]), json!({"errors": []}), json!(null), json!("ok"), json!({"success": true})] {
        check(200, &body, ["response_unreadable"; 2]);
    }
}

#[test]
fn case_does_not_hide_a_contact() {
    let body = json!({"successfulRecords": [{"id": A.to_uppercase()}, {"id": B.to_uppercase()}]});
    check(200, &body, ["deleted"; 2]);
}

#[test]
fn what_stands_between_is_not_the_upstreams_refusal() {
    let words: Vec<_> = findings(400, "<html>Bad Request</html>").iter().map(word).collect();
    assert_eq!(words, ["upstream_misconfigured"; 2]);
}

#[test]
fn the_upstreams_own_code_is_kept() {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[A])).calls.remove(0);
    let reply = Response::builder().status(400).body(Bytes::from(r#"{"errors":[{"msg":"x","code":4007}]}"#)).unwrap();
    let Reading::TurnedAway(crate::TurnedAway::Fault(fault)) = dialect.interpret(&call, &reply) else { panic!() };
    assert_eq!(fault.code, C::UpstreamValidation);
    assert_eq!(fault.upstream.unwrap().code.as_deref(), Some("4007"));
}

#[test]
fn ids_are_written_as_serde_would() {
    for ids in [&[A, B][..], &[A], &[], &["a\"b\\", "é", "", A]] {
        let body = super::wire::to_json(&id_targets(ids));
        assert_eq!(body, json!({ "ids": ids }).to_string().into_bytes());
    }
}

#[test]
fn a_twin_of_a_contact_is_not_told_of_by_the_other_list() {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[A, A])).calls.remove(0);
    let body = json!({"successfulRecords": [A], "failedRecords": [{"id": A, "error": "in use"}]});
    let reply = Response::new(Bytes::from(body.to_string()));
    let words: Vec<_> = dialect.interpret(&call, &reply).findings(&call).iter().map(word).collect();
    assert_eq!(words, ["response_contradictory", "response_incomplete"]);
}
