//! The laws: what every dialect promises, checked over all of them. A new dialect needs no test here.
//!
//! What only one vendor does stands in that dialect's `tests.rs`; the laws of the doubles stand in `conformance/doubles.rs`.
//! Above 500 lines because the laws share their wild replies and hostile identifiers and read best as one list.

mod doubles;

use std::collections::HashSet;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Map, Value};

use crate::contract::{
    Call, Evidence, FaultCode, Finding, Identifier, IdentifierKind, Outcome, Reading, Slot, Target, TurnedAway, Wait,
};
use crate::dialect::{Account, Dialect, Grant, Registration, SignInReading};
use crate::exchange::{Exchange, Exchanges, Source};
use crate::judge::{self, judge};
use crate::{DIALECTS, reply};

/// The dialect of a registration's example.
pub(crate) fn example(registration: &Registration) -> Box<dyn Dialect> {
    with_settings(registration, &Map::new())
}

/// The dialect of a registration's example, with some settings changed.
pub(crate) fn with_settings(registration: &Registration, changes: &Map<String, Value>) -> Box<dyn Dialect> {
    judge::open(registration, &example_settings(registration), changes).unwrap()
}

/// Targets by native id, with slots 0, 1, 2 …
pub(crate) fn id_targets(ids: &[&str]) -> Vec<Target> {
    targets(ids.iter().map(|id| Identifier::Id((*id).into())))
}

pub(crate) fn targets(identifiers: impl IntoIterator<Item = Identifier>) -> Vec<Target> {
    identifiers.into_iter().zip(0..).map(|(identifier, n)| Target { slot: Slot(n), identifier }).collect()
}

pub(crate) fn example_settings(registration: &Registration) -> Map<String, Value> {
    let table: toml::Table = registration.example.parse().unwrap();
    let Value::Object(map) = serde_json::to_value(table).unwrap() else { panic!() };
    map
}

pub(crate) fn fixtures(registration: &Registration) -> Vec<Exchange> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(registration.profile.id).join("fixtures");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        let exchanges: Exchanges =
            serde_json::from_str(&text).unwrap_or_else(|err| panic!("{}: {err}", file.display()));
        assert_eq!(exchanges.dialect, registration.profile.id, "{}", file.display());
        exchanges.exchanges
    };
    files.into_iter().flat_map(read).collect()
}

/// `n` different identifiers that the dialect's rule for `kind` accepts.
pub(crate) fn some_identifiers(registration: &Registration, kind: IdentifierKind, n: usize) -> Vec<Identifier> {
    let rule = registration.profile.identifiers.iter().find(|rule| rule.kind == kind).unwrap();
    let make = |i: usize| -> Vec<Identifier> {
        match kind {
            IdentifierKind::Id => vec![
                // Seven digits: a short number also stands in texts that do not name it.
                Identifier::Id(format!("{}", i + 7_000_001).into()),
                Identifier::Id(format!("{i:024x}").into()),
                Identifier::Id(format!("91c615e3-1040-4815-8ecb-{i:012x}").into()),
            ],
            IdentifierKind::Phone => vec![Identifier::Phone(format!("+1415{i:07}").into())],
            IdentifierKind::External => {
                vec![Identifier::External { provider: "salesforce".into(), id: format!("003DL{i:09}").into() }]
            }
        }
    };
    (0..n).map(|i| make(i).into_iter().find(|candidate| (rule.accepts)(candidate)).expect("an example form")).collect()
}

pub(crate) fn kinds(registration: &Registration) -> Vec<IdentifierKind> {
    registration.profile.identifiers.iter().map(|rule| rule.kind).collect()
}

fn hostile_identifiers() -> Vec<Identifier> {
    let mut texts: Vec<String> = [
        "",
        ".",
        "..",
        "../",
        "../../",
        "..\t",
        "%2e%2e",
        "%2f",
        "%2F..%2F",
        "a/b",
        "42/../43",
        "42/",
        "/42",
        "//42",
        "42?x=1",
        "?x=",
        "42#f",
        "#",
        "42;v=1",
        "42&x=1",
        "filter",
        "FILTER",
        "filter?x",
        "{id}",
        "*",
        "42,43",
        "[42]",
        "42 ",
        " 42",
        "\t42",
        "42\n",
        "42\r\nX-Evil: 1",
        "\u{0}",
        "42\u{0}",
        "\u{feff}42",
        "４２",
        "٤٢",
        "é",
        "😀",
        "null",
        "true",
        "undefined",
        "NaN",
        "-1",
        "+1",
        "0",
        "00",
        "042",
        "1e9",
        "1.0",
        "0x2a",
        "2147483648",
        "9223372036854775808",
        "99999999999999999999999999",
        "' OR 1=1 --",
        "\"",
        "\\",
        "\"]}",
        "$ne",
        "{\"$gt\":\"\"}",
        "<script>",
        "${jndi:ldap://x}",
        "91c615e3-1040-4815-8ecb",
        "91c615e3-1040-4815-8ecb-039a18b756bg",
        "{91c615e3-1040-4815-8ecb-039a18b756b5}",
        "urn:uuid:91c615e3-1040-4815-8ecb-039a18b756b5",
        "6960cbe9b155d194e2f0000",
        "6960cbe9b155d194e2f0000g",
        "6960cbe9b155d194e2f000011",
        "all",
        "me",
        "bulk-delete",
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    texts.push("9".repeat(10_000));
    texts.push("a".repeat(10_000));
    texts.push("../".repeat(3_000));
    let mut identifiers: Vec<_> = texts.iter().map(|t| Identifier::Id(t.as_str().into())).collect();
    identifiers.extend(texts.iter().map(|t| Identifier::Phone(t.as_str().into())));
    for text in &texts {
        identifiers.push(Identifier::External { provider: text.as_str().into(), id: "1".into() });
        identifiers.push(Identifier::External { provider: "salesforce".into(), id: text.as_str().into() });
    }
    identifiers
}

fn route_of(call: &Call, dialect: &dyn Dialect) -> String {
    let uri = call.request.uri().to_string();
    // Where the id stands in the path, it is the last segment; the rest of the URI is the route.
    if dialect.max_contacts_per_call() == 1 && call.request.body().is_empty() {
        let (route, id) = uri.rsplit_once('/').unwrap();
        assert_eq!(id, call.targets[0].identifier.text(), "the id is not the last segment, byte for byte");
        return route.to_owned();
    }
    uri
}

#[test]
fn law_1_a_plan_settles_every_slot_once_and_in_order() {
    for registration in DIALECTS {
        let dialect = example(registration);
        let mut everyone = hostile_identifiers();
        for kind in kinds(registration) {
            everyone.extend(some_identifiers(registration, kind, 750));
        }
        fastrand::Rng::with_seed(7).shuffle(&mut everyone);
        let targets = targets(everyone);
        let plan = dialect.plan(targets.clone());
        let mut slots: Vec<_> = plan.refused.iter().map(|(slot, _)| slot.0).collect();
        for call in &plan.calls {
            assert!(!call.targets.is_empty() && call.targets.len() <= dialect.max_contacts_per_call());
            assert!(call.targets.is_sorted_by_key(|target| target.slot), "{}", registration.profile.id);
            slots.extend(call.targets.iter().map(|target| target.slot.0));
        }
        slots.sort_unstable();
        assert_eq!(slots, (0..targets.len() as u32).collect::<Vec<_>>(), "{}", registration.profile.id);
        let again = dialect.plan(targets);
        let wire = |plan: &crate::Plan| -> Vec<String> {
            plan.calls
                .iter()
                .map(|c| format!("{:?} {:?}", c.request, c.targets.iter().map(|t| t.slot).collect::<Vec<_>>()))
                .collect()
        };
        assert_eq!(wire(&plan), wire(&again), "{}", registration.profile.id);
        assert!(dialect.plan(Vec::new()).calls.is_empty());
    }
}

#[test]
fn law_2_no_call_carries_a_credential_or_leaves_its_route() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let dialect = example(registration);
        let settings = example_settings(registration);
        let secrets: Vec<String> = settings["credentials"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(|v| v.as_str()?.strip_prefix("plain:").map(str::to_owned))
            .collect();
        assert!(!secrets.is_empty(), "{id}: the example has no secret");
        let mut good = Vec::new();
        for kind in kinds(registration) {
            good.extend(some_identifiers(registration, kind, 3));
        }
        let route = route_of(&dialect.plan(targets(good.clone())).calls[0], &*dialect);
        assert!(route.starts_with(settings["base_url"].as_str().unwrap()), "{id}: {route}");
        let mixed: Vec<_> = hostile_identifiers().into_iter().chain(good).collect();
        assert!(mixed.len() >= 200);
        for call in dialect.plan(targets(mixed)).calls {
            assert_eq!(route_of(&call, &*dialect), route, "{id}");
            let auth = registration.profile.auth.header;
            assert!(!call.request.headers().contains_key(auth), "{id}: a planned call has a {auth} header");
            let wire = format!("{:?} {}", call.request, String::from_utf8_lossy(call.request.body()));
            assert!(!secrets.iter().any(|secret| wire.contains(secret)), "{id}: a planned call has a secret");
            for target in &call.targets {
                assert!(registration.profile.admit(&target.identifier).is_ok(), "{id}");
            }
        }
    }
}

#[test]
fn hostile_identifiers_are_refused_by_every_grammar() {
    // What some vendor's ids may look like all the same: no sign, blank, escape or word among them.
    let tame = |identifier: &Identifier| match identifier {
        Identifier::Id(id) => {
            id.bytes().any(|b| b.is_ascii_digit()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }
        Identifier::Phone(phone) => crate::grammar::is_phone(phone),
        Identifier::External { provider, id } => [&**provider, &**id].into_iter().all(crate::grammar::is_visible_ascii),
    };
    for registration in DIALECTS {
        for identifier in hostile_identifiers() {
            if registration.profile.admit(&identifier).is_ok() {
                assert!(tame(&identifier), "{}: {}", registration.profile.id, identifier.text());
            }
        }
    }
}

/// Replies that the fixtures do not have: mutations, truncations, and bodies that are not the dialect's at all.
fn wild_replies(registration: &Registration, rng: &mut fastrand::Rng) -> Vec<Response<Bytes>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "true",
        "0",
        "[]",
        "{}",
        "\"ok\"",
        "[[]]",
        "[null]",
        "{\"success\":true}",
        "<html></html>",
        "{\"result\":null}",
        "{\"result\":{}}",
        "{\"result\":[]}",
        "{\"error\":null}",
        "{\"error\":true}",
        "\u{feff}{}",
        "{\"a\":1,\"a\":2}",
        "OK",
        "<?xml version=\"1.0\"?><r/>",
        "{\"key\":null}",
        "{\"ids\":[]}",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.push(vec![0xff; 64]);
    bodies.push("[".repeat(100_000).into_bytes());
    bodies.push("{\"a\":".repeat(100_000).into_bytes());
    for exchange in fixtures(registration) {
        let Some(response) = exchange.response else { continue };
        let body = response.body.into_bytes();
        for _ in 0..12 {
            let mut cut = body.clone();
            cut.truncate(rng.usize(0..=body.len()));
            bodies.push(cut);
            bodies.push(mutated(&body, rng));
        }
        bodies.push(body);
    }
    let statuses = [
        200, 200, 200, 200, 201, 202, 203, 204, 206, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 408, 409,
        410, 412, 413, 415, 422, 425, 429, 431, 451, 499, 500, 501, 502, 503, 504, 520, 599, 999,
    ];
    bodies
        .into_iter()
        .map(|body| {
            let mut reply = Response::new(Bytes::from(body));
            *reply.status_mut() = StatusCode::from_u16(*rng.choice(&statuses).unwrap()).unwrap();
            if rng.bool() {
                let kind =
                    *rng.choice(&["application/json", "text/html", "text/plain", "application/hal+json"]).unwrap();
                reply.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
            }
            if rng.u8(..) < 16 {
                reply.headers_mut().insert("content-encoding", http::HeaderValue::from_static("gzip"));
            }
            reply
        })
        .collect()
}

fn mutated(body: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        let mut bytes = body.to_vec();
        for _ in 0..3 {
            if !bytes.is_empty() {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
        }
        return bytes;
    };
    for _ in 0..rng.usize(1..4) {
        mutate(&mut value, rng);
    }
    value.to_string().into_bytes()
}

fn mutate(value: &mut Value, rng: &mut fastrand::Rng) {
    let junk = [
        Value::Null,
        Value::Bool(true),
        0.into(),
        (-1).into(),
        1e300.into(),
        "x".into(),
        Value::Array(vec![]),
        Value::Object(Map::new()),
    ];
    match value {
        Value::Array(items) if !items.is_empty() && rng.u8(..) < 200 => {
            let at = rng.usize(..items.len());
            match rng.u8(..4) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => mutate(&mut items[at], rng),
            }
        }
        Value::Object(members) if !members.is_empty() && rng.u8(..) < 220 => {
            let at = rng.usize(..members.len());
            let key = members.keys().nth(at).unwrap().clone();
            if rng.u8(..5) == 0 {
                members.remove(&key);
            } else {
                mutate(&mut members[&key], rng);
            }
        }
        other => *other = rng.choice(&junk).unwrap().clone(),
    }
}

fn one_call(registration: &Registration, kind: IdentifierKind, n: usize) -> (Box<dyn Dialect>, Call) {
    let dialect = example(registration);
    let call = dialect.plan(targets(some_identifiers(registration, kind, n))).calls.remove(0);
    (dialect, call)
}

#[test]
fn law_3_any_reply_settles_exactly_the_calls_slots() {
    for registration in DIALECTS {
        let mut rng = fastrand::Rng::with_seed(3);
        for kind in kinds(registration) {
            let (dialect, call) = one_call(registration, kind, 5);
            for _ in 0..20 {
                for reply in wild_replies(registration, &mut rng) {
                    let findings = dialect.interpret(&call, &reply).findings(&call);
                    assert_eq!(findings.len(), call.targets.len(), "{}", registration.profile.id);
                }
            }
        }
    }
}

#[test]
fn law_4_a_reply_that_names_nobody_of_ours_deletes_nobody() {
    for registration in DIALECTS {
        let evidence = registration.profile.evidence;
        let mut rng = fastrand::Rng::with_seed(4);
        for kind in kinds(registration) {
            let (dialect, call) = one_call(registration, kind, 5);
            for _ in 0..10 {
                for reply in wild_replies(registration, &mut rng) {
                    let text = String::from_utf8_lossy(reply.body()).to_ascii_lowercase();
                    let names = call.targets.iter().any(|t| text.contains(&t.identifier.text().to_ascii_lowercase()));
                    for finding in dialect.interpret(&call, &reply).findings(&call) {
                        if let Finding::Deleted(how) = finding {
                            assert!(evidence.contains(&how), "{}: undeclared evidence", registration.profile.id);
                            let by_totals_or_status = matches!(how, Evidence::Status | Evidence::Aggregate);
                            assert!(names || by_totals_or_status, "{}: {text}", registration.profile.id);
                            assert!(
                                reply.status().is_success() && reply.status() != 202,
                                "{}",
                                registration.profile.id
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn an_array_is_not_read_as_an_object_by_position() {
    fn flatten(value: Value) -> Value {
        match value {
            Value::Object(members) => Value::Array(members.into_iter().map(|(_, member)| flatten(member)).collect()),
            Value::Array(items) => Value::Array(items.into_iter().map(flatten).collect()),
            other => other,
        }
    }
    for registration in DIALECTS.iter().filter(|r| !r.profile.evidence.contains(&Evidence::Status)) {
        for exchange in fixtures(registration) {
            let Some(response) = exchange.response.as_ref() else { continue };
            let Ok(body) = serde_json::from_str::<Value>(&response.body) else { continue };
            let dialect = with_settings(registration, &exchange.settings);
            let call = dialect.plan(exchange.targets()).calls.remove(0);
            let inner = match body.clone() {
                Value::Object(members) => {
                    Value::Object(members.into_iter().map(|(name, member)| (name, flatten(member))).collect())
                }
                other => other,
            };
            let changed = [flatten(body.clone()), inner].into_iter().filter(|other| *other != body);
            for body in changed.collect::<Vec<_>>() {
                let reply = Response::new(Bytes::from(body.to_string()));
                for finding in dialect.interpret(&call, &reply).findings(&call) {
                    let by_totals = matches!(finding, Finding::Deleted(Evidence::Aggregate)) && body.is_object();
                    assert!(
                        matches!(finding, Finding::Fault(_)) || by_totals,
                        "{} {}",
                        registration.profile.id,
                        exchange.name
                    );
                }
            }
        }
    }
}

#[test]
fn law_5_foreign_duplicate_or_contradictory_identifiers_improve_nothing() {
    // A reply that names other contacts besides ours must not turn an unsettled one into a settled one.
    for registration in DIALECTS {
        let kind = IdentifierKind::Id;
        let dialect = example(registration);
        let ours = some_identifiers(registration, kind, 2);
        let call = dialect.plan(targets(ours.clone())).calls.remove(0);
        let foreign: Vec<_> = some_identifiers(registration, kind, 6).split_off(4);
        let mut double = (registration.double)();
        for identifier in &foreign {
            double.seed(identifier, false);
        }
        let foreign_call = dialect.plan(targets(foreign)).calls.remove(0);
        let reply = answered(registration, &mut *double, &foreign_call);
        if registration.profile.evidence.contains(&Evidence::Status) {
            continue; // The status is the evidence: the reply names nobody.
        }
        for finding in dialect.interpret(&call, &reply).findings(&call) {
            let Finding::Fault(fault) = &finding else {
                assert!(
                    registration.profile.evidence.contains(&Evidence::Aggregate),
                    "{}: {finding:?}",
                    registration.profile.id
                );
                continue;
            };
            assert_eq!(fault.code.outcome(), Outcome::Unknown, "{}", registration.profile.id);
        }
    }
}

#[test]
fn law_6_refusals_of_the_credential_throttling_and_server_errors_are_told_apart() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let (dialect, call) = one_call(registration, IdentifierKind::Id, 2);
        let reading = |status: u16, body: &'static str| {
            let mut reply = Response::new(Bytes::from_static(body.as_bytes()));
            *reply.status_mut() = StatusCode::from_u16(status).unwrap();
            dialect.interpret(&call, &reply)
        };
        for body in ["", "Unauthorized", "<html></html>", "{}"] {
            assert!(matches!(reading(401, body), Reading::TurnedAway(TurnedAway::Credential(_))), "{id}: 401 {body}");
            assert!(matches!(reading(429, body), Reading::TurnedAway(TurnedAway::Throttled(_))), "{id}: 429 {body}");
        }
        for exchange in fixtures(registration).iter().filter(|exchange| exchange.response.is_some()) {
            let response = exchange.response.as_ref().unwrap();
            if exchange.outcomes.iter().any(|o| o.error == Some(FaultCode::UpstreamUnauthenticated)) {
                let dialect = with_settings(registration, &exchange.settings);
                let call = dialect.plan(exchange.targets()).calls.remove(0);
                let reading = dialect.interpret(&call, &response.to_http().unwrap());
                assert!(matches!(reading, Reading::TurnedAway(TurnedAway::Credential(_))), "{id}: {}", exchange.name);
            }
            for status in 500..=599 {
                let mut reply = response.to_http().unwrap();
                *reply.status_mut() = StatusCode::from_u16(status).unwrap();
                for finding in dialect.interpret(&call, &reply).findings(&call) {
                    assert!(matches!(finding, Finding::Fault(_)), "{id}: {} under {status}", exchange.name);
                }
            }
        }
    }
}

#[test]
fn law_7_every_fixture_holds() {
    for registration in DIALECTS {
        let connection = example_settings(registration);
        for exchange in fixtures(registration) {
            let verdict = judge(registration, &connection, &exchange).unwrap();
            assert_eq!(verdict.differences, [], "{} {}", registration.profile.id, exchange.name);
        }
    }
}

/// Changes that no fixture survives, and the field that must be named.
fn changes(exchange: &Exchange) -> Vec<(String, Exchange)> {
    type Change<'c> = &'c dyn Fn(&mut Exchange);
    let mut changed = Vec::new();
    let mut change = |field: &str, change: Change<'_>| {
        let mut copy: Exchange = serde_json::from_value(serde_json::to_value(exchange).unwrap()).unwrap();
        change(&mut copy);
        changed.push((field.to_owned(), copy));
    };
    for (n, expected) in exchange.outcomes.iter().enumerate() {
        let other = if expected.outcome == Outcome::Deleted { Outcome::NotFound } else { Outcome::Deleted };
        change(&format!("outcomes[{n}].outcome"), &|exchange| exchange.outcomes[n].outcome = other);
        let other = if expected.error.is_none() { Some(FaultCode::UpstreamForbidden) } else { None };
        change(&format!("outcomes[{n}].error"), &|exchange| exchange.outcomes[n].error = other);
    }
    change("outcomes", &|exchange| exchange.outcomes.truncate(exchange.outcomes.len() - 1));
    change("retry_after_s", &|exchange| exchange.retry_after_s = Some(77));
    if let Some(request) = exchange.request.as_ref().filter(|request| request.method != "POST") {
        change("request.method", &|exchange| exchange.request.as_mut().unwrap().method = "PATCH".to_owned());
        change("request.path", &|exchange| exchange.request.as_mut().unwrap().path.push('x'));
        change("response", &|exchange| exchange.response = None);
        for name in request.headers.keys() {
            change(&format!("request.headers.{name}"), &|exchange| {
                exchange.request.as_mut().unwrap().headers.insert(name.clone(), "other".to_owned());
            });
        }
        change("request.body.extra", &|exchange| {
            if let Value::Object(body) = &mut exchange.request.as_mut().unwrap().body {
                body.insert("extra".to_owned(), true.into());
            }
        });
        change("request.body[0].extra", &|exchange| {
            if let Value::Array(body) = &mut exchange.request.as_mut().unwrap().body {
                body[0]["extra"] = true.into();
            }
        });
    }
    changed
}

#[test]
fn law_7_a_fixture_with_one_field_changed_is_told_by_that_field() {
    for registration in DIALECTS {
        let connection = example_settings(registration);
        let auth = registration.profile.auth.header;
        let mut told = HashSet::new();
        for exchange in fixtures(registration) {
            for (field, changed) in changes(&exchange) {
                // Nothing stands before a bare credential, and not every body has members.
                let bare = registration.profile.auth.prefix.is_empty() && field == format!("request.headers.{auth}");
                if bare || serde_json::to_value(&changed).unwrap() == serde_json::to_value(&exchange).unwrap() {
                    continue;
                }
                let differences = judge(registration, &connection, &changed).unwrap().differences;
                let fields: Vec<_> = differences.iter().map(|difference| difference.field.as_str()).collect();
                let waits_too = field == "request.path" && exchange.retry_after_s.is_some();
                assert!(fields.contains(&field.as_str()), "{} {field}: {fields:?}", exchange.name);
                assert!(fields.len() == 1 || waits_too || field == "response", "{} {field}: {fields:?}", exchange.name);
                told.insert(field);
            }
        }
        for field in ["request.method", "request.path", "outcomes[0].outcome", "outcomes[0].error", "retry_after_s"] {
            assert!(told.contains(field), "{}: {field}", registration.profile.id);
        }
    }
}

#[test]
fn law_9_a_planned_call_gives_its_contacts_back() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let dialect = example(registration);
        for kind in kinds(registration) {
            for n in [1, 5, 101] {
                for call in dialect.plan(targets(some_identifiers(registration, kind, n))).calls {
                    let asked: Vec<_> = call.targets.iter().map(|target| target.identifier.clone()).collect();
                    assert_eq!(dialect.contacts_of(&call.request), Some(asked.clone()), "{id} {kind:?}");
                    let mut path_alone = call.request.clone();
                    *path_alone.uri_mut() = call.request.uri().path().parse().unwrap();
                    assert_eq!(dialect.contacts_of(&path_alone), Some(asked), "{id} {kind:?}");
                    for other in others(&call.request) {
                        assert_eq!(dialect.contacts_of(&other), None, "{id}: {} {}", other.method(), other.uri());
                    }
                }
            }
        }
        if let Some(request) = judge::sign_in_request(registration, &example_settings(registration), &*dialect) {
            assert_eq!(dialect.contacts_of(&request), None, "{id}: a sign-in");
        }
        for hostile in hostile_identifiers() {
            let kind = hostile.kind();
            let Some(rule) = registration.profile.identifiers.iter().find(|rule| rule.kind == kind) else { continue };
            let call = dialect.plan(targets(some_identifiers(registration, rule.kind, 1))).calls.remove(0);
            let body = String::from_utf8_lossy(call.request.body());
            let text = call.targets[0].identifier.text();
            let json = serde_json::to_string(hostile.text()).unwrap();
            let mut request = call.request.clone();
            *request.body_mut() = Bytes::from(body.replace(text, &json[1..json.len() - 1]));
            let Ok(uri) = request.uri().to_string().replace(text, hostile.text()).parse() else { continue };
            *request.uri_mut() = uri;
            let found = dialect.contacts_of(&request).unwrap_or_default();
            assert!(found.iter().all(|each| registration.profile.admit(each).is_ok()), "{id}: {}", hostile.text());
        }
    }
}

/// Requests that are like a delete and are none.
fn others(request: &Request<Bytes>) -> Vec<Request<Bytes>> {
    let with_uri = |uri: String| {
        let mut other = request.clone();
        *other.uri_mut() = uri.parse().unwrap();
        other
    };
    let mut read = request.clone();
    *read.method_mut() = http::Method::GET;
    let mut others = vec![read, with_uri(format!("{}/x", request.uri())), with_uri(format!("{}?x=1", request.uri()))];
    let body = request.body();
    if !body.is_empty() {
        for body in [Bytes::new(), body.slice(..body.len() - 1), Bytes::from("[]"), Bytes::from("{}")] {
            let mut other = request.clone();
            *other.body_mut() = body;
            others.push(other);
        }
    }
    others
}

#[test]
fn the_fixtures_that_are_built_in_are_those_of_the_folder() {
    for registration in DIALECTS {
        let built_in =
            registration.fixtures.iter().flat_map(|text| serde_json::from_str::<Exchanges>(text).unwrap().exchanges);
        let shown = |exchange: Exchange| serde_json::to_value(exchange).unwrap();
        let built_in: Vec<_> = built_in.map(shown).collect();
        let in_folder: Vec<_> = fixtures(registration).into_iter().map(shown).collect();
        assert_eq!(built_in, in_folder, "{}", registration.profile.id);
    }
}

/// The request with a credential that the double accepts, answered by it.
fn answered(registration: &Registration, double: &mut dyn crate::Double, call: &Call) -> Response<Bytes> {
    let request = with_credential(registration, double, call);
    double.answer(&request, 1_000).response
}

pub(crate) fn with_credential(
    registration: &Registration,
    double: &mut dyn crate::Double,
    call: &Call,
) -> Request<Bytes> {
    let settings = example_settings(registration);
    let credentials = settings["credentials"].as_object().unwrap();
    let plain = |name: &str| {
        let text = credentials[name].as_str().unwrap();
        text.strip_prefix("plain:").unwrap_or(text).to_owned()
    };
    let form = registration.profile.auth.forms.iter().find(|form| {
        let names: HashSet<_> = form.members.iter().map(|member| member.name).collect();
        names == credentials.keys().map(String::as_str).collect()
    });
    let form = form.expect("the example's credentials fit one form");
    let value = match &form.grant {
        Grant::Fixed => plain(form.members[0].name),
        Grant::SignedJwt { id_claim, .. } => {
            let claims = serde_json::json!({ (*id_claim): plain("client_id") });
            signed_jwt(&claims, &plain("client_secret"))
        }
        Grant::SignIn => {
            let dialect = example(registration);
            let members: Vec<_> = form.members.iter().map(|m| (m.name, plain(m.name))).collect();
            let members: Vec<_> = members.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let sign_in = dialect.sign_in().unwrap();
            let request = sign_in.request(&Account(&members)).unwrap();
            let reading = sign_in.read(&double.answer(&request, 1_000).response);
            let SignInReading::Token { value, .. } = reading else {
                panic!("{}: {reading:?}", registration.profile.id)
            };
            value
        }
    };
    let mut request = call.request.clone();
    let value = format!("{}{value}", registration.profile.auth.prefix);
    request.headers_mut().insert(registration.profile.auth.header, value.parse().unwrap());
    request
}

/// A request made by hand, answered by a double in second `now_s`: the status, the JSON body or null, and what it deleted.
pub(crate) fn sent(
    double: &mut dyn crate::Double,
    now_s: u64,
    (method, uri): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value, Vec<String>) {
    let request =
        headers.iter().fold(Request::builder().method(method).uri(uri), |r, (name, text)| r.header(*name, *text));
    let answer = double.answer(&request.body(Bytes::from(body.to_owned())).unwrap(), now_s);
    let deleted = answer.deleted.iter().map(|identifier| identifier.text().to_owned()).collect();
    let body = serde_json::from_slice(answer.response.body()).unwrap_or_default();
    (answer.response.status().as_u16(), body, deleted)
}

/// A JSON Web Token with these claims, signed with HS256.
pub(crate) fn signed_jwt(claims: &Value, secret: &str) -> String {
    use base64::Engine;
    use hmac::{KeyInit, Mac};
    let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(b"{\"alg\":\"HS256\"}"), part(claims.to_string().as_bytes()));
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", part(&mac.finalize().into_bytes()))
}

#[test]
fn law_8_what_is_said_of_a_double_is_what_it_did() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        for kind in kinds(registration) {
            for seed in 0..50 {
                let mut rng = fastrand::Rng::with_seed(seed);
                let dialect = example(registration);
                let mut double = (registration.double)();
                let everyone = some_identifiers(registration, kind, 12);
                let mut held = HashSet::new();
                for identifier in &everyone {
                    match rng.u8(..10) {
                        0..=5 => double.seed(identifier, false),
                        6..=7 => {
                            double.seed(identifier, true);
                            held.insert(identifier.clone());
                        }
                        _ => {}
                    }
                }
                for call in dialect.plan(targets(everyone)).calls {
                    let before: Vec<_> = call.targets.iter().map(|t| double.holds(&t.identifier)).collect();
                    let request = with_credential(registration, &mut *double, &call);
                    let answer = double.answer(&request, 1_000);
                    let findings = dialect.interpret(&call, &answer.response).findings(&call);
                    for ((target, finding), was_there) in call.targets.iter().zip(findings).zip(before) {
                        let is_there = double.holds(&target.identifier);
                        let gone_now = was_there && !is_there;
                        assert_eq!(
                            answer.deleted.contains(&target.identifier),
                            gone_now,
                            "{id}: the log and the store"
                        );
                        match finding {
                            Finding::Deleted(_) => assert!(gone_now, "{id} {kind:?}: claims a deletion"),
                            Finding::NotFound(_) => assert!(!is_there, "{id} {kind:?}: claims an absence"),
                            Finding::Fault(fault) => {
                                assert!(fault.code.outcome() == Outcome::Unknown || !gone_now, "{id}: {fault:?}");
                                assert!(!fault.still_there || is_there, "{id}: {fault:?}");
                            }
                        }
                    }
                }
                for identifier in &held {
                    assert!(double.holds(identifier), "{id}: a held contact was deleted");
                }
            }
        }
    }
}

#[test]
fn law_8_a_double_refuses_a_call_without_a_credential() {
    for registration in DIALECTS {
        let (dialect, call) = one_call(registration, IdentifierKind::Id, 2);
        let mut double = (registration.double)();
        for target in &call.targets {
            double.seed(&target.identifier, false);
        }
        let answer = double.answer(&call.request, 1_000);
        let reading = dialect.interpret(&call, &answer.response);
        assert!(
            matches!(reading, Reading::TurnedAway(TurnedAway::Credential(_))),
            "{}: {reading:?}",
            registration.profile.id
        );
        assert!(call.targets.iter().all(|target| double.holds(&target.identifier)));
    }
}

#[test]
fn law_10_folder_profile_and_readme_agree() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let ids: Vec<_> = DIALECTS.iter().map(|registration| registration.profile.id).collect();
    assert!(ids.is_sorted(), "DIALECTS is alphabetical");
    let mut folders: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir() && entry.path().join("mod.rs").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(ids, folders);
    for registration in DIALECTS {
        let profile = registration.profile;
        let id = profile.id;
        let readme = std::fs::read_to_string(root.join(id).join("README.md")).unwrap();
        assert!(readme.starts_with(&format!("# {id}: {}", profile.title)), "{id}: the README's title");
        assert!(readme.contains("## Open questions"), "{id}: the README's open questions");
        assert!(!profile.docs.is_empty() && profile.docs.iter().all(|link| link.starts_with("https://")));
        assert!(readme.contains(profile.docs[0]), "{id}: the vendor's link");
        assert!(registration.example.contains(&format!("dialect = \"{id}\"")), "{id}: the example");
        assert_eq!(example(registration).max_contacts_per_call(), profile.max_contacts_per_call);
        let exchanges = fixtures(registration);
        assert!(
            exchanges.iter().all(|exchange| exchange.source != Source::Recorded),
            "{id}: nobody recorded anything yet"
        );
        let names: HashSet<_> = exchanges.iter().map(|exchange| &exchange.name).collect();
        assert_eq!(names.len(), exchanges.len(), "{id}: fixture names");
        for needed in [Outcome::Deleted, Outcome::Unknown, Outcome::Rejected, Outcome::Failed] {
            assert!(
                exchanges.iter().any(|e| e.outcomes.iter().any(|o| o.outcome == needed)),
                "{id}: no fixture for {needed:?}"
            );
        }
    }
}

#[test]
fn unknown_and_bad_settings_fail_in_open() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let mut settings = example_settings(registration);
        for key in ["dialect", "credentials", "allow_http", "allow_private"] {
            settings.remove(key);
        }
        let fails = |change: (&str, Value)| {
            let mut settings = settings.clone();
            settings.insert(change.0.to_owned(), change.1);
            (registration.open)(Value::Object(settings)).err().unwrap_or_else(|| panic!("{id}: {}", change.0))
        };
        assert_eq!(fails(("base_url", "https://x.example/../y".into())).key, "base_url", "{id}");
        assert_eq!(fails(("base_url", 7.into())).key, "base_url", "{id}");
        assert_eq!(fails(("max_contacts_per_call", 0.into())).key, "max_contacts_per_call", "{id}");
        let unknown = fails(("tokn", "hunter2".into()));
        assert!(unknown.message.contains("tokn") && !unknown.message.contains("hunter2"), "{id}: {unknown}");
        assert!((registration.open)(Value::Object(Map::new())).is_err(), "{id}");
    }
}

#[test]
fn a_throttled_reply_keeps_the_upstreams_wait() {
    for registration in DIALECTS {
        let (dialect, call) = one_call(registration, IdentifierKind::Id, 1);
        let reply = Response::builder().status(429).header("retry-after", "7").body(Bytes::new()).unwrap();
        let Reading::TurnedAway(TurnedAway::Throttled(fault)) = dialect.interpret(&call, &reply) else { panic!() };
        assert_eq!(
            fault.wait.or(reply::retry_after(reply.headers())),
            Some(Wait::For(7)),
            "{}",
            registration.profile.id
        );
    }
}

#[test]
fn debug_shows_no_identifier() {
    for registration in DIALECTS {
        for kind in kinds(registration) {
            let (_, call) = one_call(registration, kind, 2);
            let shown = format!("{call:?} {:?}", call.targets);
            assert!(call.targets.iter().all(|t| !shown.contains(t.identifier.text())), "{shown}");
        }
    }
}
