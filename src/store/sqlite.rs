//! The ledger in one SQLite file: durable, for one gateway, on a local disk.
//!
//! One thread owns the connection that writes. It puts everything that waits for it into one transaction, and answers
//! only once that is on the disk, so one `fsync` answers many callers. Reads have a thread and a connection of their
//! own: in WAL mode they neither wait for a write nor hold one up, and see every commit made before they start.
//!
//! The identifiers of a part that is over are overwritten in the database at once, and gone from the log soon after.
//!
//! It does not share its file with another gateway (`PATH.lock` is locked while it is open), and does not belong on a
//! network file system. It does not go on after a failed write: what an `fsync` that failed left on the disk cannot be
//! known, so the store is broken from then on.

mod backup;
mod body;
mod check;
mod fault;
mod file;
mod log;
mod look;
mod purge;
mod reader;
mod rows;
mod tables;
#[cfg(test)]
mod tests;
mod version_1;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, ready};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::backup::backup;
pub use self::check::{Report, check};
use self::fault::Failure;
use self::log::Log;
use self::reader::{Query, Reader};
use self::writer::{After, Claimed, Command, GivenBack, Write, Writer};
use super::{
    Accept, Accepted, Claim, DeletionId, Filter, Head, Hold, Intent, Job, Ledger, Loads, Page, Part, PartKey, Purge,
    Purged, Record, Reply, StoreError, Summary, Turn,
};

/// Callers beyond this wait for a place before they are taken in.
const QUEUE: usize = 256;

/// How a ledger is kept.
#[derive(Clone, Default)]
pub struct Options {
    /// The key of the hashes that stay of identifiers; the file's own, made by chance when it was begun, if `None`.
    pub hash_key: Option<[u8; 16]>,
    /// Whether the identifiers of a part that is over stay until [`Ledger::purge`]; else they are erased at once.
    pub keep_identifiers: bool,
}

/// A ledger in a SQLite file.
///
/// It must be let go of with [`Ledger::close`] where the file is needed again: when it is dropped, its threads finish
/// what was sent to them and end by themselves, but nobody waits for that.
pub struct Sqlite {
    commands: mpsc::Sender<Command>,
    queries: mpsc::Sender<Query>,
    broken: Broken,
    /// Closed by the writer's last act.
    ended: watch::Receiver<()>,
    hash_key: [u8; 16],
    keep: bool,
    given_back: Arc<GivenBack>,
    #[cfg(test)]
    probe: Arc<writer::Probe>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("keep_identifiers", &self.keep_identifiers).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sqlite(…)")
    }
}

/// Why the store cannot be used any more, once it cannot: the first cause.
type Broken = Arc<OnceLock<String>>;

/// Ends the use of the store, and says why: the one place where that is logged.
fn fail(broken: &Broken, during: &str, cause: &str) -> String {
    let cause = format!("{during}: {cause}");
    tracing::error!(cause, "the ledger failed");
    // The first cause stays.
    let _ = broken.set(cause.clone());
    cause
}

impl Sqlite {
    /// Opens the ledger at `path`, or begins one if there is no file or an empty one. Whatever was being worked waits
    /// to be claimed then, and drafts are thrown away. An older version's tables are brought up to date.
    ///
    /// A file of up to 128 MiB is examined as a whole (`PRAGMA quick_check`); of a larger one, only the tables that
    /// unfinished work is taken up from. This blocks.
    ///
    /// # Errors
    /// One line that says what is the matter: no such folder, not a SQLite file, another program's, a newer version's,
    /// damaged, in use, or not usable. The file is left as it was.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let file = file::open(path).map_err(StoreError::Broken)?;
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let (queries, query_queue) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(());
        let broken = Broken::default();
        let given_back = Arc::default();
        let no_thread = |error: std::io::Error| StoreError::Broken(format!("no thread for the ledger: {error}"));

        let clock = runtime::Builder::new_current_thread().enable_time().build().map_err(no_thread)?;
        let reader = Reader { connection: file.reader, queue: query_queue, broken: Arc::clone(&broken) };
        let reader = thread::Builder::new().name("ledger-reader".to_owned()).spawn(|| reader.run());
        let writer = Writer {
            connection: file.writer,
            queue: command_queue,
            reader: reader.map_err(no_thread)?,
            broken: Arc::clone(&broken),
            lock: file.lock,
            end,
            clock,
            // The last process may have ended before it could empty the log.
            log: Log::unknown(),
            given_back: Arc::clone(&given_back),
            unswept: file.unswept.then_some(0),
            #[cfg(test)]
            probe: Arc::default(),
        };
        #[cfg(test)]
        let probe = Arc::clone(&writer.probe);
        // Nobody joins it: `ended` says when it has let go of everything.
        thread::Builder::new().name("ledger-writer".to_owned()).spawn(|| writer.run()).map_err(no_thread)?;
        Ok(Self {
            commands,
            queries,
            broken,
            ended,
            hash_key: options.hash_key.unwrap_or(file.hash_key),
            keep: options.keep_identifiers,
            given_back,
            #[cfg(test)]
            probe,
        })
    }

    /// Has something changed, about so many contacts.
    async fn write<T: Send + 'static>(
        &self,
        contacts: usize,
        act: impl FnOnce(&Connection, &mut After) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.usable()?;
        let (write, answer) = Write::new(contacts, act);
        let sent = self.commands.send(Command::Write(write)).await;
        sent.map_err(|_| self.gone())?;
        self.answer(answer).await
    }

    /// Has something looked up.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.usable()?;
        let (query, answer) = Query::new(look);
        let sent = self.queries.send(query).await;
        sent.map_err(|_| self.gone())?;
        self.answer(answer).await
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn usable(&self) -> Result<(), StoreError> {
        self.broken.get().map_or(Ok(()), |cause| Err(StoreError::Broken(cause.clone())))
    }

    /// A thread ended without an answer: the store is closed or broken, or the thread panicked.
    fn gone(&self) -> StoreError {
        StoreError::Broken(self.broken.get_or_init(|| "a thread of it ended".to_owned()).clone())
    }

    /// The writer says which part is theirs, and the reader what is in it: to read ten thousand contacts would hold
    /// up who writes. A part that cannot be read stays claimed, so that it does not come up again and again.
    async fn claim_and_read(&self, loads: Arc<Loads>) -> Result<Option<Job>, StoreError> {
        let given_back = Arc::clone(&self.given_back);
        let claimed = self.write(1, move |connection, _| {
            Ok(rows::claim(connection, &loads)?.map(|key| Claimed::new(key, given_back)))
        });
        let Some(claimed) = claimed.await? else { return Ok(None) };
        let key = claimed.key();
        let job = self.look(move |connection| look::job(connection, key)).await;
        claimed.keep();
        job.map(Some)
    }

    async fn end(&self) {
        let _ = self.broken.set("it is closed".to_owned());
        // The queues are first come, first served: what was sent before is carried out before.
        // Where a thread has ended already, there is nobody left to tell.
        let _ = self.queries.send(Query::Close).await;
        let _ = self.commands.send(Command::Close).await;
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl Ledger for Sqlite {
    fn hash_key(&self) -> [u8; 16] {
        self.hash_key
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn draft(&self, id: DeletionId, tenant: Arc<str>, part: Arc<Part>) -> Reply<'_, ()> {
        let keep = self.keep;
        Box::pin(
            self.write(part.contacts.len(), move |connection, _| rows::draft(connection, keep, id, &tenant, &part)),
        )
    }

    fn discard(&self, id: DeletionId) -> Reply<'_, ()> {
        Box::pin(self.write(1, move |connection, after| purge::discard(connection, id, after)))
    }

    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted> {
        let (keep, contacts) = (self.keep, deletion.last.contacts.len());
        Box::pin(self.write(contacts, move |connection, after| rows::accept(connection, keep, &deletion, after)))
    }

    fn claim(&self, loads: Arc<Loads>) -> Reply<'_, Option<Job>> {
        Box::pin(self.claim_and_read(loads))
    }

    fn renew(&self, keys: Vec<PartKey>) -> Reply<'_, Vec<Hold>> {
        Box::pin(self.look(move |connection| keys.into_iter().map(|key| look::hold(connection, key)).collect()))
    }

    fn release(&self, key: PartKey) -> Reply<'_, ()> {
        Box::pin(self.write(1, move |connection, _| rows::release(connection, key)))
    }

    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        Box::pin(self.write(intent.slots.len(), move |connection, _| rows::intent(connection, &intent)))
    }

    fn record(&self, record: Record) -> Reply<'_, ()> {
        let keep = self.keep;
        let contacts = record.settled.len();
        Box::pin(self.write(contacts, move |connection, after| rows::record(connection, keep, &record, after)))
    }

    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, bool> {
        Box::pin(self.write(1, move |connection, _| rows::finish(connection, id, finished_ms)))
    }

    fn cancel(&self, id: DeletionId, cancelled_ms: i64) -> Reply<'_, ()> {
        Box::pin(self.write(1, move |connection, _| rows::cancel(connection, id, cancelled_ms)))
    }

    fn read(&self, id: DeletionId) -> Reply<'_, Option<Summary>> {
        Box::pin(self.look(move |connection| look::read(connection, id)))
    }

    fn read_of(&self, tenant: Arc<str>, id: DeletionId) -> Reply<'_, Option<Summary>> {
        Box::pin(self.look(move |connection| look::read_of(connection, &tenant, id)))
    }

    fn page(&self, id: DeletionId, part: u32) -> Reply<'_, Option<Page>> {
        Box::pin(self.look(move |connection| look::page(connection, id, part)))
    }

    fn list(&self, filter: Filter) -> Reply<'_, Vec<Summary>> {
        Box::pin(self.look(move |connection| look::list(connection, &filter)))
    }

    fn claimed(&self, claim: Claim) -> Reply<'_, Accepted> {
        Box::pin(self.look(move |connection| look::claimed(connection, claim)))
    }

    fn ended(&self) -> Reply<'_, Vec<Head>> {
        Box::pin(self.look(look::ended))
    }

    fn backlog(&self) -> Reply<'_, HashMap<Arc<str>, u64>> {
        Box::pin(self.look(look::backlog))
    }

    fn purge(&self, purge: Purge) -> Reply<'_, Purged> {
        Box::pin(self.write(purge.most, move |connection, after| purge::purge(connection, &purge, after)))
    }

    fn turn(&self, _: Turn) -> Reply<'_, Duration> {
        Box::pin(ready(Ok(Duration::ZERO)))
    }

    fn hold(&self, _: Arc<str>, _: Arc<str>, _: Duration) -> Reply<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn healthy(&self) -> bool {
        self.broken.get().is_none() && !self.commands.is_closed()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.end())
    }
}
