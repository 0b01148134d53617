//! What is known of the contacts of a part: a place for each, and each result once however many contacts have it.
//!
//! Most calls end alike for all of their contacts, so a place is a number and not a result. It does not know whose results
//! these are.

use std::ops::Range;

use super::Tally;
use crate::engine::Settled;

/// Results so far, one place for each contact. The first result of a contact stays.
#[derive(Clone, Default)]
pub struct Results {
    /// Few are there twice, and none is there for nobody.
    known: Vec<Settled>,
    /// For each contact the number of its result, counted from 1; 0 as long as it has none.
    places: Vec<u32>,
}

/// A result is looked for among so many of the newest before it is kept once more.
const LOOK_BACK: usize = 4;

impl Results {
    /// So many places without a result.
    pub fn open(contacts: usize) -> Self {
        Self { known: Vec::new(), places: vec![0; contacts] }
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The result at a place, if there is one.
    pub fn get(&self, place: usize) -> Option<&Settled> {
        self.of(*self.places.get(place)?)
    }

    /// What is at each place.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&Settled>> {
        self.places.iter().map(|place| self.of(*place))
    }

    /// Places one after another that have the same result, or none: how many, and what.
    pub fn runs(&self) -> impl Iterator<Item = (usize, Option<&Settled>)> {
        self.places.chunk_by(|one, next| one == next).map(|run| (run.len(), self.of(run[0])))
    }

    /// Counts them.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (places, settled) in self.runs() {
            if let Some(settled) = settled {
                tally.count(settled, places as u32);
            }
        }
        tally
    }

    /// Puts a result to those of these places that are there and have none, and hands on which they are, run by run.
    pub fn put(&mut self, places: Range<usize>, settled: &Settled, mut new: impl FnMut(Range<usize>)) {
        let end = places.end.min(self.places.len());
        let mut start = places.start;
        while start < end {
            let open = self.places[start..end].iter().take_while(|place| **place == 0).count();
            if open > 0 {
                let number = self.number(settled);
                self.places[start..start + open].fill(number);
                new(start..start + open);
            }
            start += open;
            start += self.places[start..end].iter().take_while(|place| **place != 0).count();
        }
    }

    fn of(&self, place: u32) -> Option<&Settled> {
        self.known.get((place as usize).checked_sub(1)?)
    }

    fn number(&mut self, settled: &Settled) -> u32 {
        let newest = self.known.iter().enumerate().rev().take(LOOK_BACK);
        let known = newest.into_iter().find(|(_, known)| *known == settled).map(|(n, _)| n);
        let n = known.unwrap_or_else(|| {
            self.known.push(settled.clone());
            self.known.len() - 1
        });
        n as u32 + 1
    }
}

impl PartialEq for Results {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Results {}

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<Option<Settled>> for Results {
    fn from_iter<I: IntoIterator<Item = Option<Settled>>>(places: I) -> Self {
        let mut results = Self::default();
        for settled in places {
            let number = settled.map_or(0, |settled| results.number(&settled));
            results.places.push(number);
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::gone;
    use super::*;

    #[test]
    fn it_is_what_a_list_with_a_result_for_each_would_be() {
        let mut dice = fastrand::Rng::with_seed(11);
        for _ in 0..2_000 {
            let contacts = dice.usize(0..40);
            let (mut results, mut list) = (Results::open(contacts), vec![None; contacts]);
            for _ in 0..dice.usize(0..30) {
                let start = dice.usize(0..50);
                let (places, settled) = (start..start + dice.usize(0..12), gone(dice.u32(0..7)));
                let mut expected = Vec::new();
                for place in places.clone() {
                    if let Some(open @ None) = list.get_mut(place) {
                        *open = Some(settled.clone());
                        expected.push(place);
                    }
                }
                let mut new = Vec::new();
                results.put(places, &settled, |range| new.push(range));
                assert!(new.iter().all(|range| !range.is_empty()));
                assert!(new.is_sorted_by(|one, next| one.end < next.start), "{new:?}");
                assert_eq!(new.into_iter().flatten().collect::<Vec<_>>(), expected);
            }
            assert!(results.iter().eq(list.iter().map(Option::as_ref)));
            assert!((0..50).all(|n| results.get(n) == list.get(n).and_then(Option::as_ref)));
            let runs = results.runs().flat_map(|(places, settled)| std::iter::repeat_n(settled, places));
            assert!(runs.eq(list.iter().map(Option::as_ref)));
            assert_eq!(results.tally(), Tally::of(list.iter().flatten()));
            let again = Results::from_iter(list.clone());
            assert_eq!(results, again);
            let mut other = list;
            other.push(None);
            assert_ne!(results, Results::from_iter(other));
        }
    }

    #[test]
    fn a_result_is_kept_once_as_long_as_it_comes_again_soon() {
        let mut results = Results::open(1_000);
        for n in 0..1_000 {
            results.put(n..n + 1, &gone(n as u32 % 3), |_| {});
        }
        assert_eq!(results.known.len(), 3);
    }
}
