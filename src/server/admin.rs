//! The admin listener's routes: health and metrics. Nothing here changes anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use tokio_util::sync::CancellationToken;

use super::stack::refuse;
use crate::engine::driver::Engine;
use crate::telemetry;

#[derive(Clone)]
struct Admin {
    engine: Arc<Engine>,
    stopping: CancellationToken,
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn routes(engine: Arc<Engine>, stopping: CancellationToken) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(from_fn(refuse))
        .with_state(Admin { engine, stopping })
}

/// Ready is a gateway that can put deletions down and is not stopping.
async fn ready(State(admin): State<Admin>) -> Response {
    if admin.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    if !admin.engine.healthy() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store failed\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics() -> Response {
    let mut response = telemetry::metrics_page().into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
