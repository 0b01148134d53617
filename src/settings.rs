//! The gateway's own settings: compiled-in defaults, one file over them, the environment over both.
//!
//! The only user of the crate `config`. Tenants stand in files of their own, which `tenants` reads.

pub(crate) mod document;
mod error;
pub(crate) mod keys;
pub(crate) mod nearest;
mod schema;
pub mod secret;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat};
use serde::Deserialize;

pub use error::ConfigError;
pub(crate) use error::sort;
pub(crate) use schema::below;
pub use schema::schema;
pub use secret::SecretRef;
pub use values::{ClientCertificates, LogFormat, Rate, StoreUrl};

use document::{Document, Table};

/// The compiled-in file that documents every key.
pub const DEFAULT: &str = include_str!("../config/default.toml");

/// Every setting of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The listeners.
    pub server: Server,
    /// Deletions.
    pub deletions: Deletions,
    /// The ledger.
    pub store: StoreSettings,
    /// How long what is kept.
    pub retention: Retention,
    /// The tenants' files.
    pub tenants: TenantsSettings,
    /// The way out, and defaults for every connection.
    pub upstream: Upstream,
    /// Traces.
    pub telemetry: Telemetry,
    /// The log.
    pub log: Log,
}

/// The listeners and what they take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The public listener.
    pub listen: SocketAddr,
    /// The listener for health, metrics and the console.
    pub admin_listen: SocketAddr,
    /// Where the token is that opens the console.
    pub admin_token: SecretRef,
    /// Whether something in front of the gateway does TLS.
    pub behind_tls: bool,
    /// Open connections; at most 100,000.
    pub max_connections: usize,
    /// Open connections from one address; at most 100,000.
    pub max_connections_per_address: usize,
    /// The longest URI in bytes; at most 65,536.
    pub max_uri_bytes: usize,
    /// Header lines of a request; at most 1,000.
    pub max_headers: usize,
    /// All header lines together, in bytes; from 8,192 to 1,048,576.
    pub max_header_bytes: usize,
    /// A JSON body, in bytes; at most 67,108,864.
    pub max_body_bytes: usize,
    /// Milliseconds for a request's head; at most 60,000.
    pub header_timeout_ms: u64,
    /// Milliseconds that a connection is kept without a request; at most 600,000.
    pub idle_timeout_ms: u64,
    /// Milliseconds for a whole body; at most 600,000.
    pub body_timeout_ms: u64,
    /// The slowest body in bytes a second, after 2 s; 0 is no limit.
    pub min_body_bytes_per_s: u64,
    /// Milliseconds after which a caller has to go who reads nothing of an answer; at most 600,000.
    pub write_timeout_ms: u64,
    /// The slowest reader of an answer in bytes a second, after 2 s; 0 is no limit.
    pub min_answer_bytes_per_s: u64,
    /// Bytes of large answers that wait for their callers to read them; at most 16 GiB.
    pub max_held_answer_bytes: usize,
    /// Wrong keys from one address in a minute; 0 is no limit, at most 1,000,000.
    pub max_wrong_keys_per_min: u32,
    /// Requests in flight; at most 100,000.
    pub max_requests_in_flight: usize,
    /// Milliseconds that the process may be late before it takes in fewer requests; 0 is any time, at most 10,000.
    pub max_lag_ms: u64,
    /// Milliseconds that a stopping gateway leaves running requests and calls; at most 600,000.
    pub drain_ms: u64,
    /// Whether callers may agree on HTTP/2 in the TLS handshake.
    pub http2: bool,
    /// Whether callers without TLS may begin with HTTP/2.
    pub http2_plain: bool,
    /// Requests at the same time on one HTTP/2 connection; at most 1,000.
    pub http2_max_streams: u32,
    /// TLS on the listeners.
    pub tls: TlsSettings,
}

/// TLS on the listeners. Empty paths are files that there are not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate and those that lead to its authority (PEM); empty for no TLS.
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// The authorities (PEM) that sign callers' certificates.
    pub client_ca: PathBuf,
    /// Whether callers must show one.
    pub client_certificates: ClientCertificates,
    /// Whether the admin listener does TLS too.
    pub admin: bool,
    /// Milliseconds between two looks at the files; 0 is never, at most 3,600,000.
    pub poll_ms: u64,
}

impl TlsSettings {
    /// Whether the public listener does TLS.
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }
}

/// Deletions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletions {
    /// Contacts in one JSON body; at most 100,000.
    pub max_contacts: usize,
    /// Contacts in one body of JSON Lines; at most 10,000,000.
    pub max_contacts_streamed: usize,
    /// Bodies of JSON Lines that are read at the same time; at most 1,000.
    pub max_streams: usize,
    /// The longest wait for an answer in seconds; at most 300.
    pub max_wait_s: u64,
    /// Seconds after which nothing more is sent; at most 2,592,000.
    pub deadline_s: u64,
    /// Contacts of deletions that are not finished; at most 1,000,000,000.
    pub max_open_contacts: usize,
    /// Of them, of one tenant; at most 1,000,000,000.
    pub max_open_contacts_per_tenant: usize,
    /// Of them, worked at the same time; at most 10,000,000.
    pub max_worked_contacts: usize,
    /// Of these, of one tenant; at most 10,000,000.
    pub max_worked_contacts_per_tenant: usize,
}

/// The ledger.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// Which, and where.
    pub url: StoreUrl,
    /// Where the password of a Postgres store is.
    pub password: SecretRef,
    /// A file of certificates (PEM) that sign the Postgres server's; empty for those of the system.
    pub ca_file: PathBuf,
    /// Connections to Postgres; at most 100.
    pub pool_size: usize,
    /// How long connecting to Postgres may take; at most 60,000.
    pub connect_timeout_ms: u64,
    /// How long one statement may take; at most 600,000.
    pub statement_timeout_ms: u64,
    /// Seconds after which others take over what a gateway does not renew; 2 to 600.
    pub lease_s: u64,
    /// Where the key of identifiers' hashes is; without one, the store makes its own.
    pub hash_key: SecretRef,
}

/// How long what is kept after a deletion is finished, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Its idempotency key; at most 315,360,000.
    pub keys_s: u64,
    /// The deletion and its results; 0 keeps them for ever, at most 3,153,600,000.
    pub deletions_s: u64,
    /// Its identifiers; 0 erases them as soon as they are not needed, at most 315,360,000.
    pub identifiers_s: u64,
}

/// The tenants' files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantsSettings {
    /// The folder that they are in.
    pub directory: PathBuf,
    /// Milliseconds between two looks at the configuration's files; 0 is never, at most 3,600,000.
    pub poll_ms: u64,
}

/// The way out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Calls in flight, all connections together; at most 10,000.
    pub max_in_flight: usize,
    /// Of them, at the connections of one tenant; at most 10,000.
    pub max_in_flight_per_tenant: usize,
    /// Failures in a row that open a connection's breaker; at most 1,000.
    pub breaker_failures: u32,
    /// Milliseconds that a breaker stays open before one probe; at most 3,600,000.
    pub breaker_open_ms: u64,
    /// Milliseconds after which what a connection needs is forgotten that nobody uses; 0 is never, at most 86,400,000.
    pub idle_ms: u64,
    /// How much may go out at a connection that does not say.
    pub limits: Limits,
    /// How long to wait at a connection that does not say.
    pub timeouts: Timeouts,
    /// How often to try at a connection that does not say.
    pub retry: Retry,
}

/// How much may go out at one connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Calls in flight; at most 1,000.
    pub max_in_flight: usize,
    /// Milliseconds after which an idle connection is closed; at most 600,000.
    pub pool_idle_ms: u64,
    /// The longest reply in bytes; at most 16,777,216.
    pub max_response_bytes: usize,
    /// Calls in a time; the dialect's own pace, if `None`.
    pub rate: Option<Rate>,
}

/// How long to wait for an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Milliseconds for name, TCP and TLS; at most 60,000.
    pub connect_ms: u64,
    /// Milliseconds for a whole attempt; at most 600,000.
    pub response_ms: u64,
}

/// How often to try a contact.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts; from 1 to 20.
    pub max_attempts: u32,
    /// Seconds for which a contact in doubt is tried, however many attempts that takes; at most 86,400.
    pub doubt_s: u64,
    /// The first wait in milliseconds, at most; no more than 60,000.
    pub base_ms: u64,
    /// The longest wait of our own in milliseconds; no more than 900,000, no less than `base_ms`.
    pub cap_ms: u64,
    /// Retries in a minute for each 100 first attempts in it; at most 100, which is no budget.
    pub budget_percent: u32,
    /// Retries in a minute that are allowed in any case; from 1 to 60,000.
    pub budget_floor_per_minute: u32,
}

/// Traces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Whether upstreams are told the trace and the request id that a caller sent.
    pub pass_upstream: bool,
    /// The collector.
    pub otlp: Otlp,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// The collector's URL; empty if there is none.
    pub endpoint: String,
    /// Where the headers for it are, as `NAME=VALUE,NAME=VALUE`.
    pub headers: SecretRef,
    /// Of so many deletions, one is traced; at most 1,000,000,000.
    pub sample_one_in: u64,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// What is logged: a level or tracing directives. Their syntax is not checked here.
    pub filter: String,
}

/// Reads the file and lays the process's environment over it. Every mistake is reported, in order.
pub fn load(file: &Path) -> Result<Settings, Vec<ConfigError>> {
    load_with(file, std::env::vars_os())
}

/// The same with these variables as the environment; those that do not start with `ONEDELETE__` are ignored.
pub fn load_with(
    file: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let variables = read_variables(variables, &mut errors);
    let text = std::fs::read_to_string(file).unwrap_or_else(|err| {
        let hint = "there must be a configuration file, even an empty one; --config names it";
        errors.push(ConfigError::new(file, "", format!("cannot be read: {err}"), Some(hint.to_owned())));
        String::new()
    });
    let names: Vec<_> = keys::KEYS.iter().filter_map(|key| key.path.rsplit('.').next()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| !HIDDEN.contains(name)).collect();
    let (document, root) = Document::parse(file, &text, &names);
    if let Some(root) = &root {
        let root = Table::root(&document, root);
        keys::check(&root, "");
        errors.extend(check_together(&text, &variables, &root));
    }
    errors.extend(document.into_errors());
    if errors.is_empty() {
        match layers(&text, &variables).and_then(Config::try_deserialize::<Settings>) {
            Ok(settings) => return Ok(settings.below(file.parent().unwrap_or(Path::new("")))),
            // Only if `KEYS` and the types above disagree: no value is known to be at fault.
            Err(_) => errors.push(ConfigError::new(file, "", "cannot be used, and the reason is not known", None)),
        }
    }
    sort(&mut errors);
    // The file first, then the variables.
    errors.sort_by_key(|error| error.file != file);
    Err(errors)
}

/// The variables that are settings, checked one by one.
fn read_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    errors: &mut Vec<ConfigError>,
) -> Vec<(String, String)> {
    let mut known = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(keys::PREFIX)) else { continue };
        match (keys::of_variable(name), value.into_string()) {
            (Err(hint), _) => errors.push(ConfigError::new(name, "", "is no setting", hint)),
            (Ok(key), Err(_)) => errors.push(ConfigError::new(name, key.path, "is not UTF-8", None)),
            (Ok(key), Ok(value)) => match key.check_text(&value) {
                Ok(()) => known.push((name.to_owned(), value)),
                Err(message) => errors.push(ConfigError::new(name, key.path, message, None)),
            },
        }
    }
    known
}

impl Settings {
    /// With relative paths taken from a folder.
    fn below(mut self, folder: &Path) -> Self {
        self.tenants.directory = folder.join(self.tenants.directory);
        if let StoreUrl::Sqlite(path) = &mut self.store.url {
            *path = folder.join(&*path);
        }
        let tls = &mut self.server.tls;
        for file in [&mut self.store.ca_file, &mut tls.certificate, &mut tls.key, &mut tls.client_ca] {
            if !file.as_os_str().is_empty() {
                *file = folder.join(&*file);
            }
        }
        self.server.admin_token.below(folder);
        self.store.password.below(folder);
        self.store.hash_key.below(folder);
        self.telemetry.otlp.headers.below(folder);
        self
    }
}

fn layers(text: &str, variables: &[(String, String)]) -> Result<Config, config::ConfigError> {
    let variables =
        Environment::with_prefix("ONEDELETE").separator("__").source(Some(variables.iter().cloned().collect()));
    Config::builder()
        .add_source(File::from_str(DEFAULT, FileFormat::Toml))
        .add_source(File::from_str(text, FileFormat::Toml))
        .add_source(variables)
        .build()
}

/// What only shows when all layers are known. Settings that are wrong by themselves are left out.
fn check_together(text: &str, variables: &[(String, String)], root: &Table<'_>) -> Vec<ConfigError> {
    let Ok(config) = layers(text, variables) else { return Vec::new() };
    let mut errors = Vec::new();
    // Where a setting is made: the variable, else the line.
    let mut refuse = |path: &str, message: &str, hint: Option<&str>| {
        let hint = hint.map(str::to_owned);
        let name = keys::KEYS.iter().find(|key| key.path == path).map(keys::Key::variable);
        let variable = name.filter(|name| variables.iter().any(|(set, _)| set == name));
        let field = path.split_once('.').and_then(|(section, rest)| field(root, section, rest));
        match (variable, field) {
            (Some(name), _) => errors.push(ConfigError::new(name, path, message, hint)),
            (None, Some(field)) => field.refuse(message, hint),
            (None, None) => errors.push(ConfigError::new(root.file(), path, message, hint)),
        }
    };
    let address = |path| config.get::<SocketAddr>(path).ok();
    let behind_tls = config.get::<bool>("server.behind_tls").unwrap_or(true);
    let named = |path| config.get::<String>(path).is_ok_and(|text| !text.is_empty());
    let own_tls = named("server.tls.certificate");
    let admin_tls = own_tls && config.get::<bool>("server.tls.admin").unwrap_or(true);
    for (path, own_tls, hint) in
        [("server.listen", own_tls, IN_THE_CLEAR), ("server.admin_listen", admin_tls, ADMIN_IN_THE_CLEAR)]
    {
        if address(path).is_some_and(|address| !address.ip().is_loopback()) && !behind_tls && !own_tls {
            refuse(path, "must be a loopback address", Some(hint));
        }
    }
    let required = config.get::<String>("server.tls.client_certificates").is_ok_and(|text| text == "required");
    for (path, needs, message) in [
        ("server.tls.key", own_tls && !named("server.tls.key"), "must name the private key of server.tls.certificate"),
        (
            "server.tls.certificate",
            !own_tls
                && (named("server.tls.key") || required || config.get::<bool>("server.tls.admin").unwrap_or(false)),
            "must name a certificate: without it there is no TLS",
        ),
        (
            "server.tls.client_ca",
            required && !named("server.tls.client_ca"),
            "must name the authorities that sign callers' certificates",
        ),
        (
            "server.tls.client_certificates",
            !required && named("server.tls.client_ca"),
            "must be required, or server.tls.client_ca is for nothing",
        ),
    ] {
        if needs {
            refuse(path, message, None);
        }
    }
    if address("server.listen")
        .is_some_and(|public| public.port() != 0 && address("server.admin_listen") == Some(public))
    {
        refuse("server.admin_listen", "must not be the same as server.listen", None);
    }
    let whole = |path| config.get::<u64>(path).ok();
    if let (Some(base), Some(cap)) = (whole("upstream.retry.base_ms"), whole("upstream.retry.cap_ms"))
        && base > cap
    {
        refuse("upstream.retry.cap_ms", CAP_BELOW_BASE, None);
    }
    if let (Some(keys), Some(deletions)) = (whole("retention.keys_s"), whole("retention.deletions_s"))
        && (1..keys).contains(&deletions)
    {
        let hint = "a request that is repeated within retention.keys_s is answered with its deletion";
        refuse("retention.deletions_s", "must be 0 or not less than keys_s", Some(hint));
    }
    errors
}

/// What to do about a listener that everybody could read along with.
const IN_THE_CLEAR: &str =
    "server.tls.certificate makes the gateway do TLS; server.behind_tls = true says that something in front of it does";
const ADMIN_IN_THE_CLEAR: &str = "server.tls.admin = true makes it do TLS with server.tls.certificate; server.behind_tls = true says that something in front of it does";

/// Settings whose lines are not quoted: what is wrong in them may be a secret that stands in the wrong place.
const HIDDEN: [&str; 7] = ["url", "password", "hash_key", "key", "endpoint", "headers", "admin_token"];

/// Said of a connection's setting too.
pub(crate) const CAP_BELOW_BASE: &str = "must not be less than base_ms";

fn field<'d>(table: &Table<'d>, section: &str, rest: &str) -> Option<document::Field<'d>> {
    let table = table.field(section).filter(|field| field.value.is_table())?.table()?;
    match rest.split_once('.') {
        Some((section, rest)) => field(&table, section, rest),
        None => table.field(rest),
    }
}
