//! The tables, and how those of older versions become today's.
//!
//! It opens no file, and puts nothing into a row that a deletion is not known from already.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Failure;
use super::version_1;

/// `1del`, in the header of every file of ours (`PRAGMA application_id`).
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"1del");
/// The version of the tables (`PRAGMA user_version`).
pub(super) const VERSION: i32 = 2;

/// Where unfinished work stands, and small however long the history is.
pub(super) const WORKING_TABLES: [&str; 4] = ["meta", "drafts", "forgotten", "attempts"];

/// A part of a deletion that is still arriving.
pub(super) const DRAFT: i64 = 0;
/// A part that nobody works.
pub(super) const WAITING: i64 = 1;
/// A part that is being worked.
pub(super) const HELD: i64 = 2;
/// A part without open contacts.
pub(super) const OVER: i64 = 3;

/// The tables that hold what belongs to a deletion, those with identifiers first, and what names a row within it.
pub(super) const OF_A_DELETION: [(&str, &str); 5] = [
    ("identifiers", "part, seq"),
    ("attempts", "part, share, ticket"),
    ("results", "part, fence, number, seq"),
    ("contacts", "part, seq"),
    ("parts", "part"),
];

/// The tables of today.
///
/// `identifiers.pad` is longer than what SQLite puts of a row on a page that it shares with others (1,002 bytes), so an
/// identifier only ever stands on pages of its own row. Those never move and are overwritten as a whole, while moving
/// rows from page to page leaves bytes of them behind, `secure_delete` or not.
pub(super) const TABLES: &str = "
    CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE deletions (
        id BLOB NOT NULL PRIMARY KEY, tenant TEXT NOT NULL, created_ms INTEGER NOT NULL, finished_ms INTEGER,
        cancelled_ms INTEGER, contacts INTEGER NOT NULL, parts INTEGER NOT NULL, reason TEXT, reference TEXT,
        shares TEXT NOT NULL, scope BLOB, kept INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX of_tenant ON deletions (tenant, id);
    CREATE INDEX of_reference ON deletions (tenant, reference, id) WHERE reference IS NOT NULL;
    CREATE INDEX unfinished ON deletions (tenant, id) WHERE finished_ms IS NULL;
    CREATE INDEX finished ON deletions (finished_ms) WHERE finished_ms IS NOT NULL;
    CREATE INDEX finished_with_key ON deletions (finished_ms) WHERE finished_ms IS NOT NULL AND scope IS NOT NULL;
    CREATE INDEX finished_and_kept ON deletions (finished_ms) WHERE finished_ms IS NOT NULL AND kept = 1;
    CREATE TABLE parts (
        deletion BLOB NOT NULL, part INTEGER NOT NULL, tenant TEXT NOT NULL, first INTEGER NOT NULL,
        contacts INTEGER NOT NULL, state INTEGER NOT NULL, fence INTEGER NOT NULL,
        open INTEGER NOT NULL CHECK (open >= 0), deleted INTEGER NOT NULL, not_found INTEGER NOT NULL,
        rejected INTEGER NOT NULL, failed INTEGER NOT NULL, unknown INTEGER NOT NULL, skipped INTEGER NOT NULL,
        pending INTEGER NOT NULL, would_delete INTEGER NOT NULL, absent INTEGER NOT NULL, duplicates INTEGER NOT NULL,
        PRIMARY KEY (deletion, part)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX working ON parts (state, tenant, deletion, part) WHERE state = 1 OR state = 2;
    CREATE TABLE contacts (
        deletion BLOB NOT NULL, part INTEGER NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (deletion, part, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE identifiers (
        deletion BLOB NOT NULL, part INTEGER NOT NULL, seq INTEGER NOT NULL,
        pad BLOB NOT NULL DEFAULT (zeroblob(1000)), body BLOB NOT NULL, PRIMARY KEY (deletion, part, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE attempts (
        deletion BLOB NOT NULL, part INTEGER NOT NULL, share INTEGER NOT NULL, ticket INTEGER NOT NULL,
        attempts INTEGER NOT NULL, in_doubt INTEGER NOT NULL, closed INTEGER NOT NULL, last TEXT,
        slots BLOB NOT NULL, PRIMARY KEY (deletion, part, share, ticket)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE results (
        deletion BLOB NOT NULL, part INTEGER NOT NULL, fence INTEGER NOT NULL, number INTEGER NOT NULL,
        seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (deletion, part, fence, number, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE claims (
        scope BLOB NOT NULL PRIMARY KEY, fingerprint BLOB NOT NULL, deletion BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE drafts (id BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE forgotten (id BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// One version's tables become those of the next.
type Step = fn(&Transaction<'_>) -> Result<(), Failure>;

/// The steps, the one from version 1 first.
const STEPS: [Step; VERSION as usize - 1] = [version_1::convert];

/// The tables that a file of this version has.
pub(super) fn names(version: i32) -> &'static [&'static str] {
    match version {
        1 => &version_1::TABLES,
        _ => &[
            "meta",
            "deletions",
            "parts",
            "contacts",
            "identifiers",
            "attempts",
            "results",
            "claims",
            "drafts",
            "forgotten",
        ],
    }
}

/// Makes an empty file ours, whole or not at all.
pub(super) fn begin(connection: &mut Connection) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// Brings the tables of an older version up to date. Each step is carried out whole or not at all.
pub(super) fn migrate(connection: &mut Connection, from: i32) -> Result<(), Failure> {
    for (step, version) in STEPS.iter().zip(1..VERSION).filter(|(_, version)| *version >= from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step(&transaction)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
