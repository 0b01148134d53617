//! The Postgres ledger against real servers: the laws, several gateways, failures, and what is left of what was erased.
//!
//! Leases are made to run out by SQL, never by waiting.

mod forgetting;
mod gate;
#[path = "../../../tests/postgres/mod.rs"]
mod machine;
mod opening;
mod sharing;
mod trouble;

use std::sync::Arc;

use self::machine::Database;
use super::{Postgres, PostgresSettings};
use crate::store::conformance::{self, Pair, gone, plain};
use crate::store::{Accept, DeletionId, Job, Ledger, Loads, Purge};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_a_ledger() {
    let Some(database) = Database::new() else { return };
    conformance::check(|| {
        // A schema is quicker to make than a database.
        database.execute(&["DROP SCHEMA IF EXISTS onedelete CASCADE"]);
        Box::new(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(open(&database))))
    })
    .await;
}

#[tokio::test]
async fn postgres_does_what_the_book_does() {
    let Some(database) = Database::new() else { return };
    for seed in 0..2 {
        let mut pair = Pair::new(Box::new(open(&database).await), seed);
        for round in 0..4 {
            for _ in 0..100 {
                pair.step().await;
            }
            pair.compare().await;
            if round % 2 == 1 {
                // Another gateway goes on, once the leases have run out.
                pair.ledger.close().await;
                pair.ledger = Box::new(open(&database).await);
            }
            run_out(&database);
            pair.crash();
            pair.claim_all().await;
            pair.compare().await;
        }
        database.execute(&["DROP SCHEMA onedelete CASCADE"]);
    }
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings::new(url.into())
}

async fn open(database: &Database) -> Postgres {
    Postgres::open(settings(&database.url())).await.unwrap()
}

/// Why a ledger does not open.
async fn refused(settings: PostgresSettings) -> String {
    Postgres::open(settings).await.unwrap_err().to_string()
}

/// Every lease has run out.
fn run_out(database: &Database) {
    database.execute(&["UPDATE onedelete.parts SET lease_until = '-infinity' WHERE lease_until IS NOT NULL"]);
}

async fn claim(ledger: &Postgres) -> Option<Job> {
    ledger.claim(Arc::new(Loads { most: 1, ..Loads::default() })).await.unwrap()
}

/// A deletion of one part that waits to be claimed.
fn waiting(contacts: usize) -> Arc<Accept> {
    Arc::new(Accept { hold: false, ..plain(DeletionId::new(), contacts, 1) })
}

/// All contacts of a part of one, settled.
fn all(count: u32) -> Vec<(u32, crate::engine::Settled)> {
    (0..count).map(|slot| (slot, gone(slot))).collect()
}

fn purge() -> Purge {
    Purge { keys_before_ms: 0, deletions_before_ms: None, identifiers_before_ms: 0, drafts_before_ms: 0, most: 1_000 }
}
