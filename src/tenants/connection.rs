//! One connection of a tenant's file: the keys that all have, and those that its dialect reads.
//!
//! It knows no dialect. What a dialect says about its settings is put beside the line that is at fault.

use std::collections::BTreeSet;
use std::sync::Arc;

use adapters::{Dialect, Registration, SettingsError};
use serde_json::{Map, Value};
use toml::de::DeValue;

use super::file::Context;
use super::upstream_url::{self, Leave};
use super::{Connection, Limits, RetryPolicy, Timeouts, credentials};
use crate::settings::document::{Field, Table};
use crate::settings::nearest::did_you_mean;
use crate::settings::{CAP_BELOW_BASE, Rate, Upstream, keys};

/// The keys of every connection; all others are the dialect's, as is `base_url`, which both read.
pub(super) const COMMON: &[&str] =
    &["dialect", "base_url", "credentials", "allow_http", "allow_private", "limits", "timeouts", "retry"];

/// Stands in for a `base_url` that was refused, so that the dialect gets to see its other settings.
pub(super) const STAND_IN_URL: &str = "https://stand-in.invalid";

/// The same for other settings that are missing.
pub(super) const STAND_IN: &str = "x";

/// A dialect is asked again after each mistake, but not for ever.
const MOST_MISTAKES: usize = 64;

/// Reads a connection. All that is wrong is put down.
pub(super) fn read(field: &Field<'_>, tenant: &Arc<str>, context: &Context<'_>) -> Option<Connection> {
    let table = field.table()?;
    let flag = |name| table.field(name).map_or(Some(false), |field| field.flag());
    let (allow_http, allow_private) = (flag("allow_http"), flag("allow_private"));
    // A leave that cannot be read is put down already: what it would allow is not.
    let leave = Leave { http: allow_http.unwrap_or(true), private: allow_private.unwrap_or(true) };
    let base_url = table.demand("base_url").and_then(|field| upstream_url::read(&field, leave));
    let policy = policy(&table, context.defaults);
    let registration = table.demand("dialect").and_then(|field| registration(&field));
    let credentials = table.demand("credentials");
    let Some(registration) = registration else {
        // Whose its settings would be is not known; that they are a table is.
        let _ = credentials.and_then(|field| field.table());
        return None;
    };
    let credentials =
        credentials.and_then(|field| credentials::read(&field, &registration.profile.auth, leave, context));
    let opened = open(&table, registration, base_url.is_some());
    let (rate, limits, timeouts, retry) = policy;
    let (dialect, settings) = opened?;
    Some(Connection {
        name: field.name.into(),
        tenant: tenant.clone(),
        registration,
        dialect,
        settings,
        base_url: base_url?.as_str().to_owned(),
        credentials: credentials?,
        allow_http: allow_http?,
        allow_private: allow_private?,
        limits: Limits { rate: rate.map_or(registration.profile.pace, Rate::pace), ..limits },
        timeouts,
        retry,
    })
}

fn registration(field: &Field<'_>) -> Option<&'static Registration> {
    let id = field.text()?;
    let found = adapters::find(id);
    if found.is_none() {
        let ids: Vec<_> = adapters::DIALECTS.iter().map(|registration| registration.profile.id).collect();
        let meant = did_you_mean(id, ids.iter().copied()).map(|meant| format!("{meant} ")).unwrap_or_default();
        field.refuse("is no dialect of this gateway", Some(format!("{meant}known: {}", ids.join(", "))));
    }
    found
}

/// The three tables that every connection takes. Wrong values are put down and left at their defaults.
fn policy(table: &Table<'_>, defaults: &Upstream) -> (Option<Rate>, Limits, Timeouts, RetryPolicy) {
    let section = |name: &str| {
        let section = table.field(name).and_then(|field| field.table());
        section.inspect(|section| keys::check(section, &format!("upstream.{name}")))
    };
    let (limits, timeouts, retry) = (section("limits"), section("timeouts"), section("retry"));
    let whole = |section: &Option<Table<'_>>, name: &str, default: u64| {
        let digits = section.as_ref().and_then(|section| section.field(name)?.value.as_integer().cloned());
        digits.and_then(|digits| u64::from_str_radix(digits.as_str(), digits.radix()).ok()).unwrap_or(default)
    };
    let text = limits.as_ref().and_then(|limits| limits.field("rate")?.value.as_str());
    let rate = text.map_or(defaults.limits.rate, |text| Rate::parse(text).ok());
    // The ceilings have been checked: all of these fit.
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let limits = Limits {
        rate: None,
        max_in_flight: size(whole(&limits, "max_in_flight", defaults.limits.max_in_flight as u64)),
        pool_idle_ms: whole(&limits, "pool_idle_ms", defaults.limits.pool_idle_ms),
        max_response_bytes: size(whole(&limits, "max_response_bytes", defaults.limits.max_response_bytes as u64)),
    };
    let timeouts = Timeouts {
        connect_ms: whole(&timeouts, "connect_ms", defaults.timeouts.connect_ms),
        response_ms: whole(&timeouts, "response_ms", defaults.timeouts.response_ms),
    };
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let policy = RetryPolicy {
        max_attempts: narrow(whole(&retry, "max_attempts", defaults.retry.max_attempts.into())),
        doubt_s: whole(&retry, "doubt_s", defaults.retry.doubt_s),
        base_ms: whole(&retry, "base_ms", defaults.retry.base_ms),
        cap_ms: whole(&retry, "cap_ms", defaults.retry.cap_ms),
        budget_percent: narrow(whole(&retry, "budget_percent", defaults.retry.budget_percent.into())),
        budget_floor_per_minute: narrow(whole(
            &retry,
            "budget_floor_per_minute",
            defaults.retry.budget_floor_per_minute.into(),
        )),
    };
    if let Some(retry) = retry.filter(|_| policy.base_ms > policy.cap_ms) {
        match retry.field("cap_ms") {
            Some(cap) => cap.refuse(CAP_BELOW_BASE, None),
            None => retry.refuse("cap_ms", &format!("is {} and {CAP_BELOW_BASE}", policy.cap_ms), None),
        }
    }
    (rate, limits, timeouts, policy)
}

/// A dialect, and the settings that it was bound to.
type Opened = (Arc<dyn Dialect>, Map<String, Value>);

/// Binds the dialect to its settings. It names one mistake at a time: each is put down, mended for show, and the
/// dialect asked again, so that all of them are found.
fn open(table: &Table<'_>, registration: &Registration, has_url: bool) -> Option<Opened> {
    let mut settings = Map::new();
    let mut good = has_url;
    for field in table.fields().filter(|field| !COMMON.contains(&field.name)) {
        match json(&field) {
            Some(value) => drop(settings.insert(field.name.to_owned(), value)),
            None => good = false,
        }
    }
    let url = table.field("base_url").and_then(|field| field.value.as_str()).filter(|_| has_url);
    settings.insert("base_url".to_owned(), url.unwrap_or(STAND_IN_URL).into());
    let mut mended = BTreeSet::new();
    for _ in 0..MOST_MISTAKES {
        let error = match (registration.open)(Value::Object(settings.clone())) {
            Ok(dialect) => return good.then(|| (dialect.into(), settings)),
            Err(error) => error,
        };
        good = false;
        match Mistake::of(&error, &settings) {
            Mistake::Unknown(name, known) => {
                if let Some(field) = table.field(name) {
                    field.refuse_name(known.iter().chain(COMMON).copied());
                }
                settings.remove(name);
            }
            // Wrong values were taken out: that they are missing now is no second mistake.
            Mistake::Missing(name) => {
                if table.field(name).is_none() {
                    table.refuse(name, "is missing", None);
                }
                if settings.insert(name.to_owned(), STAND_IN.into()).is_some() {
                    return None;
                }
            }
            Mistake::Wrong(name) if mended.insert(name.to_owned()) => {
                match table.field(name) {
                    Some(field) => field.refuse(&error.message, None),
                    // About a stand-in.
                    None => return None,
                }
                settings.remove(name);
            }
            Mistake::Wrong(_) => return None,
            Mistake::Elsewhere => {
                table.refuse(&error.key, &error.message, None);
                return None;
            }
        }
    }
    None
}

/// What a dialect says is wrong with its settings.
enum Mistake<'e> {
    /// A key, and those that are possible.
    Unknown(&'e str, Vec<&'e str>),
    Missing(&'e str),
    /// A value.
    Wrong(&'e str),
    /// Nothing that stands in the file.
    Elsewhere,
}

impl<'e> Mistake<'e> {
    fn of(error: &'e SettingsError, settings: &Map<String, Value>) -> Self {
        // These two are serde's own words, with names in backquotes.
        let mut quoted = error.message.split('`').skip(1).step_by(2);
        if error.message.starts_with("unknown field")
            && let Some(name) = quoted.next().filter(|name| settings.contains_key(*name))
        {
            return Self::Unknown(name, quoted.collect());
        }
        if error.message.starts_with("missing field")
            && let Some(name) = quoted.next()
        {
            return Self::Missing(name);
        }
        let name = error.key.split(['.', '[']).next().unwrap_or_default();
        if settings.contains_key(name) { Self::Wrong(name) } else { Self::Elsewhere }
    }
}

/// A dialect's setting as it takes it.
fn json(field: &Field<'_>) -> Option<Value> {
    match field.value {
        DeValue::String(text) => Some(Value::from(text.as_ref())),
        DeValue::Boolean(flag) => Some(Value::from(*flag)),
        DeValue::Integer(digits) => {
            let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
            if number.is_none() {
                field.refuse("is too large a number", None);
            }
            number.map(Value::from)
        }
        DeValue::Float(digits) => digits.as_str().parse::<f64>().ok().map(Value::from),
        DeValue::Datetime(_) => {
            field.refuse("must be text: put the date in quotes", None);
            None
        }
        DeValue::Array(_) => field.items()?.iter().map(json).collect::<Option<Vec<_>>>().map(Value::from),
        DeValue::Table(_) => {
            let fields = field.table()?;
            let members = fields.fields().map(|member| Some((member.name.to_owned(), json(&member)?)));
            members.collect::<Option<Map<_, _>>>().map(Value::from)
        }
    }
}
