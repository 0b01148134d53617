//! A deletion as the gateway tells it, without its results: those are read one by one.

use adapters::Outcome;
use serde::{Deserialize, Serialize};

/// A deletion's state. Its results, if they came along, are passed over.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Deletion {
    /// A dry run has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    pub(super) counts: Counts,
}

/// How many contacts have which outcome.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) requested: u64,
    deleted: u64,
    not_found: u64,
    rejected: u64,
    failed: u64,
    unknown: u64,
    skipped: u64,
    pending: u64,
    would_delete: u64,
}

impl Deletion {
    pub(super) fn is_finished(&self) -> bool {
        self.state == "finished"
    }
}

impl Counts {
    /// How many have this outcome.
    pub(super) fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Deleted => self.deleted,
            Outcome::NotFound => self.not_found,
            Outcome::Rejected => self.rejected,
            Outcome::Failed => self.failed,
            Outcome::Unknown => self.unknown,
            Outcome::Skipped => self.skipped,
            Outcome::Pending => self.pending,
            Outcome::WouldDelete => self.would_delete,
        }
    }

    /// How many are settled.
    pub(super) fn done(&self) -> u64 {
        self.requested.saturating_sub(self.pending)
    }

    /// The outcomes that some contacts have, in words.
    pub(super) fn summary(&self) -> String {
        let shown = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Pending && self.of(*outcome) > 0);
        let parts: Vec<_> = shown.map(|outcome| format!("{} {}", self.of(outcome), outcome.as_str())).collect();
        parts.join(", ")
    }
}
