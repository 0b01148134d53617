//! How many requests an upstream takes in which time: a sliding window.
//!
//! Sign-ins are not counted, and what is refused is not counted either.

use std::collections::VecDeque;

use adapters::{Double, Limit};

/// Which limit a mock keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// The vendor's; none where the vendor documents none.
    Vendor,
    /// This one.
    Of(Limit),
}

impl Limits {
    pub(super) fn at(self, double: &dyn Double) -> Option<Limit> {
        match self {
            Self::Vendor => double.limit(),
            Self::Of(limit) => Some(limit),
        }
    }
}

/// The requests that were taken within the limit's time.
#[derive(Default)]
pub(super) struct Window {
    pub(super) limit: Option<Limit>,
    taken_ms: VecDeque<u64>,
}

impl Window {
    pub(super) fn of(limit: Option<Limit>) -> Self {
        Self { limit, taken_ms: VecDeque::new() }
    }

    /// Takes a request, or says in how many whole seconds the next one is taken.
    pub(super) fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        let Some(limit) = self.limit else { return Ok(()) };
        let window_ms = limit.window_s.saturating_mul(1_000);
        while self.taken_ms.front().is_some_and(|ms| ms.saturating_add(window_ms) <= now_ms) {
            self.taken_ms.pop_front();
        }
        if self.taken_ms.len() < limit.requests as usize {
            self.taken_ms.push_back(now_ms);
            return Ok(());
        }
        // A limit of none at all has nothing that could leave the window.
        let free_ms = self.taken_ms.front().map_or(window_ms, |ms| ms.saturating_add(window_ms).saturating_sub(now_ms));
        Err(free_ms.div_ceil(1_000).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides() {
        let mut window = Window::of(Some(Limit { requests: 2, window_s: 10 }));
        assert_eq!([0, 4_000].map(|ms| window.take(ms)), [Ok(()), Ok(())]);
        // What is refused takes no place.
        assert_eq!([4_000, 4_001, 9_999].map(|ms| window.take(ms)), [Err(6), Err(6), Err(1)]);
        assert_eq!([10_000, 10_001, 14_000].map(|ms| window.take(ms)), [Ok(()), Err(4), Ok(())]);
    }

    #[test]
    fn no_limit_takes_all_and_a_limit_of_none_takes_none() {
        assert_eq!(Window::default().take(7), Ok(()));
        assert_eq!(Window::of(Some(Limit { requests: 0, window_s: 5 })).take(7), Err(5));
    }
}
