//! Toy Box's quirks that no law covers, and that it is a dialect like the others.

use bytes::Bytes;
use http::Response;
use serde_json::json;

use super::DIALECT;
use crate::conformance::{example, id_targets};
use crate::contract::Finding;

const A: &str = "91c615e3-1040-4815-8ecb-039a18b756b5";

fn check(body: &serde_json::Value, expected: &str) {
    let dialect = example(&DIALECT);
    let call = dialect.plan(id_targets(&[A])).calls.remove(0);
    let reply = Response::new(Bytes::from(body.to_string()));
    let word = match dialect.interpret(&call, &reply).findings(&call).remove(0) {
        Finding::Deleted(_) => "deleted",
        Finding::NotFound(_) => "not_found",
        Finding::Fault(fault) => fault.code.as_str(),
    };
    assert_eq!(word, expected, "{body}");
}

#[test]
fn toy_is_in_dialects() {
    assert_eq!(crate::find("toy").unwrap().profile.title, "Toy Box");
}

#[test]
fn a_toy_with_two_states_is_doubt() {
    check(&json!({"toys": [{"name": A, "state": "gone"}, {"name": A, "state": "gone"}]}), "deleted");
    check(&json!({"toys": [{"name": A, "state": "gone"}, {"name": A, "state": "kept"}]}), "response_contradictory");
}

#[test]
fn a_state_that_is_not_known_is_doubt() {
    check(&json!({"toys": [{"name": A, "state": "mislaid"}]}), "response_incomplete");
}
