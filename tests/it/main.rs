//! The integration tests: the gateway from outside, over real sockets on loopback, against the dialects' own
//! doubles. Every upstream in them is a `onedelete::mock`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test uses some of it")]
mod support;

mod canary;
mod capabilities;
mod cli;
mod client;
mod console;
mod contract;
mod cut_short;
mod described;
mod description;
mod dialects;
mod documents;
mod dumps;
mod durability;
mod entry;
mod events;
mod fault_table;
mod faults;
mod hostile;
mod http2;
mod idempotency;
mod jwt;
mod keys;
mod list;
mod logs;
mod lookup;
mod mock;
mod outbound;
mod packaging;
mod panics;
mod promises;
mod queue;
mod raw;
mod record;
mod refusals;
mod reload;
mod schema;
mod served;
mod service;
mod slow;
mod smoke;
mod smuggling;
mod store;
mod stream;
mod sums;
mod supply;
mod tenancy;
mod tidy;
mod tls;
mod traces;
mod waits;
