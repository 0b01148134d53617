//! How long to wait before another attempt: exponential, with full jitter, or as long as the upstream asks.
//!
//! Pure: the dice and the time are arguments.

use std::time::Duration;

use adapters::Wait;
use backon::{BackoffBuilder, ExponentialBuilder};

use super::Moment;

/// The longest wait that an upstream may ask for, in milliseconds: 15 minutes.
const LONGEST_ASKED_MS: u64 = 15 * 60 * 1_000;

/// Waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait is at most so long.
    pub base_ms: u64,
    /// No wait is longer, unless the upstream asks for more.
    pub cap_ms: u64,
}

impl Backoff {
    /// Milliseconds to wait after `attempts` attempts: at random from none to the exponential ceiling.
    pub fn wait_ms(self, attempts: u32, dice: &mut fastrand::Rng) -> u64 {
        let ceiling = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(self.base_ms))
            .with_max_delay(Duration::from_millis(self.cap_ms))
            .without_max_times()
            .build()
            .nth(attempts.saturating_sub(1).min(32) as usize)
            .map_or(self.cap_ms, |delay| delay.as_millis() as u64);
        dice.u64(0..=ceiling)
    }
}

/// Milliseconds from `now` that an upstream asks to be left alone, at most 15 minutes.
pub(crate) fn asked_ms(wait: Wait, now: Moment) -> u64 {
    let seconds = match wait {
        Wait::For(seconds) => seconds,
        Wait::Until(moment) => moment.saturating_sub(now.unix_s),
    };
    seconds.saturating_mul(1_000).min(LONGEST_ASKED_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = Backoff { base_ms: 500, cap_ms: 60_000 };
        let mut dice = fastrand::Rng::with_seed(1);
        for (attempts, ceiling) in [(1, 500), (2, 1_000), (3, 2_000), (7, 32_000), (8, 60_000), (4_000, 60_000)] {
            let waits: Vec<_> = (0..2_000).map(|_| backoff.wait_ms(attempts, &mut dice)).collect();
            let longest = *waits.iter().max().unwrap();
            assert!(longest <= ceiling && longest > ceiling * 9 / 10, "{attempts}: {longest}");
            assert!(*waits.iter().min().unwrap() < ceiling / 10);
        }
    }

    #[test]
    fn an_upstream_cannot_ask_for_more_than_a_quarter_of_an_hour() {
        let now = Moment { ms: 0, unix_s: 1_000 };
        assert_eq!(asked_ms(Wait::For(3), now), 3_000);
        assert_eq!(asked_ms(Wait::For(u64::MAX), now), 900_000);
        assert_eq!(asked_ms(Wait::Until(1_007), now), 7_000);
        assert_eq!(asked_ms(Wait::Until(5), now), 0);
    }
}
