//! What is erased and forgotten, and what is left.

use adapters::Identifier;

use super::*;
use crate::store::conformance::{intent, key, part, record};
use crate::store::{Contact, Purged};

const MARK: &str = "mark-of-somebody";

#[tokio::test]
async fn identifiers_go_with_the_last_result_of_their_part() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    let named = "SELECT count(*) FROM onedelete.identifiers";
    let deletion = marked(2_500);
    let id = deletion.head.id;
    ledger.accept(Arc::new(deletion)).await.unwrap();
    ledger.intent(intent(key(id, 1), 1, &[0])).await.unwrap();
    assert_eq!(database.query(named), ["3"]);
    let settled = all(2_500);
    ledger.record(record(key(id, 1), 1, &[], &settled[1..])).await.unwrap();
    assert_eq!(database.query(named), ["3"], "one contact is open");
    ledger.record(record(key(id, 1), 2, &[], &settled[..1])).await.unwrap();
    assert_eq!(database.query(named), ["0"]);
    assert_eq!(database.query("SELECT count(*) FROM onedelete.attempts"), ["0"]);
    // All that is settled from the start is not even put down.
    let settled_at_once: Vec<_> = (0..2).map(|n| (adapters::Slot(n), gone(1))).collect();
    let deletion = marked(2);
    let last = part(0, 0, deletion.last.all(), settled_at_once);
    ledger.accept(Arc::new(Accept { last, ..deletion })).await.unwrap();
    assert_eq!(database.query(named), ["0"]);
    assert!(!is_anywhere(&database), "no table has them any more");
    // And the vacuum finds nothing that is held back.
    ledger.purge(purge()).await.unwrap();
    assert_eq!(database.query("SELECT pg_relation_size('onedelete.identifiers')"), ["0"]);
    assert_eq!(
        database.query(
            "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'onedelete.identifiers'::regclass"
        ),
        ["0"]
    );
}

#[tokio::test]
async fn kept_identifiers_go_when_their_time_is_over() {
    let Some(database) = Database::new() else { return };
    let keeping = PostgresSettings { keep_identifiers: true, ..settings(&database.url()) };
    let ledger = Postgres::open(keeping).await.unwrap();
    for finished_ms in [10, 20] {
        let deletion = marked(3);
        let id = deletion.head.id;
        ledger.accept(Arc::new(deletion)).await.unwrap();
        ledger.record(record(key(id, 1), 1, &[], &all(3))).await.unwrap();
        assert!(ledger.finish(id, finished_ms).await.unwrap());
    }
    let running = marked(3);
    ledger.accept(Arc::new(running)).await.unwrap();
    let named = "SELECT count(*) FROM onedelete.identifiers";
    assert_eq!(ledger.purge(purge()).await, Ok(Purged::default()));
    assert_eq!(database.query(named), ["3"]);
    let purged = ledger.purge(Purge { identifiers_before_ms: 20, ..purge() }).await.unwrap();
    assert_eq!((purged.identifiers, purged.more), (1, false));
    assert_eq!(database.query(named), ["2"]);
    // Once they are not kept any more, the next purge erases all but those that are needed.
    let purged = open(&database).await.purge(purge()).await.unwrap();
    assert_eq!(purged.identifiers, 1);
    assert_eq!(database.query(named), ["1"]);
}

#[tokio::test]
async fn a_forgotten_deletion_leaves_nothing() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    let mut ids = Vec::new();
    for finished_ms in 0..30 {
        let deletion = marked(3);
        let id = deletion.head.id;
        ledger.accept(Arc::new(deletion)).await.unwrap();
        ledger.intent(intent(key(id, 1), 1, &[0])).await.unwrap();
        ledger.record(record(key(id, 1), 1, &[], &all(3))).await.unwrap();
        assert!(ledger.finish(id, finished_ms).await.unwrap());
        ids.push(id);
    }
    // A little at a time, the oldest first.
    let old = Purge { deletions_before_ms: Some(25), most: 200, ..purge() };
    let mut deletions = Vec::new();
    loop {
        let purged = ledger.purge(old).await.unwrap();
        deletions.push(purged.deletions);
        assert_eq!(purged.drafts, 0, "its parts are no drafts");
        if !purged.more {
            break;
        }
    }
    assert_eq!(deletions, [10, 10, 5]);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(ledger.read(*id).await.unwrap().is_some(), n >= 25);
        assert_eq!(ledger.page(*id, 0).await.unwrap().is_some(), n >= 25);
    }
    for table in ["deletions", "parts", "contacts", "results"] {
        assert_eq!(database.query(&format!("SELECT count(*) FROM onedelete.{table}")), ["5"], "{table}");
    }
}

#[tokio::test]
async fn a_draft_that_was_left_is_thrown_away() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    let (left, arriving) = (DeletionId::new(), DeletionId::new());
    for id in [left, arriving] {
        for n in 0..2 {
            ledger.draft(id, "tenant".into(), part(n, n * 3, marked(3).last.all(), vec![])).await.unwrap();
        }
    }
    database.execute(&["UPDATE onedelete.parts SET begun_ms = 1000"]);
    let third = part(2, 6, marked(3).last.all(), vec![]);
    ledger.draft(arriving, "tenant".into(), third).await.unwrap();
    let nothing = ledger.purge(Purge { drafts_before_ms: 1_000, ..purge() }).await.unwrap();
    assert_eq!(nothing.drafts, 0);
    let purged = ledger.purge(Purge { drafts_before_ms: 1_001, ..purge() }).await.unwrap();
    assert_eq!((purged.drafts, purged.more), (1, false), "what still arrives is not left");
    assert_eq!(database.query("SELECT count(*) FROM onedelete.parts"), ["3"]);
    ledger.discard(arriving).await.unwrap();
    assert!(!is_anywhere(&database));
}

/// A deletion whose identifiers are found wherever they are.
fn marked(count: u32) -> Accept {
    let contact = |n: u32| Contact {
        share: 0,
        identifier: Identifier::Id(format!("{MARK}-{n}").into()),
        hash: u128::from(n).to_be_bytes(),
        reference: None,
    };
    let last = part(0, 0, (0..count).map(contact).collect(), vec![]);
    Accept { last, ..plain(DeletionId::new(), 0, 1) }
}

/// Whether the mark is in any row of any table.
fn is_anywhere(database: &Database) -> bool {
    let tables = database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'onedelete'");
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    tables.iter().any(|table| {
        let sql = format!("SELECT 1 FROM onedelete.{table} t WHERE t::text LIKE '%{MARK}%' OR t::text LIKE '%{hex}%'");
        !database.query(&sql).is_empty()
    })
}
