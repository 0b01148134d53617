//! JSON Schema (2020-12) as far as the dialects' `openapi.json` use it: whether a schema is well-formed, and whether a value fits.
//!
//! A keyword that it does not know makes a schema ill-formed; none is passed over. `date-time` is taken on trust, and
//! there are no patterns, no `oneOf` or `allOf`, and no references but to the same document.

use serde_json::{Map, Value};

use crate::grammar;

/// Whether an object may have members that its schema does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    /// It may, as JSON Schema has it: what a vendor may send.
    Open,
    /// It may not, unless the schema has `additionalProperties`: what this project sends and answers in a vendor's name.
    Described,
}

const TYPES: &[&str] = &["null", "boolean", "integer", "number", "string", "array", "object"];
const FORMATS: &[&str] = &["uuid", "int32", "int64", "date-time"];

/// What is wrong with a schema itself.
pub(crate) fn flaws(document: &Value, schema: &Value, at: &str) -> Vec<String> {
    let Some(members) = schema.as_object() else { return vec![format!("{at}: a schema is an object")] };
    let mut flaws = Vec::new();
    for (keyword, value) in members {
        let at = format!("{at}/{keyword}");
        let inner = |schema| self::flaws(document, schema, &at);
        let fits = match keyword.as_str() {
            "$ref" => value.as_str().and_then(|to| resolve(document, to)).is_some(),
            "type" => {
                let types = types(value);
                !types.is_empty() && types.iter().all(|name| TYPES.contains(name))
            }
            "const" => true,
            "enum" => value.as_array().is_some_and(|values| !values.is_empty()),
            "required" => {
                texts(value).is_some_and(|names| names.iter().all(|name| members_of(schema).contains_key(*name)))
            }
            "minItems" | "maxItems" | "minLength" | "maxLength" => value.is_u64(),
            "minimum" | "maximum" => value.is_i64() || value.is_u64(),
            "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
            "title" | "description" => value.is_string(),
            "x-assumed" | "x-source" => has_words(value),
            "properties" => {
                flaws.extend(value.as_object().into_iter().flatten().flat_map(|(_, schema)| inner(schema)));
                value.is_object()
            }
            "anyOf" => {
                flaws.extend(value.as_array().into_iter().flatten().flat_map(inner));
                value.as_array().is_some_and(|schemas| schemas.len() > 1)
            }
            "additionalProperties" if value.is_boolean() => true,
            "additionalProperties" | "items" => {
                flaws.extend(inner(value));
                true
            }
            _ => false,
        };
        if !fits {
            flaws.push(format!("{at}: not a keyword, or not a value, that is known here"));
        }
    }
    flaws
}

/// Why a value does not fit a schema that has no flaws; empty if it does.
pub(crate) fn faults(document: &Value, schema: &Value, value: &Value, members: Members) -> Vec<String> {
    let mut faults = Vec::new();
    Fitting { document, members, faults: &mut faults }.fit(schema, value, "");
    faults
}

struct Fitting<'d> {
    document: &'d Value,
    members: Members,
    faults: &'d mut Vec<String>,
}

impl Fitting<'_> {
    fn fit(&mut self, schema: &Value, value: &Value, at: &str) {
        let mut must = |holds: bool, what: &str| {
            if !holds {
                self.faults.push(format!("{at}: {what}"));
            }
        };
        if let Some(types) = schema.get("type") {
            must(types_fit(types, value), "its type");
        }
        if let Some(only) = schema.get("const") {
            must(value == only, "not the one value that it may have");
        }
        if let Some(values) = schema.get("enum") {
            must(values.as_array().is_some_and(|values| values.contains(value)), "none of the values that it may have");
        }
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        let lengths =
            [("Items", value.as_array().map(Vec::len)), ("Length", value.as_str().map(|text| text.chars().count()))];
        for (what, length) in lengths {
            let Some(length) = length.map(|length| length as f64) else { continue };
            must(bound(&format!("min{what}")).is_none_or(|least| length >= least), "too short");
            must(bound(&format!("max{what}")).is_none_or(|most| length <= most), "too long");
        }
        if let Some(number) = value.as_f64() {
            must(bound("minimum").is_none_or(|least| number >= least), "too small");
            must(bound("maximum").is_none_or(|most| number <= most), "too large");
        }
        match (schema.get("format").and_then(Value::as_str), value) {
            (Some("uuid"), Value::String(text)) => must(grammar::is_uuid(text), "no UUID"),
            (Some("int32"), Value::Number(number)) => {
                must(number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()), "no int32");
            }
            (Some("int64"), Value::Number(number)) => must(number.as_i64().is_some(), "no int64"),
            _ => {}
        }
        if let Some(to) = schema.get("$ref").and_then(Value::as_str) {
            match resolve(self.document, to) {
                Some(schema) => self.fit(schema, value, at),
                None => self.faults.push(format!("{at}: {to} leads nowhere")),
            }
        }
        if let Some(schemas) = schema.get("anyOf").and_then(Value::as_array) {
            let tries: Vec<_> =
                schemas.iter().map(|schema| faults(self.document, schema, value, self.members)).collect();
            if !tries.iter().any(Vec::is_empty) {
                self.faults.push(format!("{at}: none of its forms: {tries:?}"));
            }
        }
        match value {
            Value::Object(object) => self.fit_members(schema, object, at),
            Value::Array(items) => {
                let Some(schema) = schema.get("items") else { return };
                for (n, item) in items.iter().enumerate() {
                    self.fit(schema, item, &format!("{at}/{n}"));
                }
            }
            _ => {}
        }
    }

    fn fit_members(&mut self, schema: &Value, object: &Map<String, Value>, at: &str) {
        for name in schema.get("required").and_then(texts).unwrap_or_default() {
            if !object.contains_key(name) {
                self.faults.push(format!("{at}/{name}: missing"));
            }
        }
        let described = members_of(schema);
        // Where a schema only refers to others, they say which members there are.
        let says = schema.get("properties").is_some() || schema.get("type").is_some();
        for (name, member) in object {
            let at = format!("{at}/{name}");
            match (described.get(name), schema.get("additionalProperties")) {
                (Some(schema), _) => self.fit(schema, member, &at),
                (None, Some(Value::Bool(true))) => {}
                (None, Some(Value::Bool(false))) => self.faults.push(format!("{at}: not allowed")),
                (None, Some(schema)) => self.fit(schema, member, &at),
                (None, None) if says && self.members == Members::Described => {
                    self.faults.push(format!("{at}: not described"));
                }
                (None, None) => {}
            }
        }
    }
}

/// What `#/…` leads to (RFC 6901).
pub(crate) fn resolve<'d>(document: &'d Value, to: &str) -> Option<&'d Value> {
    document.pointer(to.strip_prefix('#')?)
}

/// Whether a text says something: two words at least.
pub(crate) fn has_words(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.split_whitespace().count() >= 2)
}

fn members_of(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// One type's name, or several.
fn types(value: &Value) -> Vec<&str> {
    value.as_str().map(|name| vec![name]).or_else(|| texts(value)).unwrap_or_default()
}

fn types_fit(names: &Value, value: &Value) -> bool {
    types(names).into_iter().any(|name| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        // 1.0 is an integer too.
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_fit_or_do_not() {
        let document = json!({ "a": { "type": "string" } });
        let id = json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "string" }, "n": {} } });
        for (schema, value, fits) in [
            (json!({ "type": "integer" }), json!(1), true),
            (json!({ "type": "integer" }), json!(1.0), true),
            (json!({ "type": "integer" }), json!(1.5), false),
            (json!({ "type": "integer" }), json!("1"), false),
            (json!({ "type": ["string", "null"] }), json!(null), true),
            (json!({ "type": ["string", "null"] }), json!(false), false),
            (json!({ "type": "boolean" }), json!("true"), false),
            (json!({ "type": "array", "items": { "type": "string" } }), json!(["a", 1]), false),
            (json!({ "type": "array", "items": { "type": "string" } }), json!({ "a": "b" }), false),
            (json!({ "minItems": 1, "maxItems": 2 }), json!([]), false),
            (json!({ "minItems": 1, "maxItems": 2 }), json!([1, 2]), true),
            (json!({ "minItems": 1, "maxItems": 2 }), json!([1, 2, 3]), false),
            (json!({ "minLength": 2, "maxLength": 3 }), json!("é"), false),
            (json!({ "minLength": 2, "maxLength": 3 }), json!("éèà"), true),
            (json!({ "minLength": 2, "maxLength": 3 }), json!("abcd"), false),
            (json!({ "minimum": 0, "maximum": 9 }), json!(-1), false),
            (json!({ "minimum": 0, "maximum": 9 }), json!(9), true),
            (json!({ "minimum": 0, "maximum": 9 }), json!(10), false),
            (json!({ "const": 0 }), json!(0), true),
            (json!({ "const": 0 }), json!(1), false),
            (json!({ "enum": ["a", "b"] }), json!("b"), true),
            (json!({ "enum": ["a", "b"] }), json!("c"), false),
            (json!({ "format": "uuid" }), json!("91c615e3-1040-4815-8ecb-039a18b756b5"), true),
            (json!({ "format": "uuid" }), json!("91c615e3"), false),
            (json!({ "format": "uuid" }), json!(1), true),
            (json!({ "type": "integer", "format": "int32" }), json!(2_147_483_648_u64), false),
            (json!({ "type": "integer", "format": "int64" }), json!(u64::MAX), false),
            (json!({ "$ref": "#/a" }), json!("x"), true),
            (json!({ "$ref": "#/a" }), json!(1), false),
            (json!({ "anyOf": [{ "type": "string" }, id.clone()] }), json!("x"), true),
            (json!({ "anyOf": [{ "type": "string" }, id.clone()] }), json!({ "n": 1 }), false),
            (json!({ "type": "object", "additionalProperties": false }), json!({ "n": 1 }), false),
            (json!({ "type": "object", "additionalProperties": { "type": "string" } }), json!({ "n": 1 }), false),
            (id.clone(), json!({ "id": "x", "n": [1] }), true),
            (id.clone(), json!({ "id": null }), false),
            (id.clone(), json!({ "n": 1 }), false),
            (id.clone(), json!([]), false),
        ] {
            assert_eq!(flaws(&document, &schema, ""), Vec::<String>::new());
            let faults = faults(&document, &schema, &value, Members::Open);
            assert_eq!(faults.is_empty(), fits, "{schema} {value}: {faults:?}");
        }
        let more = json!({ "id": "x", "m": 1 });
        assert_eq!(faults(&document, &id, &more, Members::Open), Vec::<String>::new());
        assert_eq!(faults(&document, &id, &more, Members::Described), ["/m: not described"]);
        let nested = json!({ "anyOf": [{ "type": "string" }, id] });
        assert_eq!(faults(&document, &nested, &more, Members::Described).len(), 1);
        let open = json!({ "type": "object", "additionalProperties": true });
        assert_eq!(faults(&document, &open, &more, Members::Described), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_known_is_a_flaw() {
        let document = json!({ "a": {} });
        for schema in [
            json!(true),
            json!({ "pattern": "^a$" }),
            json!({ "oneOf": [{}, {}] }),
            json!({ "nullable": true }),
            json!({ "type": "text" }),
            json!({ "type": [] }),
            json!({ "type": 1 }),
            json!({ "$ref": "#/b" }),
            json!({ "$ref": "other.json" }),
            json!({ "enum": [] }),
            json!({ "required": ["x"], "properties": { "y": {} } }),
            json!({ "required": "y", "properties": { "y": {} } }),
            json!({ "properties": { "y": { "typ": "string" } } }),
            json!({ "items": [{}] }),
            json!({ "anyOf": [{}] }),
            json!({ "anyOf": [{}, { "maxItems": -1 }] }),
            json!({ "additionalProperties": { "format": "ipv4" } }),
            json!({ "minimum": "1" }),
            json!({ "format": "email" }),
            json!({ "x-assumed": "" }),
            json!({ "x-source": true }),
        ] {
            assert_ne!(flaws(&document, &schema, ""), Vec::<String>::new(), "{schema}");
        }
        assert_eq!(flaws(&document, &json!({ "$ref": "#/a", "x-assumed": "two words" }), ""), Vec::<String>::new());
    }
}
