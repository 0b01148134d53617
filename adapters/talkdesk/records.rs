//! The double's record ids: which contact a record is, where that is known by phone or external id.
//!
//! Whether a contact is there is not its matter.

use std::collections::HashMap;

use crate::contract::Identifier;

/// The record ids of contacts that are known by phone or external id. Others are their own.
#[derive(Default)]
pub(super) struct Records {
    /// Still there after the contact is gone; another one if it comes again.
    id_of: HashMap<Identifier, String>,
    /// Whose record an id is.
    owner_of: HashMap<String, Identifier>,
    invented: u64,
}

impl Records {
    /// Gives a contact that comes, for the first time or again, a record of its own.
    pub(super) fn add(&mut self, identifier: &Identifier) {
        if !matches!(identifier, Identifier::Id(_)) {
            let id = self.invent();
            self.owner_of.insert(id.clone(), identifier.clone());
            if let Some(former) = self.id_of.insert(identifier.clone(), id) {
                self.owner_of.remove(&former);
            }
        }
    }

    /// The id of a contact's record; `None` if it never had one.
    pub(super) fn id<'r>(&'r self, identifier: &'r Identifier) -> Option<&'r str> {
        match identifier {
            Identifier::Id(id) => Some(id),
            other => self.id_of.get(other).map(String::as_str),
        }
    }

    /// The identifier by which the contact was seeded, if this is the id of such a record.
    pub(super) fn own(&self, identifier: Identifier) -> Identifier {
        match &identifier {
            Identifier::Id(id) if !self.owner_of.is_empty() => {
                self.owner_of.get(&id.to_ascii_lowercase()).cloned().unwrap_or(identifier)
            }
            _ => identifier,
        }
    }

    /// What a failure is named by: where there is no record, the vendor must name something all the same.
    pub(super) fn failed(&mut self, identifier: &Identifier) -> String {
        match self.id(identifier) {
            Some(id) => id.to_owned(),
            None => self.invent(),
        }
    }

    fn invent(&mut self) -> String {
        self.invented += 1;
        format!("5eedfa11-0000-4000-8000-{:012x}", self.invented)
    }
}
