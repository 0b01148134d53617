//! A deletion's results as JSON Lines: as they stand, or each one as soon as it and those before it are settled.
//!
//! They are read part by part, so that a million of them need no more memory than some. A stream that cannot go on is cut
//! off, so that nobody takes half of it for the whole.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adapters::Outcome;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, Uri, header};

use super::auth::Caller;
use super::deletions::overloaded;
use super::render::{Absences, Scribe};
use super::{Api, Problem, StreamPlace, body, lookup};
use crate::store::{Page, Summary};
use crate::tenants::Tenant;

/// Results in one piece of a stream.
const PIECE: usize = 1_000;
/// How often a stream that waits for results looks for them.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// `GET /v1/deletions/{deletion}/results`: one result a line, in the order of the request.
pub(super) async fn read(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let wanted = lookup::outcomes(uri.query().unwrap_or_default())?;
    let summary = lookup::find(&api, &caller, path).await?;
    let place = api.answers.enter(&caller.key.tenant.id).ok_or_else(overloaded)?;
    Ok(lines(StatusCode::OK, Walk::new(&api, &caller, summary, wanted, false, place)))
}

/// All results, each as soon as it and those before it are settled. Whether all contacts are absent is not known when the
/// answer begins, so only a finished deletion's says 200.
pub(super) fn follow(api: &Api, caller: &Caller, summary: Summary, place: StreamPlace) -> Response {
    let all_absent = summary.finished_ms.is_some() && summary.all_absent();
    let status = if all_absent { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    lines(status, Walk::new(api, caller, summary, None, true, place))
}

/// A walk over a deletion's results.
struct Walk {
    api: Api,
    tenant: Arc<Tenant>,
    summary: Summary,
    wanted: Option<Vec<Outcome>>,
    /// Whether it waits for what is not settled.
    waits: bool,
    part: u32,
    page: Option<Page>,
    /// The next place in the page.
    place: usize,
    absent: Absences,
    _stream: StreamPlace,
}

impl Walk {
    fn new(
        api: &Api,
        caller: &Caller,
        summary: Summary,
        wanted: Option<Vec<Outcome>>,
        waits: bool,
        _stream: StreamPlace,
    ) -> Self {
        let (api, tenant, absent) = (api.clone(), Arc::clone(&caller.key.tenant), Absences::default());
        Self { api, tenant, summary, wanted, waits, part: 0, page: None, place: 0, absent, _stream }
    }

    /// The next piece; nothing at the end.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, io::Error> {
        loop {
            let Some(page) = self.page.take() else {
                if self.part == self.summary.parts {
                    return Ok(None);
                }
                self.page = Some(self.read().await?);
                self.place = 0;
                continue;
            };
            let piece = self.write(&page)?;
            if self.place == page.contacts.len() {
                self.part += 1;
            } else if piece.is_empty() && self.waits && page.results.get(self.place).is_none() {
                drop(page);
                self.news().await?;
                self.page = Some(self.read().await?);
            } else {
                self.page = Some(page);
            }
            if !piece.is_empty() {
                return Ok(Some((piece.into(), self)));
            }
        }
    }

    /// Waits until something was settled. Only then is a page worth reading again.
    async fn news(&mut self) -> Result<(), io::Error> {
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.api.stopping.cancelled() => return Err(cut_off()),
            }
            let summary = self.api.engine.read(self.summary.head.id).await;
            let summary = summary.ok().flatten().ok_or_else(cut_off)?;
            if summary.tally != self.summary.tally {
                self.summary = summary;
                return Ok(());
            }
        }
    }

    /// Writes results from the present place on: some, or as many as are settled.
    fn write(&mut self, page: &Page) -> Result<Vec<u8>, io::Error> {
        let mut piece = Vec::new();
        let absent = std::mem::take(&mut self.absent);
        let mut scribe = Scribe::go_on(&self.summary.head.shares, &self.tenant, absent);
        let end = page.contacts.len().min(self.place + PIECE);
        while self.place < end {
            let settled = page.results.get(self.place);
            if self.waits && settled.is_none() {
                break;
            }
            let outcome = settled.map_or(Outcome::Pending, |settled| settled.outcome);
            let line = scribe.result(page, self.place);
            if self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&outcome)) {
                line.write(&mut piece)?;
                piece.push(b'\n');
            }
            self.place += 1;
        }
        self.absent = scribe.pause();
        Ok(piece)
    }

    async fn read(&self) -> Result<Page, io::Error> {
        let page = self.api.engine.page(self.summary.head.id, self.part).await;
        let page = page.ok().flatten().ok_or_else(cut_off)?;
        // A page that does not fit what was read before is not to be indexed.
        if page.results.len() == page.contacts.len() { Ok(page) } else { Err(cut_off()) }
    }
}

/// Ends the connection in the middle of the body; nobody reads the text.
fn cut_off() -> io::Error {
    io::Error::other("the results cannot be read")
}

fn lines(status: StatusCode, walk: Walk) -> Response {
    let mut response = Response::new(Body::from_stream(stream::try_unfold(walk, Walk::next)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(body::LINES));
    response
}
