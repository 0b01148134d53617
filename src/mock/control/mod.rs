//! The control API: what tests in other languages do with running mocks, as JSON over HTTP.
//!
//! `openapi.json` describes it. It asks for no credential and has no TLS: whoever can reach its address rules the mocks.

mod problem;
mod query;
#[cfg(test)]
mod tests;
mod upstreams;
mod view;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use http::{HeaderValue, StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::checks::Check;
use super::fleet::Mocks;
use super::json;
use super::scenario::Scenario;
use problem::Problem;
use query::Query;

/// The API's description: OpenAPI 3.1, as JSON.
const OPENAPI: &str = include_str!("../openapi.json");

/// The largest body, in bytes: a few hundred thousand contacts.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The control API of some mocks. It ends when it is stopped or dropped; the mocks go on.
pub struct Control {
    addr: SocketAddr,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Control {
    /// Serves it; port 0 takes a free port. It needs a tokio runtime with time and I/O. Fails if the address cannot be had.
    pub async fn start(mocks: Arc<Mocks>, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let router = router(mocks);
        let serve = move |stream| serve(stream, router.clone());
        let accepting = super::accept(listener, serve, tasks.clone(), stopping.clone());
        tasks.spawn(stopping.clone().run_until_cancelled_owned(accepting));
        Ok(Self { addr, tasks, stopping })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL that its paths are under.
    pub fn url(&self) -> String {
        super::origin(self.addr)
    }

    /// Closes the address and all connections, and waits until that is done.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({})", self.addr)
    }
}

async fn serve(stream: TcpStream, router: Router) {
    // It only costs time, so failing is no matter.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    // How a connection ends is the client's affair.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

type Mocked = State<Arc<Mocks>>;
type Answer = Result<Response, Problem>;

/// Every path with its methods.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Mocks>>)> {
    vec![
        ("/health", get(health)),
        ("/openapi.json", get(openapi)),
        ("/upstreams", get(upstreams::list)),
        ("/upstreams/{name}/contacts", get(upstreams::contacts).put(upstreams::seed).delete(upstreams::forget_all)),
        ("/upstreams/{name}/faults", get(upstreams::rules).post(upstreams::add_rule).delete(upstreams::clear_faults)),
        ("/upstreams/{name}/faults/{id}", delete(upstreams::drop_rule)),
        ("/upstreams/{name}/release", post(upstreams::release)),
        ("/upstreams/{name}/latency", put(upstreams::set_latency).delete(upstreams::drop_latency)),
        ("/upstreams/{name}/limits", put(upstreams::set_limits).delete(upstreams::drop_limits)),
        ("/scenario", put(play).get(progress).delete(end_scenario)),
        ("/journal", get(view::journal)),
        ("/deleted", get(view::deleted)),
        ("/checks", post(checks)),
        ("/reset", post(reset)),
    ]
}

fn router(mocks: Arc<Mocks>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    router
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(mocks)
}

async fn health() -> Response {
    answer(StatusCode::OK, &serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

async fn openapi() -> Response {
    typed(StatusCode::OK, OPENAPI)
}

async fn play(State(mocks): Mocked, body: Result<Bytes, BytesRejection>) -> Answer {
    let scenario: Scenario = read(&body_of(body)?)?;
    for (n, step) in scenario.steps.iter().enumerate() {
        let unknown = |err: super::UnknownUpstream| Problem::bad(format!("/steps/{n}/upstream"), err.to_string());
        let mock = mocks.find(&step.upstream).map_err(unknown)?;
        upstreams::admit_fault(mock, &step.fault, &format!("/steps/{n}"))?;
    }
    mocks.play(scenario)?;
    Ok(answer(StatusCode::OK, &mocks.progress()))
}

async fn progress(State(mocks): Mocked) -> Response {
    answer(StatusCode::OK, &mocks.progress())
}

async fn end_scenario(State(mocks): Mocked) -> Answer {
    mocks.play(Scenario::default())?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn checks(State(mocks): Mocked, body: Result<Bytes, BytesRejection>) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        checks: Vec<Check>,
    }
    let Asked { checks } = read(&body_of(body)?)?;
    for (n, check) in checks.iter().enumerate() {
        let at = |err: super::UnknownUpstream| Problem::bad(format!("/checks/{n}/upstream"), err.to_string());
        check.upstream.as_ref().map_or(Ok(()), |name| mocks.find(name).map(drop)).map_err(at)?;
    }
    let results = mocks.check(&checks)?;
    let ok = results.iter().all(|verdict| verdict.ok);
    Ok(answer(StatusCode::OK, &serde_json::json!({ "ok": ok, "results": results })))
}

async fn reset(State(mocks): Mocked, request: Request) -> Answer {
    let query = Query::of(&request, &["upstream"])?;
    match query.text("upstream") {
        Some(name) => mocks.find(name)?.reset(),
        None => mocks.reset(),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn nowhere() -> Problem {
    let known = routes().into_iter().map(|(path, _)| path.to_owned()).collect();
    Problem::unknown("There is no such path.", known)
}

async fn not_so() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "The path does not take this method; `Allow` has those that it takes.")
}

fn body_of(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|err| Problem::new(err.status(), "The body could not be read, or is too large."))
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    json::read(body).map_err(|(pointer, message)| Problem::bad(pointer, message))
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => typed(status, text),
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be written.").into_response(),
    }
}

fn typed(status: StatusCode, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
