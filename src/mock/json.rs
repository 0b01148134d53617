//! The JSON of faults, rules, scenarios, latencies, limits and checks.
//!
//! Each is one flat object: a name, its parameters beside it, and nothing else. A parameter that the name does not take is
//! refused, as is one that is missing.

use std::fmt::Display;
use std::time::Duration;

use adapters::{Identifier, Limit};
use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::checks::{Check, Place, Question, Verdict};
use super::contact::Contact;
use super::fault::Fault;
use super::journal::Kind;
use super::latency::{Latency, MAX_LATENCY_MS};
use super::limits::Limits;
use super::rule::{Match, Route, Rule, Standing};
use super::scenario::{Progress, Scenario, Step};

/// The longest time that a fault can be given, in milliseconds: an hour.
const MAX_FAULT_MS: u64 = 3_600_000;

/// Declares an object with a fault's name and parameters, and other members beside them.
macro_rules! faulty {
    ($name:ident { $($member:ident: $type:ty),* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            fault: String,
            status: Option<u16>,
            ms: Option<u64>,
            wait_s: Option<u64>,
            to: Option<String>,
            commit: Option<bool>,
            failing: Option<Vec<Contact>>,
            $($member: $type,)*
        }

        impl $name {
            fn fault<E: Error>(&mut self) -> Result<Fault, E> {
                let mut parameters = Parameters {
                    of: self.fault.clone(),
                    status: self.status.take(),
                    ms: self.ms.take(),
                    wait_s: self.wait_s.take(),
                    to: self.to.take(),
                    commit: self.commit.take(),
                    failing: self.failing.take(),
                };
                let fault = parameters.fault()?;
                parameters.end()?;
                Ok(fault)
            }
        }
    };
}

faulty!(FaultMembers {});
faulty!(RuleMembers { when: Option<WhenMembers>, times: Option<u64> });
faulty!(StepMembers { upstream: String, times: Option<u64> });

/// What stands beside a fault's name, until it is taken.
struct Parameters {
    of: String,
    status: Option<u16>,
    ms: Option<u64>,
    wait_s: Option<u64>,
    to: Option<String>,
    commit: Option<bool>,
    failing: Option<Vec<Contact>>,
}

impl Parameters {
    fn fault<E: Error>(&mut self) -> Result<Fault, E> {
        let of = self.of.clone();
        Ok(match of.as_str() {
            "commit_then_drop" => Fault::CommitThenDrop,
            "drop_before_commit" => Fault::DropBeforeCommit,
            "reset" => Fault::Reset { commit: self.commit.take().unwrap_or(false) },
            "cut_body" => Fault::CutBody,
            "html" => Fault::Html(self.status()?),
            "empty" => Fault::Empty(self.status()?),
            "status" => Fault::Status(self.status()?),
            "slow_drip" => Fault::SlowDrip(self.time()?),
            "stall" => Fault::Stall,
            "throttle" => Fault::Throttle(needed(&of, "wait_s", self.wait_s.take())?),
            "busy" => Fault::Busy(needed(&of, "wait_s", self.wait_s.take())?),
            "wrong_ids" => Fault::WrongIds,
            "missing_ids" => Fault::MissingIds,
            "contradict" => Fault::Contradict,
            "accept_202" => Fault::Accept202,
            "redirect" => Fault::Redirect(self.status()?, self.location()?),
            "lie" => Fault::Lie,
            "partial" => Fault::Partial(identifiers(needed(&of, "failing", self.failing.take())?)),
            "delay" => Fault::Delay(self.time()?),
            "none" => Fault::Plain,
            _ => {
                return Err(E::custom(
                    "`fault` is not one of commit_then_drop, drop_before_commit, reset, cut_body, html, empty, status, \
                     slow_drip, stall, throttle, busy, wrong_ids, missing_ids, contradict, accept_202, redirect, lie, \
                     partial, delay, none",
                ));
            }
        })
    }

    fn status<E: Error>(&mut self) -> Result<u16, E> {
        match needed(&self.of, "status", self.status.take())? {
            status @ 200..=999 => Ok(status),
            _ => Err(E::custom("`status` must be 200 to 999")),
        }
    }

    fn time<E: Error>(&mut self) -> Result<Duration, E> {
        match needed(&self.of, "ms", self.ms.take())? {
            ms @ 0..=MAX_FAULT_MS => Ok(Duration::from_millis(ms)),
            _ => Err(E::custom(format!("`ms` must be at most {MAX_FAULT_MS}"))),
        }
    }

    fn location<E: Error>(&mut self) -> Result<String, E> {
        let to = needed(&self.of, "to", self.to.take())?;
        let is_header = http::HeaderValue::try_from(&to).is_ok();
        is_header.then_some(to).ok_or_else(|| E::custom("`to` cannot stand in a header"))
    }

    /// Fails if a parameter is left.
    fn end<E: Error>(&self) -> Result<(), E> {
        let left = [
            ("status", self.status.is_some()),
            ("ms", self.ms.is_some()),
            ("wait_s", self.wait_s.is_some()),
            ("to", self.to.is_some()),
            ("commit", self.commit.is_some()),
            ("failing", self.failing.is_some()),
        ];
        none_left(&self.of, &left)
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

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FaultMembers::deserialize(deserializer)?.fault()
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_fault(&mut map, self)?;
        map.end()
    }
}

fn write_fault<M: SerializeMap>(map: &mut M, fault: &Fault) -> Result<(), M::Error> {
    map.serialize_entry("fault", fault.name())?;
    let ms = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match fault {
        Fault::Reset { commit } => map.serialize_entry("commit", commit),
        Fault::Html(status) | Fault::Empty(status) | Fault::Status(status) => map.serialize_entry("status", status),
        Fault::SlowDrip(time) | Fault::Delay(time) => map.serialize_entry("ms", &ms(time)),
        Fault::Throttle(wait_s) | Fault::Busy(wait_s) => map.serialize_entry("wait_s", wait_s),
        Fault::Redirect(status, to) => {
            map.serialize_entry("status", status)?;
            map.serialize_entry("to", to)
        }
        Fault::Partial(failing) => map.serialize_entry("failing", failing),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenMembers {
    #[serde(default)]
    route: Route,
    contact: Option<Contact>,
    nth: Option<u64>,
    every: Option<u64>,
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = RuleMembers::deserialize(deserializer)?;
        let fault = members.fault()?;
        let when = match members.when {
            None => Match::default(),
            Some(WhenMembers { route, contact, nth, every }) => Match {
                route,
                contact: contact.map(|contact| contact.identifier),
                nth: at_least_1("nth", nth)?,
                every: at_least_1("every", every)?,
            },
        };
        Ok(Self { fault, when, times: at_least_1("times", members.times)? })
    }
}

#[derive(Serialize)]
struct WrittenMatch<'m> {
    route: Route,
    contact: Option<&'m Identifier>,
    nth: Option<u64>,
    every: Option<u64>,
}

impl Serialize for Standing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Match { route, contact, nth, every } = &self.rule.when;
        let when = WrittenMatch { route: *route, contact: contact.as_ref(), nth: *nth, every: *every };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        write_fault(&mut map, &self.rule.fault)?;
        map.serialize_entry("when", &when)?;
        map.serialize_entry("times", &self.rule.times)?;
        map.serialize_entry("seen", &self.seen)?;
        map.serialize_entry("applied", &self.applied)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Scenario {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            steps: Vec<Step>,
        }
        Members::deserialize(deserializer).map(|members| Self { steps: members.steps })
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = StepMembers::deserialize(deserializer)?;
        let fault = members.fault()?;
        let times = at_least_1("times", members.times)?.unwrap_or(1);
        Ok(Self { upstream: members.upstream, fault, times })
    }
}

impl Serialize for Progress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Taken<'p>(&'p Step, u64);
        impl Serialize for Taken<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("upstream", &self.0.upstream)?;
                write_fault(&mut map, &self.0.fault)?;
                map.serialize_entry("times", &self.0.times)?;
                map.serialize_entry("taken", &self.1)?;
                map.end()
            }
        }
        let steps: Vec<_> = self.steps.iter().map(|(step, taken)| Taken(step, *taken)).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("done", &self.is_done())?;
        map.serialize_entry("steps", &steps)?;
        map.end()
    }
}

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
