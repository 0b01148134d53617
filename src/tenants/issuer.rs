//! `[[jwt]]` in a tenant's file: whose signed tokens count as this tenant's, and what they may do.
//!
//! No token is looked at here; `issuers` does that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use adapters::Pace;
use secrecy::{ExposeSecret, SecretString};

use super::file::{Context, access, rate, reach};
use super::{Access, Secrets};
use crate::settings::document::{Field, Table};
use crate::settings::secret;

/// Whose tokens count, and for what. Together with the tenant that it belongs to.
#[derive(Debug, Clone)]
pub struct TokenRule {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// `iss` of its tokens.
    pub issuer: String,
    /// What must be in `aud`.
    pub audience: String,
    /// What its tokens may be signed with, as RFC 7518 names it.
    pub algorithms: Vec<&'static str>,
    /// Where the keys are that they are signed with.
    pub keys: TokenKeys,
    /// Claims that must have these values.
    pub claims: BTreeMap<String, String>,
    /// The most that they may do.
    pub access: Access,
    /// The claim that says what each of them may do; without one, all may do the most.
    pub access_claim: Option<String>,
    /// The connections that they may use; all, if `None`.
    pub connections: Option<BTreeSet<Arc<str>>>,
    /// Requests of all of them in so many seconds; `None` is any number.
    pub rate: Option<Pace>,
}

/// Where keys are.
#[derive(Debug, Clone)]
pub enum TokenKeys {
    /// A JWK set in a file.
    File(PathBuf),
    /// A JWK set at an address.
    Url(String),
    /// A secret that both sides know; `None`, if secrets were not read.
    Shared(Option<SecretString>),
}

impl TokenKeys {
    /// Whether the others are the same keys, or stand in the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Url(one), Self::Url(other)) => one == other,
            (Self::Shared(Some(one)), Self::Shared(Some(other))) => one.expose_secret() == other.expose_secret(),
            _ => false,
        }
    }
}

pub(super) const KNOWN: &[&str] = &[
    "name",
    "issuer",
    "audience",
    "algorithms",
    "jwks",
    "secret",
    "claims",
    "access",
    "access_claim",
    "connections",
    "rate",
];

/// Signatures that are made with a key that nobody else has.
pub(super) const SIGNATURES: &[&str] =
    &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// Those that whoever checks them could have made.
pub(super) const SHARED: &[&str] = &["HS256", "HS384", "HS512"];
/// The shortest shared secret, in bytes (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;

/// The rules of a tenant's file.
pub(super) fn read(field: &Field<'_>, names: &BTreeSet<&str>, context: &Context<'_>) -> Vec<TokenRule> {
    let items = field.items().unwrap_or_default();
    items.iter().filter_map(|item| rule(&item.table()?, names, context)).collect()
}

fn rule(table: &Table<'_>, names: &BTreeSet<&str>, context: &Context<'_>) -> Option<TokenRule> {
    table.refuse_unknown(KNOWN);
    let text = |name: &str| {
        let field = table.demand(name)?;
        something(&field)
    };
    let (name, issuer, audience) = (text("name"), text("issuer"), text("audience"));
    let keys = keys(table, context);
    let possible = if table.field("secret").is_some() { SHARED } else { SIGNATURES };
    let algorithms = table.demand("algorithms").and_then(|field| algorithms(&field, possible));
    let claims = table.field("claims").map_or(Some(BTreeMap::new()), |field| {
        let claims = field.table()?;
        let read = |field: Field<'_>| Some((field.name.to_owned(), something(&field)?.to_owned()));
        Some(claims.fields().filter_map(read).collect())
    });
    let access = table.demand("access").and_then(|field| access(&field));
    let access_claim =
        table.field("access_claim").map_or(Some(None), |field| Some(Some(something(&field)?.to_owned())));
    let (connections, rate) = (reach(table, names), rate(table));
    Some(TokenRule {
        name: name?.into(),
        issuer: issuer?.to_owned(),
        audience: audience?.to_owned(),
        algorithms: algorithms?,
        keys: keys?,
        claims: claims?,
        access: access?,
        access_claim: access_claim?,
        connections: connections?,
        rate: rate?,
    })
}

fn something<'d>(field: &Field<'d>) -> Option<&'d str> {
    let text = field.text()?;
    if text.is_empty() {
        field.refuse("must not be empty", None);
    }
    (!text.is_empty()).then_some(text)
}

fn algorithms(field: &Field<'_>, possible: &[&'static str]) -> Option<Vec<&'static str>> {
    let items = field.items()?;
    if items.is_empty() {
        field.refuse("must name an algorithm", None);
    }
    let one = |item: &Field<'_>| {
        let text = item.text()?;
        let found = possible.iter().find(|name| **name == text).copied();
        if found.is_none() {
            item.refuse(&format!("must be one of {}", possible.join(", ")), None);
        }
        found
    };
    let found: Vec<_> = items.iter().filter_map(one).collect();
    (!found.is_empty()).then_some(found)
}

fn keys(table: &Table<'_>, context: &Context<'_>) -> Option<TokenKeys> {
    match (table.field("jwks"), table.field("secret")) {
        (Some(field), None) => {
            let text = something(&field)?;
            if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
                return Some(TokenKeys::File(context.folder.join(path)));
            }
            let host = text.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
            if text.starts_with("https://") || host == Some("127.0.0.1") {
                return Some(TokenKeys::Url(text.to_owned()));
            }
            field.refuse("must be file:PATH or an address with https://", None);
            None
        }
        (None, Some(field)) => {
            let skip = context.secrets == Secrets::Skip;
            match secret::fetch(field.text()?, context.variable, context.folder, skip) {
                Ok(Some(secret)) if secret.len() < SHORTEST_SECRET => {
                    field.refuse(&format!("leads to a secret of less than {SHORTEST_SECRET} bytes"), None);
                    None
                }
                Ok(secret) => Some(TokenKeys::Shared(secret.map(SecretString::from))),
                Err((message, hint)) => {
                    field.refuse(&message, hint.map(str::to_owned));
                    None
                }
            }
        }
        _ => {
            table.refuse("jwks", "must say where the keys are; or secret must, for HMAC, and not both", None);
            None
        }
    }
}
