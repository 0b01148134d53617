//! The admin listener's routes: health and metrics. Nothing here changes anything.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::door::{Answered, Arrival};
use super::stack::refusal;
use crate::engine::driver::Engine;
use crate::telemetry;

#[derive(Clone)]
struct Looked {
    engine: Arc<Engine>,
    stopping: CancellationToken,
}

/// The admin listener's routes, and the refusal of what is no proper request.
#[derive(Clone)]
pub struct Admin(Router);

/// `/livez`, `/readyz` and `/metrics`.
pub fn routes(engine: Arc<Engine>, stopping: CancellationToken) -> Admin {
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Looked { engine, stopping });
    Admin(router)
}

impl Service<Arrival> for Admin {
    type Response = Response;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, arrival: Arrival) -> Answered {
        match arrival.flaw {
            Some(flaw) => Box::pin(async move { Ok(refusal(flaw).into_response()) }),
            None => Box::pin(self.0.clone().oneshot(arrival.request)),
        }
    }
}

/// Ready is a gateway that can put deletions down and is not stopping.
async fn ready(State(admin): State<Looked>) -> Response {
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
