//! A connection's retry budget: in any minute, no more retries than a part of the first attempts, or than a small floor;
//! and spread over it, so that they never make up more than about half of what goes out in a second.
//!
//! A retry that has no leave waits for it, in the order in which they came; a first attempt never does. It decides
//! nothing about a contact: how often and for how long one is tried is the engine's matter. `Count` is a pure value, and
//! the time is an argument to it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock;
use crate::telemetry::CallMetrics;

/// The window that slides, in seconds.
const WINDOW_S: u64 = 60;
/// From so many percent on there is no budget.
const UNLIMITED_PERCENT: u32 = 100;

/// How many retries a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BudgetRules {
    /// For each 100 first attempts in a minute; 100 is no budget.
    pub(super) percent: u32,
    /// In a minute, however few first attempts there are; at least 1, or what is tried again could wait for ever.
    pub(super) floor: u32,
}

/// One connection's budget.
#[derive(Debug)]
pub(super) struct Budget {
    rules: BudgetRules,
    count: Mutex<Count>,
    /// Held by the retry that is the next to go.
    turn: tokio::sync::Mutex<()>,
    /// Told when there may be leave for it earlier than time alone gives it.
    more: Notify,
}

/// Leave for one retry. Dropped before it was used, it goes back.
pub(super) struct RetryLeave<'b> {
    budget: &'b Budget,
    /// The second that it counts in; `None` where there is no budget, or it was used.
    second: Option<u64>,
}

impl Budget {
    pub(super) fn new(rules: BudgetRules) -> Self {
        let count = Mutex::new(Count::new(rules));
        Self { rules, count, turn: tokio::sync::Mutex::new(()), more: Notify::new() }
    }

    /// A first attempt goes out.
    pub(super) fn first_attempt(&self) {
        if !self.is_off() {
            self.count().first_attempt(clock::ms());
            self.more.notify_one();
        }
    }

    /// Waits until a retry may go out.
    pub(super) async fn leave(&self, metrics: &CallMetrics) -> RetryLeave<'_> {
        if self.is_off() {
            return RetryLeave { budget: self, second: None };
        }
        let mut waiting = None;
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                waiting = Some(metrics.retry_waits());
                self.turn.lock().await
            }
        };
        loop {
            let taken = self.count().take(clock::ms());
            match taken {
                Ok(second) => return RetryLeave { budget: self, second: Some(second) },
                Err(wait_ms) => {
                    waiting.get_or_insert_with(|| metrics.retry_waits());
                    let time = tokio::time::sleep(Duration::from_millis(wait_ms));
                    tokio::select! {
                        biased;
                        () = self.more.notified() => {}
                        () = time => {}
                    }
                }
            }
        }
    }

    fn is_off(&self) -> bool {
        self.rules.percent >= UNLIMITED_PERCENT
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RetryLeave<'_> {
    /// The retry goes out.
    pub(super) fn used(mut self) {
        self.second = None;
    }
}

impl Drop for RetryLeave<'_> {
    fn drop(&mut self) {
        if let Some(second) = self.second {
            self.budget.count().give_back(second);
            self.budget.more.notify_one();
        }
    }
}

/// What went out in the last minute, second by second.
#[derive(Debug)]
struct Count {
    rules: BudgetRules,
    firsts: Tally,
    retries: Tally,
}

impl Count {
    fn new(rules: BudgetRules) -> Self {
        // A retry counts for a second longer: a minute may begin and end in the middle of one.
        Self { rules, firsts: Tally::over(WINDOW_S), retries: Tally::over(WINDOW_S + 1) }
    }

    fn first_attempt(&mut self, now_ms: u64) {
        self.firsts.add(now_ms / 1_000);
    }

    /// Takes leave for a retry and says in which second it counts, or for how many milliseconds time alone gives none.
    fn take(&mut self, now_ms: u64) -> Result<u64, u64> {
        let second = now_ms / 1_000;
        self.firsts.forget_before(second);
        self.retries.forget_before(second);
        let part = self.firsts.sum * u64::from(self.rules.percent) / 100;
        let most = part.max(self.rules.floor.into());
        if self.retries.sum < most {
            // Two seconds in a row with half of the usual number each, for what begins in the middle of one.
            let most_at_once = (self.firsts.sum / (2 * WINDOW_S)).max(most.div_ceil(WINDOW_S));
            if self.retries.latest(second) < most_at_once {
                self.retries.add(second);
                return Ok(second);
            }
            return Err((second + 1) * 1_000 - now_ms);
        }
        // First attempts that grow old meanwhile can only take leave away.
        let oldest = self.retries.seconds.front().map_or(second, |(second, _)| *second);
        let free_ms = (oldest + self.retries.length_s) * 1_000;
        Err(free_ms.saturating_sub(now_ms).max(1))
    }

    fn give_back(&mut self, second: u64) {
        self.retries.take_away(second);
    }
}

/// Numbers of the last so many seconds; those with none are left out.
#[derive(Debug)]
struct Tally {
    length_s: u64,
    seconds: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Tally {
    fn over(length_s: u64) -> Self {
        Self { length_s, seconds: VecDeque::new(), sum: 0 }
    }

    fn add(&mut self, second: u64) {
        self.forget_before(second);
        self.sum += 1;
        match self.seconds.back_mut() {
            // Two clocks that are read side by side can be a moment apart.
            Some((last, n)) if *last >= second => *n += 1,
            _ => self.seconds.push_back((second, 1)),
        }
    }

    /// How many there are in the latest second, if that is this one.
    fn latest(&self, second: u64) -> u64 {
        self.seconds.back().filter(|(last, _)| *last >= second).map_or(0, |(_, n)| *n)
    }

    fn take_away(&mut self, second: u64) {
        if let Some((_, n)) = self.seconds.iter_mut().find(|(at, n)| *at == second && *n > 0) {
            *n -= 1;
            self.sum -= 1;
        }
    }

    /// Leaves out what has left the window that ends with this second.
    fn forget_before(&mut self, second: u64) {
        while let Some((at, n)) = self.seconds.front()
            && (*n == 0 || at + self.length_s <= second)
        {
            self.sum -= n;
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(percent: u32, floor: u32) -> Count {
        Count::new(BudgetRules { percent, floor })
    }

    /// Retries that have leave within so many seconds from the beginning of this one.
    fn taken(count: &mut Count, from_s: u64, seconds: u64) -> usize {
        (from_s..from_s + seconds).map(|s| std::iter::from_fn(|| count.take(s * 1_000).ok()).count()).sum()
    }

    #[test]
    fn a_fifth_of_the_first_attempts_or_the_floor() {
        let mut count = count(20, 10);
        assert_eq!(taken(&mut count, 0, 20), 10, "the floor");
        (0..50).for_each(|_| count.first_attempt(20_000));
        assert_eq!(taken(&mut count, 20, 10), 0, "a fifth of 50 is the floor, and not beside it");
        (0..50).for_each(|_| count.first_attempt(30_000));
        assert_eq!(taken(&mut count, 30, 20), 10, "a fifth of 100, less what was taken");
        assert_eq!(taken(&mut count, 61, 9), 9, "those of the first seconds are over, one by one");
    }

    #[test]
    fn they_are_spread_over_the_minute() {
        let mut count = count(20, 10);
        (0..1_200).for_each(|n| count.first_attempt(n * 50));
        for second in 60..84 {
            (0..20).for_each(|_| count.first_attempt(second * 1_000));
            assert_eq!(taken(&mut count, second, 1), 10, "{second}: half of the 20 that are usual in a second");
        }
        assert_eq!(taken(&mut count, 84, 1), 0, "a fifth of the 1,200 of a minute");
    }

    #[test]
    fn who_has_no_leave_is_told_when_time_gives_it() {
        let mut count = count(0, 2);
        assert_eq!((count.take(500), count.take(700)), (Ok(0), Err(300)), "spread over the minute");
        assert_eq!(count.take(30_000), Ok(30));
        assert_eq!(count.take(30_000), Err(31_000), "a minute after the first, and the second that it was in");
        assert_eq!(count.take(60_999), Err(1));
        assert_eq!(count.take(61_000), Ok(61));
        assert_eq!(count.take(61_000), Err(30_000));
    }

    #[test]
    fn leave_that_was_not_used_goes_back() {
        let mut count = count(20, 1);
        let second = count.take(0).unwrap();
        assert!(count.take(0).is_err());
        count.give_back(second);
        assert_eq!(count.take(7_000), Ok(7));
        // Long gone: nothing to give back.
        count.give_back(second);
        assert!(count.take(7_000).is_err());
        assert_eq!(count.take(68_000), Ok(68));
        count.give_back(7);
        assert!(count.take(68_000).is_err());
    }

    #[test]
    fn no_minute_has_more_retries_than_it_may() {
        for (percent, floor) in [(0, 1), (20, 10), (50, 3), (99, 1)] {
            let (mut count, mut dice) = (count(percent, floor), fastrand::Rng::with_seed(7));
            let (mut firsts, mut retries) = (Vec::new(), Vec::new());
            let mut now_ms = 0;
            for _ in 0..20_000 {
                now_ms += dice.u64(0..200);
                if dice.u32(0..3) == 0 {
                    count.first_attempt(now_ms);
                    firsts.push(now_ms);
                } else if count.take(now_ms).is_ok() {
                    let since = now_ms.saturating_sub(60_000);
                    let within = |times: &[u64]| times.iter().rev().take_while(|at| **at > since).count() as u64;
                    retries.push(now_ms);
                    let most = (within(&firsts) * u64::from(percent) / 100).max(u64::from(floor));
                    assert!(within(&retries) <= most, "{percent} % and {floor}, at {now_ms}");
                }
            }
            assert!(
                retries.len() as u64 >= u64::from(floor) * (now_ms / 62_000),
                "{percent} % and {floor}: it gives none"
            );
        }
    }
}
