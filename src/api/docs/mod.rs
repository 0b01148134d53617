//! The pages for people who build on the API: its description, to read and to try, and what problems and errors mean.
//!
//! Everything is compiled in and made when it is first asked for. The pages load nothing from anywhere else, ask for no
//! key, and know nothing of tenants.

mod html;
mod reference;

use std::sync::LazyLock;

use adapters::FaultCode;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::problem::{KINDS, Kind};
use super::{Problem, problem};
use html::Page;

/// The API's description: OpenAPI 3.1, as JSON.
pub const OPENAPI: &str = include_str!("../openapi.json");

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page may use its own style, its own script and its own gateway. It is nobody's frame, and its forms lead nowhere:
/// the script sends what is tried.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`
pub(super) async fn description() -> Response {
    file(OPENAPI, "application/json")
}

/// `GET /docs`
pub(super) async fn read() -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(|| reference::page(&document()));
    file(&PAGE, HTML)
}

/// `GET /docs/page.css`
pub(super) async fn style() -> Response {
    file(STYLE, "text/css; charset=utf-8")
}

/// `GET /docs/page.js`
pub(super) async fn script() -> Response {
    file(SCRIPT, "text/javascript; charset=utf-8")
}

/// `GET /docs/problems`
pub(super) async fn problems(headers: HeaderMap) -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let mut page = Page::new("Problems");
        page.prose("p", "Every error that the gateway answers is one of these. A problem with `attempted: false` promises that no delete left the gateway.");
        for kind in KINDS {
            page.raw(&format!("<section id=\"{}\">", kind.code));
            page.prose("h2", &format!("`{}` {}", kind.code, kind.status.as_u16()));
            page.prose("p", kind.title);
            describe_problem(&mut page, kind);
            page.raw("</section>");
        }
        page.end()
    });
    static TEXT: LazyLock<String> =
        LazyLock::new(|| KINDS.iter().map(|kind| problem_text(kind)).collect::<Vec<_>>().join("\n"));
    either(&headers, &PAGE, &TEXT)
}

/// `GET /docs/problems/{code}`: where the `type` of a problem leads.
pub(super) async fn problem(code: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    let kind = code.ok().and_then(|code| KINDS.iter().find(|kind| kind.code == code.0));
    let Some(kind) = kind else { return Problem::new(&problem::NOT_FOUND).into_response() };
    let mut page = Page::new(kind.title.trim_end_matches('.'));
    page.prose("p", &format!("`{}`, status {}", kind.code, kind.status.as_u16()));
    describe_problem(&mut page, kind);
    page.raw("<p><a href=\"/docs/problems\">All problems</a></p>");
    either(&headers, &page.end(), &problem_text(kind))
}

/// `GET /docs/errors`
pub(super) async fn errors(headers: HeaderMap) -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let mut page = Page::new("Error codes");
        page.prose("p", "Why a contact is not known to be absent: the `error.code` of its result. Each code has one outcome, unless an earlier attempt may have deleted the contact: then it is `unknown`.");
        page.raw("<div class=\"wide\"><table><thead><tr><th>code<th>outcome<th>meaning<th>what to do<tbody>");
        for code in FaultCode::ALL {
            page.raw(&format!("<tr id=\"{}\">", code.as_str()));
            page.prose("th", &format!("`{}`", code.as_str()));
            page.prose("td", &format!("`{}`", code.outcome().as_str()));
            page.prose("td", code.message());
            page.prose("td", code.remedy());
        }
        page.raw("</table></div>");
        page.end()
    });
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let line = |code: FaultCode| {
            format!("{} ({}): {} {}\n", code.as_str(), code.outcome().as_str(), code.message(), code.remedy())
        };
        FaultCode::ALL.into_iter().map(line).collect()
    });
    either(&headers, &PAGE, &TEXT)
}

/// The description as a tree.
fn document() -> Value {
    // A test reads it, so it can be read.
    serde_json::from_str(OPENAPI).unwrap_or_default()
}

fn describe_problem(page: &mut Page, kind: &Kind) {
    page.raw("<dl>");
    for (term, text) in [("Cause", kind.cause), ("Remedy", kind.remedy)] {
        page.prose("dt", term);
        page.prose("dd", text);
    }
    page.raw("</dl>");
}

fn problem_text(kind: &Kind) -> String {
    let Kind { code, status, title, cause, remedy } = kind;
    format!("{code} ({status})\n\n{title}\n\nCause: {cause}\n\nRemedy: {remedy}\n")
}

const HTML: &str = "text/html; charset=utf-8";

/// A page for browsers, plain text for those who do not ask for one.
fn either(headers: &HeaderMap, page: &str, text: &str) -> Response {
    let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = match ranges.any(|range| range.to_ascii_lowercase().contains("text/html")) {
        true => file(page, HTML),
        false => file(text, "text/plain; charset=utf-8"),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

fn file(text: &str, media: &'static str) -> Response {
    let mut response = text.to_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    if media == HTML {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use adapters::{DIALECTS, Evidence, Outcome};

    use super::*;

    fn words(schema: &str) -> BTreeSet<String> {
        let words = document()["components"]["schemas"][schema]["enum"].as_array().unwrap().clone();
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    fn set<'w>(words: impl IntoIterator<Item = &'w str>) -> BTreeSet<String> {
        words.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn every_closed_list_is_described_and_nothing_else() {
        assert_eq!(words("ProblemCode"), set(KINDS.iter().map(|kind| kind.code)));
        assert_eq!(words("ErrorCode"), set(FaultCode::ALL.map(FaultCode::as_str)));
        assert_eq!(words("Outcome"), set(Outcome::ALL.map(Outcome::as_str)));
        let evidence = DIALECTS.iter().flat_map(|registration| registration.profile.evidence);
        let own = [Evidence::Inferred, Evidence::None];
        assert_eq!(words("Evidence"), set(evidence.chain(&own).map(|evidence| evidence.as_str())));
        assert_eq!(words("Retry"), set(["never", "safe", "after", "verify_first"]));
    }

    #[test]
    fn every_problem_has_its_status_and_an_example_that_is_what_the_gateway_writes() {
        let document = document();
        let responses = document["components"]["responses"].as_object().unwrap();
        for kind in KINDS {
            let examples = responses.values().filter_map(|response| {
                response["content"]["application/problem+json"]["examples"].get(kind.code)?.get("value")
            });
            let examples: Vec<_> = examples.collect();
            assert!(!examples.is_empty(), "{} has no example", kind.code);
            for example in examples {
                assert_eq!(example["title"], kind.title);
                assert_eq!(example["status"], kind.status.as_u16(), "{}", kind.code);
                assert_eq!(example["type"], format!("/docs/problems/{}", kind.code));
                assert_eq!(example["code"], kind.code);
            }
        }
    }

    #[test]
    fn every_page_teaches() {
        for kind in KINDS {
            for text in [kind.title, kind.cause, kind.remedy] {
                assert!(text.split(' ').count() >= 4 && text.ends_with('.'), "{}: {text}", kind.code);
            }
            assert_ne!(kind.cause, kind.remedy);
        }
        for code in FaultCode::ALL {
            assert!(code.remedy().split(' ').count() >= 4 && code.remedy().ends_with('.'), "{}", code.as_str());
        }
    }

    #[test]
    fn the_version_is_the_programs() {
        assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(document()["openapi"], "3.1.0");
    }

    #[test]
    fn the_page_names_every_operation_and_loads_nothing_from_elsewhere() {
        let (document, page) = (document(), reference::page(&document()));
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in
                item.as_object().unwrap().values().filter_map(|operation| operation["operationId"].as_str())
            {
                assert!(page.contains(&format!("id=\"{operation}\"")), "{path}: {operation}");
            }
        }
        for schema in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("id=\"schema-{schema}\"")), "{schema}");
        }
        for text in [&page, STYLE, SCRIPT] {
            for word in ["http://", "https://", "//cdn", "@import", "url("] {
                let found = text
                    .split(word)
                    .skip(1)
                    .find(|rest| !rest.starts_with("127.0.0.1") && !rest.starts_with("acme.example"));
                assert_eq!(found.map(|rest| rest.chars().take(40).collect::<String>()), None, "{word}");
            }
            assert!(!text.contains(" style=\"") && !text.contains(" onclick="), "the policy would refuse it");
        }
    }
}
