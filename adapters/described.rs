//! What every dialect's `openapi.json` must hold for: its own examples, the fixtures, the planned requests, and every reply
//! of the double to requests good and bad.
//!
//! A request that the file does not describe is not judged here, but for those that the dialect itself sends. Whether the
//! vendor is as described, nobody can tell without the vendor.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response};
use serde_json::{Map, Value, json};

use crate::DIALECTS;
use crate::conformance::{
    example, example_settings, fixtures, kinds, some_identifiers, targets, with_credential, with_settings,
};
use crate::contract::{Call, Finding, Identifier, Outcome};
use crate::dialect::{Account, Double, Grant, Registration};
use crate::exchange::{Exchange, Source, WireRequest};
use crate::openapi::OpenApi;

const NOW_S: u64 = 1_000;
/// More wrong passwords than any upstream takes in a row.
const TRIES: usize = 8;

#[test]
fn the_files_are_well_formed_and_their_examples_fit() {
    for registration in DIALECTS {
        let file = OpenApi::of(registration.profile.id);
        assert_eq!(file.flaws(), Vec::<String>::new(), "{}", registration.profile.id);
        assert_eq!(file.document["externalDocs"]["url"], registration.profile.docs[0]);
        // With its defaults a server is the example's base URL.
        let server = &file.document["servers"][0];
        let mut url = server["url"].as_str().unwrap().to_owned();
        for (name, variable) in server["variables"].as_object().into_iter().flatten() {
            url = url.replace(&format!("{{{name}}}"), variable["default"].as_str().unwrap());
        }
        assert_eq!(example_settings(registration)["base_url"], url, "{}", registration.profile.id);
    }
}

#[test]
fn an_example_of_a_reply_is_read_as_its_name_says() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let file = OpenApi::of(id);
        let mut outcomes = BTreeSet::new();
        for (path, _, operation) in file.operations().into_iter().filter(|(_, method, _)| *method == "delete") {
            let call = example_call(registration, operation);
            for (status, reply) in operation["responses"].as_object().unwrap() {
                for (kind, media) in reply["content"].as_object().into_iter().flatten() {
                    for (name, shown) in media["examples"].as_object().unwrap() {
                        let text = match &shown["value"] {
                            Value::String(text) if !kind.ends_with("json") => text.clone(),
                            value => value.to_string(),
                        };
                        let reply = Response::builder().status(status.as_str()).header(CONTENT_TYPE, kind);
                        let reply = reply.body(Bytes::from(text)).unwrap();
                        let findings = example(registration).interpret(&call, &reply).findings(&call);
                        let said: Vec<_> = findings.iter().map(|finding| outcome(finding).as_str()).collect();
                        // `deleted_then_failed` names the first contact's outcome and the second's.
                        let named = Outcome::ALL.iter().map(|outcome| outcome.as_str()).filter(|o| name.starts_with(o));
                        let named = named.max_by_key(|outcome| outcome.len());
                        assert_eq!(said.first().copied(), named, "{id} {path} {status} {name}");
                        let second =
                            name.split_once("_then_").map(|(_, second)| second).or(named.filter(|n| n == name));
                        if let (Some(second), [_, after, ..]) = (second, &*said) {
                            let mixed = second == "failed" && name == "failed";
                            assert!(*after == second || mixed, "{id} {path} {status} {name}: {said:?}");
                        }
                        outcomes.insert(said[0]);
                    }
                }
            }
        }
        assert!(outcomes.contains("deleted") && outcomes.contains("failed"), "{id}: {outcomes:?}");
    }
}

#[test]
fn every_fixture_is_as_described() {
    for registration in DIALECTS {
        let file = OpenApi::of(registration.profile.id);
        let mut judged = 0;
        for exchange in fixtures(registration) {
            let name = format!("{} {}", registration.profile.id, exchange.name);
            let Some(request) = exchange.request.as_ref().map(wire_request) else { continue };
            let operation = file.operation(&request).unwrap_or_else(|| panic!("{name}: the request is not described"));
            assert_eq!(operation.request_faults(&request, true), Vec::<String>::new(), "{name}");
            if exchange.source == Source::Adversarial {
                continue;
            }
            let reply = exchange.response.as_ref().unwrap().to_http().unwrap();
            assert_eq!(operation.reply_faults(&reply), Vec::<String>::new(), "{name}");
            judged += 1;
        }
        assert!(judged >= 5, "{}: {judged}", registration.profile.id);
    }
}

#[test]
fn every_request_that_a_dialect_makes_is_as_described() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let file = OpenApi::of(id);
        let mut variants = vec![Map::new()];
        variants.extend(fixtures(registration).into_iter().map(|e| e.settings).filter(|changes| !changes.is_empty()));
        for changes in &variants {
            let dialect = with_settings(registration, changes);
            for kind in kinds(registration) {
                for call in dialect.plan(targets(some_identifiers(registration, kind, 250))).calls {
                    let request = with_credential(registration, &mut *(registration.double)(), &call);
                    let operation = file.operation(&request).unwrap_or_else(|| panic!("{id}: not described"));
                    assert_eq!(operation.request_faults(&request, true), Vec::<String>::new(), "{id} {kind:?}");
                }
            }
        }
        for request in sign_ins(registration) {
            let operation = file.operation(&request).unwrap_or_else(|| panic!("{id}: the sign-in is not described"));
            assert_eq!(operation.request_faults(&request, true), Vec::<String>::new(), "{id}");
        }
    }
}

#[test]
fn every_reply_of_a_double_is_as_described() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let file = OpenApi::of(id);
        // Operation and status of every reply that was judged.
        let mut seen: BTreeSet<(String, u16)> = BTreeSet::new();
        drive(registration, &file, &mut |request, reply| {
            let Some(operation) = file.operation(request) else { return };
            let faults = operation.reply_faults(reply);
            let body = String::from_utf8_lossy(reply.body());
            assert_eq!(faults, Vec::<String>::new(), "{id} {}: {body}", operation.id);
            seen.insert((operation.id.to_owned(), reply.status().as_u16()));
        });
        for (path, method, operation) in file.operations() {
            let name = operation["operationId"].as_str().unwrap();
            let statuses: Vec<_> = seen.iter().filter(|(id, _)| id == name).map(|(_, status)| *status).collect();
            let unused = operation.get("x-unused").is_some();
            assert_eq!(statuses.is_empty(), unused, "{id} {method} {path}: {statuses:?}");
            assert!(unused || statuses.iter().any(|status| (200..300).contains(status)), "{id} {name}: {statuses:?}");
            assert!(unused || statuses.iter().any(|status| *status >= 400), "{id} {name}: {statuses:?}");
            assert!(method != "delete" || statuses.contains(&401), "{id} {name}: {statuses:?}");
        }
    }
}

#[test]
fn a_reply_that_differs_in_one_member_is_noticed() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let file = OpenApi::of(id);
        let mut noticed = 0;
        drive(registration, &file, &mut |request, reply| {
            let Some(operation) = file.operation(request) else { return };
            let Ok(Value::Object(members)) = serde_json::from_slice(reply.body()) else { return };
            for name in members.keys() {
                let mut renamed = members.clone();
                let member = renamed.remove(name).unwrap();
                renamed.insert(format!("{name}s"), member);
                let renamed = changed(reply, &renamed.into());
                assert_ne!(operation.reply_faults(&renamed), Vec::<String>::new(), "{id}: {name} has another name");
                let mut other = members.clone();
                other[name] = json!([[7]]);
                let other = changed(reply, &other.into());
                assert_ne!(operation.reply_faults(&other), Vec::<String>::new(), "{id}: {name} has another type");
                noticed += 1;
            }
            let mut status = reply.clone();
            *status.status_mut() = http::StatusCode::IM_A_TEAPOT;
            assert_ne!(operation.reply_faults(&status), Vec::<String>::new(), "{id}: another status");
            let mut kind = reply.clone();
            kind.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("image/png"));
            assert_ne!(operation.reply_faults(&kind), Vec::<String>::new(), "{id}: another content type");
        });
        assert!(noticed > 0, "{id}");
    }
}

#[test]
fn a_file_that_is_not_well_formed_is_noticed() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let spoilt = |spoil: &dyn Fn(&mut Value)| {
            let mut file = OpenApi::of(id);
            spoil(&mut file.document);
            file.flaws()
        };
        let operation = |document: &Value| -> String {
            let (path, item) = document["paths"].as_object().unwrap().iter().next().unwrap();
            let method = item.as_object().unwrap().keys().find(|key| !key.starts_with("x-")).unwrap();
            format!("/paths/{}/{method}", path.replace('~', "~0").replace('/', "~1"))
        };
        let with = |add: &'static str, value: Value| {
            move |document: &mut Value| {
                let at = operation(document);
                document.pointer_mut(&at).unwrap()[add] = value.clone();
            }
        };
        assert_eq!(spoilt(&|_| {}), Vec::<String>::new());
        for spoil in [
            &(|document: &mut Value| document["openapi"] = "3.0.3".into()) as &dyn Fn(&mut Value),
            &|document| drop(document.as_object_mut().unwrap().remove("servers")),
            &|document| document["components"]["securitySchemes"] = json!({}),
            &|document| document["components"]["schemas"]["Spare"] = json!({ "$ref": "#/components/schemas/Nothing" }),
            &with("x-assumed", json!("")),
            &with("x-assumed", json!(true)),
            &with("x-other", json!("two words")),
            &with("responses", json!({ "default": { "description": "Whatever comes." } })),
            &with("responses", json!({ "404": { "description": "No success." } })),
            &with("responses", json!({ "200": {} })),
            &with(
                "parameters",
                json!([{ "name": "nowhere", "in": "path", "required": true, "schema": {}, "example": 1 }]),
            ),
            &with(
                "parameters",
                json!([{ "name": "n", "in": "query", "schema": { "type": "integer" }, "example": "x" }]),
            ),
            &with(
                "requestBody",
                json!({ "content": { "application/json": { "schema": { "type": "array" }, "examples": { "one": { "value": {} } } } } }),
            ),
        ] {
            assert_ne!(spoilt(spoil), Vec::<String>::new(), "{id}");
        }
        let twice = |document: &mut Value| {
            let one = document.pointer(&operation(document)).unwrap().clone();
            document["paths"]["/another"] = json!({ "delete": one });
        };
        assert!(spoilt(&twice).iter().any(|flaw| flaw.contains("operationId")), "{id}");
    }
}

/// Sends requests of every kind to doubles of a dialect, and shows each with its reply.
fn drive(registration: &Registration, file: &OpenApi, judge: &mut dyn FnMut(&Request<Bytes>, &Response<Bytes>)) {
    for kind in kinds(registration) {
        let everyone = some_identifiers(registration, kind, 3);
        // Together, as far as the dialect does that, and each by itself.
        for group in [&everyone[..], &everyone[..1], &everyone[1..2], &everyone[2..]] {
            for call in example(registration).plan(targets(group.iter().cloned())).calls {
                let mut double = (registration.double)();
                seed(&mut *double, &everyone);
                let good = with_credential(registration, &mut *double, &call);
                for request in spoilt_calls(registration, file, &call, &good) {
                    let reply = double.answer(&request, NOW_S).response;
                    judge(&request, &reply);
                    seed(&mut *double, &everyone);
                }
                // The second time nobody is there but who is held.
                for _ in 0..2 {
                    judge(&good, &double.answer(&good, NOW_S).response);
                }
                // A credential does not hold for ever.
                judge(&good, &double.answer(&good, NOW_S + 1_000_000_000).response);
                judge(&good, &double.throttled(7));
            }
        }
    }
    for good in sign_ins(registration).into_iter().chain(example_sign_ins(file)) {
        for request in spoilt_sign_ins(&good) {
            // Until it is locked out, and after that.
            let mut double = (registration.double)();
            for try_n in 0..TRIES {
                judge(&request, &double.answer(&request, NOW_S + try_n as u64).response);
            }
            judge(&good, &double.answer(&good, NOW_S + TRIES as u64).response);
            judge(&good, &double.answer(&good, NOW_S + 1_000_000_000).response);
        }
    }
}

/// One that can be deleted, one that is held, and one that is not there.
fn seed(double: &mut dyn Double, everyone: &[Identifier]) {
    double.seed(&everyone[0], false);
    double.seed(&everyone[1], true);
}

/// A call without its credential or with another one, without each of its headers or with another value there, with
/// other bodies, and under other paths of the same form.
fn spoilt_calls(
    registration: &Registration,
    file: &OpenApi,
    call: &Call,
    good: &Request<Bytes>,
) -> Vec<Request<Bytes>> {
    let auth = &registration.profile.auth;
    let mut requests = vec![call.request.clone()];
    let with = |name: &HeaderName, value: &str| {
        let mut request = good.clone();
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let header = HeaderName::from_static(auth.header);
    requests.extend([format!("{}wrong", auth.prefix), "wrong".to_owned()].map(|value| with(&header, &value)));
    for name in good.headers().keys().filter(|name| **name != header) {
        let mut without = good.clone();
        without.headers_mut().remove(name);
        requests.extend([without, with(name, "other")]);
    }
    requests.extend(other_bodies(good));
    let operation = file.operation(good).expect("the call is described");
    for (_, _, n) in &operation.places {
        for other in ["0", "x", "2147483648", "99999999999999999999", "00000000-0000-4000-8000-000000000000"] {
            let mut segments: Vec<_> = good.uri().path().split('/').collect();
            segments[n + 1] = other;
            let mut request = good.clone();
            *request.uri_mut() = segments.join("/").parse().unwrap();
            requests.push(request);
        }
    }
    requests
}

fn other_bodies(good: &Request<Bytes>) -> Vec<Request<Bytes>> {
    let mut bodies: Vec<_> =
        ["", "{", "[]", "{}", "null", "[{}]", "[null]", "7", "<r/>", "a=b"].map(str::to_owned).into();
    if let Ok(whole) = serde_json::from_slice::<Value>(good.body()) {
        // Every member, wherever it is, with another value.
        for value in [json!([]), json!("wrong"), json!(7), json!(null), json!(["wrong"]), json!([7])] {
            let members = whole.as_object().into_iter().flat_map(Map::keys);
            bodies.extend(members.map(|name| {
                let mut other = whole.clone();
                other[name] = value.clone();
                other.to_string()
            }));
            let items = whole.as_array().and_then(|items| items.first()?.as_object()).into_iter().flat_map(Map::keys);
            bodies.extend(items.map(|name| {
                let mut other = whole.clone();
                other[0][name] = value.clone();
                other.to_string()
            }));
        }
    }
    let with = |body: String| {
        let mut request = good.clone();
        *request.body_mut() = body.into();
        request
    };
    bodies.into_iter().map(with).collect()
}

/// The requests that the dialect makes for a token: with the example's account where it has one, else with a wrong one.
fn sign_ins(registration: &Registration) -> Vec<Request<Bytes>> {
    let dialect = example(registration);
    let Some(sign_in) = dialect.sign_in() else { return Vec::new() };
    let credentials = example_settings(registration)["credentials"].clone();
    let forms = registration.profile.auth.forms.iter().filter(|form| matches!(form.grant, Grant::SignIn));
    let request = |form: &crate::CredentialForm| {
        let text = |name: &str| credentials.get(name).and_then(Value::as_str).unwrap_or("wrong");
        let members = form.members.iter().map(|member| (member.name, text(member.name)));
        let members: Vec<_> = members.map(|(name, text)| (name, text.trim_start_matches("plain:"))).collect();
        sign_in.request(&Account(&members)).unwrap()
    };
    forms.map(request).collect()
}

/// The requests for a token that the file shows, where it takes nothing else to make them.
fn example_sign_ins(file: &OpenApi) -> Vec<Request<Bytes>> {
    let mut requests = Vec::new();
    for (path, method, operation) in file.operations() {
        if operation["security"] != json!([]) || operation.get("x-unused").is_some() {
            continue;
        }
        let server = file.document["servers"][0]["url"].as_str().unwrap().split('/').skip(3);
        let variable = |name: &str| {
            let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}'))?;
            file.document["servers"][0]["variables"][name]["default"].as_str()
        };
        let base: String = server.map(|name| format!("/{}", variable(name).unwrap_or(name))).collect();
        let query =
            operation["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "query");
        let query = query.map(|p| format!("{}={}", p["name"].as_str().unwrap(), p["example"].as_str().unwrap()));
        let query = query.collect::<Vec<_>>().join("&");
        let request = || {
            let uri = if query.is_empty() { format!("{base}{path}") } else { format!("{base}{path}?{query}") };
            Request::builder().method(&*method.to_ascii_uppercase()).uri(uri)
        };
        let Some(content) = operation["requestBody"]["content"].as_object() else {
            requests.push(request().body(Bytes::new()).unwrap());
            continue;
        };
        for (kind, media) in content {
            for (_, example) in media["examples"].as_object().unwrap() {
                let body = Bytes::from(example["value"].to_string());
                requests.push(request().header(CONTENT_TYPE, kind).body(body).unwrap());
            }
        }
    }
    requests
}

fn spoilt_sign_ins(good: &Request<Bytes>) -> Vec<Request<Bytes>> {
    let mut requests = vec![good.clone()];
    requests.extend(other_bodies(good));
    for (name, other) in
        [(AUTHORIZATION, "Basic d3Jvbmc6d3Jvbmc="), (AUTHORIZATION, "wrong"), (CONTENT_TYPE, "text/plain")]
    {
        let (mut without, mut with) = (good.clone(), good.clone());
        without.headers_mut().remove(&name);
        with.headers_mut().insert(name, HeaderValue::from_static(other));
        requests.extend([without, with]);
    }
    if let Some(query) = good.uri().query() {
        for pair in query.split('&') {
            let name = pair.split('=').next().unwrap();
            for other in ["", &format!("{name}=wrong")] {
                let mut request = good.clone();
                *request.uri_mut() = good.uri().to_string().replace(pair, other).parse().unwrap();
                requests.push(request);
            }
        }
    }
    if good.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded") {
        let form = std::str::from_utf8(good.body()).unwrap();
        for pair in form.split('&') {
            let mut request = good.clone();
            *request.body_mut() = form.replace(pair, &format!("{}=wrong", pair.split('=').next().unwrap())).into();
            requests.push(request);
        }
    }
    requests
}

/// The call that an example of an operation's request shows. A fixture tells which contacts it names.
fn example_call(registration: &Registration, operation: &Value) -> Call {
    let content = operation["requestBody"]["content"].as_object().into_iter().flatten();
    let examples = content.flat_map(|(_, media)| media["examples"].as_object().into_iter().flatten());
    let bodies: Vec<_> = examples.map(|(_, example)| example["value"].to_string()).collect();
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let places: Vec<_> = parameters.filter(|p| p["in"] == "path").map(|p| p["example"].clone()).collect();
    let shown = |call: &Call| {
        let segments: Vec<_> = call.request.uri().path().split('/').collect();
        let text = |place: &Value| place.as_str().map_or_else(|| place.to_string(), str::to_owned);
        let body: Value = serde_json::from_slice(call.request.body()).unwrap_or_default();
        (bodies.contains(&body.to_string()) || bodies.is_empty() && body.is_null())
            && places.iter().all(|place| segments.contains(&text(place).as_str()))
    };
    let deleted = |exchange: &Exchange| exchange.outcomes.iter().all(|expected| expected.outcome == Outcome::Deleted);
    let dialect = example(registration);
    let plans =
        fixtures(registration).into_iter().filter(deleted).map(|exchange| dialect.plan(exchange.targets()).calls);
    let mut calls = plans.filter(|calls| calls.len() == 1).flatten();
    calls.find(shown).unwrap_or_else(|| panic!("{}: no fixture is the example", registration.profile.id))
}

fn outcome(finding: &Finding) -> Outcome {
    match finding {
        Finding::Deleted(_) => Outcome::Deleted,
        Finding::NotFound(_) => Outcome::NotFound,
        Finding::Fault(fault) => fault.code.outcome(),
    }
}

fn wire_request(wire: &WireRequest) -> Request<Bytes> {
    let mut request = Request::builder().method(&*wire.method).uri(&wire.path);
    for (name, value) in &wire.headers {
        request = request.header(name, value);
    }
    let body = match &wire.body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        json => json.to_string(),
    };
    request.body(body.into()).unwrap()
}

fn changed(reply: &Response<Bytes>, body: &Value) -> Response<Bytes> {
    let mut changed = reply.clone();
    *changed.body_mut() = body.to_string().into();
    changed
}
