//! How one connection's upstream stands, for operators to look at.
//!
//! It is a copy of a moment, and nothing decides by it. No value of a credential is in it.

use super::breaker::BreakerState;

/// How an upstream stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// What the breaker is doing.
    pub breaker: BreakerState,
    /// Nothing is sent for so many milliseconds more: the breaker is open, or the upstream asked for it.
    pub left_alone_ms: u64,
    /// Calls that are in flight, or wait for their turn or for a credential.
    pub under_way: usize,
    /// What it shows the upstream.
    pub credential: CredentialStanding,
}

/// What is known of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialStanding {
    /// It stands in the configuration, and is shown as it is.
    Given,
    /// A token is signed here for each call.
    Signed,
    /// A token from the upstream's sign-in.
    Token {
        /// Milliseconds since it was asked for.
        age_ms: u64,
        /// Milliseconds that it still holds.
        left_ms: u64,
    },
    /// There is no token; the next call asks for one.
    NotAsked,
    /// There is no token, and none is asked for now.
    Paused {
        /// Milliseconds until the next sign-in.
        left_ms: u64,
        /// The upstream refused the sign-in or its token, or takes no more of them; else the sign-in failed.
        refused: bool,
    },
    /// There is none that could be shown.
    Unusable,
}
