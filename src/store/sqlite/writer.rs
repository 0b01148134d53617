//! The thread that writes: what waits for it goes into one transaction, and is answered once that is on the disk.
//!
//! It never tries a failed commit again, and answers nothing "done" after one.

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::fault::{Failure, describe};
use super::{Broken, fail, rows};
use crate::store::{Accept, Accepted, DeletionId, Intent, Record, StoreError, Unfinished};

/// The most commands in one transaction.
const GROUP: usize = 256;
/// And about so many contacts, so that one large deletion does not make many small ones wait for another.
const GROUP_CONTACTS: usize = 20_000;
/// From so many pages on, the log is moved into the database: SQLite's own measure.
const LOG_PAGES: i64 = 1_000;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Command {
    /// A change, and who waits for it.
    Write(Write, Waiting),
    /// To end, after what came before.
    Close,
}

type Answer = Result<Told, StoreError>;
type Waiting = oneshot::Sender<Answer>;

/// What a change answers besides that it is done.
#[derive(Debug)]
pub(super) enum Told {
    Nothing,
    Accepted(Accepted),
    TakenOver(Vec<Unfinished>),
}

/// A change of the ledger.
pub(super) enum Write {
    Accept(Arc<Accept>),
    Intent(Intent),
    Record(Record),
    Finish {
        id: DeletionId,
        finished_ms: i64,
    },
    TakeOver,
    /// Whatever a test wants done inside the transaction.
    #[cfg(test)]
    Test(super::tests::Inside),
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write(…)")
    }
}

impl Write {
    /// About how many contacts it is about.
    fn contacts(&self) -> usize {
        match self {
            Self::Accept(deletion) => deletion.contacts.len(),
            Self::Intent(intent) => intent.slots.len(),
            Self::Record(record) => record.settled.len(),
            // How many they are about is not known before.
            Self::Finish { .. } => 1,
            Self::TakeOver => GROUP_CONTACTS,
            #[cfg(test)]
            Self::Test(_) => 1,
        }
    }

    fn apply(self, connection: &Connection) -> Result<Told, Failure> {
        match self {
            Self::Accept(deletion) => return rows::accept(connection, &deletion).map(Told::Accepted),
            Self::Intent(intent) => rows::intent(connection, &intent)?,
            Self::Record(record) => rows::record(connection, &record)?,
            Self::Finish { id, finished_ms } => rows::finish(connection, id, finished_ms)?,
            Self::TakeOver => return rows::take_over(connection).map(Told::TakenOver),
            #[cfg(test)]
            Self::Test(inside) => inside(connection)?,
        }
        Ok(Told::Nothing)
    }
}

/// What tests see of the writer, and make it do.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Probe {
    pub(super) commits: std::sync::atomic::AtomicUsize,
    /// Fails every commit after so many; 0 for none.
    pub(super) fail_from: std::sync::atomic::AtomicUsize,
}

#[cfg(test)]
impl Probe {
    fn commit(&self) -> Result<(), String> {
        use std::sync::atomic::Ordering::SeqCst;
        let before = self.commits.fetch_add(1, SeqCst);
        let last = self.fail_from.load(SeqCst);
        if last > 0 && before >= last { Err("a test made it fail".to_owned()) } else { Ok(()) }
    }
}

/// The writing half of the store, and all that is let go of with it.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: mpsc::Receiver<Command>,
    pub(super) reader: JoinHandle<()>,
    pub(super) broken: Broken,
    pub(super) lock: File,
    pub(super) end: watch::Sender<()>,
    #[cfg(test)]
    pub(super) probe: Arc<Probe>,
}

impl Writer {
    /// Writes until it is told to end, nobody is left to ask, or a write fails.
    pub(super) fn run(mut self) {
        let mut sound = true;
        while sound && let Some(first) = self.queue.blocking_recv() {
            let (group, last) = self.gather(first);
            sound = self.write(group);
            if last {
                break;
            }
        }
        self.end(sound);
    }

    /// What waits by now, and whether it is the last.
    fn gather(&mut self, first: Command) -> (Vec<(Write, Waiting)>, bool) {
        let (mut group, mut contacts) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(command) = next {
            let Command::Write(write, waiting) = command else { return (group, true) };
            contacts += write.contacts();
            group.push((write, waiting));
            let full = group.len() >= GROUP || contacts >= GROUP_CONTACTS;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        (group, false)
    }

    /// Carries a group out and answers it. Whether the writer can go on.
    fn write(&mut self, group: Vec<(Write, Waiting)>) -> bool {
        if group.is_empty() {
            return true;
        }
        let (writes, waiting): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        match self.commit(writes) {
            Ok(answers) => {
                for (waiting, answer) in waiting.into_iter().zip(answers) {
                    // Whoever stopped waiting reads it back later.
                    let _ = waiting.send(answer);
                }
            }
            Err(cause) => {
                // The store is broken before anybody hears of it.
                let cause = fail(&self.broken, "a write", &cause);
                for waiting in waiting {
                    let _ = waiting.send(Err(StoreError::Broken(cause.clone())));
                }
                return false;
            }
        }
        match self.move_log() {
            Ok(()) => true,
            Err(error) => {
                fail(&self.broken, "moving the log into the database", &describe(&error));
                false
            }
        }
    }

    /// One transaction, on the disk when this returns. A refused command is undone alone.
    fn commit(&mut self, writes: Vec<Write>) -> Result<Vec<Answer>, String> {
        let sqlite = |error: rusqlite::Error| describe(&error);
        let mut answers = Vec::with_capacity(writes.len());
        let mut transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        for write in writes {
            let savepoint = transaction.savepoint().map_err(sqlite)?;
            answers.push(match write.apply(&savepoint) {
                Ok(answer) => savepoint.commit().map(|()| Ok(answer)).map_err(sqlite)?,
                Err(Failure::Refused(error)) => savepoint.finish().map(|()| Err(error)).map_err(sqlite)?,
                Err(Failure::Fatal(cause)) => return Err(cause),
            });
        }
        #[cfg(test)]
        self.probe.commit()?;
        transaction.commit().map_err(sqlite)?;
        Ok(answers)
    }

    /// Moves the log into the database once it is long. SQLite would do that by itself, and keep a failure to itself:
    /// after a failed `fsync`, the next one succeeds without the pages that were lost, and the log is overwritten.
    fn move_log(&self) -> Result<(), rusqlite::Error> {
        let waiting = |mode: &str| {
            self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
                Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)
            })
        };
        // NOOP only looks.
        if waiting("NOOP")? >= LOG_PAGES {
            waiting("PASSIVE")?;
        }
        Ok(())
    }

    fn end(self, sound: bool) {
        let Self { connection, queue, reader, broken, lock, end, .. } = self;
        // Those who came too late learn it from this.
        drop(queue);
        // Its connection goes first: the last one removes the log, and the reader's may not.
        let _ = reader.join();
        let done = if sound {
            // Leaves an empty log, so that nothing of what was erased is left in it.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        } else {
            // What the disk holds is not known: the next opening reads the log again, by its checksums.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
        };
        if let Err(error) = done {
            fail(&broken, "closing", &describe(&error));
        }
        drop(connection);
        drop(lock);
        drop(end);
    }
}
