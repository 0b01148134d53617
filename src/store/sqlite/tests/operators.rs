//! What operators do with a file, while a gateway has it open and while none has.

use super::*;
use crate::store::Claim;

/// A store with something of everything: finished, waiting, held with calls, cancelled, a draft, a key.
async fn full(folder: &TempDir) -> (Sqlite, Vec<DeletionId>) {
    let store = open(folder);
    let ids: Vec<_> = (0..4).map(|_| DeletionId::new()).collect();
    let claim = Some(Claim { scope: [1; 32], fingerprint: [2; 32], free_before_ms: 0 });
    store.accept(Arc::new(Accept { claim, ..plain(ids[0], 1_500, 2) })).await.unwrap();
    finish(&store, ids[0], 1).await;
    store.accept(Arc::new(Accept { hold: false, ..plain(ids[1], 3, 1) })).await.unwrap();
    store.cancel(ids[1], 5).await.unwrap();
    store.accept(Arc::new(plain(ids[2], 2_500, 2))).await.unwrap();
    store.intent(intent(key(ids[2], 1), 1, &[0, 1, 2])).await.unwrap();
    store.record(record(key(ids[2], 1), 1, &[], &[(1, gone(1)), (2_400, gone(2))])).await.unwrap();
    let draft = plain(ids[3], 10, 1);
    store.draft(ids[3], "tenant".into(), Arc::clone(&draft.last)).await.unwrap();
    (store, ids)
}

#[tokio::test]
async fn a_sound_file_is_said_to_be_sound() {
    let folder = folder();
    let (store, _) = full(&folder).await;
    let report = assert_sound(&folder);
    assert_eq!((report.version, report.deletions, report.unfinished, report.parts), (2, 3, 2, 3));
    assert_eq!((report.contacts, report.open, report.identifiers), (4_003, 2_501, 2_503));
    assert_eq!((report.attempts, report.claims, report.drafts, report.forgotten), (1, 1, 1, 0));
    assert!(report.bytes > 100_000);
    assert!(store.healthy());
    store.close().await;
    assert_eq!(assert_sound(&folder).contacts, 4_003, "without a gateway as well");
    let store = open(&folder);
    assert_eq!(store.backlog().await.unwrap(), HashMap::from([("tenant".into(), 2_501)]));
    store.close().await;
}

#[tokio::test]
async fn what_is_wrong_is_found() {
    let wrongs = [
        ("DELETE FROM parts WHERE state = 1", "its parts are not those that it should have"),
        ("UPDATE deletions SET parts = 2", "its parts are not those that it should have"),
        ("UPDATE parts SET tenant = 'other'", "its parts are not those that it should have"),
        ("UPDATE deletions SET finished_ms = 1 WHERE finished_ms IS NULL", "it is finished and has 3 open contacts"),
        ("DELETE FROM contacts WHERE seq = 1", "not all of its contacts are there"),
        ("DELETE FROM results", "it does not count the results that are there"),
        ("UPDATE parts SET deleted = deleted + 1", "it does not count the results that are there"),
        ("UPDATE parts SET absent = absent - 1 WHERE absent > 0", "it does not count the results that are there"),
        ("UPDATE parts SET open = 0", "it does not count the results that are there"),
        (
            "INSERT INTO results SELECT deletion, part, fence, number + 1, seq, body FROM results",
            "results are of no contact, or not its first",
        ),
        ("UPDATE parts SET state = 3 WHERE state = 2", "its state is not that of a part with"),
        ("UPDATE parts SET state = 2 WHERE state = 1", "its state is not that of a part with"),
        ("UPDATE parts SET state = 7", "its state is not that of a part with"),
        ("DELETE FROM identifiers", "not all identifiers of its contacts are there"),
        (
            "INSERT INTO identifiers (deletion, part, seq, body)
                SELECT deletion, part, seq, body FROM contacts WHERE true ON CONFLICT DO NOTHING",
            "it is over, and identifiers are left",
        ),
        (
            "INSERT INTO attempts SELECT deletion, part, 0, 9, 1, 0, 0, NULL, x'' FROM parts",
            "it is over, and calls of it are left",
        ),
        ("DELETE FROM deletions", "belong to nothing"),
        ("DELETE FROM claims", "its key is not there"),
        ("UPDATE claims SET deletion = zeroblob(16)", "keys are of no deletion"),
        ("DELETE FROM drafts", "1 rows of parts belong to nothing"),
        ("UPDATE parts SET state = 1 WHERE state = 0", "1 parts of drafts can be worked"),
        ("UPDATE contacts SET body = x'5b'", "a row cannot be read"),
        ("DROP TABLE claims", "there is no table claims"),
    ];
    for (sql, expected) in wrongs {
        let folder = folder();
        let (store, _) = full(&folder).await;
        store.inside(move |connection| Ok(connection.execute_batch(sql)?)).await;
        let report = check(&folder.path().join("ledger.db")).unwrap();
        assert!(!report.is_sound() && report.findings.iter().any(|line| line.contains(expected)), "{sql}: {report:?}");
        let quotes = |line: &String| line.contains("id-") || line.contains("row ") && !line.contains("a row cannot");
        assert!(!report.findings.iter().any(quotes), "{report:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn damage_is_a_finding() {
    let folder = folder();
    let (store, _) = full(&folder).await;
    store.close().await;
    let file = folder.path().join("ledger.db");
    let whole = std::fs::read(&file).unwrap();
    let mut found = 0;
    for page in 1..whole.len() / 4_096 {
        let mut bytes = whole.clone();
        bytes[page * 4_096..][..2_000].fill(0x5a);
        std::fs::write(&file, bytes).unwrap();
        match check(&file) {
            Ok(report) => found += usize::from(!report.is_sound()),
            Err(line) => {
                assert!(line.contains("damaged"), "{line}");
                found += 1;
            }
        }
    }
    // Zeroed pages that hold nothing are the only ones whose damage does not matter.
    assert!(found * 10 > whole.len() / 4_096 * 4, "only {found} of {} damaged pages were found", whole.len() / 4_096);
}

#[test]
fn what_is_no_ledger_cannot_be_checked_or_copied() {
    let folder = folder();
    let (file, target) = (folder.path().join("ledger.db"), folder.path().join("copy.db"));
    let refused = |expected: &str| {
        let (one, other) = (check(&file).unwrap_err(), backup(&file, &target).unwrap_err());
        assert!(one.contains(expected) && other.contains(expected), "{one}; {other}");
        assert!(!target.exists() && !folder.path().join("copy.db.partial").exists());
    };
    refused("there is no such file");
    std::fs::write(&file, "").unwrap();
    refused("nothing was ever put into it");
    std::fs::write(&file, [b'S'; 5_000]).unwrap();
    refused("it is not a SQLite database");
    std::fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    refused("it is a SQLite database of another program");
}

#[tokio::test]
async fn a_copy_is_taken_while_the_gateway_runs() {
    let folder = folder();
    let (store, ids) = full(&folder).await;
    let (file, target) = (folder.path().join("ledger.db"), folder.path().join("copy.db"));
    backup(&file, &target).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(!folder.path().join("copy.db.partial").exists());
    let again = backup(&file, &target).unwrap_err();
    assert!(again.ends_with("copy.db: it is there already"), "{again}");
    std::fs::write(folder.path().join("other.db.partial"), "").unwrap();
    let half = backup(&file, &folder.path().join("other.db")).unwrap_err();
    assert!(half.contains("other.db.partial: it is there already"), "{half}");

    // The gateway goes on, and the copy stays what it was.
    store.cancel(ids[2], 6).await.unwrap();
    store.accept(Arc::new(plain(DeletionId::new(), 5, 1))).await.unwrap();
    let report = check(&target).unwrap();
    assert_eq!((report.findings.len(), report.unfinished, report.open, report.drafts), (0, 2, 2_501, 1));
    let copy = Sqlite::open(&target, Options::default()).unwrap();
    assert_eq!(copy.hash_key(), store.hash_key());
    for id in &ids[..2] {
        assert_eq!(copy.read(*id).await.unwrap(), store.read(*id).await.unwrap());
        assert_eq!(copy.page(*id, 0).await.unwrap(), store.page(*id, 0).await.unwrap());
    }
    assert_eq!(claim_all(&copy).await, 2);
    copy.close().await;
    store.close().await;
}

/// Nothing of what was erased before comes along.
#[tokio::test]
async fn a_file_of_version_1_is_copied_before_it_is_brought_up_to_date() {
    let folder = folder();
    let (file, target) = (folder.path().join("ledger.db"), folder.path().join("copy.db"));
    std::fs::write(&file, include_bytes!("../fixtures/v1.sqlite")).unwrap();
    backup(&file, &target).unwrap();
    assert_eq!(check(&target).map(|report| (report.version, report.is_sound())), Ok((1, true)));
    let copy = Sqlite::open(&target, Options::default()).unwrap();
    assert_eq!(claim_all(&copy).await, 1);
    copy.close().await;
    assert_eq!(check(&target).map(|report| (report.version, report.is_sound())), Ok((2, true)));
    assert_eq!(check(&file).map(|report| (report.version, report.is_sound())), Ok((1, true)));
}
