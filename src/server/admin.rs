//! The admin listener's routes: health, metrics, the order to read the configuration again, and the console beside them. Nothing here
//! changes anything by GET.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
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
    configuration: Arc<dyn Configuration>,
}

/// The configuration that is in use, and how it is read again.
pub trait Configuration: Send + Sync {
    /// Which it is, since when it is in use, and why the last one was refused, if it was. Without secrets.
    fn view(&self) -> Value;

    /// Reads it again. Whether it is in use now.
    fn reload(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// The admin listener's routes, and the refusal of what is no proper request.
#[derive(Clone)]
pub struct Admin(Router);

/// `/livez`, `/readyz`, `/metrics` and `POST /reload`, and the console's own routes.
pub fn routes(
    engine: Arc<Engine>,
    stopping: CancellationToken,
    configuration: Arc<dyn Configuration>,
    console: Router,
) -> Admin {
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/reload", post(reload))
        .with_state(Looked { engine, stopping, configuration })
        .merge(console);
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
        let Arrival { mut request, peer, flaw } = arrival;
        match flaw {
            Some(flaw) => Box::pin(async move { Ok(refusal(flaw).into_response()) }),
            None => {
                // The console counts who guesses.
                request.extensions_mut().insert(peer);
                Box::pin(self.0.clone().oneshot(request))
            }
        }
    }
}

/// Ready is a gateway that can put deletions down and is not stopping.
async fn ready(State(admin): State<Looked>) -> Response {
    let (status, word) = match (admin.stopping.is_cancelled(), admin.engine.healthy()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "the store failed"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    said(status, &json!({ "status": word, "configuration": admin.configuration.view() }))
}

/// Has the configuration read again: 200 if it is in use now, 409 if it is refused and the last good one stays.
async fn reload(State(admin): State<Looked>, headers: HeaderMap) -> Response {
    // A page in somebody's browser may send this from anywhere, and says so.
    let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if from_elsewhere {
        return said(StatusCode::FORBIDDEN, &json!({ "status": "refused: another site asked for it" }));
    }
    let (status, word) =
        if admin.configuration.reload().await { (StatusCode::OK, "in use") } else { (StatusCode::CONFLICT, "refused") };
    said(status, &json!({ "status": word, "configuration": admin.configuration.view() }))
}

/// One line of JSON.
fn said(status: StatusCode, what: &Value) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (status, [kind], format!("{what}\n")).into_response()
}

async fn metrics() -> Response {
    let mut response = telemetry::metrics_page().into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
