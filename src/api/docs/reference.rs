//! The description as a page: every operation with its parameters, examples and answers, a form to try it, every schema.
//!
//! It writes what the description says and nothing besides; that the description is true is for tests.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::html::{Page, escape};

/// The page of a description.
pub(super) fn page(document: &Value) -> String {
    let mut page = Page::new("API");
    let reference = Reference { document };
    page.prose("p", text(&document["info"]["description"]));
    page.raw("<form id=\"key\" class=\"key\"><label for=\"key-text\">Gateway key</label>");
    page.raw(
        "<input id=\"key-text\" type=\"password\" autocomplete=\"off\" spellcheck=\"false\" placeholder=\"odk_…\">",
    );
    page.prose("small", "For trying things here. It stays in this page's memory and is gone when the page is.");
    page.raw(
        "</form><noscript><p>Without JavaScript this page can be read; what can be tried needs it.</p></noscript>",
    );
    for tag in items(&document["tags"]) {
        let name = text(&tag["name"]);
        page.raw(&format!("<section><h2 id=\"{0}\">{0}</h2>", escape(name)));
        page.prose("p", text(&tag["description"]));
        let all = members(&document["paths"])
            .flat_map(|(path, item)| ["get", "post", "delete"].map(|method| (path, item, method)));
        let mut own: Vec<_> = all.filter(|(_, item, method)| item[method]["tags"][0] == name).collect();
        // As the description has them: a tree has no order of its own.
        own.sort_by_key(|(_, item, method)| {
            super::OPENAPI.find(&format!("\"operationId\": \"{}\"", text(&item[method]["operationId"])))
        });
        for (path, item, method) in own {
            reference.operation(&mut page, path, item, method);
        }
        page.raw("</section>");
    }
    page.raw("<section><h2 id=\"schemas\">Schemas</h2>");
    for (name, schema) in members(&document["components"]["schemas"]) {
        page.raw(&format!(
            "<details class=\"card\" id=\"schema-{0}\"><summary><code>{0}</code></summary>",
            escape(name)
        ));
        page.prose("p", text(&schema["description"]));
        reference.members(&mut page, schema);
        page.code(&pretty(schema));
        page.raw("</details>");
    }
    page.raw("</section>");
    page.end()
}

struct Reference<'d> {
    document: &'d Value,
}

impl Reference<'_> {
    /// What `$ref` leads to, or the value itself.
    fn resolve<'v>(&'v self, value: &'v Value) -> &'v Value {
        let to = value["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
        to.and_then(|to| self.document.pointer(to)).unwrap_or(value)
    }

    fn operation(&self, page: &mut Page, path: &str, item: &Value, method: &str) {
        let operation = &item[method];
        let (id, verb) = (escape(text(&operation["operationId"])), method.to_uppercase());
        page.raw(&format!("<details class=\"card\" id=\"{id}\"><summary><span class=\"verb {method}\">{verb}</span> "));
        page.raw(&format!("<code class=\"path\">{}</code> ", escape(path)));
        page.prose("span", text(&operation["summary"]));
        page.raw("</summary>");
        page.prose("p", text(&operation["description"]));
        let parameters: Vec<_> = items(&item["parameters"]).chain(items(&operation["parameters"])).collect();
        let parameters: Vec<_> = parameters.into_iter().map(|parameter| self.resolve(parameter)).collect();
        if !parameters.is_empty() {
            page.raw(
                "<h3>Parameters</h3><div class=\"wide\"><table><thead><tr><th>name<th>in<th>type<th>meaning<tbody>",
            );
            for parameter in &parameters {
                page.raw("<tr>");
                let needed = if parameter["required"] == true { " (needed)" } else { "" };
                page.prose("th", &format!("`{}`{needed}", text(&parameter["name"])));
                page.prose("td", text(&parameter["in"]));
                page.raw(&format!("<td>{}", self.kind(&parameter["schema"])));
                page.prose("td", text(&parameter["description"]));
            }
            page.raw("</table></div>");
        }
        let bodies = members(&operation["requestBody"]["content"]);
        for (media, body) in bodies.clone() {
            page.raw("<h3>Body</h3>");
            page.raw(&format!("<p><code>{}</code>: {}</p>", escape(media), self.kind(&body["schema"])));
            examples(page, media, body);
        }
        page.raw("<h3>Answers</h3>");
        for (status, response) in members(&operation["responses"]) {
            let response = self.resolve(response);
            page.raw(&format!("<details class=\"answer\"><summary><b>{}</b> ", escape(status)));
            page.prose("span", text(&response["description"]));
            page.raw("</summary>");
            let names: Vec<_> = members(&response["headers"]).map(|(name, _)| format!("`{name}`")).collect();
            if !names.is_empty() {
                page.prose("p", &format!("Headers: {}", names.join(", ")));
            }
            for (media, body) in members(&response["content"]) {
                page.raw(&format!("<p><code>{}</code>: {}</p>", escape(media), self.kind(&body["schema"])));
                examples(page, media, body);
            }
            page.raw("</details>");
        }
        self.form(page, path, method, &parameters, bodies);
        page.raw("</details>");
    }

    /// The form to try an operation. The script sends it; without the script nothing does.
    fn form<'v>(
        &self,
        page: &mut Page,
        path: &str,
        method: &str,
        parameters: &[&Value],
        bodies: impl Iterator<Item = (&'v String, &'v Value)>,
    ) {
        page.raw(&format!(
            "<form class=\"try\" data-method=\"{method}\" data-path=\"{}\"><h3>Try it</h3>",
            escape(path)
        ));
        for parameter in parameters {
            let (name, place) = (escape(text(&parameter["name"])), escape(text(&parameter["in"])));
            let needed = if parameter["required"] == true { " required" } else { "" };
            page.raw(&format!("<label>{name} <small>{place}</small>"));
            page.raw(&format!(
                "<input name=\"{name}\" data-in=\"{place}\" autocomplete=\"off\" spellcheck=\"false\"{needed}></label>"
            ));
        }
        let mut options = String::new();
        for (media, body) in bodies {
            for (_, example) in members(&body["examples"]) {
                let (media, value) = (escape(media), escape(&written(media, &example["value"])));
                let summary = escape(text(&example["summary"]));
                let _ =
                    write!(options, "<option data-media=\"{media}\" value=\"{value}\">{summary} ({media})</option>");
            }
        }
        if !options.is_empty() {
            page.raw(&format!("<label>Example<select class=\"example\">{options}</select></label>"));
            page.raw("<label>Body<textarea class=\"body\" rows=\"8\" spellcheck=\"false\"></textarea></label>");
        }
        page.raw("<button type=\"submit\">Send</button><output class=\"told\" aria-live=\"polite\"></output></form>");
    }

    /// A table of an object's members.
    fn members(&self, page: &mut Page, schema: &Value) {
        let properties = members(&schema["properties"]);
        if properties.clone().next().is_none() {
            return;
        }
        page.raw("<div class=\"wide\"><table><thead><tr><th>member<th>type<th>meaning<tbody>");
        for (name, member) in properties {
            let needed = items(&schema["required"]).any(|needed| needed == name);
            page.raw("<tr>");
            page.prose("th", &format!("`{name}`{}", if needed { "" } else { " (may be left out)" }));
            page.raw(&format!("<td>{}", self.kind(member)));
            page.prose("td", text(&member["description"]));
        }
        page.raw("</table></div>");
    }

    /// A schema in a few words, as HTML: a link where it has a name.
    fn kind(&self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
            return format!("<a href=\"#schema-{0}\">{0}</a>", escape(name));
        }
        if let Some(forms) = schema["anyOf"].as_array() {
            return forms.iter().map(|form| self.kind(form)).collect::<Vec<_>>().join(" or ");
        }
        if let Some(value) = schema.get("const") {
            return format!("<code>{}</code>", escape(&value.to_string()));
        }
        let types: Vec<_> = match &schema["type"] {
            Value::String(one) => vec![one.as_str()],
            several => items(several).map(text).collect(),
        };
        match (types.as_slice(), &schema["enum"]) {
            (_, Value::Array(values)) => {
                let values: Vec<_> =
                    values.iter().map(|value| format!("<code>{}</code>", escape(text(value)))).collect();
                values.join(" or ")
            }
            (["array"], _) => format!("list of {}", self.kind(&schema["items"])),
            (types, _) => escape(&types.join(" or ")),
        }
    }
}

fn examples(page: &mut Page, media: &str, body: &Value) {
    for (_, example) in members(&body["examples"]) {
        page.raw("<details class=\"sample\">");
        match example["summary"].as_str() {
            Some(summary) => page.prose("summary", summary),
            None => page.prose("summary", &format!("`{}`", text(&example["value"]["code"]))),
        }
        page.code(&written(media, &example["value"]));
        page.raw("</details>");
    }
}

/// An example as it goes over the wire.
fn written(media: &str, value: &Value) -> String {
    match media {
        "application/x-ndjson" => items(value).map(|line| format!("{line}\n")).collect(),
        "text/event-stream" => {
            let retry = value["retry"].as_u64().map(|ms| format!("retry: {ms}\n")).unwrap_or_default();
            let (name, id) = (text(&value["event"]), text(&value["id"]));
            format!("{retry}event: {name}\nid: {id}\ndata: {}\n\n", text(&value["data"]))
        }
        _ => pretty(value),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> + Clone {
    value.as_object().into_iter().flat_map(Map::iter)
}
