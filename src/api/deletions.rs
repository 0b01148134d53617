//! `POST /v1/deletions` and the shorthand: a deletion is asked for and waited for a while. How one is looked up is `lookup`'s.
//! Above 500 lines because both routes take, check, wait and answer alike.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use adapters::{FaultCode, Outcome};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::auth::Caller;
use super::body::{Lines, Media};
use super::idempotency::RequestKey;
use super::problem::{Kind, OutcomeView};
use super::render::{self, DeletionView, WholeView};
use super::request::{ContactRequest, Contacts, DeletionRequest};
use super::submission::{Intake, Options, Submission};
use super::{Api, Problem, body, json, large, lookup, plan, problem, request, results};
use crate::desk::NoWay;
use crate::engine::driver::{Draft, Handle, Whole};
use crate::store::{Accepted, Claim, DeletionId, Part, Summary};
use crate::{clock, telemetry};

/// RFC 7240.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The route, as the scope of idempotency keys.
const ROUTE: &str = "/v1/deletions";
const SHORTHAND: &str = "/v1/connections/contacts";

/// How long a caller should let pass before it looks at an unfinished deletion, in seconds.
const LOOK_AGAIN_S: u64 = 1;
/// And before it asks again what could not be taken.
pub(super) const ASK_AGAIN_S: u64 = 5;

/// `POST /v1/deletions`
pub(super) async fn create(api: &Api, caller: Caller, parts: &Parts, content: Body) -> Result<Response, Problem> {
    caller.may_delete()?;
    match body::media(&parts.headers)? {
        Media::Json => create_from_json(api, &caller, parts, content).await,
        Media::Lines => {
            // In a box, as all that is large and rare: each request carries the room for it.
            let answering = async {
                let mut lines = Lines::new(content, api.limits.now().body);
                let answer = create_from_lines(api, caller, parts, &mut lines).await;
                if answer.is_err() {
                    api.stopping.run_until_cancelled(lines.pour_away()).await;
                }
                answer
            };
            Box::pin(answering).await
        }
    }
}

async fn create_from_json(api: &Api, caller: &Caller, parts: &Parts, content: Body) -> Result<Response, Problem> {
    refuse_query(&parts.uri)?;
    let text = body::read(&parts.headers, content, api.limits.now().body).await?;
    let taken = take_in(api, caller, &parts.headers, &text)?;
    drop(text);
    let Taken { submission, mut draft, earlier, key } = match taken {
        ControlFlow::Continue(taken) => taken,
        ControlFlow::Break(answer) => return Ok(answer),
    };
    let preferences = || Preferences::read(&parts.headers, api.limits.now().max_wait_s);
    let wait = preferences().wait;
    let carried = if earlier.is_empty() {
        carry_out(api, submission, draft, wait).await?
    } else {
        let in_parts = async {
            for part in earlier {
                put_down(&mut draft, part, key).await?;
            }
            carry_out(api, submission, draft, wait).await
        };
        Box::pin(in_parts).await?
    };
    let response = match &carried.finished {
        Some(whole) => answer(api, caller, whole),
        None => Box::pin(answer_as_it_stands(api, caller, carried.id, &preferences())).await,
    };
    Ok(carried.mark(response))
}

/// A deletion that a JSON body asks for.
struct Taken<'h> {
    submission: Submission,
    draft: Option<Draft>,
    /// Its parts before the last one.
    earlier: Vec<Part>,
    key: Option<RequestKey<'h>>,
}

/// Takes a JSON body's contacts in, or answers at once where it asks for a dry run. It waits for nothing, so that what it needs
/// has no place in what waits.
fn take_in<'h>(
    api: &Api,
    caller: &Caller,
    headers: &'h HeaderMap,
    body: &[u8],
) -> Result<ControlFlow<Response, Taken<'h>>, Problem> {
    let DeletionRequest { connection, contacts, dry_run, reason, reference } = request::parse(body)?;
    let asked = contacts.len();
    if asked > api.limits.now().max_contacts {
        return Err(request::too_many(api.limits.now().max_contacts));
    }
    let options = Options { connection, reason, reference };
    if dry_run {
        return answer_dry_run(api, caller, options, contacts).map(ControlFlow::Break);
    }
    let key = RequestKey::read(headers, ROUTE, &caller.key.tenant)?;
    let mut intake = Intake::new(caller, options, api.engine.hash_key(), key).with_room(asked);
    let draft = has_room(api, &intake, asked, key)?.then(|| draft(api, &intake));
    let earlier = intake.add_all(contacts)?;
    let submission = intake.finish(keys_free_before_ms(api));
    Ok(ControlFlow::Continue(Taken { submission, draft, earlier, key }))
}

/// One contact a line, read and put down as they come.
async fn create_from_lines(api: &Api, caller: Caller, parts: &Parts, lines: &mut Lines) -> Result<Response, Problem> {
    let tenant = &caller.key.tenant;
    let (options, dry_run) = options(parts.uri.query().unwrap_or_default())?;
    let key = if dry_run { None } else { RequestKey::read(&parts.headers, ROUTE, tenant)? };
    let _place = api.streams.enter(&tenant.id).ok_or_else(|| not_now(&problem::OVERLOADED, key))?;
    if dry_run {
        let mut contacts = Vec::new();
        while let Some(line) = next_line(api, lines, key).await? {
            if contacts.len() == api.limits.now().max_contacts {
                return Err(request::too_many(api.limits.now().max_contacts));
            }
            contacts.push(request::parse_line(&line, contacts.len(), lines.number)?);
        }
        if contacts.is_empty() {
            return Err(request::no_contacts());
        }
        return answer_dry_run(api, &caller, options, Contacts::from(contacts));
    }
    // Before anything is kept: afterwards it is too late to refuse.
    let following = match body::wants_lines(&parts.headers) {
        true => Some(api.answers.enter(&tenant.id).ok_or_else(|| not_now(&problem::OVERLOADED, key))?),
        false => None,
    };
    let mut intake = Intake::new(&caller, options, api.engine.hash_key(), key);
    let mut draft = has_room(api, &intake, 1, key)?.then(|| draft(api, &intake));
    while let Some(line) = next_line(api, lines, key).await? {
        if intake.len() == api.limits.now().max_contacts_streamed {
            return Err(request::too_many(api.limits.now().max_contacts_streamed));
        }
        if let Some(part) = intake.full_part() {
            if !has_room(api, &intake, intake.len(), key)? {
                draft = None;
            }
            put_down(&mut draft, part, key).await?;
        }
        intake.add(request::parse_line(&line, intake.len(), lines.number)?)?;
    }
    if intake.len() == 0 {
        return Err(request::no_contacts());
    }
    if !has_room(api, &intake, intake.len(), key)? {
        draft = None;
    }
    let submission = intake.finish(keys_free_before_ms(api));
    let carried = carry_out(api, submission, draft, Duration::ZERO).await?;
    let mut response = match (following, lookup::summary(api, carried.id).await) {
        (Some(following), Ok(summary)) => results::follow(api, &caller, summary, following),
        // Such an answer does not wait, whatever the caller prefers.
        (None, Ok(summary)) => answer_briefly(&summary, &Preferences::read(&parts.headers, 0)),
        // It was accepted: without a view of it, its address alone is the answer.
        (_, Err(_)) => accepted_alone(carried.id),
    };
    place(response.headers_mut(), carried.id);
    Ok(carried.mark(response))
}

/// The next line, unless the gateway stops.
async fn next_line(api: &Api, lines: &mut Lines, key: Option<RequestKey<'_>>) -> Result<Option<BytesMut>, Problem> {
    tokio::select! {
        // A caller whose lines are always there already would never let it stop.
        biased;
        () = api.stopping.cancelled() => Err(not_now(&problem::STOPPING, key)),
        line = lines.next() => line,
    }
}

/// `DELETE /v1/connections/{connection}/contacts/{id}`
pub(super) async fn shorthand(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may_delete()?;
    // Whoever writes `?dry_run=true` here must not have deleted.
    refuse_query(&uri)?;
    if body::is_announced(&headers) {
        return Err(Problem::invalid("", "body_not_allowed", "this request takes no body"));
    }
    let Ok(Path((connection, id))) = path else {
        return Err(Problem::invalid("", "invalid_path", "the path is not UTF-8"));
    };
    let key = RequestKey::read(&headers, SHORTHAND, &caller.key.tenant)?;
    let options = Options { connection: Some(connection.into()), ..Options::default() };
    let mut intake = Intake::new(&caller, options, api.engine.hash_key(), key);
    intake.add(ContactRequest::bare(id.into()))?;
    let draft = has_room(&api, &intake, 1, key)?.then(|| draft(&api, &intake));
    let submission = intake.finish(keys_free_before_ms(&api));
    let preferences = Preferences::read(&headers, api.limits.now().max_wait_s);
    let carried = carry_out(&api, submission, draft, preferences.wait).await?;
    let response = match &carried.finished {
        Some(whole) => answer_one(&caller, whole).unwrap_or_else(IntoResponse::into_response),
        None => Box::pin(answer_as_it_stands(&api, &caller, carried.id, &preferences)).await,
    };
    Ok(carried.mark(response))
}

fn refuse_query(uri: &Uri) -> Result<(), Problem> {
    match uri.query() {
        None => Ok(()),
        Some(_) => Err(Problem::invalid("?", "unknown_parameter", "this request has no query parameters")),
    }
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
struct Carried {
    id: DeletionId,
    /// With all its results, if it was finished in time and has one part.
    finished: Option<Arc<Whole>>,
    replayed: bool,
}

impl Carried {
    fn mark(&self, mut response: Response) -> Response {
        telemetry::about(self.id);
        if self.replayed {
            response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The other members of a request whose body has contacts alone.
pub(super) fn options(query: &str) -> Result<(Options, bool), Problem> {
    let (mut options, mut dry_run) = (Options::default(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let twice = match &*name {
            "connection" => options.connection.replace(Arc::from(value)).is_some(),
            "reason" => options.reason.replace(request::short(&name, value.into_owned())?).is_some(),
            "reference" => options.reference.replace(request::short(&name, value.into_owned())?).is_some(),
            "dry_run" => match &*value {
                "true" => dry_run.replace(true).is_some(),
                "false" => dry_run.replace(false).is_some(),
                _ => return Err(Problem::invalid("?dry_run", "wrong_type", "must be true or false")),
            },
            _ => {
                let known = "expected `connection`, `reason`, `reference` or `dry_run`";
                return Err(Problem::invalid("?", "unknown_parameter", known));
            }
        };
        if twice {
            return Err(Problem::invalid(format!("?{name}"), "duplicate_parameter", "stands more than once"));
        }
    }
    Ok((options, dry_run.unwrap_or(false)))
}

/// When a deletion must have been finished for its key to be free again.
fn keys_free_before_ms(api: &Api) -> i64 {
    clock::unix_ms().saturating_sub(api.limits.now().keep_keys_ms)
}

/// What reads a deletion without end has no place for one more.
pub(super) fn overloaded() -> Problem {
    not_now(&problem::OVERLOADED, None)
}

/// A request that cannot be taken now. Under its key, something may have been sent before.
fn not_now(kind: &'static Kind, key: Option<RequestKey<'_>>) -> Problem {
    let problem = if key.is_some() { Problem::unsaid(kind) } else { Problem::new(kind) };
    problem.retry_after(ASK_AGAIN_S)
}

/// Whether the gateway has room for so many contacts now. Without room, a request without a key is refused; one with a
/// key may ask for what is under way already, which needs none.
fn has_room(api: &Api, intake: &Intake<'_>, contacts: usize, key: Option<RequestKey<'_>>) -> Result<bool, Problem> {
    if api.stopping.is_cancelled() {
        return Err(not_now(&problem::STOPPING, key));
    }
    if !api.engine.healthy() {
        return Err(not_now(&problem::STORE_UNAVAILABLE, key));
    }
    let room = api.engine.has_room(&intake.tenant().id, contacts);
    if room || key.is_some() { Ok(room) } else { Err(not_now(&problem::OVERLOADED, key)) }
}

/// What the parts before the last one are put down as.
fn draft(api: &Api, intake: &Intake<'_>) -> Draft {
    api.engine.draft(intake.id(), &intake.tenant().id)
}

/// Puts an earlier part down, if there is room for it. The deletion is not accepted yet, so nothing of it is sent if
/// this fails.
async fn put_down(draft: &mut Option<Draft>, part: Part, key: Option<RequestKey<'_>>) -> Result<(), Problem> {
    let Some(draft) = draft else { return Ok(()) };
    draft.add(part).await.map_err(|_| not_now(&problem::STORE_UNAVAILABLE, key))
}

/// A deletion on its way into the ledger, or none where there is no room for it.
struct Begun {
    id: DeletionId,
    claim: Option<Claim>,
    handle: Option<Handle>,
    wait: Duration,
    /// A place among those of its tenant that wait.
    _waiter: Option<OwnedSemaphorePermit>,
}

/// Hands a deletion to the engine and waits for it a while. Without a draft there is no room for it, and only what was
/// asked for before under its key is told. What is waited with is small, since all of it is in the room of each request.
fn carry_out(
    api: &Api,
    submission: Submission,
    draft: Option<Draft>,
    wait: Duration,
) -> impl Future<Output = Result<Carried, Problem>> {
    let begun = begin(api, submission, draft, wait);
    async move { wait_out(api, begun?).await }
}

fn begin(api: &Api, submission: Submission, draft: Option<Draft>, wait: Duration) -> Result<Begun, Problem> {
    let Submission { accept, connections } = submission;
    let id = accept.head.id;
    let routes: Result<Vec<_>, NoWay> = connections.iter().map(|connection| api.desk.route(connection)).collect();
    let routes = routes.map_err(|err| match err {
        NoWay::Gone => Problem::new(&problem::NOT_FOUND),
        NoWay::NoClient(err) => {
            tracing::error!(deletion = %id, request = telemetry::request_id(), error = %err, "an upstream can have no client");
            Problem::new(&problem::INTERNAL)
        }
    })?;
    // A tenant whose upstreams stall must leave places for requests to the others.
    let waiter = api.desk.waiters(&accept.head.tenant).try_acquire_owned().ok();
    let wait = if waiter.is_some() { wait } else { Duration::ZERO };
    let claim = accept.claim;
    let handle = draft.map(|draft| api.engine.submit(accept, draft, routes));
    Ok(Begun { id, claim, handle, wait, _waiter: waiter })
}

async fn wait_out(api: &Api, begun: Begun) -> Result<Carried, Problem> {
    let Begun { id, claim, handle, wait, _waiter } = begun;
    let Some(Handle { accepted, finished }) = handle else {
        let before = match claim {
            Some(claim) => api.engine.claimed(claim).await,
            None => Ok(Accepted::New),
        };
        return match before {
            Ok(Accepted::Before(id)) => {
                Ok(Carried { id, finished: Box::pin(wait_for(api, id, wait)).await, replayed: true })
            }
            Ok(Accepted::Other) => Err(Problem::new(&problem::KEY_REUSED)),
            // The key was not used, so nothing was sent.
            Ok(Accepted::New) => Err(overloaded()),
            Err(_) => Err(Problem::unsaid(&problem::STORE_UNAVAILABLE).retry_after(ASK_AGAIN_S)),
        };
    };
    let until = Instant::now() + wait;
    // Whether it was accepted is looked at behind its end, or behind the time for it: so whoever waits is woken once.
    let finished = match finished {
        Some(mut finished) if !wait.is_zero() => {
            let ended = finished.wait_for(Option::is_some);
            let ended = tokio::time::timeout_at(until, ended).await;
            Some(ended.map(|ended| ended.ok().and_then(|whole| whole.clone())).map_err(drop))
        }
        Some(_) => Some(Err(())),
        None => None,
    };
    let replayed = match accepted.await {
        Ok(Ok(Accepted::New)) => None,
        Ok(Ok(Accepted::Before(id))) => Some(id),
        Ok(Ok(Accepted::Other)) => return Err(Problem::new(&problem::KEY_REUSED)),
        // How far the store got is not known: a later start may find the deletion and carry it out.
        Ok(Err(_)) | Err(_) => {
            let detail = format!("It may have been accepted, as {id}.");
            return Err(Problem::unsaid(&problem::STORE_UNAVAILABLE).detail(detail));
        }
    };
    match (replayed, finished) {
        (Some(id), _) => Ok(Carried { id, finished: Box::pin(wait_for(api, id, wait)).await, replayed: true }),
        (None, Some(ended)) => {
            let finished = match ended {
                Ok(Some(whole)) => Some(whole),
                // It stopped without an end: somebody else may go on with it.
                Ok(None) => Box::pin(wait_for(api, id, until.saturating_duration_since(Instant::now()))).await,
                Err(()) => None,
            };
            Ok(Carried { id, finished, replayed: false })
        }
        (None, None) => Ok(Carried { id, finished: Box::pin(wait_for(api, id, wait)).await, replayed: false }),
    }
}

/// Waits a while for a deletion's end: the whole of it, if it has one part.
pub(super) async fn wait_for(api: &Api, id: DeletionId, wait: Duration) -> Option<Arc<Whole>> {
    if !wait.is_zero() {
        api.engine.wait(id, wait).await;
    }
    let summary = api.engine.read(id).await.ok().flatten()?;
    if summary.finished_ms.is_none() || summary.parts != 1 {
        return None;
    }
    let page = api.engine.page(id, 0).await.ok().flatten()?;
    Some(Arc::new(Whole { summary, page }))
}

fn status(summary: &Summary) -> StatusCode {
    match summary.finished_ms {
        None => StatusCode::ACCEPTED,
        Some(_) if summary.all_absent() => StatusCode::OK,
        Some(_) => StatusCode::MULTI_STATUS,
    }
}

fn answer(api: &Api, caller: &Caller, whole: &Whole) -> Response {
    let Whole { summary, page } = whole;
    lookup::with_results(api, caller, status(summary), summary, std::slice::from_ref(page))
}

fn answer_dry_run(api: &Api, caller: &Caller, options: Options, contacts: Contacts<'_>) -> Result<Response, Problem> {
    let mut intake = Intake::new(caller, options, api.engine.hash_key(), None);
    let parts = intake.add_all(contacts)?;
    let submission = intake.finish(0);
    let (summary, pages, calls) = plan::dry_run(submission, parts);
    telemetry::deletion(&summary.head.tenant, "dry_run");
    let view = WholeView::dry_run(&summary, &pages, &caller.key.tenant, calls);
    // Nothing was put down, so it is asked for again.
    large(api, &caller.key.tenant.id, StatusCode::OK, view.to_json()).ok_or_else(overloaded)
}

/// A deletion as it stands: finished or not, with its results where they fit.
pub(super) async fn answer_as_it_stands(
    api: &Api,
    caller: &Caller,
    id: DeletionId,
    preferences: &Preferences,
) -> Response {
    // It was accepted: without a view of it, its address alone is the answer.
    let Ok(summary) = lookup::summary(api, id).await else { return accepted_alone(id) };
    let pages = lookup::pages(api, &summary).await;
    let response = match &pages {
        Some(pages) => lookup::with_results(api, caller, status(&summary), &summary, pages),
        None => json(status(&summary), &DeletionView::brief(&summary)),
    };
    preferences.mark(response, &summary)
}

/// The same without results.
fn answer_briefly(summary: &Summary, preferences: &Preferences) -> Response {
    preferences.mark(json(status(summary), &DeletionView::brief(summary)), summary)
}

fn accepted_alone(id: DeletionId) -> Response {
    let known = serde_json::json!({ "id": id.to_string(), "state": "running" });
    let mut response = json(StatusCode::ACCEPTED, &known);
    place(response.headers_mut(), id);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(LOOK_AGAIN_S));
    response
}

impl Preferences {
    /// What an answer before the end says besides.
    fn mark(&self, mut response: Response, summary: &Summary) -> Response {
        if response.status() == StatusCode::ACCEPTED {
            let headers = response.headers_mut();
            place(headers, summary.head.id);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(LOOK_AGAIN_S));
            if let Some(applied) = &self.applied {
                headers.insert(PREFERENCE_APPLIED, applied.clone());
            }
        }
        response
    }
}

fn place(headers: &mut HeaderMap, id: DeletionId) {
    if let Ok(location) = HeaderValue::try_from(format!("/v1/deletions/{id}")) {
        headers.insert(header::LOCATION, location);
    }
}

/// The shorthand's answer: 200 where the contact is absent, else a problem with its outcome.
fn answer_one(caller: &Caller, whole: &Whole) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct One<'a> {
        deletion: String,
        #[serde(flatten)]
        result: render::ResultView<'a>,
    }
    let (tenant, head) = (&caller.key.tenant, &whole.summary.head);
    let Some(settled) = whole.page.results.get(0) else {
        return Err(Problem::unsaid(&problem::INTERNAL));
    };
    let deletion = head.id.to_string();
    if settled.absent == Some(true) {
        let result = render::Scribe::new(&head.shares, tenant).result(&whole.page, 0);
        return Ok(json(StatusCode::OK, &One { deletion, result }));
    }
    let kind = match settled.outcome {
        Outcome::Rejected => &problem::CONTACT_REJECTED,
        Outcome::Failed => &problem::CONTACT_FAILED,
        Outcome::Skipped => &problem::CONTACT_SKIPPED,
        _ => &problem::CONTACT_UNKNOWN,
    };
    let profile = head.shares.first().and_then(|name| render::profile(tenant, name));
    let outcome = OutcomeView {
        deletion,
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

fn wait_s(settled: &crate::engine::Settled) -> Option<u64> {
    let open = settled.reason.as_ref().is_some_and(|reason| reason.code == FaultCode::CircuitOpen);
    render::retry_after_s(settled).or(open.then_some(LOOK_AGAIN_S * 30))
}
