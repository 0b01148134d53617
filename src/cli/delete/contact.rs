//! One contact, as the contract writes it, in one spelling: what a line or a row of a file becomes.
//!
//! It does not know what identifiers an upstream takes; the gateway says that. No text of it repeats an identifier.

use adapters::Identifier;
use serde::{Deserialize, Deserializer, Serialize};

/// The longest `ref`, in characters.
const MAX_REF: usize = 128;

/// A contact. It names one identifier, once [`Contact::checked`].
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contact {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "id_as_text")]
    pub(super) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external: Option<External>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<String>,
}

/// An id in a third system.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct External {
    pub(super) provider: String,
    pub(super) id: String,
}

/// A string or a whole number: both are the same id.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Whole(u64),
    Negative(i64),
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        match id {
            Id::Text(text) => text,
            Id::Whole(number) => number.to_string(),
            Id::Negative(number) => number.to_string(),
        }
    }
}

fn id_as_text<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Id>::deserialize(reader)?.map(String::from))
}

impl Contact {
    /// A contact by its native id.
    pub(super) fn by_id(id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::default() }
    }

    /// Reads JSON: an object as in the contract, or a bare string or whole number. What is wrong continues "this line …".
    pub(super) fn parse(json: &str) -> Result<Self, &'static str> {
        let contact = match json.starts_with('{') {
            true => serde_json::from_str(json).map_err(|err| explain(&err))?,
            false => Self::by_id(&serde_json::from_str::<String>(json).map_err(|err| explain(&err))?),
        };
        contact.checked()
    }

    /// The contact, if it names one identifier and its `ref` is short enough.
    pub(super) fn checked(self) -> Result<Self, &'static str> {
        let named = [self.id.is_some(), self.phone.is_some(), self.external.is_some()];
        match named.iter().filter(|named| **named).count() {
            0 => return Err("names no contact: it needs one of id, phone, external"),
            1 => {}
            _ => return Err("names more than one of id, phone, external"),
        }
        if self.r#ref.as_deref().is_some_and(|text| text.len() > MAX_REF && text.chars().count() > MAX_REF) {
            return Err("has a ref of more than 128 characters");
        }
        Ok(self)
    }

    /// JSON on one line, always the same for the same contact.
    pub(super) fn line(&self) -> String {
        // Texts in a struct: there is nothing that could not be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<Identifier> for Contact {
    fn from(identifier: Identifier) -> Self {
        match identifier {
            Identifier::Id(id) => Self::by_id(&id),
            Identifier::Phone(phone) => Self { phone: Some(phone.to_string()), ..Self::default() },
            Identifier::External { provider, id } => {
                let external = External { provider: provider.to_string(), id: id.to_string() };
                Self { external: Some(external), ..Self::default() }
            }
        }
    }
}

/// serde's message without the values that it repeats: they may be identifiers.
fn explain(err: &serde_json::Error) -> &'static str {
    let text = err.to_string();
    if !err.is_data() {
        "is not JSON"
    } else if text.starts_with("unknown field") {
        "has a member that is not known; known are id, phone, external, ref, connection"
    } else if text.starts_with("duplicate field") {
        "has a member twice"
    } else {
        "is not a contact: an id is a string or a whole number, an external has provider and id, the rest are strings"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_contact_are_one_line() {
        for (spelling, line) in [
            (r#""7""#, r#"{"id":"7"}"#),
            (r#"{"id": 7}"#, r#"{"id":"7"}"#),
            (r#"{"ref":"a","id":"7","phone":null}"#, r#"{"id":"7","ref":"a"}"#),
            (r#"{"connection":"c","phone":"+1"}"#, r#"{"phone":"+1","connection":"c"}"#),
            (r#"{"external":{"id":"x","provider":"p"}}"#, r#"{"external":{"provider":"p","id":"x"}}"#),
            ("\"a\\u0022b\"", r#"{"id":"a\"b"}"#),
        ] {
            assert_eq!(Contact::parse(spelling).map(|contact| contact.line()), Ok(line.to_owned()));
        }
    }

    #[test]
    fn mistakes_are_explained_without_repeating_a_value() {
        let long = format!(r#"{{"id":"4711","ref":"{}"}}"#, "é".repeat(129));
        for (wrong, part) in [
            (r#"{"id":"4711""#, "not JSON"),
            (r#"{"id":"4711"} x"#, "not JSON"),
            (r#"{"ids":"4711"}"#, "not known"),
            (r#"{"id":"4711","id":"4711"}"#, "twice"),
            (r#"{"id":4711.5}"#, "not a contact"),
            (r#"{"id":["4711"]}"#, "not a contact"),
            (r#"{"external":{"id":"4711"}}"#, "not a contact"),
            (r#"{"ref":"4711"}"#, "names no contact"),
            (r#"{"id":"4711","phone":"+4711"}"#, "more than one"),
            (&long, "128"),
        ] {
            let text = Contact::parse(wrong).unwrap_err();
            assert!(text.contains(part) && !text.contains("4711"), "{wrong}: {text}");
        }
    }
}
