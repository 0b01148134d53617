//! A dialect's `openapi.json`: its form, its operations, and whether a request or a reply is as it describes.
//!
//! It reads what these files have of OpenAPI 3.1 and takes everything else for a mistake: no `default` responses, no
//! cookies, no references but to schemas. Examples must fit. An extension of our own must say something in words:
//! `x-assumed` (no vendor's page says it), `x-source` (where it was read instead), `x-may-be-empty` (a reply that may
//! also come without a body) and `x-unused` (an operation that neither the dialect nor its double has).

use std::collections::HashSet;
use std::path::PathBuf;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::schema::{self, Members};

/// A file.
pub(crate) struct OpenApi {
    /// The whole of it.
    pub(crate) document: Value,
}

/// A method of a path, and what a request has in the places of the path's parameters.
pub(crate) struct Operation<'f> {
    file: &'f OpenApi,
    /// Its `operationId`.
    pub(crate) id: &'f str,
    /// As it stands in the file.
    pub(crate) value: &'f Value,
    /// Name, value, and which segment of the path it is.
    pub(crate) places: Vec<(String, String, usize)>,
}

impl OpenApi {
    /// The file of a dialect.
    pub(crate) fn of(dialect: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(dialect).join("openapi.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        Self { document: serde_json::from_str(&text).unwrap_or_else(|err| panic!("{}: {err}", path.display())) }
    }

    /// Every path with its method and its operation.
    pub(crate) fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let methods = |(path, item)| {
            let members = object(item).iter().filter(|(name, _)| METHODS.contains(&name.as_str()));
            members.map(move |(method, operation)| (path, method.as_str(), operation))
        };
        object(&self.document["paths"]).iter().map(|(path, item)| (path.as_str(), item)).flat_map(methods).collect()
    }

    /// What a request asks for, if the file describes it.
    pub(crate) fn operation(&self, request: &Request<Bytes>) -> Option<Operation<'_>> {
        let segments: Vec<_> = request.uri().path().split('/').skip(1).collect();
        let mut found: Vec<_> = object(&self.document["paths"])
            .iter()
            .filter_map(|(template, item)| {
                let value = item.get(request.method().as_str().to_ascii_lowercase())?;
                let places = self.servers(item).iter().find_map(|server| places(server, template, &segments))?;
                Some(Operation { file: self, id: value["operationId"].as_str()?, value, places })
            })
            .collect();
        // A path without parameters goes before one that fits anything.
        found.sort_by_key(|operation| operation.places.len());
        found.into_iter().next()
    }

    fn servers<'f>(&'f self, item: &'f Value) -> &'f [Value] {
        list(item.get("servers").unwrap_or(&self.document["servers"]))
    }

    /// Everything that is wrong with the file.
    pub(crate) fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        self.check_form("document", &self.document, "#", &mut flaws);
        if !flaws.is_empty() {
            return flaws;
        }
        let mut must = |holds: bool, what: String| {
            if !holds {
                flaws.push(what);
            }
        };
        must(
            self.document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")),
            "openapi: 3.1".into(),
        );
        let schemes = &self.document["components"]["securitySchemes"];
        for (name, scheme) in object(schemes) {
            let whole = match scheme["type"].as_str() {
                Some("http") => matches!(scheme["scheme"].as_str(), Some("basic" | "bearer")),
                Some("apiKey") => scheme["in"] == "header" && scheme["name"].is_string(),
                Some("oauth2") => scheme["flows"]["clientCredentials"].is_object(),
                _ => false,
            };
            must(whole, format!("security scheme {name}"));
        }
        let mut ids = HashSet::new();
        for (path, method, operation) in self.operations() {
            let at = format!("{method} {path}");
            must(path.starts_with('/'), format!("{at}: the path"));
            must(ids.insert(operation["operationId"].as_str()), format!("{at}: an operationId that another one has"));
            for requirement in list(&operation["security"]) {
                must(object(requirement).keys().all(|name| schemes.get(name).is_some()), format!("{at}: security"));
            }
            let named: HashSet<_> = path.split('/').filter_map(parameter).collect();
            let parameters = list(&operation["parameters"]);
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            must(named == in_path.filter_map(|p| p["name"].as_str()).collect(), format!("{at}: the path's parameters"));
            for parameter in parameters {
                let at = format!("{at}: parameter {}", parameter["name"]);
                must(["path", "query", "header"].iter().any(|place| parameter["in"] == *place), at.clone());
                must(parameter["in"] != "path" || parameter["required"] == true, format!("{at} is required"));
                let faults = self.faults(&parameter["schema"], &parameter["example"]);
                must(faults.is_empty(), format!("{at}: {faults:?}"));
            }
            let replies = object(&operation["responses"]);
            must(replies.keys().any(|status| status.starts_with('2')), format!("{at}: no success"));
            let statuses = replies.keys().map(|status| status.parse().unwrap_or_default());
            must(statuses.into_iter().all(|status: u16| (200..600).contains(&status)), format!("{at}: a status"));
            for (place, carrier) in
                replies.iter().map(|(s, v)| (s.as_str(), v)).chain([("body", &operation["requestBody"])])
            {
                for (name, header) in carrier.get("headers").map(object).into_iter().flatten() {
                    let faults = self.faults(&header["schema"], &header["example"]);
                    must(faults.is_empty(), format!("{at} {place} {name}: {faults:?}"));
                }
                for (kind, media) in carrier.get("content").map(object).into_iter().flatten() {
                    for (name, example) in object(&media["examples"]) {
                        let faults = self.faults(&media["schema"], &example["value"]);
                        must(faults.is_empty(), format!("{at} {place} {kind} {name}: {faults:?}"));
                    }
                }
            }
        }
        flaws
    }

    /// Checks a value of the file against `FORMS`.
    fn check_form(&self, form: &str, value: &Value, at: &str, flaws: &mut Vec<String>) {
        let inner = |form: &str| form[1..form.len() - 1].to_owned();
        match form {
            "any" => {}
            "text" if value.as_str().is_some_and(|text| !text.trim().is_empty()) => {}
            "flag" if value.is_boolean() => {}
            "schema" => flaws.extend(schema::flaws(&self.document, value, at)),
            list if list.starts_with('[') && value.is_array() => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check_form(&inner(list), item, &format!("{at}/{n}"), flaws);
                }
            }
            map if map.starts_with('{') && value.is_object() => {
                for (name, item) in object(value) {
                    self.check_form(&inner(map), item, &format!("{at}/{name}"), flaws);
                }
            }
            name => {
                let Some((_, members)) = FORMS.iter().find(|(form, _)| *form == name).filter(|_| value.is_object())
                else {
                    return flaws.push(format!("{at}: not a {form}"));
                };
                for (name, value) in object(value) {
                    let at = format!("{at}/{name}");
                    match members.iter().find(|(member, ..)| member.trim_end_matches('!') == name) {
                        Some((_, form)) => self.check_form(form, value, &at, flaws),
                        None if EXTENSIONS.contains(&name.as_str()) && schema::has_words(value) => {}
                        None => flaws.push(format!("{at}: not a member, or without words")),
                    }
                }
                let needed = members.iter().filter_map(|(member, _)| member.strip_suffix('!'));
                let missing = needed.filter(|member| value.get(member).is_none());
                flaws.extend(missing.map(|member| format!("{at}/{member}: missing")));
            }
        }
    }

    fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        schema::faults(&self.document, schema, value, Members::Described)
    }

    /// A text of a path, query, header or form, read as its schema wants it.
    fn text_faults(&self, schema: &Value, text: &str) -> Vec<String> {
        let value = match schema["type"].as_str() {
            Some("integer") => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            Some("boolean") => text.parse::<bool>().map_or_else(|_| text.into(), Value::from),
            _ => text.into(),
        };
        self.faults(schema, &value)
    }

    /// Why a body is not as `content` says; `None` for the body of a form read as its members.
    fn body_faults(&self, content: &Value, headers: &HeaderMap, body: &Bytes) -> Vec<String> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let Some(media) = content.get(&kind) else { return vec![format!("content type {kind:?} is not described")] };
        let Ok(text) = std::str::from_utf8(body) else { return vec!["no UTF-8".to_owned()] };
        let value = if kind.ends_with("json") {
            match serde_json::from_str(text) {
                Ok(value) => value,
                Err(err) => return vec![format!("no JSON: {err}")],
            }
        } else if kind == "application/x-www-form-urlencoded" {
            pairs(text).into_iter().map(|(name, value)| (name, Value::String(value))).collect::<Map<_, _>>().into()
        } else {
            text.into()
        };
        self.faults(&media["schema"], &value)
    }
}

impl Operation<'_> {
    /// Why a request is not as described; its credential is looked at only if it must have one.
    pub(crate) fn request_faults(&self, request: &Request<Bytes>, credential: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let query = pairs(request.uri().query().unwrap_or_default());
        let parameters = list(&self.value["parameters"]);
        let is = |parameter: &Value, place: &str, name: &str| parameter["in"] == place && parameter["name"] == name;
        for (name, _) in &query {
            if !parameters.iter().any(|parameter| is(parameter, "query", name)) {
                faults.push(format!("query {name}: not described"));
            }
        }
        for parameter in parameters {
            let name = parameter["name"].as_str().unwrap();
            let text = match parameter["in"].as_str() {
                Some("path") => self.places.iter().find(|(place, ..)| place == name).map(|(_, text, _)| text.clone()),
                Some("query") => query.iter().find(|(key, _)| key == name).map(|(_, text)| text.clone()),
                _ => request.headers().get(name).and_then(|text| text.to_str().ok()).map(str::to_owned),
            };
            match text {
                Some(text) => {
                    let wrong = self.file.text_faults(&parameter["schema"], &text);
                    faults.extend(wrong.into_iter().map(|fault| format!("{name}: {fault}")));
                }
                None if parameter["required"] == true => faults.push(format!("{name}: missing")),
                None => {}
            }
        }
        match self.value.get("requestBody") {
            Some(body) if !request.body().is_empty() || body["required"] == true => {
                faults.extend(self.file.body_faults(&body["content"], request.headers(), request.body()));
            }
            None if !request.body().is_empty() => faults.push("a body that is not described".to_owned()),
            _ => {}
        }
        let security = list(&self.value["security"]);
        if credential && !security.is_empty() && !security.iter().any(|one| self.is_met(one, request.headers())) {
            faults.push("no credential as described".to_owned());
        }
        faults
    }

    fn is_met(&self, requirement: &Value, headers: &HeaderMap) -> bool {
        object(requirement).keys().all(|name| {
            let scheme = &self.file.document["components"]["securitySchemes"][name];
            let starts = |header: &str, start: &str| {
                headers.get(header).and_then(|value| value.to_str().ok()).is_some_and(|value| value.starts_with(start))
            };
            match (scheme["type"].as_str(), scheme["scheme"].as_str()) {
                (Some("http"), Some("basic")) => starts("authorization", "Basic "),
                (Some("apiKey"), _) => starts(scheme["name"].as_str().unwrap_or_default(), ""),
                _ => starts("authorization", "Bearer "),
            }
        })
    }

    /// Why a reply is not as described.
    pub(crate) fn reply_faults(&self, reply: &Response<Bytes>) -> Vec<String> {
        let status = reply.status().as_u16();
        let Some(described) = self.value["responses"].get(status.to_string()) else {
            return vec![format!("status {status} is not described")];
        };
        let mut faults = Vec::new();
        for (name, header) in described.get("headers").map(object).into_iter().flatten() {
            if let Some(text) = reply.headers().get(name) {
                let wrong = self.file.text_faults(&header["schema"], text.to_str().unwrap_or_default());
                faults.extend(wrong.into_iter().map(|fault| format!("{name}: {fault}")));
            }
        }
        match described.get("content") {
            None if !reply.body().is_empty() => faults.push("a body that is not described".to_owned()),
            Some(content) if !reply.body().is_empty() || described.get("x-may-be-empty").is_none() => {
                faults.extend(self.file.body_faults(content, reply.headers(), reply.body()));
            }
            _ => {}
        }
        faults.iter().map(|fault| format!("{status}: {fault}")).collect()
    }
}

const METHODS: &[&str] = &["get", "put", "post", "patch", "delete"];
const EXTENSIONS: &[&str] = &["x-assumed", "x-source", "x-may-be-empty", "x-unused"];

/// The objects of a file and what their members hold: a name is that of a form, `[…]` a list, `{…}` a map. A member with `!` must be there.
type Form = (&'static str, &'static [(&'static str, &'static str)]);
const FORMS: &[Form] = &[
    (
        "document",
        &[
            ("openapi!", "text"),
            ("info!", "info"),
            ("externalDocs!", "docs"),
            ("servers!", "[server]"),
            ("paths!", "{path}"),
            ("components!", "components"),
        ],
    ),
    ("info", &[("title!", "text"), ("version!", "text"), ("description!", "text")]),
    ("docs", &[("url!", "text"), ("description", "text")]),
    ("server", &[("url!", "text"), ("description", "text"), ("variables", "{variable}")]),
    // A description, too; but the schema of OpenAPI 3.1 that many tools check with has it misspelt.
    ("variable", &[("default!", "text"), ("enum", "[text]")]),
    (
        "path",
        &[
            ("servers", "[server]"),
            ("get", "operation"),
            ("put", "operation"),
            ("post", "operation"),
            ("patch", "operation"),
            ("delete", "operation"),
        ],
    ),
    (
        "operation",
        &[
            ("operationId!", "text"),
            ("summary!", "text"),
            ("description", "text"),
            ("externalDocs", "docs"),
            ("security!", "[{[text]}]"),
            ("parameters", "[parameter]"),
            ("requestBody", "body"),
            ("responses!", "{response}"),
        ],
    ),
    (
        "parameter",
        &[
            ("name!", "text"),
            ("in!", "text"),
            ("required", "flag"),
            ("description", "text"),
            ("schema!", "schema"),
            ("example!", "any"),
        ],
    ),
    ("body", &[("required", "flag"), ("description", "text"), ("content!", "{media}")]),
    ("response", &[("description!", "text"), ("headers", "{header}"), ("content", "{media}")]),
    ("header", &[("description", "text"), ("schema!", "schema"), ("example!", "any")]),
    ("media", &[("schema!", "schema"), ("examples!", "{example}")]),
    ("example", &[("summary", "text"), ("value!", "any")]),
    ("components", &[("schemas", "{schema}"), ("securitySchemes!", "{scheme}")]),
    (
        "scheme",
        &[
            ("type!", "text"),
            ("scheme", "text"),
            ("in", "text"),
            ("name", "text"),
            ("description", "text"),
            ("flows", "flows"),
        ],
    ),
    ("flows", &[("clientCredentials", "flow")]),
    ("flow", &[("tokenUrl!", "text"), ("scopes!", "{text}")]),
];

/// The segments of a path under a server in the places of its parameters, if it fits the template.
fn places(server: &Value, template: &str, segments: &[&str]) -> Option<Vec<(String, String, usize)>> {
    let base = server["url"].as_str()?.split('/').skip(3);
    let whole: Vec<_> =
        base.map(|name| (name, true)).chain(template.split('/').skip(1).map(|name| (name, false))).collect();
    let mut places = Vec::new();
    for (n, (name, in_base)) in whole.iter().enumerate() {
        let segment = segments.get(n)?;
        match parameter(name) {
            Some(variable) if *in_base => {
                let allowed = list(&server["variables"][variable]["enum"]);
                (allowed.is_empty() || allowed.iter().any(|one| one == segment)).then_some(())?;
            }
            Some(parameter) if !segment.is_empty() => {
                let text = percent_decode_str(segment).decode_utf8_lossy().into_owned();
                places.push((parameter.to_owned(), text, n));
            }
            _ => (name == segment).then_some(())?,
        }
    }
    (whole.len() == segments.len()).then_some(places)
}

fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// The members of a query or a form.
fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decoded(k), decoded(v))).collect()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
