//! What is put down about a contact once it is settled, and how a caller may go on from there.
//!
//! It holds no identifier: slot and reference name the contact.

use adapters::{Evidence, Fault, FaultCode, Outcome, Slot, UpstreamWord};
use serde::{Deserialize, Serialize};

/// Whether and how a caller may ask for the same contact again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It will be refused again unless something changes.
    Never,
    /// At any time.
    Safe,
    /// After so many seconds.
    After(u64),
    /// Only once somebody looked whether the contact is still there: by now its identifier may name another one.
    VerifyFirst,
}

impl Retry {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Safe => "safe",
            Self::After(_) => "after",
            Self::VerifyFirst => "verify_first",
        }
    }
}

/// Why a contact is not known to be absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The contract's code.
    pub code: FaultCode,
    /// What the upstream itself said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamWord>,
}

/// The result for one contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// What became of it.
    pub outcome: Outcome,
    /// Whether it is known to be absent at the upstream.
    pub absent: Option<bool>,
    /// How that is known.
    pub evidence: Evidence,
    /// How many times it was tried.
    pub attempts: u32,
    /// Whether a call that named it may have left the gateway.
    #[serde(default)]
    pub sent: bool,
    /// How to go on; `None` where there is nothing to go on with.
    pub retry: Option<Retry>,
    /// Why it is not known to be absent. Most contacts have none, and there can be a million of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<Reason>>,
    /// For a duplicate: the slot of the one that stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<Slot>,
}

/// Contacts one after another that have the same result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub first: Slot,
    /// How many they are.
    pub contacts: u32,
    /// The result of each.
    pub settled: Settled,
}

impl Run {
    /// One contact's result.
    pub fn one(slot: Slot, settled: Settled) -> Self {
        Self { first: slot, contacts: 1, settled }
    }

    /// Whose result it is.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = Slot> + use<> {
        let first = self.first.0;
        (0..self.contacts).map(move |n| Slot(first + n))
    }

    /// Whether this contact follows its last one.
    pub(super) fn ends_before(&self, slot: Slot) -> bool {
        self.first.0.checked_add(self.contacts) == Some(slot.0)
    }
}

impl Settled {
    /// The contact is absent.
    pub fn absent(outcome: Outcome, evidence: Evidence, attempts: u32) -> Self {
        Self {
            outcome,
            absent: Some(true),
            evidence,
            attempts,
            sent: true,
            retry: None,
            reason: None,
            duplicate_of: None,
        }
    }

    /// The contact is not known to be absent, and not in doubt: the outcome is the code's own.
    pub fn fault(fault: &Fault, attempts: u32, retry: Retry) -> Self {
        Self {
            outcome: fault.code.outcome(),
            // Most refusals would be the same of a contact that is not there: only the dialect can know otherwise.
            absent: fault.still_there.then_some(false),
            evidence: fault.evidence,
            attempts,
            sent: false,
            retry: Some(retry),
            reason: Some(Box::new(Reason { code: fault.code, upstream: fault.upstream.clone() })),
            duplicate_of: None,
        }
    }

    /// Nobody can know whether the contact is absent.
    pub fn unknown(fault: &Fault, attempts: u32, retry: Retry) -> Self {
        Self {
            outcome: Outcome::Unknown,
            absent: None,
            evidence: Evidence::None,
            ..Self::fault(fault, attempts, retry)
        }
    }

    /// A later contact of the same deletion that `twin` stands for.
    pub fn duplicate(twin: Slot) -> Self {
        let fault = Fault::new(FaultCode::Duplicate);
        Self { duplicate_of: Some(twin), ..Self::fault(&fault, 0, Retry::Safe) }
    }

    /// A dry run would have sent it.
    pub fn would_delete() -> Self {
        Self {
            outcome: Outcome::WouldDelete,
            absent: None,
            evidence: Evidence::None,
            attempts: 0,
            sent: false,
            retry: None,
            reason: None,
            duplicate_of: None,
        }
    }

    /// Refused by the gateway before anything was sent.
    pub fn refused_here(fault: &Fault) -> Self {
        Self::fault(fault, 0, Retry::Never)
    }
}
