//! Connections to the server, and trying again.
//!
//! Everything that is run here is one statement, so it is carried out whole or not at all, and no transaction is ever
//! open between two messages. What it means when it is carried out twice is the statement's own affair: each of them
//! finds what an earlier attempt at the same left, even one that the server is still busy with.
//!
//! It does not go on for ever: after about a lease, whoever waits is told that the store failed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::fault::{Failure, NO_ANSWER};
use super::tls::Tls;
use crate::store::StoreError;

/// Pauses between attempts grow from the first to the second, in milliseconds; a random part of each is left out.
const PAUSE_MS: (u64, u64) = (50, 1_000);
/// The server ends a statement that takes too long; a server that does not is given up so much later.
const GRACE: Duration = Duration::from_secs(2);
/// No statement is given less than this, however short the lease is, unless the setting says so.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long closing waits for what is under way.
const CLOSE: Duration = Duration::from_secs(10);

/// A connection, for as long as one attempt has it.
pub(super) type Client = Arc<Object>;

/// The connections.
pub(super) struct Pool {
    inner: deadpool_postgres::Pool,
    /// How long something is tried.
    patience: Duration,
    /// How long one attempt may take.
    attempt: Duration,
    sound: AtomicBool,
    closing: CancellationToken,
    under_way: TaskTracker,
}

/// A parameter of a statement.
pub(super) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// Runs a statement that is prepared once on each connection.
pub(super) async fn query(client: &Object, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, parameters).await?)
}

/// The same, for one that answers with at most one row.
pub(super) async fn query_opt(
    client: &Object,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Option<Row>, Failure> {
    Ok(query(client, sql, parameters).await?.into_iter().next())
}

/// The same, for one that always answers with one row.
pub(super) async fn query_one(client: &Object, sql: &str, parameters: &[Parameter<'_>]) -> Result<Row, Failure> {
    query_opt(client, sql, parameters).await?.ok_or_else(Failure::unreadable)
}

impl Pool {
    pub(super) fn new(
        address: Address,
        tls: Tls,
        size: usize,
        connect_timeout: Duration,
        statement_timeout: Duration,
        patience: Duration,
    ) -> Result<Self, String> {
        let statement_timeout = statement_timeout.min(patience.max(SHORTEST_TIMEOUT));
        let first = first_words(statement_timeout);
        let hook = Hook::async_fn(move |client, _| {
            let first = first.clone();
            Box::pin(async move { client.batch_execute(&first).await.map_err(HookError::Backend) })
        });
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let inner = deadpool_postgres::Pool::builder(Manager::from_config(address.config, tls, config))
            .max_size(size.max(1))
            .wait_timeout(Some(patience))
            .create_timeout(Some(connect_timeout + GRACE))
            .recycle_timeout(Some(connect_timeout))
            .runtime(Runtime::Tokio1)
            .post_create(hook)
            .build();
        Ok(Self {
            inner: inner.map_err(|_| "no connections could be set up")?,
            patience,
            attempt: statement_timeout + GRACE,
            sound: AtomicBool::new(true),
            closing: CancellationToken::new(),
            under_way: TaskTracker::new(),
        })
    }

    /// One connection, for what is done once at the start.
    pub(super) async fn connect(&self) -> Result<Object, Failure> {
        Ok(self.inner.get().await?)
    }

    /// Runs a statement, and again on another connection where that may help. Each attempt gets its own `act`.
    pub(super) async fn run<T, F>(&self, act: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let _under_way = self.under_way.token();
        let start = Instant::now();
        let mut pause_ms = PAUSE_MS.0;
        loop {
            if self.closing.is_cancelled() {
                return Err(StoreError::Broken("it is closed".to_owned()));
            }
            let why = match self.once(&act).await {
                Ok(done) => {
                    self.say(None);
                    return Ok(done);
                }
                Err(Failure::Refused(error)) => {
                    self.say(None);
                    return Err(error);
                }
                Err(Failure::Lasting(why)) => {
                    self.say(Some(&why));
                    return Err(StoreError::Broken(why));
                }
                Err(Failure::Passing(why)) => why,
            };
            self.say(Some(&why));
            let pause = Duration::from_millis(fastrand::u64(pause_ms / 2..=pause_ms));
            if start.elapsed() + pause >= self.patience {
                return Err(StoreError::Broken(why));
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.closing.cancelled() => {}
            }
            pause_ms = (pause_ms * 2).min(PAUSE_MS.1);
        }
    }

    async fn once<T, F>(&self, act: &impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let client = Arc::new(self.inner.get().await?);
        let done = timeout(self.attempt, act(Arc::clone(&client))).await;
        let done = done.unwrap_or_else(|_| Err(Failure::Passing(NO_ANSWER.to_owned())));
        // Nobody knows what is still to come on a connection that failed: it is not used again.
        if let (Err(Failure::Passing(_) | Failure::Lasting(_)), Some(client)) = (&done, Arc::into_inner(client)) {
            drop(Object::take(client));
        }
        done
    }

    /// Whether the last call went well; says so when that changes.
    fn say(&self, failed: Option<&str>) {
        let was_sound = self.sound.swap(failed.is_none(), Ordering::Relaxed);
        match failed {
            Some(cause) if was_sound => tracing::warn!(cause, "the ledger's database fails"),
            None if !was_sound => tracing::info!("the ledger's database is back"),
            _ => {}
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.sound.load(Ordering::Relaxed) && !self.closing.is_cancelled()
    }

    /// Waits for what is under way, for a while, and closes every connection.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.under_way.close();
        if timeout(CLOSE, self.under_way.wait()).await.is_err() {
            tracing::warn!("the ledger's database did not answer before the end");
        }
        self.inner.close();
    }
}

/// What every connection is told first.
fn first_words(statement_timeout: Duration) -> String {
    // An acknowledgement is worth what the disk has: nobody's default may weaken that, but it may be stricter.
    // Every statement has its index. A plan that was made while a table was empty must not stay a walk through it.
    // Under READ COMMITTED a statement that waited for a row looks at it anew; under a stricter level it would fail.
    format!(
        "SELECT set_config('synchronous_commit', 'on', false)
            WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply');
        SET default_transaction_isolation = 'read committed';
        SET default_transaction_read_only = off;
        SET statement_timeout = {};
        SET idle_in_transaction_session_timeout = '60s';
        SET search_path = pg_catalog;
        SET client_min_messages = warning;
        SET enable_seqscan = off;
        SET jit = off",
        statement_timeout.as_millis().clamp(1, i32::MAX as u128)
    )
}
