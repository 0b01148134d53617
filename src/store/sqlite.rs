//! The ledger in one SQLite file: durable, for one gateway, on a local disk.
//!
//! One thread owns the connection that writes. It puts everything that waits for it into one transaction, and answers
//! only once that is on the disk, so one `fsync` answers many callers. Reads have a thread and a connection of their
//! own: in WAL mode they neither wait for a write nor hold one up, and see every commit made before they start.
//!
//! It does not share its file with another process (`PATH.lock` is locked while it is open), and does not belong on a
//! network file system. It does not go on after a failed write: what an `fsync` that failed left on the disk cannot be
//! known, so the store is broken from then on. It forgets no deletion. The identifiers of a finished deletion are
//! overwritten in the database at once, but copies may stay in `PATH-wal` until that is overwritten or closed.

mod fault;
mod file;
mod reader;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};

use self::reader::{Query, Reader};
use self::writer::{Command, Told, Write, Writer};
use super::{Accept, Accepted, DeletionId, Intent, Ledger, Record, Reply, StoreError, Stored, Unfinished};

/// Callers beyond this wait for a place before they are taken in.
const QUEUE: usize = 256;

/// A ledger in a SQLite file.
///
/// It must be let go of with [`Ledger::close`] where the file is needed again: when it is dropped, its threads finish
/// what was sent to them and end by themselves, but nobody waits for that.
#[derive(Debug)]
pub struct Sqlite {
    commands: mpsc::Sender<Command>,
    queries: mpsc::Sender<Query>,
    broken: Broken,
    /// Closed by the writer's last act.
    ended: watch::Receiver<()>,
    #[cfg(test)]
    probe: Arc<writer::Probe>,
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
    /// Opens the ledger at `path`, or begins one if there is no file or an empty one.
    ///
    /// A file of up to 128 MiB is examined as a whole (`PRAGMA quick_check`); of a larger one, only the tables that
    /// unfinished work is taken up from. This blocks.
    ///
    /// # Errors
    /// One line that says what is the matter: no such folder, not a SQLite file, another program's, a newer version's,
    /// damaged, in use, or not usable. The file is left as it was.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = file::open(path).map_err(StoreError::Broken)?;
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let (queries, query_queue) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(());
        let broken = Broken::default();
        let no_thread = |error: std::io::Error| StoreError::Broken(format!("no thread for the ledger: {error}"));

        let reader = Reader { connection: file.reader, queue: query_queue, broken: Arc::clone(&broken) };
        let reader = thread::Builder::new().name("ledger-reader".to_owned()).spawn(|| reader.run());
        let writer = Writer {
            connection: file.writer,
            queue: command_queue,
            reader: reader.map_err(no_thread)?,
            broken: Arc::clone(&broken),
            lock: file.lock,
            end,
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
            #[cfg(test)]
            probe,
        })
    }

    async fn write(&self, write: Write) -> Result<Told, StoreError> {
        self.usable()?;
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Write(write, reply)).await;
        sent.map_err(|_| self.gone())?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn usable(&self) -> Result<(), StoreError> {
        self.broken.get().map_or(Ok(()), |cause| Err(StoreError::Broken(cause.clone())))
    }

    /// A thread ended without an answer: the store is closed or broken, or the thread panicked.
    fn gone(&self) -> StoreError {
        StoreError::Broken(self.broken.get_or_init(|| "a thread of it ended".to_owned()).clone())
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
    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, Accepted> {
        Box::pin(async {
            match self.write(Write::Accept(deletion)).await? {
                Told::Accepted(accepted) => Ok(accepted),
                _ => Err(self.gone()),
            }
        })
    }

    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        Box::pin(async { self.write(Write::Intent(intent)).await.map(drop) })
    }

    fn record(&self, record: Record) -> Reply<'_, ()> {
        Box::pin(async { self.write(Write::Record(record)).await.map(drop) })
    }

    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, ()> {
        Box::pin(async move { self.write(Write::Finish { id, finished_ms }).await.map(drop) })
    }

    fn read(&self, id: DeletionId) -> Reply<'_, Option<Stored>> {
        Box::pin(async move {
            self.usable()?;
            let (reply, answer) = oneshot::channel();
            let sent = self.queries.send(Query::Read(id, reply)).await;
            sent.map_err(|_| self.gone())?;
            answer.await.unwrap_or_else(|_| Err(self.gone()))
        })
    }

    fn take_over(&self) -> Reply<'_, Vec<Unfinished>> {
        Box::pin(async {
            match self.write(Write::TakeOver).await? {
                Told::TakenOver(unfinished) => Ok(unfinished),
                _ => Err(self.gone()),
            }
        })
    }

    fn healthy(&self) -> bool {
        self.broken.get().is_none() && !self.commands.is_closed()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.end())
    }
}
