//! Whom a deletion named is in no byte of the files once it need not be, while the store is open.

use rusqlite::Connection;

use super::*;
use crate::store::Purge;
use crate::store::sqlite::log::Log;

/// All bytes of the database and of what is beside it.
fn bytes(folder: &TempDir) -> Vec<u8> {
    let files = folder.path().read_dir().unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

/// Whether a text stands anywhere in them.
fn holds(folder: &TempDir, text: &str) -> bool {
    !words(&bytes(folder), text).is_empty()
}

/// What follows a text, wherever it stands: up to the next `-`, if that is not far.
fn words<'b>(bytes: &'b [u8], text: &str) -> Vec<&'b [u8]> {
    let (first, rest) = text.as_bytes().split_first().unwrap();
    let (mut words, mut left) = (Vec::new(), bytes);
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = &left[at + 1..];
        if let Some(after) = left.strip_prefix(rest) {
            words.extend(after[..after.len().min(10)].split(|byte| *byte == b'-').next());
        }
    }
    words
}

fn nothing() -> Purge {
    Purge { keys_before_ms: 0, deletions_before_ms: None, identifiers_before_ms: 0, drafts_before_ms: 0, most: 1_000 }
}

#[tokio::test]
async fn a_finished_deletion_leaves_no_identifier_in_any_byte() {
    for contacts in [1, 40, 2_500, 10_000] {
        let folder = folder();
        let store = open(&folder);
        let (id, last) = (DeletionId::new(), format!("person-{}", contacts - 1));
        store.accept(Arc::new(named(id, contacts, "person-"))).await.unwrap();
        store.intent(intent(key(id, 1), 1, &[0])).await.unwrap();
        assert!(holds(&folder, &last), "or the search proves nothing");
        finish(&store, id, 1).await;
        // What never leaves the log before it is erased.
        let short = named(DeletionId::new(), 1, "person-");
        let short_id = short.head.id;
        store.accept(Arc::new(short)).await.unwrap();
        finish(&store, short_id, 1).await;
        store.log_emptied().await;
        assert!(!holds(&folder, "person-"), "an identifier is left");
        assert_sound(&folder);
        let summary = store.read(id).await.unwrap().unwrap();
        assert_eq!((summary.contacts as usize, summary.finished_ms), (contacts, Some(1)));
        store.close().await;
    }
}

/// Rows move from page to page as others come and go; nothing of them is left behind. With these seeds something is,
/// where identifiers stand on pages that rows share.
#[tokio::test]
async fn those_that_are_finished_leave_nothing_among_those_that_are_not() {
    for seed in [4, 7] {
        let folder = folder();
        let store = open(&folder);
        let (mut open, done) =
            store.write(1, move |connection, after| come_and_go(seed, connection, after)).await.unwrap();
        store.log_emptied().await;
        let bytes = bytes(&folder);
        let there: std::collections::HashSet<&[u8]> = words(&bytes, "person-").into_iter().collect();
        open.retain(|word| !there.contains(word.as_bytes()));
        assert!(open.is_empty(), "or the search proves nothing: {open:?}");
        let left: Vec<_> = done.iter().filter(|word| there.contains(word.as_bytes())).collect();
        assert!(left.is_empty(), "{} of {} deletions left something: {left:?}", left.len(), done.len());
        store.close().await;
    }
}

/// Accepts and finishes deletions at random: the numbers of those that are not finished, and of those that are.
fn come_and_go(seed: u64, connection: &Connection, after: &mut After) -> Result<(Vec<String>, Vec<String>), Failure> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut open: Vec<(DeletionId, u32, String)> = Vec::new();
    let mut done = Vec::new();
    for n in 0..4_000 {
        if open.len() < 60 || dice.bool() {
            // Ids in any order, so that rows are put between others.
            let (id, count) = (DeletionId::from_bytes(dice.u128(..).to_be_bytes()), dice.u32(1..30));
            let deletion = named(id, count as usize, &format!("person-{n}-"));
            rows::accept(connection, false, &deletion, after)?;
            open.push((id, count, n.to_string()));
        } else {
            let (id, count, word) = open.swap_remove(dice.usize(..open.len()));
            let settled: Vec<_> = (0..count).map(|slot| (slot, gone(1))).collect();
            rows::record(connection, false, &record(key(id, 1), 1, &[], &settled), after)?;
            done.push(word);
        }
    }
    Ok((open.into_iter().map(|(_, _, word)| word).collect(), done))
}

#[tokio::test]
async fn a_part_that_is_over_leaves_nothing_while_another_is_not() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    let (mut parts, mut first) = (Vec::new(), 0);
    for (number, word) in (0..).zip(["one-", "two-", "three-"]) {
        let contacts = named(id, 10_000, word).last.all();
        parts.push(part(number, first, contacts, Vec::new()));
        first += 10_000;
    }
    let last = parts.pop().unwrap();
    for part in parts {
        store.draft(id, "tenant".into(), part).await.unwrap();
    }
    assert_sound(&folder);
    store.accept(Arc::new(Accept { last, hold: false, ..plain(id, 0, 1) })).await.unwrap();
    let job = claim(&store).await.unwrap();
    let settled: Vec<_> = (0..10_000).map(|slot| (slot, gone(1))).collect();
    store.record(record(job.key, 1, &[], &settled)).await.unwrap();
    store.log_emptied().await;
    assert!(!holds(&folder, "one-"));
    assert!(holds(&folder, "two-9999") && holds(&folder, "three-9999"));
    assert_eq!(assert_sound(&folder).identifiers, 20_000);
    store.close().await;
}

#[tokio::test]
async fn a_draft_that_is_thrown_away_leaves_nothing() {
    let folder = folder();
    let store = open(&folder);
    let draft = |word| part(0, 0, named(DeletionId::new(), 5_000, word).last.all(), Vec::new());
    let ids: Vec<_> = (0..3).map(|_| DeletionId::new()).collect();
    for (id, word) in ids.iter().zip(["one-", "two-", "three-"]) {
        store.draft(*id, "tenant".into(), draft(word)).await.unwrap();
    }
    store.discard(ids[0]).await.unwrap();
    store.log_emptied().await;
    assert!(!holds(&folder, "one-") && holds(&folder, "two-") && holds(&folder, "three-"));
    let old = store.purge(Purge { drafts_before_ms: i64::MAX, most: 1, ..nothing() }).await.unwrap();
    assert_eq!((old.drafts, old.more), (1, true));
    let refused = store.draft(ids[1], "tenant".into(), draft("four-")).await;
    assert!(matches!(refused, Err(StoreError::Broken(_)) | Ok(())), "it may be swept by now");
    store.discard(ids[1]).await.unwrap();
    store.log_emptied().await;
    assert!(!holds(&folder, "two-") && !holds(&folder, "four-") && holds(&folder, "three-"));
    // Part of a deletion that arrives is not taken for the whole.
    let last = part(2, 10_000, named(ids[2], 1, "five-").last.all(), Vec::new());
    let gap = Accept { last, hold: false, ..plain(ids[2], 0, 1) };
    assert!(store.accept(Arc::new(gap)).await.is_err());
    assert!(store.read(ids[2]).await.unwrap().is_none());
    store.close().await;

    let store = open(&folder);
    store.close().await;
    assert!(!holds(&folder, "three-"), "whoever sent it is gone");
    let report = assert_sound(&folder);
    assert_eq!((report.deletions, report.parts, report.drafts, report.forgotten), (0, 0, 0, 0));
}

#[tokio::test]
async fn what_was_kept_is_erased_when_its_time_is_over() {
    let folder = folder();
    let store = open_with(&folder, Options { keep_identifiers: true, ..Options::default() });
    let (small, large, running) = (DeletionId::new(), DeletionId::new(), DeletionId::new());
    store.accept(Arc::new(named(small, 2, "small-"))).await.unwrap();
    store.accept(Arc::new(named(large, 10_000, "large-"))).await.unwrap();
    store.accept(Arc::new(named(running, 2, "running-"))).await.unwrap();
    finish(&store, small, 1).await;
    finish(&store, large, 1).await;
    store.log_emptied().await;
    assert!(["small-", "large-", "running-"].iter().all(|word| holds(&folder, word)));
    assert_eq!(assert_sound(&folder).identifiers, 10_004);

    let early = store.purge(Purge { identifiers_before_ms: 1, ..nothing() }).await.unwrap();
    assert_eq!((early.identifiers, early.more), (0, false), "they were finished at that moment, not before");
    // A little at a time.
    let (mut erased, mut rounds) = (0, 0);
    loop {
        let purged = store.purge(Purge { identifiers_before_ms: i64::MAX, most: 3, ..nothing() }).await.unwrap();
        erased += purged.identifiers;
        rounds += 1;
        if !purged.more {
            break;
        }
    }
    assert_eq!(erased, 2);
    assert!(rounds > 3, "{rounds}");
    store.log_emptied().await;
    assert!(!holds(&folder, "small-") && !holds(&folder, "large-") && holds(&folder, "running-"));
    assert_eq!(assert_sound(&folder).identifiers, 2);
    assert_eq!(store.page(large, 0).await.unwrap().unwrap().contacts.len(), 10_000, "the hashes stay");
    store.close().await;
}

#[tokio::test]
async fn a_deletion_is_forgotten_a_little_at_a_time() {
    let folder = folder();
    let store = open(&folder);
    let ids: Vec<_> = (0..3).map(|_| DeletionId::new()).collect();
    for id in &ids {
        store.accept(Arc::new(plain(*id, 8_000, 1))).await.unwrap();
        finish(&store, *id, 1).await;
    }
    let all = Purge { deletions_before_ms: Some(i64::MAX), most: 4, ..nothing() };
    let first = store.purge(all).await.unwrap();
    assert_eq!((first.deletions, first.more), (1, true));
    assert!(store.read(ids[0]).await.unwrap().is_none(), "it is out of sight at once");
    assert!(store.page(ids[0], 0).await.unwrap().is_none());
    assert_sound(&folder);
    let mut deletions = 1;
    while let purged = store.purge(all).await.unwrap()
        && purged.more
    {
        deletions += purged.deletions;
        assert_sound(&folder);
    }
    assert_eq!(deletions, 3);
    let report = assert_sound(&folder);
    assert_eq!((report.deletions, report.parts, report.forgotten), (0, 0, 0));
    store.close().await;
}

#[tokio::test]
async fn the_log_is_emptied_once_nobody_reads_what_was_erased() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(named(id, 3, "person-"))).await.unwrap();
    let mut reader = Connection::open(folder.path().join("ledger.db")).unwrap();
    let snapshot = reader.transaction().unwrap();
    let count = |sql: &str| snapshot.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM identifiers"), 1);
    finish(&store, id, 1).await;
    let mut probe = store.probe.emptied.subscribe();
    let before = probe.borrow().1;
    probe.wait_for(|(_, in_vain)| *in_vain >= before + 2).await.unwrap();
    assert!(store.healthy());
    assert_eq!(count("SELECT count(*) FROM identifiers"), 1, "it still reads what it read");
    // Meanwhile, the writer goes on.
    store.accept(Arc::new(plain(DeletionId::new(), 1, 1))).await.unwrap();
    drop(snapshot);
    store.log_emptied().await;
    assert!(!holds(&folder, "person-"));
    drop(reader);
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_is_emptied_in_a_rest_and_without_one_as_well() {
    use tokio::time::{Duration, Instant, advance};
    let begun = Instant::now();
    let connection = Connection::open_in_memory().unwrap();
    let mut log = Log::unknown();
    assert_eq!(log.due(), Some(begun + Duration::from_secs(1)));
    advance(Duration::from_secs(2)).await;
    assert!(log.tend(&connection).unwrap());
    log.written(false);
    assert_eq!(log.due(), None, "nothing was erased");
    let erased = Instant::now();
    log.written(true);
    for _ in 0..19 {
        advance(Duration::from_millis(500)).await;
        log.written(true);
        assert!(!log.tend(&connection).unwrap());
        assert!(log.due().unwrap() > Instant::now());
    }
    assert_eq!(log.due(), Some(erased + Duration::from_secs(10)));
    advance(Duration::from_millis(500)).await;
    assert!(log.tend(&connection).unwrap());
    assert_eq!(log.due(), None);
}
