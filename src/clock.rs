//! The one place that reads the time. Everything else is told it.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Moment;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, as the engine counts it.
pub fn now() -> Moment {
    Moment { ms: START.elapsed().as_millis() as u64, unix_s: (unix_ms() / 1_000).max(0) as u64 }
}

/// The instant at which [`Moment::ms`] will be `ms`; `None` where that is too far away to name.
pub fn instant(ms: u64) -> Option<Instant> {
    START.checked_add(Duration::from_millis(ms))
}

/// Milliseconds since 1970-01-01 UTC.
pub fn unix_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A time in milliseconds since 1970-01-01 UTC, as RFC 3339 writes it, in whole seconds.
pub fn rfc3339(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1_000);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |moment| moment.to_string())
}
