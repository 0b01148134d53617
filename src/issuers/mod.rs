//! Signed tokens (RFC 7519) in the place of gateway keys: whether one counts, and for which tenant.
//!
//! Which tenant that is stands in the tenants' files alone: nothing of a token names one, unless a file says that a claim
//! must have a value. A token that two rules would take counts for none. Why a token does not count, nobody is told.

mod keys;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::Value;

use self::keys::KeySet;
use crate::live::Live;
use crate::tenants::{Access, Key, Tenant, Tenants, TokenRule};

/// Seconds by which clocks may differ.
const LEEWAY_S: u64 = 60;

/// All who sign tokens that count.
#[derive(Debug)]
pub struct Issuers(Live<Vec<Issuer>>);

#[derive(Debug)]
struct Issuer {
    tenant: Arc<Tenant>,
    rule: TokenRule,
    validation: Validation,
    keys: Arc<KeySet>,
    /// In the place of a key's hash: what a rate is counted by.
    id: [u8; 32],
}

/// A token's claims. They count for nothing before its signature was checked, except to find who may have made it.
#[derive(Debug, Deserialize)]
struct Claims(BTreeMap<String, Value>);

impl Issuers {
    /// Those that the tenants' files name.
    pub fn new(tenants: &Tenants) -> Self {
        Self(Live::new(Arc::new(Self::read(tenants, &[]))))
    }

    /// From now on, these are the tenants. Keys that were got for a rule that stays are kept.
    pub fn replace(&self, tenants: &Tenants) {
        let issuers = Self::read(tenants, &self.0.now());
        self.0.replace(Arc::new(issuers));
    }

    fn read(tenants: &Tenants, before: &[Issuer]) -> Vec<Issuer> {
        let rules = tenants.iter().flat_map(|tenant| tenant.token_rules.iter().map(move |rule| (tenant, rule)));
        rules.map(|(tenant, rule)| Issuer::new(Arc::clone(tenant), rule.clone(), before)).collect()
    }

    /// Whether any token can count.
    pub fn is_empty(&self) -> bool {
        self.0.now().is_empty()
    }

    /// What a token stands for; `None`, if it does not count.
    pub async fn key(&self, token: &str) -> Option<Key> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // What must be understood and is not (RFC 7515, section 4.1.11), or is not signed but sealed.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return None;
        }
        let Claims(unproven) = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
        let named = unproven.get("iss")?.as_str()?;
        let mut found = None;
        for issuer in self.0.now().iter().filter(|issuer| issuer.rule.issuer == named) {
            if let Some(key) = issuer.key(token, header.alg, header.kid.as_deref()).await
                && found.replace(key).is_some()
            {
                return None;
            }
        }
        found
    }
}

impl Issuer {
    fn new(tenant: Arc<Tenant>, rule: TokenRule, before: &[Self]) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.algorithms = rule.algorithms.iter().filter_map(|name| Algorithm::from_str(name).ok()).collect();
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&rule.issuer]);
        validation.set_audience(&[&rule.audience]);
        let name = format!("{}\0{}", tenant.id, rule.name);
        let mut id = [0; 32];
        id.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes()).as_ref());
        // What was got for the same rule need not be got again.
        let kept = before.iter().find(|issuer| issuer.id == id && issuer.rule.keys.is_same(&rule.keys));
        let keys = kept.map_or_else(|| Arc::new(KeySet::new(&rule.keys)), |issuer| Arc::clone(&issuer.keys));
        Self { tenant, rule, validation, keys, id }
    }

    async fn key(&self, token: &str, algorithm: Algorithm, kid: Option<&str>) -> Option<Key> {
        if !self.validation.algorithms.contains(&algorithm) {
            return None;
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![algorithm];
        let keys = self.keys.fitting(algorithm, kid).await;
        let proven = keys.iter().find_map(|key| jsonwebtoken::decode::<Claims>(token, key, &validation).ok());
        let Claims(claims) = proven?.claims;
        let sound = self.rule.claims.iter().all(|(name, value)| words(claims.get(name)).any(|word| word == value));
        if !sound {
            return None;
        }
        Some(Key {
            sha256: self.id,
            name: self.rule.name.clone(),
            tenant: Arc::clone(&self.tenant),
            access: self.access(&claims)?,
            connections: self.rule.connections.clone(),
            rate: self.rule.rate,
            // The token says when it is over.
            expires_ms: None,
        })
    }

    fn access(&self, claims: &BTreeMap<String, Value>) -> Option<Access> {
        let Some(name) = &self.rule.access_claim else { return Some(self.rule.access) };
        let may = |what: &str| words(claims.get(name)).flat_map(|text| text.split(' ')).any(|word| word == what);
        match (may("delete"), may("read")) {
            (true, _) => Some(self.rule.access),
            (false, true) => Some(Access::Read),
            (false, false) => None,
        }
    }
}

/// The texts of a claim: one, or a list of them.
fn words(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match claim {
        Some(Value::Array(many)) => (None, many.as_slice()),
        one => (one, &[][..]),
    };
    one.into_iter().chain(many).filter_map(Value::as_str)
}
