//! The way out: one upstream's locks, paces and wires, outside of what is sent and what it means.

mod accounts;
mod breaker;
mod budget;
mod client;
mod credentials;
mod dial;
mod pace;
mod stack;
mod standing;
#[cfg(test)]
mod tests;

pub use breaker::BreakerState;
#[cfg(test)]
pub(crate) use client::StandIn;
pub use client::{Client, ClientRules};
pub use dial::{Dial, Dialling, Stream};
pub use pace::{SharedPace, Turn};
pub use stack::{Outbound, Permit, Rules, Upstream};
pub use standing::{CredentialStanding, Standing};
#[cfg(test)]
pub(crate) use tests::{sample, sample_connection};
