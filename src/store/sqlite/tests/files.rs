//! Which files are opened, and which are refused and left alone.

use rusqlite::Connection;

use super::*;
use crate::store::sqlite::tables::{APPLICATION_ID, VERSION};

/// Why a file is refused.
pub(super) fn refusal(folder: &TempDir) -> String {
    let path = folder.path().join("ledger.db");
    let Err(StoreError::Broken(line)) = Sqlite::open(&path, Options::default()) else { panic!("it was opened") };
    assert!(!line.contains('\n'), "{line}");
    line
}

/// What is found at the path is refused with this line, and left as it was.
pub(super) fn check_refused(folder: &TempDir, expected: &str) {
    let file = folder.path().join("ledger.db");
    let before = std::fs::read(&file).unwrap();
    let line = refusal(folder);
    assert!(line.contains(expected), "{line}");
    assert!(before == std::fs::read(&file).unwrap(), "the file was changed");
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
        assert!(Sqlite::open(&other, Options::default()).is_err());
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
    let Err(error) = Sqlite::open(&folder.path().join("none/ledger.db"), Options::default()) else { panic!() };
    assert!(error.to_string().ends_with("/none does not exist"), "{error}");
    std::fs::create_dir(folder.path().join("ledger.db")).unwrap();
    assert!(refusal(&folder).ends_with(": it is not a file"));
    assert!(Sqlite::open(Path::new("/"), Options::default()).is_err());
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
        ("PRAGMA user_version = 3", "a newer onedelete wrote it (tables of version 3; this one knows up to 2)"),
        ("PRAGMA user_version = 0", "the file is damaged: its tables have no version"),
        ("PRAGMA user_version = -1", "the file is damaged: its tables have no version"),
        ("PRAGMA user_version = 1", "the file is damaged: it has no table shares"),
        ("DROP TABLE drafts", "the file is damaged: it has no table drafts"),
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
        if let Err(StoreError::Broken(line)) = Sqlite::open(&file, Options::default()) {
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
            assert_eq!(number("PRAGMA application_id"), i64::from(APPLICATION_ID));
            assert_eq!(number("PRAGMA user_version"), i64::from(VERSION));
            assert_eq!(number("PRAGMA synchronous"), 2, "FULL");
            assert_eq!(number("PRAGMA secure_delete"), 1);
            assert_eq!(number("PRAGMA temp_store"), 2, "MEMORY");
            assert_eq!(number("PRAGMA wal_autocheckpoint"), 0);
            // What a row puts on a page that it shares is a matter of the size: see the pad of identifiers.
            assert_eq!(number("PRAGMA page_size"), 4_096);
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            Ok(())
        })
        .await;
    store.close().await;
}
