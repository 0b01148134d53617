//! ONLYOFFICE's JSON: one envelope for successes and errors. No logic but what is the same text or number.
//!
//! The vendor's page prints member names in Pascal case (`ID`), its product writes camel case (`id`): both are read.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::reply::Object;

/// `{"status":0,"statusCode":200,"response":{…}}`, or `{"status":1,"statusCode":404,"error":{…}}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope<'a> {
    /// 0 for a success, 1 for an error.
    #[serde(alias = "Status")]
    pub(super) status: Option<i64>,
    /// The HTTP status once more.
    #[serde(alias = "StatusCode")]
    pub(super) status_code: Option<i64>,
    /// The contact, as it was.
    #[serde(alias = "Response", borrow)]
    pub(super) response: Option<Object<Contact<'a>>>,
    /// A localised message and a general code: nothing to decide by.
    #[serde(alias = "Error")]
    pub(super) error: Option<IgnoredAny>,
}

/// The one thing that counts of a contact: its id.
#[derive(Deserialize)]
pub(super) struct Contact<'a> {
    #[serde(borrow)]
    id: Option<Id<'a>>,
    #[serde(rename = "ID", borrow)]
    upper_id: Option<Id<'a>>,
}

/// An id: a number as the product writes it, or the same number as text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Id<'a> {
    Number(i64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Envelope<'_> {
    /// Whether any member of the vendor's envelope is there: other JSON objects are another shape.
    pub(super) fn says_something(&self) -> bool {
        self.status.is_some() || self.status_code.is_some() || self.response.is_some()
    }

    /// Every id that the reply gives to the contact.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Id<'_>> {
        self.response.iter().flat_map(|Object(contact)| contact.id.iter().chain(&contact.upper_id))
    }
}

impl Id<'_> {
    /// Whether this is the id with this canonical text.
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Self::Number(number) => text.parse() == Ok(*number),
            Self::Text(own) => own == text,
        }
    }
}
