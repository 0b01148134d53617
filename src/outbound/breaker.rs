//! A connection's breaker: an upstream that keeps failing is left alone, then asked once.
//!
//! It opens after some failures in a row, or when half of the last ones failed, and stays open for a time of its own or
//! for as long as the upstream asked, whichever is longer. Whoever ends a call shows the pass it went with: only the probe
//! can close an open breaker or keep it open. A pure state machine: the time is an argument.

use std::collections::VecDeque;

/// While a probe is under way, others are told to come back after this time at most, in milliseconds.
const PROBE_WAIT_MS: u64 = 1_000;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BreakerRules {
    pub(super) failures_in_row: u32,
    /// Calls that are looked back upon; half of them failed is too many.
    pub(super) window: usize,
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

/// What a call passes with, and is known by when it ends.
///
/// An era is a time in which the breaker's mind did not change: it closed, opened or let a probe go. So a probe is the
/// only call of its era, and a call that left before is recognised as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    era: u64,
}

#[derive(Debug)]
pub(super) struct Breaker {
    rules: BreakerRules,
    era: u64,
    in_row: u32,
    window: VecDeque<bool>,
    open_until_ms: Option<u64>,
    probing: bool,
}

impl Breaker {
    pub(super) fn new(rules: BreakerRules) -> Self {
        Self { rules, era: 0, in_row: 0, window: VecDeque::new(), open_until_ms: None, probing: false }
    }

    /// Whether it is closed, whatever time it is.
    pub(super) fn is_closed(&self) -> bool {
        self.open_until_ms.is_none()
    }

    /// For how many milliseconds the upstream is left alone, if it is: until a probe may go, or a little longer while
    /// one is under way. Asking changes nothing.
    pub(super) fn open_for(&self, now_ms: u64) -> Option<u64> {
        match self.open_until_ms? {
            until if now_ms < until => Some(until - now_ms),
            _ => self.probing.then(|| self.rules.open_ms.clamp(1, PROBE_WAIT_MS)),
        }
    }

    /// Lets a call pass, or says for how many milliseconds the upstream is left alone.
    pub(super) fn admit(&mut self, now_ms: u64) -> Result<Pass, u64> {
        if let Some(wait_ms) = self.open_for(now_ms) {
            return Err(wait_ms);
        }
        if self.open_until_ms.is_some() {
            self.probing = true;
            self.era += 1;
        }
        Ok(Pass { era: self.era })
    }

    /// A call that passed has ended, well or badly, and the upstream asked to be left alone for so many milliseconds: if
    /// that opens the breaker, it stays open for as long. News of a call from before the breaker opened says nothing that
    /// the probe does not say better.
    pub(super) fn heard(&mut self, pass: Pass, well: bool, asked_ms: u64, now_ms: u64) {
        if pass.era != self.era {
            return;
        }
        if self.probing {
            if well {
                *self = Self { era: self.era + 1, ..Self::new(self.rules) };
            } else {
                self.open(asked_ms, now_ms);
            }
            return;
        }
        self.in_row = if well { 0 } else { self.in_row + 1 };
        if self.window.len() >= self.rules.window {
            self.window.pop_front();
        }
        self.window.push_back(well);
        let half_failed = || self.window.iter().filter(|well| !**well).count() * 2 >= self.rules.window;
        if self.in_row >= self.rules.failures_in_row || (self.window.len() == self.rules.window && half_failed()) {
            self.open(asked_ms, now_ms);
        }
    }

    /// Nothing more will be heard of a call that passed. If it was the probe and brought no news, another may go.
    pub(super) fn gone(&mut self, pass: Pass) {
        if pass.era == self.era {
            self.probing = false;
        }
    }

    fn open(&mut self, asked_ms: u64, now_ms: u64) {
        self.open_until_ms = Some(now_ms.saturating_add(self.rules.open_ms.max(asked_ms)));
        self.probing = false;
        self.era += 1;
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
        Breaker::new(BreakerRules { failures_in_row: 5, window: 20, open_ms: 1_000 })
    }

    /// A call that passes and ends.
    fn call(breaker: &mut Breaker, well: bool, now_ms: u64) {
        let pass = breaker.admit(now_ms).unwrap();
        breaker.heard(pass, well, 0, now_ms);
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        let mut breaker = breaker();
        for _ in 0..4 {
            call(&mut breaker, false, 0);
        }
        call(&mut breaker, true, 0);
        for _ in 0..4 {
            call(&mut breaker, false, 0);
            assert!(breaker.admit(0).is_ok());
        }
        call(&mut breaker, false, 100);
        assert_eq!(breaker.admit(100), Err(1_000));
        assert_eq!(breaker.state(100), BreakerState::Open);
    }

    #[test]
    fn half_of_twenty_opens_it() {
        let mut breaker = breaker();
        for n in 0..19 {
            call(&mut breaker, n % 2 == 0, 0);
        }
        assert_eq!(breaker.state(0), BreakerState::Closed);
        call(&mut breaker, false, 0);
        assert_eq!(breaker.state(0), BreakerState::Open);
    }

    #[test]
    fn one_probe_decides() {
        let mut breaker = breaker();
        (0..5).for_each(|_| call(&mut breaker, false, 0));
        assert_eq!(breaker.open_for(1_000), None, "nothing holds a probe back");
        let probe = breaker.admit(1_000).unwrap();
        assert_eq!(breaker.admit(1_000), Err(1_000), "a second probe at the same time");
        breaker.heard(probe, false, 0, 1_200);
        assert_eq!(breaker.admit(1_200), Err(1_000));
        let probe = breaker.admit(2_200).unwrap();
        breaker.gone(probe);
        let probe = breaker.admit(2_300).expect("a probe without news is no answer");
        breaker.heard(probe, true, 0, 2_400);
        assert_eq!(breaker.state(2_400), BreakerState::Closed);
        assert!(breaker.admit(2_400).is_ok() && breaker.admit(2_400).is_ok());
    }

    #[test]
    fn nobody_need_queue_while_a_probe_is_under_way() {
        for (open_ms, expected) in [(0, 1), (300, 300), (30_000, 1_000)] {
            let mut breaker = Breaker::new(BreakerRules { failures_in_row: 1, window: 20, open_ms });
            call(&mut breaker, false, 0);
            let probe = breaker.admit(open_ms).unwrap();
            assert_eq!(breaker.open_for(open_ms), Some(expected));
            breaker.gone(probe);
            assert_eq!(breaker.open_for(open_ms), None);
        }
    }

    #[test]
    fn a_stale_call_neither_closes_nor_reopens_it() {
        for well in [true, false] {
            let mut breaker = breaker();
            let stale: Vec<_> = (0..9).map(|_| breaker.admit(0).unwrap()).collect();
            (0..5).for_each(|_| call(&mut breaker, false, 0));
            breaker.heard(stale[0], well, 0, 500);
            assert_eq!(breaker.open_for(500), Some(500), "while it is open");
            breaker.heard(stale[1], well, 0, 1_000);
            assert_eq!(breaker.open_for(1_000), None, "before the probe");
            let probe = breaker.admit(1_000).unwrap();
            breaker.heard(stale[2], well, 0, 1_100);
            breaker.gone(stale[3]);
            assert!(breaker.admit(1_100).is_err(), "the probe is still under way");
            breaker.heard(probe, true, 0, 1_200);
            stale[4..].iter().for_each(|stale| breaker.heard(*stale, well, 0, 1_300));
            assert_eq!(breaker.state(1_300), BreakerState::Closed, "after the probe");
        }
    }

    #[test]
    fn half_of_the_last_twenty_is_counted_anew_with_every_call() {
        let mut breaker = breaker();
        // Of every 20 in a row, 9 fail; never 5 in a row.
        for n in 0..200 {
            call(&mut breaker, n % 20 % 2 == 0 || n % 20 == 19, 0);
            assert_eq!(breaker.state(0), BreakerState::Closed, "{n}");
        }
        // 10 of the last 20, though the last ones of all went well.
        for well in [true, false, true, false, false] {
            call(&mut breaker, well, 0);
        }
        assert_eq!(breaker.state(0), BreakerState::Open);
    }

    #[test]
    fn what_failed_before_a_probe_that_went_well_is_forgotten() {
        let mut breaker = breaker();
        (0..5).for_each(|_| call(&mut breaker, false, 0));
        call(&mut breaker, true, 1_000);
        (0..4).for_each(|_| call(&mut breaker, false, 1_000));
        assert_eq!(breaker.state(1_000), BreakerState::Closed);
        call(&mut breaker, false, 1_000);
        assert_eq!(breaker.state(1_000), BreakerState::Open);
    }

    #[test]
    fn it_stays_open_for_as_long_as_the_upstream_asked() {
        for (asked_ms, open_ms) in [(0, 1_000), (400, 1_000), (900_000, 900_000)] {
            let mut breaker = breaker();
            (0..4).for_each(|_| call(&mut breaker, false, 0));
            let fifth = breaker.admit(0).unwrap();
            breaker.heard(fifth, false, asked_ms, 0);
            assert_eq!(breaker.open_for(0), Some(open_ms));
            let probe = breaker.admit(open_ms).unwrap();
            breaker.heard(probe, false, asked_ms, open_ms);
            assert_eq!(breaker.open_for(open_ms), Some(open_ms), "the probe was told the same");
        }
    }
}
