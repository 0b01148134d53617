//! The JSON Schema of a tenant's file, for editors. What a dialect takes is asked of the dialect itself.
//!
//! It is made from the same lists that the readers know, and checks no more than form.

use std::collections::BTreeMap;

use adapters::{CredentialForm, Profile, Registration};
use serde_json::{Map, Value, json};

use super::connection::{COMMON, STAND_IN, STAND_IN_URL};
use super::file::{API_KEY, ROOT};
use super::issuer;
use crate::settings;

const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,63}$";
/// How a setting names a secret.
const SECRET: &str = "^(env|file|plain):.+";

/// The schema of one tenant's file. Draft 7, which editors of TOML know.
pub fn schema() -> Value {
    let connections: Vec<_> = adapters::DIALECTS.iter().map(connection).collect();
    let keys = |name: &str| match name {
        "id" | "default_connection" => json!({"type": "string", "pattern": NAME}),
        "require_idempotency_key" => json!({"type": "boolean", "default": false}),
        "api_keys" => json!({"type": "array", "items": api_key()}),
        "jwt" => json!({"type": "array", "items": token_rule()}),
        "connections" => json!({
            "type": "object",
            "propertyNames": {"pattern": NAME},
            "additionalProperties": {"oneOf": connections},
        }),
        _ => json!({}),
    };
    let mut schema = object(ROOT, keys, &["id"]);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "A tenant of onedelete".into();
    schema
}

fn object(names: &[&str], schema: impl Fn(&str) -> Value, required: &[&str]) -> Value {
    let properties: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), schema(name))).collect();
    json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
}

fn api_key() -> Value {
    let schema = |name: &str| match name {
        "name" => json!({"type": "string", "minLength": 1, "maxLength": 64}),
        "sha256" => json!({
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "the SHA-256 of the whole key, which onedelete key new and onedelete key hash print",
        }),
        "connections" => json!({
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "pattern": NAME},
            "description": "the connections that the key may use; all, if it is left out",
        }),
        "access" => json!({"enum": ["delete", "read"], "default": "delete"}),
        "rate" => json!({"type": "string", "description": "requests in a time: 5/s, 60/min, 5000/h or off"}),
        // As text or as TOML's own date, which is no type of JSON.
        "expires" => json!({"description": "the last day on which the key works, in UTC, or a moment with its offset"}),
        _ => json!({}),
    };
    object(API_KEY, schema, &["name", "sha256"])
}

fn token_rule() -> Value {
    let text = json!({"type": "string", "minLength": 1});
    let schema = |name: &str| match name {
        "name" | "issuer" | "audience" | "access_claim" => text.clone(),
        "algorithms" => {
            let known: Vec<_> = issuer::SIGNATURES.iter().chain(issuer::SHARED).collect();
            json!({"type": "array", "minItems": 1, "items": {"enum": known}})
        }
        "jwks" => json!({
            "type": "string",
            "pattern": r"^(file:.+|https://.+|http://127\.0\.0\.1([:/].*)?)$",
            "description": "file:PATH or an address with https: the keys of the issuer, as a JWK set",
        }),
        "secret" => json!({"type": "string", "pattern": SECRET}),
        "claims" => json!({"type": "object", "additionalProperties": text}),
        "access" => json!({"enum": ["delete", "read"], "description": "the most that its tokens may do"}),
        "connections" => json!({"type": "array", "minItems": 1, "items": {"type": "string", "pattern": NAME}}),
        "rate" => json!({"type": "string", "description": "requests in a time: 5/s, 60/min, 5000/h or off"}),
        _ => json!({}),
    };
    object(issuer::KNOWN, schema, &["name", "issuer", "audience", "algorithms", "access"])
}

fn connection(registration: &Registration) -> Value {
    let profile = registration.profile;
    let own = settings_of(registration);
    let schema = |name: &str| match name {
        "dialect" => json!({"const": profile.id, "description": profile.title}),
        "base_url" => json!({"type": "string", "pattern": "^https?://"}),
        "credentials" => json!({"oneOf": profile.auth.forms.iter().map(credentials).collect::<Vec<_>>()}),
        "allow_http" | "allow_private" => json!({"type": "boolean", "default": false}),
        "limits" | "timeouts" | "retry" => settings::below(&format!("upstream.{name}")),
        own_name => own.get(own_name).map_or(json!({}), |(kind, _)| kind.clone()),
    };
    let names: Vec<_> = COMMON.iter().copied().chain(own.keys().map(String::as_str)).collect();
    let needed = own.iter().filter(|(_, (_, needed))| *needed).map(|(name, _)| name.as_str());
    let required: Vec<_> = ["dialect", "base_url", "credentials"].into_iter().chain(needed).collect();
    let mut schema = object(&names, schema, &required);
    schema["title"] = profile.title.into();
    schema
}

fn credentials(form: &CredentialForm) -> Value {
    let names: Vec<_> = form.members.iter().map(|member| member.name).collect();
    let secret = |name: &str| form.members.iter().any(|member| member.name == name && member.secret);
    let schema = |name: &str| match secret(name) {
        true => json!({"type": "string", "pattern": SECRET}),
        false => json!({"type": "string", "minLength": 1}),
    };
    object(&names, schema, &names)
}

/// A dialect's own settings by name, `base_url` left out: their schema, and whether they must be there.
fn settings_of(registration: &Registration) -> BTreeMap<String, (Value, bool)> {
    let open = |settings: Value| (registration.open)(settings).err().map(|error| error.message).unwrap_or_default();
    // A key that no dialect has: the refusal names those that there are.
    let known = open(json!({"~": 0}));
    let names = known.split('`').skip(3).step_by(2).filter(|name| *name != "base_url");
    let mut own: BTreeMap<_, _> = names
        .map(|name| {
            // A value of a type that none has: the refusal names the right one.
            let refusal = open(json!({ name: [] }));
            (name.to_owned(), (of_type(name, &refusal, registration.profile), false))
        })
        .collect();
    let mut settings = json!({"base_url": STAND_IN_URL});
    for _ in 0..=own.len() {
        let refusal = open(settings.clone());
        let missing = refusal.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let Some((name, (schema, needed))) = missing.and_then(|name| Some((name, own.get_mut(name)?))) else { break };
        settings[name] = if schema["type"] == "integer" { 1.into() } else { STAND_IN.into() };
        *needed = true;
    }
    own
}

fn of_type(name: &str, refusal: &str, profile: &Profile) -> Value {
    let expected = refusal.rsplit_once("expected ").map_or("", |(_, expected)| expected);
    match expected {
        "usize" | "u64" | "u32" if name == "max_contacts_per_call" => json!({
            "type": "integer",
            "minimum": 1,
            "maximum": profile.contacts_per_call_ceiling,
            "default": profile.max_contacts_per_call,
        }),
        "usize" | "u64" | "u32" => json!({"type": "integer", "minimum": 0}),
        "a boolean" => json!({"type": "boolean"}),
        "a string" => json!({"type": "string"}),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_of_a_dialect_has_a_type() {
        for registration in adapters::DIALECTS {
            for (name, (schema, _)) in settings_of(registration) {
                assert!(schema["type"].is_string(), "{}: {name}", registration.profile.id);
            }
            // The ceiling of one is that of the upstream, and no setting.
            let several = registration.profile.contacts_per_call_ceiling > 1;
            assert_eq!(settings_of(registration).contains_key("max_contacts_per_call"), several);
        }
    }
}
