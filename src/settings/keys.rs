//! Every setting of `config/default.toml`: its name, its form, its limits. Connections take the limits of
//! `upstream.limits`, `upstream.timeouts` and `upstream.retry` from here too.
//!
//! A test holds the ceilings to those that the file's comments name. What two settings mean together is not said here.

use std::net::SocketAddr;

use super::document::{Field, Table};
use super::nearest::nearest;
use super::secret::SecretRef;
use super::{ClientCertificates, LogFormat, Rate, StoreUrl};

/// What the variables that are settings start with.
pub(crate) const PREFIX: &str = "ONEDELETE__";

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name from the root.
    pub(crate) path: &'static str,
    pub(super) kind: Kind,
}

/// A setting's form.
#[derive(Debug)]
pub(super) enum Kind {
    Whole { least: u64, most: u64 },
    Flag,
    Text(fn(&str) -> Result<(), String>),
}

/// For numbers whose comment names no ceiling: the most that TOML can write.
const NO_CEILING: u64 = i64::MAX as u64;

/// All of them.
pub(crate) static KEYS: &[Key] = &[
    text("server.listen", is_address),
    text("server.admin_listen", is_address),
    text("server.admin_token", SecretRef::check),
    Key { path: "server.behind_tls", kind: Kind::Flag },
    whole("server.max_connections", 1, 100_000),
    whole("server.max_connections_per_address", 1, 100_000),
    whole("server.max_uri_bytes", 1, 65_536),
    whole("server.max_headers", 1, 1_000),
    whole("server.max_header_bytes", 8_192, 1_048_576),
    whole("server.max_body_bytes", 1, 67_108_864),
    whole("server.header_timeout_ms", 1, 60_000),
    whole("server.idle_timeout_ms", 1, 600_000),
    whole("server.body_timeout_ms", 1, 600_000),
    whole("server.min_body_bytes_per_s", 0, NO_CEILING),
    whole("server.write_timeout_ms", 1, 600_000),
    whole("server.min_answer_bytes_per_s", 0, NO_CEILING),
    whole("server.max_held_answer_bytes", 1, 17_179_869_184),
    whole("server.max_wrong_keys_per_min", 0, 1_000_000),
    whole("server.max_requests_in_flight", 1, 100_000),
    whole("server.max_lag_ms", 0, 10_000),
    whole("server.drain_ms", 0, 600_000),
    Key { path: "server.http2", kind: Kind::Flag },
    Key { path: "server.http2_plain", kind: Kind::Flag },
    whole("server.http2_max_streams", 1, 1_000),
    text("server.tls.certificate", |_| Ok(())),
    text("server.tls.key", |_| Ok(())),
    text("server.tls.client_ca", |_| Ok(())),
    text("server.tls.client_certificates", |text| ClientCertificates::parse(text).map(drop)),
    Key { path: "server.tls.admin", kind: Kind::Flag },
    whole("server.tls.poll_ms", 0, 3_600_000),
    whole("deletions.max_contacts", 1, 100_000),
    whole("deletions.max_contacts_streamed", 1, 10_000_000),
    whole("deletions.max_streams", 1, 1_000),
    whole("deletions.max_wait_s", 0, 300),
    whole("deletions.max_open_contacts", 1, 1_000_000_000),
    whole("deletions.max_open_contacts_per_tenant", 1, 1_000_000_000),
    whole("deletions.max_worked_contacts", 1, 10_000_000),
    whole("deletions.max_worked_contacts_per_tenant", 1, 10_000_000),
    whole("deletions.deadline_s", 1, 2_592_000),
    text("store.url", |url| StoreUrl::parse(url).map(drop)),
    text("store.password", SecretRef::check),
    text("store.ca_file", |_| Ok(())),
    whole("store.pool_size", 1, 100),
    whole("store.connect_timeout_ms", 1, 60_000),
    whole("store.statement_timeout_ms", 1, 600_000),
    whole("store.lease_s", 2, 600),
    text("store.hash_key", SecretRef::check),
    whole("retention.keys_s", 1, 315_360_000),
    whole("retention.deletions_s", 0, 3_153_600_000),
    whole("retention.identifiers_s", 0, 315_360_000),
    text("tenants.directory", is_something),
    whole("tenants.poll_ms", 0, 3_600_000),
    whole("upstream.max_in_flight", 1, 10_000),
    whole("upstream.max_in_flight_per_tenant", 1, 10_000),
    whole("upstream.breaker_failures", 1, 1_000),
    whole("upstream.breaker_open_ms", 1, 3_600_000),
    whole("upstream.idle_ms", 0, 86_400_000),
    whole("upstream.limits.max_in_flight", 1, 1_000),
    whole("upstream.limits.pool_idle_ms", 0, 600_000),
    whole("upstream.limits.max_response_bytes", 1, 16_777_216),
    text("upstream.limits.rate", |rate| Rate::parse(rate).map(drop)),
    whole("upstream.timeouts.connect_ms", 1, 60_000),
    whole("upstream.timeouts.response_ms", 1, 600_000),
    whole("upstream.retry.max_attempts", 1, 20),
    whole("upstream.retry.doubt_s", 0, 86_400),
    whole("upstream.retry.base_ms", 1, 60_000),
    whole("upstream.retry.cap_ms", 1, 900_000),
    whole("upstream.retry.budget_percent", 0, 100),
    whole("upstream.retry.budget_floor_per_minute", 1, 60_000),
    Key { path: "telemetry.pass_upstream", kind: Kind::Flag },
    text("telemetry.otlp.endpoint", is_endpoint),
    text("telemetry.otlp.headers", SecretRef::check),
    whole("telemetry.otlp.sample_one_in", 1, 1_000_000_000),
    text("log.format", |format| LogFormat::parse(format).map(drop)),
    text("log.filter", is_something),
];

const fn whole(path: &'static str, least: u64, most: u64) -> Key {
    Key { path, kind: Kind::Whole { least, most } }
}

const fn text(path: &'static str, check: fn(&str) -> Result<(), String>) -> Key {
    Key { path, kind: Kind::Text(check) }
}

fn is_address(text: &str) -> Result<(), String> {
    let wrong = |_| "must be an IP address and a port, such as 127.0.0.1:8080".to_owned();
    text.parse::<SocketAddr>().map(drop).map_err(wrong)
}

fn is_endpoint(text: &str) -> Result<(), String> {
    let is_good = |uri: &http::Uri| {
        let named = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        named && matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
    };
    match text.parse() {
        _ if text.is_empty() => Ok(()),
        Ok(uri) if is_good(&uri) && !text.contains('#') => Ok(()),
        _ => Err("must be an http or https URL without credentials or a query, or empty".to_owned()),
    }
}

fn is_something(text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

/// Checks every field of a table against the settings below `section`, down to the last; empty means all of them.
pub(crate) fn check(table: &Table<'_>, section: &str) {
    for field in table.fields() {
        let path = if section.is_empty() { field.name.to_owned() } else { format!("{section}.{}", field.name) };
        if let Some(key) = KEYS.iter().find(|key| key.path == path) {
            key.check(&field);
        } else if below(&path).next().is_some() {
            if let Some(table) = field.table() {
                check(&table, &path);
            }
        } else {
            field.refuse_name(below(section));
        }
    }
}

/// The names that may stand directly below a section; some more than once.
fn below(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let rest = if section.is_empty() { key.path } else { key.path.strip_prefix(section)?.strip_prefix('.')? };
        rest.split('.').next()
    })
}

impl Key {
    fn check(&self, field: &Field<'_>) {
        match self.kind {
            Kind::Whole { least, most } => drop(field.whole(least, most)),
            Kind::Flag => drop(field.flag()),
            Kind::Text(check) => {
                if let Some(Err(message)) = field.text().map(check) {
                    field.refuse(&message, None);
                }
            }
        }
    }

    /// Checks a value that came as text, from a variable.
    pub(crate) fn check_text(&self, text: &str) -> Result<(), String> {
        match self.kind {
            Kind::Whole { least, most } => match text.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                Ok(_) => Err(super::document::range(least, most)),
                Err(_) => Err("must be a whole number".to_owned()),
            },
            Kind::Flag if matches!(text, "true" | "false") => Ok(()),
            Kind::Flag => Err("must be true or false".to_owned()),
            Kind::Text(check) => check(text),
        }
    }

    /// The variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "__").to_uppercase())
    }
}

/// The setting that a variable sets, or what may have been meant.
pub(crate) fn of_variable(name: &str) -> Result<&'static Key, Option<String>> {
    KEYS.iter().find(|key| key.variable() == name).ok_or_else(|| {
        // The prefix is right, and would make everything look near.
        let names: Vec<_> = KEYS.iter().map(|key| key.path.replace('.', "__")).collect();
        let meant = nearest(name.trim_start_matches(PREFIX), names.iter().map(String::as_str));
        meant.map(|meant| format!("did you mean {PREFIX}{}?", meant.to_uppercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number after a word in a comment.
    fn number_after(comment: &str, word: &str) -> Option<u64> {
        let rest = comment.split_once(word)?.1.trim_start();
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    }

    #[test]
    fn the_limits_are_those_that_the_default_file_names() {
        let mut section = String::new();
        let mut seen = Vec::new();
        for line in super::super::DEFAULT.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.split(']').next().unwrap().to_owned();
                continue;
            }
            let line = line.strip_prefix("# rate").map_or(line.to_owned(), |rest| format!("rate{rest}"));
            let Some((name, rest)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else { continue };
            let path = format!("{section}.{name}");
            let key = KEYS.iter().find(|key| key.path == path).unwrap_or_else(|| panic!("{path} is no key"));
            seen.push(key.path);
            let Kind::Whole { least, most } = key.kind else { continue };
            assert_eq!(most, number_after(rest, "(ceiling").unwrap_or(NO_CEILING), "{path}");
            if let Some(number) = number_after(rest, "at least") {
                assert_eq!(least, number, "{path}");
            }
        }
        assert_eq!(seen, KEYS.iter().map(|key| key.path).collect::<Vec<_>>());
    }
}
