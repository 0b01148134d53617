//! A Postgres server for tests, and databases in it.
//!
//! `ONEDELETE_TEST_POSTGRES` names a server by the URL of a role that may create databases. Without it, the machine's
//! own programs (`initdb`, `pg_ctl`) make a private server that listens on loopback and on a socket in its own folder;
//! all tests of a process share it, and it goes with the process, however that ends. With neither, tests say that they
//! are skipped and pass, unless `ONEDELETE_REQUIRE_POSTGRES` is set. A few stop their server, and always want one of
//! their own.
//!
//! It starts no container and downloads nothing.

#![allow(dead_code, unreachable_pub)]

mod server;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub use server::Server;

/// A database of one test's own. It is dropped with this.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// A new, empty database; `None` where there is no server, and the test is to be skipped.
    pub fn new() -> Option<Self> {
        match shared() {
            Ok(server) => Some(Self::on(server)),
            Err(why) => skip(why),
        }
    }

    /// A new, empty database on this server: a URL with any database of it.
    pub fn on(server: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("onedelete_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        execute(server, &[&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"), &format!("CREATE DATABASE {name}")])
            .unwrap_or_else(|error| panic!("the test's database cannot be made: {error}"));
        Self { server: server.to_owned(), name }
    }

    /// The URL that names it.
    pub fn url(&self) -> String {
        of_database(&self.server, &self.name)
    }

    /// Runs statements in it, one after the other, as the role that made it.
    pub fn execute(&self, statements: &[&str]) {
        execute(&self.url(), statements).unwrap_or_else(|error| panic!("a test's statement failed: {error:?}"));
    }

    /// The first column of what a query answers, as text.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let sql = sql.to_owned();
        on_connection(&self.url(), async move |client| {
            let messages = client.simple_query(&sql).await?;
            let row = |message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            };
            Ok(messages.into_iter().filter_map(row).collect())
        })
        .unwrap_or_else(|error| panic!("a test's query failed: {error:?}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that was stopped by its test took the database with it.
        let _ = execute(&self.server, &[&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)]);
    }
}

/// The URL of the server that all tests of this process share, or why there is none.
pub fn shared() -> Result<&'static str, &'static str> {
    static SHARED: OnceLock<Result<(String, Option<Server>), String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var("ONEDELETE_TEST_POSTGRES") {
        Ok(url) => Ok((url, None)),
        Err(_) => Server::start(&[]).map(|server| (server.url(), Some(server))),
    });
    shared.as_ref().map(|(url, _)| url.as_str()).map_err(String::as_str)
}

/// A server of the test's own, to be stopped, started and set up; `None` where the machine has no programs for it, and
/// the test is to be skipped. `ONEDELETE_TEST_POSTGRES` cannot stand in for it.
pub fn own_server(settings: &[&str]) -> Option<Server> {
    Server::start(settings).map_or_else(|why| skip(&why), Some)
}

fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("ONEDELETE_REQUIRE_POSTGRES").is_none(), "no Postgres ({why})");
    println!("skipped: no Postgres ({why})");
    None
}

/// The same URL with another database.
pub fn of_database(url: &str, name: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find('/').map_or(address.len(), |at| start + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{name}{query}", &address[..end])
}

/// Runs statements on a connection of their own.
pub fn execute(url: &str, statements: &[&str]) -> Result<(), tokio_postgres::Error> {
    let statements: Vec<_> = statements.iter().map(|&statement| statement.to_owned()).collect();
    on_connection(url, async move |client| {
        for statement in statements {
            // One by one: a database cannot be made inside a transaction.
            client.batch_execute(&statement).await?;
        }
        Ok(())
    })
}

/// On a thread and a runtime of its own, so that tests may call this from wherever they are.
pub fn on_connection<T: Send + 'static>(
    url: &str,
    act: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, tokio_postgres::Error> + Send + 'static,
) -> Result<T, tokio_postgres::Error> {
    let url = url.to_owned();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            tokio::select! {
                done = act(&client) => done,
                ended = connection => Err(ended.expect_err("it ends after the client")),
            }
        })
    });
    thread.join().unwrap()
}
