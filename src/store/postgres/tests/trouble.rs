//! Lost answers, broken connections, servers that stop, and calls that come twice.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use adapters::Identifier;
use futures_util::future::{join, join_all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::gate::Gate;
use super::*;
use crate::store::conformance::{intent, key, part, record};
use crate::store::{Accepted, Claim, Contact, Hold, StoreError};

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_change_nothing() {
    let Some(database) = Database::new() else { return };
    let lossy = Lossy::to(&database.url()).await;
    let mut pair = Pair::new(Box::new(Postgres::open(settings(&lossy.url)).await.unwrap()), 11);
    lossy.odds.store(8, Ordering::SeqCst);
    for _ in 0..250 {
        pair.step().await;
    }
    let cut = lossy.cut.load(Ordering::SeqCst);
    assert!(cut > 5, "only {cut} answers were lost");
    pair.compare().await;
    pair.ledger.close().await;
    lossy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_whose_claim_was_not_answered_is_not_lost() {
    let Some(database) = Database::new() else { return };
    let lossy = Lossy::to(&database.url()).await;
    let ledger = Postgres::open(settings(&lossy.url)).await.unwrap();
    let deletions: Vec<_> = (0..30).map(|_| waiting(1)).collect();
    for deletion in &deletions {
        ledger.accept(Arc::clone(deletion)).await.unwrap();
    }
    lossy.odds.store(50, Ordering::SeqCst);
    for deletion in &deletions {
        assert_eq!(claim(&ledger).await.unwrap().key, key(deletion.head.id, 1));
    }
    let cut = lossy.cut.load(Ordering::SeqCst);
    assert!(cut > 5, "only {cut} answers were lost");
    ledger.close().await;
    lossy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_and_comes_back_is_survived() {
    let Some(server) = machine::own_server(&[]) else { return };
    let server = Arc::new(server);
    let database = Database::on(&server.url());
    let ledgers = [open(&database).await, open(&database).await];
    let ledgers = &ledgers;
    let stopping = Arc::clone(&server);
    let (done, stopped) = (AtomicBool::new(false), async {
        for how in ["immediate", "fast", "immediate"] {
            let server = Arc::clone(&stopping);
            tokio::task::spawn_blocking(move || {
                server.stop(how);
                server.go_on();
            })
            .await
            .unwrap();
        }
    });
    let done = &done;
    let work = |n: usize| async move {
        let ledger = &ledgers[n % 2];
        let mut finished = Vec::new();
        while !done.load(Ordering::SeqCst) || finished.is_empty() {
            let deletion = Arc::new(plain(DeletionId::new(), 2, 1));
            let id = deletion.head.id;
            assert_eq!(ledger.accept(deletion).await, Ok(Accepted::New));
            let key = key(id, 1);
            ledger.intent(intent(key, 1, &[0, 1])).await.unwrap();
            assert_eq!(ledger.renew(vec![key]).await, Ok(vec![Hold::Held]));
            ledger.record(record(key, 1, &[], &[(0, gone(0))])).await.unwrap();
            ledger.record(record(key, 2, &[], &[(1, gone(1))])).await.unwrap();
            assert!(ledger.finish(id, 9).await.unwrap());
            finished.push(id);
        }
        finished
    };
    let (finished, ()) = tokio::join!(join_all((0..6).map(work)), async {
        stopped.await;
        done.store(true, Ordering::SeqCst);
    });
    for id in finished.concat() {
        let summary = ledgers[0].read(id).await.unwrap().unwrap();
        assert_eq!((summary.finished_ms, summary.tally.total()), (Some(9), 2));
    }
    assert!(ledgers[0].healthy());
    let counts = "SELECT count(*) FROM onedelete.identifiers UNION ALL SELECT count(*) FROM onedelete.attempts";
    assert_eq!(database.query(counts), ["0", "0"]);
}

#[tokio::test]
async fn a_server_that_stays_away_is_said_and_forgiven() {
    let Some(server) = machine::own_server(&[]) else { return };
    let database = Database::on(&server.url());
    let short = PostgresSettings { lease: Duration::ZERO, ..settings(&database.url()) };
    let ledger = Postgres::open(short).await.unwrap();
    assert_eq!(ledger.lease(), Some(Duration::from_secs(2)), "the shortest");
    let deletion = waiting(1);
    ledger.accept(Arc::clone(&deletion)).await.unwrap();
    server.stop("immediate");
    let Err(StoreError::Broken(why)) = ledger.read(deletion.head.id).await else { panic!("there is no server") };
    assert!(why.starts_with("the "), "{why}");
    assert!(!ledger.healthy());
    server.go_on();
    assert!(ledger.read(deletion.head.id).await.unwrap().is_some());
    assert!(ledger.healthy());
    ledger.close().await;
    assert!(!ledger.healthy());
    assert_eq!(ledger.read(deletion.head.id).await, Err(StoreError::Broken("it is closed".to_owned())));
    ledger.close().await;
}

#[tokio::test]
async fn what_is_put_down_twice_is_there_once() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    let contact = |n: u32| Contact {
        share: 0,
        identifier: Identifier::Id(format!("{n}").into()),
        hash: [0; 16],
        reference: None,
    };
    let id = DeletionId::new();
    let first = part(0, 0, vec![contact(0)], vec![]);
    let claimed = Some(Claim { scope: [1; 32], fingerprint: [1; 32], free_before_ms: 0 });
    let whole = Accept { last: part(1, 1, vec![contact(1)], vec![]), hold: false, claim: claimed, ..plain(id, 0, 1) };
    let whole = Arc::new(whole);
    // The second accepts find no draft, but their own deletion.
    for _ in 0..2 {
        ledger.draft(id, "tenant".into(), Arc::clone(&first)).await.unwrap();
    }
    for _ in 0..3 {
        assert_eq!(ledger.accept(Arc::clone(&whole)).await, Ok(Accepted::New));
    }
    let summary = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((summary.contacts, summary.parts), (2, 2));
    let held = claim(&ledger).await.unwrap().key;
    for _ in 0..2 {
        ledger.intent(intent(held, 1, &[0])).await.unwrap();
    }
    let other = ledger.intent(intent(held, 1, &[0, 1])).await;
    assert!(matches!(other, Err(StoreError::Broken(_))), "{other:?}");
    // The last record of a part, too.
    for _ in 0..2 {
        ledger.record(record(held, 1, &[], &all(1))).await.unwrap();
    }
    assert_eq!(ledger.record(record(held, 2, &[], &[])).await, Err(StoreError::Fenced));
    let single = Arc::new(plain(DeletionId::new(), 1, 1));
    for _ in 0..2 {
        assert_eq!(ledger.accept(Arc::clone(&single)).await, Ok(Accepted::New));
    }
    assert_eq!(database.query("SELECT count(*) FROM onedelete.parts"), ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_waits_for_the_first() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    let twice = async |gate: Gate, first: &mut (dyn Future<Output = ()> + Send + Unpin)| {
        let ((), ()) = join(first, async {
            gate.wait_for(2).await;
            gate.open().await;
        })
        .await;
        database.execute(&["DROP FUNCTION onedelete.wait CASCADE"]);
    };
    let claimed = Some(Claim { scope: [1; 32], fingerprint: [1; 32], free_before_ms: 0 });
    for claim in [claimed, None] {
        let deletion = Arc::new(Accept { claim, ..plain(DeletionId::new(), 5, 1) });
        let key = key(deletion.head.id, 1);
        let gate = Gate::shut(&database, "deletions").await;
        let both = join(ledger.accept(Arc::clone(&deletion)), ledger.accept(deletion));
        twice(gate, &mut Box::pin(async { assert_eq!(both.await, (Ok(Accepted::New), Ok(Accepted::New))) })).await;

        let gate = Gate::shut(&database, "attempts").await;
        let both = join(ledger.intent(intent(key, 1, &[0, 1])), ledger.intent(intent(key, 1, &[0, 1])));
        twice(gate, &mut Box::pin(async { assert_eq!(both.await, (Ok(()), Ok(()))) })).await;

        // A record that leaves more open than it settles, one that leaves less, and one that ends its part.
        for (number, settled) in [(1, 0..1), (2, 1..4), (3, 4..5)] {
            let gate = Gate::shut(&database, "results").await;
            let settled: Vec<_> = settled.map(|slot| (slot, gone(slot))).collect();
            let record = record(key, number, &[], &settled);
            let both = join(ledger.record(record.clone()), ledger.record(record));
            twice(gate, &mut Box::pin(async { assert_eq!(both.await, (Ok(()), Ok(()))) })).await;
        }
        let summary = ledger.read(key.deletion).await.unwrap().unwrap();
        assert_eq!((summary.contacts, summary.tally.total()), (5, 5));
        assert!(ledger.finish(key.deletion, 1).await.unwrap());
    }
    assert!(ledger.healthy());
}

#[tokio::test]
async fn a_deletion_without_its_earlier_parts_is_not_accepted() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    let whole = plain(DeletionId::new(), 1, 1);
    let id = whole.head.id;
    let last = part(1, 1, whole.last.all(), vec![]);
    let claimed = Some(Claim { scope: [1; 32], fingerprint: [1; 32], free_before_ms: 0 });
    let accepted = ledger.accept(Arc::new(Accept { last, hold: false, claim: claimed, ..whole })).await;
    assert_eq!(accepted, Err(StoreError::Broken("earlier parts of the deletion are gone".to_owned())));
    assert!(ledger.read(id).await.unwrap().is_none() && claim(&ledger).await.is_none());
    let rows = "SELECT (SELECT count(*) FROM onedelete.parts) + (SELECT count(*) FROM onedelete.claims)";
    assert_eq!(database.query(rows), ["0"], "its key is free, too");
    assert!(ledger.healthy(), "the database is well");
}

#[tokio::test]
async fn tables_that_are_gone_are_no_reason_to_try_for_long() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    database.execute(&["DROP SCHEMA onedelete CASCADE"]);
    let Err(StoreError::Broken(why)) = ledger.accept(waiting(1)).await else { panic!("there are no tables") };
    assert_eq!(why, "the tables are not as they were made (SQLSTATE 42P01)");
    assert!(!ledger.healthy());
}

/// A way to a server on which answers get lost, with the connection.
struct Lossy {
    url: String,
    /// In how many of 256 cases an answer is lost.
    odds: Arc<AtomicU8>,
    cut: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stop: tokio_util::sync::CancellationToken,
}

impl Lossy {
    async fn to(url: &str) -> Self {
        let (user, address) = url.rsplit_once('@').unwrap();
        let (server, rest) = address.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{user}@{}/{rest}", listener.local_addr().unwrap());
        let lossy = Self {
            url,
            odds: Arc::default(),
            cut: Arc::default(),
            tasks: TaskTracker::new(),
            stop: tokio_util::sync::CancellationToken::new(),
        };
        let (odds, cut) = (Arc::clone(&lossy.odds), Arc::clone(&lossy.cut));
        let (server, tasks, stop) = (server.to_owned(), lossy.tasks.clone(), lossy.stop.clone());
        lossy.tasks.spawn(async move {
            let mut seed = 0;
            while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
                seed += 1;
                let (odds, cut, stop) = (Arc::clone(&odds), Arc::clone(&cut), stop.clone());
                let server = TcpStream::connect(&server).await.unwrap();
                let pass = pass(client, server, fastrand::Rng::with_seed(seed), odds, cut);
                tasks.spawn(async move { stop.run_until_cancelled(pass).await });
            }
        });
        lossy
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Passes bytes on until it loses what the server said, after the server has said it.
async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    mut dice: fastrand::Rng,
    odds: Arc<AtomicU8>,
    cut: Arc<AtomicUsize>,
) {
    // The signing in takes about so many answers, and is let pass.
    const SIGN_IN: u32 = 5;
    let (mut asked, mut told, mut said) = (vec![0; 1 << 16], vec![0; 1 << 16], 0);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(count @ 1..) if server.write_all(&asked[..count]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut told) => match read {
                Ok(_) if said > SIGN_IN && dice.u8(..) < odds.load(Ordering::SeqCst) => {
                    cut.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Ok(count @ 1..) if client.write_all(&told[..count]).await.is_ok() => said += 1,
                _ => return,
            },
        }
    }
}
