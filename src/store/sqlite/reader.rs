//! The thread that reads. It changes nothing.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::fault::Failure;
use super::{Broken, fail, rows};
use crate::store::{DeletionId, StoreError, Stored};

/// What the reader is asked for.
#[derive(Debug)]
pub(super) enum Query {
    /// One deletion.
    Read(DeletionId, oneshot::Sender<Result<Option<Stored>, StoreError>>),
    /// To end.
    Close,
}

/// The reading half of the store.
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) queue: mpsc::Receiver<Query>,
    pub(super) broken: Broken,
}

impl Reader {
    /// Answers until it is told to end, or nobody is left to ask.
    pub(super) fn run(mut self) {
        while let Some(Query::Read(id, reply)) = self.queue.blocking_recv() {
            // Whoever stopped waiting need not be read for.
            if !reply.is_closed() {
                let _ = reply.send(self.read(id));
            }
        }
    }

    fn read(&mut self, id: DeletionId) -> Result<Option<Stored>, StoreError> {
        self.snapshot(id).map_err(|failure| match failure {
            Failure::Refused(error) => error,
            // A file that cannot be read is not to be written to either.
            Failure::Fatal(cause) => StoreError::Broken(fail(&self.broken, "a read", &cause)),
        })
    }

    /// All rows of a deletion as of one moment.
    fn snapshot(&mut self, id: DeletionId) -> Result<Option<Stored>, Failure> {
        let transaction = self.connection.transaction()?;
        rows::read(&transaction, id)
    }
}
