//! Talkdesk's JSON, as its page prints it. No logic.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::contract::{Identifier, Target};
use crate::reply::Object;

/// One item of a request's array.
#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Id { id: &'a str },
    Phone { phone_number: &'a str },
    External { external_provider: &'a str, external_id: &'a str },
}

impl<'a> From<&'a Identifier> for Item<'a> {
    fn from(identifier: &'a Identifier) -> Self {
        match identifier {
            Identifier::Id(id) => Self::Id { id },
            Identifier::Phone(phone_number) => Self::Phone { phone_number },
            Identifier::External { provider, id } => Self::External { external_provider: provider, external_id: id },
        }
    }
}

/// The request's body: an array at the top.
pub(super) fn to_json(targets: &[Target]) -> Vec<u8> {
    let items: Vec<_> = targets.iter().map(|target| Item::from(&target.identifier)).collect();
    // Strings cannot fail to serialise; an empty body would be refused by the upstream.
    serde_json::to_vec(&items).unwrap_or_default()
}

/// One item of a request's array, read back.
#[derive(Deserialize)]
pub(super) struct Asked {
    id: Option<String>,
    phone_number: Option<String>,
    external_provider: Option<String>,
    external_id: Option<String>,
}

impl Asked {
    /// The identifier, if the item has just one.
    pub(super) fn identifier(self) -> Option<Identifier> {
        match (self.id, self.phone_number, self.external_provider, self.external_id) {
            (Some(id), None, None, None) => Some(Identifier::Id(id.into())),
            (None, Some(phone), None, None) => Some(Identifier::Phone(phone.into())),
            (None, None, Some(provider), Some(id)) => {
                Some(Identifier::External { provider: provider.into(), id: id.into() })
            }
            _ => None,
        }
    }
}

/// The reply to a delete. `record_list_id` and `_links` are left out: nothing is decided by them.
#[derive(Deserialize)]
pub(super) struct Response {
    /// Advisory: it only takes a claim away where errors are not counted.
    pub(super) has_errors: Option<bool>,
    pub(super) total_deleted: Option<u64>,
    pub(super) total_errors: Option<u64>,
    #[serde(rename = "_embedded")]
    embedded: Option<Object<Embedded>>,
}

#[derive(Deserialize)]
struct Embedded {
    failed_records: Option<Vec<Object<FailedRecord>>>,
}

/// A record that failed to delete. There is no reason.
#[derive(Deserialize)]
pub(super) struct FailedRecord {
    pub(super) id: Option<String>,
}

impl Response {
    /// The records that failed; none where the list is left out.
    pub(super) fn failed_records(&self) -> impl Iterator<Item = &FailedRecord> {
        let list = self.embedded.as_ref().and_then(|Object(embedded)| embedded.failed_records.as_deref());
        list.unwrap_or_default().iter().map(|Object(record)| record)
    }

    /// How many different records are said to have failed.
    pub(super) fn records_listed(&self) -> u64 {
        let ids = self.failed_records().map(|record| record.id.as_deref().map(str::to_ascii_lowercase));
        ids.collect::<HashSet<_>>().len() as u64
    }
}

/// The error envelope. `description` and `fields` are for people.
#[derive(Deserialize)]
pub(super) struct Error<'a> {
    #[serde(borrow)]
    pub(super) code: Cow<'a, str>,
    #[serde(borrow, rename = "message")]
    _message: Cow<'a, str>,
}
