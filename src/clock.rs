//! The one place that reads the time. Everything else is told it.
//!
//! A simulation sets it for the threads that it runs on; nothing else does.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::engine::Moment;

/// Long before anything: where tests run in virtual time, one runtime's clock is behind another's.
static START: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(3_600)).unwrap_or(now)
});

thread_local! {
    static SIMULATED: Cell<Option<Simulated>> = const { Cell::new(None) };
}

/// The time of a simulation, on one thread.
#[derive(Debug, Clone, Copy)]
struct Simulated {
    /// The instant from which everything counts.
    start: Instant,
    /// What a clock on the wall showed then, as far as anybody can tell now.
    unix_ms: i64,
}

/// Lets everything count from this instant, on this thread and until it is set again; a clock on the wall showed so many
/// milliseconds since 1970-01-01 UTC then. Called again with another time and the same instant, that clock jumps.
#[doc(hidden)]
pub fn simulate(start: Instant, unix_ms: i64) {
    SIMULATED.set(Some(Simulated { start, unix_ms }));
}

/// Time since the start: it never goes back.
pub fn elapsed() -> Duration {
    start().elapsed()
}

/// Now, as the engine counts it.
pub fn now() -> Moment {
    Moment { ms: ms(), unix_s: (unix_ms() / 1_000).max(0) as u64 }
}

/// [`Moment::ms`] of now, where nobody asks for the rest of it.
pub fn ms() -> u64 {
    elapsed().as_millis() as u64
}

/// The instant at which [`Moment::ms`] will be `ms`; `None` where that is too far away to name.
pub fn instant(ms: u64) -> Option<Instant> {
    start().checked_add(Duration::from_millis(ms))
}

/// Nanoseconds since 1970-01-01 UTC.
pub fn unix_ns() -> u64 {
    match SIMULATED.get() {
        Some(_) => u64::try_from(unix_ms()).unwrap_or(0).saturating_mul(1_000_000),
        None => u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0),
    }
}

/// Milliseconds since 1970-01-01 UTC.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_ms() -> i64 {
    match SIMULATED.get() {
        Some(Simulated { start, unix_ms }) => unix_ms + start.elapsed().as_millis() as i64,
        None => match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        },
    }
}

/// A time in milliseconds since 1970-01-01 UTC, as RFC 3339 writes it, in whole seconds.
pub fn rfc3339(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1_000);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |moment| moment.to_string())
}

fn start() -> Instant {
    SIMULATED.get().map_or_else(|| *START, |simulated| simulated.start)
}
