//! A deletion that arrives in parts, and what of it is settled before anything is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use adapters::Outcome;
use tokio::task::JoinHandle;

use super::{Engine, Routes};
use crate::store::{DeletionId, Part, StoreError};

/// A deletion whose parts still arrive. Unless it is accepted, what was put down of it is thrown away.
pub struct Draft {
    pub(super) engine: Arc<Engine>,
    pub(super) id: DeletionId,
    pub(super) tenant: Arc<str>,
    pub(super) is_down: bool,
    pub(super) settled: SettledHere,
    /// The part that is being put down: that goes on when the caller hangs up.
    pub(super) adding: Option<JoinHandle<Result<(), StoreError>>>,
}

/// How many contacts of each share were settled without an upstream, and how.
pub(super) type SettledHere = BTreeMap<(u16, Outcome), usize>;

impl Draft {
    /// Puts one more part down.
    pub async fn add(&mut self, part: Part) -> Result<(), StoreError> {
        self.is_down = true;
        count(&part, &mut self.settled);
        let (engine, id, tenant) = (Arc::clone(&self.engine), self.id, Arc::clone(&self.tenant));
        let adding = self.engine.tasks.spawn(async move { engine.ledger.draft(id, tenant, Arc::new(part)).await });
        let added = self.adding.insert(adding).await;
        self.adding = None;
        added.unwrap_or_else(|_| Err(StoreError::Broken("it broke off".to_owned())))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_down {
            let (engine, id, adding) = (Arc::clone(&self.engine), self.id, self.adding.take());
            let discarding = async move {
                if let Some(adding) = adding {
                    let _ = adding.await;
                }
                if let Err(err) = engine.ledger.discard(id).await {
                    tracing::warn!(deletion = %id, error = %err, "what was put down of a deletion that did not arrive stays for now");
                }
            };
            self.engine.tasks.spawn(discarding);
        }
    }
}

/// Counts what of a part is settled before anything is sent.
pub(super) fn count(part: &Part, counted: &mut SettledHere) {
    for (slot, settled) in &part.settled {
        if let Some(contact) = slot.0.checked_sub(part.first).and_then(|n| part.contacts.get(n as usize)) {
            *counted.entry((contact.share, settled.outcome)).or_default() += 1;
        }
    }
}

/// Puts what was settled without an upstream into the metrics, so that they add up to the results.
pub(super) fn count_settled_here(counted: &SettledHere, routes: &Routes) {
    for ((share, outcome), contacts) in counted {
        if let Some(Some(route)) = routes.get(usize::from(*share)) {
            route.upstream.settled([(*outcome, *contacts as u64)]);
        }
    }
}
