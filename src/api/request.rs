//! The body of `POST /v1/deletions`: JSON into types, never through a tree of values.
//!
//! Unknown and duplicate members are refused, with a pointer. Whether an identifier can be sent is not known here.

use std::fmt;
use std::sync::Arc;

use adapters::plain::Plain;
use adapters::{Identifier, Text};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use self::wrong::{WHICH, explain};
use super::problem::{self, Problem, Violation};

mod wrong;

/// The longest `ref`, `reason` and `reference`, in characters.
pub(super) const MAX_TEXT: usize = 128;

/// What a caller asks for; ids may stand in its body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeletionRequest<'b> {
    pub(super) connection: Option<Arc<str>>,
    #[serde(bound(deserialize = "'de: 'b"))]
    pub(super) contacts: Contacts<'b>,
    #[serde(default)]
    pub(super) dry_run: bool,
    pub(super) reason: Option<String>,
    pub(super) reference: Option<String>,
}

/// The contacts of a request, in order.
#[derive(Debug)]
pub(super) enum Contacts<'b> {
    /// Ids alone, as they stand in the body.
    Bare(Vec<&'b str>),
    /// Any.
    Any(Lists),
}

/// How many contacts will come is not known while they are read, so further ones get a list of their own, and none is moved.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<Vec<ContactRequest>>);

/// The first list of contacts has room for so many, each further one for twice as many as the one before.
const FIRST_LIST: usize = 4;
/// But for no more.
const LONGEST_LIST: usize = 1_024;

/// One contact: an object, or a bare string or integer as its id.
#[derive(Debug)]
pub(super) struct ContactRequest {
    pub(super) connection: Option<Text>,
    pub(super) identifier: Identifier,
    pub(super) reference: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContactObject {
    connection: Option<Text>,
    id: Option<Id>,
    phone: Option<Text>,
    external: Option<External>,
    r#ref: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct External {
    provider: Arc<str>,
    id: Text,
}

struct Id(Text);

/// Reads a request, or says what is wrong with it and where.
pub(super) fn parse(body: &[u8]) -> Result<DeletionRequest<'_>, Problem> {
    // Looked at as a whole, each of its texts need not be.
    let text = std::str::from_utf8(body).ok();
    let request = match text.and_then(read_plain) {
        Some(request) => request,
        None => {
            let read = text.map_or_else(|| serde_json::from_slice(body), serde_json::from_str);
            // Once more with paths: that is only worth its time where something is wrong.
            read.map_err(|err| explain::<DeletionRequest<'_>>(body, &err, ""))?
        }
    };
    let mut errors = Vec::new();
    let mut too_long = |pointer: String, text: Option<&str>| {
        if text.is_some_and(|text| text.chars().count() > MAX_TEXT) {
            let message = format!("must have at most {MAX_TEXT} characters");
            errors.push(Violation { pointer, code: "too_long", message });
        }
    };
    too_long("/reason".to_owned(), request.reason.as_deref());
    too_long("/reference".to_owned(), request.reference.as_deref());
    for (n, contact) in request.contacts.lists().enumerate() {
        if contact.reference.as_deref().is_some_and(|text| text.len() > MAX_TEXT) {
            too_long(format!("/contacts/{n}/ref"), contact.reference.as_deref());
        }
    }
    if request.contacts.is_empty() {
        errors.push(Violation {
            pointer: "/contacts".to_owned(),
            code: "no_contacts",
            message: "must name at least one contact".to_owned(),
        });
    }
    if errors.is_empty() { Ok(request) } else { Err(Problem::violations(errors)) }
}

/// The same of a body that is written plainly, and whose contacts are bare ids; `None` says nothing of it.
fn read_plain(text: &str) -> Option<DeletionRequest<'_>> {
    let mut json = Plain::new(text);
    let (mut connection, mut reason, mut reference, mut contacts) = (None, None, None, None);
    json.members(|json, name| {
        // No member may be there twice.
        let before = match name {
            "connection" => connection.replace(Arc::from(json.text()?)).is_some(),
            "reason" => reason.replace(json.text()?.to_owned()).is_some(),
            "reference" => reference.replace(json.text()?.to_owned()).is_some(),
            "contacts" => {
                let mut ids = Vec::new();
                json.items(|json| {
                    ids.push(json.text()?);
                    Some(())
                })?;
                contacts.replace(ids).is_some()
            }
            _ => true,
        };
        (!before).then_some(())
    })?;
    json.end()?;
    Some(DeletionRequest { connection, contacts: Contacts::Bare(contacts?), dry_run: false, reason, reference })
}

/// Reads one line of JSON Lines: the contact at this index, or what is wrong with it and where.
pub(super) fn parse_line(line: &[u8], index: usize, number: usize) -> Result<ContactRequest, Problem> {
    let at = format!("/contacts/{index}");
    let wrong = |problem: Problem| problem.detail(format!("At line {number} of the body."));
    let contact: ContactRequest =
        serde_json::from_slice(line).map_err(|err| wrong(explain::<ContactRequest>(line, &err, &at)))?;
    if contact.reference.as_deref().is_some_and(|text| text.chars().count() > MAX_TEXT) {
        let message = format!("must have at most {MAX_TEXT} characters");
        return Err(wrong(Problem::invalid(format!("{at}/ref"), "too_long", message)));
    }
    Ok(contact)
}

/// A request that names nobody.
pub(super) fn no_contacts() -> Problem {
    Problem::invalid("/contacts", "no_contacts", "must name at least one contact")
}

/// A request that names more contacts than it may.
pub(super) fn too_many(most: usize) -> Problem {
    Problem::new(&problem::TOO_MANY_CONTACTS).detail(format!("At most {most} in one body."))
}

/// A text of the caller's from a query parameter, if it is not too long.
pub(super) fn short(name: &str, text: String) -> Result<String, Problem> {
    if text.chars().count() > MAX_TEXT {
        let message = format!("must have at most {MAX_TEXT} characters");
        return Err(Problem::invalid(format!("?{name}"), "too_long", message));
    }
    Ok(text)
}

impl Contacts<'_> {
    /// How many they are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bare(ids) => ids.len(),
            Self::Any(Lists(lists)) => lists.iter().map(Vec::len).sum(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each of them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn into_vec(self) -> Vec<ContactRequest> {
        match self {
            Self::Bare(ids) => ids.into_iter().map(|id| ContactRequest::bare(id.into())).collect(),
            Self::Any(lists) => lists.into_iter().collect(),
        }
    }

    /// Those that can have more than an id.
    fn lists(&self) -> impl Iterator<Item = &ContactRequest> {
        let lists = match self {
            Self::Bare(_) => &[][..],
            Self::Any(Lists(lists)) => lists,
        };
        lists.iter().flatten()
    }
}

impl From<Vec<ContactRequest>> for Contacts<'_> {
    fn from(list: Vec<ContactRequest>) -> Self {
        Self::Any(Lists(vec![list]))
    }
}

impl Lists {
    fn push(&mut self, contact: ContactRequest) {
        match self.0.last_mut() {
            Some(list) if list.len() < list.capacity() => list.push(contact),
            before => {
                let room = before.map_or(FIRST_LIST, |full| 2 * full.len()).min(LONGEST_LIST);
                let mut list = Vec::with_capacity(room);
                list.push(contact);
                self.0.push(list);
            }
        }
    }
}

impl IntoIterator for Lists {
    type Item = ContactRequest;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Vec<ContactRequest>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl<'de> Deserialize<'de> for Contacts<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Lists;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lists, A::Error> {
                let mut contacts = Lists::default();
                while let Some(contact) = list.next_element()? {
                    contacts.push(contact);
                }
                Ok(contacts)
            }
        }
        deserializer.deserialize_seq(Shape).map(Self::Any)
    }
}

impl<'de> Deserialize<'de> for ContactRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = ContactRequest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, a string or an integer")
            }
            fn visit_str<E: Error>(self, id: &str) -> Result<ContactRequest, E> {
                Ok(ContactRequest::bare(id.into()))
            }
            fn visit_u64<E: Error>(self, id: u64) -> Result<ContactRequest, E> {
                Ok(ContactRequest::bare(id.to_string().into()))
            }
            fn visit_i64<E: Error>(self, id: i64) -> Result<ContactRequest, E> {
                Ok(ContactRequest::bare(id.to_string().into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ContactRequest, A::Error> {
                let object = ContactObject::deserialize(MapAccessDeserializer::new(map))?;
                let named = [object.id.is_some(), object.phone.is_some(), object.external.is_some()];
                let identifier = match (object.id, object.phone, object.external) {
                    (Some(Id(id)), None, None) => Identifier::Id(id),
                    (None, Some(phone), None) => Identifier::Phone(phone),
                    (None, None, Some(External { provider, id })) => Identifier::External { provider, id },
                    _ => {
                        let count = named.iter().filter(|named| **named).count();
                        let text = format!("must have exactly one of `id`, `phone` and `external`, and has {count}");
                        return Err(A::Error::custom(format!("{WHICH}{text}")));
                    }
                };
                Ok(ContactRequest { connection: object.connection, identifier, reference: object.r#ref })
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl ContactRequest {
    pub(super) fn bare(id: Text) -> Self {
        Self { connection: None, identifier: Identifier::Id(id), reference: None }
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
            fn visit_i64<E: Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string().into()))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: &str) -> String {
        let problem = parse(body.as_bytes()).unwrap_err();
        let debug = format!("{problem:?}");
        let code = problem.code();
        let pointer = debug.split("pointer: \"").nth(1).and_then(|rest| rest.split('"').next());
        let error = debug.split("code: \"").nth(2).and_then(|rest| rest.split('"').next());
        format!("{code} {} {}", pointer.unwrap_or("-"), error.unwrap_or("-"))
    }

    #[test]
    fn what_is_wrong_is_named_with_a_pointer() {
        for (body, expected) in [
            ("", "invalid_json - -"),
            ("{", "invalid_json - -"),
            ("{\"contacts\":[\"1\"]} x", "invalid_json - -"),
            ("{\"contacts\":[\"1\"],}", "invalid_json - -"),
            ("[]", "invalid_request  wrong_type"),
            ("{}", "invalid_request /contacts missing_member"),
            ("{\"contacts\":[]}", "invalid_request /contacts no_contacts"),
            ("{\"contacts\":{}}", "invalid_request /contacts wrong_type"),
            ("{\"contacts\":[\"1\"],\"filter\":{}}", "invalid_request /filter unknown_member"),
            ("{\"contacts\":[\"1\"],\"+14155550100\":{}}", "invalid_request  unknown_member"),
            ("{\"contacts\":[\"1\",{\"id\":1,\"e-mail\":{}}]}", "invalid_request /contacts/1 unknown_member"),
            ("{\"contacts\":[\"1\"],\"contacts\":[\"2\"]}", "invalid_request /contacts duplicate_member"),
            ("{\"contacts\":[\"1\",{\"id\":\"2\",\"id\":\"3\"}]}", "invalid_request /contacts/1/id duplicate_member"),
            ("{\"contacts\":[{\"id\":\"2\",\"phone\":\"+1\"}]}", "invalid_request /contacts/0 identifier_count"),
            ("{\"contacts\":[{}]}", "invalid_request /contacts/0 identifier_count"),
            ("{\"contacts\":[{\"ref\":\"a\"}]}", "invalid_request /contacts/0 identifier_count"),
            ("{\"contacts\":[{\"id\":null}]}", "invalid_request /contacts/0 identifier_count"),
            ("{\"contacts\":[1.5]}", "invalid_request /contacts/0 wrong_type"),
            ("{\"contacts\":[{\"id\":[1]}]}", "invalid_request /contacts/0/id wrong_type"),
            ("{\"contacts\":[null]}", "invalid_request /contacts/0 wrong_type"),
            ("{\"contacts\":[[\"1\"]]}", "invalid_request /contacts/0 wrong_type"),
            ("{\"contacts\":[99999999999999999999999999]}", "invalid_request /contacts/0 wrong_type"),
            (
                "{\"contacts\":[{\"external\":{\"provider\":\"p\"}}]}",
                "invalid_request /contacts/0/external/id missing_member",
            ),
            ("{\"contacts\":[\"1\"],\"dry_run\":\"yes\"}", "invalid_request /dry_run wrong_type"),
        ] {
            assert_eq!(problem(body), expected, "{body}");
        }
        let long = "x".repeat(129);
        let body = format!("{{\"contacts\":[{{\"id\":1,\"ref\":\"{long}\"}}],\"reason\":\"{long}\"}}");
        assert!(problem(&body).contains("too_long"));
    }

    #[test]
    fn no_value_is_repeated() {
        for body in [
            "{\"contacts\":\"s3cret\"}",
            "{\"contacts\":[\"1\"],\"dry_run\":\"s3cret\"}",
            "{\"contacts\":[{\"external\":\"s3cret\"}]}",
            "{\"contacts\":[\"1\"],\"s3cret\":1}",
            "{\"contacts\":[{\"id\":\"1\",\"s3cret\":1}]}",
            // What serde repeats, with serde's own words in it.
            "{\"contacts\":[\"1\"],\"x, expected s3cret\":1}",
            "{\"contacts\":[\"1\"],\"x`, expected s3cret at line 1 column 1\":1}",
            "{\"contacts\":[\"1\"],\"dry_run\":\"x expected s3cret at line 1 column 1\"}",
            "{\"contacts\":[\"1\"],\"dry_run\":\"x expected s3cret at line 1\"}",
            "{\"contacts\":\"which identifier: s3cret\"}",
            "{\"contacts\":[{\"external\":\"unknown field `s3cret`\"}]}",
        ] {
            assert!(!format!("{:?}", parse(body.as_bytes()).unwrap_err()).contains("s3cret"), "{body}");
        }
    }

    #[test]
    fn many_contacts_stay_in_their_order() {
        for count in [1, 4, 5, 12, 13, 10_000] {
            let numbers: Vec<_> = (0..count).collect();
            let texts: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            for (list, is_bare) in [(format!("{numbers:?}"), false), (format!("{texts:?}"), true)] {
                let body = format!("{{\"contacts\":{list}}}");
                let contacts = parse(body.as_bytes()).unwrap().contacts;
                assert_eq!((contacts.len(), matches!(contacts, Contacts::Bare(_))), (count, is_bare));
                let contacts = contacts.into_vec();
                assert!(contacts.iter().map(|contact| contact.identifier.text()).eq(&texts));
            }
        }
    }

    #[test]
    fn what_is_written_plainly_asks_for_what_serde_makes_of_it() {
        let good =
            r#"{"connection":"c","contacts":["6960cbe9b155d194e2f00001","","é","7"],"reason":"r","reference":"x"}"#;
        let parts = "{|}|[|]|,|:| |\n|\"|\\|\"a\"|\"\\n\"|7|null|true|[]|\u{a0}|\"\u{1}\"|\"\u{2028}\"|{\"id\":1}|\"contacts\":[\"1\"],|";
        let parts: Vec<_> = [parts, "\"reason\":null,|\"dry_run\":false,|\"filter\":1,"]
            .concat()
            .split('|')
            .map(str::to_owned)
            .collect();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut plain = 0;
        let told = |request: DeletionRequest<'_>| {
            let ids: Vec<_> = request.contacts.into_vec().into_iter().map(|contact| contact.identifier).collect();
            (request.connection, ids, request.dry_run, request.reason, request.reference)
        };
        for _ in 0..100_000 {
            let mut text = good.to_owned();
            for _ in 0..rng.usize(1..4) {
                let (from, to) = (rng.usize(..=text.len()), rng.usize(..8));
                if let Some(cut) = text.get(from..(from + to).min(text.len())) {
                    let end = from + cut.len();
                    text.replace_range(from..end, rng.choice(&parts).unwrap());
                }
            }
            if let Some(request) = read_plain(&text) {
                plain += 1;
                let serde = serde_json::from_str::<DeletionRequest<'_>>(&text).expect(&text);
                assert!(matches!(serde.contacts, Contacts::Any(_)));
                assert_eq!(told(request), told(serde), "{text}");
            }
        }
        assert!(plain > 5_000, "{plain}");
    }

    #[test]
    fn the_three_ways_to_name_a_contact() {
        let body = r#"{"contacts":["a",7,{"id":8,"ref":"r"},{"phone":"+1","connection":"c"},{"external":{"provider":"p","id":"x"}}]}"#;
        let contacts = parse(body.as_bytes()).unwrap().contacts.into_vec();
        let texts: Vec<_> = contacts.iter().map(|contact| contact.identifier.text()).collect();
        assert_eq!(texts, ["a", "7", "8", "+1", "x"]);
        assert_eq!(contacts[2].reference.as_deref(), Some("r"));
        assert_eq!(contacts[3].connection.as_deref(), Some("c"));
    }
}
