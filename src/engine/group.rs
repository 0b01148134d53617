//! Contacts of one share that are sent together: what they have in common, and how long a doubt about them is worth another
//! attempt. What becomes of each is the doubt rule's matter.

use std::sync::Arc;

use adapters::{Call, Fault};

use super::Moment;
use super::deletion::Policy;
use super::ended::Ended;

/// A contact in doubt has no more attempts than this, however much of its time is left: since when it is in doubt is not put
/// down, and a process that breaks off each time must come to an end with it. A time of ten minutes has room for half of it.
const MOST_IN_DOUBT: u32 = 50;

/// Contacts that share their number of attempts and their doubt.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) call: Arc<Call>,
    /// Those that count: once in doubt, only those that may have left the gateway.
    pub(super) attempts: u32,
    /// All of them, whether or not they left: waits grow with them.
    pub(super) tries: u32,
    pub(super) in_doubt: bool,
    /// Since when it is in doubt, as far as this process knows.
    pub(super) doubt_since_ms: Option<u64>,
    /// So many calls in a row were refused while it was in doubt.
    pub(super) refusals: u32,
    /// A renewed credential has been tried.
    pub(super) renewed: bool,
    /// A call that named these contacts may have left the gateway.
    pub(super) sent: bool,
    pub(super) last: Option<Fault>,
}

impl Group {
    /// Whether a contact of it that is in doubt after this attempt may have another one. A call that never left says
    /// nothing; a refusal has to be heard as often as there are attempts, for it need not be the upstream's own; anything
    /// else is tried for a time, for most faults outlast a number of attempts.
    pub(super) fn may_persist(&self, policy: &Policy, ended: &Ended, now: Moment) -> bool {
        let many = policy.max_attempts > 1;
        if matches!(ended, Ended::NotSent { .. }) {
            return many;
        }
        if ended.is_refusal() {
            return self.refusals + 1 < policy.max_attempts;
        }
        let since_ms = self.doubt_since_ms.unwrap_or(now.ms);
        let in_its_time = now.ms < since_ms.saturating_add(policy.doubt_ms);
        self.attempts < policy.max_attempts || (many && in_its_time && self.attempts < MOST_IN_DOUBT)
    }
}

/// A group and the moment from which it may be sent. Ordered by moment, then by age.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) ms: u64,
    pub(super) order: u64,
    pub(super) group: Group,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.ms, self.order) == (other.ms, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.ms, self.order).cmp(&(other.ms, other.order))
    }
}

#[cfg(test)]
mod tests {
    use adapters::{DIALECTS, Fault, FaultCode, IdentifierKind, Outcome, Slot, Target};
    use bytes::Bytes;

    use super::super::simulation::{identifier, open};
    use super::super::{Backoff, Lost, Past, Settled, Share, Step, Ticket};
    use super::*;

    const MINUTES_10: u64 = 600_000;

    /// One share of one contact that may be sent again, and the time.
    struct Desk {
        share: Share,
        now_ms: u64,
        dice: fastrand::Rng,
    }

    fn policy(max_attempts: u32, doubt_ms: u64) -> Policy {
        let backoff = Backoff { base_ms: 500, cap_ms: 60_000 };
        Policy { max_attempts, doubt_ms, backoff, deadline_ms: 86_400_000, renewable: true }
    }

    impl Desk {
        fn new(policy: Policy) -> Self {
            Self::with(policy, None)
        }

        /// With so many attempts behind it, the last of which left it in doubt.
        fn with(policy: Policy, past: Option<u32>) -> Self {
            let registration = DIALECTS.iter().find(|each| each.profile.max_contacts_per_call == 1).unwrap();
            let mut dice = fastrand::Rng::with_seed(7);
            let dialect = open(registration, &mut dice);
            let target = Target { slot: Slot(0), identifier: identifier(registration, IdentifierKind::Id, 1) };
            let share = match past {
                None => Share::new(dialect, policy, vec![target]),
                Some(attempts) => {
                    let targets = vec![target];
                    let past = Past { targets, attempts, in_doubt: true, in_flight: false, last: None };
                    Share::resume(dialect, policy, Vec::new(), vec![past], 9, Moment { ms: 0, unix_s: 0 }, &mut dice)
                }
            };
            Self { share, now_ms: 0, dice }
        }

        fn moment(&self) -> Moment {
            Moment { ms: self.now_ms, unix_s: 0 }
        }

        /// The next call, whenever it goes out; `None` once the contact is settled.
        fn next(&mut self) -> Option<Ticket> {
            loop {
                match self.share.poll(self.moment()) {
                    Step::Send(ticket, _) => return Some(ticket),
                    Step::Wait(until) => self.now_ms = until,
                    Step::Idle | Step::Done => return None,
                }
            }
        }

        fn lost(&mut self, lost: Lost) -> bool {
            let Some(ticket) = self.next() else { return false };
            let now = self.moment();
            self.share.on_lost(ticket, lost, now, &mut self.dice);
            true
        }

        /// A call that may have been carried out. Whether there was one.
        fn doubt(&mut self) -> bool {
            self.lost(Lost::MaybeSent(Fault::new(FaultCode::ConnectionLost)))
        }

        /// A call that never left.
        fn refused_at_the_door(&mut self) -> bool {
            self.lost(Lost::NotSent { fault: Fault::new(FaultCode::ConnectFailed), again: true })
        }

        fn answered(&mut self, status: u16) -> bool {
            let Some(ticket) = self.next() else { return false };
            let reply = http::Response::builder().status(status).body(Bytes::from_static(b"<html>")).unwrap();
            let now = self.moment();
            self.share.on_reply(ticket, &reply, now, &mut self.dice);
            true
        }

        fn result(&mut self) -> Settled {
            assert!(self.next().is_none(), "it is not settled");
            self.share.take_settled().remove(0).settled
        }
    }

    #[test]
    fn a_contact_in_doubt_is_tried_for_its_time() {
        let mut desk = Desk::new(policy(4, MINUTES_10));
        let begun_ms = desk.now_ms;
        while desk.doubt() {}
        let (took_ms, settled) = (desk.now_ms - begun_ms, desk.result());
        assert!((MINUTES_10..MINUTES_10 + 60_000).contains(&took_ms), "{took_ms}");
        assert!(settled.outcome == Outcome::Unknown && settled.attempts > 12, "{settled:?}");
    }

    #[test]
    fn without_a_time_the_number_of_attempts_is_the_limit() {
        for (max_attempts, doubt_ms) in [(4, 0), (1, 0), (1, MINUTES_10)] {
            let mut desk = Desk::new(policy(max_attempts, doubt_ms));
            while desk.doubt() {}
            let settled = desk.result();
            assert_eq!((settled.outcome, settled.attempts), (Outcome::Unknown, max_attempts), "{doubt_ms}");
        }
    }

    #[test]
    fn a_restart_gives_a_contact_in_doubt_its_time_anew() {
        let mut desk = Desk::with(policy(4, MINUTES_10), Some(9));
        while desk.doubt() {}
        assert!(desk.now_ms >= MINUTES_10, "{}", desk.now_ms);
        assert!(desk.result().attempts > 20);
        // And not for ever.
        let mut desk = Desk::with(policy(4, MINUTES_10), Some(MOST_IN_DOUBT - 1));
        assert!(desk.doubt());
        assert_eq!(desk.result().attempts, MOST_IN_DOUBT);
    }

    #[test]
    fn what_never_left_is_no_attempt_of_a_contact_in_doubt() {
        let mut desk = Desk::new(policy(4, 0));
        assert!(desk.doubt());
        let (mut before_ms, mut longest_ms) = (desk.now_ms, 0);
        for n in 0..100 {
            desk.share.take_closed();
            assert!(desk.refused_at_the_door(), "given up after {n}");
            let closed = desk.share.take_closed();
            assert_eq!((closed.len(), closed[0].attempts, closed[0].in_doubt), (1, 1, true));
            longest_ms = longest_ms.max(desk.now_ms - before_ms);
            before_ms = desk.now_ms;
        }
        assert!((50_000..=60_000).contains(&longest_ms), "the waits do not grow: {longest_ms}");
        while desk.doubt() {}
        let settled = desk.result();
        assert_eq!((settled.outcome, settled.attempts), (Outcome::Unknown, 4));
    }

    #[test]
    fn the_deadline_ends_what_never_leaves() {
        let mut desk = Desk::new(policy(4, MINUTES_10));
        assert!(desk.doubt());
        while desk.refused_at_the_door() {}
        assert!((80_000_000..=86_400_000).contains(&desk.now_ms), "{}", desk.now_ms);
        let settled = desk.result();
        assert_eq!((settled.outcome, settled.attempts), (Outcome::Unknown, 1));
    }

    #[test]
    fn what_never_left_is_an_attempt_as_long_as_there_is_no_doubt() {
        let mut desk = Desk::new(policy(4, MINUTES_10));
        while desk.refused_at_the_door() {}
        let settled = desk.result();
        assert_eq!((settled.outcome, settled.attempts), (Outcome::Failed, 4));
    }

    #[test]
    fn a_refusal_in_doubt_is_heard_as_often_as_there_are_attempts() {
        // Whatever was tried before.
        for tries in [1, 9] {
            let mut desk = Desk::new(policy(4, MINUTES_10));
            (0..tries).for_each(|_| assert!(desk.doubt()));
            (0..3).for_each(|_| assert!(desk.answered(403)));
            assert!(desk.doubt(), "no longer refused");
            (0..4).for_each(|_| assert!(desk.answered(403)));
            let settled = desk.result();
            assert_eq!((settled.outcome, settled.attempts), (Outcome::Unknown, tries + 8));
        }
    }

    #[test]
    fn a_refused_credential_is_tried_for_its_time_where_there_is_a_doubt() {
        let mut desk = Desk::new(Policy { renewable: false, ..policy(4, MINUTES_10) });
        assert!(desk.doubt());
        while desk.answered(401) {}
        assert!((MINUTES_10..MINUTES_10 + 60_000).contains(&desk.now_ms), "{}", desk.now_ms);
        assert_eq!(desk.result().outcome, Outcome::Unknown);
        let mut desk = Desk::new(Policy { renewable: false, ..policy(4, MINUTES_10) });
        assert!(desk.answered(401));
        let settled = desk.result();
        assert_eq!((settled.outcome, settled.attempts), (Outcome::Failed, 1));
    }

    #[test]
    fn a_refusal_without_doubt_is_heard_once() {
        let mut desk = Desk::new(policy(4, MINUTES_10));
        assert!(desk.answered(403));
        let settled = desk.result();
        assert_eq!((settled.outcome, settled.attempts), (Outcome::Rejected, 1));
    }
}
