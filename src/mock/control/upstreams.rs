//! The routes of one upstream: its contacts, faults, what it holds, latency and limit; and the list of all.
//!
//! What they change is gone after a reset.

use adapters::Identifier;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Mocked, Problem, answer, body_of, read};
use crate::mock::Mock;
use crate::mock::contact::{self, Contact, Written};
use crate::mock::fault::Fault;
use crate::mock::json::Seeded;
use crate::mock::limits::Limits;
use crate::mock::rule::{Rule, RuleId};

pub(super) async fn list(State(mocks): Mocked) -> Response {
    let all: Vec<_> = mocks.iter().map(|(name, mock)| describe(name, mock)).collect();
    answer(StatusCode::OK, &all)
}

fn describe(name: &str, mock: &Mock) -> Value {
    let connection = mock.connection_toml();
    let state = mock.upstream.state();
    let latency = state.latency.as_ref().map(|sampler| Seeded { latency: sampler.latency, seed: sampler.seed });
    let limit = state.window.limit.map(|limit| json!({ "requests": limit.requests, "window_s": limit.window_s }));
    json!({
        "name": name,
        "dialect": mock.registration().profile.id,
        "base_url": mock.base_url(),
        "connection": connection,
        "connection_toml": toml::to_string(&connection).unwrap_or_default(),
        "latency": latency,
        "limits": limit,
        "held": state.held.len(),
        "most_at_once": state.most_at_once,
    })
}

pub(super) async fn contacts(State(mocks): Mocked, Path(name): Path<String>) -> Answer {
    let contacts = mocks.find(&name)?.contacts();
    let written = |(identifier, held): &(_, bool)| {
        serde_json::to_value(Written { upstream: None, identifier, held: Some(*held) }).unwrap_or_default()
    };
    Ok(answer(StatusCode::OK, &contacts.iter().map(written).collect::<Vec<_>>()))
}

pub(super) async fn seed(
    State(mocks): Mocked,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let mock = mocks.find(&name)?;
    let contacts: Vec<Contact> = read(&body_of(body)?)?;
    for (n, contact) in contacts.iter().enumerate() {
        if contact.upstream.as_ref().is_some_and(|upstream| *upstream != name) {
            return Err(Problem::bad(format!("/{n}/upstream"), "It is another upstream than that of the path."));
        }
        admit(mock, &contact.identifier, &format!("/{n}"))?;
    }
    contacts.iter().for_each(|contact| mock.seed(&contact.identifier, contact.held));
    Ok(answer(StatusCode::OK, &json!({ "seeded": contacts.len() })))
}

pub(super) async fn forget_all(State(mocks): Mocked, Path(name): Path<String>) -> Answer {
    let mock = mocks.find(&name)?;
    let mut state = mock.upstream.state();
    let contacts = state.double.contacts();
    contacts.iter().for_each(|(identifier, _)| state.double.forget(identifier));
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn rules(State(mocks): Mocked, Path(name): Path<String>) -> Answer {
    Ok(answer(StatusCode::OK, &mocks.find(&name)?.rules()))
}

pub(super) async fn add_rule(
    State(mocks): Mocked,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let mock = mocks.find(&name)?;
    let rule: Rule = read(&body_of(body)?)?;
    if let Some(contact) = &rule.when.contact {
        admit(mock, contact, "/when/contact")?;
    }
    admit_fault(mock, &rule.fault, "")?;
    let id = mock.rule(rule);
    let standing = mock.rules().into_iter().find(|standing| standing.id == id);
    Ok(answer(StatusCode::CREATED, &standing))
}

pub(super) async fn clear_faults(State(mocks): Mocked, Path(name): Path<String>) -> Answer {
    mocks.find(&name)?.clear_faults();
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn drop_rule(State(mocks): Mocked, Path((name, id)): Path<(String, String)>) -> Answer {
    let mock = mocks.find(&name)?;
    if id.parse().is_ok_and(|id| mock.drop_rule(RuleId(id))) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let known = mock.rules().iter().map(|standing| standing.id.0.to_string()).collect();
    Err(Problem::unknown("There is no rule with this number.", known))
}

pub(super) async fn release(
    State(mocks): Mocked,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        n: Option<usize>,
    }
    let mock = mocks.find(&name)?;
    let body = body_of(body)?;
    let asked = if body.is_empty() { Asked::default() } else { read(&body)? };
    Ok(answer(StatusCode::OK, &json!({ "released": mock.release(asked.n.unwrap_or(usize::MAX)) })))
}

pub(super) async fn set_latency(
    State(mocks): Mocked,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let mock = mocks.find(&name)?;
    let seeded: Seeded = read(&body_of(body)?)?;
    mock.latency(Some(seeded.latency), seeded.seed);
    Ok(answer(StatusCode::OK, &seeded))
}

pub(super) async fn drop_latency(State(mocks): Mocked, Path(name): Path<String>) -> Answer {
    mocks.find(&name)?.latency(None, 0);
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn set_limits(
    State(mocks): Mocked,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let mock = mocks.find(&name)?;
    let limits: Limits = read(&body_of(body)?)?;
    let limit = mock.limit(Some(limits));
    let (requests, window_s) = (limit.map(|limit| limit.requests), limit.map(|limit| limit.window_s));
    Ok(answer(StatusCode::OK, &json!({ "requests": requests, "window_s": window_s })))
}

pub(super) async fn drop_limits(State(mocks): Mocked, Path(name): Path<String>) -> Answer {
    mocks.find(&name)?.limit(None);
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn admit(mock: &Mock, identifier: &Identifier, at: &str) -> Result<(), Problem> {
    contact::admit(mock.registration().profile, identifier).map_err(|why| Problem::bad(at, why))
}

/// Whether the upstream's dialect takes the contacts that a fault names.
pub(super) fn admit_fault(mock: &Mock, fault: &Fault, at: &str) -> Result<(), Problem> {
    let Fault::Partial(failing) = fault else { return Ok(()) };
    failing.iter().enumerate().try_for_each(|(n, identifier)| admit(mock, identifier, &format!("{at}/failing/{n}")))
}
