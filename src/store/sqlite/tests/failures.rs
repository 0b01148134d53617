//! After a failure nothing is acknowledged, and nothing that was acknowledged is gone.

use super::files::refusal;
use super::*;

async fn check_broken(folder: &TempDir, store: Sqlite, acknowledged: DeletionId, cause: &str) {
    let lost: Vec<_> = (0..5).map(|_| DeletionId::new()).collect();
    let calls = lost.iter().zip([1, 1, 4_000, 1, 1]);
    let calls = calls.map(|(id, contacts)| store.accept(Arc::new(plain(*id, contacts, 1))));
    for done in store.in_one_group(calls.collect()).await {
        let Err(StoreError::Broken(line)) = done else { panic!("something was acknowledged") };
        assert_eq!(line, cause);
    }
    check_ended(folder, store, acknowledged, cause).await;
    let again = open(folder);
    for id in lost {
        assert!(again.read(id).await.unwrap().is_none());
    }
    again.close().await;
    assert_sound(folder);
}

async fn check_ended(folder: &TempDir, store: Sqlite, acknowledged: DeletionId, cause: &str) {
    assert!(!store.healthy());
    let broken = Err(StoreError::Broken(cause.to_owned()));
    assert_eq!(store.accept(Arc::new(plain(DeletionId::new(), 1, 1))).await.map(drop), broken);
    assert_eq!(store.read(acknowledged).await.map(drop), broken);
    assert_eq!(store.finish(acknowledged, 1).await.map(drop), broken);
    assert!(refusal(folder).contains("it is in use: "), "the file is held until the store is let go of");
    store.close().await;
    assert_eq!(store.finish(acknowledged, 1).await.map(drop), broken, "the first cause stays");

    let again = open(folder);
    assert!(again.healthy());
    assert_eq!(claim_all(&again).await, 1);
    assert!(again.read(acknowledged).await.unwrap().is_some());
    again.close().await;
}

#[tokio::test]
async fn a_full_disk_breaks_the_store() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(plain(id, 1, 1))).await.unwrap();
    store
        .inside(|connection| {
            let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 10), [], |_| Ok(()))?;
            Ok(())
        })
        .await;
    check_broken(&folder, store, id, "a write: the disk is full (SQLite code 13)").await;
}

#[tokio::test]
async fn a_failed_commit_breaks_the_store() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(plain(id, 1, 1))).await.unwrap();
    let probe = Arc::clone(&store.probe);
    // The holding group itself must pass: the next one fails.
    let armed = probe.commits.load(Ordering::SeqCst) + 1;
    probe.fail_from.store(armed, Ordering::SeqCst);
    check_broken(&folder, store, id, "a write: a test made it fail").await;
}

#[tokio::test]
async fn a_log_that_cannot_be_emptied_breaks_the_store() {
    let folder = folder();
    let store = open(&folder);
    let (id, done) = (DeletionId::new(), DeletionId::new());
    store.accept(Arc::new(plain(id, 1, 1))).await.unwrap();
    store.accept(Arc::new(plain(done, 1, 1))).await.unwrap();
    finish(&store, done, 1).await;
    store.probe.fail_log.store(true, Ordering::SeqCst);
    // Nobody asks for anything: the writer does this by itself, and holds the file until it is let go of.
    store.commands.closed().await;
    check_ended(&folder, store, id, "moving the log into the database: a test made it fail").await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_said_to_be_so() {
    let folder = folder();
    let store = open(&folder);
    let (id, other) = (DeletionId::new(), DeletionId::new());
    store.accept(Arc::new(Accept { hold: false, ..plain(id, 1, 1) })).await.unwrap();
    store.accept(Arc::new(Accept { hold: false, ..plain(other, 1, 1) })).await.unwrap();
    let bytes = id.to_bytes();
    store
        .inside(move |connection| {
            connection.execute("UPDATE contacts SET body = '[{\"secret\":1}]'", []).unwrap_err();
            let sql = "UPDATE contacts SET body = CAST('[{\"secret\":1}]' AS BLOB) WHERE deletion = ?1";
            assert_eq!(connection.execute(sql, [bytes])?, 1);
            Ok(())
        })
        .await;
    let unreadable = Err(StoreError::Broken("a stored row cannot be read".into()));
    assert_eq!(store.page(id, 0).await.map(drop), unreadable);
    assert_eq!(store.claim(Arc::new(Loads { most: 1, ..Loads::default() })).await.map(drop), unreadable);
    assert!(store.healthy());
    // It does not come up again and again: others go on.
    assert_eq!(claim(&store).await.unwrap().head.id, other);
    assert!(claim(&store).await.is_none());
    store.close().await;
    let report = check(&folder.path().join("ledger.db")).unwrap();
    assert_eq!(report.findings, [format!("{id} part 0: a row cannot be read")]);
}

#[tokio::test]
async fn a_long_log_is_moved_into_the_database() {
    let folder = folder();
    let store = open(&folder);
    for _ in 0..40 {
        store.accept(Arc::new(plain(DeletionId::new(), 10_000, 1))).await.unwrap();
    }
    let log = std::fs::metadata(folder.path().join("ledger.db-wal")).unwrap().len();
    let database = std::fs::metadata(folder.path().join("ledger.db")).unwrap().len();
    assert!(log < 8 << 20 && database > 20 << 20, "{log} bytes of log, {database} of database");
    store.close().await;
}
