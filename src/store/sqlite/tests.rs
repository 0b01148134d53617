//! What the file store promises beyond the laws of every ledger: its file, its lock, its failures.

use std::future::{Future, poll_fn};
use std::sync::atomic::Ordering;
use std::sync::mpsc as channel;
use std::task::Poll;

use rusqlite::Connection;
use tempfile::TempDir;

use super::fault::Failure;
use super::*;
use crate::store::conformance::{self, Pair, gone, intent, key, plain, record};

/// What a test wants done inside a transaction of the writer's.
pub(super) type Inside = Box<dyn FnOnce(&Connection) -> Result<(), Failure> + Send>;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> Sqlite {
    Sqlite::open(&folder.path().join("ledger.db")).unwrap()
}

/// Why a file is refused.
fn refusal(folder: &TempDir) -> String {
    let Err(StoreError::Broken(line)) = Sqlite::open(&folder.path().join("ledger.db")) else { panic!("it was opened") };
    assert!(!line.contains('\n'), "{line}");
    line
}

impl Sqlite {
    async fn inside(&self, inside: impl FnOnce(&Connection) -> Result<(), Failure> + Send + 'static) {
        self.write(Write::Test(Box::new(inside))).await.unwrap();
    }

    async fn half_way(&self) -> Result<(), StoreError> {
        let inside: Inside = Box::new(|connection| {
            connection.execute("DELETE FROM shares", [])?;
            Err(Failure::Refused(StoreError::Fenced))
        });
        self.write(Write::Test(inside)).await.map(drop)
    }

    /// Starts `calls` while the writer is held up, so that they are all in one group, and gives their answers.
    async fn in_one_group<T>(&self, mut calls: Vec<Reply<'_, T>>) -> Vec<Result<T, StoreError>> {
        let (entered, wait_entered) = oneshot::channel();
        let (release, wait_release) = channel::channel::<()>();
        let held = self.inside(move |_| {
            let _ = entered.send(());
            let _ = wait_release.recv();
            Ok(())
        });
        let all = async {
            wait_entered.await.unwrap();
            // A first poll puts each into the queue; none can be answered yet. Tokio would stop after 128.
            let started = poll_fn(|context| {
                assert!(calls.iter_mut().all(|call| call.as_mut().poll(context).is_pending()));
                Poll::Ready(())
            });
            tokio::task::unconstrained(started).await;
            release.send(()).unwrap();
            futures_util::future::join_all(calls).await
        };
        futures_util::future::join(held, all).await.1
    }

    fn commits(&self) -> usize {
        self.probe.commits.load(Ordering::SeqCst)
    }

    /// Until it has let go of everything; a test that hangs here is a leak.
    fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }
}

#[tokio::test]
async fn sqlite_is_a_ledger() {
    let folder = folder();
    let count = std::cell::Cell::new(0);
    let fresh = || -> Box<dyn Ledger> {
        count.set(count.get() + 1);
        Box::new(Sqlite::open(&folder.path().join(format!("{}.db", count.get()))).unwrap())
    };
    conformance::check(fresh, true).await;
}

/// The same random calls to both, over closings and crashes: they never say different things.
#[tokio::test]
async fn sqlite_does_what_the_book_does() {
    let mut handed_over = 0;
    for seed in 0..10 {
        let folder = folder();
        let mut pair = Pair::new(Box::new(open(&folder)), seed);
        for _ in 0..4 {
            for _ in 0..60 {
                pair.step().await;
            }
            pair.compare().await;
            pair.ledger.close().await;
            pair.ledger = Box::new(open(&folder));
            pair.compare().await;
            handed_over += pair.take_over().await;
        }
    }
    assert!(handed_over > 100, "the schedules leave something unfinished: {handed_over}");
}

#[tokio::test]
async fn a_closed_store_answers_nothing_and_leaves_one_file() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(plain(id, 3, 1))).await.unwrap();
    // What was sent before is carried out before.
    let mut last = store.record(record(key(id, 0, 1), &[], &[(0, gone(1))]));
    poll_fn(|context| {
        let _ = last.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
    futures_util::future::join(store.close(), store.close()).await;
    assert_eq!(last.await, Ok(()));
    assert!(!store.healthy());
    let closed = Err(StoreError::Broken("it is closed".into()));
    assert_eq!(store.accept(Arc::new(plain(DeletionId::new(), 1, 1))).await.map(drop), closed);
    assert_eq!(store.intent(intent(key(id, 0, 1), 1, &[0])).await, closed);
    assert_eq!(store.record(record(key(id, 0, 1), &[], &[])).await, closed);
    assert_eq!(store.finish(id, 1).await, closed);
    assert_eq!(store.read(id).await.map(drop), closed);
    assert_eq!(store.take_over().await.map(drop), closed);
    store.close().await;
    let mut names: Vec<_> = folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["ledger.db", "ledger.db.lock"]);

    let again = open(&folder);
    assert_eq!(again.read(id).await.unwrap().unwrap().results, [Some(gone(1)), None, None]);
}

#[tokio::test]
async fn a_dropped_store_ends_by_itself_and_loses_nothing() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(plain(id, 3, 1))).await.unwrap();
    let ended = store.ended();
    drop(store);
    ended.await;
    assert!(open(&folder).read(id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_copy_taken_while_it_runs_holds_all_that_was_acknowledged() {
    let (folder, copy) = (folder(), folder());
    let store = open(&folder);
    let ids: Vec<_> = (0..50).map(|_| DeletionId::new()).collect();
    for id in &ids {
        store.accept(Arc::new(plain(*id, 40, 2))).await.unwrap();
    }
    // As after kill -9: the files as they are, the log not moved.
    for file in folder.path().read_dir().unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let survivor = open(&copy);
    assert_eq!(survivor.take_over().await.unwrap().len(), ids.len());
}

fn holds(folder: &TempDir, text: &str) -> bool {
    folder.path().read_dir().unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn a_finished_deletion_leaves_no_identifier_in_any_byte() {
    for contacts in [1, 40, 2_500] {
        let folder = folder();
        let (last, id) = (format!("person-{}", contacts - 1), DeletionId::new());
        let mut store = open(&folder);
        store.accept(Arc::new(plain(id, contacts, 1))).await.unwrap();
        store.intent(intent(key(id, 0, 1), 1, &[0])).await.unwrap();
        let settled: Vec<_> = (0..contacts as u32).map(|slot| (slot, gone(1))).collect();
        store.record(record(key(id, 0, 1), &[], &settled)).await.unwrap();
        store.close().await;
        assert!(holds(&folder, &last), "or the search proves nothing");
        store = open(&folder);
        store.finish(id, 1).await.unwrap();
        // What never leaves the log before it is erased.
        let short = Accept { settled: vec![(adapters::Slot(0), gone(1))], ..plain(DeletionId::new(), 1, 1) };
        let short_id = short.id;
        store.accept(Arc::new(short)).await.unwrap();
        store.finish(short_id, 1).await.unwrap();
        store.close().await;
        assert!(!holds(&folder, "person-"), "an identifier is left");
        let stored = open(&folder).read(id).await.unwrap().unwrap();
        assert_eq!((stored.contacts.len(), stored.finished_ms), (contacts, Some(1)));
    }
}

#[tokio::test]
async fn a_second_opening_is_refused() {
    let folder = folder();
    let store = open(&folder);
    assert!(refusal(&folder).contains("it is in use: "), "{}", refusal(&folder));
    #[cfg(unix)]
    {
        // Under another name as well.
        let other = folder.path().join("other.db");
        std::os::unix::fs::symlink(folder.path().join("ledger.db"), &other).unwrap();
        assert!(Sqlite::open(&other).is_err());
        // And it is nobody else's to read.
        use std::os::unix::fs::PermissionsExt;
        for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
    store.close().await;
    open(&folder).close().await;
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = folder();
    let Err(error) = Sqlite::open(&folder.path().join("none/ledger.db")) else { panic!() };
    assert!(error.to_string().ends_with("/none does not exist"), "{error}");
    std::fs::create_dir(folder.path().join("ledger.db")).unwrap();
    assert!(refusal(&folder).ends_with(": it is not a file"));
    assert!(Sqlite::open(Path::new("/")).is_err());
}

/// What is found at the path is refused with this line, and left as it was.
fn check_refused(folder: &TempDir, expected: &str) {
    let file = folder.path().join("ledger.db");
    let before = std::fs::read(&file).unwrap();
    let line = refusal(folder);
    assert!(line.contains(expected), "{line}");
    assert!(before == std::fs::read(&file).unwrap(), "the file was changed");
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_and_left_alone() {
    for bytes in [&b"xy"[..], b"hello, this is a letter\n", &[0; 5_000], &[b'S'; 20_000]] {
        let folder = folder();
        std::fs::write(folder.path().join("ledger.db"), bytes).unwrap();
        check_refused(&folder, "it is not a SQLite database");
    }
    for sql in ["CREATE TABLE t (a); PRAGMA user_version = 1", "PRAGMA application_id = 7", "PRAGMA user_version = 1"] {
        let folder = folder();
        Connection::open(folder.path().join("ledger.db")).unwrap().execute_batch(sql).unwrap();
        check_refused(&folder, "it is a SQLite database of another program");
    }
    let begun = [
        ("PRAGMA user_version = 2", "a newer onedelete wrote it (tables of version 2; this one knows up to 1)"),
        ("PRAGMA user_version = 0", "the file is damaged: its tables have no version"),
        ("DROP TABLE shares", "the file is damaged: it has no table shares"),
    ];
    for (sql, expected) in begun {
        let folder = folder();
        open(&folder).close().await;
        Connection::open(folder.path().join("ledger.db")).unwrap().execute_batch(sql).unwrap();
        check_refused(&folder, expected);
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let folder = folder();
    let store = open(&folder);
    store.accept(Arc::new(plain(DeletionId::new(), 3_000, 2))).await.unwrap();
    store.close().await;
    let file = folder.path().join("ledger.db");
    let whole = std::fs::read(&file).unwrap();
    let mut found = 0;
    for page in 1..whole.len() / 4_096 {
        // The head of one page is overwritten. Pages that only carry on a long row have no head to check.
        let mut bytes = whole.clone();
        bytes[page * 4_096..][..64].fill(0x5a);
        std::fs::write(&file, bytes).unwrap();
        if let Err(StoreError::Broken(line)) = Sqlite::open(&file) {
            assert!(line.contains("the file is damaged"), "{line}");
            found += 1;
        }
    }
    assert!(found >= 7, "only {found} damaged pages were noticed");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    check_refused(&folder, "the file is damaged");
    std::fs::write(&file, &whole).unwrap();
    open(&folder).close().await;
}

#[tokio::test]
async fn an_empty_file_is_begun() {
    let folder = folder();
    std::fs::write(folder.path().join("ledger.db"), "").unwrap();
    let store = open(&folder);
    store
        .inside(|connection| {
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(number("PRAGMA application_id"), i64::from(file::APPLICATION_ID));
            assert_eq!(number("PRAGMA user_version"), i64::from(file::VERSION));
            assert_eq!(number("PRAGMA synchronous"), 2, "FULL");
            assert_eq!(number("PRAGMA secure_delete"), 1);
            assert_eq!(number("PRAGMA temp_store"), 2, "MEMORY");
            assert_eq!(number("PRAGMA wal_autocheckpoint"), 0);
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            Ok(())
        })
        .await;
    store.close().await;
}

#[tokio::test]
async fn what_waits_together_is_committed_once() {
    let folder = folder();
    let store = open(&folder);
    let accept = |contacts| store.accept(Arc::new(plain(DeletionId::new(), contacts, 1)));
    let before = store.commits();
    let done = store.in_one_group((0..200).map(|_| accept(2)).collect()).await;
    assert!(done.iter().all(Result::is_ok));
    // One for what held the writer up, one for the two hundred.
    assert_eq!(store.commits() - before, 2);

    // Large ones do not all go together.
    let before = store.commits();
    let done = store.in_one_group((0..6).map(|_| accept(10_000)).collect()).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(store.commits() - before, 4);
    store.close().await;
}

#[tokio::test]
async fn one_that_is_refused_does_not_spoil_the_others() {
    let folder = folder();
    let store = open(&folder);
    let (first, second) = (DeletionId::new(), DeletionId::new());
    store.accept(Arc::new(plain(first, 2, 1))).await.unwrap();
    let accept = |id, contacts| -> Reply<'_, ()> {
        let accepted = store.accept(Arc::new(plain(id, contacts, 1)));
        Box::pin(async { accepted.await.map(drop) })
    };
    let before = store.commits();
    let done = store
        .in_one_group(vec![
            accept(second, 1),
            store.record(record(key(first, 0, 9), &[], &[(0, gone(1))])),
            // The same id again: the second is not put down, and the first is not touched.
            accept(first, 5),
            store.intent(intent(key(first, 0, 1), 1, &[0])),
            store.intent(intent(key(first, 0, 1), 1, &[1])),
            // One that is refused half-way: what it changed is undone.
            Box::pin(store.half_way()),
            store.record(record(key(first, 0, 1), &[], &[(1, gone(1))])),
        ])
        .await;
    assert_eq!(store.commits() - before, 2);
    let twice = |code| Err(StoreError::Broken(format!("it is there already (SQLite code {code})")));
    assert_eq!(
        done,
        [Ok(()), Err(StoreError::Fenced), twice(1555), Ok(()), twice(1555), Err(StoreError::Fenced), Ok(())]
    );
    assert!(store.healthy());
    assert_eq!(store.read(first).await.unwrap().unwrap().results, [None, Some(gone(1))]);
    assert!(store.read(second).await.unwrap().is_some());
    let unfinished = store.take_over().await.unwrap();
    let first = unfinished.iter().find(|unfinished| unfinished.deletion.id == first).unwrap();
    assert_eq!(first.attempts[0].len(), 1);
    assert_eq!(first.attempts[0][0].slots, [adapters::Slot(0)]);
    store.close().await;
}

/// After a failure nothing is acknowledged, and nothing that was acknowledged is gone.
async fn check_broken(folder: &TempDir, store: Sqlite, acknowledged: DeletionId, cause: &str) {
    let lost: Vec<_> = (0..5).map(|_| DeletionId::new()).collect();
    let calls = lost.iter().zip([1, 1, 4_000, 1, 1]);
    let calls = calls.map(|(id, contacts)| store.accept(Arc::new(plain(*id, contacts, 1))));
    for done in store.in_one_group(calls.collect()).await {
        let Err(StoreError::Broken(line)) = done else { panic!("something was acknowledged") };
        assert_eq!(line, cause);
    }
    assert!(!store.healthy());
    let broken = Err(StoreError::Broken(cause.to_owned()));
    assert_eq!(store.accept(Arc::new(plain(DeletionId::new(), 1, 1))).await.map(drop), broken);
    assert_eq!(store.read(acknowledged).await.map(drop), broken);
    assert_eq!(store.finish(acknowledged, 1).await, broken);
    assert!(refusal(folder).contains("it is in use: "), "the file is held until the store is let go of");
    store.close().await;
    assert_eq!(store.finish(acknowledged, 1).await, broken, "the first cause stays");

    let again = open(folder);
    assert!(again.healthy());
    assert_eq!(again.take_over().await.unwrap().len(), 1);
    assert!(again.read(acknowledged).await.unwrap().is_some());
    for id in lost {
        assert!(again.read(id).await.unwrap().is_none());
    }
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
async fn a_row_that_cannot_be_read_is_said_to_be_so() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(plain(id, 1, 1))).await.unwrap();
    store
        .inside(|connection| {
            connection.execute("UPDATE contacts SET body = '[{\"secret\":1}]'", []).unwrap_err();
            connection.execute("UPDATE contacts SET body = CAST('[{\"secret\":1}]' AS BLOB)", [])?;
            Ok(())
        })
        .await;
    let unreadable = Err(StoreError::Broken("a stored row cannot be read".into()));
    assert_eq!(store.read(id).await.map(drop), unreadable);
    assert_eq!(store.take_over().await.map(drop), unreadable);
    assert!(store.healthy());
    store.close().await;
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
