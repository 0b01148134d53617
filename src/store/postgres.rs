//! The ledger in a Postgres database: durable, and shared by any number of gateways.
//!
//! A gateway claims a part under a lease by the database's clock, and renews it while it works. Whoever does not,
//! because it crashed or stands still, loses the part to the next that asks, under a higher fence; everything that it
//! writes under its old fence is refused. So two gateways may believe for a while that a part is theirs, but only one
//! can put anything down. Where a gateway ends between the last result of a deletion and its end, an idle `claim` or a
//! `purge` of any gateway makes up for the end, once a lease has passed.
//!
//! Whatever fails for now (a connection, a restart, a deadlock) is tried again for about a lease. Only then is the
//! caller told, and the store is of use again as soon as the database is: unlike a file, it does not stay broken. That
//! a commit reached the disk, and what a standby has of it, is the server's affair; `synchronous_commit` is on for all
//! that is written here. Connections must be the gateway's own: a pooler that hands each transaction to another one
//! will not do.
//!
//! Identifiers are deleted with the last result of their part, and the table is vacuumed soon after. What cannot be
//! promised: that their bytes are gone at once. A deleted row stays in its page until the vacuum, and in unused room of
//! files until that is written over; copies are in the server's log (WAL) until it is recycled, on standbys, in
//! archives and in backups for as long as those are kept. Parameters of statements may be in the server's own log, if
//! it is told to log them.

mod address;
mod arrive;
mod body;
mod fault;
mod pace;
mod pool;
mod purge;
mod read;
mod schema;
mod tally;
#[cfg(test)]
mod tests;
mod tls;
mod work;

use std::collections::HashMap;
use std::future::{Future, ready};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use self::address::Address;
use self::fault::Failure;
use self::pool::Pool;
use self::tls::Tls;
use self::work::Claiming;
use super::{
    Accept, Accepted, Claim, DeletionId, Filter, Head, Hold, Intent, Job, Ledger, Loads, Page, Part, PartKey, Purge,
    Purged, Record, Reply, StoreError, Summary, Turn,
};

/// The shortest lease: less would not leave time to renew it.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);
/// The oldest server that knows every statement: Postgres 13.
const OLDEST_SERVER: i32 = 130_000;
/// It is looked for deletions that nobody closed at most so often.
const LEFT_BEHIND: Duration = Duration::from_secs(4);
/// What was erased is vacuumed at most so often.
const VACUUM_EVERY: Duration = Duration::from_secs(60);

/// How to reach and use a database.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// `postgres://user@host/database?sslmode=…`. Without an `sslmode`, a server on another machine must have a
    /// certificate that is trusted and bears its name (`verify-full`).
    pub url: SecretString,
    /// The user's password, if it is not in the URL.
    pub password: Option<SecretString>,
    /// A file of the authorities that are trusted (PEM); `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// The most connections; at least 1.
    pub pool_size: usize,
    /// How long one connection may take.
    pub connect_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long a claimed part stays claimed without being renewed; at least 2 s.
    pub lease: Duration,
    /// The key of the hashes; `None` for the one that the database was given when its tables were made.
    pub hash_key: Option<[u8; 16]>,
    /// Whether identifiers stay until [`Ledger::purge`] erases them, and not only until their part is over.
    pub keep_identifiers: bool,
}

impl PostgresSettings {
    /// The defaults, for a database at `url`.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            password: None,
            ca_file: None,
            pool_size: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lease: Duration::from_secs(30),
            hash_key: None,
            keep_identifiers: false,
        }
    }
}

/// A ledger in a Postgres database.
pub struct Postgres {
    pool: Pool,
    hash_key: [u8; 16],
    lease: Duration,
    keep_identifiers: bool,
    chores: Mutex<Chores>,
}

/// What is done on the way, and not too often.
#[derive(Debug, Default)]
struct Chores {
    finished_left_behind: Option<Instant>,
    vacuumed: Option<Instant>,
    /// Whether something was erased since.
    erased: bool,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Opens the ledger in a database, and makes its tables, in a schema `onedelete`, where there are none.
    ///
    /// # Errors
    /// One line that says what is the matter: the URL, TLS, the server, the user, the schema, or a newer version.
    pub async fn open(settings: PostgresSettings) -> Result<Self, StoreError> {
        let lease = settings.lease.max(SHORTEST_LEASE);
        let pool = connections(&settings, lease).map_err(StoreError::Broken)?;
        let in_one_line = |failure: Failure| StoreError::Broken(failure.into_line());
        let mut client = pool.connect().await.map_err(in_one_line)?;
        check_server(&client).await.map_err(in_one_line)?;
        let hash_key = schema::migrate(&mut client).await.map_err(in_one_line)?;
        Ok(Self {
            pool,
            hash_key: settings.hash_key.unwrap_or(hash_key),
            lease,
            keep_identifiers: settings.keep_identifiers,
            chores: Mutex::default(),
        })
    }

    fn lease_ms(&self) -> i64 {
        i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX)
    }

    /// Claims a part, but does not read it yet. An idle gateway looks whether somebody left a deletion open behind.
    async fn take(&self, loads: &Arc<Loads>) -> Result<Option<PartKey>, StoreError> {
        let lease_ms = self.lease_ms();
        let claiming = Arc::new(Claiming::new());
        let taken = self.pool.run(|client| {
            let (claiming, loads) = (Arc::clone(&claiming), Arc::clone(loads));
            async move { work::claim(&client, &claiming, &loads, lease_ms).await }
        });
        let taken = taken.await?;
        if taken.is_none() && self.is_time(|chores| &mut chores.finished_left_behind, LEFT_BEHIND.min(self.lease)) {
            self.finish_left_behind().await?;
        }
        Ok(taken)
    }

    async fn finish_left_behind(&self) -> Result<(), StoreError> {
        let lease_ms = self.lease_ms();
        self.pool.run(|client| async move { work::finish_left_behind(&client, lease_ms).await }).await
    }

    /// Whether a chore was not done for so long. If so, it is taken to be done now.
    fn is_time(&self, of: impl Fn(&mut Chores) -> &mut Option<Instant>, every: Duration) -> bool {
        let mut chores = self.chores.lock().unwrap_or_else(PoisonError::into_inner);
        let last = of(&mut chores);
        let due = last.is_none_or(|last| last.elapsed() >= every);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    fn note_erased(&self, erased: bool) {
        if erased {
            self.chores.lock().unwrap_or_else(PoisonError::into_inner).erased = true;
        }
    }

    async fn forget(&self, purge: Purge) -> Result<Purged, StoreError> {
        let keep = self.keep_identifiers;
        let mut purged = Purged::default();
        for step in purge::STEPS {
            let done = self.pool.run(|client| async move { purge::step(&client, step, purge, keep).await });
            let (done, erased) = done.await?;
            self.note_erased(erased);
            purged = Purged {
                keys: purged.keys + done.keys,
                deletions: purged.deletions + done.deletions,
                identifiers: purged.identifiers + done.identifiers,
                drafts: purged.drafts + done.drafts,
                more: purged.more || done.more,
            };
        }
        self.finish_left_behind().await?;
        self.vacuum().await;
        Ok(purged)
    }

    /// Nothing depends on it: the server's own vacuum comes later.
    async fn vacuum(&self) {
        let erased = self.chores.lock().unwrap_or_else(PoisonError::into_inner).erased;
        if erased && self.is_time(|chores| &mut chores.vacuumed, VACUUM_EVERY) {
            let done = self.pool.run(|client| async move { purge::vacuum(&client).await }).await;
            self.chores.lock().unwrap_or_else(PoisonError::into_inner).erased = done.is_err();
        }
    }
}

fn connections(settings: &PostgresSettings, lease: Duration) -> Result<Pool, String> {
    let authorities = settings.ca_file.as_deref();
    let address =
        Address::parse(&settings.url, settings.password.as_ref(), authorities.is_some(), settings.connect_timeout)?;
    let tls = address.check.map_or_else(|| Ok(Tls::none()), |check| Tls::new(check, authorities))?;
    Pool::new(address, tls, settings.pool_size, settings.connect_timeout, settings.statement_timeout, lease)
}

/// Refuses a server that is too old, and says what it does not do for those who rely on it.
async fn check_server(client: &deadpool_postgres::Object) -> Result<(), Failure> {
    let sql = "SELECT current_setting('server_version_num')::integer";
    if client.query_one(sql, &[]).await?.try_get::<_, i32>(0)? < OLDEST_SERVER {
        return Err(Failure::Lasting("the database server is older than Postgres 13".to_owned()));
    }
    let sql =
        "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'autovacuum') AND setting = 'off'";
    for row in client.query(sql, &[]).await? {
        let setting: &str = row.try_get(0)?;
        let risk = match setting {
            "autovacuum" => "what is erased stays in the database's files",
            _ => "what was acknowledged may be lost with the server's power",
        };
        tracing::warn!(setting, risk, "a setting of the ledger's database is off");
    }
    Ok(())
}

impl Ledger for Postgres {
    fn hash_key(&self) -> [u8; 16] {
        self.hash_key
    }

    fn lease(&self) -> Option<Duration> {
        Some(self.lease)
    }

    fn draft(&self, id: DeletionId, tenant: Arc<str>, part: Arc<Part>) -> Reply<'_, ()> {
        let keep = self.keep_identifiers;
        Box::pin(async move {
            let act = |client| {
                let (tenant, part): (Arc<str>, Arc<Part>) = (Arc::clone(&tenant), Arc::clone(&part));
                async move { arrive::draft(&client as &pool::Client, id, &tenant, &part, keep).await }
            };
            self.pool.run(act).await
        })
    }

    fn discard(&self, id: DeletionId) -> Reply<'_, ()> {
        Box::pin(self.pool.run(move |client| async move { arrive::discard(&client, id).await }))
    }

    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted> {
        let (lease_ms, keep) = (self.lease_ms(), self.keep_identifiers);
        Box::pin(self.pool.run(move |client| {
            let deletion = Arc::clone(&deletion);
            async move { arrive::accept(&client, &deletion, lease_ms, keep).await }
        }))
    }

    fn claim(&self, loads: Arc<Loads>) -> Reply<'_, Option<Job>> {
        Box::pin(async move {
            let Some(key) = self.take(&loads).await? else { return Ok(None) };
            self.pool.run(|client| async move { work::job(&client, key).await }).await.map(Some)
        })
    }

    fn renew(&self, keys: Vec<PartKey>) -> Reply<'_, Vec<Hold>> {
        let (keys, lease_ms): (Arc<[PartKey]>, _) = (keys.into(), self.lease_ms());
        Box::pin(self.pool.run(move |client| {
            let keys = Arc::clone(&keys);
            async move { work::renew(&client, &keys, lease_ms).await }
        }))
    }

    fn release(&self, key: PartKey) -> Reply<'_, ()> {
        Box::pin(self.pool.run(move |client| async move { work::release(&client, key).await }))
    }

    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        let intent = Arc::new(intent);
        Box::pin(self.pool.run(move |client| {
            let intent = Arc::clone(&intent);
            async move { work::intent(&client, &intent).await }
        }))
    }

    fn record(&self, record: Record) -> Reply<'_, ()> {
        let (record, keep) = (Arc::new(record), self.keep_identifiers);
        Box::pin(async move {
            let done = self.pool.run(|client| {
                let record = Arc::clone(&record);
                async move { work::record(&client, &record, keep).await }
            });
            self.note_erased(done.await?);
            Ok(())
        })
    }

    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, bool> {
        Box::pin(self.pool.run(move |client| async move { work::finish(&client, id, finished_ms).await }))
    }

    fn ended(&self) -> Reply<'_, Vec<Head>> {
        // Whoever ended the last part may be about to close it; `take` closes what stays open for longer than a lease.
        Box::pin(ready(Ok(Vec::new())))
    }

    fn cancel(&self, id: DeletionId, cancelled_ms: i64) -> Reply<'_, ()> {
        Box::pin(self.pool.run(move |client| async move { work::cancel(&client, id, cancelled_ms).await }))
    }

    fn read(&self, id: DeletionId) -> Reply<'_, Option<Summary>> {
        Box::pin(self.pool.run(move |client| async move { read::read(&client, id).await }))
    }

    fn read_of(&self, tenant: Arc<str>, id: DeletionId) -> Reply<'_, Option<Summary>> {
        Box::pin(self.pool.run(move |client| {
            let tenant = Arc::clone(&tenant);
            async move { read::read_of(&client, &tenant, id).await }
        }))
    }

    fn page(&self, id: DeletionId, part: u32) -> Reply<'_, Option<Page>> {
        Box::pin(self.pool.run(move |client| async move { read::page(&client, id, part).await }))
    }

    fn list(&self, filter: Filter) -> Reply<'_, Vec<Summary>> {
        let filter = Arc::new(filter);
        Box::pin(self.pool.run(move |client| {
            let filter = Arc::clone(&filter);
            async move { read::list(&client, &filter).await }
        }))
    }

    fn claimed(&self, claim: Claim) -> Reply<'_, Accepted> {
        Box::pin(self.pool.run(move |client| async move { read::claimed(&client, claim).await }))
    }

    fn backlog(&self) -> Reply<'_, HashMap<Arc<str>, u64>> {
        Box::pin(self.pool.run(|client| async move { read::backlog(&client).await }))
    }

    fn purge(&self, purge: Purge) -> Reply<'_, Purged> {
        Box::pin(self.forget(purge))
    }

    fn turn(&self, turn: Turn) -> Reply<'_, Duration> {
        let turn = Arc::new(turn);
        Box::pin(self.pool.run(move |client| {
            let turn = Arc::clone(&turn);
            async move { pace::turn(&client, &turn).await }
        }))
    }

    fn hold(&self, tenant: Arc<str>, connection: Arc<str>, hold: Duration) -> Reply<'_, ()> {
        Box::pin(self.pool.run(move |client| {
            let (tenant, connection) = (Arc::clone(&tenant), Arc::clone(&connection));
            async move { pace::hold(&client, &tenant, &connection, hold).await }
        }))
    }

    fn healthy(&self) -> bool {
        self.pool.is_sound()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.pool.close())
    }
}
