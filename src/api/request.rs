//! The body of `POST /v1/deletions`: JSON into types, never through a tree of values.
//!
//! Unknown and duplicate members are refused, with a pointer. Whether an identifier can be sent is not known here.

use std::fmt;
use std::sync::Arc;

use adapters::{Identifier, Text};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::{self, Problem, Violation};

/// The longest `ref`, `reason` and `reference`, in characters.
pub(super) const MAX_TEXT: usize = 128;

/// What a caller asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeletionRequest {
    pub(super) connection: Option<String>,
    pub(super) contacts: Contacts,
    #[serde(default)]
    pub(super) dry_run: bool,
    pub(super) reason: Option<String>,
    pub(super) reference: Option<String>,
}

/// The contacts of a request, in order. How many will come is not known while they are read, so further ones get a list of
/// their own, and none is moved.
#[derive(Debug, Default)]
pub(super) struct Contacts(Vec<Vec<ContactRequest>>);

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
pub(super) fn parse(body: &[u8]) -> Result<DeletionRequest, Problem> {
    // Looked at as a whole, each of its texts need not be.
    let read = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    let request: DeletionRequest = match read {
        Ok(request) => request,
        // Once more with paths: that is only worth its time where something is wrong.
        Err(err) => return Err(explain::<DeletionRequest>(body, &err, "")),
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
    for (n, contact) in request.contacts.iter().enumerate() {
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

/// `at` stands before the pointer: where in the request the text is.
fn explain<'b, T: Deserialize<'b>>(body: &'b [u8], first: &serde_json::Error, at: &str) -> Problem {
    use serde_json::error::Category;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let found = serde_path_to_error::deserialize::<_, T>(&mut reader);
    let (path, err) = match found {
        Err(err) => (at.to_owned() + &pointer(err.path()), err.into_inner()),
        // The object is sound; something follows it.
        Ok(_) => {
            let place = format!("at line {}, column {}", first.line(), first.column());
            return Problem::new(&problem::INVALID_JSON).detail(format!("Something follows the JSON value, {place}."));
        }
    };
    let place = format!("at line {}, column {}", err.line(), err.column());
    match err.classify() {
        Category::Data => {
            let text = err.to_string();
            let (code, message) = describe(&text);
            // serde stands at the object when it finds these; the member is what the caller looks for.
            let path = match code {
                "duplicate_member" | "missing_member" => format!("{path}/{}", named(&text)),
                _ => path,
            };
            Problem::invalid(path, code, message)
        }
        Category::Eof => Problem::new(&problem::INVALID_JSON).detail(format!("The JSON ends too early, {place}.")),
        Category::Syntax | Category::Io => {
            Problem::new(&problem::INVALID_JSON).detail(format!("The JSON cannot be read, {place}."))
        }
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("/{index}")),
            // Only a member that is not known is kept back, and nothing lies below it: this points to the object that has it.
            Segment::Map { key } if !is_a_name(key) => break,
            Segment::Map { key } => text.push_str(&format!("/{key}")),
            Segment::Enum { variant } => text.push_str(&format!("/{variant}")),
            Segment::Unknown => text.push_str("/?"),
        }
    }
    text
}

/// serde's message as code and sentence. Values that it repeats are left out: they may be identifiers.
fn describe(message: &str) -> (&'static str, String) {
    // From the end, where serde's own words are: what it repeats before them can have the same in it.
    let place = |tail: &str| tail.bytes().all(|b| b.is_ascii_digit() || b" column".contains(&b));
    let message = message.rsplit_once(" at line ").filter(|(_, tail)| place(tail)).map_or(message, |(head, _)| head);
    let name = || named(message);
    if message.starts_with("unknown field") {
        let known = message.rsplit_once(", expected").map_or("", |(_, known)| known.trim());
        let what = if is_a_name(name()) { format!("`{}`", name()) } else { "a member".to_owned() };
        return ("unknown_member", format!("{what} is not known here; expected {known}"));
    }
    if message.starts_with("duplicate field") {
        return ("duplicate_member", format!("`{}` stands more than once", name()));
    }
    if message.starts_with("missing field") {
        return ("missing_member", format!("`{}` is missing", name()));
    }
    if let Some(text) = message.strip_prefix(WHICH) {
        return ("identifier_count", text.to_owned());
    }
    let expected = message.rsplit_once("expected ").map_or("another type", |(_, expected)| expected);
    (
        "wrong_type",
        format!(
            "must be {}",
            expected.replace("struct DeletionRequest", "an object").replace("struct External", "an object")
        ),
    )
}

/// The member that serde's message names.
fn named(message: &str) -> &str {
    message.split('`').nth(1).unwrap_or_default()
}

/// Whether a member's name looks like one, and may be repeated. What has a digit or a sign in it may be an identifier that
/// got into the wrong place.
fn is_a_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// Marks our own message among serde's.
const WHICH: &str = "which identifier: ";

impl Contacts {
    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &ContactRequest> {
        self.0.iter().flatten()
    }

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

impl IntoIterator for Contacts {
    type Item = ContactRequest;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Vec<ContactRequest>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl<'de> Deserialize<'de> for Contacts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Contacts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Contacts, A::Error> {
                let mut contacts = Contacts::default();
                while let Some(contact) = list.next_element()? {
                    contacts.push(contact);
                }
                Ok(contacts)
            }
        }
        deserializer.deserialize_seq(Shape)
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
            let body = format!("{{\"contacts\":{:?}}}", (0..count).collect::<Vec<_>>());
            let contacts = parse(body.as_bytes()).unwrap().contacts;
            assert_eq!((contacts.len(), contacts.iter().count()), (count, count));
            let texts = contacts.into_iter().map(|contact| contact.identifier.text().to_owned());
            assert!(texts.eq((0..count).map(|n| n.to_string())));
        }
    }

    #[test]
    fn the_three_ways_to_name_a_contact() {
        let body = r#"{"contacts":["a",7,{"id":8,"ref":"r"},{"phone":"+1","connection":"c"},{"external":{"provider":"p","id":"x"}}]}"#;
        let contacts: Vec<_> = parse(body.as_bytes()).unwrap().contacts.into_iter().collect();
        let texts: Vec<_> = contacts.iter().map(|contact| contact.identifier.text()).collect();
        assert_eq!(texts, ["a", "7", "8", "+1", "x"]);
        assert_eq!(contacts[2].reference.as_deref(), Some("r"));
        assert_eq!(contacts[3].connection.as_deref(), Some("c"));
    }
}
