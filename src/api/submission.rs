//! From a request to what the ledger accepts: connections found, identifiers checked and hashed, duplicates set aside.
//!
//! Contacts come one by one, so that a million of them need not stand in memory: whoever fills an [`Intake`] takes the full
//! parts out of it.

use std::collections::HashMap;
use std::sync::Arc;

use adapters::{Identifier, Slot};
use hashbrown::HashTable;
use siphasher::sip128::SipHasher24;
use std::hash::Hasher;

use super::auth::Caller;
use super::idempotency::{Fingerprint, RequestKey};
use super::request::{ContactRequest, Contacts};
use super::{Problem, problem};
use crate::clock;
use crate::engine::Settled;
use crate::store::{Accept, Asked, DeletionId, Head, IdentifierHash, PART, Part};
use crate::tenants::{Connection, Tenant};

/// What is asked for besides the contacts.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) connection: Option<Arc<str>>,
    pub(super) reason: Option<String>,
    pub(super) reference: Option<String>,
}

/// A deletion that is being read.
pub(super) struct Intake<'c> {
    caller: &'c Caller,
    head: Head,
    fallback: Option<Arc<str>>,
    ways: Vec<Way>,
    shares: HashMap<Arc<str>, u16>,
    hash_key: [u8; 16],
    seen: Seen,
    fingerprint: Option<Fingerprint>,
    part: Filling,
}

/// The part that is being filled.
#[derive(Default)]
struct Filling {
    number: u32,
    first: u32,
    contacts: Vec<Asked>,
    identifiers: Vec<Identifier>,
    settled: Vec<(Slot, Settled)>,
    /// So many of them were looked at.
    judged: usize,
}

/// So many contacts are looked at together: each step is a short loop over all of them, whose turns a processor overlaps. A
/// part ends with the last of them.
const AT_ONCE: usize = 50;
const _: () = assert!(PART.is_multiple_of(AT_ONCE));

/// A connection, and what is hashed before each of its identifiers.
struct Way {
    connection: Arc<Connection>,
    /// It has taken in the whole words of that: the rest goes with the identifier, and the two fastest at one go.
    hasher: SipHasher24,
    text: Vec<u8>,
    rest: usize,
}

/// Which contacts stand for those that come later. A million of them take 27 MiB: 128 bits of each, whose key nobody
/// outside has, say as much as the identifiers would.
struct Seen {
    hashes: Vec<IdentifierHash>,
    slots: HashTable<u32>,
}

/// A deletion that can be accepted, but for its earlier parts.
pub(super) struct Submission {
    pub(super) accept: Accept,
    /// The connection of each of its shares.
    pub(super) connections: Vec<Arc<Connection>>,
}

impl<'c> Intake<'c> {
    /// With no contact yet. Under a key, all contacts are hashed together.
    pub(super) fn new(caller: &'c Caller, options: Options, hash_key: [u8; 16], key: Option<RequestKey<'_>>) -> Self {
        let tenant = &caller.key.tenant;
        let head = Head {
            id: DeletionId::new(),
            tenant: Arc::clone(&tenant.id),
            created_ms: clock::unix_ms(),
            reason: options.reason,
            reference: options.reference,
            shares: Vec::new(),
        };
        let fingerprint = key.map(|key| Fingerprint::new(key, head.reason.as_deref(), head.reference.as_deref()));
        Self {
            caller,
            head,
            fallback: options.connection.or_else(|| tenant.default_connection.clone()),
            ways: Vec::new(),
            shares: HashMap::new(),
            hash_key,
            seen: Seen { hashes: Vec::new(), slots: HashTable::new() },
            fingerprint,
            part: Filling::default(),
        }
    }

    /// The same, before its first contact, with room for so many.
    pub(super) fn with_room(mut self, contacts: usize) -> Self {
        self.seen = Seen { hashes: Vec::with_capacity(contacts), slots: HashTable::with_capacity(contacts) };
        self.part.contacts.reserve(contacts.min(PART));
        self.part.identifiers.reserve(contacts.min(PART));
        self
    }

    /// Its id.
    pub(super) fn id(&self) -> DeletionId {
        self.head.id
    }

    /// How many contacts it has so far.
    pub(super) fn len(&self) -> usize {
        self.part.first as usize + self.part.contacts.len()
    }

    /// Takes contacts in; returned are the parts that got full, but for the last one.
    pub(super) fn add_all(&mut self, contacts: Contacts<'_>) -> Result<Vec<Part>, Problem> {
        let mut full = Vec::new();
        match contacts {
            Contacts::Bare(ids) => {
                let share = self.share(None)?;
                for ids in ids.chunks(AT_ONCE) {
                    full.extend(self.full_part());
                    let Filling { contacts, identifiers, .. } = &mut self.part;
                    contacts.resize(contacts.len() + ids.len(), Asked { share, hash: None, reference: None });
                    identifiers.extend(ids.iter().map(|id| Identifier::Id((*id).into())));
                    self.judge();
                }
            }
            Contacts::Any(contacts) => {
                for contact in contacts {
                    full.extend(self.full_part());
                    self.add(contact)?;
                }
            }
        }
        Ok(full)
    }

    /// Takes a contact in. One whose connection does not exist refuses the whole request.
    pub(super) fn add(&mut self, request: ContactRequest) -> Result<(), Problem> {
        let ContactRequest { connection, identifier, reference } = request;
        let share = self.share(connection.as_deref())?;
        self.part.contacts.push(Asked { share, hash: None, reference });
        self.part.identifiers.push(identifier);
        if self.part.contacts.len() - self.part.judged == AT_ONCE {
            self.judge();
        }
        Ok(())
    }

    /// Hashes the contacts that came since the last time, and settles what needs no upstream: identifiers that the dialect cannot
    /// send, and contacts that stand earlier already.
    fn judge(&mut self) {
        let Self {
            ways, seen, fingerprint, part: Filling { first, contacts, identifiers, settled, judged, .. }, ..
        } = self;
        let from = std::mem::replace(judged, contacts.len());
        let (contacts, slots) = (&mut contacts[from..], *first + from as u32..);
        let mut refused_here = Vec::new();
        for ((contact, identifier), slot) in contacts.iter().zip(&identifiers[from..]).zip(slots.clone()) {
            let way = &mut ways[usize::from(contact.share)];
            let admitted = way.connection.registration.profile.admit(identifier);
            // Two spellings of one contact are the same, where the connection's identifiers have several.
            let canonical = admitted.as_ref().ok().map(|rule| rule.key(identifier));
            if let Some(fingerprint) = fingerprint {
                let text = match &canonical {
                    Some(canonical) => canonical.as_bytes().to_vec(),
                    None => refused(identifier),
                };
                let kind = identifier.kind().as_str();
                fingerprint.add(&way.connection.name, kind, &text, contact.reference.as_deref().unwrap_or_default());
            }
            seen.hashes.push(way.hash(identifier, canonical.as_deref()));
            if let Err(fault) = admitted {
                refused_here.push((Slot(slot), Settled::refused_here(&fault)));
            }
        }
        let mut refused_here = refused_here.into_iter().peekable();
        for (contact, slot) in contacts.iter_mut().zip(slots) {
            let slot = Slot(slot);
            contact.hash = seen.hashes.get(slot.0 as usize).copied();
            match refused_here.next_if(|(refused, _)| *refused == slot) {
                Some(refused) => settled.push(refused),
                None => settled.extend(seen.twin(slot).map(|twin| (slot, Settled::duplicate(twin)))),
            }
        }
    }

    /// The share of a connection, found when it is first named.
    fn share(&mut self, named: Option<&str>) -> Result<u16, Problem> {
        let Some(name) = named.or(self.fallback.as_deref()) else {
            let message = "names no connection, and neither the request nor the tenant has a default";
            return Err(Problem::invalid(format!("/contacts/{}", self.len()), "no_connection", message));
        };
        // Most often it is that of the contact before.
        let before = self.part.contacts.last().map(|contact| contact.share);
        if let Some(share) = before.filter(|share| *self.ways[usize::from(*share)].connection.name == *name) {
            return Ok(share);
        }
        if let Some(share) = self.shares.get(name) {
            return Ok(*share);
        }
        let connection = Arc::clone(self.caller.connection(name)?);
        // A tenant cannot have so many connections that this fails.
        let share = u16::try_from(self.ways.len()).map_err(|_| Problem::new(&problem::TOO_LARGE))?;
        self.shares.insert(Arc::clone(&connection.name), share);
        self.head.shares.push(Arc::clone(&connection.name));
        self.ways.push(Way::new(connection, &self.head.tenant, &self.hash_key));
        Ok(share)
    }

    /// The part that is full, if there is one.
    pub(super) fn full_part(&mut self) -> Option<Part> {
        if self.part.contacts.len() < PART {
            return None;
        }
        self.judge();
        let (number, first) = (self.part.number + 1, self.part.first + self.part.contacts.len() as u32);
        let next = Filling { number, first, ..Filling::default() };
        Some(std::mem::replace(&mut self.part, next).into())
    }

    /// Ends it. A key whose deletion was finished before this moment is free again.
    pub(super) fn finish(mut self, free_before_ms: i64) -> Submission {
        self.judge();
        let claim = self.fingerprint.map(|fingerprint| fingerprint.claim(free_before_ms));
        let accept = Accept { head: self.head, last: Arc::new(self.part.into()), claim, hold: false };
        Submission { accept, connections: self.ways.into_iter().map(|way| way.connection).collect() }
    }

    /// Whose it is.
    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.caller.key.tenant
    }
}

impl From<Filling> for Part {
    fn from(full: Filling) -> Self {
        let Filling { number, first, contacts, identifiers, settled, judged: _ } = full;
        Self { number, first, contacts: Arc::new(contacts), identifiers, settled }
    }
}

/// What stands for an identifier that its connection does not take.
fn refused(identifier: &Identifier) -> Vec<u8> {
    let provider = match identifier {
        Identifier::External { provider, .. } => format!("{provider}\0"),
        _ => String::new(),
    };
    format!("{identifier:?}{provider}{}", identifier.text()).into_bytes()
}

impl Way {
    fn new(connection: Arc<Connection>, tenant: &str, hash_key: &[u8; 16]) -> Self {
        let mut text = [tenant, "\0", &connection.name, "\0"].concat().into_bytes();
        let mut hasher = SipHasher24::new_with_key(hash_key);
        let words = text.len() / 8 * 8;
        hasher.write(&text[..words]);
        text.drain(..words);
        let rest = text.len();
        Self { connection, hasher, text, rest }
    }

    fn hash(&mut self, identifier: &Identifier, canonical: Option<&str>) -> IdentifierHash {
        self.text.truncate(self.rest);
        self.text.push(identifier.kind() as u8);
        match (canonical, identifier) {
            (Some(text), _) => self.text.extend_from_slice(text.as_bytes()),
            (None, Identifier::External { provider, id }) => {
                self.text.extend_from_slice(provider.as_bytes());
                self.text.push(0);
                self.text.extend_from_slice(id.as_bytes());
            }
            (None, _) => self.text.extend_from_slice(identifier.text().as_bytes()),
        }
        u128::from(self.hasher.hash(&self.text)).to_le_bytes()
    }
}

impl Seen {
    /// The contact that stands for this one, if there is one; else this one stands for those that follow.
    fn twin(&mut self, slot: Slot) -> Option<Slot> {
        let hash = self.hashes.get(slot.0 as usize)?;
        // The hash is one already, and nobody outside can choose it.
        let short = |hash: &IdentifierHash| u64::from_le_bytes(hash.first_chunk().copied().unwrap_or_default());
        let hashes = &self.hashes;
        let of = |slot: &u32| hashes.get(*slot as usize).map_or(0, short);
        let same = |other: &u32| hashes.get(*other as usize) == Some(hash);
        match self.slots.entry(short(hash), same, of) {
            hashbrown::hash_table::Entry::Occupied(twin) => Some(Slot(*twin.get())),
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(slot.0);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adapters::DIALECTS;
    use siphasher::sip128::Hasher128;

    use super::*;
    use crate::outbound::sample_connection;

    /// Hashes are kept: they must stay what they were.
    #[test]
    fn a_hash_is_of_tenant_connection_kind_and_identifier_in_that_order() {
        for name in (1..20).map(|letters| "c".repeat(letters)) {
            let connection = Connection { name: name.as_str().into(), ..sample_connection(&DIALECTS[0]) };
            let mut way = Way::new(Arc::new(connection), "acme", &[7; 16]);
            let external =
                || Identifier::External { provider: "p".into(), id: "a much longer one, of 33 letters".into() };
            for (identifier, canonical, expected) in [
                (Identifier::Id("1".into()), None, "1"),
                (external(), None, "p\0a much longer one, of 33 letters"),
                (Identifier::Phone("+1".into()), Some("canonical"), "canonical"),
                (external(), Some(""), ""),
            ] {
                let mut whole = SipHasher24::new_with_key(&[7; 16]);
                for part in ["acme", "\0", &name, "\0"] {
                    whole.write(part.as_bytes());
                }
                whole.write_u8(identifier.kind() as u8);
                whole.write(expected.as_bytes());
                assert_eq!(way.hash(&identifier, canonical), whole.finish128().as_bytes(), "{name} {expected}");
            }
        }
    }
}
