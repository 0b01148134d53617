//! The contract's routes: JSON to deletions and back. What a deletion does is the engine's, who may ask is `auth`'s.

mod auth;
mod body;
mod connections;
mod deletions;
mod idempotency;
mod lookup;
mod plan;
pub mod problem;
mod render;
mod request;
mod submission;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use auth::sha256_hex;
pub use body::BodyLimits;
pub use problem::Problem;

use crate::desk::Desk;
use crate::engine::driver::Engine;

/// What every handler needs.
#[derive(Clone)]
pub struct Api {
    /// Tenants and upstreams.
    pub desk: Arc<Desk>,
    /// What carries deletions out.
    pub engine: Arc<Engine>,
    /// What a request may be.
    pub limits: Limits,
    /// Set when the gateway takes no more deletions.
    pub stopping: CancellationToken,
}

/// What a request may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Its body.
    pub body: BodyLimits,
    /// Contacts in one JSON body.
    pub max_contacts: usize,
    /// The longest wait for an answer, in seconds.
    pub max_wait_s: u64,
}

/// The public listener's routes.
pub fn routes(api: Api) -> Router {
    let of = |kind| move || async move { Problem::new(kind).into_response() };
    Router::new()
        .route("/v1/deletions", post(deletions::create))
        .route("/v1/deletions/{deletion}", get(lookup::read))
        .route("/v1/deletions/{deletion}/results", get(lookup::results))
        .route("/v1/deletions/{deletion}/cancel", post(lookup::cancel))
        .route("/v1/connections", get(connections::list))
        .route("/v1/connections/{connection}", get(connections::read))
        .route("/v1/connections/{connection}/contacts/{id}", delete(deletions::shorthand))
        .route("/docs/problems/{code}", get(explain))
        .fallback(of(&problem::NOT_FOUND))
        .method_not_allowed_fallback(of(&problem::METHOD_NOT_ALLOWED))
        .with_state(api)
}

/// What a problem means and what to do about it, as plain text.
async fn explain(code: Result<axum::extract::Path<String>, axum::extract::rejection::PathRejection>) -> Response {
    let kind = code.ok().and_then(|code| problem::KINDS.iter().find(|kind| kind.code == code.0));
    match kind {
        Some(kind) => format!("{} ({})\n\n{}\n\n{}\n", kind.code, kind.status, kind.title, kind.remedy).into_response(),
        None => Problem::new(&problem::NOT_FOUND).into_response(),
    }
}

/// An answer with a JSON body.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => {
            let mut response = (status, text).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(_) => Problem::unsaid(&problem::INTERNAL).into_response(),
    }
}
