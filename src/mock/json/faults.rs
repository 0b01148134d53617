//! The JSON of faults, and of the rules and scenarios that they stand in.
//!
//! Whether an upstream takes the contacts that a fault names is not looked at here.

use std::collections::BTreeMap;
use std::time::Duration;

use adapters::Identifier;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{at_least_1, identifiers, needed, none_left};
use crate::mock::contact::Contact;
use crate::mock::fault::Fault;
use crate::mock::rule::{Match, Route, Rule, Standing};
use crate::mock::scenario::{Progress, Scenario, Step};

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
            headers: Option<BTreeMap<String, String>>,
            body: Option<String>,
            bytes: Option<String>,
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
                    headers: self.headers.take(),
                    body: self.body.take(),
                    bytes: self.bytes.take(),
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
    headers: Option<BTreeMap<String, String>>,
    body: Option<String>,
    bytes: Option<String>,
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
            "hold" => Fault::Hold,
            "throttle" => Fault::Throttle(needed(&of, "wait_s", self.wait_s.take())?),
            "busy" => Fault::Busy(needed(&of, "wait_s", self.wait_s.take())?),
            "wrong_ids" => Fault::WrongIds,
            "missing_ids" => Fault::MissingIds,
            "contradict" => Fault::Contradict,
            "accept_202" => Fault::Accept202,
            "redirect" => Fault::Redirect(self.status()?, self.location()?),
            "reply" => Fault::Reply {
                status: self.status()?,
                headers: self.headers()?,
                body: self.body.take().unwrap_or_default(),
            },
            "raw" => Fault::Raw(self.bytes()?),
            "lie" => Fault::Lie,
            "partial" => Fault::Partial(identifiers(needed(&of, "failing", self.failing.take())?)),
            "delay" => Fault::Delay(self.time()?),
            "none" => Fault::Plain,
            _ => {
                return Err(E::custom(
                    "`fault` is not one of commit_then_drop, drop_before_commit, reset, cut_body, html, empty, status, \
                     slow_drip, stall, hold, throttle, busy, wrong_ids, missing_ids, contradict, accept_202, redirect, \
                     reply, raw, lie, partial, delay, none",
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

    fn headers<E: Error>(&mut self) -> Result<HeaderMap, E> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.take().unwrap_or_default() {
            let name = HeaderName::try_from(name);
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) else {
                return Err(E::custom("`headers` has a name or a value that cannot stand in a header"));
            };
            if [CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
                return Err(E::custom("`headers` takes no `content-length` and no `transfer-encoding`: `raw` does"));
            }
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn bytes<E: Error>(&mut self) -> Result<Bytes, E> {
        let text = needed(&self.of, "bytes", self.bytes.take())?;
        let bytes: Result<Vec<_>, _> = text.chars().map(u8::try_from).collect();
        let bytes = bytes.map_err(|_| E::custom("`bytes` has a character above U+00FF, which stands for no byte"))?;
        Ok(bytes.into())
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
            ("headers", self.headers.is_some()),
            ("body", self.body.is_some()),
            ("bytes", self.bytes.is_some()),
        ];
        none_left(&self.of, &left)
    }
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
        Fault::Reply { status, headers, body } => {
            let mut written = BTreeMap::<_, Vec<_>>::new();
            for (name, value) in headers {
                written.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()));
            }
            // As HTTP allows, and as the journal's headers are shown.
            let written: BTreeMap<_, _> = written.iter().map(|(name, values)| (name, values.join(", "))).collect();
            map.serialize_entry("status", status)?;
            map.serialize_entry("headers", &written)?;
            map.serialize_entry("body", body)
        }
        Fault::Raw(bytes) => map.serialize_entry("bytes", &bytes.iter().copied().map(char::from).collect::<String>()),
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
