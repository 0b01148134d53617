//! `POST /v1/deletions` and the shorthand: a deletion is asked for and waited for a while. How one is looked up is `lookup`'s.

use std::sync::Arc;
use std::time::Duration;

use adapters::{FaultCode, Outcome};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::sync::watch;

use super::auth::Caller;
use super::problem::OutcomeView;
use super::render::{self, DeletionView};
use super::request::{ContactRequest, DeletionRequest};
use super::submission::{self, Submission};
use super::{Api, Problem, body, idempotency, json, plan, problem, request};
use crate::engine::Settled;
use crate::engine::driver::Handle;
use crate::store::{Accepted, DeletionId, Stored};

/// RFC 7240.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long a caller should let pass before it looks at an unfinished deletion, in seconds.
const LOOK_AGAIN_S: u64 = 1;

/// `POST /v1/deletions`
pub(super) async fn create(State(api): State<Api>, caller: Caller, request: Request) -> Result<Response, Problem> {
    caller.may_delete()?;
    let (parts, content) = request.into_parts();
    if parts.uri.query().is_some() {
        return Err(Problem::invalid("?", "unknown_parameter", "this request has no query parameters"));
    }
    body::must_be_json(&parts.headers)?;
    let text = body::read(&parts.headers, content, api.limits.body).await?;
    let request = request::parse(&text)?;
    let asked = request.contacts.len();
    if asked > api.limits.max_contacts {
        let most = api.limits.max_contacts;
        return Err(
            Problem::new(&problem::TOO_MANY_CONTACTS).detail(format!("At most {most} in one body; this has {asked}."))
        );
    }
    let dry_run = request.dry_run;
    let mut submission = submission::prepare(&caller, request)?;
    if dry_run {
        return Ok(answer_dry_run(&caller, submission));
    }
    submission.accept.claim = idempotency::claim(&parts.headers, "/v1/deletions", &submission)?;
    let preferences = Preferences::read(&parts.headers, api.limits.max_wait_s);
    let carried = carry_out(&api, submission, preferences.wait).await?;
    let response = match &carried.finished {
        Some(stored) => answer(&caller, stored),
        None => answer_unfinished(&api, &caller, carried.id, &preferences).await,
    };
    Ok(carried.mark(response))
}

/// `DELETE /v1/connections/{connection}/contacts/{id}`
pub(super) async fn shorthand(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may_delete()?;
    if body::is_announced(&headers) {
        return Err(Problem::invalid("", "body_not_allowed", "this request takes no body"));
    }
    let Ok(Path((connection, id))) = path else {
        return Err(Problem::invalid("", "invalid_path", "the path is not UTF-8"));
    };
    let request = DeletionRequest {
        connection: Some(connection),
        contacts: vec![ContactRequest::bare(Arc::from(id))],
        dry_run: false,
        reason: None,
        reference: None,
    };
    let mut submission = submission::prepare(&caller, request)?;
    submission.accept.claim = idempotency::claim(&headers, "/v1/connections/contacts", &submission)?;
    let preferences = Preferences::read(&headers, api.limits.max_wait_s);
    let carried = carry_out(&api, submission, preferences.wait).await?;
    let response = match &carried.finished {
        Some(stored) => answer_one(&caller, stored).unwrap_or_else(IntoResponse::into_response),
        None => answer_unfinished(&api, &caller, carried.id, &preferences).await,
    };
    Ok(carried.mark(response))
}

/// What a caller prefers (RFC 7240, section 4): how long to wait for the answer.
pub(super) struct Preferences {
    pub(super) wait: Duration,
    applied: Option<HeaderValue>,
}

impl Preferences {
    pub(super) fn read(headers: &HeaderMap, max_wait_s: u64) -> Self {
        let longest = Self { wait: Duration::from_secs(max_wait_s), applied: None };
        let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            let token = preference.split(';').next().unwrap_or_default().trim();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            if name.trim().eq_ignore_ascii_case("respond-async") {
                return Self { wait: Duration::ZERO, applied: Some(HeaderValue::from_static("respond-async")) };
            }
            if name.trim().eq_ignore_ascii_case("wait")
                && let Ok(seconds) = value.trim().trim_matches('"').parse::<u64>()
            {
                let seconds = seconds.min(max_wait_s);
                let applied = HeaderValue::try_from(format!("wait={seconds}")).ok();
                return Self { wait: Duration::from_secs(seconds), applied };
            }
        }
        longest
    }
}

/// A deletion that was accepted, now or by an earlier request with the same key.
pub(super) struct Carried {
    id: DeletionId,
    /// With all its results, if it was finished in time.
    pub(super) finished: Option<Arc<Stored>>,
    replayed: bool,
}

impl Carried {
    fn mark(&self, mut response: Response) -> Response {
        if self.replayed {
            response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Hands a deletion to the engine and waits for it a while.
async fn carry_out(api: &Api, submission: Submission, wait: Duration) -> Result<Carried, Problem> {
    if api.stopping.is_cancelled() {
        return Err(Problem::new(&problem::STOPPING).retry_after(5));
    }
    if !api.engine.healthy() {
        return Err(Problem::new(&problem::STORE_UNAVAILABLE).retry_after(5));
    }
    if !api.engine.has_room(&submission.accept) {
        return Err(Problem::new(&problem::OVERLOADED).retry_after(5));
    }
    let Submission { accept, connections } = submission;
    let id = accept.id;
    let routes: Result<Vec<_>, String> = connections.iter().map(|connection| api.desk.route(connection)).collect();
    let routes = routes.map_err(|err| {
        tracing::error!(error = %err, "no client for an upstream can be made");
        Problem::new(&problem::INTERNAL)
    })?;
    // A tenant whose upstreams stall must leave places for requests to the others.
    let waiter = api.desk.waiters(&accept.tenant).try_acquire_owned();
    let wait = if waiter.is_ok() { wait } else { Duration::ZERO };
    let Handle { accepted, mut finished } = api.engine.submit(accept, routes);
    match accepted.await {
        Ok(Ok(Accepted::New)) => {}
        Ok(Ok(Accepted::Before(id))) => return attach(api, id, wait).await,
        Ok(Ok(Accepted::Other)) => return Err(Problem::new(&problem::KEY_REUSED)),
        // How far the store got is not known: a later start may find the deletion and carry it out.
        Ok(Err(_)) | Err(_) => {
            let detail = format!("It may have been accepted, as {id}.");
            return Err(Problem::unsaid(&problem::STORE_UNAVAILABLE).detail(detail));
        }
    }
    let finished = tokio::time::timeout(wait, done(&mut finished)).await.ok().flatten();
    Ok(Carried { id, finished, replayed: false })
}

/// Waits a while for a deletion that an earlier request began.
pub(super) async fn attach(api: &Api, id: DeletionId, wait: Duration) -> Result<Carried, Problem> {
    let unavailable = |_| Problem::unsaid(&problem::STORE_UNAVAILABLE).retry_after(5);
    let mut finished = match api.engine.follow(id) {
        Some(mut running) => tokio::time::timeout(wait, done(&mut running)).await.ok().flatten(),
        None => None,
    };
    if finished.is_none() {
        let stored = api.engine.read(id).await.map_err(unavailable)?;
        finished = stored.filter(|stored| stored.finished_ms.is_some()).map(Arc::new);
    }
    Ok(Carried { id, finished, replayed: true })
}

async fn done(finished: &mut watch::Receiver<Option<Arc<Stored>>>) -> Option<Arc<Stored>> {
    // An error means that the deletion stopped without an end; it is then not finished.
    finished.wait_for(Option::is_some).await.ok().and_then(|stored| stored.clone())
}

pub(super) fn view<'a>(caller: &'a Caller, stored: &'a Stored) -> DeletionView<'a> {
    DeletionView::new(stored, &caller.key.tenant)
}

fn answer(caller: &Caller, stored: &Stored) -> Response {
    let status = if render::all_absent(stored) { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    json(status, &view(caller, stored))
}

fn answer_dry_run(caller: &Caller, submission: Submission) -> Response {
    let (stored, calls) = plan::dry_run(submission);
    crate::telemetry::deletion(&stored.tenant, "dry_run");
    json(StatusCode::OK, &DeletionView::dry_run(&stored, &caller.key.tenant, calls))
}

pub(super) async fn answer_unfinished(
    api: &Api,
    caller: &Caller,
    id: DeletionId,
    preferences: &Preferences,
) -> Response {
    let stored = api.engine.read(id).await.ok().flatten();
    // It was accepted: without a view of it, its address alone is the answer.
    let mut response = match &stored {
        Some(stored) => json(StatusCode::ACCEPTED, &view(caller, stored)),
        None => json(StatusCode::ACCEPTED, &serde_json::json!({ "id": id.to_string(), "state": "running" })),
    };
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/deletions/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::RETRY_AFTER, HeaderValue::from(LOOK_AGAIN_S));
    if let Some(applied) = &preferences.applied {
        headers.insert(PREFERENCE_APPLIED, applied.clone());
    }
    response
}

/// The shorthand's answer: 200 where the contact is absent, else a problem with its outcome.
fn answer_one(caller: &Caller, stored: &Stored) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct One<'a> {
        deletion: String,
        #[serde(flatten)]
        result: render::ResultView<'a>,
    }
    let tenant = &caller.key.tenant;
    let Some(settled) = stored.results.first().and_then(Option::as_ref) else {
        return Err(Problem::unsaid(&problem::INTERNAL));
    };
    if settled.absent == Some(true) {
        let result = render::ResultView::new(stored, 0, tenant);
        return Ok(json(StatusCode::OK, &One { deletion: stored.id.to_string(), result }));
    }
    let kind = match settled.outcome {
        Outcome::Rejected => &problem::CONTACT_REJECTED,
        Outcome::Failed => &problem::CONTACT_FAILED,
        Outcome::Skipped => &problem::CONTACT_SKIPPED,
        _ => &problem::CONTACT_UNKNOWN,
    };
    let profile = stored.shares.first().and_then(|name| render::profile(tenant, name));
    let outcome = OutcomeView {
        deletion: stored.id.to_string(),
        outcome: settled.outcome.as_str(),
        absent: settled.absent,
        error: render::error(settled, profile),
        retry: settled.retry.map(crate::engine::Retry::as_str),
        retry_after_s: render::retry_after_s(settled),
    };
    let problem = Problem::of_outcome(kind, settled.sent, outcome);
    Err(match wait_s(settled) {
        Some(seconds) => problem.retry_after(seconds),
        None => problem,
    })
}

fn wait_s(settled: &Settled) -> Option<u64> {
    let open = settled.reason.as_ref().is_some_and(|reason| reason.code == FaultCode::CircuitOpen);
    render::retry_after_s(settled).or(open.then_some(LOOK_AGAIN_S * 30))
}
