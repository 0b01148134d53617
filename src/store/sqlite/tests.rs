//! What the file store promises beyond the laws of every ledger: its file, its groups, its failures.

mod erasure;
mod failures;
mod files;
mod operators;
mod version_1;

use std::future::{Future, poll_fn};
use std::sync::atomic::Ordering;
use std::sync::mpsc as channel;
use std::task::Poll;

use adapters::Identifier;
use tempfile::TempDir;

use super::*;
use crate::store::Contact;
use crate::store::conformance::{self, Pair, gone, intent, key, part, plain, record};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> Sqlite {
    open_with(folder, Options::default())
}

fn open_with(folder: &TempDir, options: Options) -> Sqlite {
    Sqlite::open(&folder.path().join("ledger.db"), options).unwrap()
}

/// Nothing is wrong with the file, whoever has it open.
fn assert_sound(folder: &TempDir) -> Report {
    let report = check(&folder.path().join("ledger.db")).unwrap();
    assert_eq!(report.findings, [""; 0]);
    report
}

/// A deletion whose contacts are named with this word and a number.
fn named(id: DeletionId, count: usize, word: &str) -> Accept {
    let deletion = plain(id, count, 1);
    let contact =
        |(contact, n): (Contact, usize)| Contact { identifier: Identifier::Id(format!("{word}{n}").into()), ..contact };
    let contacts = deletion.last.all().into_iter().zip(0..).map(contact).collect();
    Accept { last: part(0, 0, contacts, Vec::new()), ..deletion }
}

/// Settles every contact of a deletion of one part, and finishes it.
async fn finish(store: &Sqlite, id: DeletionId, fence: u64) {
    let page = store.page(id, 0).await.unwrap().unwrap();
    let settled: Vec<_> = (0..page.contacts.len() as u32).map(|slot| (slot, gone(1))).collect();
    store.record(record(key(id, fence), 1, &[], &settled)).await.unwrap();
    assert!(store.finish(id, 1).await.unwrap());
}

async fn claim(store: &Sqlite) -> Option<Job> {
    store.claim(Arc::new(Loads { most: 1, ..Loads::default() })).await.unwrap()
}

async fn claim_all(store: &Sqlite) -> usize {
    let mut count = 0;
    while claim(store).await.is_some() {
        count += 1;
    }
    count
}

impl Sqlite {
    async fn inside(&self, inside: impl FnOnce(&Connection) -> Result<(), Failure> + Send + 'static) {
        self.write(1, |connection, _| inside(connection)).await.unwrap();
    }

    async fn half_way(&self) -> Result<(), StoreError> {
        let half = |connection: &Connection, _: &mut After| {
            connection.execute("DELETE FROM parts", [])?;
            Err(Failure::Refused(StoreError::Fenced))
        };
        self.write(1, half).await
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

    /// Until the log was emptied of what was erased so far.
    async fn log_emptied(&self) {
        let erased = self.probe.erased.load(Ordering::SeqCst);
        self.probe.emptied.subscribe().wait_for(|(at, _)| *at >= erased).await.unwrap();
    }

    /// Until it has let go of everything; a test that hangs here is a leak.
    fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }
}

#[tokio::test]
async fn sqlite_is_a_ledger() {
    for keep_identifiers in [false, true] {
        let folder = folder();
        let count = std::cell::Cell::new(0);
        let fresh = || -> Box<dyn Ledger> {
            count.set(count.get() + 1);
            let options = Options { keep_identifiers, ..Options::default() };
            Box::new(Sqlite::open(&folder.path().join(format!("{}.db", count.get())), options).unwrap())
        };
        conformance::check(fresh).await;
    }
}

/// The same random calls to both, over closings and crashes: they never say different things.
#[tokio::test]
async fn sqlite_does_what_the_book_does() {
    let mut handed_on = 0;
    for seed in 0..10 {
        let mut home = folder();
        let mut pair = Pair::new(Box::new(open(&home)), seed);
        for round in 0..4 {
            for _ in 0..60 {
                pair.step().await;
            }
            pair.compare().await;
            assert_sound(&home);
            let after_crash = copy(&home);
            pair.ledger.close().await;
            if round % 2 == 0 {
                home = after_crash;
            }
            pair.ledger = Box::new(open(&home));
            pair.crash();
            pair.compare().await;
            handed_on += pair.claim_all().await;
            assert_sound(&home);
        }
    }
    assert!(handed_on > 100, "the schedules leave something unfinished: {handed_on}");
}

/// The files as they are, as after kill -9: the log is not moved.
fn copy(folder: &TempDir) -> TempDir {
    let copy = self::folder();
    for file in folder.path().read_dir().unwrap() {
        let file = file.unwrap();
        // What SQLite keeps in shared memory would not be there after a crash of the machine.
        if !file.file_name().to_str().unwrap().ends_with("-shm") {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}

#[tokio::test]
async fn a_copy_taken_while_it_runs_holds_all_that_was_acknowledged() {
    let folder = folder();
    let store = open(&folder);
    let ids: Vec<_> = (0..50).map(|_| DeletionId::new()).collect();
    for id in &ids {
        store.accept(Arc::new(plain(*id, 40, 2))).await.unwrap();
    }
    let copy = copy(&folder);
    let survivor = open(&copy);
    assert_eq!(survivor.hash_key(), store.hash_key());
    assert_eq!(claim_all(&survivor).await, ids.len());
}

#[tokio::test]
async fn the_key_of_hashes_is_made_once_or_given() {
    let (one, other) = (folder(), folder());
    let store = open(&one);
    let key = store.hash_key();
    assert_ne!(key, open(&other).hash_key());
    assert!(!format!("{store:?}").contains("key"));
    store.close().await;
    let given = Options { hash_key: Some([7; 16]), ..Options::default() };
    assert!(!format!("{given:?}").contains('7'));
    let store = open_with(&one, given);
    assert_eq!(store.hash_key(), [7; 16]);
    store.close().await;
    assert_eq!(open(&one).hash_key(), key);
}

#[tokio::test]
async fn a_closed_store_answers_nothing_and_leaves_one_file() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(plain(id, 3, 1))).await.unwrap();
    // What was sent before is carried out before.
    let mut last = store.record(record(key(id, 1), 1, &[], &[(0, gone(1))]));
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
    assert_eq!(store.intent(intent(key(id, 1), 1, &[0])).await, closed);
    assert_eq!(store.record(record(key(id, 1), 2, &[], &[])).await, closed);
    assert_eq!(store.finish(id, 1).await.map(drop), closed);
    assert_eq!(store.read(id).await.map(drop), closed);
    assert_eq!(store.claim(Arc::default()).await.map(drop), closed);
    store.close().await;
    let mut names: Vec<_> = folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["ledger.db", "ledger.db.lock"]);

    let again = open(&folder);
    assert_eq!(again.page(id, 0).await.unwrap().unwrap().results, [Some(gone(1)), None, None].into_iter().collect());
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
            store.record(record(key(first, 9), 1, &[], &[(0, gone(1))])),
            // The same id again: the second is not put down, and the first is not touched.
            accept(first, 5),
            store.intent(intent(key(first, 1), 1, &[0])),
            store.intent(intent(key(first, 1), 1, &[1])),
            // One that is refused half-way: what it changed is undone.
            Box::pin(store.half_way()),
            store.record(record(key(first, 1), 1, &[], &[(1, gone(1))])),
        ])
        .await;
    assert_eq!(store.commits() - before, 2);
    let twice = |code| Err(StoreError::Broken(format!("it is there already (SQLite code {code})")));
    assert_eq!(
        done,
        [Ok(()), Err(StoreError::Fenced), twice(1555), Ok(()), twice(1555), Err(StoreError::Fenced), Ok(())]
    );
    assert!(store.healthy());
    assert_eq!(store.page(first, 0).await.unwrap().unwrap().results, [None, Some(gone(1))].into_iter().collect());
    assert!(store.read(second).await.unwrap().is_some());
    store.release(key(first, 1)).await.unwrap();
    let job = claim(&store).await.unwrap();
    assert_eq!((job.key, job.attempts[0].len()), (key(first, 2), 1));
    assert_eq!(job.attempts[0][0].slots, [adapters::Slot(0)]);
    store.close().await;
    assert_sound(&folder);
}

/// A caller who stops waiting gets no part, and nobody loses it.
#[tokio::test]
async fn a_claim_that_nobody_waits_for_is_given_back() {
    let folder = folder();
    let store = open(&folder);
    let id = DeletionId::new();
    store.accept(Arc::new(Accept { hold: false, ..plain(id, 2, 1) })).await.unwrap();
    for polls in 1..4 {
        let mut dropped = store.claim(Arc::new(Loads { most: 1, ..Loads::default() }));
        for _ in 0..polls {
            match poll_fn(|context| Poll::Ready(dropped.as_mut().poll(context))).await {
                // By the time that this is carried out, the claim before it was.
                Poll::Pending => store.inside(|_| Ok(())).await,
                Poll::Ready(job) => {
                    store.release(job.unwrap().unwrap().key).await.unwrap();
                    break;
                }
            }
        }
        drop(dropped);
        // The next change comes after it was given back.
        store.inside(|_| Ok(())).await;
    }
    let job = claim(&store).await.unwrap();
    assert_eq!((job.key.deletion, job.key.part), (id, 0));
    assert!(job.key.fence > 1);
    store.close().await;
}
