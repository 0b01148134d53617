//! The thread that writes: what waits for it goes into one transaction, and is answered once that is on the disk.
//!
//! Between groups, and when nothing waits, it sweeps what was forgotten and tends the log. It never tries a failed
//! commit again, and answers nothing "done" after one.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;

use super::fault::{Failure, describe};
use super::log::{self, Log};
use super::{Broken, fail, purge, rows};
use crate::store::{PartKey, StoreError};

/// The most changes in one transaction.
const GROUP: usize = 256;
/// And about so many contacts, so that one large deletion does not make many small ones wait for another.
const GROUP_CONTACTS: usize = 20_000;
/// So many rows are swept at once.
const SWEEP_ROWS: usize = 100;
/// As long as groups wait, something is swept after so many of them.
const SWEEP_GROUPS: u32 = 8;

/// Whoever was just answered asks for the next thing within about this time.
const LINGER: Duration = Duration::from_micros(100);

/// What the writer is asked for.
pub(super) enum Command {
    /// A change of the ledger.
    Write(Write),
    /// To end, after what came before.
    Close,
}

/// A change, and who waits for it.
pub(super) struct Write {
    /// About how many contacts it is about.
    contacts: usize,
    change: Box<dyn Change>,
}

/// What the writer has to do because of a change.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct After {
    /// Identifiers were erased.
    pub(super) erased: bool,
    /// Something was forgotten and is to be swept.
    pub(super) forgotten: bool,
}

impl After {
    fn add(&mut self, other: Self) {
        self.erased |= other.erased;
        self.forgotten |= other.forgotten;
    }
}

trait Change: Send {
    fn apply(&mut self, connection: &Connection, after: &mut After) -> Result<(), Failure>;

    /// Says what became of it; `Ok` once it is on the disk.
    fn answer(self: Box<Self>, done: Result<(), StoreError>);
}

struct Asked<F, T> {
    act: Option<F>,
    told: Option<T>,
    waiting: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Change for Asked<F, T>
where
    F: FnOnce(&Connection, &mut After) -> Result<T, Failure> + Send,
    T: Send,
{
    fn apply(&mut self, connection: &Connection, after: &mut After) -> Result<(), Failure> {
        if let Some(act) = self.act.take() {
            self.told = Some(act(connection, after)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, done: Result<(), StoreError>) {
        let answer = match (done, self.told) {
            (Ok(()), Some(told)) => Ok(told),
            (Err(error), _) => Err(error),
            // It is answered without having been applied.
            (Ok(()), None) => return,
        };
        // Whoever stopped waiting reads it back later.
        let _ = self.waiting.send(answer);
    }
}

impl Write {
    /// A change of about so many contacts, and where its answer comes from.
    pub(super) fn new<T: Send + 'static>(
        contacts: usize,
        act: impl FnOnce(&Connection, &mut After) -> Result<T, Failure> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (waiting, answer) = oneshot::channel();
        (Self { contacts, change: Box::new(Asked { act: Some(act), told: None, waiting }) }, answer)
    }
}

/// A part that was claimed. Unless it is kept, it is given back: whoever asked for it has gone away.
pub(super) struct Claimed {
    key: PartKey,
    given_back: Arc<GivenBack>,
    kept: bool,
}

/// Parts that were claimed for nobody; they wait again before anything else is written.
pub(super) type GivenBack = Mutex<Vec<PartKey>>;

impl Claimed {
    pub(super) fn new(key: PartKey, given_back: Arc<GivenBack>) -> Self {
        Self { key, given_back, kept: false }
    }

    pub(super) fn key(&self) -> PartKey {
        self.key
    }

    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.kept {
            self.given_back.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
        }
    }
}

/// What tests see of the writer, and make it do.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Probe {
    pub(super) commits: std::sync::atomic::AtomicUsize,
    /// Fails every commit after so many; 0 for none.
    pub(super) fail_from: std::sync::atomic::AtomicUsize,
    /// After how many commits something was last erased.
    pub(super) erased: std::sync::atomic::AtomicUsize,
    /// Fails to tend the log from now on.
    pub(super) fail_log: std::sync::atomic::AtomicBool,
    /// After how many commits the log was last emptied, and how often that was not possible.
    pub(super) emptied: watch::Sender<(usize, usize)>,
}

#[cfg(test)]
impl Probe {
    fn commit(&self) -> Result<(), String> {
        use std::sync::atomic::Ordering::SeqCst;
        let before = self.commits.fetch_add(1, SeqCst);
        let last = self.fail_from.load(SeqCst);
        if last > 0 && before >= last { Err("a test made it fail".to_owned()) } else { Ok(()) }
    }

    fn written(&self, erased: bool) {
        use std::sync::atomic::Ordering::SeqCst;
        if erased {
            self.erased.store(self.commits.load(SeqCst), SeqCst);
        }
    }

    fn tended(&self, due: bool, emptied: bool) -> Result<(), String> {
        if self.fail_log.load(std::sync::atomic::Ordering::SeqCst) {
            return Err("a test made it fail".to_owned());
        }
        if due {
            let commits = self.commits.load(std::sync::atomic::Ordering::SeqCst);
            self.emptied.send_modify(|(done, not)| if emptied { *done = commits } else { *not += 1 });
        }
        Ok(())
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
    /// To wait for the next command until a moment.
    pub(super) clock: Runtime,
    pub(super) log: Log,
    pub(super) given_back: Arc<GivenBack>,
    /// For how many groups something has waited to be swept; `None` if nothing does.
    pub(super) unswept: Option<u32>,
    #[cfg(test)]
    pub(super) probe: Arc<Probe>,
}

/// What the writer does next.
enum Next {
    Do(Command),
    /// Nothing waits, and something is due.
    Tidy,
    End,
}

impl Writer {
    /// Writes until it is told to end, nobody is left to ask, or a write fails.
    pub(super) fn run(mut self) {
        let mut last = false;
        let done = loop {
            let done = match self.next() {
                Next::Do(first) => {
                    let group;
                    (group, last) = self.gather(first);
                    self.write(group).and_then(|()| self.tidy(false))
                }
                Next::Tidy => self.tidy(true),
                Next::End => break Ok(()),
            };
            if last || done.is_err() {
                break done;
            }
        };
        self.end(done.is_ok());
    }

    fn next(&mut self) -> Next {
        if self.unswept.is_some() {
            return match self.queue.try_recv() {
                Ok(command) => Next::Do(command),
                Err(TryRecvError::Empty) => Next::Tidy,
                Err(TryRecvError::Disconnected) => Next::End,
            };
        }
        let command = match self.log.due() {
            None => self.queue.blocking_recv(),
            Some(due) => {
                let queue = &mut self.queue;
                match self.clock.block_on(async { timeout_at(due, queue.recv()).await }) {
                    Ok(command) => command,
                    Err(_) => return Next::Tidy,
                }
            }
        };
        command.map_or(Next::End, Next::Do)
    }

    /// What waits by now, and whether it is the last.
    fn gather(&mut self, first: Command) -> (Vec<Write>, bool) {
        let (mut group, mut contacts) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(command) = next {
            let Command::Write(write) = command else { return (group, true) };
            contacts += write.contacts;
            group.push(write);
            let full = group.len() >= GROUP || contacts >= GROUP_CONTACTS;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        (group, false)
    }

    /// Carries a group out and answers it. An error ends the use of the store.
    fn write(&mut self, mut group: Vec<Write>) -> Result<(), Failed> {
        if group.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        match self.commit(&mut group) {
            Ok(answers) => {
                group.into_iter().zip(answers).for_each(|(write, answer)| write.change.answer(answer));
                self.linger(begun.elapsed());
                Ok(())
            }
            Err(cause) => {
                // The store is broken before anybody hears of it.
                let cause = fail(&self.broken, "a write", &cause);
                group.into_iter().for_each(|write| write.change.answer(Err(StoreError::Broken(cause.clone()))));
                Err(Failed)
            }
        }
    }

    /// Lets those who were just answered join those who wait already. Else a few callers who wait for the disk would
    /// form two groups that take turns, and each wait for both.
    fn linger(&self, commit: Duration) {
        if commit > 8 * LINGER && (1..GROUP / 8).contains(&self.queue.len()) {
            thread::sleep(LINGER);
        }
    }

    /// One transaction, on the disk when this returns. A refused change is undone alone.
    fn commit(&mut self, group: &mut [Write]) -> Result<Vec<Result<(), StoreError>>, String> {
        let sqlite = |error: rusqlite::Error| describe(&error);
        let mut answers = Vec::with_capacity(group.len());
        let mut all = After::default();
        let mut transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let given_back = std::mem::take(&mut *self.given_back.lock().unwrap_or_else(PoisonError::into_inner));
        for key in given_back {
            rows::release(&transaction, key).map_err(Failure::into_cause)?;
        }
        for write in group {
            let savepoint = transaction.savepoint().map_err(sqlite)?;
            let mut after = After::default();
            answers.push(match write.change.apply(&savepoint, &mut after) {
                Ok(()) => {
                    all.add(after);
                    savepoint.commit().map(Ok).map_err(sqlite)?
                }
                Err(Failure::Refused(error)) => savepoint.finish().map(|()| Err(error)).map_err(sqlite)?,
                Err(Failure::Fatal(cause)) => return Err(cause),
            });
        }
        #[cfg(test)]
        self.probe.commit()?;
        transaction.commit().map_err(sqlite)?;
        #[cfg(test)]
        self.probe.written(all.erased);
        self.log.written(all.erased);
        self.unswept = match self.unswept {
            Some(groups) => Some(groups + 1),
            None => all.forgotten.then_some(0),
        };
        Ok(answers)
    }

    /// What is to be done between groups, or when nothing waits.
    fn tidy(&mut self, idle: bool) -> Result<(), Failed> {
        if self.unswept.is_some_and(|groups| idle || groups >= SWEEP_GROUPS) {
            let swept = self.sweep();
            swept.map_err(|cause| self.failed("sweeping what was forgotten", &cause))?;
        }
        let tended = self.tend_log();
        tended.map_err(|cause| self.failed("moving the log into the database", &cause))
    }

    fn failed(&self, during: &str, cause: &str) -> Failed {
        fail(&self.broken, during, cause);
        Failed
    }

    fn tend_log(&mut self) -> Result<(), String> {
        #[cfg(test)]
        let due = self.log.due().is_some_and(|due| due <= tokio::time::Instant::now());
        let emptied = self.log.tend(&self.connection).map_err(|error| describe(&error))?;
        #[cfg(test)]
        self.probe.tended(due || emptied, emptied)?;
        #[cfg(not(test))]
        let _ = emptied;
        Ok(())
    }

    /// Removes some rows of what was forgotten.
    fn sweep(&mut self) -> Result<(), String> {
        let sqlite = |error: rusqlite::Error| describe(&error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let mut after = After::default();
        let all = purge::sweep(&transaction, &mut { SWEEP_ROWS }, &mut after).map_err(Failure::into_cause)?;
        #[cfg(test)]
        self.probe.commit()?;
        transaction.commit().map_err(sqlite)?;
        #[cfg(test)]
        self.probe.written(after.erased);
        self.log.written(after.erased);
        self.unswept = if all { None } else { Some(0) };
        Ok(())
    }

    fn end(mut self, sound: bool) {
        // Those who came too late learn it from this.
        self.queue.close();
        while self.queue.try_recv().is_ok() {}
        let mut swept = Ok(());
        while sound && self.unswept.is_some() && swept.is_ok() {
            swept = self.sweep();
        }
        let Self { connection, queue, reader, broken, lock, end, .. } = self;
        drop(queue);
        // Its connection goes first: the last one removes the log, and the reader's may not.
        let _ = reader.join();
        let done = match swept {
            // Leaves an empty log, so that nothing of what was erased is left in it.
            Ok(()) if sound => log::empty(&connection).map(drop).map_err(|error| describe(&error)),
            // What the disk holds is not known: the next opening reads the log again, by its checksums.
            other => {
                let set = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
                other.and(set.map(drop).map_err(|error| describe(&error)))
            }
        };
        if let Err(cause) = done {
            fail(&broken, "closing", &cause);
        }
        drop(connection);
        drop(lock);
        drop(end);
    }
}

/// The store was said to be broken.
struct Failed;
