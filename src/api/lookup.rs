//! Deletions that were asked for: one, a list of them, and the end of one before its time. Results are `results`'.

use std::collections::HashSet;
use std::time::Duration;

use adapters::Outcome;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;

use super::auth::Caller;
use super::deletions::{ASK_AGAIN_S, Preferences, answer_as_it_stands, overloaded, wait_for};
use super::render::{DeletionView, WholeView};
use super::{Api, Problem, body, json, large, problem};
use crate::store::{DeletionId, Filter, Page, Summary};
use crate::tenants::is_name;

/// Deletions in one page of a list, unless the caller says how many.
const PAGE: usize = 50;
/// The most deletions in one page of a list.
const LARGEST_PAGE: usize = 500;

/// `GET /v1/deletions/{deletion}`
pub(super) async fn read(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let summary = find(&api, &caller, path).await?;
    let tenant = &caller.key.tenant;
    let contacts = summary.contacts as usize;
    // Before anything is read.
    if contacts <= api.limits.now().max_contacts && !api.held.has_room(&tenant.id, contacts) {
        return Err(overloaded());
    }
    match &pages(&api, &summary).await {
        Some(pages) => {
            let json = WholeView::new(&summary, pages, tenant).to_json();
            large(&api, &tenant.id, StatusCode::OK, json).ok_or_else(overloaded)
        }
        None => Ok(json(StatusCode::OK, &DeletionView::brief(&summary))),
    }
}

/// `GET /v1/deletions`: the tenant's, newest first. A key that may not use all connections sees only what it may.
pub(super) async fn list(State(api): State<Api>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct List<'a> {
        deletions: Vec<DeletionView<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    let filter = filter(&caller, uri.query().unwrap_or_default())?;
    let asked = filter.most;
    // One more tells whether there is a next page.
    let found = api.engine.list(Filter { most: asked + 1, ..filter }).await;
    let found = found.map_err(|_| Problem::unsaid(&problem::STORE_UNAVAILABLE))?;
    let shown = found.get(..asked).unwrap_or(&found);
    let last = shown.last().filter(|_| found.len() > asked);
    let next_cursor = last.map(|summary| summary.head.id.to_string());
    let list = List { deletions: shown.iter().map(DeletionView::brief).collect(), next_cursor };
    large(&api, &caller.key.tenant.id, StatusCode::OK, serde_json::to_vec(&list)).ok_or_else(overloaded)
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
    let id = find(&api, &caller, path).await?.head.id;
    let preferences = Preferences::read(&headers, api.limits.now().max_wait_s);
    api.engine.cancel(id).await.map_err(|_| Problem::unsaid(&problem::STORE_UNAVAILABLE).retry_after(ASK_AGAIN_S))?;
    // As with a deletion that is waited for, a tenant must leave places for requests to the others.
    let waiter = api.desk.waiters(&caller.key.tenant.id).try_acquire_owned();
    drop(wait_for(&api, id, if waiter.is_ok() { preferences.wait } else { Duration::ZERO }).await);
    drop(waiter);
    let mut response = answer_as_it_stands(&api, &caller, id, &preferences).await;
    // Whether all contacts are absent was not the question.
    if response.status() == StatusCode::MULTI_STATUS {
        *response.status_mut() = StatusCode::OK;
    }
    Ok(response)
}

/// The caller's deletion with this id. Others' do not exist.
pub(super) async fn find(
    api: &Api,
    caller: &Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Summary, Problem> {
    let absent = || Problem::new(&problem::NOT_FOUND);
    let id: DeletionId = path.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(absent)?;
    let summary = api.engine.read_of(&caller.key.tenant.id, id).await;
    let summary = summary.map_err(|_| Problem::unsaid(&problem::STORE_UNAVAILABLE))?;
    let summary = summary.filter(|summary| may_see(caller, summary)).ok_or_else(absent)?;
    crate::telemetry::about(id);
    Ok(summary)
}

/// A deletion that is known to be there.
pub(super) async fn summary(api: &Api, id: DeletionId) -> Result<Summary, Problem> {
    let unavailable = || Problem::unsaid(&problem::STORE_UNAVAILABLE);
    api.engine.read(id).await.ok().flatten().ok_or_else(unavailable)
}

/// All of a deletion's results, unless they are too many for one answer.
pub(super) async fn pages(api: &Api, summary: &Summary) -> Option<Vec<Page>> {
    if summary.contacts as usize > api.limits.now().max_contacts {
        return None;
    }
    let mut pages = Vec::new();
    for part in 0..summary.parts {
        pages.push(api.engine.page(summary.head.id, part).await.ok().flatten()?);
    }
    Some(pages)
}

/// A deletion with its results; without them where there is no room for so much. For one that was accepted just now: it cannot
/// be refused any more.
pub(super) fn with_results(
    api: &Api,
    caller: &Caller,
    status: StatusCode,
    summary: &Summary,
    pages: &[Page],
) -> Response {
    let tenant = &caller.key.tenant;
    let whole = || large(api, &tenant.id, status, WholeView::new(summary, pages, tenant).to_json());
    let has_room = api.held.has_room(&tenant.id, summary.contacts as usize);
    has_room.then(whole).flatten().unwrap_or_else(|| json(status, &DeletionView::brief(summary)))
}

/// A deletion is its tenant's, and only for keys that may use all its connections.
fn may_see(caller: &Caller, summary: &Summary) -> bool {
    let head = &summary.head;
    head.tenant == caller.key.tenant.id && head.shares.iter().all(|name| caller.key.reaches(name))
}

pub(super) fn filter(caller: &Caller, query: &str) -> Result<Filter, Problem> {
    let mut filter = Filter {
        tenant: caller.key.tenant.id.clone(),
        finished: None,
        reference: None,
        connection: None,
        within: caller.key.connections.as_ref().map(|names| names.iter().cloned().collect()),
        before: None,
        most: PAGE,
    };
    let mut seen = HashSet::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let wrong = |code, message: &str| Err(Problem::invalid(format!("?{name}"), code, message));
        match (&*name, &*value) {
            ("state", "running") => filter.finished = Some(false),
            ("state", "finished") => filter.finished = Some(true),
            ("state", _) => return wrong("unknown_state", "expected `running` or `finished`"),
            ("reference", _) => filter.reference = Some(value.into_owned()),
            // The store is not asked for what cannot be a name.
            ("connection", name) if !is_name(name) => filter.connection = Some(NOBODY.into()),
            ("connection", _) => filter.connection = Some(value.into()),
            ("limit", _) => match value.parse() {
                Ok(limit @ 1..=LARGEST_PAGE) => filter.most = limit,
                _ => return wrong("wrong_number", &format!("must be 1 to {LARGEST_PAGE}")),
            },
            ("cursor", _) => match value.parse() {
                Ok(id) => filter.before = Some(id),
                Err(_) => return wrong("unknown_cursor", "must be the `next_cursor` of a page before"),
            },
            _ => {
                let known = "expected `state`, `reference`, `connection`, `limit` or `cursor`";
                return Err(Problem::invalid("?", "unknown_parameter", known));
            }
        }
        if !seen.insert(name.clone()) {
            return wrong("duplicate_parameter", "stands more than once");
        }
    }
    Ok(filter)
}

/// No connection has this name: it would have to begin with a letter or a digit.
const NOBODY: &str = "-";

/// `?outcome=failed,unknown`: which results are wanted; all, if `None`.
pub(super) fn outcomes(query: &str) -> Result<Option<Vec<Outcome>>, Problem> {
    let mut wanted = None;
    for (name, names) in form_urlencoded::parse(query.as_bytes()) {
        if name != "outcome" {
            return Err(Problem::invalid("?", "unknown_parameter", "expected `outcome`"));
        }
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
