//! The state machine of one share: the contacts of one deletion at one connection.
//!
//! A share plans its contacts, hands out calls, reads replies under the doubt rule and plans again what is left.
//! Contacts move in groups that share their number of attempts and their doubt; a group in doubt is sent again
//! with the same members and never mixed with fresh ones. No I/O, no clock: whoever drives it tells the time.
//! Above 500 lines because it is one state machine.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use adapters::{Call, Dialect, Fault, FaultCode, Finding, Reading, Slot, Target, TurnedAway};
use bytes::Bytes;

use super::Moment;
use super::backoff::{Backoff, asked_ms};
use super::doubt::{End, Ruling, Standing, give_up, rule};
use super::ended::{Ended, in_seconds};
use super::group::{Due, Group};
use super::outcome::{Retry, Run, Settled};
use super::shortcut::{Shortcut, taken};

/// Names one call in flight. Never used twice in a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How often and how long a share tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts for a contact, at least 1.
    pub max_attempts: u32,
    /// A contact in doubt that may be sent again is tried for so long, however many attempts that takes; not where one
    /// attempt is all.
    pub doubt_ms: u64,
    /// Waits between them.
    pub backoff: Backoff,
    /// When the share gives up what is not in flight, on the scale of [`Moment::ms`].
    pub deadline_ms: u64,
    /// Whether a refused credential can be renewed; a fixed token cannot.
    pub renewable: bool,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Put down the intent, then send this call.
    Send(Ticket, Arc<Call>),
    /// Nothing before this moment, which lies in the future, unless a call ends.
    Wait(u64),
    /// Nothing until a call in flight ends.
    Idle,
    /// Every contact is settled.
    Done,
}

/// How a call ended without a complete reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// Nothing left the gateway. `again` says whether another attempt can be of use.
    NotSent {
        /// Why.
        fault: Fault,
        /// Whether it may pass by itself.
        again: bool,
    },
    /// The upstream is being left alone for so many milliseconds; nothing left the gateway.
    CircuitOpen {
        /// Until it is tried again.
        wait_ms: u64,
    },
    /// It may have been carried out.
    MaybeSent(Fault),
}

/// What a reply told about the upstream as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signal {
    /// It did not work: an error of its own, or an answer that cannot be read.
    pub failing: bool,
    /// It did not accept the credential.
    pub credential_refused: bool,
    /// It asks to be left alone for so many milliseconds.
    pub hold_ms: Option<u64>,
}

/// What the ledger knows of a group of contacts that an earlier process left unsettled.
#[derive(Debug, Clone)]
pub struct Past {
    /// Its contacts.
    pub targets: Vec<Target>,
    /// Attempts that may have left the gateway.
    pub attempts: u32,
    /// Whether one of them may have been carried out.
    pub in_doubt: bool,
    /// Whether the last one's end is not known.
    pub in_flight: bool,
    /// How the last one ended, if that is known.
    pub last: Option<FaultCode>,
}

/// A call that ended: what the ledger must know of those of its contacts that wait for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// The call.
    pub ticket: Ticket,
    /// Attempts that count against the limit.
    pub attempts: u32,
    /// Whether what is left of it is in doubt.
    pub in_doubt: bool,
    /// How it ended, for what is left of it.
    pub last: Option<FaultCode>,
}

/// One share.
#[derive(Debug)]
pub struct Share {
    dialect: Arc<dyn Dialect>,
    policy: Policy,
    ready: VecDeque<Group>,
    waiting: BinaryHeap<Reverse<Due>>,
    flying: HashMap<Ticket, Group>,
    settled: Vec<Run>,
    closed: Vec<Closed>,
    next_ticket: u64,
    /// Whether a call of this share ever left: one that is under way waits for an open circuit, another does not.
    begun: bool,
    /// Nothing is sent before this moment: the upstream is being left alone.
    held_until_ms: u64,
    given_up: Option<FaultCode>,
}

impl Share {
    /// Plans a share's contacts; those that the dialect cannot send are settled at once.
    pub fn new(dialect: Arc<dyn Dialect>, policy: Policy, targets: Vec<Target>) -> Self {
        let mut share = Self::empty(dialect, policy);
        let fresh = share.groups(targets, 0, false, None);
        share.ready.extend(fresh);
        share
    }

    /// Takes up a share that another process left. Tickets start above `last_ticket`; a call whose end is not
    /// known may have been carried out.
    pub fn resume(
        dialect: Arc<dyn Dialect>,
        policy: Policy,
        fresh: Vec<Target>,
        past: Vec<Past>,
        last_ticket: u64,
        now: Moment,
        dice: &mut fastrand::Rng,
    ) -> Self {
        let mut share = Self::empty(dialect, policy);
        share.next_ticket = last_ticket + 1;
        for group in past {
            let lost = Fault::new(FaultCode::ConnectionLost);
            let in_flight = group.in_flight && !taken(Shortcut::RestartMeansNeverSent);
            let last = group.last.filter(|_| !in_flight).map(Fault::new);
            let last = last.or_else(|| (in_flight || group.in_doubt).then(|| lost.clone()));
            share.begun |= in_flight;
            for mut group in share.groups(group.targets, group.attempts, group.in_doubt, last) {
                // Since when is not put down.
                group.doubt_since_ms = (in_flight || group.in_doubt).then_some(now.ms);
                if in_flight {
                    share.end(group, &Ended::Doubtful(lost.clone()), now, dice);
                } else {
                    // For how long the upstream wanted to be left alone is not put down.
                    let wait_ms = share.policy.backoff.wait_ms(group.attempts, dice);
                    share.wait(group, now, wait_ms);
                }
            }
        }
        let fresh = share.groups(fresh, 0, false, None);
        share.ready.extend(fresh);
        share
    }

    fn empty(dialect: Arc<dyn Dialect>, policy: Policy) -> Self {
        Self {
            dialect,
            policy,
            ready: VecDeque::new(),
            waiting: BinaryHeap::new(),
            flying: HashMap::new(),
            settled: Vec::new(),
            closed: Vec::new(),
            next_ticket: 1,
            begun: false,
            held_until_ms: 0,
            given_up: None,
        }
    }

    /// Plans contacts. Those that the dialect does not send are settled: as refused, or as unknown if they are in doubt.
    fn groups(&mut self, targets: Vec<Target>, attempts: u32, in_doubt: bool, last: Option<Fault>) -> Vec<Group> {
        let plan = self.dialect.plan(targets);
        for (slot, fault) in plan.refused {
            let settled = match &last {
                Some(last) if in_doubt => {
                    Settled { sent: true, ..Settled::unknown(last, attempts, Retry::VerifyFirst) }
                }
                _ => Settled::refused_here(&fault),
            };
            self.settled.push(Run::one(slot, settled));
        }
        let group = |call| Group {
            call: Arc::new(call),
            attempts,
            tries: attempts,
            in_doubt,
            doubt_since_ms: None,
            refusals: 0,
            renewed: false,
            sent: attempts > 0,
            last: last.clone(),
        };
        plan.calls.into_iter().map(group).collect()
    }

    /// What to do at this moment.
    pub fn poll(&mut self, now: Moment) -> Step {
        if self.given_up.is_none() && now.ms >= self.policy.deadline_ms {
            self.give_up(FaultCode::DeadlineExceeded);
        }
        while self.waiting.peek().is_some_and(|due| due.0.ms <= now.ms) {
            if let Some(Reverse(due)) = self.waiting.pop() {
                self.ready.push_back(due.group);
            }
        }
        if now.ms < self.held_until_ms && !self.ready.is_empty() {
            return Step::Wait(self.held_until_ms.min(self.policy.deadline_ms));
        }
        if let Some(mut group) = self.ready.pop_front() {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            group.attempts += 1;
            group.tries += 1;
            let call = Arc::clone(&group.call);
            self.flying.insert(ticket, group);
            return Step::Send(ticket, call);
        }
        match self.waiting.peek() {
            Some(due) => Step::Wait(due.0.ms.min(self.policy.deadline_ms)),
            None if self.flying.is_empty() => Step::Done,
            None => Step::Idle,
        }
    }

    /// The attempt's number and what was in doubt before it, for the intent.
    pub fn attempt(&self, ticket: Ticket) -> Option<(u32, bool)> {
        self.flying.get(&ticket).map(|group| (group.attempts, group.in_doubt))
    }

    /// A complete reply to a call. One for a ticket that is not in flight changes nothing.
    pub fn on_reply(
        &mut self,
        ticket: Ticket,
        reply: &http::Response<Bytes>,
        now: Moment,
        dice: &mut fastrand::Rng,
    ) -> Signal {
        let Some(mut group) = self.land(ticket) else { return Signal::default() };
        self.begun = true;
        group.sent = true;
        let mut signal = Signal::default();
        let mut throttled = false;
        let ended = match self.dialect.interpret(&group.call, reply) {
            Reading::Processed(processed) => Ended::Processed(processed),
            Reading::TurnedAway(TurnedAway::Credential(fault)) => {
                signal.credential_refused = true;
                // An upstream that refuses every call is to be left alone as one that fails.
                signal.failing = true;
                Ended::Credential(fault)
            }
            Reading::TurnedAway(TurnedAway::Throttled(fault)) => {
                throttled = true;
                Ended::TurnedAway(in_seconds(fault, now))
            }
            Reading::TurnedAway(TurnedAway::Fault(fault)) => {
                signal.failing = fault.code == FaultCode::UpstreamUnavailable;
                Ended::TurnedAway(in_seconds(fault, now))
            }
            Reading::Unreadable(fault) => {
                signal.failing = fault.code != FaultCode::AcceptedUnconfirmed;
                Ended::Doubtful(in_seconds(fault, now))
            }
        };
        let wait_ms = self.end(group, &ended, now, dice);
        // Who is told to slow down slows down as a whole, also where the upstream does not say for how long; so does who is
        // told when to come back.
        let asked = !signal.credential_refused && ended.fault().is_some_and(|fault| fault.wait.is_some());
        signal.hold_ms = (throttled || asked).then_some(wait_ms);
        signal
    }

    /// A call that ended without a complete reply.
    pub fn on_lost(&mut self, ticket: Ticket, lost: Lost, now: Moment, dice: &mut fastrand::Rng) {
        let Some(mut group) = self.land(ticket) else { return };
        match lost {
            Lost::MaybeSent(fault) => {
                self.begun = true;
                group.sent = true;
                self.end(group, &Ended::Doubtful(fault), now, dice);
            }
            Lost::NotSent { fault, .. } if matches!(fault.code, FaultCode::DeadlineExceeded | FaultCode::Cancelled) => {
                group.attempts = group.attempts.saturating_sub(1);
                self.closed.pop();
                self.settle_given_up(&group, fault.code);
            }
            Lost::NotSent { fault, again } => {
                // "No credential" would say less than the upstream, which refused the one it was shown.
                let refused = group.last.take_if(|last| last.code == FaultCode::UpstreamUnauthenticated);
                let fault = match (fault.code, refused) {
                    (FaultCode::CredentialUnavailable, Some(refused)) => Fault { wait: fault.wait, ..refused },
                    _ => fault,
                };
                if group.in_doubt {
                    // What never left can neither end the doubt nor add to it.
                    group.attempts = group.attempts.saturating_sub(1);
                    self.close(|closed| closed.attempts = group.attempts);
                }
                self.end(group, &Ended::NotSent { fault: in_seconds(fault, now), again }, now, dice);
            }
            Lost::CircuitOpen { wait_ms } => {
                // Nothing was tried, so it is no attempt, and the ledger knows of no call that could have ended.
                group.attempts = group.attempts.saturating_sub(1);
                group.tries = group.tries.saturating_sub(1);
                self.closed.pop();
                if let Some(why) = self.given_up {
                    self.settle_given_up(&group, why);
                } else if self.begun || group.attempts > 0 || group.in_doubt {
                    // The whole share waits, not each of its calls by itself.
                    self.held_until_ms = now.ms.saturating_add(wait_ms.max(1));
                    // What was never tried stays ahead of what was: a retry may have to wait for leave that first
                    // attempts do not need.
                    if group.attempts > 0 { self.ready.push_back(group) } else { self.ready.push_front(group) }
                } else {
                    let settled = give_up(false, 0, true, None, FaultCode::CircuitOpen);
                    self.settle_all(&group, &settled);
                }
            }
        }
    }

    /// Sends nothing more: what was never sent is skipped, what is in doubt is unknown, what is in flight gets its true outcome.
    pub fn cancel(&mut self) {
        self.give_up(FaultCode::Cancelled);
    }

    /// Nothing more is sent here, and whoever goes on sends elsewhere: what is in doubt is unknown, since it cannot be asked for
    /// again. What was not deleted for sure stays open. To be said again after each call that ends.
    pub fn leave(&mut self) {
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|due| due.0.group);
        for group in waiting.chain(std::mem::take(&mut self.ready)).collect::<Vec<_>>() {
            if !group.in_doubt {
                self.ready.push_back(group);
                continue;
            }
            let lost = Fault::new(FaultCode::ConnectionLost);
            let settled = Settled::unknown(group.last.as_ref().unwrap_or(&lost), group.attempts, Retry::VerifyFirst);
            self.settle_all(&group, &Settled { sent: true, ..settled });
        }
    }

    /// A call that was not sent after all: its contacts stand as they stood, and the ledger knows nothing of it.
    pub fn take_back(&mut self, ticket: Ticket) {
        let Some(mut group) = self.flying.remove(&ticket) else { return };
        group.attempts = group.attempts.saturating_sub(1);
        match self.given_up {
            Some(why) => self.settle_given_up(&group, why),
            None => self.ready.push_front(group),
        }
    }

    /// Whether every contact is settled.
    pub fn is_over(&self) -> bool {
        self.flying.is_empty() && self.waiting.is_empty() && self.ready.is_empty()
    }

    /// The results since the last time this was asked.
    pub fn take_settled(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.settled)
    }

    /// The calls that ended since the last time this was asked.
    pub fn take_closed(&mut self) -> Vec<Closed> {
        std::mem::take(&mut self.closed)
    }

    /// Takes a call out of flight. Until its contacts are ruled on, what is left of it stands as it was.
    fn land(&mut self, ticket: Ticket) -> Option<Group> {
        let group = self.flying.remove(&ticket)?;
        let last = group.last.as_ref().map(|fault| fault.code);
        self.closed.push(Closed { ticket, attempts: group.attempts, in_doubt: group.in_doubt, last });
        Some(group)
    }

    fn close(&mut self, change: impl FnOnce(&mut Closed)) {
        if let Some(closed) = self.closed.last_mut() {
            change(closed);
        }
    }

    fn give_up(&mut self, why: FaultCode) {
        self.given_up = Some(why);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|due| due.0.group);
        let groups: Vec<_> = waiting.chain(std::mem::take(&mut self.ready)).collect();
        for group in groups {
            self.settle_given_up(&group, why);
        }
    }

    fn settle_given_up(&mut self, group: &Group, why: FaultCode) {
        for target in &group.call.targets {
            let safe = self.replay_safe(target);
            let settled = give_up(group.in_doubt, group.attempts, safe, group.last.as_ref(), why);
            self.settle(target.slot, Settled { sent: group.sent, ..settled });
        }
    }

    fn settle_all(&mut self, group: &Group, settled: &Settled) {
        group.call.targets.iter().for_each(|target| self.settle(target.slot, settled.clone()));
    }

    fn settle(&mut self, slot: Slot, settled: Settled) {
        match self.settled.last_mut() {
            Some(run) if run.ends_before(slot) && run.settled == settled => run.contacts += 1,
            _ => self.settled.push(Run::one(slot, settled)),
        }
    }

    fn replay_safe(&self, target: &Target) -> bool {
        let kind = target.identifier.kind();
        self.dialect.profile().identifiers.iter().any(|rule| rule.kind == kind && rule.replay_safe)
    }

    /// Rules on every contact of a call that ended, and plans those again that are left. Returns for how many
    /// milliseconds nothing like it should be sent.
    fn end(&mut self, group: Group, ended: &Ended, now: Moment, dice: &mut fastrand::Rng) -> u64 {
        let asked = ended.fault().and_then(|fault| fault.wait).map(|wait| asked_ms(wait, now));
        let renew = matches!(ended, Ended::Credential(_)) && self.policy.renewable && !group.renewed;
        let wait_ms = match asked {
            _ if renew => 0,
            // A little more than asked: clocks differ, and one millisecond early is another refusal.
            Some(asked) => asked + dice.u64(0..=self.policy.backoff.base_ms),
            None => self.policy.backoff.wait_ms(group.tries, dice),
        };
        let can_pass = match ended {
            Ended::Credential(_) => renew,
            Ended::NotSent { again, .. } => *again,
            _ => true,
        };
        let in_time = now.ms.saturating_add(wait_ms) < self.policy.deadline_ms;
        let open = in_time && self.given_up.is_none();
        let may_try_again = open && can_pass && group.attempts < self.policy.max_attempts;
        // A refused credential says nothing of the contact, and somebody may mend it.
        let can_persist = can_pass || matches!(ended, Ended::Credential(_));
        let may_persist = open && can_persist && group.may_persist(&self.policy, ended, now);

        let mut left_over = Vec::new();
        let mut in_doubt = group.in_doubt;
        let mut last = ended.fault().cloned();
        // How it ended for the contact before, if that is settled: most contacts of a call end alike, and are not ruled on
        // one by one.
        let mut before = None;
        for (position, target) in group.call.targets.iter().enumerate() {
            let alike = (target.identifier.kind(), ended.end(position));
            if before == Some(alike)
                && let Some(run) = self.settled.last_mut()
                && run.ends_before(target.slot)
            {
                run.contacts += 1;
                continue;
            }
            let replay_safe = self.replay_safe(target);
            let standing = Standing {
                in_doubt: group.in_doubt,
                attempts: group.attempts,
                replay_safe,
                may_try_again,
                may_persist,
            };
            before = None;
            match rule(standing, ended.end(position)) {
                Ruling::Settle(settled) => {
                    self.settle(target.slot, Settled { sent: group.sent, ..settled });
                    before = Some(alike);
                }
                Ruling::Again { in_doubt: now_in_doubt } => {
                    in_doubt |= now_in_doubt;
                    if let End::Found(Finding::Fault(fault)) = ended.end(position) {
                        last = Some(fault.clone());
                    }
                    left_over.push(target.clone());
                }
            }
        }
        if left_over.is_empty() {
            return wait_ms;
        }
        self.close(|closed| {
            closed.in_doubt = in_doubt;
            closed.last = last.as_ref().map(|fault| fault.code);
        });
        for mut again in self.groups(left_over, group.attempts, in_doubt, last) {
            again.renewed = group.renewed || renew;
            again.sent = group.sent;
            again.tries = group.tries;
            again.doubt_since_ms = group.doubt_since_ms.or(in_doubt.then_some(now.ms));
            again.refusals = if ended.is_refusal() { group.refusals + 1 } else { 0 };
            self.wait(again, now, wait_ms);
        }
        wait_ms
    }

    fn wait(&mut self, group: Group, now: Moment, wait_ms: u64) {
        if let Some(why) = self.given_up {
            self.settle_given_up(&group, why);
            return;
        }
        let order = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push(Reverse(Due { ms: now.ms.saturating_add(wait_ms), order, group }));
    }
}

/// What contacts are worth whose dialect is no longer there: nothing is sent for them, and nothing is believed.
pub(crate) fn settle_without_a_dialect(fresh: &[Target], past: &[Past], why: FaultCode) -> Vec<Run> {
    let fresh = fresh.iter().map(|target| Run::one(target.slot, give_up(false, 0, false, None, why)));
    let past = past.iter().flat_map(|group| {
        let last = group.last.map(Fault::new);
        let settled = give_up(group.in_doubt || group.in_flight, group.attempts, false, last.as_ref(), why);
        group.targets.iter().map(move |target| Run::one(target.slot, Settled { sent: true, ..settled.clone() }))
    });
    fresh.chain(past).collect()
}
