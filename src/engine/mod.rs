//! The deletion engine: what is sent, sent again, and believed.
//!
//! Everything but `driver` is a pure state machine: no I/O, no clock, no dice of its own. Live traffic, recovery and
//! the simulation drive the same one.

mod backoff;
mod deletion;
mod doubt;
pub mod driver;
mod ended;
mod group;
mod outcome;
pub(crate) mod shortcut;
#[cfg(test)]
mod simulation;

pub use backoff::Backoff;
pub(crate) use deletion::settle_without_a_dialect;
pub use deletion::{Closed, Lost, Past, Policy, Share, Signal, Step, Ticket};
pub use outcome::{Reason, Retry, Run, Settled};

/// A point in time, as the engine is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since any fixed start; never goes back.
    pub ms: u64,
    /// Seconds since 1970-01-01 UTC; only used to read dates that upstreams name.
    pub unix_s: u64,
}
