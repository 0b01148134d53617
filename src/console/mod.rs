//! The operators' page on the admin listener: connections, running deletions, one deletion, the last hour.
//!
//! It is made by the server, loads nothing from elsewhere and changes nothing but by its forms. It shows no identifier, no
//! caller's own name of a contact and no credential; whoever wants numbers over a longer time asks Prometheus.

mod charts;
mod connections;
mod deletion;
mod door;
mod overview;
mod page;
mod results;
mod tenant;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use self::door::{Door, Form, Refusal, Visitor};
use self::page::{Page, Place};
use crate::clock;
use crate::desk::Desk;
use crate::engine::driver::Engine;
use crate::store::DeletionId;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page may use its own style and script, ask its own gateway and send its forms there. It is nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What every answer says. Without its own origin as referrer, a form would come from nowhere.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_FRAME_OPTIONS, "DENY"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

/// What the console shows, and to whom.
pub struct Console {
    desk: Arc<Desk>,
    engine: Arc<Engine>,
    door: Door,
    configuration: Configured,
    started_ms: i64,
}

/// Asks for the running configuration; `None` where nobody keeps count of it.
pub type Configured = Arc<dyn Fn() -> Option<Configuration> + Send + Sync>;

/// The configuration that is used, and what became of the last one that was not.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Its version.
    pub version: String,
    /// When it was loaded, in milliseconds since 1970-01-01 UTC.
    pub loaded_ms: i64,
    /// When a later one was refused, and why, if that was the last that happened.
    pub refused: Option<(i64, String)>,
}

/// Who may look.
#[derive(Debug)]
pub struct Access<'t> {
    /// Where the admin listener is.
    pub listen: SocketAddr,
    /// The token that opens the console.
    pub token: Option<&'t str>,
    /// Whether browsers reach it through TLS.
    pub secure: bool,
}

impl Console {
    /// Of a gateway that starts now.
    pub fn new(desk: Arc<Desk>, engine: Arc<Engine>, access: &Access<'_>, configuration: Configured) -> Self {
        let door = Door::new(access.listen, access.token, access.secure);
        Self { desk, engine, door, configuration, started_ms: clock::unix_ms() }
    }
}

/// `/console` and what stands below it.
pub fn routes(console: Console) -> Router {
    let console = Arc::new(console);
    Router::new()
        .route("/console", get(overview))
        .route("/console/deletions", get(deletions))
        .route("/console/deletions/{deletion}", get(one_deletion))
        .route("/console/deletions/{deletion}/cancel", post(cancel))
        .route("/console/tenants/{tenant}", get(one_tenant))
        .route("/console/sign-out", post(sign_out))
        .layer(from_fn_with_state(Arc::clone(&console), admit))
        .route("/console/sign-in", get(sign_in_page).post(sign_in))
        .route("/console/page.css", get(async || file(STYLE, "text/css; charset=utf-8")))
        .route("/console/page.js", get(async || file(SCRIPT, "text/javascript; charset=utf-8")))
        .layer(from_fn(harden))
        .with_state(console)
}

/// Lets nobody in whom the door does not.
async fn admit(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    match console.door.admit(request).await {
        Ok(request) => next.run(request).await,
        Err(Refusal::SignIn) => go_to("/console/sign-in"),
        Err(refusal) => refused(refusal),
    }
}

async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn overview(State(console): State<Arc<Console>>, Extension(visitor): Extension<Visitor>, uri: Uri) -> Response {
    match overview::page(&console, &visitor, &Query::of(&uri)).await {
        Ok(page) => html(StatusCode::OK, page),
        Err(Unreadable) => unreadable(&visitor),
    }
}

async fn deletions(State(console): State<Arc<Console>>, Extension(visitor): Extension<Visitor>, uri: Uri) -> Response {
    let asked = Query::of(&uri);
    // What was typed into the field above the table.
    match asked.member("id").map(str::trim).filter(|id| !id.is_empty()).map(str::parse::<DeletionId>) {
        Some(Ok(id)) => return go_to(&format!("/console/deletions/{id}")),
        Some(Err(_)) => return missing(&visitor, "No deletion has such a name"),
        None => {}
    }
    match overview::deletions(&console, &visitor).await {
        Ok(page) => html(StatusCode::OK, page),
        Err(Unreadable) => unreadable(&visitor),
    }
}

async fn one_deletion(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Response {
    let Some(id) = deletion_id(id) else { return missing(&visitor, "No deletion has such a name") };
    match deletion::page(&console, &visitor, id, &Query::of(&uri)).await {
        Ok(Some(page)) => html(StatusCode::OK, page),
        Ok(None) => missing(&visitor, "There is no such deletion"),
        Err(Unreadable) => unreadable(&visitor),
    }
}

async fn one_tenant(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Response {
    let Ok(Path(id)) = id else { return missing(&visitor, "There is no such tenant") };
    match tenant::page(&console, &visitor, &id, &Query::of(&uri)).await {
        Ok(Some(page)) => html(StatusCode::OK, page),
        Ok(None) => missing(&visitor, "There is no such tenant"),
        Err(Unreadable) => unreadable(&visitor),
    }
}

async fn cancel(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Extension(form): Extension<Form>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Some(id) = deletion_id(id) else { return missing(&visitor, "No deletion has such a name") };
    if form.member("sure").is_none() {
        return go_to(&format!("/console/deletions/{id}"));
    }
    match console.engine.read(id).await {
        Ok(Some(_)) => {}
        Ok(None) => return missing(&visitor, "There is no such deletion"),
        Err(_) => return unreadable(&visitor),
    }
    if console.engine.cancel(id).await.is_err() {
        return unreadable(&visitor);
    }
    tracing::info!(deletion = %id, "cancelled at the console");
    go_to(&format!("/console/deletions/{id}"))
}

async fn sign_in_page(State(console): State<Arc<Console>>, request: Request) -> Response {
    match console.door.is_ours(&request.into_parts().0) {
        Ok(()) => html(StatusCode::OK, sign_in_form(None)),
        Err(refusal) => refused(refusal),
    }
}

async fn sign_in(State(console): State<Arc<Console>>, request: Request) -> Response {
    match console.door.sign_in(request).await {
        Ok(cookie) => with_cookie(&cookie),
        Err(Refusal::WrongToken) => {
            tracing::warn!("somebody showed a wrong token at the console");
            html(StatusCode::FORBIDDEN, sign_in_form(Some("This is not the token.")))
        }
        Err(refusal) => refused(refusal),
    }
}

async fn sign_out(State(console): State<Arc<Console>>) -> Response {
    with_cookie(&console.door.sign_out())
}

fn sign_in_form(wrong: Option<&'static str>) -> String {
    let mut page = Page::new("Sign in", Place::Elsewhere, None, 0);
    if let Some(wrong) = wrong {
        page.raw("<p role=\"alert\" class=\"bad\">").raw(wrong).raw("</p>");
    }
    page.raw("<form method=\"post\" action=\"/console/sign-in\" class=\"sign-in\">");
    page.raw("<label for=\"admin-token\">Token</label>");
    page.raw(
        "<input id=\"admin-token\" name=\"admin_token\" type=\"password\" required autocomplete=\"current-password\">",
    );
    page.raw("<button>Sign in</button></form><p>It is what the setting <code>server.admin_token</code> leads to.</p>");
    page.end()
}

/// The ledger could not be read.
struct Unreadable;

impl From<crate::store::StoreError> for Unreadable {
    fn from(_: crate::store::StoreError) -> Self {
        Self
    }
}

/// What is asked for behind the question mark. Members that are not known are left out.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri) -> Self {
        Self(form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    fn member(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> usize {
        self.member(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

fn deletion_id(path: Result<Path<String>, PathRejection>) -> Option<DeletionId> {
    path.ok()?.0.parse().ok()
}

fn refused(refusal: Refusal) -> Response {
    let (status, text) = match refusal {
        Refusal::Closed => (
            StatusCode::FORBIDDEN,
            "The console is closed: the admin listener is not on loopback, and `server.admin_token` is not set.",
        ),
        Refusal::ForeignHost => (
            StatusCode::MISDIRECTED_REQUEST,
            "Without `server.admin_token`, the console answers to `localhost` and to loopback addresses alone.",
        ),
        Refusal::ForeignPage => (
            StatusCode::FORBIDDEN,
            "This was not sent from a page of the console, or the gateway was started again since. Nothing was changed: \
             open the page again.",
        ),
        Refusal::TooManyGuesses => (StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens. Wait a minute."),
        Refusal::WrongToken | Refusal::SignIn => (StatusCode::UNAUTHORIZED, "This is not the token."),
    };
    let mut page = Page::new("Refused", Place::Elsewhere, None, 0);
    page.raw("<p>").prose(text).raw("</p>");
    html(status, page.end())
}

fn missing(visitor: &Visitor, what: &'static str) -> Response {
    let mut page = Page::new("Not found", Place::Elsewhere, Some(visitor), 0);
    page.raw("<p>").raw(what).raw(".</p>");
    html(StatusCode::NOT_FOUND, page.end())
}

fn unreadable(visitor: &Visitor) -> Response {
    let mut page = Page::new("The store failed", Place::Elsewhere, Some(visitor), 0);
    page.raw("<p>The ledger cannot be read or written now. The log says why.</p>");
    html(StatusCode::SERVICE_UNAVAILABLE, page.end())
}

fn html(status: StatusCode, page: String) -> Response {
    let mut response = (status, page).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn file(text: &'static str, media: &'static str) -> Response {
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Whatever was done is not done again by loading the page anew.
fn go_to(place: &str) -> Response {
    let mut headers = HeaderMap::new();
    if let Ok(place) = HeaderValue::try_from(place) {
        headers.insert(LOCATION, place);
    }
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn with_cookie(cookie: &str) -> Response {
    let mut response = go_to("/console");
    if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
