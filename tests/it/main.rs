//! The integration tests: the gateway from outside, over real sockets on loopback, against the dialects' own doubles.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test uses some of it")]
mod support;

mod cli;
mod contract;
mod cut_short;
mod dialects;
mod documents;
mod durability;
mod faults;
mod front;
mod hostile;
mod idempotency;
mod lookup;
mod refusals;
mod scripted;
mod smoke;
mod tenancy;
mod tidy;
