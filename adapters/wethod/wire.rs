//! Wethod's JSON. Only errors have a documented shape: `{"key":"…","message":"…","failures":[…]}`; its other members
//! (`headers`, `status_code`, …) belong to the server's framework and say nothing.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Any JSON, of which only an object's error members are kept.
#[derive(Debug, Default)]
pub(super) struct Body<'a>(Members<'a>);

/// The members that make an object an error. `null` counts as absent; a member that stands twice is no JSON for us.
#[derive(Debug, Default, Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    key: Option<Key<'a>>,
    failures: Option<IgnoredAny>,
    // Not documented, but public clients look for these.
    error: Option<IgnoredAny>,
    errors: Option<IgnoredAny>,
    violations: Option<IgnoredAny>,
    // A body that denies its own status is no success.
    #[serde(default)]
    success: Denial,
}

/// Whether a member is the word `false`.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Denial {
    Said(bool),
    #[default]
    Silent,
    Other(IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Key<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Other(IgnoredAny),
}

impl Body<'_> {
    /// The vendor's code for the error: the mark of its own envelope.
    pub(super) fn key(&self) -> Option<&str> {
        match &self.0.key {
            Some(Key::Text(text)) => Some(text),
            Some(Key::Other(_)) | None => None,
        }
    }

    /// Whether any error member is there.
    pub(super) fn is_error(&self) -> bool {
        let Members { key, failures, error, errors, violations, success } = &self.0;
        key.is_some()
            || failures.is_some()
            || error.is_some()
            || errors.is_some()
            || violations.is_some()
            || matches!(success, Denial::Said(false))
    }
}

// Written out because a derived struct would also be read from an array, by position.
impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Shape<'a> {
            type Value = Body<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Members::deserialize(MapAccessDeserializer::new(map)).map(Body)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Body::default())
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Body::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Body::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Body::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Body::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Body::default())
            }
            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Body::default())
            }
        }
        deserializer.deserialize_any(Shape(std::marker::PhantomData))
    }
}
