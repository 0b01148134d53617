//! Files of version 1 are brought up to date whole, or left as they were.
//!
//! `fixtures/v1.sqlite` was written by the last program with tables of version 1, which was ended by force while one
//! upstream did not answer and another refused connections. Its identifiers are invented.

use adapters::{FaultCode, Identifier, Outcome, Slot};
use rusqlite::{Connection, params};

use super::files::{check_refused, refusal};
use super::*;
use crate::engine::{Retry, Settled};
use crate::store::{Asked, Claim, Filter, Tally};

const FIXTURE: &[u8] = include_bytes!("../fixtures/v1.sqlite");

/// The tables of version 1.
const TABLES: &str = "
    CREATE TABLE deletions (
        id BLOB NOT NULL PRIMARY KEY, tenant TEXT NOT NULL, created_ms INTEGER NOT NULL, finished_ms INTEGER,
        contacts INTEGER NOT NULL, head BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX unfinished ON deletions (id) WHERE finished_ms IS NULL;
    CREATE TABLE contacts (
        deletion BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (deletion, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE identifiers (
        deletion BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (deletion, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE shares (
        deletion BLOB NOT NULL, share INTEGER NOT NULL, fence INTEGER NOT NULL, PRIMARY KEY (deletion, share)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE attempts (
        deletion BLOB NOT NULL, share INTEGER NOT NULL, ticket INTEGER NOT NULL, attempts INTEGER NOT NULL,
        in_doubt INTEGER NOT NULL, closed INTEGER NOT NULL, last TEXT,
        slots BLOB NOT NULL, PRIMARY KEY (deletion, share, ticket)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE results (
        deletion BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (deletion, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE claims (
        scope BLOB NOT NULL PRIMARY KEY, fingerprint BLOB NOT NULL, deletion BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA journal_mode = WAL; PRAGMA application_id = 828663148; PRAGMA user_version = 1;
";

fn fixture() -> TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("ledger.db"), FIXTURE).unwrap();
    folder
}

fn direct(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join("ledger.db")).unwrap()
}

fn all() -> Filter {
    Filter {
        tenant: "acme".into(),
        finished: None,
        reference: None,
        connection: None,
        within: None,
        before: None,
        most: 100,
    }
}

#[tokio::test]
async fn what_was_finished_reads_back() {
    let folder = fixture();
    assert_eq!(
        check(&folder.path().join("ledger.db")).map(|report| (report.version, report.is_sound())),
        Ok((1, true))
    );
    let store = open(&folder);
    let list = store.list(all()).await.unwrap();
    let [running, refused, single, mixed] = &list[..] else { panic!("{list:?}") };
    assert!(list.iter().all(|summary| summary.parts == 1 && summary.cancelled_ms.is_none()));

    assert_eq!((mixed.head.reason.as_deref(), mixed.head.reference.as_deref()), (Some("gdpr_erasure"), Some("DSR-1")));
    assert_eq!(mixed.head.shares, ["support".into(), "portal".into()]);
    assert_eq!((mixed.head.created_ms, mixed.finished_ms), (1_795_321_898_131, Some(1_795_321_898_207)));
    let page = store.page(mixed.head.id, 0).await.unwrap().unwrap();
    let asked = |share, reference: Option<&str>| Asked { share, hash: None, reference: reference.map(Arc::from) };
    assert_eq!(*page.contacts, [asked(0, Some("row-1")), asked(1, None), asked(1, None), asked(0, Some("again"))]);
    let results: Vec<Settled> = page.results.iter().map(|settled| settled.cloned().unwrap()).collect();
    let outcomes: Vec<_> = results.iter().map(|settled| settled.outcome).collect();
    assert_eq!(outcomes, [Outcome::NotFound, Outcome::NotFound, Outcome::Rejected, Outcome::Skipped]);
    assert_eq!(results[3], Settled::duplicate(Slot(0)));
    assert_eq!((mixed.tally, mixed.tally.total()), (Tally::of(&results), 4));
    assert_eq!(results[2].retry, Some(Retry::Never));

    assert_eq!((single.contacts, single.all_absent(), single.finished_ms.is_some()), (1, true, true));
    assert_eq!((refused.contacts, refused.head.reference.as_deref()), (1_100, Some("DSR-2")));
    assert_eq!(refused.tally.settled[Outcome::Rejected as usize], 1_100);
    let page = store.page(refused.head.id, 0).await.unwrap().unwrap();
    assert_eq!(page.contacts[1_099], asked(0, Some("r1099")));
    assert!(page.results.iter().all(|result| result.is_some_and(|settled| !settled.sent)));
    assert_eq!((running.contacts, running.finished_ms, running.tally.total()), (7, None, 3));
    let report = assert_sound(&folder);
    assert_eq!((report.version, report.deletions, report.unfinished, report.contacts), (2, 4, 1, 1_112));
    store.close().await;
}

#[tokio::test]
async fn what_was_not_finished_goes_on_where_it_stood() {
    let folder = fixture();
    let store = open(&folder);
    assert_eq!(store.backlog().await.unwrap(), HashMap::from([("acme".into(), 4)]));
    let job = claim(&store).await.unwrap();
    assert!(claim(&store).await.is_none());
    assert_eq!((job.key.part, job.key.fence, job.parts, job.cancelled), (0, 2, 1, false));
    assert_eq!(job.head.shares, ["stalled".into(), "support".into(), "refusing".into(), "portal".into()]);
    assert_eq!(job.part.contacts.len(), 7);
    assert!(job.part.identifiers[0] == Identifier::Id("501".into()));
    assert_eq!(job.part.settled.iter().map(|(slot, _)| slot.0).collect::<Vec<_>>(), [2, 5, 6]);

    let past = |share| {
        let (fresh, past, last) = job.past(share);
        let groups = past.iter().map(|group| {
            let slots: Vec<_> = group.targets.iter().map(|target| target.slot.0).collect();
            (slots, group.attempts, group.in_doubt, group.in_flight, group.last)
        });
        (fresh.len(), groups.collect::<Vec<_>>(), last)
    };
    // What was in flight still is: it may have been carried out.
    assert_eq!(past(0), (0, vec![(vec![0], 1, false, true, None), (vec![1], 1, false, true, None)], 2));
    assert_eq!(past(1), (0, vec![], 1));
    let refused = Some(FaultCode::ConnectFailed);
    assert_eq!(past(2), (0, vec![(vec![3], 1, false, false, refused), (vec![4], 1, false, false, refused)], 2));
    assert_eq!(past(3), (0, vec![], 0));

    // Under its new fence it is carried out.
    store.intent(intent(job.key, 3, &[0])).await.unwrap();
    let settled = [(0, gone(2)), (1, gone(2)), (3, gone(2)), (4, gone(2))];
    store.record(record(job.key, 1, &[], &settled)).await.unwrap();
    assert!(store.finish(job.key.deletion, 5).await.unwrap());
    store.log_emptied().await;
    for file in folder.path().read_dir().unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(14).any(|window| window == b"{\"id\":\"501\"},{"), "an identifier is left");
    }
    assert_sound(&folder);
    store.close().await;
}

/// A key's scope, what was asked for under it, the deletion, and when that was finished.
type Used = ([u8; 32], [u8; 32], [u8; 16], Option<i64>);

#[tokio::test]
async fn a_key_that_was_used_stays_used() {
    let folder = fixture();
    let sql = "SELECT scope, fingerprint, deletion, finished_ms FROM claims JOIN deletions ON id = deletion";
    let claims: Vec<Used> = {
        let connection = direct(&folder);
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(claims.len(), 2);
    let store = open(&folder);
    for (scope, fingerprint, id, finished_ms) in claims {
        let accept = async |fingerprint, free_before_ms| {
            let claim = Some(Claim { scope, fingerprint, free_before_ms });
            store.accept(Arc::new(Accept { claim, ..plain(DeletionId::new(), 1, 1) })).await.unwrap()
        };
        assert_eq!(accept(fingerprint, 0).await, Accepted::Before(DeletionId::from_bytes(id)));
        assert_eq!(accept([1; 32], 0).await, Accepted::Other);
        let later = if finished_ms.is_some() { Accepted::New } else { Accepted::Other };
        assert_eq!(accept([1; 32], i64::MAX).await, later);
    }
    store.close().await;
    assert_sound(&folder);
}

/// A deletion with more contacts than a part may have, results across its parts, and calls across them.
#[tokio::test]
async fn a_large_deletion_is_divided() {
    let folder = folder();
    let (id, finished) = (DeletionId::new(), DeletionId::new());
    let count = 25_000u32;
    {
        let connection = direct(&folder);
        connection.execute_batch(TABLES).unwrap();
        let head = br#"{"shares":["one","two"]}"#;
        let rows = |id: DeletionId, table: &str, bodies: Vec<String>| {
            let sql = format!("INSERT INTO {table} (deletion, seq, body) VALUES (?1, ?2, ?3)");
            for (body, seq) in bodies.iter().zip(0..) {
                connection.execute(&sql, params![id.to_bytes(), seq, body.as_bytes()]).unwrap();
            }
        };
        let slots: Vec<u32> = (0..count).collect();
        let lists = |of: &dyn Fn(&u32) -> String, slots: &[u32], size| {
            let list = |chunk: &[u32]| format!("[{}]", chunk.iter().map(of).collect::<Vec<_>>().join(","));
            slots.chunks(size).map(list).collect::<Vec<_>>()
        };
        let result = |slot: &u32| serde_json::to_string(&(Slot(*slot), gone(slot % 7))).unwrap();
        for (id, settled, finished_ms) in [(id, 12_000, None), (finished, count, Some(9))] {
            let sql = "INSERT INTO deletions VALUES (?1, 'acme', 1, ?2, ?3, ?4)";
            connection.execute(sql, params![id.to_bytes(), finished_ms, count, head]).unwrap();
            rows(id, "contacts", lists(&|slot| format!("{{\"s\":{}}}", slot % 2), &slots, 1_000));
            let mut results = lists(&result, &slots[..settled as usize], 700);
            // One that comes later does not count.
            results.push(serde_json::to_string(&[(Slot(3), gone(99))]).unwrap());
            rows(id, "results", results);
        }
        rows(id, "identifiers", lists(&|slot| format!("{{\"id\":\"person-{slot}\"}}"), &slots, 1_000));
        for (share, fence) in [(0, 4), (1, 4)] {
            let sql = "INSERT INTO shares VALUES (?1, ?2, ?3)";
            connection.execute(sql, params![id.to_bytes(), share, fence]).unwrap();
        }
        let calls = [(0, 1, 9_990..10_010, 1, Some("upstream_error")), (0, 5, 19_990..20_010, 0, None)];
        for (share, ticket, slots, closed, last) in calls {
            let slots: Vec<u8> = slots.flat_map(u32::to_le_bytes).collect();
            let sql = "INSERT INTO attempts VALUES (?1, ?2, ?3, 2, 1, ?4, ?5, ?6)";
            connection.execute(sql, params![id.to_bytes(), share, ticket, closed, last, slots]).unwrap();
        }
    }
    let store = open(&folder);
    for (id, settled) in [(id, 12_000), (finished, count)] {
        let summary = store.read(id).await.unwrap().unwrap();
        assert_eq!((summary.contacts, summary.parts, summary.tally.total()), (count, 3, settled));
        for (number, first, contacts) in [(0, 0, 10_000), (1, 10_000, 10_000), (2, 20_000, 5_000)] {
            let page = store.page(id, number).await.unwrap().unwrap();
            assert_eq!((page.first, page.contacts.len()), (first, contacts));
            for ((slot, asked), result) in (first..).zip(page.contacts.iter()).zip(page.results.iter()) {
                assert_eq!(u32::from(asked.share), slot % 2);
                assert_eq!(result, (slot < settled).then(|| gone(slot % 7)).as_ref());
            }
        }
    }
    let (second, third) = (claim(&store).await.unwrap(), claim(&store).await.unwrap());
    assert!(claim(&store).await.is_none(), "the first part is over");
    assert_eq!((second.key.part, second.key.fence, third.key.part, third.key.fence), (1, 5, 2, 5));
    assert!(second.part.identifiers[9_999] == Identifier::Id("person-19999".into()));
    assert_eq!((second.part.settled.len(), second.attempts[0].len(), third.attempts[0].len()), (2_000, 2, 1));
    let call = &second.attempts[0][0];
    assert_eq!((call.closed, call.last, call.slots.len()), (true, Some(FaultCode::UpstreamError), 10));
    for (job, first) in [(&second, 19_990), (&third, 20_000)] {
        let call = job.attempts[0].last().unwrap();
        assert_eq!((call.ticket.0, call.closed, call.in_doubt, call.attempts), (5, false, true, 2));
        assert_eq!(call.slots, (first..first + 10).map(Slot).collect::<Vec<_>>());
    }
    let report = assert_sound(&folder);
    assert_eq!((report.identifiers, report.open, report.attempts), (15_000, 13_000, 3));
    store.close().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_brought_up_to_date_is_left_as_it_was() {
    let damages = [
        "UPDATE results SET body = x'5b' WHERE seq = 1",
        "UPDATE deletions SET contacts = 8 WHERE finished_ms IS NULL",
        "UPDATE deletions SET head = x'7b7d'",
        "DELETE FROM identifiers",
        "DELETE FROM results WHERE seq = 1",
        "UPDATE attempts SET slots = x'000000'",
        "UPDATE deletions SET finished_ms = 1",
    ];
    for damage in damages {
        let folder = fixture();
        direct(&folder).execute_batch(damage).unwrap();
        check_refused(&folder, "its tables of version 1 cannot be brought up to date: a stored row cannot be read");
        assert!(refusal(&folder).contains("version 1"), "and again");
        let connection = direct(&folder);
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("PRAGMA user_version"), 1);
        assert_eq!(number("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'old%'"), 0);
        assert_eq!(number("SELECT count(*) FROM contacts"), 5);
    }
}
