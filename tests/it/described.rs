//! Whether an answer of the gateway is as `openapi.json` describes it: status, media type, headers and body.
//!
//! Every answer that a test reads by way of `support` is judged here, so the description is held against all that the
//! tests provoke. Answers of other listeners, which have no request id, are passed over.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use http::HeaderMap;
use jsonschema::Validator;
use onedelete::api;
use serde_json::{Value, json};

/// An answer, and what it answers.
pub(crate) struct Seen<'a> {
    pub(crate) method: &'a str,
    /// Path and query as they were sent.
    pub(crate) target: &'a str,
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    /// Not given where it was not read, or not to its end.
    pub(crate) body: Option<&'a str>,
}

/// The longest body that is looked into, in bytes: thousands of results are like hundreds, and looking takes time that some
/// tests do not have.
const LONGEST: usize = 64 << 10;

/// Headers that must be described wherever they stand.
const HEADERS: &[&str] = &[
    "allow",
    "content-security-policy",
    "idempotency-replayed",
    "location",
    "preference-applied",
    "retry-after",
    "www-authenticate",
    "x-request-id",
];

/// The description.
pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(api::OPENAPI).unwrap());

/// Fails unless the answer is as it is described.
pub(crate) fn check(seen: &Seen<'_>) {
    if seen.headers.contains_key("x-request-id") {
        let faults = faults(seen);
        assert!(faults.is_empty(), "{} {} {}: {faults:#?}\n{:?}", seen.method, seen.target, seen.status, seen.body);
    }
}

/// What is not as it is described.
pub(crate) fn faults(seen: &Seen<'_>) -> Vec<String> {
    let Some(response) = response(seen) else {
        return vec![format!("the status {} is not described here", seen.status)];
    };
    let mut faults = Vec::new();
    for (name, value) in seen.headers.iter().filter(|(name, _)| HEADERS.contains(&name.as_str())) {
        let described = members(&response["headers"]).find(|(known, _)| known.eq_ignore_ascii_case(name.as_str()));
        let Some((_, header)) = described else {
            faults.push(format!("the header {name} is not described here"));
            continue;
        };
        let text = value.to_str().unwrap_or_default();
        let schema = &resolve(header)["schema"];
        let value = match schema["type"].as_str() {
            Some("integer") => text.parse::<u64>().map_or(Value::Null, Value::from),
            _ => Value::from(text),
        };
        faults.extend(misfits(schema, &value).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    let media = seen.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default();
    let body = seen.body.filter(|body| body.len() <= LONGEST);
    match (members(&response["content"]).find(|(known, _)| *known == media), body) {
        (Some((_, content)), Some(body)) => match parse(media, body) {
            // The schema of a stream of events is that of each of them.
            Some(Value::Array(events)) if media == "text/event-stream" => {
                faults.extend(events.iter().flat_map(|event| misfits(&content["schema"], event)));
                let inner = &resolve(&content["schema"])["properties"]["data"]["contentSchema"];
                let data = events.iter().map(|event| event["data"].as_str().unwrap_or_default());
                let data = data.map(|text| serde_json::from_str(text).unwrap_or_default());
                faults.extend(data.flat_map(|data| misfits(inner, &data)));
            }
            Some(value) => faults.extend(misfits(&content["schema"], &value)),
            None => faults.push(format!("the body is no {media}")),
        },
        (Some(_), None) => {}
        // An answer without a body has no media type.
        (None, _) if media.is_empty() && response.get("content").is_none() => {}
        (None, _) => faults.push(format!("the media type {media:?} is not described here")),
    }
    faults
}

/// A body as the value that its schema is about: JSON Lines and events are lists.
pub(crate) fn parse(media: &str, body: &str) -> Option<Value> {
    match media {
        "application/json" | "application/problem+json" => serde_json::from_str(body).ok(),
        "application/x-ndjson" => {
            body.lines().map(|line| serde_json::from_str(line).ok()).collect::<Option<Vec<Value>>>().map(Value::from)
        }
        "text/event-stream" => {
            let events = body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
            events.map(event).collect::<Option<Vec<_>>>().map(Value::from)
        }
        _ => Some(Value::from(body)),
    }
}

fn event(text: &str) -> Option<Value> {
    let mut event = json!({});
    for line in text.lines() {
        let (name, value) = line.split_once(": ")?;
        event[name] = match name {
            "retry" => value.parse::<u64>().ok()?.into(),
            _ => value.into(),
        };
    }
    Some(event)
}

/// The response that the description has for it.
fn response(seen: &Seen<'_>) -> Option<&'static Value> {
    let path = seen.target.split('?').next().unwrap_or_default();
    let by_name = |name: &str| Some(&DOCUMENT["components"]["responses"][name]);
    let method = if seen.method == "HEAD" { "get".to_owned() } else { seen.method.to_lowercase() };
    let item = template(path).map(|template| &DOCUMENT["paths"][template]);
    match (item.and_then(|item| item.get(&method)), seen.status) {
        (Some(operation), status) => operation["responses"].get(status.to_string()).map(resolve),
        // What holds for every path and method.
        (None, 404) if item.is_none() => by_name("NotFound"),
        (None, 405) if item.is_some() => by_name("MethodNotAllowed"),
        (None, 400) => by_name("BadRequest"),
        (None, 431) => by_name("HeadersTooLarge"),
        (None, 503) => by_name("Unavailable"),
        _ => None,
    }
}

/// The template that a path fits; one without parameters comes first.
fn template(path: &str) -> Option<&'static str> {
    let fits = |template: &str| {
        let (mut own, mut asked) = (template.split('/'), path.split('/'));
        loop {
            match (own.next(), asked.next()) {
                (None, None) => return true,
                (Some(own), Some(asked)) if own == asked || (own.starts_with('{') && !asked.is_empty()) => {}
                _ => return false,
            }
        }
    };
    let templates = members(&DOCUMENT["paths"]).map(|(template, _)| template);
    templates.filter(|template| fits(template)).min_by_key(|template| template.matches('{').count())
}

/// Why a value does not fit a schema of the description.
pub(crate) fn misfits(schema: &Value, value: &Value) -> Vec<String> {
    static MADE: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let validator = made.entry(schema.to_string()).or_insert_with(|| {
        let mut whole = schema.clone();
        whole["components"] = DOCUMENT["components"].clone();
        let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).should_validate_formats(true);
        Arc::new(validator.build(&whole).unwrap_or_else(|err| panic!("{schema}: {err}")))
    });
    let validator = Arc::clone(validator);
    drop(made);
    let faults = validator.iter_errors(value);
    faults.map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

/// What `$ref` leads to, or the value itself.
pub(crate) fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => DOCUMENT.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to} leads nowhere")),
        None => value,
    }
}

pub(crate) fn members(value: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}
