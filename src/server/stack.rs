//! The inbound stack, outermost first. Each layer says why it stands where it stands.

use std::time::Instant;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
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
use crate::api::{Problem, problem};
use crate::telemetry;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps the public routes.
pub fn guarded(routes: Router, max_requests_in_flight: usize) -> Router {
    let shed = ServiceBuilder::new()
        // Turned away before any work, when too much is under way. The limit is one for all routes.
        .layer(HandleErrorLayer::new(|_: tower::BoxError| async {
            Problem::new(&problem::OVERLOADED).retry_after(1).into_response()
        }))
        .load_shed()
        .layer(tower::limit::GlobalConcurrencyLimitLayer::new(max_requests_in_flight));
    let stack = ServiceBuilder::new()
        // No header that holds a secret is printed by anything further in.
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, IDEMPOTENCY_KEY]))
        // Nor one of an answer by anything further out.
        .layer(SetSensitiveResponseHeadersLayer::new([AUTHORIZATION, SET_COOKIE]))
        // Answers are nobody's to keep or to guess at.
        .layer(SetResponseHeaderLayer::if_not_present(
            http::header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        ))
        // Names, times and counts every request, those included that are refused further in.
        .layer(from_fn(observe))
        // A bug in a handler is that request's problem, and says nothing of what was sent.
        .layer(CatchPanicLayer::custom(|_| Problem::unsaid(&problem::INTERNAL).into_response()))
        .layer(shed)
        // What the gate has found to be no proper request.
        .layer(from_fn(refuse));
    routes.layer(stack)
}

async fn observe(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request.headers().get(REQUEST_ID).filter(|id| is_request_id(id)).cloned();
    let id = id.or_else(|| HeaderValue::try_from(uuid::Uuid::now_v7().simple().to_string()).ok());
    let method = request.method().clone();
    // The template, never the path: a path can hold an identifier.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let shown = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let mut response = next.run(request).await;
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
