//! The way out: one upstream's locks, paces and wires, outside of what is sent and what it means.

mod breaker;
mod client;
mod credentials;
mod pace;
mod stack;

pub use breaker::BreakerState;
pub use client::{Client, ClientRules};
pub use pace::{SharedPace, Turn};
pub use stack::{Outbound, Permit, Rules, Upstream};
