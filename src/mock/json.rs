//! The JSON of latencies, limits and checks; that of faults, rules and scenarios is in `faults`.
//!
//! Each is one flat object: a name, its parameters beside it, and nothing else. A parameter that the name does not take is
//! refused, as is one that is missing.

mod faults;

use std::fmt::Display;

use adapters::{Identifier, Limit};
use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::checks::{Check, Place, Question, Verdict};
use super::contact::Contact;
use super::journal::Kind;
use super::latency::{Latency, MAX_LATENCY_MS};
use super::limits::Limits;

/// A latency and the seed of its times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seeded {
    pub(super) latency: Latency,
    pub(super) seed: u64,
}

impl<'de> Deserialize<'de> for Seeded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            latency: String,
            ms: Option<u64>,
            from_ms: Option<u64>,
            to_ms: Option<u64>,
            median_ms: Option<u64>,
            sigma: Option<f64>,
            #[serde(default)]
            seed: u64,
        }
        let mut members = Members::deserialize(deserializer)?;
        let of = members.latency.clone();
        let ms = |member: &str, value: Option<u64>| match needed(&of, member, value)? {
            ms @ 0..=MAX_LATENCY_MS => Ok(ms),
            _ => Err(D::Error::custom(format!("`{member}` must be at most {MAX_LATENCY_MS}"))),
        };
        let latency = match of.as_str() {
            "fixed" => Latency::Fixed { ms: ms("ms", members.ms.take())? },
            "uniform" => {
                let (from_ms, to_ms) = (ms("from_ms", members.from_ms.take())?, ms("to_ms", members.to_ms.take())?);
                if from_ms > to_ms {
                    return Err(D::Error::custom("`from_ms` must not be above `to_ms`"));
                }
                Latency::Uniform { from_ms, to_ms }
            }
            "log_normal" => Latency::LogNormal {
                median_ms: ms("median_ms", members.median_ms.take())?,
                sigma: match needed(&of, "sigma", members.sigma.take())? {
                    sigma if (0.0..=10.0).contains(&sigma) => sigma,
                    _ => return Err(D::Error::custom("`sigma` must be 0 to 10")),
                },
            },
            _ => return Err(D::Error::custom("`latency` is not one of fixed, uniform, log_normal")),
        };
        let left = [
            ("ms", members.ms.is_some()),
            ("from_ms", members.from_ms.is_some()),
            ("to_ms", members.to_ms.is_some()),
            ("median_ms", members.median_ms.is_some()),
            ("sigma", members.sigma.is_some()),
        ];
        none_left(&of, &left)?;
        Ok(Self { latency, seed: members.seed })
    }
}

impl Serialize for Seeded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.latency {
            Latency::Fixed { ms } => {
                map.serialize_entry("latency", "fixed")?;
                map.serialize_entry("ms", &ms)?;
            }
            Latency::Uniform { from_ms, to_ms } => {
                map.serialize_entry("latency", "uniform")?;
                map.serialize_entry("from_ms", &from_ms)?;
                map.serialize_entry("to_ms", &to_ms)?;
            }
            Latency::LogNormal { median_ms, sigma } => {
                map.serialize_entry("latency", "log_normal")?;
                map.serialize_entry("median_ms", &median_ms)?;
                map.serialize_entry("sigma", &sigma)?;
            }
        }
        map.serialize_entry("seed", &self.seed)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            #[serde(default)]
            vendor: bool,
            requests: Option<u32>,
            window_s: Option<u64>,
        }
        match Members::deserialize(deserializer)? {
            Members { vendor: true, requests: None, window_s: None } => Ok(Self::Vendor),
            Members { vendor: false, requests: Some(requests), window_s: Some(window_s @ 1..=86_400) } => {
                Ok(Self::Of(Limit { requests, window_s }))
            }
            _ => {
                let text = "must be either `{\"vendor\": true}`, or `requests` and `window_s` (1 to 86400)";
                Err(D::Error::custom(text))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            check: String,
            upstream: Option<String>,
            contacts: Option<Vec<Contact>>,
            from_ms: Option<u64>,
            to_ms: Option<u64>,
            n: Option<usize>,
            kind: Option<Kind>,
            exactly: Option<usize>,
            at_least: Option<usize>,
            at_most: Option<usize>,
        }
        let mut members = Members::deserialize(deserializer)?;
        let of = members.check.clone();
        let question = match of.as_str() {
            "deleted_twice" => Question::DeletedTwice,
            "only_asked" => Question::OnlyAsked,
            "only" => Question::Only { contacts: identifiers(needed(&of, "contacts", members.contacts.take())?) },
            "no_call_between" => Question::NoCallBetween {
                from_ms: needed(&of, "from_ms", members.from_ms.take())?,
                to_ms: needed(&of, "to_ms", members.to_ms.take())?,
            },
            "no_call_after_n" => Question::NoCallAfterN { n: needed(&of, "n", members.n.take())? },
            "count" => {
                let [exactly, at_least, at_most] =
                    [members.exactly.take(), members.at_least.take(), members.at_most.take()];
                if [exactly, at_least, at_most] == [None; 3] {
                    return Err(D::Error::custom("`count` needs `exactly`, `at_least` or `at_most`"));
                }
                Question::Count { kind: members.kind.take(), exactly, at_least, at_most }
            }
            "calls_per_contact_at_most" => Question::CallsPerContactAtMost { n: needed(&of, "n", members.n.take())? },
            "scenario_done" => Question::ScenarioDone,
            _ => {
                return Err(D::Error::custom(
                    "`check` is not one of deleted_twice, only_asked, only, no_call_between, no_call_after_n, count, \
                     calls_per_contact_at_most, scenario_done",
                ));
            }
        };
        let left = [
            ("contacts", members.contacts.is_some()),
            ("from_ms", members.from_ms.is_some()),
            ("to_ms", members.to_ms.is_some()),
            ("n", members.n.is_some()),
            ("kind", members.kind.is_some()),
            ("exactly", members.exactly.is_some()),
            ("at_least", members.at_least.is_some()),
            ("at_most", members.at_most.is_some()),
        ];
        none_left(&of, &left)?;
        Ok(Self { upstream: members.upstream, question })
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("check", self.check)?;
        map.serialize_entry("upstream", &self.upstream)?;
        map.serialize_entry("ok", &self.ok)?;
        map.serialize_entry("why", &self.why)?;
        map.serialize_entry("entries", &self.entries)?;
        map.end()
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("upstream", &self.upstream)?;
        map.serialize_entry("n", &self.n)?;
        map.end()
    }
}

/// A member that must be there.
fn needed<T, E: Error>(of: &str, member: &str, value: Option<T>) -> Result<T, E> {
    value.ok_or_else(|| E::custom(format!("`{of}` needs `{member}`")))
}

fn none_left<E: Error>(of: &str, left: &[(&str, bool)]) -> Result<(), E> {
    match left.iter().find(|(_, is_left)| *is_left) {
        Some((member, _)) => Err(E::custom(format!("`{of}` takes no `{member}`"))),
        None => Ok(()),
    }
}

fn at_least_1<E: Error>(member: &str, value: Option<u64>) -> Result<Option<u64>, E> {
    if value == Some(0) { Err(E::custom(format!("`{member}` must be at least 1"))) } else { Ok(value) }
}

fn identifiers(contacts: Vec<Contact>) -> Vec<Identifier> {
    contacts.into_iter().map(|contact| contact.identifier).collect()
}

/// Reads one JSON value, or says where it goes wrong: a JSON Pointer (RFC 6901) and a sentence without values.
pub(super) fn read<'b, T: Deserialize<'b>>(text: &'b [u8]) -> Result<T, (String, String)> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|err| {
        let mut pointer = String::new();
        for segment in err.path() {
            use serde_path_to_error::Segment;
            pointer += &match segment {
                Segment::Seq { index } => format!("/{index}"),
                Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
                Segment::Enum { variant } => format!("/{variant}"),
                Segment::Unknown => "/?".to_owned(),
            };
        }
        (pointer, without_values(&err.into_inner()))
    })?;
    reader.end().map_err(|_| (String::new(), "something follows the JSON value".to_owned()))?;
    Ok(value)
}

/// serde's message without what was sent, which may be an identifier.
fn without_values(err: &impl Display) -> String {
    let text = err.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    match text.rsplit_once("expected ") {
        Some((before, expected)) if before.starts_with("invalid ") => format!("must be {expected}"),
        _ => text.to_owned(),
    }
}
