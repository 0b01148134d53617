//! How often a caller may ask, and how often an address may guess.
//!
//! Everything is counted in this process alone and forgotten with it. What a wrong key looked like is not kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adapters::Pace;
use tokio::time::Instant;

use crate::maps::HashSet;

/// Addresses, and keys of addresses, that are remembered at most. Nobody can fill the memory by guessing from many.
const MOST: usize = 10_000;

/// The address at the other end of a request's connection: the caller's, or that of what stands in front of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// What one caller can be expected to have: an IPv4 address, or the 64 bits that are routed to one.
    pub fn network(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
            ip => ip,
        }
    }
}

/// What is counted at the door.
#[derive(Debug)]
pub struct Entry {
    wrong_keys: Option<Pace>,
    guesses: Buckets<IpAddr>,
    /// Keys that were right, from where they came: another's guesses behind the same proxy do not lock them out.
    proven: Mutex<HashSet<(IpAddr, [u8; 32])>>,
    requests: Buckets<[u8; 32]>,
}

impl Entry {
    /// With so many wrong keys from an address in a minute; 0 is any number.
    pub fn new(max_wrong_keys_per_min: u32) -> Self {
        let wrong_keys = (max_wrong_keys_per_min > 0).then_some(Pace { calls: max_wrong_keys_per_min, per_s: 60 });
        let (guesses, requests) = (Buckets::default(), Buckets::default());
        Self { wrong_keys, guesses, proven: Mutex::default(), requests }
    }

    fn proven(&self) -> MutexGuard<'_, HashSet<(IpAddr, [u8; 32])>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long nothing from this address is looked at, unless it was right from there before.
    pub(crate) fn locked_out(&self, peer: Peer, sha256: Option<&[u8; 32]>) -> Option<Duration> {
        let wait = self.guesses.wait(&peer.network(), self.wrong_keys?)?;
        let proven = sha256.is_some_and(|sha256| self.proven().contains(&(peer.network(), *sha256)));
        (!proven).then_some(wait)
    }

    /// A key was wrong.
    pub(crate) fn wrong(&self, peer: Peer) {
        if let Some(pace) = self.wrong_keys {
            // Whoever is too quick is told so before the next one.
            let _ = self.guesses.take(peer.network(), pace);
        }
    }

    /// A key was right.
    pub(super) fn right(&self, peer: Peer, sha256: &[u8; 32]) {
        if self.wrong_keys.is_some() {
            let mut proven = self.proven();
            if proven.len() < MOST {
                proven.insert((peer.network(), *sha256));
            }
        }
    }

    /// Counts a request with this key, or says after what time there can be another.
    pub(super) fn request(&self, sha256: &[u8; 32], rate: Pace) -> Result<(), Duration> {
        self.requests.take(*sha256, rate)
    }
}

/// A bucket for each name: full after a rest, it takes as many at once as its pace allows in its time, and then evenly.
#[derive(Debug)]
struct Buckets<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Buckets<K> {
    fn full_at(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long there is nothing in this bucket.
    fn wait(&self, name: &K, pace: Pace) -> Option<Duration> {
        let full_at = *self.full_at().get(name)?;
        too_early(full_at, pace, Instant::now())
    }

    fn take(&self, name: K, pace: Pace) -> Result<(), Duration> {
        let now = Instant::now();
        let mut buckets = self.full_at();
        if buckets.len() >= MOST && !buckets.contains_key(&name) {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= MOST {
                return Ok(());
            }
        }
        let full_at = buckets.entry(name).or_insert(now);
        match too_early(*full_at, pace, now) {
            Some(wait) => Err(wait),
            None => {
                *full_at = (*full_at).max(now) + every(pace);
                Ok(())
            }
        }
    }
}

fn every(pace: Pace) -> Duration {
    Duration::from_secs(u64::from(pace.per_s)) / pace.calls.max(1)
}

fn too_early(full_at: Instant, pace: Pace, now: Instant) -> Option<Duration> {
    let spare = Duration::from_secs(u64::from(pace.per_s)).saturating_sub(every(pace));
    let wait = full_at.saturating_duration_since(now).saturating_sub(spare);
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> Peer {
        Peer(ip.parse().unwrap())
    }

    async fn pass(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_may_ask_so_often_and_then_evenly() {
        let entry = Entry::new(20);
        let rate = Pace { calls: 5, per_s: 1 };
        for round in 0..3 {
            for n in 0..5 {
                assert_eq!(entry.request(&[1; 32], rate), Ok(()), "{round} {n}");
            }
            assert_eq!(entry.request(&[1; 32], rate), Err(Duration::from_millis(200)));
            assert!(entry.request(&[2; 32], rate).is_ok(), "another key");
            pass(200).await;
            assert_eq!(entry.request(&[1; 32], rate), Ok(()));
            assert!(entry.request(&[1; 32], rate).is_err());
            pass(1_000).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_guesses_is_locked_out_for_a_while() {
        let entry = Entry::new(3);
        let (guesser, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        entry.right(guesser, &[7; 32]);
        for _ in 0..3 {
            assert_eq!(entry.locked_out(guesser, None), None);
            entry.wrong(guesser);
        }
        assert_eq!(entry.locked_out(guesser, None), Some(Duration::from_secs(20)));
        assert_eq!(entry.locked_out(guesser, Some(&[8; 32])), Some(Duration::from_secs(20)));
        assert_eq!(entry.locked_out(guesser, Some(&[7; 32])), None, "a key that was right from there");
        assert_eq!(entry.locked_out(other, None), None);
        // It was not right from anywhere else.
        (0..3).for_each(|_| entry.wrong(other));
        assert!(entry.locked_out(other, Some(&[7; 32])).is_some());
        pass(20_000).await;
        assert_eq!(entry.locked_out(guesser, None), None);
        entry.wrong(guesser);
        assert!(entry.locked_out(guesser, None).is_some());
        assert_eq!(Entry::new(0).locked_out(guesser, None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_from_many_addresses_fills_no_memory() {
        let entry = Entry::new(1);
        for n in 0..u32::try_from(2 * MOST).unwrap() {
            let peer = Peer(IpAddr::V4(n.into()));
            entry.wrong(peer);
            entry.right(peer, &[7; 32]);
        }
        assert_eq!((entry.guesses.full_at().len(), entry.proven().len()), (MOST, MOST));
        pass(60_000).await;
        entry.wrong(peer("192.0.2.1"));
        assert_eq!(entry.guesses.full_at().len(), 1);
    }

    #[test]
    fn an_address_is_what_one_caller_has() {
        assert_eq!(peer("::ffff:192.0.2.1").network(), peer("192.0.2.1").0);
        assert_eq!(peer("2001:db8::1:2:3:4").network(), peer("2001:db8::").0);
        assert_ne!(peer("2001:db8:0:1::").network(), peer("2001:db8::").network());
    }
}
