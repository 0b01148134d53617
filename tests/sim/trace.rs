//! What happened in a schedule, as one number: the same seed must give the same.
//!
//! It takes in what is seen of the world, and no id that is made by chance.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

/// A hash of all events so far, and those of late for people.
pub(crate) struct Trace {
    start: Instant,
    hash: Mutex<u64>,
    events: AtomicUsize,
    /// What went wrong, and how often.
    faults: Mutex<BTreeMap<&'static str, usize>>,
    told: Option<Mutex<Vec<String>>>,
}

impl Trace {
    /// With `told`, every event is kept as a line.
    pub(crate) fn new(told: bool) -> Self {
        let told = told.then(Mutex::default);
        Self { start: Instant::now(), hash: Mutex::new(0), events: AtomicUsize::new(0), faults: Mutex::default(), told }
    }

    pub(crate) fn put(&self, what: &str, a: u64, b: u64) {
        let at = self.start.elapsed().as_millis() as u64;
        self.events.fetch_add(1, Ordering::Relaxed);
        let mut one: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in what.bytes().chain([at, a, b].into_iter().flat_map(u64::to_le_bytes)) {
            one = (one ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // Tokio wakes some who wait for the same thing in an order made by chance: what happens in one instant has none.
        let mut hash = self.hash.lock().unwrap();
        *hash = hash.wrapping_add(one);
        if let Some(told) = &self.told {
            told.lock().unwrap().push(format!("{:>8}.{:03} {what} {a} {b}", at / 1_000, at % 1_000));
        }
    }

    /// An event that is a fault.
    pub(crate) fn fault(&self, what: &'static str, a: u64, b: u64) {
        *self.faults.lock().unwrap().entry(what).or_default() += 1;
        self.put(what, a, b);
    }

    pub(crate) fn faults(&self) -> BTreeMap<&'static str, usize> {
        self.faults.lock().unwrap().clone()
    }

    pub(crate) fn say(&self, what: &str) {
        self.put(what, 0, 0);
    }

    pub(crate) fn hash(&self) -> u64 {
        *self.hash.lock().unwrap()
    }

    pub(crate) fn events(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.told.as_ref().map(|told| told.lock().unwrap().clone()).unwrap_or_default()
    }
}
