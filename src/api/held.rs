//! Large answers that wait in memory until their callers have read them: so many bytes, and no more.
//!
//! Small ones are not counted; the number of connections bounds them. What becomes of an answer for which there is no room is its
//! handler's matter: one that only tells is refused, and one to a deletion that was accepted leaves the results out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::maps::HashMap;

/// An answer of so many bytes is small.
const SMALL: usize = 32 << 10;
/// About what one result takes, in bytes.
const RESULT: usize = 160;

/// The large answers of all tenants that are not read yet.
#[derive(Debug)]
pub struct HeldAnswers {
    most: usize,
    held: Mutex<HashMap<Arc<str>, usize>>,
}

/// Room for one answer, given back when the last of it was written to the caller.
#[derive(Debug)]
struct Room {
    answers: Arc<HeldAnswers>,
    tenant: Arc<str>,
    bytes: usize,
}

/// An answer and its room, which go together.
struct Held {
    text: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl HeldAnswers {
    /// With room for so many bytes; no tenant may have more than half of it. One answer alone is never too large.
    pub fn new(most: usize) -> Self {
        Self { most, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an answer with so many results would find room now.
    pub(super) fn has_room(&self, tenant: &Arc<str>, results: usize) -> bool {
        let bytes = results.saturating_mul(RESULT);
        bytes <= SMALL || self.fits(&self.held(), tenant, bytes)
    }

    fn fits(&self, held: &HashMap<Arc<str>, usize>, tenant: &Arc<str>, bytes: usize) -> bool {
        let (all, own) = (held.values().sum::<usize>(), held.get(tenant).copied().unwrap_or(0));
        match own {
            // Whoever has none yet gets in as long as there is any room at all.
            0 => all < self.most,
            _ => all + bytes <= self.most && own + bytes <= self.most / 2,
        }
    }

    /// An answer's bytes, which keep their room until the last of them is written; `None` if there is none.
    pub(super) fn hold(self: &Arc<Self>, tenant: &Arc<str>, mut text: Vec<u8>) -> Option<Bytes> {
        if text.len() <= SMALL {
            return Some(text.into());
        }
        text.shrink_to_fit();
        let bytes = text.len();
        let mut held = self.held();
        if !self.fits(&held, tenant, bytes) {
            return None;
        }
        *held.entry(Arc::clone(tenant)).or_default() += bytes;
        drop(held);
        let room = Room { answers: Arc::clone(self), tenant: Arc::clone(tenant), bytes };
        Some(Bytes::from_owner(Held { text, _room: room }))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut held = self.answers.held();
        if let Some(own) = held.get_mut(&self.tenant) {
            *own -= self.bytes;
            if *own == 0 {
                held.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_share_the_room_and_give_it_back() {
        let answers = Arc::new(HeldAnswers::new(400_000));
        let (a, b, c) = (Arc::from("a"), Arc::from("b"), Arc::from("c"));
        let hold = |tenant, bytes| answers.hold(tenant, vec![b' '; bytes]);
        let first = hold(&a, 150_000).unwrap();
        assert!(hold(&a, 60_000).is_none(), "more than half of it for one tenant");
        assert!(!answers.has_room(&a, 1_000) && answers.has_room(&a, 200) && answers.has_room(&b, 10_000));
        let second = hold(&a, 50_000).unwrap();
        assert!(hold(&a, SMALL).is_some(), "what is small needs no room");
        let alone = hold(&b, 1_000_000).expect("one alone is never too large");
        assert!(hold(&c, 40_000).is_none() && !answers.has_room(&c, 1_000), "there is no room at all");
        drop(alone);
        assert!(hold(&c, 40_000).is_some());
        // A piece of it keeps it.
        let piece = first.slice(149_999..);
        drop((first, second));
        assert!(hold(&a, 60_000).is_none());
        drop(piece);
        assert!(answers.held().is_empty());
    }
}
