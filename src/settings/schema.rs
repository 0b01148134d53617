//! The JSON Schema of the settings, made from `KEYS` and from the comments of `config/default.toml`.
//!
//! It is for editors; what a file means is checked by the readers. Draft 7, which editors of TOML know.

use serde_json::{Map, Value, json};

use super::DEFAULT;
use super::keys::{KEYS, Key, Kind};

/// Settings that are one of a few words.
const WORDS: &[(&str, &[&str])] =
    &[("log.format", &["text", "json"]), ("server.tls.client_certificates", &["none", "required"])];

/// The schema of the gateway's own settings.
pub fn schema() -> Value {
    let mut schema = below("");
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "The settings of onedelete".into();
    // Nothing has to stand in the file: everything has a default.
    schema
}

/// The schema of a table of settings, by its name from the root; empty is the root.
pub(crate) fn below(section: &str) -> Value {
    let mut properties = Map::new();
    for key in KEYS {
        let rest = if section.is_empty() { Some(key.path) } else { strip(key.path, section) };
        let Some(rest) = rest else { continue };
        let (name, value) = match rest.split_once('.') {
            Some((name, _)) if properties.contains_key(name) => continue,
            Some((name, _)) if section.is_empty() => (name, below(name)),
            Some((name, _)) => (name, below(&format!("{section}.{name}"))),
            None => (rest, one(key)),
        };
        properties.insert(name.to_owned(), value);
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

fn strip<'p>(path: &'p str, section: &str) -> Option<&'p str> {
    path.strip_prefix(section)?.strip_prefix('.')
}

fn one(key: &Key) -> Value {
    let mut schema = match key.kind {
        Kind::Whole { least, most } if most < i64::MAX as u64 => {
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        Kind::Whole { least, .. } => json!({"type": "integer", "minimum": least}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Text(_) => json!({"type": "string"}),
    };
    if let Some((_, words)) = WORDS.iter().find(|(path, _)| *path == key.path) {
        schema["enum"] = json!(words);
    }
    let (default, comment) = documented(key.path);
    if let Some(default) = default {
        schema["default"] = default;
    }
    if !comment.is_empty() {
        schema["description"] = comment.into();
    }
    schema
}

/// A setting's default and its comment in `config/default.toml`. One that is commented out has no default.
fn documented(path: &str) -> (Option<Value>, &'static str) {
    let Some((section, name)) = path.rsplit_once('.') else { return (None, "") };
    let mut here = false;
    for line in DEFAULT.lines() {
        if let Some(header) = line.strip_prefix('[') {
            here = header.split(']').next() == Some(section);
        }
        let (is_set, line) = line.strip_prefix("# ").map_or((true, line), |rest| (false, rest));
        let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(" = ")).filter(|_| here) else {
            continue;
        };
        let comment = rest.split_once(" # ").map_or("", |(_, comment)| comment).trim();
        // No value of the file has a number sign in it.
        let value = rest.split(" # ").next().unwrap_or_default().trim();
        return (serde_json::from_str(value).ok().filter(|_| is_set), comment);
    }
    (None, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_comment_and_its_default() {
        for key in KEYS {
            let (default, comment) = documented(key.path);
            assert!(!comment.is_empty() || key.path == "log.format", "{}", key.path);
            assert_eq!(default.is_none(), key.path == "upstream.limits.rate", "{}", key.path);
        }
        for (path, words) in WORDS {
            let key = KEYS.iter().find(|key| key.path == *path).unwrap();
            let Kind::Text(check) = key.kind else { panic!("{path} is no text") };
            assert!(words.iter().all(|word| check(word).is_ok()), "{path}");
        }
    }
}
