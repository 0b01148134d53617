//! Kore.ai's JSON, as its page prints it. No logic but the reading of shapes that are not published.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::contract::Target;
use crate::reply::Object;

/// The request's body, read back.
#[derive(Deserialize)]
pub(super) struct Asked {
    pub(super) ids: Vec<String>,
}

/// The request's body: `{"ids":[…]}`.
pub(super) fn to_json(targets: &[Target]) -> Vec<u8> {
    let mut body = Vec::with_capacity(16 + 27 * targets.len());
    body.extend_from_slice(b"{\"ids\":[");
    for (target, n) in targets.iter().zip(0..) {
        if n > 0 {
            body.push(b',');
        }
        let id = target.identifier.text();
        // Nothing in letters and digits is escaped, and the dialect sends nothing else.
        if id.bytes().fold(true, |plain, b| plain & b.is_ascii_alphanumeric()) {
            body.push(b'"');
            body.extend_from_slice(id.as_bytes());
            body.push(b'"');
        } else if serde_json::to_writer(&mut body, id).is_err() {
            // Writing texts into memory has no way to fail; an empty body would be refused by the upstream.
            return Vec::new();
        }
    }
    body.extend_from_slice(b"]}");
    body
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response<'a> {
    pub(super) total_requested: Option<u64>,
    pub(super) successful: Option<u64>,
    pub(super) failed: Option<u64>,
    #[serde(borrow)]
    pub(super) successful_records: Option<Vec<Record<'a>>>,
    #[serde(borrow)]
    pub(super) failed_records: Option<Vec<Record<'a>>>,
}

impl Response<'_> {
    /// Whether any documented member is there: other JSON objects are another shape.
    pub(super) fn says_something(&self) -> bool {
        self.total_requested.is_some()
            || self.successful.is_some()
            || self.failed.is_some()
            || self.successful_records.is_some()
            || self.failed_records.is_some()
    }

    /// Whether a list is there and its counter says another number.
    pub(super) fn counters_disagree(&self) -> bool {
        let differs = |counter: Option<u64>, list: &Option<Vec<Record<'_>>>| match (counter, list) {
            (Some(counter), Some(list)) => counter != list.len() as u64,
            _ => false,
        };
        differs(self.successful, &self.successful_records) || differs(self.failed, &self.failed_records)
    }
}

/// One record of a list: a bare id, or an object that names it and perhaps gives a reason.
#[derive(Debug, Default)]
pub(super) struct Record<'a> {
    id: Option<Cow<'a, str>>,
    reason: Option<Cow<'a, str>>,
    /// Two of its id members name different contacts: it names none.
    torn: bool,
}

impl Record<'_> {
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref().filter(|_| !self.torn)
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Record<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Shape<'a> {
            type Value = Record<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Record { id: Some(Cow::Borrowed(text)), ..Record::default() })
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Record { id: Some(Cow::Owned(text.to_owned())), ..Record::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut record = Record::default();
                while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
                    match key.as_deref().unwrap_or_default() {
                        "id" | "_id" | "contactId" => {
                            let Text(id) = map.next_value()?;
                            record.torn |= id.is_some() && record.id.is_some() && record.id != id;
                            record.id = record.id.or(id);
                        }
                        "error" | "reason" | "message" | "msg" => {
                            let Text(reason) = map.next_value()?;
                            record.reason = record.reason.or(reason);
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(record)
            }

            // Anything else names no contact.
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Record::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Record::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Record::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Record::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Record::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Record::default())
            }
        }
        deserializer.deserialize_any(Shape(std::marker::PhantomData))
    }
}

/// A text, or the text in an object's `msg` or `message`; `None` for anything else. It borrows where it can.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Shape<'a> {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Text::default();
                while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
                    let wanted = matches!(key.as_deref(), Some("msg" | "message"));
                    let Text(text) = map.next_value()?;
                    if wanted && found.0.is_none() {
                        found = Text(text);
                    }
                }
                Ok(found)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Text(None))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(number.to_string()))))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(number.to_string()))))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Text(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }
        }
        deserializer.deserialize_any(Shape(std::marker::PhantomData))
    }
}

/// The error envelope that Kore.ai's other public APIs use: `{"errors":[{"msg":"…","code":4002}]}`.
#[derive(Default, Deserialize)]
pub(super) struct Errors<'a> {
    #[serde(borrow)]
    errors: Vec<Object<ErrorItem<'a>>>,
}

#[derive(Deserialize)]
struct ErrorItem<'a> {
    #[serde(default, borrow)]
    msg: Text<'a>,
    #[serde(default, borrow)]
    code: Text<'a>,
}

impl Errors<'_> {
    pub(super) fn message(&self) -> Option<&str> {
        self.errors.first()?.0.msg.0.as_deref()
    }

    pub(super) fn code(&self) -> Option<String> {
        self.errors.first()?.0.code.0.as_deref().map(str::to_owned)
    }
}
