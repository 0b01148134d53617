//! Changes texts and numbers inside a JSON text, and leaves every other byte as it is: order, blanks, members that stand twice.
//!
//! What becomes of a text or a number is said by the caller.

use serde::de::IgnoredAny;

/// One part of a JSON text that may be changed, without its quotes and escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// The name of a member.
    Name(&'t str),
    /// A text, and the name of the member that holds it, or holds the array in which it stands.
    Text { member: &'t str, text: &'t str },
    /// A number as it is written, and the same.
    Number { member: &'t str, number: &'t str },
}

/// An object or an array that is not closed yet.
struct Open {
    is_object: bool,
    /// The name that was read last; an array has that of its member.
    member: String,
    name_follows: bool,
}

/// The text with the parts changed for which `change` has another text, or another number. `None` if it is no JSON.
pub(super) fn rewrite(text: &str, mut change: impl FnMut(Part<'_>) -> Option<String>) -> Option<String> {
    // From here on every bracket and every quote is where it must be.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len());
    let mut open: Vec<Open> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut size = first.len_utf8();
        let member = open.last().map(|open| open.member.clone()).unwrap_or_default();
        let mut changed = None;
        match first {
            '"' => {
                size = quoted(rest);
                let value: String = serde_json::from_str(&rest[..size]).ok()?;
                match open.last_mut().filter(|open| open.is_object && open.name_follows) {
                    Some(open) => {
                        changed = change(Part::Name(&value));
                        (open.member, open.name_follows) = (value, false);
                    }
                    None => changed = change(Part::Text { member: &member, text: &value }),
                }
                changed = changed.map(|text| serde_json::Value::String(text).to_string());
            }
            '-' | '0'..='9' => {
                let more = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
                size = rest.find(|c| !more(c)).unwrap_or(rest.len());
                changed = change(Part::Number { member: &member, number: &rest[..size] });
            }
            '{' | '[' => open.push(Open { is_object: first == '{', member, name_follows: first == '{' }),
            '}' | ']' => drop(open.pop()),
            ',' => {
                if let Some(open) = open.last_mut() {
                    open.name_follows = open.is_object;
                }
            }
            _ => {}
        }
        match changed {
            Some(changed) => out.push_str(&changed),
            None => out.push_str(&rest[..size]),
        }
        rest = &rest[size..];
    }
    Some(out)
}

/// How long a text in quotes is, with both of them.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_parts_is_changed() {
        let text =
            "{ \"a\":[\"x\", 1.5e3,{\"b\\\"\":\"y\\\\\"}], \"a\" :null,\"c\":-7 , \"d\":[[true]],\"e\":\"ü\\n\"}";
        assert_eq!(rewrite(text, |_| None).as_deref(), Some(text));
        let mut seen = Vec::new();
        let changed = rewrite(text, |part| {
            seen.push(match part {
                Part::Name(name) => format!("name {name}"),
                Part::Text { member, text } => format!("{member}: {text}"),
                Part::Number { member, number } => format!("{member}: {number}"),
            });
            matches!(part, Part::Text { .. }).then(|| "\"".to_owned())
        });
        let expected =
            "{ \"a\":[\"\\\"\", 1.5e3,{\"b\\\"\":\"\\\"\"}], \"a\" :null,\"c\":-7 , \"d\":[[true]],\"e\":\"\\\"\"}";
        assert_eq!(changed.as_deref(), Some(expected));
        let parts = [
            "name a", "a: x", "a: 1.5e3", "name b\"", "b\": y\\", "name a", "name c", "c: -7", "name d", "name e",
            "e: ü\n",
        ];
        assert_eq!(seen, parts);
    }

    #[test]
    fn what_is_no_json_is_not_touched() {
        for text in ["", "<html>", "{\"a\":", "[1,]", "{}{}", "\"\\ud800\""] {
            assert_eq!(rewrite(text, |_| Some(String::new())), None, "{text}");
        }
        assert_eq!(rewrite("[]", |_| None).as_deref(), Some("[]"));
        assert_eq!(rewrite("\"x\"", |_| Some("y".to_owned())).as_deref(), Some("\"y\""));
    }
}
