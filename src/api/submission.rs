//! From a request to what the ledger accepts: connections found, identifiers checked and hashed, duplicates set aside.
//!
//! Contacts come one by one, so that a million of them need not stand in memory: whoever fills an [`Intake`] takes the full
//! parts out of it.

use std::collections::HashMap;
use std::sync::Arc;

use adapters::{Fault, IdentifierRule, Slot};
use hashbrown::HashTable;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

use super::auth::Caller;
use super::idempotency::{Fingerprint, RequestKey};
use super::request::ContactRequest;
use super::{Problem, problem};
use crate::clock;
use crate::engine::Settled;
use crate::store::{Accept, Contact, DeletionId, Head, IdentifierHash, PART, Part};
use crate::tenants::{Connection, Tenant};

/// What is asked for besides the contacts.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) connection: Option<String>,
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
    /// The part that is being filled.
    part: Part,
}

/// A connection, and what hashes of its identifiers begin with.
struct Way {
    connection: Arc<Connection>,
    hasher: SipHasher24,
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
            fallback: options.connection.map(Arc::from).or_else(|| tenant.default_connection.clone()),
            ways: Vec::new(),
            shares: HashMap::new(),
            hash_key,
            seen: Seen { hashes: Vec::new(), slots: HashTable::new() },
            fingerprint,
            part: Part { number: 0, first: 0, contacts: Vec::new(), settled: Vec::new() },
        }
    }

    /// The same, before its first contact, with room for so many.
    pub(super) fn with_room(mut self, contacts: usize) -> Self {
        self.seen = Seen { hashes: Vec::with_capacity(contacts), slots: HashTable::with_capacity(contacts) };
        self.part.contacts.reserve(contacts.min(PART));
        self
    }

    /// Its id.
    pub(super) fn id(&self) -> DeletionId {
        self.head.id
    }

    /// How many contacts it has so far.
    pub(super) fn len(&self) -> usize {
        self.seen.hashes.len()
    }

    /// Takes a contact in. One whose connection does not exist refuses the whole request.
    pub(super) fn add(&mut self, request: ContactRequest) -> Result<(), Problem> {
        let ContactRequest { connection, identifier, reference } = request;
        let share = self.share(connection.as_deref())?;
        let way = &self.ways[usize::from(share)];
        let slot = Slot(self.len() as u32);
        let admitted = way.connection.registration.profile.admit(&identifier);
        // Two spellings of one contact are the same, where the connection's identifiers have several.
        let canonical = admitted.as_ref().ok().map(|rule| rule.key(&identifier));
        let hash = way.hash(&identifier, canonical.as_deref());
        if let Some(fingerprint) = &mut self.fingerprint {
            let text = match &canonical {
                Some(canonical) => canonical.as_bytes().to_vec(),
                None => refused(&identifier),
            };
            let kind = identifier.kind().as_str();
            fingerprint.add(&way.connection.name, kind, &text, reference.as_deref().unwrap_or_default());
        }
        drop(canonical);
        if let Some(settled) = self.settle_here(slot, hash, admitted) {
            self.part.settled.push((slot, settled));
        }
        self.part.contacts.push(Contact { share, identifier, hash, reference });
        Ok(())
    }

    /// What needs no upstream: identifiers that the dialect cannot send, and contacts that stand earlier already.
    fn settle_here(
        &mut self,
        slot: Slot,
        hash: IdentifierHash,
        admitted: Result<&'static IdentifierRule, Fault>,
    ) -> Option<Settled> {
        match admitted {
            Err(fault) => {
                self.seen.hashes.push(hash);
                Some(Settled::refused_here(&fault))
            }
            Ok(_) => self.seen.twin(slot, hash).map(Settled::duplicate),
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
        let mut hasher = SipHasher24::new_with_key(&self.hash_key);
        for text in [&self.head.tenant, &connection.name] {
            hasher.write(text.as_bytes());
            hasher.write_u8(0);
        }
        self.shares.insert(Arc::clone(&connection.name), share);
        self.head.shares.push(Arc::clone(&connection.name));
        self.ways.push(Way { connection, hasher });
        Ok(share)
    }

    /// The part that is full, if there is one.
    pub(super) fn full_part(&mut self) -> Option<Part> {
        if self.part.contacts.len() < PART {
            return None;
        }
        let (number, first) = (self.part.number + 1, self.part.first + self.part.contacts.len() as u32);
        let next = Part { number, first, contacts: Vec::new(), settled: Vec::new() };
        Some(std::mem::replace(&mut self.part, next))
    }

    /// Ends it. A key whose deletion was finished before this moment is free again.
    pub(super) fn finish(self, free_before_ms: i64) -> Submission {
        let claim = self.fingerprint.map(|fingerprint| fingerprint.claim(free_before_ms));
        let accept = Accept { head: self.head, last: Arc::new(self.part), claim, hold: false };
        Submission { accept, connections: self.ways.into_iter().map(|way| way.connection).collect() }
    }

    /// Whose it is.
    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.caller.key.tenant
    }
}

/// What stands for an identifier that its connection does not take.
fn refused(identifier: &adapters::Identifier) -> Vec<u8> {
    let provider = match identifier {
        adapters::Identifier::External { provider, .. } => format!("{provider}\0"),
        _ => String::new(),
    };
    format!("{identifier:?}{provider}{}", identifier.text()).into_bytes()
}

impl Way {
    fn hash(&self, identifier: &adapters::Identifier, canonical: Option<&str>) -> IdentifierHash {
        let mut hasher = self.hasher;
        hasher.write_u8(identifier.kind() as u8);
        match (canonical, identifier) {
            (Some(text), _) => hasher.write(text.as_bytes()),
            (None, adapters::Identifier::External { provider, id }) => {
                hasher.write(provider.as_bytes());
                hasher.write_u8(0);
                hasher.write(id.as_bytes());
            }
            (None, _) => hasher.write(identifier.text().as_bytes()),
        }
        hasher.finish128().as_bytes()
    }
}

impl Seen {
    /// The contact that stands for this one, if there is one; else this one stands for those that follow.
    fn twin(&mut self, slot: Slot, hash: IdentifierHash) -> Option<Slot> {
        self.hashes.push(hash);
        // The hash is one already, and nobody outside can choose it.
        let short = |hash: &IdentifierHash| u64::from_le_bytes(hash.first_chunk().copied().unwrap_or_default());
        let hashes = &self.hashes;
        let of = |slot: &u32| hashes.get(*slot as usize).map_or(0, short);
        let same = |other: &u32| hashes.get(*other as usize) == Some(&hash);
        match self.slots.entry(short(&hash), same, of) {
            hashbrown::hash_table::Entry::Occupied(twin) => Some(Slot(*twin.get())),
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(slot.0);
                None
            }
        }
    }
}
