//! How a call ended, for each of its contacts. What follows from it is not decided here.

use adapters::{Fault, FaultCode, Finding, Processed, Wait};

use super::Moment;
use super::doubt::{End, passes};

/// How a call ended, for all its contacts.
#[derive(Debug)]
pub(super) enum Ended {
    Processed(Processed),
    Credential(Fault),
    TurnedAway(Fault),
    NotSent { fault: Fault, again: bool },
    Doubtful(Fault),
}

impl Ended {
    /// What is the same for all contacts.
    pub(super) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Processed(_) => None,
            Self::Credential(fault) | Self::TurnedAway(fault) | Self::NotSent { fault, .. } | Self::Doubtful(fault) => {
                Some(fault)
            }
        }
    }

    /// Whether the call as a whole was refused, for a reason that does not pass by itself.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::TurnedAway(fault) if !passes(fault.code))
    }

    /// What it means for one contact.
    pub(super) fn end(&self, position: usize) -> End<'_> {
        match self {
            // `Processed` has one finding for each contact; a missing one could only mean that nothing was said.
            Self::Processed(processed) => match processed.finding(position) {
                Some(finding) => End::Found(finding),
                None => End::Found(&NOTHING_SAID),
            },
            Self::Credential(fault) | Self::TurnedAway(fault) => End::TurnedAway(fault),
            Self::NotSent { fault, .. } => End::NotSent(fault),
            Self::Doubtful(fault) => End::Doubtful(fault),
        }
    }
}

static NOTHING_SAID: Finding = Finding::Fault(Fault {
    code: FaultCode::ResponseIncomplete,
    evidence: adapters::Evidence::None,
    upstream: None,
    wait: None,
    still_there: false,
});

/// The longest wait that is passed on to callers, in seconds: a day.
const LONGEST_TOLD_S: u64 = 86_400;

/// Turns a wait into seconds from now, so that what is put down does not need a clock to be read.
pub(super) fn in_seconds(mut fault: Fault, now: Moment) -> Fault {
    fault.wait = fault.wait.map(|wait| {
        let seconds = match wait {
            Wait::For(seconds) => seconds,
            Wait::Until(moment) => moment.saturating_sub(now.unix_s),
        };
        Wait::For(seconds.min(LONGEST_TOLD_S))
    });
    fault
}
