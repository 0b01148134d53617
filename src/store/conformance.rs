//! What every ledger must do, whatever it keeps its deletions in, and the book that each is compared with.
//!
//! A store's own promises (its file, its failures, its lock, its leases) are tested beside it.
//!
//! Above 500 lines because the laws and the random calls share how they build what they ask for.

use std::collections::HashMap;
use std::sync::Arc;

use adapters::{Evidence, Fault, FaultCode, Identifier, Outcome, Slot, UpstreamWord};
use futures_util::future::join_all;

use super::{
    Accept, Accepted, Asked, Attempt, Book, Claim, DeletionId, Filter, Head, Hold, IdentifierHash, Intent, Job, Ledger,
    Loads, Memory, Page, Part, PartKey, Purge, Record, Results, StoreError, Summary, Tally,
};
use crate::engine::{Closed, Retry, Run, Settled, Ticket};

#[tokio::test]
async fn memory_is_a_ledger() {
    check(|| Box::new(Memory::default())).await;
}

#[tokio::test]
async fn memory_does_what_the_book_does() {
    let mut pair = Pair::new(Box::new(Memory::default()), 1);
    for _ in 0..2_000 {
        pair.step().await;
    }
    pair.compare().await;
}

/// Every law, each on a ledger of its own.
pub(super) async fn check(fresh: impl Fn() -> Box<dyn Ledger>) {
    every_field_reads_back(&*fresh()).await;
    what_is_left_out_stays_out(&*fresh()).await;
    what_is_settled_at_once_is_a_result(&*fresh()).await;
    a_deletion_runs_from_accept_to_finish(&*fresh()).await;
    a_record_counts_once(&*fresh()).await;
    only_who_works_a_part_writes(&*fresh()).await;
    an_open_contact_keeps_a_deletion_open(&*fresh()).await;
    a_part_of_ten_thousand_reads_back(&*fresh()).await;
    many_at_once_are_all_put_down(&*fresh()).await;
    a_key_acts_once(&*fresh()).await;
    a_key_is_free_after_its_time(&*fresh()).await;
    parts_arrive_one_by_one(&*fresh()).await;
    a_draft_is_nothing(&*fresh()).await;
    what_is_given_back_is_handed_on(&*fresh()).await;
    who_gave_a_part_back_is_shut_out(&*fresh()).await;
    the_tenant_with_the_least_work_is_next(&*fresh()).await;
    a_cancelled_deletion_says_so(&*fresh()).await;
    deletions_are_listed_newest_first(&*fresh()).await;
    the_backlog_is_what_is_not_settled(&*fresh()).await;
    what_nobody_closed_is_found(&*fresh()).await;
    what_is_old_is_forgotten(&*fresh()).await;
}

async fn a_key_acts_once(ledger: &dyn Ledger) {
    let (first, same, other, elsewhere) = (claimed(1, 1, 0), claimed(1, 1, 0), claimed(1, 2, 0), claimed(2, 2, 0));
    let asked = async |deletion: &Accept| ledger.claimed(deletion.claim.unwrap()).await;
    assert_eq!(asked(&first).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(Arc::clone(&first)).await, Ok(Accepted::New), "to ask takes nothing");
    assert_eq!(asked(&same).await, Ok(Accepted::Before(first.head.id)));
    assert_eq!(asked(&other).await, Ok(Accepted::Other));
    assert_eq!(ledger.accept(Arc::clone(&same)).await, Ok(Accepted::Before(first.head.id)));
    assert_eq!(ledger.accept(Arc::clone(&other)).await, Ok(Accepted::Other));
    assert_eq!(ledger.accept(Arc::clone(&elsewhere)).await, Ok(Accepted::New));
    assert!(ledger.read(same.head.id).await.unwrap().is_none());
    assert!(ledger.read(other.head.id).await.unwrap().is_none());

    // Of many at once, one is new.
    let all: Vec<_> = (0..50).map(|_| claimed(3, 3, 0)).collect();
    let accepted = join_all(all.iter().map(|deletion| ledger.accept(Arc::clone(deletion)))).await;
    assert_eq!(accepted.iter().filter(|accepted| **accepted == Ok(Accepted::New)).count(), 1);
    let first = all.iter().zip(&accepted).find(|(_, accepted)| **accepted == Ok(Accepted::New)).unwrap().0.head.id;
    assert_eq!(accepted.iter().filter(|accepted| **accepted == Ok(Accepted::Before(first))).count(), 49);
}

async fn a_key_is_free_after_its_time(ledger: &dyn Ledger) {
    let first = claimed(1, 1, 0);
    assert_eq!(ledger.accept(Arc::clone(&first)).await, Ok(Accepted::New));
    // One that is not finished is never free.
    assert_eq!(ledger.accept(claimed(1, 2, i64::MAX)).await, Ok(Accepted::Other));
    assert_eq!(ledger.accept(claimed(1, 1, i64::MAX)).await, Ok(Accepted::Before(first.head.id)));
    ledger.record(record(key(first.head.id, 1), 1, &[], &[(0, gone(1))])).await.unwrap();
    assert!(ledger.finish(first.head.id, 1_000).await.unwrap());
    assert_eq!(ledger.accept(claimed(1, 2, 1_000)).await, Ok(Accepted::Other));
    let second = claimed(1, 2, 1_001);
    assert_eq!(ledger.claimed(second.claim.unwrap()).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(Arc::clone(&second)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(claimed(1, 2, 1_001)).await, Ok(Accepted::Before(second.head.id)));
    // The old one stays as it was.
    assert_eq!(ledger.read(first.head.id).await.unwrap().unwrap().finished_ms, Some(1_000));
}

async fn every_field_reads_back(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    let contacts = vec![
        contact(0, Identifier::Id("8841".into()), Some("row 1")),
        contact(1, Identifier::Phone("+4930123".into()), None),
        contact(1, Identifier::External { provider: "salesforce".into(), id: "0035g".into() }, Some("ü \"'\0")),
    ];
    let head = Head {
        id,
        tenant: "acme".into(),
        created_ms: 1_764_000_000_123,
        reason: Some("GDPR article 17".into()),
        reference: Some("ticket 4711".into()),
        shares: vec!["crm".into(), "phone_system".into()],
    };
    let hashes: Vec<_> = contacts.iter().map(|contact| contact.hash).collect();
    let deletion = Accept { head: head.clone(), ..of_part(part(0, 0, contacts, Vec::new())) };
    ledger.accept(Arc::new(deletion)).await.unwrap();
    let summary = ledger.read(id).await.unwrap().unwrap();
    let expected =
        Summary { head, finished_ms: None, cancelled_ms: None, contacts: 3, parts: 1, tally: Tally::default() };
    assert_eq!(summary, expected);
    assert_eq!(ledger.read_of("acme".into(), id).await.unwrap(), Some(expected));
    assert_eq!(ledger.read_of("acm".into(), id).await.unwrap(), None, "it is another's");
    assert_eq!(ledger.read_of("acme".into(), DeletionId::new()).await.unwrap(), None);
    let page = ledger.page(id, 0).await.unwrap().unwrap();
    let asked =
        |share, hash, reference: Option<&str>| Asked { share, hash: Some(hash), reference: reference.map(Arc::from) };
    let contacts =
        vec![asked(0, hashes[0], Some("row 1")), asked(1, hashes[1], None), asked(1, hashes[2], Some("ü \"'\0"))];
    assert_eq!(page, Page { first: 0, contacts: Arc::new(contacts), results: Results::open(3) });
    assert!(ledger.healthy());

    // Every form of result, in every field.
    let results = every_result();
    let deletion = Arc::new(plain(DeletionId::new(), results.len(), 1));
    let id = deletion.head.id;
    ledger.accept(Arc::clone(&deletion)).await.unwrap();
    let settled = (0..).zip(results.clone()).collect::<Vec<_>>();
    ledger.record(record(key(id, 1), 1, &[], &settled)).await.unwrap();
    assert_eq!(results_of(ledger, id).await, results.iter().cloned().map(Some).collect::<Vec<_>>());
    assert_eq!(ledger.read(id).await.unwrap().unwrap().tally, Tally::of(&results));
    assert_eq!(ledger.hash_key(), ledger.hash_key());
}

async fn what_is_left_out_stays_out(ledger: &dyn Ledger) {
    assert!(ledger.read(DeletionId::new()).await.unwrap().is_none(), "an unknown id");
    assert!(ledger.page(DeletionId::new(), 0).await.unwrap().is_none(), "an unknown id");
    assert!(!ledger.finish(DeletionId::new(), 1).await.unwrap());
    ledger.cancel(DeletionId::new(), 1).await.unwrap();
    let empty = plain(DeletionId::new(), 0, 0);
    let id = empty.head.id;
    ledger.accept(Arc::new(empty)).await.unwrap();
    let summary = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((summary.head.reason.clone(), summary.head.reference.clone()), (None, None));
    assert!(summary.head.shares.is_empty() && summary.contacts == 0);
    assert!(results_of(ledger, id).await.is_empty());
    assert!(ledger.page(id, 1).await.unwrap().is_none(), "there is no such part");
    assert!(ledger.finish(id, 7).await.unwrap());
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, Some(7));
}

async fn what_is_settled_at_once_is_a_result(ledger: &dyn Ledger) {
    let refused = Settled::refused_here(&Fault::new(FaultCode::InvalidIdentifier));
    let settled = vec![(Slot(1), refused.clone()), (Slot(2), Settled::duplicate(Slot(0)))];
    let deletion = with_settled(plain(DeletionId::new(), 3, 1), settled);
    let id = deletion.head.id;
    ledger.accept(Arc::new(deletion)).await.unwrap();
    let results = [refused, Settled::duplicate(Slot(0))];
    assert_eq!(ledger.read(id).await.unwrap().unwrap().tally, Tally::of(&results));
    let [refused, duplicate] = results;
    assert_eq!(results_of(ledger, id).await, [None, Some(refused), Some(duplicate)]);
}

async fn a_deletion_runs_from_accept_to_finish(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 1))).await.unwrap();
    assert!(claim(ledger).await.is_none(), "who accepted it works it");
    let key = key(id, 1);
    assert_eq!(ledger.renew(vec![key]).await, Ok(vec![Hold::Held]));
    ledger.intent(intent(key, 1, &[0, 1])).await.unwrap();
    ledger.record(record(key, 1, &[closed(1)], &[(0, gone(1))])).await.unwrap();
    assert_eq!(results_of(ledger, id).await, [Some(gone(1)), None]);
    ledger.intent(intent(key, 2, &[1])).await.unwrap();
    ledger.record(record(key, 2, &[closed(2)], &[(1, gone(2))])).await.unwrap();
    assert!(ledger.finish(id, 99).await.unwrap());
    let both = [Some(gone(1)), Some(gone(2))];
    assert_eq!(results_of(ledger, id).await, both);
    let summary = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((summary.finished_ms, summary.all_absent()), (Some(99), true));

    // It is over: nobody works it, and it was finished when it was finished.
    assert_eq!(ledger.renew(vec![key]).await, Ok(vec![Hold::Lost]));
    assert_eq!(ledger.intent(intent(key, 3, &[1])).await, Err(StoreError::Fenced));
    assert_eq!(ledger.record(record(key, 3, &[], &[(1, gone(9))])).await, Err(StoreError::Fenced));
    ledger.release(key).await.unwrap();
    assert!(claim(ledger).await.is_none());
    assert!(ledger.finish(id, 100).await.unwrap());
    ledger.cancel(id, 101).await.unwrap();
    let summary = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((summary.finished_ms, summary.cancelled_ms), (Some(99), None));
    assert_eq!(results_of(ledger, id).await, both);
}

async fn a_record_counts_once(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 3, 1))).await.unwrap();
    let key = key(id, 1);
    let first = record(key, 1, &[], &[(0, gone(1))]);
    ledger.record(first.clone()).await.unwrap();
    ledger.record(first).await.unwrap();
    assert_eq!(ledger.read(id).await.unwrap().unwrap().tally.total(), 1);
    // They may come in any order.
    ledger.record(record(key, 3, &[], &[(2, gone(3))])).await.unwrap();
    assert_eq!(results_of(ledger, id).await, [Some(gone(1)), None, Some(gone(3))]);
    assert!(!ledger.finish(id, 1).await.unwrap());
    ledger.record(record(key, 2, &[], &[(1, gone(2))])).await.unwrap();
    assert_eq!(results_of(ledger, id).await, [Some(gone(1)), Some(gone(2)), Some(gone(3))]);
    assert!(ledger.finish(id, 1).await.unwrap());
}

async fn only_who_works_a_part_writes(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 2))).await.unwrap();
    let nobodys = PartKey { part: 1, ..key(id, 1) };
    for other in [key(id, 0), key(id, 2), nobodys, key(DeletionId::new(), 1), key(id, u64::MAX >> 1)] {
        assert_eq!(ledger.intent(intent(other, 1, &[0])).await, Err(StoreError::Fenced), "{other:?}");
        assert_eq!(ledger.record(record(other, 1, &[], &[(0, gone(1))])).await, Err(StoreError::Fenced), "{other:?}");
        assert_eq!(ledger.renew(vec![other]).await, Ok(vec![Hold::Lost]), "{other:?}");
        ledger.release(other).await.unwrap();
    }
    assert_eq!(results_of(ledger, id).await, [None, None]);
    assert!(claim(ledger).await.is_none());
    // A call that was never put down may be said to have ended.
    ledger.record(record(key(id, 1), 1, &[closed(5)], &[])).await.unwrap();
}

async fn an_open_contact_keeps_a_deletion_open(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 1))).await.unwrap();
    ledger.record(record(key(id, 1), 1, &[], &[(1, gone(1))])).await.unwrap();
    assert!(!ledger.finish(id, 5).await.unwrap());
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, None);
    ledger.record(record(key(id, 1), 2, &[], &[(0, gone(1))])).await.unwrap();
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, None);
    assert!(ledger.finish(id, 6).await.unwrap());
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, Some(6));
}

async fn a_part_of_ten_thousand_reads_back(ledger: &dyn Ledger) {
    let count = super::PART;
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, count, 2))).await.unwrap();
    let slots: Vec<_> = (0..count as u32).collect();
    for (batch, n) in slots.chunks(1_700).zip(1..) {
        ledger.intent(intent(key(id, 1), u64::from(n), batch)).await.unwrap();
        let settled: Vec<_> = batch.iter().map(|slot| (*slot, gone(slot % 5))).collect();
        ledger.record(record(key(id, 1), n, &[closed(u64::from(n))], &settled)).await.unwrap();
    }
    assert!(ledger.finish(id, 1).await.unwrap());
    let page = ledger.page(id, 0).await.unwrap().unwrap();
    assert_eq!(page.contacts.len(), count);
    for (n, (asked, result)) in page.contacts.iter().zip(page.results.iter()).enumerate() {
        assert_eq!((asked.share, asked.reference.as_deref()), ((n % 2) as u16, Some(&*format!("row {n}"))));
        assert_eq!(result, Some(&gone(n as u32 % 5)));
    }
}

async fn many_at_once_are_all_put_down(ledger: &dyn Ledger) {
    let deletions: Vec<_> = (1..=300).map(|n| Arc::new(plain(DeletionId::new(), n % 4 + 1, 1))).collect();
    let accepted = join_all(deletions.iter().map(|deletion| ledger.accept(Arc::clone(deletion)))).await;
    assert!(accepted.into_iter().all(|done| done.is_ok()));
    // One that is fenced does not spoil those that it stands among.
    let records = deletions.iter().zip(0..).map(|(deletion, n)| {
        let fence = if n % 3 == 0 { 2 } else { 1 };
        ledger.record(record(key(deletion.head.id, fence), 1, &[], &[(0, gone(n))]))
    });
    for (n, done) in join_all(records).await.into_iter().enumerate() {
        assert_eq!(done, if n % 3 == 0 { Err(StoreError::Fenced) } else { Ok(()) });
    }
    for (n, deletion) in deletions.iter().enumerate() {
        let results = results_of(ledger, deletion.head.id).await;
        assert_eq!(results.len(), deletion.contacts());
        assert_eq!(results[0], (n % 3 != 0).then(|| gone(n as u32)));
    }
}

async fn parts_arrive_one_by_one(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    let all: Vec<_> = (0..25).map(|n| contact((n % 2) as u16, Identifier::Id(format!("{n}").into()), None)).collect();
    let duplicate = |n| (Slot(n), Settled::duplicate(Slot(3)));
    let parts: Vec<_> = all
        .chunks(10)
        .zip(0..)
        .map(|(contacts, n)| part(n, n * 10, contacts.to_vec(), vec![duplicate(n * 10 + 4)]))
        .collect();
    for part in &parts[..2] {
        ledger.draft(id, "acme".into(), Arc::clone(part)).await.unwrap();
    }
    assert!(ledger.read(id).await.unwrap().is_none(), "it is not accepted yet");
    assert!(claim(ledger).await.is_none());
    let whole = plain(id, 0, 2);
    let deletion = Accept { last: Arc::clone(&parts[2]), hold: false, ..whole };
    assert_eq!(ledger.accept(Arc::new(deletion)).await, Ok(Accepted::New));
    let summary = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((summary.contacts, summary.parts, summary.tally.duplicates), (25, 3, 3));

    for n in 0..3 {
        let job = claim(ledger).await.unwrap();
        assert_eq!((job.key, job.parts, job.cancelled), (PartKey { deletion: id, part: n, fence: 1 }, 3, false));
        assert_eq!(job.head.shares, summary.head.shares);
        let (part, expected) = (&job.part, &parts[n as usize]);
        assert_eq!((part.first, part.all(), &part.settled), (n * 10, expected.all(), &expected.settled));
        let (fresh, past, last) = job.past(1);
        assert_eq!(fresh.iter().map(|target| target.slot.0).min(), Some(n * 10 + 1));
        assert!(past.is_empty() && last == 0);
        let open = (part.first..).take(part.contacts.len()).filter(|slot| *slot != n * 10 + 4);
        let settled: Vec<_> = open.map(|slot| (slot, gone(slot))).collect();
        assert!(!ledger.finish(id, 1).await.unwrap(), "a part is open");
        ledger.record(record(job.key, 1, &[], &settled)).await.unwrap();
    }
    assert!(claim(ledger).await.is_none());
    assert!(ledger.finish(id, 5).await.unwrap());
    let summary = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((summary.tally.absent, summary.tally.total(), summary.all_absent()), (22, 25, true));
    let page = ledger.page(id, 2).await.unwrap().unwrap();
    assert_eq!((page.first, page.results.get(3), page.results.get(4)), (20, Some(&gone(23)), Some(&duplicate(0).1)));
}

async fn a_draft_is_nothing(ledger: &dyn Ledger) {
    let draft =
        || part(0, 0, (0..3).map(|n| contact(0, Identifier::Id(format!("{n}").into()), None)).collect(), vec![]);
    let thrown_away = DeletionId::new();
    ledger.draft(thrown_away, "acme".into(), draft()).await.unwrap();
    ledger.discard(thrown_away).await.unwrap();
    ledger.discard(DeletionId::new()).await.unwrap();
    assert!(claim(ledger).await.is_none());
    assert!(ledger.page(thrown_away, 0).await.unwrap().is_none());

    // One whose key was used before goes with the attempt to accept it.
    let first = claimed(1, 1, 0);
    ledger.accept(Arc::clone(&first)).await.unwrap();
    let second = claimed(1, 1, 0);
    ledger.draft(second.head.id, "acme".into(), draft()).await.unwrap();
    let last = part(1, 3, vec![contact(0, Identifier::Id("9".into()), None)], vec![]);
    let second = Accept { head: second.head.clone(), last, claim: second.claim, hold: false };
    assert_eq!(ledger.accept(Arc::new(second)).await, Ok(Accepted::Before(first.head.id)));
    assert!(claim(ledger).await.is_none());
    // What was accepted is no draft any more.
    ledger.discard(first.head.id).await.unwrap();
    assert_eq!(results_of(ledger, first.head.id).await, [None]);
}

async fn what_is_given_back_is_handed_on(ledger: &dyn Ledger) {
    assert!(claim(ledger).await.is_none());
    let done = DeletionId::new();
    ledger.accept(Arc::new(plain(done, 0, 1))).await.unwrap();
    ledger.finish(done, 1).await.unwrap();
    let deletion = with_settled(plain(DeletionId::new(), 10, 2), vec![(Slot(1), Settled::duplicate(Slot(0)))]);
    let head = Head { reason: Some("why".into()), reference: Some("mine".into()), ..deletion.head };
    let deletion = Arc::new(Accept { head, ..deletion });
    let id = deletion.head.id;
    ledger.accept(Arc::clone(&deletion)).await.unwrap();
    // Share 0 has the even slots. 0 and 2 end in doubt, 4 is settled, 6 is in flight, 8 is never sent.
    let even = key(id, 1);
    ledger.intent(intent(even, 1, &[0, 2, 4])).await.unwrap();
    let in_doubt = Closed { ticket: Ticket(1), attempts: 3, in_doubt: true, last: Some(FaultCode::UpstreamError) };
    ledger.record(record(even, 1, &[in_doubt], &[(4, gone(1))])).await.unwrap();
    ledger.intent(Intent { in_doubt: true, attempts: 2, ..intent(even, 7, &[6]) }).await.unwrap();
    ledger.release(even).await.unwrap();

    let job = claim(ledger).await.unwrap();
    assert!(claim(ledger).await.is_none(), "it is claimed once");
    assert_eq!(job.key, key(id, 2));
    assert_eq!(*job.head, deletion.head);
    assert_eq!(job.part.settled, [(Slot(1), Settled::duplicate(Slot(0))), (Slot(4), gone(1))]);
    assert_eq!(job.part.all(), deletion.last.all());
    let first = Attempt {
        ticket: Ticket(1),
        attempts: 3,
        in_doubt: true,
        closed: true,
        last: Some(FaultCode::UpstreamError),
        slots: slots(&[0, 2, 4]),
    };
    let second =
        Attempt { ticket: Ticket(7), attempts: 2, in_doubt: true, closed: false, last: None, slots: slots(&[6]) };
    assert_eq!(job.attempts.first(), Some(&vec![first, second]));
    assert!(job.attempts.get(1).is_none_or(Vec::is_empty));

    let (fresh, past, last) = job.past(0);
    assert_eq!(fresh.iter().map(|target| target.slot).collect::<Vec<_>>(), slots(&[8]));
    assert_eq!(fresh[0].identifier, deletion.last.identifiers[8]);
    let groups: Vec<_> = past
        .iter()
        .map(|group| {
            let targets: Vec<_> = group.targets.iter().map(|target| target.slot).collect();
            (targets, group.attempts, group.in_doubt, group.in_flight)
        })
        .collect();
    assert_eq!(groups, [(slots(&[0, 2]), 3, true, false), (slots(&[6]), 2, true, true)]);
    assert_eq!(last, 7);
    let (fresh, past, last) = job.past(1);
    assert_eq!(fresh.iter().map(|target| target.slot).collect::<Vec<_>>(), slots(&[3, 5, 7, 9]));
    assert!(past.is_empty() && last == 0);
}

async fn who_gave_a_part_back_is_shut_out(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 2))).await.unwrap();
    for fence in 1..4 {
        let (old, new) = (key(id, fence - 1), key(id, fence));
        for share in 0..2 {
            assert_eq!(ledger.intent(Intent { share, ..intent(old, fence, &[0]) }).await, Err(StoreError::Fenced));
            ledger.intent(Intent { share, ..intent(new, fence, &[u32::from(share)]) }).await.unwrap();
        }
        assert_eq!(ledger.record(record(old, 1, &[], &[(0, gone(1))])).await, Err(StoreError::Fenced));
        assert_eq!(ledger.renew(vec![old, new]).await, Ok(vec![Hold::Lost, Hold::Held]));
        ledger.release(old).await.unwrap();
        assert!(claim(ledger).await.is_none(), "it was not theirs to give back");
        ledger.release(new).await.unwrap();
        assert_eq!(ledger.intent(intent(new, 9, &[0])).await, Err(StoreError::Fenced));
        assert_eq!(claim(ledger).await.unwrap().key, key(id, fence + 1));
    }
    // Records count anew under each fence.
    ledger.record(record(key(id, 4), 1, &[closed(3)], &[(0, gone(2))])).await.unwrap();
    assert_eq!(results_of(ledger, id).await, [Some(gone(2)), None]);
}

async fn the_tenant_with_the_least_work_is_next(ledger: &dyn Ledger) {
    let mut ids = HashMap::new();
    for (tenant, count) in [("large", 3), ("small", 1), ("full", 1)] {
        for n in 0..count {
            let deletion = plain(DeletionId::new(), 1, 1);
            let head = Head { tenant: tenant.into(), ..deletion.head };
            ids.insert((tenant, n), head.id);
            ledger.accept(Arc::new(Accept { head, hold: false, ..deletion })).await.unwrap();
        }
    }
    let loads = |large, small| {
        let by_tenant = [("large".into(), large), ("small".into(), small), ("full".into(), 10)].into();
        Arc::new(Loads { by_tenant, most: 10 })
    };
    let next = async |loads| ledger.claim(loads).await.unwrap().map(|job| job.head.id);
    assert_eq!(next(loads(1, 2)).await, Some(ids[&("large", 0)]));
    assert_eq!(next(loads(3, 2)).await, Some(ids[&("small", 0)]));
    assert_eq!(next(loads(9, 2)).await, Some(ids[&("large", 1)]), "the oldest that is left");
    assert_eq!(next(loads(10, 2)).await, None, "both have as much as they may");
    assert_eq!(next(loads(0, 0)).await, Some(ids[&("large", 2)]));
    assert_eq!(next(loads(0, 0)).await, None);
}

async fn a_cancelled_deletion_says_so(ledger: &dyn Ledger) {
    let (here, waiting) = (DeletionId::new(), DeletionId::new());
    ledger.accept(Arc::new(plain(here, 1, 1))).await.unwrap();
    ledger.accept(Arc::new(Accept { hold: false, ..plain(waiting, 1, 1) })).await.unwrap();
    for id in [here, waiting] {
        ledger.cancel(id, 5).await.unwrap();
        ledger.cancel(id, 6).await.unwrap();
        assert_eq!(ledger.read(id).await.unwrap().unwrap().cancelled_ms, Some(5));
    }
    assert_eq!(ledger.renew(vec![key(here, 1), key(here, 2)]).await, Ok(vec![Hold::Cancelled, Hold::Lost]));
    assert!(claim(ledger).await.unwrap().cancelled);
    // Whoever works it still says what became of it.
    ledger.record(record(key(here, 1), 1, &[], &[(0, gone(1))])).await.unwrap();
    assert!(ledger.finish(here, 7).await.unwrap());
}

async fn deletions_are_listed_newest_first(ledger: &dyn Ledger) {
    let mut ids = Vec::new();
    for n in 0..6 {
        let deletion = plain(DeletionId::new(), 1, 1 + n % 2);
        let reference = (n % 3 == 0).then(|| "a%_'".to_owned());
        ids.push(deletion.head.id);
        let head = Head { tenant: "acme".into(), reference, ..deletion.head };
        ledger.accept(Arc::new(Accept { head, ..deletion })).await.unwrap();
    }
    ledger.accept(Arc::new(plain(DeletionId::new(), 1, 1))).await.unwrap();
    ledger.record(record(key(ids[2], 1), 1, &[], &[(0, gone(1))])).await.unwrap();
    ledger.finish(ids[2], 9).await.unwrap();
    let all = Filter {
        tenant: "acme".into(),
        finished: None,
        reference: None,
        connection: None,
        within: None,
        before: None,
        most: 100,
    };
    let list = async |filter: Filter| {
        let list = ledger.list(filter).await.unwrap();
        list.iter().map(|summary| ids.iter().position(|id| *id == summary.head.id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(list(all.clone()).await, [5, 4, 3, 2, 1, 0]);
    assert_eq!(list(Filter { most: 2, ..all.clone() }).await, [5, 4]);
    assert_eq!(list(Filter { most: 2, before: Some(ids[4]), ..all.clone() }).await, [3, 2]);
    assert_eq!(list(Filter { finished: Some(true), ..all.clone() }).await, [2]);
    assert_eq!(list(Filter { finished: Some(false), most: 3, ..all.clone() }).await, [5, 4, 3]);
    assert_eq!(list(Filter { reference: Some("a%_'".into()), ..all.clone() }).await, [3, 0]);
    assert_eq!(list(Filter { reference: Some("a".into()), ..all.clone() }).await, [0; 0]);
    assert_eq!(list(Filter { connection: Some("share_1".into()), ..all.clone() }).await, [5, 3, 1]);
    assert_eq!(list(Filter { connection: Some("share".into()), ..all.clone() }).await, [0; 0]);
    assert_eq!(list(Filter { within: Some(vec!["share_0".into()]), ..all.clone() }).await, [4, 2, 0]);
    let both = Some(vec!["share_1".into(), "share_0".into(), "another".into()]);
    assert_eq!(list(Filter { within: both, most: 1, ..all.clone() }).await, [5]);
    assert_eq!(list(Filter { tenant: "nobody".into(), ..all.clone() }).await, [0; 0]);
    let summary = ledger.list(Filter { finished: Some(true), ..all }).await.unwrap().remove(0);
    assert_eq!(Some(summary), ledger.read(ids[2]).await.unwrap());
}

async fn the_backlog_is_what_is_not_settled(ledger: &dyn Ledger) {
    assert!(ledger.backlog().await.unwrap().is_empty());
    let first = DeletionId::new();
    for (id, contacts) in [(first, 3), (DeletionId::new(), 4)] {
        ledger.accept(Arc::new(plain(id, contacts, 1))).await.unwrap();
    }
    let deletion = plain(DeletionId::new(), 2, 1);
    let head = Head { tenant: "other".into(), ..deletion.head };
    ledger.accept(Arc::new(Accept { head, hold: false, ..deletion })).await.unwrap();
    ledger.record(record(key(first, 1), 1, &[], &[(0, gone(1))])).await.unwrap();
    let backlog = ledger.backlog().await.unwrap();
    assert_eq!(backlog, HashMap::from([("tenant".into(), 6), ("other".into(), 2)]));
}

async fn what_nobody_closed_is_found(ledger: &dyn Ledger) {
    let (open, over, closed) = (DeletionId::new(), DeletionId::new(), DeletionId::new());
    for id in [open, over, closed] {
        ledger.accept(Arc::new(plain(id, 1, 1))).await.unwrap();
    }
    for id in [over, closed] {
        ledger.record(record(key(id, 1), 1, &[], &[(0, gone(1))])).await.unwrap();
    }
    ledger.finish(closed, 1).await.unwrap();
    let ended: Vec<_> = ledger.ended().await.unwrap().into_iter().map(|head| head.id).collect();
    // Where leases run out, whoever claims the next part closes it.
    assert!(ended == [over] || (ended.is_empty() && ledger.lease().is_some()));
}

async fn what_is_old_is_forgotten(ledger: &dyn Ledger) {
    let finished = async |scope: u8, finished_ms| {
        let deletion = claimed(scope, scope, 0);
        let id = deletion.head.id;
        ledger.accept(deletion).await.unwrap();
        ledger.record(record(key(id, 1), 1, &[], &[(0, gone(1))])).await.unwrap();
        assert!(ledger.finish(id, finished_ms).await.unwrap());
        id
    };
    let (old, newer) = (finished(1, 1_000).await, finished(2, 2_000).await);
    let running = claimed(3, 3, 0);
    ledger.accept(Arc::clone(&running)).await.unwrap();

    let nothing = Purge {
        keys_before_ms: 0,
        deletions_before_ms: None,
        identifiers_before_ms: 0,
        drafts_before_ms: 0,
        most: 1_000,
    };
    let forgotten = ledger.purge(nothing).await.unwrap();
    assert_eq!((forgotten.keys, forgotten.deletions, forgotten.more), (0, 0, false));
    let keys = Purge { keys_before_ms: 1_500, identifiers_before_ms: i64::MAX, ..nothing };
    assert_eq!(ledger.purge(keys).await.unwrap().keys, 1);
    assert_eq!(ledger.accept(claimed(2, 2, 0)).await, Ok(Accepted::Before(newer)));
    assert_eq!(ledger.accept(claimed(1, 9, 0)).await, Ok(Accepted::New), "its key is free");
    let all = Purge { keys_before_ms: i64::MAX, deletions_before_ms: Some(1_500), ..nothing };
    let forgotten = ledger.purge(all).await.unwrap();
    assert_eq!((forgotten.deletions, forgotten.more), (1, false));
    assert!(ledger.read(old).await.unwrap().is_none());
    assert!(ledger.page(old, 0).await.unwrap().is_none());
    assert!(ledger.read(newer).await.unwrap().is_some());
    // What is not finished is never forgotten, nor is its key.
    assert_eq!(ledger.accept(claimed(3, 3, 0)).await, Ok(Accepted::Before(running.head.id)));
}

/// A ledger and the book that says what it should do, and what they were asked.
pub(super) struct Pair {
    pub(super) ledger: Box<dyn Ledger>,
    book: Book,
    dice: fastrand::Rng,
    deletions: Vec<Known>,
}

/// What a worker knows of a deletion.
struct Known {
    id: DeletionId,
    parts: Vec<Worked>,
    shares: u16,
    ticket: u64,
}

/// What it knows of a part.
struct Worked {
    first: u32,
    open: Vec<u32>,
    fence: u64,
    records: u32,
}

impl Pair {
    pub(super) fn new(ledger: Box<dyn Ledger>, seed: u64) -> Self {
        Self { ledger, book: Book::default(), dice: fastrand::Rng::with_seed(seed), deletions: Vec::new() }
    }

    /// One random call, on both.
    pub(super) async fn step(&mut self) {
        if self.deletions.is_empty() || self.dice.u8(..) < 20 {
            return self.accept().await;
        }
        if self.dice.u8(..) < 30 {
            self.claim().await;
            return;
        }
        let which = self.dice.usize(..self.deletions.len());
        let dice = &mut self.dice;
        let known = &mut self.deletions[which];
        let number = dice.usize(..known.parts.len());
        let part = &mut known.parts[number];
        let fence = if dice.u8(..) < 25 { part.fence.wrapping_sub(1) & (u64::MAX >> 1) } else { part.fence };
        let key = PartKey { deletion: known.id, part: number as u32, fence };
        let share = dice.u16(..known.shares.max(1));
        match dice.u8(0..22) {
            0..8 => {
                known.ticket += 1;
                let covered: Vec<_> = (0..5).map(|_| part.first + dice.u32(..10)).collect();
                let intent = Intent {
                    share,
                    in_doubt: dice.bool(),
                    attempts: dice.u32(..1_000),
                    ..intent(key, known.ticket, &covered)
                };
                assert_eq!(self.ledger.intent(intent.clone()).await, self.book.intent(intent));
            }
            8..16 => {
                let closed: Vec<_> = (0..dice.usize(0..3))
                    .map(|_| Closed {
                        ticket: Ticket(dice.u64(0..=known.ticket + 1)),
                        attempts: dice.u32(0..9),
                        in_doubt: dice.bool(),
                        last: dice.choice(FaultCode::ALL),
                    })
                    .collect();
                let some = if dice.u8(..) < 40 { part.open.len() } else { dice.usize(0..=part.open.len().min(5)) };
                dice.shuffle(&mut part.open);
                let settled: Vec<_> = part.open.iter().take(some).map(|slot| (*slot, gone(*slot % 7))).collect();
                let record = Record { share, ..record(key, part.records + 1, &closed, &settled) };
                let done = self.book.record(record.clone());
                assert_eq!(self.ledger.record(record).await, done);
                if done.is_ok() {
                    part.open.drain(..some);
                    part.records += 1;
                }
            }
            16 => {
                self.ledger.release(key).await.unwrap();
                self.book.release(key);
            }
            17 => assert_eq!(self.ledger.renew(vec![key]).await, Ok(vec![self.book.renew(key)])),
            18 => {
                self.ledger.cancel(known.id, 77).await.unwrap();
                self.book.cancel(known.id, 77);
            }
            _ => {
                let finished_ms = dice.i64(0..1 << 50);
                let finished = self.ledger.finish(known.id, finished_ms).await.unwrap();
                assert_eq!(finished, self.book.finish(known.id, finished_ms));
            }
        }
    }

    async fn accept(&mut self) {
        let dice = &mut self.dice;
        let shares = dice.u16(1..4);
        let id = DeletionId::new();
        let sizes: Vec<u32> = match dice.u8(0..10) {
            0 => vec![1_001],
            1 => vec![7, 3, 9],
            2 => vec![5, 5],
            _ => vec![dice.u32(0..12)],
        };
        let mut first = 0;
        let mut parts = Vec::new();
        for (size, number) in sizes.iter().zip(0..) {
            let settled: Vec<_> =
                (first..first + size).filter(|_| dice.u8(..) < 50).map(|n| (Slot(n), gone(n))).collect();
            parts.push(part(number, first, contacts(first, *size, shares), settled));
            first += size;
        }
        let hold = parts.len() == 1 && dice.bool();
        let worked = parts.iter().map(|part| Worked {
            first: part.first,
            open: part.targets_of_all(),
            fence: u64::from(hold),
            records: 0,
        });
        self.deletions.push(Known { id, parts: worked.collect(), shares, ticket: 0 });
        let reason = dice.bool().then(|| "reason".to_owned());
        let last = parts.pop().unwrap();
        for part in parts {
            self.book.draft(id, &part);
            self.ledger.draft(id, "tenant".into(), part).await.unwrap();
        }
        let whole = plain(id, 0, shares);
        let deletion = Arc::new(Accept { head: Head { reason, ..whole.head }, last, hold, claim: None });
        assert_eq!(self.book.accept(&deletion), Accepted::New);
        assert_eq!(self.ledger.accept(deletion).await, Ok(Accepted::New));
    }

    /// Whether both hand on the same.
    async fn claim(&mut self) -> bool {
        let (one, other) = (claim(&*self.ledger).await, self.book.claim(&Loads { most: 1, ..Loads::default() }));
        assert_eq!(one.as_ref().map(job), other.as_ref().map(job));
        let Some(Job { key, .. }) = one else { return false };
        let known = self.deletions.iter_mut().find(|known| known.id == key.deletion).unwrap();
        let part = &mut known.parts[key.part as usize];
        (part.fence, part.records) = (key.fence, 0);
        true
    }

    /// Whoever worked anything is gone, as after a crash.
    pub(super) fn crash(&mut self) {
        self.book.crash();
    }

    /// Claims everything that waits. How much that was.
    pub(super) async fn claim_all(&mut self) -> usize {
        let mut count = 0;
        while self.claim().await {
            count += 1;
        }
        count
    }

    /// Whether both read the same.
    pub(super) async fn compare(&self) {
        for known in &self.deletions {
            assert_eq!(self.ledger.read(known.id).await.unwrap(), self.book.read(known.id));
            for part in 0..known.parts.len() as u32 {
                assert_eq!(self.ledger.page(known.id, part).await.unwrap().as_ref(), self.book.page(known.id, part));
            }
        }
        assert_eq!(self.ledger.backlog().await.unwrap(), self.book.backlog());
    }
}

/// One contact of a part, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) share: u16,
    pub(crate) identifier: Identifier,
    pub(crate) hash: IdentifierHash,
    pub(crate) reference: Option<Arc<str>>,
}

impl Contact {
    pub(crate) fn bare(share: u16, identifier: Identifier) -> Self {
        Self { share, identifier, hash: [1; 16], reference: None }
    }
}

impl Part {
    pub(crate) fn of(number: u32, first: u32, contacts: Vec<Contact>, settled: Vec<(Slot, Settled)>) -> Self {
        let split = |contact: Contact| {
            let Contact { share, identifier, hash, reference } = contact;
            (Asked { share, hash: Some(hash), reference }, identifier)
        };
        let (contacts, identifiers): (Vec<_>, _) = contacts.into_iter().map(split).unzip();
        Self { number, first, contacts: Arc::new(contacts), identifiers, settled }
    }

    /// Its contacts; none without an identifier or a hash.
    pub(super) fn all(&self) -> Vec<Contact> {
        assert_eq!(self.contacts.len(), self.identifiers.len());
        let whole = |(asked, identifier): (&Asked, &Identifier)| Contact {
            share: asked.share,
            identifier: identifier.clone(),
            hash: asked.hash.unwrap(),
            reference: asked.reference.clone(),
        };
        self.contacts.iter().zip(&self.identifiers).map(whole).collect()
    }

    fn targets_of_all(&self) -> Vec<u32> {
        let open = |slot: &u32| self.settled.iter().all(|(settled, _)| settled.0 != *slot);
        (self.first..).take(self.contacts.len()).filter(open).collect()
    }
}

/// Everything that a job says, to be compared.
fn job(job: &Job) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut attempts = job.attempts.clone();
    attempts.resize(9, Vec::new());
    let part = (job.part.number, job.part.first, job.part.all(), job.part.settled.clone());
    (Head::clone(&job.head), job.parts, job.key, part, attempts, job.cancelled)
}

/// The oldest part that waits, whoever's it is.
async fn claim(ledger: &dyn Ledger) -> Option<Job> {
    ledger.claim(Arc::new(Loads { most: 1, ..Loads::default() })).await.unwrap()
}

async fn results_of(ledger: &dyn Ledger, id: DeletionId) -> Vec<Option<Settled>> {
    ledger.page(id, 0).await.unwrap().unwrap().results.iter().map(|settled| settled.cloned()).collect()
}

/// A deletion of one part, worked by whoever accepts it, over connections named share_0, share_1 and so on.
pub(super) fn plain(id: DeletionId, count: usize, shares: u16) -> Accept {
    let head = Head { id, shares: (0..shares).map(|n| format!("share_{n}").into()).collect(), ..head() };
    Accept { head, ..of_part(part(0, 0, contacts(0, count as u32, shares), Vec::new())) }
}

fn head() -> Head {
    Head {
        id: DeletionId::new(),
        tenant: "tenant".into(),
        created_ms: 1,
        reason: None,
        reference: None,
        shares: Vec::new(),
    }
}

fn of_part(last: Arc<Part>) -> Accept {
    Accept { head: head(), last, claim: None, hold: true }
}

fn with_settled(deletion: Accept, settled: Vec<(Slot, Settled)>) -> Accept {
    let Part { number, first, .. } = *deletion.last;
    Accept { last: part(number, first, deletion.last.all(), settled), ..deletion }
}

fn claimed(scope: u8, fingerprint: u8, free_before_ms: i64) -> Arc<Accept> {
    let claim = Claim { scope: [scope; 32], fingerprint: [fingerprint; 32], free_before_ms };
    Arc::new(Accept { claim: Some(claim), ..plain(DeletionId::new(), 1, 1) })
}

pub(super) fn part(number: u32, first: u32, contacts: Vec<Contact>, settled: Vec<(Slot, Settled)>) -> Arc<Part> {
    Arc::new(Part::of(number, first, contacts, settled))
}

fn contacts(first: u32, count: u32, shares: u16) -> Vec<Contact> {
    let share = |n: u32| (n % u32::from(shares.max(1))) as u16;
    (first..first + count)
        .map(|n| contact(share(n), Identifier::Id(format!("id-{n}").into()), Some(&format!("row {n}"))))
        .collect()
}

fn contact(share: u16, identifier: Identifier, reference: Option<&str>) -> Contact {
    let hash = u128::from(fastrand::u64(..)) << 3;
    Contact { share, identifier, hash: hash.to_be_bytes(), reference: reference.map(Arc::from) }
}

pub(super) fn key(deletion: DeletionId, fence: u64) -> PartKey {
    PartKey { deletion, part: 0, fence }
}

fn slots(numbers: &[u32]) -> Vec<Slot> {
    numbers.iter().copied().map(Slot).collect()
}

pub(super) fn intent(key: PartKey, ticket: u64, covered: &[u32]) -> Intent {
    Intent { key, share: 0, ticket: Ticket(ticket), attempts: 1, in_doubt: false, slots: slots(covered) }
}

pub(super) fn record(key: PartKey, number: u32, closed: &[Closed], settled: &[(u32, Settled)]) -> Record {
    let settled = settled.iter().map(|(slot, settled)| Run::one(Slot(*slot), settled.clone())).collect();
    Record { key, number, share: 0, closed: closed.to_vec(), settled }
}

fn closed(ticket: u64) -> Closed {
    Closed { ticket: Ticket(ticket), attempts: 1, in_doubt: false, last: None }
}

/// A result that is told from another by its attempts.
pub(super) fn gone(attempts: u32) -> Settled {
    Settled::absent(Outcome::Deleted, Evidence::Item, attempts)
}

fn every_result() -> Vec<Settled> {
    let word = UpstreamWord { status: 422, code: Some("has_invoices".into()) };
    let mut results = vec![
        Settled::absent(Outcome::NotFound, Evidence::Inferred, 4),
        Settled::duplicate(Slot(3)),
        Settled::would_delete(),
        Settled::refused_here(&Fault::new(FaultCode::InvalidIdentifier)),
    ];
    for code in FaultCode::ALL {
        for retry in [Retry::Never, Retry::Safe, Retry::After(u64::MAX), Retry::VerifyFirst] {
            let fault = Fault { upstream: Some(word.clone()), evidence: Evidence::Item, ..Fault::new(code) };
            results.push(Settled::fault(&fault, u32::MAX, retry));
            results.push(Settled::unknown(&Fault::new(code).still_there(), 1, retry));
        }
    }
    results
}
