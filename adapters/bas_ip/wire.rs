//! BAS-IP's JSON, as its pages print it. No logic but the reading of members whose type changes with the firmware.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use http::Response;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::contract::Target;
use crate::plain;
use crate::reply::{self, Object};

/// The request's body: `{"link_ids":[…]}`. Every id has 36 bytes.
pub(super) fn request(targets: &[Target]) -> Bytes {
    plain::list_of_ids::<36>("link_ids", targets).into()
}

/// The request's body, read back.
#[derive(Deserialize)]
pub(super) struct Asked {
    pub(super) link_ids: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Login<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
}

/// JSON text of a value that cannot fail to serialise; an empty body would be refused by the upstream.
pub(super) fn to_json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}

/// `{"result":[…]}`
#[derive(Deserialize)]
pub(super) struct Results<'a> {
    #[serde(borrow)]
    result: Option<Vec<Object<Item<'a>>>>,
}

impl<'a> Results<'a> {
    pub(super) fn of(reply: &'a Response<Bytes>) -> Option<impl Iterator<Item = Item<'a>>> {
        let body: Self = reply::json(reply)?;
        Some(body.result?.into_iter().map(|Object(item)| item))
    }
}

/// One contact's result.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(default, borrow)]
    pub(super) link_id: Loose<'a>,
    #[serde(default, borrow)]
    pub(super) success: Loose<'a>,
    #[serde(default, borrow)]
    pub(super) extended_info: Loose<'a>,
}

/// `{"error":{"code":"…","message":"…","data":{…}}}`, `{"error":"…"}` or even `{"error":true}`; where the upstream
/// throttles, with `seconds`.
#[derive(Default, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(default, borrow)]
    error: Loose<'a>,
    #[serde(default, borrow)]
    seconds: Loose<'a>,
}

impl<'a> Envelope<'a> {
    /// The error in a reply, if its body is an object at all.
    pub(super) fn of(reply: &'a Response<Bytes>) -> Option<Self> {
        reply::json(reply)
    }

    pub(super) fn is_error(&self) -> bool {
        !matches!(self.error, Loose::Nothing | Loose::Flag(false))
    }

    pub(super) fn code(&self) -> Option<&str> {
        match &self.error {
            Loose::Coded(code) => code.as_deref(),
            _ => None,
        }
    }

    pub(super) fn seconds(&self) -> Option<u64> {
        match &self.seconds {
            Loose::Number(seconds) => Some(*seconds),
            Loose::Text(text) => reply::whole_seconds(text),
            _ => None,
        }
    }
}

/// The answer to a sign-in: `{"token":"…","account_type":"admin"}`.
#[derive(Deserialize)]
pub(super) struct Token<'a> {
    #[serde(default, borrow)]
    token: Loose<'a>,
}

impl<'a> Token<'a> {
    pub(super) fn of(reply: &'a Response<Bytes>) -> Option<String> {
        let Self { token } = reply::json(reply)?;
        token.text().map(str::to_owned)
    }
}

/// Any JSON value, as far as this dialect looks into one.
#[derive(Debug, Default)]
pub(super) enum Loose<'a> {
    /// Absent or null.
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    Flag(bool),
    Number(u64),
    /// An object, with the text of its `code`.
    Coded(Option<Cow<'a, str>>),
    Other,
}

impl Loose<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Shape<'a> {
            type Value = Loose<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Loose::Nothing)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(Loose::Flag(flag))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Loose::Number(number))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Loose::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Loose::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut code = None;
                while let Some(key) = map.next_key::<Loose<'de>>()? {
                    if key.text() != Some("code") {
                        map.next_value::<IgnoredAny>()?;
                    } else if code.replace(map.next_value::<Loose<'de>>()?).is_some() {
                        return Err(Error::duplicate_field("code"));
                    }
                }
                Ok(Loose::Coded(match code {
                    Some(Loose::Text(text)) => Some(text),
                    _ => None,
                }))
            }
        }
        deserializer.deserialize_any(Shape(PhantomData))
    }
}
