//! A deletion that was asked for: its state, its results as JSON Lines, and its end before the time.

use adapters::Outcome;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::auth::Caller;
use super::deletions::{Preferences, answer_unfinished, attach, view};
use super::{Api, Problem, body, json, problem, render};
use crate::store::{DeletionId, Stored};

/// `GET /v1/deletions/{deletion}`
pub(super) async fn read(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let stored = find(&api, &caller, path).await?;
    Ok(json(StatusCode::OK, &view(&caller, &stored)))
}

/// `GET /v1/deletions/{deletion}/results`: JSON Lines, one result a line, in the order of the request.
pub(super) async fn results(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let wanted = outcomes(uri.query().unwrap_or_default())?;
    let stored = find(&api, &caller, path).await?;
    let mut lines = Vec::new();
    for index in 0..stored.results.len() {
        let outcome = stored.results[index].as_ref().map_or(Outcome::Pending, |settled| settled.outcome);
        if wanted.as_ref().is_none_or(|wanted| wanted.contains(&outcome)) {
            let line = render::ResultView::new(&stored, index, &caller.key.tenant);
            serde_json::to_writer(&mut lines, &line).map_err(|_| Problem::unsaid(&problem::INTERNAL))?;
            lines.push(b'\n');
        }
    }
    let mut response = lines.into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// `?outcome=failed,unknown`: which results are wanted; all, if `None`.
fn outcomes(query: &str) -> Result<Option<Vec<Outcome>>, Problem> {
    let mut wanted = None;
    // Outcomes are plain words; a comma is what some clients escape.
    let query = query.replace("%2C", ",").replace("%2c", ",");
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some(("outcome", names)) = parameter.split_once('=') else {
            return Err(Problem::invalid("?", "unknown_parameter", "expected `outcome`"));
        };
        let named = |name: &str| Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name);
        let known: Option<Vec<_>> = names.split(',').map(named).collect();
        let known = known.ok_or_else(|| {
            let all = Outcome::ALL.map(Outcome::as_str).join(", ");
            Problem::invalid("?outcome", "unknown_outcome", format!("expected some of {all}, with commas between them"))
        })?;
        wanted.get_or_insert_with(Vec::new).extend(known);
    }
    Ok(wanted)
}

/// `POST /v1/deletions/{deletion}/cancel`: what was not sent is skipped, what is in flight gets its true outcome.
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may_delete()?;
    if body::is_announced(&headers) {
        return Err(Problem::invalid("", "body_not_allowed", "this request takes no body"));
    }
    let id = find(&api, &caller, path).await?.id;
    let preferences = Preferences::read(&headers, api.limits.max_wait_s);
    api.engine.cancel(id);
    let carried = attach(&api, id, preferences.wait).await?;
    match &carried.finished {
        Some(stored) => Ok(json(StatusCode::OK, &view(&caller, stored))),
        None => Ok(answer_unfinished(&api, &caller, id, &preferences).await),
    }
}

/// The caller's deletion with this id. Others' do not exist.
async fn find(api: &Api, caller: &Caller, path: Result<Path<String>, PathRejection>) -> Result<Stored, Problem> {
    let absent = || Problem::new(&problem::NOT_FOUND);
    let id: DeletionId = path.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(absent)?;
    let stored = api.engine.read(id).await.map_err(|_| Problem::unsaid(&problem::STORE_UNAVAILABLE))?;
    stored.filter(|stored| may_see(caller, stored)).ok_or_else(absent)
}

/// A deletion is its tenant's, and only for keys that may use all its connections.
fn may_see(caller: &Caller, stored: &Stored) -> bool {
    stored.tenant == caller.key.tenant.id && stored.shares.iter().all(|name| caller.key.reaches(name))
}
