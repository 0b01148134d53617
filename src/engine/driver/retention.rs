//! Forgets what is kept for a time only: keys, deletions, identifiers, and drafts that nobody ended.
//!
//! What is not finished is never forgotten.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::clock;
use crate::store::Purge;

/// How long what is kept after a deletion is finished, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Its idempotency key.
    pub keys_ms: i64,
    /// The deletion and its results; `None` keeps them.
    pub deletions_ms: Option<i64>,
    /// Its identifiers.
    pub identifiers_ms: i64,
}

/// How often it is looked for what is old.
const AGAIN: Duration = Duration::from_secs(60);
/// About how much of it is forgotten at once.
const AT_ONCE: usize = 1_000;
/// A draft that nobody has accepted after a day was left.
const DRAFTS_MS: i64 = 86_400_000;

impl Retention {
    /// What need not be kept any longer at this moment, in milliseconds since 1970-01-01 UTC.
    pub fn purge(self, now_ms: i64) -> Purge {
        Purge {
            keys_before_ms: now_ms.saturating_sub(self.keys_ms),
            deletions_before_ms: self.deletions_ms.map(|ms| now_ms.saturating_sub(ms)),
            identifiers_before_ms: now_ms.saturating_sub(self.identifiers_ms),
            drafts_before_ms: now_ms.saturating_sub(DRAFTS_MS),
            most: AT_ONCE,
        }
    }
}

impl Engine {
    /// Forgets what need not be kept any longer, again and again, until the engine closes.
    pub async fn forget(self: Arc<Self>, retention: Retention) {
        while !self.closing.is_cancelled() {
            loop {
                match self.ledger.purge(retention.purge(clock::unix_ms())).await {
                    Ok(purged) if purged.more && !self.closing.is_cancelled() => {}
                    Ok(_) => break,
                    Err(err) => {
                        tracing::warn!(error = %err, "what is old could not be forgotten");
                        break;
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}
