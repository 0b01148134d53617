//! JSON as it stands: every member, even where a name stands twice, in order. It decides nothing.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// `null`
    Null,
    /// `true` or `false`
    Flag(bool),
    /// A whole number, as text.
    Whole(String),
    /// Another number.
    Real(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Tree>),
    /// An object.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// The value of a text that is JSON and nothing else, however deep.
    pub fn of(text: &[u8]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        reader.disable_recursion_limit();
        let tree = Self::deserialize(&mut reader).ok()?;
        reader.end().ok().map(|()| tree)
    }

    /// The members of an object; none of anything else.
    pub fn members(&self) -> &[(String, Tree)] {
        match self {
            Self::Map(members) => members,
            _ => &[],
        }
    }

    /// The values of the members with one of these names.
    pub fn all<'t>(&'t self, names: &'t [&str]) -> impl Iterator<Item = &'t Tree> {
        self.members().iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value)
    }

    /// The first of them.
    pub fn one<'t>(&'t self, names: &'t [&str]) -> Option<&'t Tree> {
        self.all(names).next()
    }

    /// The items of an array; none of anything else.
    pub fn items(&self) -> &[Tree] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// A string, or a whole number as one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Whole(text) => Some(text),
            _ => None,
        }
    }

    /// A string and nothing else.
    pub fn string(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number from 0.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Whole(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Whether this is not `null`.
    pub fn is_something(&self) -> bool {
        *self != Self::Null
    }

    /// Whether some object in it has two members of one name.
    pub fn stutters(&self) -> bool {
        let mut names: Vec<_> = self.members().iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
            || self.members().iter().any(|(_, value)| value.stutters())
            || self.items().iter().any(Tree::stutters)
    }

    /// Every string and whole number in it, the names of members apart.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<_> = self.text().into_iter().collect();
        texts.extend(self.items().iter().flat_map(Tree::texts));
        texts.extend(self.members().iter().flat_map(|(_, value)| value.texts()));
        texts
    }

    /// Every name of a member in it.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.members().iter().map(|(name, _)| name.as_str()).collect();
        names.extend(self.items().iter().flat_map(Tree::names));
        names.extend(self.members().iter().flat_map(|(_, value)| value.names()));
        names
    }

    /// The value as JSON text, in the same order.
    pub fn to_json(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Whole(text) => text.clone(),
            Self::Real(number) => serde_json::Value::from(*number).to_string(),
            Self::Text(text) => quoted(text),
            Self::List(items) => format!("[{}]", items.iter().map(Tree::to_json).collect::<Vec<_>>().join(",")),
            Self::Map(members) => {
                let members = members.iter().map(|(name, value)| format!("{}:{}", quoted(name), value.to_json()));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Whether a word may be part of a member's name, in a text that need not be JSON as a whole: it stands in a string that an
/// object or a comma begins, or characters are escaped.
pub fn may_name(text: &[u8], word: &str) -> bool {
    // A refusal leaves control characters out of a name that it shows.
    let text = String::from_utf8_lossy(text).replace(char::is_control, "");
    // An escaped quote does not end a name.
    let text = text.replace("\\\\", "").replace("\\\"", "");
    let begins = |before: &str| {
        let outside = before.rsplit_once('"').map_or(before, |(outside, _)| outside);
        outside.trim_end().ends_with(['{', ','])
    };
    text.contains("\\u") || text.match_indices(word).any(|(at, _)| begins(&text[..at]))
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
                Ok(Tree::Flag(flag))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
                Ok(Tree::Whole(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
                Ok(Tree::Whole(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
                Ok(Tree::Real(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Tree::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Tree::Map(members))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
