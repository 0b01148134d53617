//! The last hour in memory, minute by minute: what became of contacts, and how long calls took.
//!
//! It has a fixed size, is forgotten with the process, and knows neither tenants nor connections: Prometheus has those.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adapters::Outcome;

use super::BUCKETS;
use crate::clock;

/// How many minutes there are; the last of them is the one that runs.
pub const MINUTES: usize = 60;

/// One minute.
#[derive(Debug, Clone, Copy)]
pub struct Minute {
    /// Contacts settled with each outcome, at its place in [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Calls that were answered or lost, by the first bound of [`bounds`] that they did not exceed; the last place has the
    /// longest.
    pub calls: [u64; BUCKETS.len() + 1],
    /// Calls that were lost on their way.
    pub lost: u64,
}

/// The bounds that calls are told apart by, in seconds.
pub fn bounds() -> &'static [f64] {
    BUCKETS
}

const NOTHING: Minute = Minute { outcomes: [0; Outcome::ALL.len()], calls: [0; BUCKETS.len() + 1], lost: 0 };

/// Minutes since the process began, and what was counted in them.
static RING: Mutex<[(u64, Minute); MINUTES]> = Mutex::new([(0, NOTHING); MINUTES]);

/// Counts contacts that were settled.
pub(super) fn settled(outcome: Outcome, contacts: u64) {
    count(|minute| minute.outcomes[outcome as usize] += contacts);
}

/// Counts a call that came to its end.
pub(super) fn call(took: Duration, lost: bool) {
    let seconds = took.as_secs_f64();
    let place = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
    count(|minute| {
        minute.calls[place] += 1;
        minute.lost += u64::from(lost);
    });
}

/// The last hour, its oldest minute first.
pub fn last_hour() -> Vec<Minute> {
    let (now, ring) = (this_minute(), ring());
    let of = |minute: Option<u64>| match minute.map(|minute| (minute, ring[place(minute)])) {
        Some((wanted, (minute, counted))) if minute == wanted => counted,
        _ => NOTHING,
    };
    (0..MINUTES as u64).rev().map(|ago| of(now.checked_sub(ago))).collect()
}

impl Minute {
    /// What was counted in all of these minutes.
    pub fn sum(minutes: &[Self]) -> Self {
        let mut sum = NOTHING;
        for minute in minutes {
            sum.outcomes.iter_mut().zip(minute.outcomes).for_each(|(all, some)| *all += some);
            sum.calls.iter_mut().zip(minute.calls).for_each(|(all, some)| *all += some);
            sum.lost += minute.lost;
        }
        sum
    }

    /// The place in [`Minute::calls`] up to which so many percent of the calls lie; `None` if there were no calls.
    pub fn percentile(&self, percent: u64) -> Option<usize> {
        let all: u64 = self.calls.iter().sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut so_far = 0;
        self.calls.iter().position(|calls| {
            so_far += calls;
            so_far >= wanted
        })
    }
}

fn count(add: impl FnOnce(&mut Minute)) {
    let minute = this_minute();
    let mut ring = ring();
    let slot = &mut ring[place(minute)];
    if slot.0 != minute {
        *slot = (minute, NOTHING);
    }
    add(&mut slot.1);
}

fn place(minute: u64) -> usize {
    minute as usize % MINUTES
}

fn this_minute() -> u64 {
    clock::elapsed().as_secs() / 60
}

fn ring() -> MutexGuard<'static, [(u64, Minute); MINUTES]> {
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_that_so_many_calls_keep() {
        let mut minute = NOTHING;
        assert_eq!(minute.percentile(50), None);
        minute.calls[2] = 10;
        assert_eq!((minute.percentile(50), minute.percentile(95)), (Some(2), Some(2)));
        minute.calls[BUCKETS.len()] = 1;
        assert_eq!((minute.percentile(50), minute.percentile(95)), (Some(2), Some(BUCKETS.len())));
        assert_eq!(Minute::sum(&[minute, minute]).calls[2], 20);
    }

    #[test]
    fn what_is_counted_stands_in_this_minute() {
        let before = Minute::sum(&last_hour());
        call(Duration::from_millis(7), true);
        settled(Outcome::Unknown, 3);
        let hour = last_hour();
        let after = Minute::sum(&hour);
        assert_eq!(hour.len(), MINUTES);
        // Other tests count here too.
        assert!(after.outcomes[Outcome::Unknown as usize] >= before.outcomes[Outcome::Unknown as usize] + 3);
        assert!(after.calls[3] > before.calls[3] && after.lost > before.lost);
    }
}
