//! The write-ahead log: when it is moved into the database, and when it must be emptied.
//!
//! What is erased in the database is still there in the log until that is overwritten, so after an erasure the log is
//! emptied: once the writer has rested for a second, and ten seconds after the erasure at the latest. As long as
//! somebody else reads what stood there before, it cannot be emptied, and that is tried again.
//!
//! It erases nothing itself.

use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

/// From so many pages on, the log is moved into the database: SQLite's own measure.
const LONG_PAGES: i64 = 1_000;
/// Without a write for so long, the log is emptied.
const REST: Duration = Duration::from_secs(1);
/// And so long after an erasure, whatever is written.
const LATEST: Duration = Duration::from_secs(10);
/// Between two tries, if somebody reads.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the writer waits for those who read. Our own reader is never longer about it.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long any other statement waits. Nobody else uses the file but to look at it.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// What the log may still hold of what was erased.
pub(super) struct Log {
    /// The first erasure since the log was emptied.
    erased: Option<Instant>,
    written: Instant,
    /// It was not possible before: not before this moment again.
    not_before: Instant,
}

impl Log {
    /// A log of which it is not known what it holds.
    pub(super) fn unknown() -> Self {
        let now = Instant::now();
        Self { erased: Some(now), written: now, not_before: now }
    }

    /// Something was written, and perhaps something was erased.
    pub(super) fn written(&mut self, erased: bool) {
        self.written = Instant::now();
        if erased {
            self.erased.get_or_insert(self.written);
        }
    }

    /// When it is to be emptied, if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.erased.map(|erased| (self.written + REST).min(erased + LATEST).max(self.not_before))
    }

    /// Empties it if it is time to, else moves it into the database if it is long. Whether it was emptied.
    pub(super) fn tend(&mut self, connection: &Connection) -> Result<bool, rusqlite::Error> {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return move_if_long(connection).map(|()| false);
        }
        connection.busy_timeout(PATIENCE)?;
        let emptied = empty(connection);
        connection.busy_timeout(BUSY)?;
        let emptied = emptied?;
        if emptied {
            self.erased = None;
        } else {
            self.not_before = Instant::now() + AGAIN;
        }
        Ok(emptied)
    }
}

/// Moves the whole log into the database and leaves an empty one. Whether nobody stood in the way.
pub(super) fn empty(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0).map(|busy: i64| busy == 0))
}

/// SQLite would do that by itself, and keep a failure to itself: after a failed `fsync`, the next one succeeds without
/// the pages that were lost, and the log is overwritten.
fn move_if_long(connection: &Connection) -> Result<(), rusqlite::Error> {
    let waiting = |mode: &str| {
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)
        })
    };
    // NOOP only looks.
    if waiting("NOOP")? >= LONG_PAGES {
        waiting("PASSIVE")?;
    }
    Ok(())
}
