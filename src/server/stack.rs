//! The inbound stack, outermost first. Each layer says why it stands where it stands.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderName, HeaderValue, Method};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use super::head::{self, Flaw};
use super::valve::{Coming, Valve};
use crate::api::{Problem, problem};
use crate::telemetry;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Wraps the public routes. The valve is one for all of them.
pub fn guarded(routes: Router, valve: Arc<Valve>) -> Router {
    let stack = ServiceBuilder::new()
        // No header that holds a secret is printed by anything further in.
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, IDEMPOTENCY_KEY]))
        // Nor one of an answer by anything further out.
        .layer(SetSensitiveResponseHeadersLayer::new([AUTHORIZATION, SET_COOKIE]))
        // Answers are nobody's to keep or to guess at.
        .layer(SetResponseHeaderLayer::if_not_present(http::header::CACHE_CONTROL, NO_STORE))
        .layer(SetResponseHeaderLayer::if_not_present(CONTENT_TYPE_OPTIONS, NOSNIFF))
        // Names, times and counts every request, those included that are refused further in.
        .layer(from_fn(observe))
        // A bug in a handler is that request's problem, and says nothing of what was sent.
        .layer(CatchPanicLayer::custom(|_| Problem::unsaid(&problem::INTERNAL).into_response()))
        // What the gate has found to be no proper request.
        .layer(from_fn(refuse));
    // Before all of it, and before it is known which route is meant: there are many to turn away when there is too much to
    // do, so each must cost next to nothing.
    Router::new()
        .fallback_service(routes.layer(stack))
        .layer(from_fn(move |request, next| admit(Arc::clone(&valve), request, next)))
}

/// Turns a request away, before any work, when too much is under way. The valve counts those and tells the log.
async fn admit(valve: Arc<Valve>, request: Request, next: Next) -> Response {
    if let Some(place) = valve.enter() {
        let place = Arc::new(place);
        let coming = Arc::clone(&place);
        return next.run(request.map(|body| Body::new(Coming::new(body, coming)))).await;
    }
    valve.rest().await;
    let mut response = Problem::new(&problem::OVERLOADED).retry_after(1).into_response();
    let headers = response.headers_mut();
    headers.insert(http::header::CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE_OPTIONS, NOSNIFF);
    request_id(&request).map(|id| headers.insert(REQUEST_ID, id));
    response
}

async fn observe(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    // The template, never the path: a path can hold an identifier.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let shown = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let running = next.run(request);
    let mut response = match id.clone() {
        Some(id) => telemetry::under(id, running).await,
        None => running.await,
    };
    let (status, took) = (response.status().as_u16(), start.elapsed());
    telemetry::request(&route, known(&method), status, took);
    let ms = took.as_millis() as u64;
    tracing::info!(request = shown, method = known(&method), route, status, ms, "answered");
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// A method as a label: one that HTTP does not define could be anything.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The caller's own id of a request, or a new one.
fn request_id(request: &Request) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID).filter(|id| is_request_id(id)).cloned();
    id.or_else(|| HeaderValue::try_from(uuid::Uuid::now_v7().simple().to_string()).ok())
}

/// A caller's own request id is kept if it is harmless in a log line.
fn is_request_id(value: &HeaderValue) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
}

/// Answers what did not come through the gate. Nothing of it is here but what was wrong with it.
pub(super) async fn refuse(request: Request, next: Next) -> Response {
    match request.extensions().get::<Flaw>() {
        None => next.run(request).await,
        Some(flaw) => refusal(*flaw).into_response(),
    }
}

// Not in `refuse`: an optimizing compiler looks for the constants of an `async fn` before it knows its type, and gives up.
fn refusal(flaw: Flaw) -> Problem {
    match flaw {
        head::HEADERS_TOO_LARGE => Problem::new(&problem::HEADERS_TOO_LARGE),
        Flaw { code, message } => Problem::invalid("", code, message),
    }
}
