//! A connection's breaker: an upstream that keeps failing is left alone, then asked once.
//!
//! It opens after some failures in a row, or when half of the last 20 calls failed. A pure state machine: the time is an argument.

use std::collections::VecDeque;

/// Calls that are looked back upon.
const WINDOW: usize = 20;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BreakerRules {
    pub(super) failures_in_row: u32,
    pub(super) open_ms: u64,
}

/// What a breaker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// One call is let through to see.
    HalfOpen,
    /// No call passes.
    Open,
}

impl BreakerState {
    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

#[derive(Debug)]
pub(super) struct Breaker {
    rules: BreakerRules,
    in_row: u32,
    window: VecDeque<bool>,
    open_until_ms: Option<u64>,
    probing: bool,
}

impl Breaker {
    pub(super) fn new(rules: BreakerRules) -> Self {
        Self { rules, in_row: 0, window: VecDeque::with_capacity(WINDOW), open_until_ms: None, probing: false }
    }

    /// For how many milliseconds the upstream is left alone, if it is. Asking changes nothing.
    pub(super) fn open_for(&self, now_ms: u64) -> Option<u64> {
        self.open_until_ms.filter(|until| now_ms < *until).map(|until| until - now_ms)
    }

    /// Lets a call pass, or says for how many milliseconds the upstream is left alone.
    pub(super) fn admit(&mut self, now_ms: u64) -> Result<(), u64> {
        match self.open_until_ms {
            None => Ok(()),
            Some(until) if now_ms < until => Err(until - now_ms),
            // One probe at a time; the others come back a little later.
            Some(_) if self.probing => Err(self.rules.open_ms.clamp(1, 1_000)),
            Some(_) => {
                self.probing = true;
                Ok(())
            }
        }
    }

    /// A call that passed has ended, well or badly.
    pub(super) fn heard(&mut self, well: bool, now_ms: u64) {
        if self.open_until_ms.is_some() {
            // News of calls that left before it opened says nothing that the probe does not say better.
            if !self.probing {
                return;
            }
            self.probing = false;
            if well {
                *self = Self::new(self.rules);
            } else {
                self.open_until_ms = Some(now_ms + self.rules.open_ms);
            }
            return;
        }
        self.in_row = if well { 0 } else { self.in_row + 1 };
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(well);
        let failed = self.window.iter().filter(|well| !**well).count();
        if self.in_row >= self.rules.failures_in_row || (self.window.len() == WINDOW && failed * 2 >= WINDOW) {
            self.open_until_ms = Some(now_ms + self.rules.open_ms);
            self.probing = false;
        }
    }

    /// A call that passed has ended without a word about the upstream.
    pub(super) fn unheard(&mut self) {
        self.probing = false;
    }

    pub(super) fn state(&self, now_ms: u64) -> BreakerState {
        match self.open_until_ms {
            None => BreakerState::Closed,
            Some(until) if now_ms < until => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerRules { failures_in_row: 5, open_ms: 1_000 })
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        let mut breaker = breaker();
        for _ in 0..4 {
            breaker.heard(false, 0);
        }
        breaker.heard(true, 0);
        for _ in 0..4 {
            breaker.heard(false, 0);
            assert_eq!(breaker.admit(0), Ok(()));
        }
        breaker.heard(false, 100);
        assert_eq!(breaker.admit(100), Err(1_000));
        assert_eq!(breaker.state(100), BreakerState::Open);
    }

    #[test]
    fn half_of_twenty_opens_it() {
        let mut breaker = breaker();
        for n in 0..19 {
            breaker.heard(n % 2 == 0, 0);
        }
        assert_eq!(breaker.state(0), BreakerState::Closed);
        breaker.heard(false, 0);
        assert_eq!(breaker.state(0), BreakerState::Open);
    }

    #[test]
    fn one_probe_decides() {
        let mut breaker = breaker();
        (0..5).for_each(|_| breaker.heard(false, 0));
        assert_eq!(breaker.admit(1_000), Ok(()));
        assert!(breaker.admit(1_000).is_err(), "a second probe at the same time");
        breaker.heard(false, 1_200);
        assert_eq!(breaker.admit(1_200), Err(1_000));
        assert_eq!(breaker.admit(2_200), Ok(()));
        breaker.unheard();
        assert_eq!(breaker.admit(2_300), Ok(()), "a probe without news is no answer");
        breaker.heard(true, 2_400);
        assert_eq!(breaker.state(2_400), BreakerState::Closed);
        assert_eq!((breaker.admit(2_400), breaker.admit(2_400)), (Ok(()), Ok(())));
    }
}
