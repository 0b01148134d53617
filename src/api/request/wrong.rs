//! What is wrong with a body of JSON, and where: serde's words as a problem that repeats no value.

use serde::Deserialize;

use crate::api::problem::{self, Problem};

/// `at` stands before the pointer: where in the request the text is.
pub(super) fn explain<'b, T: Deserialize<'b>>(body: &'b [u8], first: &serde_json::Error, at: &str) -> Problem {
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
pub(super) const WHICH: &str = "which identifier: ";
