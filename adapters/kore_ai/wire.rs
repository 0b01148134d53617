//! Kore.ai's JSON, as its page prints it. No logic but the reading of shapes that are not published.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::contract::Target;
use crate::plain::{self, Plain};
use crate::reply::{self, Object};

/// So many digits has every id.
pub(super) const ID_DIGITS: usize = 24;

/// The request's body, read back.
#[derive(Deserialize)]
pub(super) struct Asked {
    pub(super) ids: Vec<String>,
}

/// The request's body: `{"ids":[…]}`.
pub(super) fn to_json(targets: &[Target]) -> Vec<u8> {
    plain::list_of_ids::<ID_DIGITS>("ids", targets)
}

/// The reply to a bulk delete: what it has besides its records, and what `hear` made of these, in any order. It starts with
/// `silence`. `None` if it is another shape.
pub(super) fn read<H>(
    reply: &http::Response<Bytes>,
    silence: impl Fn() -> H,
    hear: impl Fn(&mut H, Told<'_>),
) -> Option<(Totals, H)> {
    let mut heard = silence();
    let plain = reply::text(reply).and_then(|text| read_plain(text, |told| hear(&mut heard, told)));
    let (totals, heard) = match plain {
        Some(totals) => (totals, heard),
        None => {
            let mut heard = silence();
            let totals = reply::json::<Response<'_>>(reply)?.tell(|told| hear(&mut heard, told));
            (totals, heard)
        }
    };
    totals.says_something().then_some((totals, heard))
}

/// The same of a body that is written plainly; `None` says nothing of it.
fn read_plain<'r>(text: &'r str, mut hear: impl FnMut(Told<'r>)) -> Option<Totals> {
    let mut json = Plain::new(text);
    let mut totals = Totals::default();
    json.members(|json, name| {
        let (place, number) = match name {
            "totalRequested" => (&mut totals.total_requested, json.number()?),
            "successful" => (&mut totals.successful, json.number()?),
            "failed" => (&mut totals.failed, json.number()?),
            "successfulRecords" => (
                &mut totals.successful_records,
                json.items(|json| {
                    let (id, _) = read_plain_record(json)?;
                    hear(Told::Successful { id });
                    Some(())
                })?,
            ),
            "failedRecords" => (
                &mut totals.failed_records,
                json.items(|json| {
                    let (id, reason) = read_plain_record(json)?;
                    hear(Told::Failed { id, reason });
                    Some(())
                })?,
            ),
            _ => return json.skip(),
        };
        // No member may be there twice.
        place.replace(number).is_none().then_some(())
    })?;
    json.end()?;
    Some(totals)
}

#[inline]
fn read_plain_record<'r>(json: &mut Plain<'r>) -> Option<(Option<&'r str>, Option<&'r str>)> {
    if json.peek()? == b'"' {
        return Some((Some(json.text()?), None));
    }
    let (mut id, mut reason, mut torn) = (None, None, false);
    json.members(|json, name| {
        match name {
            "id" | "_id" | "contactId" => {
                let text = json.text()?;
                torn |= id.is_some_and(|id| id != text);
                id = id.or(Some(text));
            }
            "error" | "reason" | "message" | "msg" => {
                let text = json.text()?;
                reason.get_or_insert(text);
            }
            _ => json.skip()?,
        }
        Some(())
    })?;
    Some((id.filter(|_| !torn), reason))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    total_requested: Option<u64>,
    successful: Option<u64>,
    failed: Option<u64>,
    #[serde(borrow)]
    successful_records: Option<Vec<Record<'a>>>,
    #[serde(borrow)]
    failed_records: Option<Vec<Record<'a>>>,
}

impl Response<'_> {
    fn tell(&self, mut hear: impl FnMut(Told<'_>)) -> Totals {
        let (successes, failures) = (self.successful_records.as_deref(), self.failed_records.as_deref());
        for record in successes.unwrap_or_default() {
            hear(Told::Successful { id: record.id() });
        }
        for record in failures.unwrap_or_default() {
            hear(Told::Failed { id: record.id(), reason: record.reason.as_deref() });
        }
        let count = |list: &[Record<'_>]| list.len() as u64;
        Totals {
            total_requested: self.total_requested,
            successful: self.successful,
            failed: self.failed,
            successful_records: successes.map(count),
            failed_records: failures.map(count),
        }
    }
}

/// What a reply tells of one contact of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told<'r> {
    Successful { id: Option<&'r str> },
    Failed { id: Option<&'r str>, reason: Option<&'r str> },
}

/// What a reply has besides its records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) total_requested: Option<u64>,
    pub(super) successful: Option<u64>,
    pub(super) failed: Option<u64>,
    /// How many records there are in each list that is there.
    successful_records: Option<u64>,
    failed_records: Option<u64>,
}

impl Totals {
    /// Whether any documented member is there: other JSON objects are another shape.
    fn says_something(&self) -> bool {
        self.total_requested.is_some()
            || self.successful.is_some()
            || self.failed.is_some()
            || self.successful_records.is_some()
            || self.failed_records.is_some()
    }

    /// Whether a list is there and its counter says another number.
    pub(super) fn counters_disagree(&self) -> bool {
        let differs = |counter: Option<u64>, listed: Option<u64>| counter.zip(listed).is_some_and(|(a, b)| a != b);
        differs(self.successful, self.successful_records) || differs(self.failed, self.failed_records)
    }

    /// Whether both lists are empty, or not there.
    pub(super) fn nothing_listed(&self) -> bool {
        self.successful_records.unwrap_or(0) == 0 && self.failed_records.unwrap_or(0) == 0
    }
}

/// One record of a list: a bare id, or an object that names it and perhaps gives a reason.
#[derive(Debug, Default)]
struct Record<'a> {
    id: Option<Cow<'a, str>>,
    reason: Option<Cow<'a, str>>,
    /// Two of its id members name different contacts: it names none.
    torn: bool,
}

impl Record<'_> {
    fn id(&self) -> Option<&str> {
        self.id.as_deref().filter(|_| !self.torn)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply's text: lists, counters and others in any order, ids that come twice, and now and then something else.
    fn some_reply(rng: &mut fastrand::Rng) -> String {
        let id = |rng: &mut fastrand::Rng| format!("6960cbe9b155d194e2f0{:04}", rng.u8(..4));
        let odd = [
            "null",
            "7",
            "1.5",
            "true",
            "{}",
            "[]",
            "\"\\u0061\"",
            "\"a\\nb\"",
            "{\"msg\":\"not found\"}",
            "-1",
            "01",
            "\"",
            "",
        ];
        let value = |rng: &mut fastrand::Rng, usual: String| {
            if rng.u8(..40) == 0 { (*rng.choice(&odd).unwrap()).to_owned() } else { usual }
        };
        let record = |rng: &mut fastrand::Rng| {
            let text = format!("\"{}\"", id(rng));
            if rng.u8(..4) == 0 {
                return value(rng, text);
            }
            let names = ["id", "id", "_id", "contactId", "error", "reason", "message", "msg", "status", "i"];
            let members: Vec<_> = (0..rng.usize(..4))
                .map(|_| {
                    let name = *rng.choice(&names).unwrap();
                    let text =
                        if name.ends_with("id") || name == "contactId" { id(rng) } else { "Not found".to_owned() };
                    format!("\"{name}\":{}", value(rng, format!("\"{text}\"")))
                })
                .collect();
            format!("{{{}}}", members.join(","))
        };
        let mut names = vec!["totalRequested", "successful", "failed", "successfulRecords", "failedRecords", "status"];
        rng.shuffle(&mut names);
        names.truncate(rng.usize(..=names.len()));
        if rng.u8(..20) == 0 {
            names.push("failedRecords");
        }
        let members: Vec<_> = names
            .into_iter()
            .map(|name| {
                let usual = if name.ends_with("Records") {
                    let records: Vec<_> = (0..rng.usize(..5)).map(|_| record(rng)).collect();
                    format!("[{}]", records.join(if rng.u8(..9) == 0 { " , " } else { "," }))
                } else {
                    rng.u8(..3).to_string()
                };
                format!("\"{name}\":{}", value(rng, usual))
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }

    #[test]
    fn what_is_written_plainly_says_what_serde_makes_of_it() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut plain, mut torn) = (0, 0);
        for _ in 0..50_000 {
            let text = some_reply(&mut rng);
            let mut heard = Vec::new();
            let Some(totals) = read_plain(&text, |told| heard.push(told)) else { continue };
            // Serde has the lists one after the other, whichever came first.
            heard.sort_by_key(|told| matches!(told, Told::Failed { .. }));
            plain += 1;
            torn += u32::from(heard.contains(&Told::Successful { id: None }) && text.contains("_id"));
            let Object(response) = serde_json::from_str::<Object<Response<'_>>>(&text).expect(&text);
            let mut places = heard.iter();
            let same = response.tell(|told| assert_eq!(places.next(), Some(&told), "{text}"));
            assert_eq!((totals, places.next()), (same, None), "{text}");
        }
        assert!(plain > 10_000 && torn > 100, "{plain} {torn}");
    }
}
