//! The inbound stack: one service between a connection and the routes, as each layer around a request costs on its own. What it
//! does stands in order, outermost first, and says why it stands where it stands.
//!
//! It knows of the routes only which of them asks for a deletion: that one is answered without asking the router.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tower::{Service, ServiceExt};

use super::door::{Answered, Arrival};
use super::head::{self, Flaw};
use super::valve::{Coming, Place, Valve};
use crate::api::{Creation, Problem, problem};
use crate::telemetry::{self, Origin};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Headers of a request, and of an answer, that hold secrets.
const SECRET: [HeaderName; 4] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, IDEMPOTENCY_KEY];
const SECRET_OF_ANSWERS: [HeaderName; 2] = [AUTHORIZATION, SET_COOKIE];

/// The public routes with all that stands around them.
#[derive(Clone)]
pub struct Guard(Arc<Guarded>);

struct Guarded {
    creation: Option<Creation>,
    routes: Router,
    valve: Arc<Valve>,
}

/// Wraps the public routes, and the one among them that is asked without the router. The valve is one for all of them.
pub fn guarded(routes: Router, creation: Option<Creation>, valve: Arc<Valve>) -> Guard {
    Guard(Arc::new(Guarded { creation, routes: routes.layer(from_fn(named)), valve }))
}

/// It is always ready: whoever must wait or go is told so by an answer.
impl Service<Arrival> for Guard {
    type Response = Response;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, arrival: Arrival) -> Answered {
        let guarded = Arc::clone(&self.0);
        // Before all else, and before it is known which route is meant: there are many to turn away when there is too much to do,
        // so each must cost next to nothing.
        match guarded.valve.enter() {
            Some(place) => Box::pin(guarded.begin(arrival, place).answer()),
            None => Box::pin(async move { Ok(guarded.turn_away(arrival).await) }),
        }
    }
}

impl Guarded {
    /// The valve counts who was turned away and tells the log.
    async fn turn_away(&self, arrival: Arrival) -> Response {
        self.valve.rest().await;
        let mut response = Problem::new(&problem::OVERLOADED).retry_after(1).into_response();
        finish(&mut response, Origin::of(arrival.request.headers()));
        response
    }

    /// Begins to answer. What is needed while that lasts is kept small: what is moved is paid for by its size, and the work is in a
    /// box of its own.
    fn begin(&self, arrival: Arrival, place: Place) -> Begun {
        let Arrival { mut request, peer, flaw } = arrival;
        // No header that holds a secret is printed by anything further in.
        hide(request.headers_mut(), &SECRET);
        let place = Arc::new(place);
        let request = request.map(|body| Body::new(Coming::new(body, Arc::clone(&place))));
        let start = Instant::now();
        let origin = Origin::of(request.headers());
        let method = known(request.method());
        let creation = self.creation.as_ref().zip(Creation::route(request.method(), request.uri()));
        // A bug in a handler is that request's problem, and says nothing of what was sent. Each way catches its own, so that it
        // is known what was asked for.
        let (route, work): (_, Work) = match (flaw, creation) {
            // What the gate has found to be no proper request.
            (Some(flaw), _) => (NO_ROUTE, Box::pin(ready(refusal(flaw).into_response()))),
            (None, Some((creation, route))) => {
                let (parts, body) = request.into_parts();
                (route, Box::pin(caught(creation.clone().answer(parts, body, peer))))
            }
            (None, None) => {
                let mut request = request;
                request.extensions_mut().insert(peer);
                let answer = self.routes.clone().oneshot(request);
                (NO_ROUTE, Box::pin(answer.map(|Ok(response)| response)))
            }
        };
        Begun { work, origin, method, route, start, place }
    }
}

/// What answers a request.
type Work = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A request that is being answered.
struct Begun {
    work: Work,
    origin: Origin,
    method: &'static str,
    route: &'static str,
    start: Instant,
    place: Arc<Place>,
}

impl Begun {
    async fn answer(self) -> Result<Response, Infallible> {
        let Self { work, origin, method, route, start, place } = self;
        let (mut response, deletion) = telemetry::under(origin.clone(), work).await;
        // Every request is named, timed and counted, those included that were refused.
        let named = response.extensions_mut().remove::<Named>();
        let route = named.as_ref().map_or(route, |Named(path)| path.as_str());
        let (status, took) = (response.status().as_u16(), start.elapsed());
        telemetry::request(route, method, status, took);
        let ms = took.as_millis() as u64;
        let (request, trace, deletion) = (origin.id(), origin.trace(), deletion.map(tracing::field::display));
        tracing::info!(request, trace, deletion, method, route, status, ms, "answered");
        finish(&mut response, origin);
        drop(place);
        Ok(response)
    }
}

/// The route of a request that found none.
const NO_ROUTE: &str = "none";

/// The template of the route that answered, never its path: a path can hold an identifier.
#[derive(Clone)]
struct Named(MatchedPath);

/// Says on an answer of the router which route it is of.
async fn named(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let mut response = caught(next.run(request)).await;
    path.map(|path| response.extensions_mut().insert(Named(path)));
    response
}

async fn caught(answer: impl Future<Output = Response>) -> Response {
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|_| Problem::unsaid(&problem::INTERNAL).into_response())
}

fn hide(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        if headers.contains_key(name)
            && let http::header::Entry::Occupied(mut values) = headers.entry(name)
        {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

/// What every answer says, or does not say.
fn finish(response: &mut Response, origin: Origin) {
    let headers = response.headers_mut();
    // Answers are nobody's to keep or to guess at.
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, NO_STORE);
    }
    if !headers.contains_key(CONTENT_TYPE_OPTIONS) {
        headers.insert(CONTENT_TYPE_OPTIONS, NOSNIFF);
    }
    origin.tell(headers);
    // Nothing further out prints a secret of an answer.
    hide(headers, &SECRET_OF_ANSWERS);
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

/// Answers what did not come through the gate. Nothing of it is here but what was wrong with it.
pub(super) fn refusal(flaw: Flaw) -> Problem {
    match flaw {
        head::HEADERS_TOO_LARGE => Problem::new(&problem::HEADERS_TOO_LARGE),
        Flaw { code, message } => Problem::invalid("", code, message),
    }
}
