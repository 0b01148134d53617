//! `GET /v1/deletions/{deletion}/events`: progress as server-sent events (HTML Living Standard, section 9.2).
//!
//! Each event is the deletion as it stands, without its results; `finished` is the last one. There is nothing to be missed;
//! whoever comes back with a `Last-Event-ID` to a finished deletion is told that there is no more (204).

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::auth::Caller;
use super::deletions::overloaded;
use super::render::DeletionView;
use super::{Api, Problem, StreamPlace, lookup};
use crate::store::Summary;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How often it is looked for progress.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Without progress, a comment says so often that the connection lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// `GET /v1/deletions/{deletion}/events`
pub(super) async fn follow(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let summary = lookup::find(&api, &caller, path).await?;
    // A browser asks again when a stream ends, and stops at this.
    if summary.finished_ms.is_some() && headers.contains_key(LAST_EVENT_ID) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = api.answers.enter(&caller.key.tenant.id).ok_or_else(overloaded)?;
    let progress = Progress { api, summary, told: None, ended: false, _stream: place };
    let mut response = Response::new(Body::from_stream(stream::unfold(progress, Progress::next)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Progress {
    api: Api,
    summary: Summary,
    /// When something was told the last time.
    told: Option<Instant>,
    ended: bool,
    _stream: StreamPlace,
}

impl Progress {
    /// The next event; nothing after the last one, and none while the gateway stops.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        let Some(told) = self.told else {
            return Some(self.tell("retry: 2000\n"));
        };
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.api.stopping.cancelled() => return None,
            }
            match self.api.engine.read(self.summary.head.id).await {
                Ok(Some(summary)) if summary != self.summary => {
                    self.summary = summary;
                    return Some(self.tell(""));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
            if told.elapsed() >= SIGN_OF_LIFE {
                self.told = Some(Instant::now());
                return Some((Ok(Bytes::from_static(b": \n\n")), self));
            }
        }
    }

    fn tell(mut self, before: &str) -> (Result<Bytes, Infallible>, Self) {
        self.told = Some(Instant::now());
        self.ended = self.summary.finished_ms.is_some();
        let event = if self.ended { "finished" } else { "progress" };
        // Texts and numbers cannot fail to serialise, and JSON has no line ends.
        let data = serde_json::to_string(&DeletionView::brief(&self.summary)).unwrap_or_default();
        let text = format!("{before}event: {event}\nid: {event}\ndata: {data}\n\n");
        (Ok(text.into()), self)
    }
}
