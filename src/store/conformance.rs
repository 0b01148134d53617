//! What every ledger must do, whatever it keeps its deletions in, and the book that each is compared with.
//!
//! A store's own promises (its file, its failures, its lock) are tested beside it.

use std::sync::Arc;

use adapters::{Evidence, Fault, FaultCode, Identifier, Outcome, Slot, UpstreamWord};
use futures_util::future::join_all;

use super::{
    Accept, Accepted, Asked, Attempt, Book, Claim, Contact, DeletionId, Intent, Ledger, Memory, Record, ShareKey,
    StoreError, Stored, Unfinished,
};
use crate::engine::{Closed, Retry, Settled, Ticket};

#[tokio::test]
async fn memory_is_a_ledger() {
    // It keeps nothing beyond the process, so there is nothing to take over.
    check(|| Box::new(Memory::default()), false).await;
}

/// Every law, each on a ledger of its own. `takes_over`: whether what is unfinished is handed over.
pub(super) async fn check(fresh: impl Fn() -> Box<dyn Ledger>, takes_over: bool) {
    every_field_reads_back(&*fresh()).await;
    what_is_left_out_stays_out(&*fresh()).await;
    what_is_settled_at_once_is_a_result(&*fresh()).await;
    a_deletion_runs_from_accept_to_finish(&*fresh()).await;
    the_first_result_of_a_slot_stays(&*fresh()).await;
    only_who_works_a_share_writes(&*fresh()).await;
    an_open_contact_keeps_a_deletion_open(&*fresh()).await;
    ten_thousand_contacts_read_back(&*fresh()).await;
    many_at_once_are_all_put_down(&*fresh()).await;
    a_key_acts_once(&*fresh()).await;
    if takes_over {
        what_is_unfinished_is_handed_over(&*fresh()).await;
        who_was_taken_over_is_shut_out(&*fresh()).await;
    }
}

async fn a_key_acts_once(ledger: &dyn Ledger) {
    let claimed = |scope, fingerprint| {
        let claim = Claim { scope: [scope; 32], fingerprint: [fingerprint; 32] };
        Arc::new(Accept { claim: Some(claim), ..plain(DeletionId::new(), 1, 1) })
    };
    let (first, same, other, elsewhere) = (claimed(1, 1), claimed(1, 1), claimed(1, 2), claimed(2, 2));
    assert_eq!(ledger.accept(Arc::clone(&first)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(Arc::clone(&same)).await, Ok(Accepted::Before(first.id)));
    assert_eq!(ledger.accept(Arc::clone(&other)).await, Ok(Accepted::Other));
    assert_eq!(ledger.accept(Arc::clone(&elsewhere)).await, Ok(Accepted::New));
    assert!(ledger.read(same.id).await.unwrap().is_none());
    assert!(ledger.read(other.id).await.unwrap().is_none());

    // Of many at once, one is new.
    let all: Vec<_> = (0..50).map(|_| claimed(3, 3)).collect();
    let accepted = join_all(all.iter().map(|deletion| ledger.accept(Arc::clone(deletion)))).await;
    assert_eq!(accepted.iter().filter(|accepted| **accepted == Ok(Accepted::New)).count(), 1);
    let first = all.iter().zip(&accepted).find(|(_, accepted)| **accepted == Ok(Accepted::New)).unwrap().0.id;
    assert_eq!(accepted.iter().filter(|accepted| **accepted == Ok(Accepted::Before(first))).count(), 49);
}

async fn every_field_reads_back(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    let contacts = vec![
        contact(0, Identifier::Id("8841".into()), Some("row 1")),
        contact(1, Identifier::Phone("+4930123".into()), None),
        contact(1, Identifier::External { provider: "salesforce".into(), id: "0035g".into() }, Some("ü \"'\0")),
    ];
    let deletion = Accept {
        id,
        tenant: "acme".into(),
        created_ms: 1_764_000_000_123,
        reason: Some("GDPR article 17".into()),
        reference: Some("ticket 4711".into()),
        shares: vec!["crm".into(), "phone system".into()],
        contacts,
        settled: Vec::new(),
        claim: None,
    };
    ledger.accept(Arc::new(deletion)).await.unwrap();
    let stored = ledger.read(id).await.unwrap().unwrap();
    assert_eq!(stored.id, id);
    assert_eq!(&*stored.tenant, "acme");
    assert_eq!((stored.created_ms, stored.finished_ms), (1_764_000_000_123, None));
    assert_eq!(stored.reason.as_deref(), Some("GDPR article 17"));
    assert_eq!(stored.reference.as_deref(), Some("ticket 4711"));
    assert_eq!(stored.shares, ["crm".into(), "phone system".into()]);
    let asked = |share, reference: Option<&str>| Asked { share, reference: reference.map(Arc::from) };
    assert_eq!(stored.contacts, [asked(0, Some("row 1")), asked(1, None), asked(1, Some("ü \"'\0"))]);
    assert_eq!(stored.results, [None, None, None]);
    assert!(ledger.healthy());

    // Every form of result, in every field.
    let results: Vec<_> = every_result().into_iter().collect();
    let deletion = Arc::new(plain(DeletionId::new(), results.len(), 1));
    ledger.accept(Arc::clone(&deletion)).await.unwrap();
    let settled = (0..).map(Slot).zip(results.clone()).collect();
    ledger.record(Record { key: key(deletion.id, 0, 1), closed: Vec::new(), settled }).await.unwrap();
    let stored = ledger.read(deletion.id).await.unwrap().unwrap();
    assert_eq!(stored.results, results.into_iter().map(Some).collect::<Vec<_>>());
}

async fn what_is_left_out_stays_out(ledger: &dyn Ledger) {
    assert!(ledger.read(DeletionId::new()).await.unwrap().is_none(), "an unknown id");
    ledger.finish(DeletionId::new(), 1).await.unwrap();
    let empty = plain(DeletionId::new(), 0, 0);
    let id = empty.id;
    ledger.accept(Arc::new(empty)).await.unwrap();
    let stored = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((stored.reason, stored.reference), (None, None));
    assert!(stored.shares.is_empty() && stored.contacts.is_empty() && stored.results.is_empty());
    ledger.finish(id, 7).await.unwrap();
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, Some(7));
}

async fn what_is_settled_at_once_is_a_result(ledger: &dyn Ledger) {
    let refused = Settled::refused_here(&Fault::new(FaultCode::InvalidIdentifier));
    let settled = vec![(Slot(1), refused.clone()), (Slot(2), Settled::duplicate(Slot(0)))];
    let deletion = Accept { settled, ..plain(DeletionId::new(), 3, 1) };
    let id = deletion.id;
    ledger.accept(Arc::new(deletion)).await.unwrap();
    let stored = ledger.read(id).await.unwrap().unwrap();
    assert_eq!(stored.results, [None, Some(refused), Some(Settled::duplicate(Slot(0)))]);
}

async fn a_deletion_runs_from_accept_to_finish(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 1))).await.unwrap();
    let key = key(id, 0, 1);
    ledger.intent(intent(key, 1, &[0, 1])).await.unwrap();
    ledger.record(record(key, &[closed(1)], &[(0, gone(1))])).await.unwrap();
    assert_eq!(ledger.read(id).await.unwrap().unwrap().results, [Some(gone(1)), None]);
    ledger.intent(intent(key, 2, &[1])).await.unwrap();
    ledger.record(record(key, &[closed(2)], &[(1, gone(2))])).await.unwrap();
    ledger.finish(id, 99).await.unwrap();
    let stored = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((stored.results, stored.finished_ms), (vec![Some(gone(1)), Some(gone(2))], Some(99)));

    // It is over: nobody works it, and it was finished when it was finished.
    assert_eq!(ledger.intent(intent(key, 3, &[1])).await, Err(StoreError::Fenced));
    assert_eq!(ledger.record(record(key, &[], &[(1, gone(9))])).await, Err(StoreError::Fenced));
    ledger.finish(id, 100).await.unwrap();
    let stored = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((stored.results, stored.finished_ms), (vec![Some(gone(1)), Some(gone(2))], Some(99)));
}

async fn the_first_result_of_a_slot_stays(ledger: &dyn Ledger) {
    let settled = vec![(Slot(0), Settled::duplicate(Slot(1)))];
    let deletion = Accept { settled, ..plain(DeletionId::new(), 3, 1) };
    let key = key(deletion.id, 0, 1);
    ledger.accept(Arc::new(deletion)).await.unwrap();
    ledger.record(record(key, &[], &[(0, gone(1)), (1, gone(1)), (1, gone(2))])).await.unwrap();
    ledger.record(record(key, &[], &[(2, gone(3)), (1, gone(3))])).await.unwrap();
    // A slot that nobody asked for is no slot.
    ledger.record(record(key, &[], &[(3, gone(4)), (u32::MAX, gone(4))])).await.unwrap();
    let stored = ledger.read(key.deletion).await.unwrap().unwrap();
    assert_eq!(stored.results, [Some(Settled::duplicate(Slot(1))), Some(gone(1)), Some(gone(3))]);
}

async fn only_who_works_a_share_writes(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 2))).await.unwrap();
    for other in [key(id, 0, 0), key(id, 0, 2), key(id, 2, 1), key(DeletionId::new(), 0, 1), key(id, 0, u64::MAX)] {
        assert_eq!(ledger.intent(intent(other, 1, &[0])).await, Err(StoreError::Fenced), "{other:?}");
        assert_eq!(ledger.record(record(other, &[], &[(0, gone(1))])).await, Err(StoreError::Fenced), "{other:?}");
    }
    assert_eq!(ledger.read(id).await.unwrap().unwrap().results, [None, None]);
    // A call that was never put down may be said to have ended.
    ledger.record(record(key(id, 1, 1), &[closed(5)], &[])).await.unwrap();
}

async fn an_open_contact_keeps_a_deletion_open(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 1))).await.unwrap();
    ledger.record(record(key(id, 0, 1), &[], &[(1, gone(1))])).await.unwrap();
    ledger.finish(id, 5).await.unwrap();
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, None);
    ledger.record(record(key(id, 0, 1), &[], &[(0, gone(1))])).await.unwrap();
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, None);
    ledger.finish(id, 6).await.unwrap();
    assert_eq!(ledger.read(id).await.unwrap().unwrap().finished_ms, Some(6));
}

async fn ten_thousand_contacts_read_back(ledger: &dyn Ledger) {
    let count = 10_000;
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, count, 2))).await.unwrap();
    let slots: Vec<_> = (0..count as u32).collect();
    for (batch, ticket) in slots.chunks(1_700).zip(1..) {
        ledger.intent(intent(key(id, 0, 1), ticket, batch)).await.unwrap();
        let settled: Vec<_> = batch.iter().map(|slot| (*slot, gone(slot % 5))).collect();
        ledger.record(record(key(id, 0, 1), &[closed(ticket)], &settled)).await.unwrap();
    }
    ledger.finish(id, 1).await.unwrap();
    let stored = ledger.read(id).await.unwrap().unwrap();
    assert_eq!((stored.contacts.len(), stored.finished_ms), (count, Some(1)));
    for (n, (asked, result)) in stored.contacts.iter().zip(&stored.results).enumerate() {
        assert_eq!(*asked, Asked { share: (n % 2) as u16, reference: Some(format!("row {n}").into()) });
        assert_eq!(*result, Some(gone(n as u32 % 5)));
    }
}

async fn many_at_once_are_all_put_down(ledger: &dyn Ledger) {
    let deletions: Vec<_> = (1..=1_000).map(|n| Arc::new(plain(DeletionId::new(), n % 4 + 1, 1))).collect();
    let accepted = join_all(deletions.iter().map(|deletion| ledger.accept(Arc::clone(deletion)))).await;
    assert!(accepted.into_iter().all(|done| done.is_ok()));
    // One that is fenced does not spoil those that it stands among.
    let records = deletions.iter().zip(0..).map(|(deletion, n)| {
        let fence = if n % 3 == 0 { 2 } else { 1 };
        ledger.record(record(key(deletion.id, 0, fence), &[], &[(0, gone(n))]))
    });
    for (n, done) in join_all(records).await.into_iter().enumerate() {
        assert_eq!(done, if n % 3 == 0 { Err(StoreError::Fenced) } else { Ok(()) });
    }
    for (n, read) in join_all(deletions.iter().map(|d| ledger.read(d.id))).await.into_iter().enumerate() {
        let stored = read.unwrap().unwrap();
        assert_eq!(stored.contacts.len(), deletions[n].contacts.len());
        assert_eq!(stored.results[0], (n % 3 != 0).then(|| gone(n as u32)));
    }
}

async fn what_is_unfinished_is_handed_over(ledger: &dyn Ledger) {
    assert!(ledger.take_over().await.unwrap().is_empty());
    let done = DeletionId::new();
    ledger.accept(Arc::new(plain(done, 0, 1))).await.unwrap();
    ledger.finish(done, 1).await.unwrap();
    let settled = vec![(Slot(1), Settled::duplicate(Slot(0)))];
    let deletion = Arc::new(Accept {
        reason: Some("why".into()),
        reference: Some("mine".into()),
        settled,
        ..plain(DeletionId::new(), 10, 2)
    });
    let id = deletion.id;
    ledger.accept(Arc::clone(&deletion)).await.unwrap();
    // Share 0 has the even slots. 0 and 2 end in doubt, 4 is settled, 6 is in flight, 8 is never sent.
    let even = key(id, 0, 1);
    ledger.intent(intent(even, 1, &[0, 2, 4])).await.unwrap();
    let in_doubt = Closed { ticket: Ticket(1), attempts: 3, in_doubt: true, last: Some(FaultCode::UpstreamError) };
    ledger.record(record(even, &[in_doubt], &[(4, gone(1))])).await.unwrap();
    ledger.intent(Intent { in_doubt: true, attempts: 2, ..intent(even, 7, &[6]) }).await.unwrap();

    let mut handed_over = ledger.take_over().await.unwrap();
    assert_eq!(handed_over.len(), 1, "what is finished is over");
    let unfinished = handed_over.remove(0);
    let settled = vec![(Slot(1), Settled::duplicate(Slot(0))), (Slot(4), gone(1))];
    let so_far =
        Accept { reason: deletion.reason.clone(), reference: deletion.reference.clone(), settled, ..plain(id, 10, 2) };
    assert_eq!(accepted(&unfinished.deletion), accepted(&so_far));
    assert_eq!(unfinished.fence, 2);
    let first = Attempt {
        last: Some(FaultCode::UpstreamError),
        ..Attempt { ticket: Ticket(1), attempts: 3, in_doubt: true, closed: true, last: None, slots: slots(&[0, 2, 4]) }
    };
    let second =
        Attempt { ticket: Ticket(7), attempts: 2, in_doubt: true, closed: false, last: None, slots: slots(&[6]) };
    assert_eq!(unfinished.attempts, [vec![first, second], Vec::new()]);

    let (fresh, past, last) = unfinished.past(0);
    assert_eq!(fresh.iter().map(|target| target.slot).collect::<Vec<_>>(), slots(&[8]));
    assert_eq!(fresh[0].identifier, deletion.contacts[8].identifier);
    let groups: Vec<_> = past
        .iter()
        .map(|group| {
            let targets: Vec<_> = group.targets.iter().map(|target| target.slot).collect();
            (targets, group.attempts, group.in_doubt, group.in_flight)
        })
        .collect();
    assert_eq!(groups, [(slots(&[0, 2]), 3, true, false), (slots(&[6]), 2, true, true)]);
    assert_eq!(last, 7);
    let (fresh, past, last) = unfinished.past(1);
    assert_eq!(fresh.iter().map(|target| target.slot).collect::<Vec<_>>(), slots(&[3, 5, 7, 9]));
    assert!(past.is_empty() && last == 0);
}

async fn who_was_taken_over_is_shut_out(ledger: &dyn Ledger) {
    let id = DeletionId::new();
    ledger.accept(Arc::new(plain(id, 2, 2))).await.unwrap();
    for fence in 1..4 {
        for share in 0..2 {
            let (old, new) = (key(id, share, fence - 1), key(id, share, fence));
            assert_eq!(ledger.intent(intent(old, 1, &[0])).await, Err(StoreError::Fenced));
            assert_eq!(ledger.record(record(old, &[], &[(0, gone(1))])).await, Err(StoreError::Fenced));
            ledger.intent(intent(new, fence, &[u32::from(share)])).await.unwrap();
        }
        let unfinished = ledger.take_over().await.unwrap();
        assert_eq!((unfinished.len(), unfinished[0].fence), (1, fence + 1));
    }
    assert_eq!(ledger.read(id).await.unwrap().unwrap().results, [None, None]);
    ledger.record(record(key(id, 0, 4), &[], &[(0, gone(1)), (1, gone(1))])).await.unwrap();
    ledger.finish(id, 1).await.unwrap();
    assert!(ledger.take_over().await.unwrap().is_empty());
    assert_eq!(ledger.record(record(key(id, 0, 4), &[], &[])).await, Err(StoreError::Fenced));
}

/// A ledger and the book, told the same things in a random order. They must say the same.
pub(super) struct Pair {
    pub(super) ledger: Box<dyn Ledger>,
    book: Book,
    dice: fastrand::Rng,
    deletions: Vec<Known>,
}

/// What a worker knows of a deletion.
struct Known {
    id: DeletionId,
    contacts: u32,
    shares: u16,
    fence: u64,
    ticket: u64,
}

impl Pair {
    pub(super) fn new(ledger: Box<dyn Ledger>, seed: u64) -> Self {
        Self { ledger, book: Book::default(), dice: fastrand::Rng::with_seed(seed), deletions: Vec::new() }
    }

    /// One random call, on both.
    pub(super) async fn step(&mut self) {
        let dice = &mut self.dice;
        if self.deletions.is_empty() || dice.u8(..) < 20 {
            let (contacts, shares) = (if dice.u8(..) < 20 { 1_001 } else { dice.usize(0..12) }, dice.u16(1..4));
            let settled = (0..contacts as u32).filter(|_| dice.u8(..) < 50).map(|n| (Slot(n), gone(n))).collect();
            let reason = dice.bool().then(|| "reason".to_owned());
            let deletion = Arc::new(Accept { reason, settled, ..plain(DeletionId::new(), contacts, shares) });
            let (id, contacts) = (deletion.id, contacts as u32);
            self.deletions.push(Known { id, contacts, shares, fence: 1, ticket: 0 });
            self.book.accept(&deletion);
            self.ledger.accept(deletion).await.unwrap();
            return;
        }
        let which = dice.usize(..self.deletions.len());
        let known = &mut self.deletions[which];
        let fence = if dice.u8(..) < 25 { known.fence.wrapping_sub(1) } else { known.fence };
        let key = key(known.id, dice.u16(0..=known.shares), fence);
        // Now and then beyond the last slot.
        let mut slot = |known: &Known| dice.u32(0..known.contacts + 2);
        let slots: Vec<_> = (0..5).map(|_| slot(known)).collect();
        match self.dice.u8(0..20) {
            0..8 => {
                known.ticket += 1;
                let in_doubt = self.dice.bool();
                let intent = Intent { in_doubt, attempts: self.dice.u32(..), ..intent(key, known.ticket, &slots) };
                assert_eq!(self.ledger.intent(intent.clone()).await, self.book.intent(intent));
            }
            8..17 => {
                let closed: Vec<_> = (0..self.dice.usize(0..3))
                    .map(|_| Closed {
                        ticket: Ticket(self.dice.u64(0..=known.ticket + 1)),
                        attempts: self.dice.u32(0..9),
                        in_doubt: self.dice.bool(),
                        last: self.dice.choice(FaultCode::ALL),
                    })
                    .collect();
                let all = self.dice.u8(..) < 40;
                let slots = if all { (0..known.contacts).rev().collect() } else { slots };
                let settled: Vec<_> = slots.iter().map(|slot| (*slot, gone(self.dice.u32(..)))).collect();
                let record = record(key, &closed, &settled);
                assert_eq!(self.ledger.record(record.clone()).await, self.book.record(record));
            }
            _ => {
                let finished_ms = self.dice.i64(..);
                self.ledger.finish(known.id, finished_ms).await.unwrap();
                self.book.finish(known.id, finished_ms);
            }
        }
    }

    /// Whether both read the same.
    pub(super) async fn compare(&self) {
        for known in &self.deletions {
            let read = self.ledger.read(known.id).await.unwrap().unwrap();
            assert_eq!(stored(&read), stored(self.book.read(known.id).unwrap()));
        }
    }

    /// Whether both hand over the same; from now on the new fences are known. How many there were.
    pub(super) async fn take_over(&mut self) -> usize {
        let sorted = |mut list: Vec<Unfinished>| {
            list.sort_by_key(|unfinished| unfinished.deletion.id);
            list
        };
        let (one, other) = (sorted(self.ledger.take_over().await.unwrap()), sorted(self.book.take_over()));
        assert_eq!(one.len(), other.len());
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(accepted(&one.deletion), accepted(&other.deletion));
            assert_eq!((one.fence, &one.attempts), (other.fence, &other.attempts));
            let known = self.deletions.iter_mut().find(|known| known.id == one.deletion.id).unwrap();
            known.fence = one.fence;
        }
        one.len()
    }
}

/// Everything that is accepted, to be compared: an identifier's `Debug` would not tell.
fn accepted(deletion: &Accept) -> impl PartialEq + std::fmt::Debug + '_ {
    let Accept { id, tenant, created_ms, reason, reference, shares, contacts, settled, claim: _ } = deletion;
    let contacts: Vec<_> = contacts.iter().map(|c| (c.share, &c.identifier, &c.reference)).collect();
    (id, tenant, created_ms, reason, reference, shares, contacts, settled)
}

/// Everything that is read back.
fn stored(stored: &Stored) -> impl PartialEq + std::fmt::Debug + '_ {
    let Stored { id, tenant, created_ms, finished_ms, reason, reference, shares, contacts, results } = stored;
    (id, tenant, created_ms, finished_ms, reason, reference, shares, contacts, results)
}

/// A deletion of so many contacts, dealt out to its shares in turn.
pub(super) fn plain(id: DeletionId, contacts: usize, shares: u16) -> Accept {
    let one = |n: usize| {
        let text = format!("person-{n}");
        let identifier = match n % 3 {
            0 => Identifier::Id(text.into()),
            1 => Identifier::Phone(text.into()),
            _ => Identifier::External { provider: "salesforce".into(), id: text.into() },
        };
        contact((n % usize::from(shares.max(1))) as u16, identifier, Some(&format!("row {n}")))
    };
    Accept {
        id,
        tenant: "acme".into(),
        created_ms: 1,
        reason: None,
        reference: None,
        shares: (0..shares).map(|n| format!("connection {n}").into()).collect(),
        contacts: (0..contacts).map(one).collect(),
        settled: Vec::new(),
        claim: None,
    }
}

fn contact(share: u16, identifier: Identifier, reference: Option<&str>) -> Contact {
    Contact { share, identifier, reference: reference.map(Arc::from) }
}

pub(super) fn key(deletion: DeletionId, share: u16, fence: u64) -> ShareKey {
    ShareKey { deletion, share, fence }
}

fn slots(numbers: &[u32]) -> Vec<Slot> {
    numbers.iter().copied().map(Slot).collect()
}

pub(super) fn intent(key: ShareKey, ticket: u64, covered: &[u32]) -> Intent {
    Intent { key, ticket: Ticket(ticket), attempts: 1, in_doubt: false, slots: slots(covered) }
}

pub(super) fn record(key: ShareKey, closed: &[Closed], settled: &[(u32, Settled)]) -> Record {
    let settled = settled.iter().map(|(slot, settled)| (Slot(*slot), settled.clone())).collect();
    Record { key, closed: closed.to_vec(), settled }
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
