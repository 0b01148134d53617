//! Paces that gateways share, kept in the ledger that they share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::outbound::{SharedPace, Turn};
use crate::store::{self, Ledger};
use crate::tenants::Connection;

/// Asks the ledger for turns.
pub(super) struct LedgerPace {
    pub(super) ledger: Arc<dyn Ledger>,
    /// What is told without being waited for.
    pub(super) tasks: TaskTracker,
}

impl SharedPace for LedgerPace {
    fn turn(&self, of: &Connection, every: Duration, burst: u32) -> Turn<'_> {
        let (tenant, connection) = (Arc::clone(&of.tenant), Arc::clone(&of.name));
        Box::pin(async move {
            match self.ledger.turn(store::Turn { tenant, connection, every, burst }).await {
                Ok(wait) => Some(wait),
                Err(err) => {
                    tracing::warn!(error = %err, "no turn can be had at a connection whose pace is shared");
                    None
                }
            }
        })
    }

    fn hold(&self, of: &Connection, hold: Duration) {
        let ledger = Arc::clone(&self.ledger);
        let (tenant, connection) = (Arc::clone(&of.tenant), Arc::clone(&of.name));
        let telling = async move {
            if let Err(err) = ledger.hold(tenant, connection, hold).await {
                tracing::warn!(error = %err, "other gateways were not told to leave a connection alone");
            }
        };
        self.tasks.spawn(telling);
    }
}
