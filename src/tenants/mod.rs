//! Tenants: their keys and their connections, read from one file each into an immutable map.
//!
//! The map is replaced whole or not at all. Nothing here talks to anybody; a connection's runtime side is `outbound`.

mod connection;
mod credentials;
pub mod expiry;
mod file;
mod issuer;
mod schema;
#[cfg(test)]
mod tests;
mod upstream_url;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use adapters::{Dialect, Grant, Pace, Registration};
use secrecy::{ExposeSecret, SecretString};

use crate::maps::HashMap;

pub use file::{Secrets, files, is_name, load};
pub use issuer::{TokenKeys, TokenRule};
pub use schema::schema;

/// Every tenant and every key.
#[derive(Debug, Default)]
pub struct Tenants {
    by_id: BTreeMap<Arc<str>, Arc<Tenant>>,
    by_key: HashMap<[u8; 32], Key>,
    version: [u8; 32],
}

/// One tenant.
#[derive(Debug)]
pub struct Tenant {
    /// Its name.
    pub id: Arc<str>,
    /// The connection of contacts that name none.
    pub default_connection: Option<Arc<str>>,
    /// Whether a request for a deletion must have an idempotency key.
    pub require_idempotency_key: bool,
    /// Its connections, by name.
    pub connections: BTreeMap<Arc<str>, Arc<Connection>>,
    /// Whose signed tokens are taken in the place of its keys.
    pub token_rules: Vec<TokenRule>,
}

/// One API key of a tenant. The key itself is not known, only its hash.
#[derive(Debug, Clone)]
pub struct Key {
    /// Lowercase hex SHA-256 of the whole key, as bytes.
    pub sha256: [u8; 32],
    /// Its name, for logs.
    pub name: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// What it may do.
    pub access: Access,
    /// The connections that it may use; all, if `None`.
    pub connections: Option<BTreeSet<Arc<str>>>,
    /// Requests in so many seconds; `None` is any number.
    pub rate: Option<Pace>,
    /// From when on it is refused, in milliseconds since 1970-01-01 UTC; never, if `None`.
    pub expires_ms: Option<i64>,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look at connections and deletions.
    Read,
    /// That, and delete.
    Delete,
}

/// One CRM account of a tenant.
#[derive(Debug)]
pub struct Connection {
    /// Its name, unique in its tenant.
    pub name: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Its dialect.
    pub registration: &'static Registration,
    /// The dialect, bound to this connection's settings.
    pub dialect: Arc<dyn Dialect>,
    /// Where the upstream is: the setting `base_url`, for its scheme and host.
    pub base_url: String,
    /// The settings that the dialect was bound to, `base_url` among them. No secret stands there.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// What it shows the upstream.
    pub credentials: Credentials,
    /// Whether plain http is allowed.
    pub allow_http: bool,
    /// Whether private and link-local addresses are allowed.
    pub allow_private: bool,
    /// How much may go out.
    pub limits: Limits,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try.
    pub retry: RetryPolicy,
}

/// The members of a connection's `credentials`, in the form that fits.
pub struct Credentials {
    /// What becomes of them.
    pub grant: &'static Grant,
    /// The members; those that are secrets are kept as such.
    pub members: Vec<(&'static str, CredentialValue)>,
}

/// One member of `credentials`.
pub enum CredentialValue {
    /// For everybody to see.
    Plain(String),
    /// Read from the environment or a file when the tenants were loaded.
    Secret(SecretString),
    /// Not read: configuration was only checked, without its secrets.
    Unread,
}

/// How much may go out at one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls in so many seconds; `None` is no pace.
    pub rate: Option<Pace>,
    /// Calls in flight.
    pub max_in_flight: usize,
    /// How long an idle connection is kept.
    pub pool_idle_ms: u64,
    /// The longest reply.
    pub max_response_bytes: usize,
}

/// How long to wait for an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect_ms: u64,
    /// For a whole attempt.
    pub response_ms: u64,
}

/// How often to try a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts, at least 1.
    pub max_attempts: u32,
    /// Seconds for which a contact in doubt is tried, however many attempts that takes.
    pub doubt_s: u64,
    /// The first wait is at most so long.
    pub base_ms: u64,
    /// No wait of our own is longer.
    pub cap_ms: u64,
    /// Second and later attempts of calls in a minute for each 100 first ones in it; 100 is no budget.
    pub budget_percent: u32,
    /// Of them, those that are allowed in any case; at least 1.
    pub budget_floor_per_minute: u32,
}

impl Tenants {
    /// From tenants whose ids differ and keys whose hashes do.
    pub(crate) fn new(tenants: impl IntoIterator<Item = Arc<Tenant>>, keys: impl IntoIterator<Item = Key>) -> Self {
        Self {
            by_id: tenants.into_iter().map(|tenant| (tenant.id.clone(), tenant)).collect(),
            by_key: keys.into_iter().map(|key| (key.sha256, key)).collect(),
            version: [0; 32],
        }
    }

    /// The same, read from files with this hash.
    pub(crate) fn versioned(self, version: [u8; 32]) -> Self {
        Self { version, ..self }
    }

    /// SHA-256 of the files that they were read from, by name; secrets that stand elsewhere are not in it.
    pub fn version(&self) -> &[u8; 32] {
        &self.version
    }

    /// A tenant's connection.
    pub fn connection(&self, tenant: &str, name: &str) -> Option<&Arc<Connection>> {
        self.tenant(tenant)?.connections.get(name)
    }

    /// The key with this hash.
    pub fn key(&self, sha256: &[u8; 32]) -> Option<&Key> {
        self.by_key.get(sha256)
    }

    /// Every key of every tenant, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.values()
    }

    /// Every tenant, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_id.values()
    }

    /// The tenant with this id.
    pub fn tenant(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.by_id.get(id)
    }
}

impl Connection {
    /// Whether nothing about it differs, secrets included.
    pub fn is_same(&self, other: &Self) -> bool {
        self.leads_where(other)
            && self.credentials.members == other.credentials.members
            && (self.allow_http, self.allow_private) == (other.allow_http, other.allow_private)
            && (self.limits, self.timeouts, self.retry) == (other.limits, other.timeouts, other.retry)
    }

    /// Whether the other one leads to the same contacts. Dialect, settings and every credential that is no secret say so, and
    /// some of them might: where one differs, it is taken for another account.
    pub fn leads_where(&self, other: &Self) -> bool {
        let plain = |connection: &Self| -> Vec<(&'static str, String)> {
            let members = connection.credentials.members.iter();
            let plain = members.filter_map(|(name, value)| match value {
                CredentialValue::Plain(text) => Some((*name, text.clone())),
                CredentialValue::Secret(_) | CredentialValue::Unread => None,
            });
            plain.collect()
        };
        self.registration.profile.id == other.registration.profile.id
            && self.base_url == other.base_url
            && self.settings == other.settings
            && plain(self) == plain(other)
    }
}

impl PartialEq for CredentialValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(one), Self::Plain(other)) => one == other,
            (Self::Secret(one), Self::Secret(other)) => one.expose_secret() == other.expose_secret(),
            (Self::Unread, Self::Unread) => true,
            _ => false,
        }
    }
}

impl Key {
    /// Whether the key may use this connection.
    pub fn reaches(&self, connection: &str) -> bool {
        self.connections.as_ref().is_none_or(|names| names.contains(connection))
    }

    /// Whether its time is over at this moment, in milliseconds since 1970-01-01 UTC.
    pub fn has_expired(&self, unix_ms: i64) -> bool {
        self.expires_ms.is_some_and(|end| unix_ms >= end)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}
