//! Deletions that are not finished, of all tenants: for operators, who may see everybody's.
//!
//! It reads the ledger, so that what waits or is worked elsewhere is there as well. It changes nothing.

use std::cmp::Reverse;

use super::Engine;
use crate::store::{Filter, StoreError, Summary};

/// Some of the deletions that are not finished.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// The newest of each tenant, tenants with more open contacts first.
    pub deletions: Vec<Summary>,
    /// Tenants with contacts that are not settled.
    pub tenants: usize,
    /// Contacts that are not settled.
    pub contacts: u64,
}

impl Engine {
    /// At most so many of the deletions that are not finished, with a place for as many tenants as there is room for.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn unfinished(&self, most: usize) -> Result<Unfinished, StoreError> {
        let mut backlog: Vec<_> = self.ledger.backlog().await?.into_iter().collect();
        backlog.sort_unstable_by(|(a, some), (b, others)| (Reverse(some), a).cmp(&(Reverse(others), b)));
        let (tenants, contacts) = (backlog.len(), backlog.iter().map(|(_, open)| open).sum());
        let each = (most / tenants.max(1)).max(1);
        let mut deletions = Vec::new();
        for (tenant, _) in backlog.into_iter().take(most) {
            let filter = Filter {
                tenant,
                finished: Some(false),
                reference: None,
                connection: None,
                within: None,
                before: None,
                most: each,
            };
            deletions.extend(self.ledger.list(filter).await?);
        }
        Ok(Unfinished { deletions, tenants, contacts })
    }
}
