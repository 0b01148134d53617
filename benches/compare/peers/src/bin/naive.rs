//! What one writes first: axum's extractor, one shared reqwest client, serde's types. `naive PORT UPSTREAM SLOW_UPSTREAM`,
//! the last two as addresses.
//!
//! It keeps no books, checks no key and counts nothing.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a peer of the comparison, not a part of the product"
)]

use std::collections::HashSet;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

const CREDENTIAL: &str = "eyJhbGciOiJIUzI1NiJ9.e30.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[derive(Clone)]
struct App {
    http: reqwest::Client,
    fast: String,
    slow: String,
}

#[derive(Deserialize)]
struct Asked {
    connection: String,
    ids: Vec<String>,
}

#[derive(Serialize)]
struct Bulk<'a> {
    ids: &'a [String],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    successful_records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: String,
}

#[derive(Serialize)]
struct Answer {
    connection: String,
    requested: usize,
    deleted: usize,
    failed: usize,
    results: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    id: String,
    status: &'static str,
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().unwrap().parse().unwrap();
    let mut upstream = || format!("http://{}", arguments.next().unwrap());
    let app = App { http: reqwest::Client::new(), fast: upstream(), slow: upstream() };
    let routes = Router::new().route("/v1/delete", post(delete)).layer(DefaultBodyLimit::max(16 << 20)).with_state(app);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, routes).await.unwrap();
}

async fn delete(State(app): State<App>, Json(asked): Json<Asked>) -> Result<Json<Answer>, StatusCode> {
    let Asked { connection, ids } = asked;
    let results: Vec<_> = if connection == "support" { all(&app, ids).await? } else { each(&app, ids).await };
    let deleted = results.iter().filter(|item| item.status == "deleted").count();
    let requested = results.len();
    Ok(Json(Answer { connection, requested, deleted, failed: requested - deleted, results }))
}

async fn all(app: &App, ids: Vec<String>) -> Result<Vec<Item>, StatusCode> {
    let bad = |_| StatusCode::BAD_GATEWAY;
    let route = format!("{}/agentassist/api/v1/public/st-1/contacts/bulk-delete", app.fast);
    let request = app.http.delete(route).header("accountId", "acc-1").header("auth", CREDENTIAL);
    let reply = request.json(&Bulk { ids: &ids }).send().await.map_err(bad)?.error_for_status().map_err(bad)?;
    let reply: Reply = reply.json().await.map_err(bad)?;
    let deleted: HashSet<_> = reply.successful_records.iter().map(|record| record.id.as_str()).collect();
    let item = |id: String| Item { status: if deleted.contains(id.as_str()) { "deleted" } else { "failed" }, id };
    Ok(ids.into_iter().map(item).collect())
}

async fn each(app: &App, ids: Vec<String>) -> Vec<Item> {
    let call = |id: String| async {
        let route = format!("{}/api/contact/{id}", app.slow);
        let reply = app.http.delete(route).header("authorization", CREDENTIAL).send().await;
        let good = match reply {
            Ok(reply) => reply.status().is_success() && reply.bytes().await.is_ok(),
            Err(_) => false,
        };
        Item { id, status: if good { "deleted" } else { "failed" } }
    };
    futures_util::stream::iter(ids.into_iter().map(call)).buffered(64).collect().await
}
