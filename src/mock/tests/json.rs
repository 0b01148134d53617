//! The JSON of faults, rules, latencies, limits and checks: what is read, what is refused, and what is written.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::mock::json::{Seeded, read};
use crate::mock::{Check, Fault, Latency, Limits, Progress, Rule, RuleId, Scenario, Standing};

/// Members without which a fault can be read.
const OPTIONAL: [&str; 4] = ["fault", "commit", "headers", "body"];

/// Every fault with its parameters.
fn faults() -> Vec<Value> {
    vec![
        json!({ "fault": "commit_then_drop" }),
        json!({ "fault": "drop_before_commit" }),
        json!({ "fault": "reset", "commit": true }),
        json!({ "fault": "cut_body" }),
        json!({ "fault": "html", "status": 502 }),
        json!({ "fault": "empty", "status": 503 }),
        json!({ "fault": "status", "status": 500 }),
        json!({ "fault": "slow_drip", "ms": 3 }),
        json!({ "fault": "stall" }),
        json!({ "fault": "hold" }),
        json!({ "fault": "throttle", "wait_s": 5 }),
        json!({ "fault": "busy", "wait_s": 5 }),
        json!({ "fault": "wrong_ids" }),
        json!({ "fault": "missing_ids" }),
        json!({ "fault": "contradict" }),
        json!({ "fault": "accept_202" }),
        json!({ "fault": "redirect", "status": 302, "to": "https://elsewhere.example/" }),
        json!({ "fault": "reply", "status": 207, "headers": { "retry-after": "é, 1" }, "body": "{}" }),
        json!({ "fault": "raw", "bytes": "HTTP/1.1 2\u{0}\u{80}\u{ff}" }),
        json!({ "fault": "lie" }),
        json!({ "fault": "partial", "failing": [{ "id": "7" }, { "phone": "+1" }] }),
        json!({ "fault": "delay", "ms": 7 }),
        json!({ "fault": "none" }),
    ]
}

#[test]
fn every_fault_is_written_as_it_is_read() {
    for json in faults() {
        let fault: Fault = read(json.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&fault).unwrap(), json);
        assert_eq!(fault.name(), json["fault"]);
        // None takes what another does, but for those that take the same.
        let mut odd = json.clone();
        let strange = if json.get("ms").is_some() { "wait_s" } else { "ms" };
        odd[strange] = 1.into();
        let (_, why) = read::<Fault>(odd.to_string().as_bytes()).unwrap_err();
        assert_eq!(why, format!("`{}` takes no `{strange}`", fault.name()));
        for needed in json.as_object().unwrap().keys().filter(|key| !OPTIONAL.contains(&key.as_str())) {
            let mut bare = json.clone();
            bare.as_object_mut().unwrap().remove(needed);
            let (_, why) = read::<Fault>(bare.to_string().as_bytes()).unwrap_err();
            assert_eq!(why, format!("`{}` needs `{needed}`", fault.name()));
        }
    }
    assert_eq!(read::<Fault>(br#"{"fault":"reset"}"#), Ok(Fault::Reset { commit: false }));
    let bare = Fault::Reply { status: 200, headers: HeaderMap::new(), body: String::new() };
    assert_eq!(read::<Fault>(br#"{"fault":"reply","status":200}"#), Ok(bare));
    let raw: Fault = read(br#"{"fault":"raw","bytes":"\u0000\u00ff\n"}"#).unwrap();
    assert_eq!(raw, Fault::Raw(Bytes::from_static(&[0, 255, 10])));
}

#[test]
fn the_description_has_every_fault_and_no_other() {
    let openapi: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    let described = &openapi["components"]["schemas"]["Rule"]["properties"]["fault"]["enum"];
    let names: Vec<_> = faults().iter().map(|fault| fault["fault"].clone()).collect();
    assert_eq!(*described, Value::from(names));
}

#[test]
fn what_is_wrong_is_named_by_its_place() {
    let rule = |text: &str| read::<Rule>(text.as_bytes()).map(drop);
    for (text, pointer, why) in [
        (r#"{"fault":"nothing"}"#, "", "`fault` is not one of commit_then_drop"),
        (r#"{"fault":"stall","when":{"nth":"two"}}"#, "/when/nth", "must be u64"),
        (r#"{"fault":"stall","when":{"nth":0}}"#, "", "`nth` must be at least 1"),
        (r#"{"fault":"stall","times":0}"#, "", "`times` must be at least 1"),
        (r#"{"fault":"stall","when":{"route":"write"}}"#, "/when/route", "unknown variant `write`"),
        (r#"{"fault":"stall","when":{"contact":{}}}"#, "/when/contact", "must have exactly one of"),
        (r#"{"fault":"partial","failing":["1",{"id":"2","phone":"+3"}]}"#, "/failing/1", "must have exactly one of"),
        (r#"{"fault":"html","status":100}"#, "", "`status` must be 200 to 999"),
        (r#"{"fault":"delay","ms":3600001}"#, "", "`ms` must be at most 3600000"),
        (r#"{"fault":"redirect","status":302,"to":"a\nb"}"#, "", "`to` cannot stand in a header"),
        (r#"{"fault":"reply","status":100}"#, "", "`status` must be 200 to 999"),
        (r#"{"fault":"reply","status":200,"headers":{"a b":"1"}}"#, "", "`headers` has a name or a value"),
        (r#"{"fault":"reply","status":200,"headers":{"a":"1\n"}}"#, "", "`headers` has a name or a value"),
        (
            r#"{"fault":"reply","status":200,"headers":{"Content-Length":"1"}}"#,
            "",
            "`headers` takes no `content-length`",
        ),
        (r#"{"fault":"reply","status":200,"headers":{"a":1}}"#, "/headers/a", "must be a string"),
        (r#"{"fault":"raw","bytes":"\u0100"}"#, "", "`bytes` has a character above U+00FF"),
        (r#"{"fault":"stall","wehn":{}}"#, "/wehn", "unknown field `wehn`"),
        (r#"{"fault":"stall"} x"#, "", "something follows"),
        (r#"{"fault":"#, "/fault", "EOF"),
    ] {
        let (at, said) = rule(text).unwrap_err();
        assert!(at == pointer && said.starts_with(why), "{text}: {at:?} {said}");
    }
    let scenario = read::<Scenario>(br#"{"steps":[{"upstream":"a","fault":"stall"},{"upstream":"a","fault":"html"}]}"#);
    assert_eq!(scenario.unwrap_err(), ("/steps/1".to_owned(), "`html` needs `status`".to_owned()));
}

#[test]
fn no_value_is_repeated() {
    for text in [r#"{"fault":"s3cret"}"#, r#"{"fault":"stall","when":{"contact":{"external":"s3cret"}}}"#] {
        let (_, why) = read::<Rule>(text.as_bytes()).unwrap_err();
        assert!(!why.contains("s3cret"), "{why}");
    }
}

#[test]
fn a_rule_is_written_with_what_it_did() {
    let text = r#"{"fault":"throttle","wait_s":5,"when":{"contact":7,"every":2},"times":3}"#;
    let standing = Standing { id: RuleId(4), rule: read(text.as_bytes()).unwrap(), seen: 9, applied: 3 };
    let when = json!({ "route": "delete", "contact": { "id": "7" }, "nth": null, "every": 2 });
    let expected =
        json!({ "id": 4, "fault": "throttle", "wait_s": 5, "when": when, "times": 3, "seen": 9, "applied": 3 });
    assert_eq!(serde_json::to_value(&standing).unwrap(), expected);
    let scenario: Scenario = read(br#"{"steps":[{"upstream":"a","fault":"html","status":500,"times":2}]}"#).unwrap();
    let progress = Progress { steps: vec![(scenario.steps[0].clone(), 1)] };
    let step = json!({ "upstream": "a", "fault": "html", "status": 500, "times": 2, "taken": 1 });
    assert_eq!(serde_json::to_value(&progress).unwrap(), json!({ "done": false, "steps": [step] }));
}

#[test]
fn latencies_and_limits() {
    let latency = |text: &str| read::<Seeded>(text.as_bytes()).map(|seeded| (seeded.latency, seeded.seed));
    assert_eq!(latency(r#"{"latency":"fixed","ms":7}"#), Ok((Latency::Fixed { ms: 7 }, 0)));
    assert_eq!(
        latency(r#"{"latency":"uniform","from_ms":1,"to_ms":2,"seed":3}"#),
        Ok((Latency::Uniform { from_ms: 1, to_ms: 2 }, 3))
    );
    assert_eq!(
        latency(r#"{"latency":"log_normal","median_ms":40,"sigma":0.5}"#),
        Ok((Latency::LogNormal { median_ms: 40, sigma: 0.5 }, 0))
    );
    for text in [
        r#"{"latency":"fixed"}"#,
        r#"{"latency":"fixed","ms":60001}"#,
        r#"{"latency":"fixed","ms":1,"sigma":1}"#,
        r#"{"latency":"uniform","from_ms":3,"to_ms":2}"#,
        r#"{"latency":"log_normal","median_ms":1,"sigma":-1}"#,
        r#"{"latency":"log_normal","median_ms":1,"sigma":11}"#,
        r#"{"latency":"other"}"#,
    ] {
        assert!(latency(text).is_err(), "{text}");
    }
    let limits = |text: &str| read::<Limits>(text.as_bytes());
    assert_eq!(limits(r#"{"vendor":true}"#), Ok(Limits::Vendor));
    let two = adapters::Limit { requests: 2, window_s: 60 };
    assert_eq!(limits(r#"{"requests":2,"window_s":60}"#), Ok(Limits::Of(two)));
    for text in [r#"{}"#, r#"{"vendor":false}"#, r#"{"vendor":true,"requests":1}"#, r#"{"requests":1,"window_s":0}"#] {
        assert!(limits(text).is_err(), "{text}");
    }
}

#[test]
fn every_check_can_be_asked() {
    for text in [
        r#"{"check":"deleted_twice"}"#,
        r#"{"check":"only_asked","upstream":"a"}"#,
        r#"{"check":"only","contacts":["7"]}"#,
        r#"{"check":"no_call_between","from_ms":1,"to_ms":2}"#,
        r#"{"check":"no_call_after_n","n":4}"#,
        r#"{"check":"count","kind":"delete","exactly":3}"#,
        r#"{"check":"count","at_least":1,"at_most":3}"#,
        r#"{"check":"calls_per_contact_at_most","n":1}"#,
        r#"{"check":"scenario_done"}"#,
    ] {
        let check: Check = read(text.as_bytes()).unwrap();
        assert!(text.contains(check.question.name()));
    }
    for text in [
        r#"{"check":"other"}"#,
        r#"{"check":"count"}"#,
        r#"{"check":"count","kind":"write","exactly":1}"#,
        r#"{"check":"only"}"#,
        r#"{"check":"deleted_twice","n":1}"#,
        r#"{"check":"no_call_between","from_ms":1}"#,
    ] {
        assert!(read::<Check>(text.as_bytes()).is_err(), "{text}");
    }
}
