//! A connection's pace: no more calls than the vendor allows, and none while the upstream asks to be left alone.
//!
//! Callers pass one after the other, in the order in which they came. The counting is governor's.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adapters::Pace as Rate;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::clock;

pub(super) struct Pace {
    limiter: Option<DefaultDirectRateLimiter>,
    /// Until when the upstream asked to be left alone, in the clock's milliseconds.
    hold_until_ms: AtomicU64,
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pace({})", if self.limiter.is_some() { "limited" } else { "off" })
    }
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        let limiter = rate.and_then(quota).map(RateLimiter::direct);
        Self { limiter, hold_until_ms: AtomicU64::new(0), turn: tokio::sync::Mutex::new(()) }
    }

    /// Returns when a call may go out.
    pub(super) async fn pass(&self) {
        let held = self.hold_until_ms.load(Ordering::Relaxed) > clock::now().ms;
        if self.limiter.is_none() && !held {
            return;
        }
        let _turn = self.turn.lock().await;
        loop {
            let until = self.hold_until_ms.load(Ordering::Relaxed);
            if until <= clock::now().ms {
                break;
            }
            match clock::instant(until) {
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            }
        }
        let Some(limiter) = &self.limiter else { return };
        while let Err(early) = limiter.check() {
            let wait = early.wait_time_from(DefaultClock::default().now());
            // A timer is exact to the millisecond only; a little later spares a second round.
            tokio::time::sleep(wait + Duration::from_millis(1)).await;
        }
    }

    /// The upstream asks to be left alone for so long.
    pub(super) fn hold(&self, ms: u64) {
        self.hold_until_ms.fetch_max(clock::now().ms.saturating_add(ms), Ordering::Relaxed);
    }
}

/// A quota that lets at most `calls` pass in *any* window of `per_s` seconds: a tenth at once, the others evenly over it.
/// A bucket of the whole size would let nearly twice as many pass around the end of a vendor's window.
fn quota(rate: Rate) -> Option<Quota> {
    let burst = NonZeroU32::new((rate.calls / 10).max(1))?;
    let evenly = rate.calls.saturating_sub(burst.get()).max(1);
    let period = Duration::from_secs(u64::from(rate.per_s)) / evenly;
    Some(Quota::with_period(period)?.allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn no_window_sees_more_than_the_vendor_allows() {
        for (calls, per_s) in [(60, 60), (5_000, 3_600), (2, 1), (1, 10)] {
            let clock = FakeRelativeClock::default();
            let limiter = RateLimiter::direct_with_clock(quota(Rate { calls, per_s }).unwrap(), clock.clone());
            let step = Duration::from_secs(u64::from(per_s)) / (calls * 3);
            let mut passed = std::collections::VecDeque::new();
            let mut most = 0;
            for n in 0..calls * 12 {
                let now = step * n;
                while limiter.check().is_ok() {
                    passed.push_back(now);
                }
                while passed.front().is_some_and(|first| *first + Duration::from_secs(u64::from(per_s)) <= now) {
                    passed.pop_front();
                }
                most = most.max(passed.len());
                clock.advance(step);
            }
            let allowed = (calls as usize).max(2);
            assert!(most <= allowed, "{calls}/{per_s}s: {most} in a window");
            assert!(most * 10 >= allowed * 8 || calls < 10, "{calls}/{per_s}s: only {most} in a window");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_keeps_everybody_back() {
        let pace = Pace::new(None);
        let start = tokio::time::Instant::now();
        pace.pass().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.hold(5_000);
        pace.hold(1_000);
        pace.pass().await;
        assert!(start.elapsed() >= Duration::from_millis(4_999), "{:?}", start.elapsed());
    }
}
