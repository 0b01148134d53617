//! The thread that reads. It changes nothing.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::fault::Failure;
use super::{Broken, fail};
use crate::store::StoreError;

/// What the reader is asked for.
pub(super) enum Query {
    /// Something that is read as of one moment.
    Look(Box<dyn FnOnce(&mut Reader) + Send>),
    /// To end.
    Close,
}

impl Query {
    /// A look at the tables, and where its answer comes from.
    pub(super) fn new<T: Send + 'static>(
        look: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let look = move |reader: &mut Reader| {
            // Whoever stopped waiting need not be read for.
            if !reply.is_closed() {
                let _ = reply.send(reader.look(look));
            }
        };
        (Self::Look(Box::new(look)), answer)
    }
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
        while let Some(Query::Look(look)) = self.queue.blocking_recv() {
            look(&mut self);
        }
    }

    fn look<T>(&mut self, look: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, StoreError> {
        self.snapshot(look).map_err(|failure| match failure {
            Failure::Refused(error) => error,
            // A file that cannot be read is not to be written to either.
            Failure::Fatal(cause) => StoreError::Broken(fail(&self.broken, "a read", &cause)),
        })
    }

    /// All rows as of one moment.
    fn snapshot<T>(&mut self, look: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let transaction = self.connection.transaction()?;
        look(&transaction)
    }
}
