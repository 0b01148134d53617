//! Contacts as the control API and its files write them, and when two identifiers name the same one.
//!
//! The form is that of the gateway's contract: `{"id": …}`, `{"phone": …}` or `{"external": {"provider", "id"}}`; a bare
//! string or integer is an id.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use adapters::{Identifier, IdentifierKind, Profile, Text};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// By what an upstream of this profile tells contacts apart.
#[derive(PartialEq, Eq, Hash, Clone)]
pub(super) struct Key<'i>(IdentifierKind, Cow<'i, str>);

impl<'i> Key<'i> {
    pub(super) fn of(profile: &Profile, identifier: &'i Identifier) -> Self {
        let kind = identifier.kind();
        let rule = profile.identifiers.iter().find(|rule| rule.kind == kind);
        Self(kind, rule.map_or_else(|| Cow::Borrowed(identifier.text()), |rule| rule.key(identifier)))
    }

    pub(super) fn into_owned(self) -> Key<'static> {
        Key(self.0, Cow::Owned(self.1.into_owned()))
    }
}

/// Whether an upstream of this profile could ever be asked to delete the contact by this identifier; if not, why.
pub(super) fn admit(profile: &Profile, identifier: &Identifier) -> Result<(), String> {
    if profile.admit(identifier).is_ok() {
        return Ok(());
    }
    let kind = identifier.kind();
    let rule = profile.identifiers.iter().find(|rule| rule.kind == kind);
    Err(match rule {
        Some(rule) => format!("`{}` must be {}", kind.as_str(), rule.syntax),
        None => {
            let kinds: Vec<_> = profile.identifiers.iter().map(|rule| rule.kind.as_str()).collect();
            format!("this upstream names contacts by {}, not by `{}`", kinds.join(", "), kind.as_str())
        }
    })
}

/// A contact that is read from JSON.
#[derive(Clone)]
pub(super) struct Contact {
    pub(super) identifier: Identifier,
    /// Whether the upstream refuses to delete it.
    pub(super) held: bool,
    /// Where it is, if the text says so.
    pub(super) upstream: Option<String>,
}

/// A contact that is written to JSON.
#[derive(Serialize)]
pub(super) struct Written<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<&'c str>,
    #[serde(flatten)]
    pub(super) identifier: &'c Identifier,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    upstream: Option<String>,
    id: Option<Id>,
    phone: Option<Text>,
    external: Option<External>,
    #[serde(default)]
    held: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct External {
    provider: Arc<str>,
    id: Text,
}

struct Id(Text);

impl From<Id> for Contact {
    fn from(id: Id) -> Self {
        Self { identifier: Identifier::Id(id.0), held: false, upstream: None }
    }
}

impl<'de> Deserialize<'de> for Contact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Contact;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a contact: an object with `id`, `phone` or `external`, a string or an integer")
            }
            fn visit_str<E: Error>(self, id: &str) -> Result<Contact, E> {
                Ok(Id(id.into()).into())
            }
            fn visit_u64<E: Error>(self, id: u64) -> Result<Contact, E> {
                Ok(Id(id.to_string().into()).into())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Contact, A::Error> {
                let Members { upstream, id, phone, external, held } =
                    Members::deserialize(MapAccessDeserializer::new(map))?;
                let identifier = match (id, phone, external) {
                    (Some(Id(id)), None, None) => Identifier::Id(id),
                    (None, Some(phone), None) => Identifier::Phone(phone),
                    (None, None, Some(External { provider, id })) => Identifier::External { provider, id },
                    _ => return Err(A::Error::custom("must have exactly one of `id`, `phone` and `external`")),
                };
                Ok(Contact { identifier, held, upstream })
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl Visitor<'_> for Shape {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an integer")
            }
            fn visit_str<E: Error>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.into()))
            }
            fn visit_u64<E: Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string().into()))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
