//! `GET /v1/connections` and `GET /v1/connections/{connection}`: what the caller may use. Never a credential or an address.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::auth::Caller;
use super::{Api, Problem, json, problem};
use crate::outbound::BreakerState;
use crate::tenants::Connection;

#[derive(Serialize)]
struct List {
    connections: Vec<View>,
}

#[derive(Serialize)]
struct View {
    name: String,
    dialect: &'static str,
    title: &'static str,
    default: bool,
    identifiers: Vec<IdentifierView>,
    max_contacts_per_call: usize,
    evidence: Vec<&'static str>,
    limits: LimitsView,
    health: HealthView,
}

#[derive(Serialize)]
struct IdentifierView {
    kind: &'static str,
    syntax: &'static str,
    replay_safe: bool,
}

#[derive(Serialize)]
struct LimitsView {
    rate: Option<RateView>,
    max_in_flight: usize,
    max_attempts: u32,
    response_ms: u64,
}

#[derive(Serialize)]
struct RateView {
    calls: u32,
    per_s: u32,
}

#[derive(Serialize)]
struct HealthView {
    breaker: &'static str,
}

/// `GET /v1/connections`
pub(super) async fn list(State(api): State<Api>, caller: Caller) -> Response {
    let own = caller.key.tenant.connections.values().filter(|connection| caller.key.reaches(&connection.name));
    json(StatusCode::OK, &List { connections: own.map(|connection| view(&api, &caller, connection)).collect() })
}

/// `GET /v1/connections/{connection}`
pub(super) async fn read(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Ok(Path(name)) = path else { return Err(Problem::new(&problem::NOT_FOUND)) };
    let connection = caller.connection(&name)?;
    Ok(json(StatusCode::OK, &view(&api, &caller, connection)))
}

fn view(api: &Api, caller: &Caller, connection: &Connection) -> View {
    let profile = connection.registration.profile;
    let identifiers = profile.identifiers.iter().map(|rule| IdentifierView {
        kind: rule.kind.as_str(),
        syntax: rule.syntax,
        replay_safe: rule.replay_safe,
    });
    let breaker = api.desk.opened(connection).map_or(BreakerState::Closed, |upstream| upstream.breaker_state());
    View {
        name: connection.name.to_string(),
        dialect: profile.id,
        title: profile.title,
        default: caller.key.tenant.default_connection.as_ref() == Some(&connection.name),
        identifiers: identifiers.collect(),
        max_contacts_per_call: connection.dialect.max_contacts_per_call(),
        evidence: profile.evidence.iter().map(|evidence| evidence.as_str()).collect(),
        limits: LimitsView {
            rate: connection.limits.rate.map(|rate| RateView { calls: rate.calls, per_s: rate.per_s }),
            max_in_flight: connection.limits.max_in_flight,
            max_attempts: connection.retry.max_attempts,
            response_ms: connection.timeouts.response_ms,
        },
        health: HealthView { breaker: breaker.as_str() },
    }
}
