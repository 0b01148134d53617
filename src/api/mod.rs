//! The contract's routes: JSON to deletions and back. What a deletion does is the engine's, who may ask is `auth`'s.

mod auth;
mod body;
mod connections;
mod deletions;
mod docs;
mod entry;
mod events;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod idempotency;
mod lookup;
mod plan;
pub mod problem;
mod render;
mod request;
mod results;
mod submission;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use auth::{is_key, sha256_hex, short_hash};
pub use body::BodyLimits;
pub(crate) use body::{DRIBLET, HELD_BACK};
pub use docs::OPENAPI;
pub use entry::{Entry, Peer};
pub use held::HeldAnswers;
pub use problem::Problem;
pub use render::reason;

use crate::desk::Desk;
use crate::engine::driver::Engine;
use crate::issuers::Issuers;
use crate::live::Live;
use auth::Caller;

/// What every handler needs.
#[derive(Clone)]
pub struct Api {
    /// Tenants and upstreams.
    pub desk: Arc<Desk>,
    /// How often who may ask.
    pub entry: Arc<Entry>,
    /// Whose signed tokens are taken in the place of keys.
    pub issuers: Arc<Issuers>,
    /// What carries deletions out.
    pub engine: Arc<Engine>,
    /// What a request may be.
    pub limits: Arc<Live<Limits>>,
    /// Places for bodies that are read as streams.
    pub streams: Arc<Streams>,
    /// Places for answers that are written as streams.
    pub answers: Arc<Streams>,
    /// Room for large answers that are not read yet.
    pub held: Arc<HeldAnswers>,
    /// Set when the gateway takes no more deletions.
    pub stopping: CancellationToken,
}

/// How many streams there are at the same time, together and of each tenant. A body that is read as one remembers all its
/// contacts; an answer that is written as one holds up to a part of a deletion, as long as its reader likes.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    open: Mutex<HashMap<Arc<str>, usize>>,
}

/// A place for one stream.
#[derive(Debug)]
struct StreamPlace {
    streams: Arc<Streams>,
    tenant: Arc<str>,
}

impl Streams {
    /// With so many places; no tenant may have more than half of them.
    pub fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one.
    fn enter(self: &Arc<Self>, tenant: &Arc<str>) -> Option<StreamPlace> {
        let mut open = self.open();
        let own = open.get(tenant).copied().unwrap_or(0);
        if open.values().sum::<usize>() >= self.most || own >= self.most.div_ceil(2) {
            return None;
        }
        open.insert(Arc::clone(tenant), own + 1);
        Some(StreamPlace { streams: Arc::clone(self), tenant: Arc::clone(tenant) })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if let Some(own) = open.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

/// What a request may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Its body.
    pub body: BodyLimits,
    /// Contacts in one JSON body.
    pub max_contacts: usize,
    /// Contacts in one body of JSON Lines.
    pub max_contacts_streamed: usize,
    /// The longest wait for an answer, in seconds.
    pub max_wait_s: u64,
    /// How long the key of a finished deletion is kept, in milliseconds.
    pub keep_keys_ms: i64,
}

/// The public listener's routes.
pub fn routes(api: Api) -> Router {
    let of = |kind| move || async move { Problem::new(kind).into_response() };
    let router = paths().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    router
        .fallback(of(&problem::NOT_FOUND))
        .method_not_allowed_fallback(of(&problem::METHOD_NOT_ALLOWED))
        .with_state(api)
}

/// The route that asks for a deletion, without the router: it is what the gateway is for, and a router costs more than one
/// comparison.
#[derive(Clone)]
pub struct Creation(Arc<Api>);

impl Creation {
    /// As [`routes`] have it.
    pub fn new(api: Api) -> Self {
        Self(Arc::new(api))
    }

    /// The template of the route, if that is what a request asks for.
    pub fn route(method: &Method, uri: &Uri) -> Option<&'static str> {
        (method == Method::POST && uri.path() == DELETIONS).then_some(DELETIONS)
    }

    /// `POST /v1/deletions`, answered just as the router would have it answered.
    pub async fn answer(self, parts: Parts, content: Body, peer: Peer) -> Response {
        let caller = match Caller::of(&parts.headers, Some(peer), &self.0).await {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
        };
        deletions::create(&self.0, caller, &parts, content).await.into_response()
    }
}

const DELETIONS: &str = "/v1/deletions";

/// The router's way to the same.
async fn create(State(api): State<Api>, caller: Caller, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    deletions::create(&api, caller, &parts, content).await
}

/// Every path with its methods. `openapi.json` describes them, and a test compares.
fn paths() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        (DELETIONS, get(lookup::list).post(create)),
        ("/v1/deletions/{deletion}", get(lookup::read)),
        ("/v1/deletions/{deletion}/results", get(results::read)),
        ("/v1/deletions/{deletion}/events", get(events::follow)),
        ("/v1/deletions/{deletion}/cancel", post(lookup::cancel)),
        ("/v1/connections", get(connections::list)),
        ("/v1/connections/{connection}", get(connections::read)),
        ("/v1/connections/{connection}/contacts/{id}", delete(deletions::shorthand)),
        ("/openapi.json", get(docs::description)),
        ("/docs", get(docs::read)),
        ("/docs/page.css", get(docs::style)),
        ("/docs/page.js", get(docs::script)),
        ("/docs/problems", get(docs::problems)),
        ("/docs/problems/{code}", get(docs::problem)),
        ("/docs/errors", get(docs::errors)),
    ]
}

/// The public listener's paths, as templates.
pub fn path_templates() -> impl Iterator<Item = &'static str> {
    paths().into_iter().map(|(path, _)| path)
}

/// An answer with a JSON body.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    written(status, serde_json::to_vec(body))
}

/// An answer with a JSON body that may be large; `None` if there is no room for it until its caller has read it.
fn large(api: &Api, tenant: &Arc<str>, status: StatusCode, json: serde_json::Result<Vec<u8>>) -> Option<Response> {
    let held = json.map(|text| api.held.hold(tenant, text));
    held.transpose().map(|json| written(status, json))
}

fn written(status: StatusCode, json: serde_json::Result<impl IntoResponse>) -> Response {
    match json {
        Ok(text) => {
            let mut response = (status, text).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(_) => Problem::unsaid(&problem::INTERNAL).into_response(),
    }
}
