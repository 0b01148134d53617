//! The contacts that a double has: one for each canonical identifier, always in the same order.
//!
//! Which identifiers name the same contact is the double's word. It has no history: what is deleted is as if it had
//! never been there.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::contract::Identifier;

/// The one form in which an upstream keeps an identifier; `None` for one that names no contact there.
pub(crate) type Canonical = fn(&Identifier) -> Option<Identifier>;

/// Contacts by canonical identifier.
pub(crate) struct Store {
    canonical: Canonical,
    /// Whether the upstream refuses to delete it.
    contacts: BTreeMap<Key, bool>,
}

/// What a delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The contact was there, and is gone.
    Deleted,
    /// It is there, and stays.
    Held,
    /// There is none.
    Missing,
}

impl Store {
    pub(crate) fn new(canonical: Canonical) -> Self {
        Self { canonical, contacts: BTreeMap::new() }
    }

    /// An identifier that names no contact here changes nothing.
    pub(crate) fn seed(&mut self, identifier: &Identifier, held: bool) {
        if let Some(key) = self.key(identifier) {
            self.contacts.insert(key, held);
        }
    }

    /// Whether the contact is held; `None` if there is none.
    pub(crate) fn held(&self, identifier: &Identifier) -> Option<bool> {
        self.contacts.get(&self.key(identifier)?).copied()
    }

    pub(crate) fn forget(&mut self, identifier: &Identifier) {
        if let Some(key) = self.key(identifier) {
            self.contacts.remove(&key);
        }
    }

    pub(crate) fn delete(&mut self, identifier: &Identifier) -> Fate {
        let Some(key) = self.key(identifier) else { return Fate::Missing };
        match self.contacts.get(&key) {
            Some(false) => {
                self.contacts.remove(&key);
                Fate::Deleted
            }
            Some(true) => Fate::Held,
            None => Fate::Missing,
        }
    }

    /// Takes away all that are not held, and names them.
    pub(crate) fn delete_all(&mut self) -> Vec<Identifier> {
        let gone = self.iter().filter(|(_, held)| !held).map(|(identifier, _)| identifier.clone()).collect();
        self.contacts.retain(|_, held| *held);
        gone
    }

    /// By kind, then shorter ones first, then by their text: so numbers stand in their own order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Identifier, bool)> {
        self.contacts.iter().map(|(Key(identifier), held)| (identifier, *held))
    }

    pub(crate) fn contacts(&self) -> Vec<(Identifier, bool)> {
        self.iter().map(|(identifier, held)| (identifier.clone(), held)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.contacts.len()
    }

    fn key(&self, identifier: &Identifier) -> Option<Key> {
        (self.canonical)(identifier).map(Key)
    }
}

/// Native ids whose case does not matter, as in hexadecimal digits; no other kind.
pub(crate) fn case_blind_id(identifier: &Identifier) -> Option<Identifier> {
    match identifier {
        Identifier::Id(id) if id.bytes().any(|b| b.is_ascii_uppercase()) => {
            Some(Identifier::Id(id.to_ascii_lowercase().into()))
        }
        Identifier::Id(_) => Some(identifier.clone()),
        Identifier::Phone(_) | Identifier::External { .. } => None,
    }
}

/// Native ids that are whole numbers from 1 to `most`, without leading zeros; no other kind.
pub(crate) fn numeric_id(identifier: &Identifier, most: u64) -> Option<Identifier> {
    let Identifier::Id(id) = identifier else { return None };
    let digits = id.trim_start_matches('0');
    crate::grammar::is_positive_integer(digits, most)
        .then(|| if digits.len() == id.len() { identifier.clone() } else { Identifier::Id(digits.into()) })
}

#[derive(PartialEq, Eq)]
struct Key(Identifier);

impl Key {
    fn rank(&self) -> (u8, usize, &str, &str) {
        match &self.0 {
            Identifier::Id(id) => (0, id.len(), id, ""),
            Identifier::Phone(phone) => (1, phone.len(), phone, ""),
            Identifier::External { provider, id } => (2, id.len(), id, provider),
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identifier {
        Identifier::Id(text.into())
    }

    #[test]
    fn numbers_stand_in_their_order_and_in_one_form() {
        let mut store = Store::new(|identifier| numeric_id(identifier, 99));
        for text in ["10", "9", "007", "7", "100", "0", "", "+8", "x"] {
            store.seed(&id(text), false);
        }
        store.seed(&Identifier::Phone("8".into()), false);
        assert_eq!(store.contacts(), [(id("7"), false), (id("9"), false), (id("10"), false)]);
        assert_eq!((store.held(&id("0010")), store.held(&id("8")), store.len()), (Some(false), None, 3));
    }

    #[test]
    fn what_is_held_stays_and_case_does_not_matter() {
        let mut store = Store::new(case_blind_id);
        store.seed(&id("AB"), true);
        store.seed(&id("cd"), false);
        store.seed(&id("ef"), false);
        assert_eq!(store.delete(&id("ab")), Fate::Held);
        assert_eq!((store.delete(&id("CD")), store.delete(&id("cd"))), (Fate::Deleted, Fate::Missing));
        assert_eq!(store.delete_all(), [id("ef")]);
        assert_eq!(store.contacts(), [(id("ab"), true)]);
        store.forget(&id("aB"));
        store.forget(&id("aB"));
        assert_eq!(store.len(), 0);
    }
}
