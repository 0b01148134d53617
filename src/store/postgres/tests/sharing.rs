//! Several gateways on one database.

use std::collections::HashMap;
use std::time::Duration;

use adapters::{Identifier, Slot};
use futures_util::future::{join, join_all};

use super::gate::Gate;
use super::*;
use crate::store::conformance::{intent, key, part, record};
use crate::store::{Accepted, Claim, Contact, Head, Hold, PartKey, StoreError, Turn};

#[tokio::test]
async fn what_one_accepts_another_works_and_a_third_reads() {
    let Some(database) = Database::new() else { return };
    let (one, two, three) = (open(&database).await, open(&database).await, open(&database).await);
    assert_eq!(one.hash_key(), three.hash_key());
    let deletion = waiting(3);
    one.accept(Arc::clone(&deletion)).await.unwrap();
    let job = claim(&two).await.unwrap();
    assert_eq!((job.key, job.part.all()), (key(deletion.head.id, 1), deletion.last.all()));
    assert!(claim(&three).await.is_none() && claim(&one).await.is_none());
    two.intent(intent(job.key, 1, &[0, 1, 2])).await.unwrap();
    two.record(record(job.key, 1, &[], &all(3))).await.unwrap();
    // Whoever sees that it is over may close it.
    assert!(one.finish(deletion.head.id, 5).await.unwrap());
    let summary = three.read(deletion.head.id).await.unwrap().unwrap();
    assert_eq!((summary.finished_ms, summary.tally.total()), (Some(5), 3));
    assert!(three.page(deletion.head.id, 0).await.unwrap().unwrap().results.iter().all(|settled| settled.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_part_is_claimed_by_two() {
    let Some(database) = Database::new() else { return };
    let ledgers = join_all((0..4).map(|_| open(&database))).await;
    let deletions: Vec<_> = (0..150).map(|_| waiting(2)).collect();
    join_all(deletions.iter().map(|deletion| ledgers[0].accept(Arc::clone(deletion)))).await;
    let claimer = async |ledger: &Postgres| {
        let mut mine = Vec::new();
        while let Some(job) = claim(ledger).await {
            mine.push(job.key);
        }
        mine
    };
    let claimers = ledgers.iter().flat_map(|ledger| (0..4).map(move |_| claimer(ledger)));
    let claimed: Vec<_> = join_all(claimers).await.concat();
    let mut times = HashMap::new();
    claimed.iter().for_each(|key| *times.entry(key.deletion).or_insert(0) += 1);
    // One that others' locks hid from a claimer is still there for the next.
    let left = claimer(&ledgers[1]).await.len();
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    assert_eq!(claimed.len() + left, 150);
}

#[tokio::test]
async fn who_lost_a_part_is_shut_out() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    let deletion = Arc::new(plain(DeletionId::new(), 2, 1));
    let id = deletion.head.id;
    one.accept(deletion).await.unwrap();
    let old = key(id, 1);
    one.intent(intent(old, 1, &[0, 1])).await.unwrap();
    run_out(&database);
    // Its lease has run out, but nobody wanted it: it goes on.
    one.record(record(old, 1, &[], &[(0, gone(1))])).await.unwrap();
    assert!(claim(&two).await.is_some());
    run_out(&database);
    let job = claim(&two).await.unwrap();
    assert_eq!(job.key.fence, 3);
    assert!(!job.attempts[0][0].closed, "what was in flight stays in doubt");
    assert_eq!(job.part.settled, [(Slot(0), gone(1))]);

    assert_eq!(one.renew(vec![old]).await, Ok(vec![Hold::Lost]));
    assert_eq!(one.intent(intent(old, 2, &[1])).await, Err(StoreError::Fenced));
    assert_eq!(one.record(record(old, 2, &[], &[(1, gone(2))])).await, Err(StoreError::Fenced));
    one.release(old).await.unwrap();
    assert!(claim(&one).await.is_none());
    two.record(record(job.key, 1, &[], &[(1, gone(3))])).await.unwrap();
    assert!(two.finish(id, 1).await.unwrap());
}

#[tokio::test]
async fn a_renewed_part_stays_theirs() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    let ids: Vec<_> = (0..3).map(|_| DeletionId::new()).collect();
    for id in &ids {
        one.accept(Arc::new(plain(*id, 1, 1))).await.unwrap();
    }
    run_out(&database);
    let kept = one.renew(vec![key(ids[2], 1), key(ids[0], 1), key(ids[0], 7)]).await;
    assert_eq!(kept, Ok(vec![Hold::Held, Hold::Held, Hold::Lost]));
    assert_eq!(claim(&two).await.unwrap().key, key(ids[1], 2));
    assert!(claim(&two).await.is_none());
    let left = "SELECT count(*) FROM onedelete.parts WHERE lease_until > clock_timestamp() + interval '20 s'";
    assert_eq!(database.query(left), ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_sees_every_call_that_was_put_down_before_it() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    let deletion = Arc::new(plain(DeletionId::new(), 2, 1));
    let key = key(deletion.head.id, 1);
    one.accept(deletion).await.unwrap();
    run_out(&database);
    let gate = Gate::shut(&database, "attempts").await;
    let slow = one.intent(intent(key, 1, &[0]));
    let (slow, job) = join(slow, async {
        gate.wait_for(1).await;
        assert!(claim(&two).await.is_none(), "it would miss the call");
        // Whatever else is put down about the part need not wait for the call.
        one.record(record(key, 1, &[], &[(1, gone(1))])).await.unwrap();
        assert_eq!(two.renew(vec![key]).await, Ok(vec![Hold::Held]));
        run_out(&database);
        gate.open().await;
    })
    .await;
    assert_eq!((slow, job), (Ok(()), ()));
    let job = claim(&two).await.unwrap();
    assert_eq!(
        job.attempts[0].iter().map(|attempt| (attempt.ticket.0, attempt.closed)).collect::<Vec<_>>(),
        [(1, false)]
    );
    assert_eq!(job.part.settled, [(Slot(1), gone(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_a_claim_and_is_shut_out_by_it() {
    let Some(database) = Database::new() else { return };
    let ledger = open(&database).await;
    let deletion = Arc::new(plain(DeletionId::new(), 2, 1));
    let key = key(deletion.head.id, 1);
    ledger.accept(deletion).await.unwrap();
    // What `claim` does, held up before its end.
    let (held, hold) = tokio::sync::oneshot::channel();
    let (end, wait) = tokio::sync::oneshot::channel::<()>();
    let url = database.url();
    let claiming = tokio::task::spawn_blocking(move || {
        machine::on_connection(&url, async move |client| {
            client.batch_execute("BEGIN; SELECT FROM onedelete.parts FOR UPDATE SKIP LOCKED").await?;
            client.batch_execute("UPDATE onedelete.parts SET fence = fence + 1").await?;
            held.send(()).unwrap();
            wait.await.unwrap();
            client.batch_execute("COMMIT").await
        })
    });
    hold.await.unwrap();
    let gate = Gate::shut(&database, "paces").await;
    let late = join(ledger.intent(intent(key, 1, &[0])), ledger.record(record(key, 1, &[], &[(0, gone(1))])));
    let (late, ()) = join(late, async {
        gate.wait_for(2).await;
        gate.open().await;
        end.send(()).unwrap();
    })
    .await;
    claiming.await.unwrap().unwrap();
    assert_eq!(late, (Err(StoreError::Fenced), Err(StoreError::Fenced)));
    let rows = "SELECT (SELECT count(*) FROM onedelete.attempts) + (SELECT count(*) FROM onedelete.results)";
    assert_eq!(database.query(rows), ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_key_at_many_gateways_one_is_new() {
    let Some(database) = Database::new() else { return };
    let ledgers = join_all((0..3).map(|_| open(&database))).await;
    for scope in 0..5 {
        let claim = Some(Claim { scope: [scope; 32], fingerprint: [1; 32], free_before_ms: 0 });
        let all: Vec<_> = (0..60).map(|_| Arc::new(Accept { claim, ..plain(DeletionId::new(), 1, 1) })).collect();
        let accepted = all.iter().zip(ledgers.iter().cycle()).map(|(one, ledger)| ledger.accept(Arc::clone(one)));
        let accepted: Vec<_> = join_all(accepted).await.into_iter().map(Result::unwrap).collect();
        let first = accepted.iter().position(|accepted| *accepted == Accepted::New).unwrap();
        let first = all[first].head.id;
        assert_eq!(accepted.iter().filter(|accepted| **accepted == Accepted::New).count(), 1);
        assert_eq!(accepted.iter().filter(|accepted| **accepted == Accepted::Before(first)).count(), 59);
    }
    assert_eq!(database.query("SELECT count(*) FROM onedelete.deletions"), ["5"]);
    assert_eq!(database.query("SELECT count(*) FROM onedelete.identifiers"), ["5"]);
}

#[tokio::test]
async fn drafts_outlive_the_opening_of_another_gateway() {
    let Some(database) = Database::new() else { return };
    let one = open(&database).await;
    let contact = |n: u32| Contact {
        share: 0,
        identifier: Identifier::Id(format!("{n}").into()),
        hash: [n as u8; 16],
        reference: None,
    };
    let id = DeletionId::new();
    one.draft(id, "tenant".into(), part(0, 0, vec![contact(0)], vec![])).await.unwrap();
    let two = open(&database).await;
    two.purge(Purge { drafts_before_ms: 1_000_000, ..purge() }).await.unwrap();
    assert!(claim(&two).await.is_none());
    let last = part(1, 1, vec![contact(1)], vec![]);
    let whole = Accept { last, hold: false, ..plain(id, 0, 1) };
    assert_eq!(one.accept(Arc::new(whole)).await, Ok(Accepted::New));
    assert_eq!(claim(&two).await.unwrap().key, key(id, 1));
    assert_eq!(claim(&one).await.unwrap().key, PartKey { part: 1, ..key(id, 1) });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_end_the_last_parts_one_closes_the_deletion() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    for round in 0..40 {
        let id = DeletionId::new();
        let contact = |n: u32| Contact {
            share: 0,
            identifier: Identifier::Id(format!("{n}").into()),
            hash: [0; 16],
            reference: None,
        };
        one.draft(id, "tenant".into(), part(0, 0, vec![contact(0)], vec![])).await.unwrap();
        let last = part(1, 1, vec![contact(1)], vec![]);
        one.accept(Arc::new(Accept { last, hold: false, ..plain(id, 0, 1) })).await.unwrap();
        let end = async |ledger: &Postgres, key: PartKey| {
            ledger.record(record(key, 1, &[], &[(key.part, gone(1))])).await.unwrap();
            ledger.finish(id, round).await.unwrap()
        };
        let (first, second) = (claim(&one).await.unwrap().key, claim(&two).await.unwrap().key);
        let closed = join(end(&one, first), end(&two, second)).await;
        assert!(closed.0 || closed.1, "round {round}");
        assert_eq!(one.read(id).await.unwrap().unwrap().finished_ms, Some(round));
    }
}

#[tokio::test]
async fn what_nobody_closed_is_closed_by_somebody() {
    let Some(database) = Database::new() else { return };
    let (one, two, three) = (open(&database).await, open(&database).await, open(&database).await);
    let claimed = Claim { scope: [1; 32], fingerprint: [1; 32], free_before_ms: 0 };
    let deletion = Accept { claim: Some(claimed), ..plain(DeletionId::new(), 1, 1) };
    let id = deletion.head.id;
    one.accept(Arc::new(deletion)).await.unwrap();
    let open_one = Arc::new(plain(DeletionId::new(), 1, 1));
    one.accept(Arc::clone(&open_one)).await.unwrap();
    one.record(record(key(id, 1), 1, &[], &all(1))).await.unwrap();
    // It has the time of a lease to close it itself.
    assert!(claim(&two).await.is_none());
    assert_eq!(two.read(id).await.unwrap().unwrap().finished_ms, None);
    database.execute(&["UPDATE onedelete.parts SET over_at = over_at - interval '1 h' WHERE over_at IS NOT NULL"]);
    assert!(claim(&three).await.is_none());
    let finished = three.read(id).await.unwrap().unwrap().finished_ms.unwrap();
    assert!(finished > 1_700_000_000_000);
    assert!(three.finish(id, 5).await.unwrap());
    assert_eq!(three.read(id).await.unwrap().unwrap().finished_ms, Some(finished));
    assert_eq!(three.read(open_one.head.id).await.unwrap().unwrap().finished_ms, None);
    assert_eq!(database.query("SELECT count(*) FROM onedelete.claims WHERE finished_ms IS NOT NULL"), ["1"]);
}

#[tokio::test]
async fn a_pace_is_shared() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    const HOUR: Duration = Duration::from_secs(3_600);
    let turn = |connection: &str| Turn { tenant: "a".into(), connection: connection.into(), every: HOUR, burst: 2 };
    let mut waits = Vec::new();
    for n in 0..5 {
        let ledger = if n % 2 == 0 { &one } else { &two };
        waits.push(ledger.turn(turn("crm")).await.unwrap());
    }
    assert_eq!(waits[..2], [Duration::ZERO; 2], "as many as a burst has");
    for (wait, hours) in waits[2..].iter().zip(1..) {
        assert!(*wait <= HOUR * hours && *wait > HOUR * hours - Duration::from_secs(60), "{waits:?}");
    }
    // Another connection, and another tenant's of the same name, have their own.
    assert_eq!(two.turn(turn("phone")).await.unwrap(), Duration::ZERO);
    assert_eq!(two.turn(Turn { tenant: "b".into(), ..turn("crm") }).await.unwrap(), Duration::ZERO);

    // A hold counts for all, and a shorter one does not end it. After it, a burst passes.
    one.hold("a".into(), "held".into(), 10 * HOUR).await.unwrap();
    two.hold("a".into(), "held".into(), HOUR).await.unwrap();
    let mut waits = Vec::new();
    for ledger in [&two, &one, &two] {
        waits.push(ledger.turn(turn("held")).await.unwrap());
    }
    for (wait, hours) in waits.iter().zip([10, 10, 11]) {
        assert!(*wait <= HOUR * hours && *wait > HOUR * hours - Duration::from_secs(60), "{waits:?}");
    }
}

#[tokio::test]
async fn no_window_has_more_turns_than_are_allowed() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    // 20 calls in 10 minutes, as `outbound::pace` would have it: a tenth at once, the others evenly.
    let every = Duration::from_secs(600) / 18;
    let turn = Turn { tenant: "a".into(), connection: "crm".into(), every, burst: 2 };
    let mut turns = Vec::new();
    for n in 0..100 {
        let ledger = if n % 3 == 0 { &one } else { &two };
        turns.push(ledger.turn(turn.clone()).await.unwrap());
    }
    assert!(turns.is_sorted());
    for (n, first) in turns.iter().enumerate() {
        let most = turns[n..].iter().take_while(|turn| **turn < *first + Duration::from_secs(599)).count();
        assert!(most <= 20, "{most} from turn {n} on");
    }
}

#[tokio::test]
async fn the_tenant_with_the_least_work_is_next_whoever_accepted_it() {
    let Some(database) = Database::new() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    let mut ids = Vec::new();
    for tenant in ["b", "a", "c"] {
        let deletion = plain(DeletionId::new(), 1, 1);
        let head = Head { tenant: tenant.into(), ..deletion.head };
        ids.push(head.id);
        one.accept(Arc::new(Accept { head, hold: false, ..deletion })).await.unwrap();
    }
    let loads = Loads { by_tenant: [("b".into(), 3), ("a".into(), 2), ("c".into(), 5)].into(), most: 5 };
    let loads = Arc::new(loads);
    let next = async |ledger: &Postgres| ledger.claim(Arc::clone(&loads)).await.unwrap().map(|job| job.head.id);
    assert_eq!(next(&two).await, Some(ids[1]));
    assert_eq!(next(&one).await, Some(ids[0]));
    assert_eq!(next(&two).await, None, "the last has as much as it may");
}
