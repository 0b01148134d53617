//! How long to wait before asking the gateway again, and when to give up.

use std::time::Duration;

/// So many tries may come to nothing in a row.
const MOST: u32 = 10;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// The longest wait that a busy gateway can ask for, and all of them together.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
const ALL_ASKED: Duration = Duration::from_secs(15 * 60);

/// What is left of it.
#[derive(Debug, Default)]
pub(super) struct Patience {
    lost: u32,
    asked: Duration,
}

impl Patience {
    /// Something went on: count from the start again.
    pub(super) fn progressed(&mut self) {
        *self = Self::default();
    }

    /// Nothing has gone wrong so far.
    pub(super) fn is_fresh(&self) -> bool {
        self.lost == 0 && self.asked.is_zero()
    }

    /// A try came to nothing. How long to wait before the next; `None` if there should be none.
    pub(super) fn lost(&mut self) -> Option<Duration> {
        self.lost += 1;
        let doubled = FIRST.saturating_mul(1 << self.lost.min(16).saturating_sub(1)).min(LONGEST);
        // Many clients that were cut off together should not come back together.
        (self.lost < MOST).then(|| doubled.mul_f64(0.5 + fastrand::f64() / 2.0))
    }

    /// The gateway asks to come back later, possibly after a time that it named.
    pub(super) fn busy(&mut self, after: Option<Duration>) -> Option<Duration> {
        let Some(after) = after else { return self.lost() };
        let wait = after.clamp(FIRST, LONGEST_ASKED);
        self.asked += wait;
        (self.asked <= ALL_ASKED).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends() {
        let mut patience = Patience::default();
        let waits: Vec<_> = std::iter::from_fn(|| patience.lost()).collect();
        assert_eq!(waits.len() as u32, MOST - 1);
        assert!(waits.iter().all(|wait| *wait >= FIRST / 2 && *wait <= LONGEST), "{waits:?}");
        patience.progressed();
        assert!(patience.lost().is_some());
        let mut patience = Patience::default();
        let day = Some(Duration::from_secs(86_400));
        let waits: Vec<_> = std::iter::from_fn(|| patience.busy(day)).collect();
        assert_eq!(waits, vec![LONGEST_ASKED; 15]);
        let mut patience = Patience::default();
        assert!(std::iter::from_fn(|| patience.busy(Some(Duration::ZERO))).take(5_000).count() < 5_000);
    }
}
