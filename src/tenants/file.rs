//! The tenants' folder: one TOML file a tenant, read and checked as a whole.
//!
//! It watches nothing and keeps nothing; a connection's own keys are read in `connection`, its secrets in `credentials`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapters::Pace;
use aws_lc_rs::digest;
use toml::de::DeValue;

use super::{Access, Connection, Key, Tenant, Tenants, connection, expiry, issuer};
use crate::settings::document::{Document, Field, Table};
use crate::settings::nearest::did_you_mean;
use crate::settings::{ConfigError, Rate, Upstream, sort};

/// Whether secrets are fetched from where the files say they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Yes: the gateway can run with the result.
    Read,
    /// No: the files alone are checked, and every secret is [`Unread`](super::CredentialValue::Unread).
    Skip,
}

/// Reads every tenant of a folder: its `*.toml` files, hidden ones apart. Either all are good, or every mistake is
/// reported, by file and line.
pub fn load(directory: &Path, defaults: &Upstream, secrets: Secrets) -> Result<Tenants, Vec<ConfigError>> {
    load_with(directory, defaults, secrets, &|name| std::env::var_os(name))
}

/// The same with another environment.
pub(super) fn load_with(
    directory: &Path,
    defaults: &Upstream,
    secrets: Secrets,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Tenants, Vec<ConfigError>> {
    let files = files(directory)?;
    let mut errors = Vec::new();
    let mut census = Census::default();
    let mut version = digest::Context::new(&digest::SHA256);
    let context = Context { defaults, secrets, variable, folder: directory };
    for file in &files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(err) => {
                errors.push(ConfigError::new(file, "", format!("cannot be read: {err}"), None));
                continue;
            }
        };
        for bytes in [file.file_name().unwrap_or_default().as_encoded_bytes(), text.as_bytes()] {
            version.update(&(bytes.len() as u64).to_be_bytes());
            version.update(bytes);
        }
        let (document, root) = Document::parse(file, &text, QUOTABLE);
        if let Some(root) = &root {
            census.read(&Table::root(&document, root), &context);
        }
        errors.extend(document.into_errors());
    }
    if errors.is_empty() {
        let mut hash = [0; 32];
        // SHA-256 has as many bytes.
        hash.copy_from_slice(version.finish().as_ref());
        return Ok(Tenants::new(census.tenants, census.keys).versioned(hash));
    }
    sort(&mut errors);
    Err(errors)
}

/// What reading a file needs besides the file.
pub(super) struct Context<'a> {
    pub(super) defaults: &'a Upstream,
    pub(super) secrets: Secrets,
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) folder: &'a Path,
}

pub(super) const ROOT: &[&str] =
    &["id", "default_connection", "require_idempotency_key", "api_keys", "jwt", "connections"];
pub(super) const API_KEY: &[&str] = &["name", "sha256", "connections", "access", "rate", "expires"];

/// Keys that never have a secret in their line: it may be quoted even if the file is no TOML.
const QUOTABLE: &[&str] = &[
    "id",
    "default_connection",
    "require_idempotency_key",
    "name",
    "access",
    "expires",
    "dialect",
    "base_url",
    "allow_http",
    "allow_private",
    "rate",
    "max_in_flight",
    "pool_idle_ms",
    "max_response_bytes",
    "connect_ms",
    "response_ms",
    "max_attempts",
    "doubt_s",
    "base_ms",
    "cap_ms",
];

/// The longest name of an API key, in characters.
const LONGEST_KEY_NAME: usize = 64;

/// The tenants' files in a folder, in the order in which they are read.
///
/// # Errors
/// If it cannot be read as a folder.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>, Vec<ConfigError>> {
    let wrong = |err: std::io::Error| {
        let hint = "the setting tenants.directory names the folder of the tenants' files".to_owned();
        vec![ConfigError::new(directory, "", format!("cannot be read as a folder: {err}"), Some(hint))]
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Everything read so far, and where: an id and a key belong to one tenant alone.
#[derive(Default)]
struct Census {
    tenants: Vec<Arc<Tenant>>,
    keys: Vec<Key>,
    ids: HashMap<Arc<str>, PathBuf>,
    hashes: HashMap<[u8; 32], (Arc<str>, PathBuf)>,
}

impl Census {
    fn read(&mut self, root: &Table<'_>, context: &Context<'_>) {
        root.refuse_unknown(ROOT);
        let id = root.demand("id").and_then(|field| self.id(&field, root.file()));
        let connections = root.field("connections").and_then(|field| field.table());
        let names: BTreeSet<&str> = connections.iter().flat_map(Table::fields).map(|field| field.name).collect();
        let default = root.field("default_connection").and_then(|field| one_of(&field, &names));
        let require = root.field("require_idempotency_key").and_then(|field| field.flag()).unwrap_or(false);
        let drafts: Vec<_> =
            root.field("api_keys").map(|field| self.keys(&field, &names, root.file())).unwrap_or_default();

        let token_rules = root.field("jwt").map(|field| issuer::read(&field, &names, context)).unwrap_or_default();

        // An id that was refused is put down; the connections are read for their own mistakes.
        let id = id.unwrap_or_default();
        let mut read = BTreeMap::new();
        for field in connections.iter().flat_map(Table::fields) {
            if is_name(field.name) {
                let connection: Option<Connection> = connection::read(&field, &id, context);
                read.extend(connection.map(|connection| (connection.name.clone(), Arc::new(connection))));
            } else {
                field.refuse_key(NAME_RULE, None);
            }
        }
        let tenant = Arc::new(Tenant {
            id,
            default_connection: default,
            require_idempotency_key: require,
            connections: read,
            token_rules,
        });
        self.keys.extend(drafts.into_iter().map(|draft| Key {
            sha256: draft.sha256,
            name: draft.name,
            tenant: tenant.clone(),
            access: draft.access,
            connections: draft.connections,
            rate: draft.rate,
            expires_ms: draft.expires_ms,
        }));
        self.tenants.push(tenant);
    }

    fn id(&mut self, field: &Field<'_>, file: &Path) -> Option<Arc<str>> {
        let id = field.text()?;
        if !is_name(id) {
            field.refuse(NAME_RULE, None);
            return None;
        }
        let id: Arc<str> = id.into();
        if let Some(other) = self.ids.get(&id) {
            field.refuse(&format!("is the id of another tenant, in {}", other.display()), None);
            return None;
        }
        self.ids.insert(id.clone(), file.to_owned());
        Some(id)
    }

    fn keys(&mut self, field: &Field<'_>, names: &BTreeSet<&str>, file: &Path) -> Vec<Draft> {
        let items = field.items().unwrap_or_default();
        items.iter().filter_map(|item| self.key(&item.table()?, names, file)).collect()
    }

    fn key(&mut self, table: &Table<'_>, names: &BTreeSet<&str>, file: &Path) -> Option<Draft> {
        table.refuse_unknown(API_KEY);
        let name = table.demand("name").and_then(|field| {
            let name = field.text()?;
            let good = (1..=LONGEST_KEY_NAME).contains(&name.chars().count()) && !name.contains(char::is_control);
            if !good {
                field.refuse(&format!("must have 1 to {LONGEST_KEY_NAME} printable characters"), None);
            }
            good.then(|| Arc::<str>::from(name))
        });
        let access = table.field("access").map_or(Some(Access::Delete), |field| access(&field));
        let connections = reach(table, names);
        let sha256 = table.demand("sha256").and_then(|field| {
            let hash = hash(&field)?;
            let place = (name.clone().unwrap_or_default(), file.to_owned());
            match self.hashes.get(&hash) {
                Some((name, other)) => {
                    field.refuse(&format!("is that of another key, {name:?} in {}", other.display()), None);
                    None
                }
                None => {
                    self.hashes.insert(hash, place);
                    Some(hash)
                }
            }
        });
        let rate = rate(table);
        let expires_ms = table.field("expires").map_or(Some(None), |field| end(&field).map(Some));
        Some(Draft {
            name: name?,
            sha256: sha256?,
            access: access?,
            connections: connections?,
            rate: rate?,
            expires_ms: expires_ms?,
        })
    }
}

/// A key whose tenant is still being read.
struct Draft {
    sha256: [u8; 32],
    name: Arc<str>,
    access: Access,
    connections: Option<BTreeSet<Arc<str>>>,
    rate: Option<Pace>,
    expires_ms: Option<i64>,
}

/// What tenants and connections may be called.
const NAME_RULE: &str = "must be a name of 1 to 64 lower-case letters, digits, - and _, with a letter or digit first";

/// Whether a text can be the name of a tenant or a connection: 1 to 64 lower-case letters, digits, `-` and `_`, a letter or digit
/// first.
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 64
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-' || b == b'_')
}

/// A connection's name, which must be one of the tenant's.
pub(super) fn one_of(field: &Field<'_>, names: &BTreeSet<&str>) -> Option<Arc<str>> {
    let name = field.text()?;
    if !names.contains(name) {
        field.refuse("is no connection of this tenant", did_you_mean(name, names.iter().copied()));
        return None;
    }
    Some(name.into())
}

/// What a caller may do.
pub(super) fn access(field: &Field<'_>) -> Option<Access> {
    match field.text()? {
        "delete" => Some(Access::Delete),
        "read" => Some(Access::Read),
        _ => {
            field.refuse("must be delete or read", None);
            None
        }
    }
}

/// The connections that a caller may use: those that `connections` names, or all.
pub(super) fn reach(table: &Table<'_>, names: &BTreeSet<&str>) -> Option<Option<BTreeSet<Arc<str>>>> {
    table.field("connections").map_or(Some(None), |field| {
        let items = field.items()?;
        if items.is_empty() {
            field.refuse("must name a connection", Some("without this line, all of them may be used".to_owned()));
        }
        Some(Some(items.iter().filter_map(|item| one_of(item, names)).collect()))
    })
}

/// How often a caller may ask.
pub(super) fn rate(table: &Table<'_>) -> Option<Option<Pace>> {
    table.field("rate").map_or(Some(None), |field| match Rate::parse(field.text()?) {
        Ok(rate) => Some(rate.pace()),
        Err(message) => {
            field.refuse(&message, None);
            None
        }
    })
}

/// When a key's time is over: TOML's own date, or the same as text.
fn end(field: &Field<'_>) -> Option<i64> {
    let text = match field.value {
        DeValue::Datetime(date) => date.to_string(),
        DeValue::String(text) => text.to_string(),
        _ => String::new(),
    };
    match expiry::parse(&text) {
        Ok(end) => Some(end),
        Err(message) => {
            field.refuse(message, None);
            None
        }
    }
}

fn hash(field: &Field<'_>) -> Option<[u8; 32]> {
    let text = field.text()?;
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 64 || !text.bytes().all(lower) {
        let pasted = text.starts_with("odk_").then_some("this looks like the key itself: only its hash belongs here");
        let hint = pasted.unwrap_or("onedelete key new prints the whole line");
        field.refuse("must be 64 hexadecimal digits in lower case", Some(hint.to_owned()));
        return None;
    }
    let mut hash = [0; 32];
    for (place, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        // Only hexadecimal digits are left.
        let digits = std::str::from_utf8(digits).ok()?;
        *place = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}
