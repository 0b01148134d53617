//! A connection's pace: no more calls than the vendor allows, and none while the upstream asks to be left alone.
//!
//! Callers pass one after the other, in the order in which they came. The counting is governor's, or, where several
//! gateways call the same connections, that of whoever they share it with.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adapters::Pace as Rate;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock;
use crate::tenants::Connection;

/// Turns that gateways share. Whatever it does, it must not answer for long.
pub trait SharedPace: Send + Sync {
    /// Reserves a connection's next turn, which come so far apart, but so many at once after a rest: how long to wait for
    /// it, or `None` if that cannot be said now.
    fn turn(&self, of: &Connection, every: Duration, burst: u32) -> Turn<'_>;

    /// Lets nobody's turn at a connection come before so long from now. It does not wait until that is known everywhere.
    fn hold(&self, of: &Connection, hold: Duration);
}

/// How long to wait for a turn.
pub type Turn<'a> = Pin<Box<dyn Future<Output = Option<Duration>> + Send + 'a>>;

/// Where turns cannot be had for a moment.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Pace {
    counter: Counter,
    /// Until when the upstream asked to be left alone, in the clock's milliseconds.
    hold_until_ms: AtomicU64,
    turn: tokio::sync::Mutex<()>,
}

enum Counter {
    /// As many as there are.
    Off,
    /// This process alone.
    Own(RateLimiter<NotKeyed, InMemoryState, Steady, NoOpMiddleware<Duration>>),
    /// All gateways together; without a rate, they only tell each other to hold.
    Shared { shared: Arc<dyn SharedPace>, connection: Arc<Connection>, shape: Option<(Duration, NonZeroU32)> },
}

/// The gateway's own clock, as governor reads it.
#[derive(Debug, Clone, Copy)]
struct Steady;

impl Clock for Steady {
    type Instant = Duration;

    fn now(&self) -> Duration {
        clock::elapsed()
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.counter {
            Counter::Off => "Pace(off)",
            Counter::Own(_) => "Pace(limited)",
            Counter::Shared { .. } => "Pace(shared)",
        })
    }
}

impl Pace {
    pub(super) fn new(connection: &Arc<Connection>, shared: Option<&Arc<dyn SharedPace>>) -> Self {
        let rate = connection.limits.rate;
        match shared {
            None => Self::own(rate),
            Some(shared) => {
                let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
                Self::counted_by(Counter::Shared { shared, connection, shape: rate.and_then(shape) })
            }
        }
    }

    fn own(rate: Option<Rate>) -> Self {
        let limiter = rate.and_then(quota).map(|quota| RateLimiter::direct_with_clock(quota, Steady));
        Self::counted_by(limiter.map_or(Counter::Off, Counter::Own))
    }

    fn counted_by(counter: Counter) -> Self {
        Self { counter, hold_until_ms: AtomicU64::new(0), turn: tokio::sync::Mutex::new(()) }
    }

    /// Returns when a call may go out. Nobody else's turn comes before what this returns is dropped: a call that still
    /// waits for something must not be followed by others whose turns come meanwhile, or they all go out at once.
    pub(super) async fn pass(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let unpaced = matches!(self.counter, Counter::Off | Counter::Shared { shape: None, .. });
        if unpaced && !self.is_held() {
            return None;
        }
        let turn = self.turn.lock().await;
        self.wait_out().await;
        match &self.counter {
            Counter::Off | Counter::Shared { shape: None, .. } => {}
            Counter::Own(limiter) => {
                while let Err(early) = limiter.check() {
                    let wait = early.wait_time_from(Steady.now());
                    // A timer is exact to the millisecond only; a little later spares a second round.
                    tokio::time::sleep(wait + Duration::from_millis(1)).await;
                }
                // Somebody may have been told to slow down meanwhile. Nobody passes before this one.
                self.wait_out().await;
            }
            Counter::Shared { shared, connection, shape: Some((every, burst)) } => {
                loop {
                    match shared.turn(connection, *every, burst.get()).await {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => {
                            tokio::time::sleep(ASK_AGAIN).await;
                            continue;
                        }
                    }
                    if !self.is_held() {
                        break;
                    }
                    // Somebody was told to slow down meanwhile. Afterwards, the turn is another's time.
                    self.wait_out().await;
                }
            }
        }
        // Where there is no pace, whoever was held back goes on at once.
        (!unpaced).then_some(turn)
    }

    /// Whether the upstream asked to be left alone, for longer than this moment.
    pub(super) fn is_held(&self) -> bool {
        self.hold_until_ms.load(Ordering::Relaxed) > clock::ms()
    }

    /// For how many milliseconds more the upstream is to be left alone.
    pub(super) fn held_ms(&self) -> u64 {
        self.hold_until_ms.load(Ordering::Relaxed).saturating_sub(clock::now().ms)
    }

    /// Waits while the upstream is to be left alone.
    async fn wait_out(&self) {
        loop {
            let until = self.hold_until_ms.load(Ordering::Relaxed);
            if until <= clock::ms() {
                return;
            }
            match clock::instant(until) {
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The upstream asks to be left alone for so long. Returns until when it was to be left alone before, in the clock's
    /// milliseconds.
    pub(super) fn hold(&self, ms: u64) -> u64 {
        let before_ms = self.hold_until_ms.fetch_max(clock::ms().saturating_add(ms), Ordering::Relaxed);
        if let Counter::Shared { shared, connection, .. } = &self.counter {
            shared.hold(connection, Duration::from_millis(ms));
        }
        before_ms
    }
}

/// How far apart calls are, and how many may come at once, so that at most `calls` pass in *any* window of `per_s`
/// seconds: a tenth at once, the others evenly over it. A bucket of the whole size would let nearly twice as many pass
/// around the end of a vendor's window.
fn shape(rate: Rate) -> Option<(Duration, NonZeroU32)> {
    let burst = NonZeroU32::new((rate.calls / 10).max(1))?;
    let evenly = rate.calls.saturating_sub(burst.get()).max(1);
    Some((Duration::from_secs(u64::from(rate.per_s)) / evenly, burst))
}

fn quota(rate: Rate) -> Option<Quota> {
    let (every, burst) = shape(rate)?;
    Some(Quota::with_period(every)?.allow_burst(burst))
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
        let pace = Pace::own(None);
        let start = tokio::time::Instant::now();
        pace.pass().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.hold(5_000);
        pace.hold(1_000);
        pace.pass().await;
        assert!(start.elapsed() >= Duration::from_millis(4_999), "{:?}", start.elapsed());
    }
}
