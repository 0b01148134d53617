//! How long an upstream takes before it answers.
//!
//! The times come from a seeded generator: the same seed gives the same times in the same order.

use std::f64::consts::TAU;
use std::time::Duration;

use fastrand::Rng;

/// The longest latency, in milliseconds. What is drawn above it is this long.
pub const MAX_LATENCY_MS: u64 = 60_000;

/// A distribution of times before the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed {
        /// Milliseconds.
        ms: u64,
    },
    /// Any time between two, each as likely.
    Uniform {
        /// The shortest, in milliseconds.
        from_ms: u64,
        /// The longest, in milliseconds.
        to_ms: u64,
    },
    /// Most are near the median, and some take very much longer.
    LogNormal {
        /// The median, in milliseconds.
        median_ms: u64,
        /// The standard deviation of the time's logarithm: 0 is always the median, 1 is wild.
        sigma: f64,
    },
}

/// Draws times.
pub(super) struct Sampler {
    pub(super) latency: Latency,
    pub(super) seed: u64,
    rng: Rng,
}

impl Sampler {
    pub(super) fn new(latency: Latency, seed: u64) -> Self {
        Self { latency, seed, rng: Rng::with_seed(seed) }
    }

    pub(super) fn draw(&mut self) -> Duration {
        let ms = match self.latency {
            Latency::Fixed { ms } => ms,
            Latency::Uniform { from_ms, to_ms } => self.rng.u64(from_ms.min(to_ms)..=to_ms.max(from_ms)),
            Latency::LogNormal { median_ms, sigma } => (median_ms as f64 * (sigma * self.normal()).exp()) as u64,
        };
        Duration::from_millis(ms.min(MAX_LATENCY_MS))
    }

    /// Box and Muller's way from two uniform numbers to a normal one.
    fn normal(&mut self) -> f64 {
        // Not 0, which has no logarithm.
        let radius = (-2.0 * (1.0 - self.rng.f64()).ln()).sqrt();
        radius * (TAU * self.rng.f64()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(latency: Latency, seed: u64) -> Vec<u64> {
        let mut sampler = Sampler::new(latency, seed);
        (0..4_000).map(|_| sampler.draw().as_millis() as u64).collect()
    }

    #[test]
    fn times_are_where_the_distribution_has_them() {
        assert!(draws(Latency::Fixed { ms: 7 }, 1).iter().all(|ms| *ms == 7));
        let uniform = draws(Latency::Uniform { from_ms: 10, to_ms: 20 }, 1);
        assert!(uniform.iter().all(|ms| (10..=20).contains(ms)) && uniform.contains(&10) && uniform.contains(&20));
        assert!(draws(Latency::Uniform { from_ms: 20, to_ms: 10 }, 1).iter().all(|ms| (10..=20).contains(ms)));
        let mut normal = draws(Latency::LogNormal { median_ms: 1_000, sigma: 0.5 }, 1);
        normal.sort_unstable();
        // The median, and e to the power of half a deviation around it for the middle two thirds.
        assert!((940..1_060).contains(&normal[2_000]), "{}", normal[2_000]);
        assert!((560..660).contains(&normal[636]) && (1_550..1_750).contains(&normal[3_364]));
        assert!(draws(Latency::LogNormal { median_ms: 50, sigma: 0.0 }, 1).iter().all(|ms| *ms == 50));
    }

    #[test]
    fn a_seed_gives_the_same_times_and_none_is_too_long() {
        let wild = Latency::LogNormal { median_ms: 30_000, sigma: 3.0 };
        assert_eq!(draws(wild, 5), draws(wild, 5));
        assert_ne!(draws(wild, 5), draws(wild, 6));
        assert_eq!(draws(wild, 5).into_iter().max(), Some(MAX_LATENCY_MS));
        assert!(draws(Latency::Fixed { ms: u64::MAX }, 1).iter().all(|ms| *ms == MAX_LATENCY_MS));
    }
}
