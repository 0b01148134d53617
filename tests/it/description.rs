//! The API's description: it has every route, it is well made, and its examples are what the gateway answers.
//!
//! That all other answers are as described is judged where they are read (`described`).

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use adapters::Identifier;
use onedelete::api;
use onedelete::mock::{Fault, Mock};
use serde_json::{Value, json};

use crate::described::{DOCUMENT, Seen, faults, members, misfits, parse, resolve};
use crate::support::{Answer, Running, Setup, attempts, id, key, mock, read_key, send, table};

/// The contact that the examples delete, and the one that is not there.
const CONTACT: &str = "6960cbe9b155d194e2f00001";

#[test]
fn it_has_every_path_and_no_other() {
    let described: BTreeSet<_> = members(&DOCUMENT["paths"]).map(|(path, _)| path).collect();
    assert_eq!(described, api::path_templates().collect());
}

#[tokio::test]
async fn it_has_every_method_and_is_served_as_it_is_printed() {
    let gateway = Setup::new().start().await;
    for (path, item) in members(&DOCUMENT["paths"]) {
        let filled = path.replace(['{', '}'], "");
        let answer = send(gateway.client.request(reqwest::Method::OPTIONS, gateway.url(&filled))).await;
        answer.is_problem(405, "method_not_allowed", path);
        let allowed: BTreeSet<_> =
            answer.headers["allow"].to_str().unwrap().split(',').map(str::to_lowercase).collect();
        let mut described: BTreeSet<_> =
            members(item).map(|(method, _)| method.to_owned()).filter(|method| method != "parameters").collect();
        if described.contains("get") {
            described.insert("head".to_owned());
        }
        assert_eq!(allowed, described, "{path}");
    }
    let served = send(gateway.client.get(gateway.url("/openapi.json"))).await;
    assert_eq!((served.status, served.text.as_str()), (200, api::OPENAPI));
    let printed = crate::cli::run(&["openapi"], &[]).await;
    assert_eq!((printed.code, printed.out.as_str()), (Some(0), api::OPENAPI));
    gateway.stop().await;
}

#[test]
fn it_is_well_made() {
    let document = DOCUMENT.to_string();
    let components =
        members(&DOCUMENT["components"]).flat_map(|(kind, all)| members(all).map(move |(name, _)| (kind, name)));
    for (kind, name) in components {
        // Answers to paths and methods that are not there stand with no operation.
        let used = document.contains(&format!("\"#/components/{kind}/{name}\""));
        assert!(used || kind == "securitySchemes" || name == "MethodNotAllowed", "nothing uses {kind}/{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in members(&DOCUMENT["paths"]) {
        for (method, operation) in members(item).filter(|(method, _)| *method != "parameters") {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
            assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{method} {path}");
            let own = operation["parameters"].as_array().into_iter().chain(item["parameters"].as_array());
            let own: Vec<_> = own.flatten().map(resolve).filter(|one| one["in"] == "path").collect();
            assert_eq!(own.len(), path.matches('{').count(), "{path}");
            assert!(own.iter().all(|one| path.contains(&format!("{{{}}}", one["name"].as_str().unwrap()))), "{path}");
            for (status, response) in members(&operation["responses"]) {
                assert!(resolve(response)["headers"].get("X-Request-Id").is_some(), "{method} {path} {status}");
            }
        }
    }
    let mut examples = 0;
    every_content(&DOCUMENT, &mut |content| {
        for (name, example) in members(&content["examples"]) {
            examples += 1;
            let misfits = misfits(&content["schema"], &example["value"]);
            // One that shows how a request is refused must not fit.
            assert_eq!(misfits.is_empty(), name != "wrong", "{name}: {misfits:?}");
        }
    });
    assert!(examples > 40, "{examples}");
}

fn every_content(value: &'static Value, told: &mut impl FnMut(&'static Value)) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if name == "content" {
                    members(value).for_each(|(_, content)| told(content));
                }
                every_content(value, told);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| every_content(item, told)),
        _ => {}
    }
}

#[test]
fn what_is_not_described_is_found() {
    let heads = |lines: &[(&'static str, &str)]| -> http::HeaderMap {
        lines.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    };
    let plain = heads(&[("content-type", "application/json"), ("x-request-id", "a")]);
    let body = json!({ "connections": [] }).to_string();
    let seen =
        |target, status, headers, body| faults(&Seen { method: "GET", target, status, headers, body: Some(body) });
    let none = Vec::<String>::new();
    assert_eq!(seen("/v1/connections", 200, &plain, &body), none);
    assert_ne!(seen("/v1/connections", 200, &plain, "{}"), none);
    assert_ne!(seen("/v1/connections", 200, &plain, r#"{"connections": [], "more": 1}"#), none);
    assert_ne!(seen("/v1/connections", 200, &plain, "no JSON"), none);
    assert_ne!(seen("/v1/connections", 201, &plain, &body), none);
    assert_ne!(seen("/v1/nothing", 200, &plain, &body), none);
    let html = heads(&[("content-type", "text/html")]);
    assert_ne!(seen("/v1/connections", 200, &html, &body), none);
    let located = heads(&[("content-type", "application/json"), ("location", "/v1/deletions/1")]);
    assert_ne!(seen("/v1/connections", 200, &located, &body), none);
}

/// The gateway of the examples, and its upstreams.
struct Scene {
    gateway: Running,
    support: Mock,
    portal: Mock,
    _lists: Mock,
}

async fn scene() -> Scene {
    let (support, portal, lists) = (mock("kore_ai").await, mock("onlyoffice").await, mock("talkdesk").await);
    support.seed(&id(CONTACT), false);
    lists.seed(&Identifier::Phone("+14155550100".into()), false);
    let external = Identifier::External { provider: "salesforce".into(), id: "003DL0000212DetYAE".into() };
    lists.seed(&external, false);
    let once = |connection: &mut toml::Table| {
        attempts(1)(connection);
        table(connection, "timeouts").insert("response_ms".to_owned(), 2_000.into());
    };
    let setup = Setup::new().set("upstream.breaker_failures", 2);
    let setup = setup.mock("acme", "support", &support, once).mock("acme", "portal", &portal, |_| {});
    let gateway = setup.mock("acme", "lists", &lists, |_| {}).start().await;
    Scene { gateway, support, portal, _lists: lists }
}

impl Scene {
    async fn post(&self, media: &str, body: String) -> Answer {
        let request = self.gateway.client.post(self.gateway.url("/v1/deletions")).header("content-type", media);
        send(request.bearer_auth(key("acme")).body(body)).await
    }

    /// What an answer and an example have in common: neither which deletion it is nor when it was matters.
    fn same(&self, text: &Value) -> Value {
        let text = text.to_string().replace(&base_of(self.portal.addr()), "https://acme.example");
        let mut text = text.split('"').map(str::to_owned).collect::<Vec<_>>();
        for piece in &mut text {
            if let Some(at) = piece.find("del_") {
                piece.replace_range(at..at + 30, "DELETION");
            } else if piece.len() == 20 && piece.starts_with("20") && piece.ends_with('Z') {
                *piece = "TIME".to_owned();
            }
        }
        serde_json::from_str(&text.join("\"")).unwrap()
    }

    /// Fails unless the answer is the example.
    fn is(&self, answer: &Answer, example: &Value, what: &str) {
        let media = answer.headers["content-type"].to_str().unwrap();
        let mut told = parse(media.split(';').next().unwrap(), &answer.text).unwrap();
        if media == "text/event-stream" {
            told = told[0].take();
        }
        let mut example = example.clone();
        for event in [&mut told, &mut example] {
            if let Some(data) = event.get_mut("data") {
                *data = serde_json::from_str(data.as_str().unwrap()).unwrap();
            }
        }
        assert_eq!(self.same(&told), self.same(&example), "{what}: {}", answer.text);
    }
}

fn base_of(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

/// The examples of an operation's answers, by status and name.
fn answers(path: &str, method: &str) -> HashMap<(u16, &'static str), &'static Value> {
    let responses = &DOCUMENT["paths"][path][method]["responses"];
    assert!(responses.is_object(), "{method} {path}");
    let mut found = HashMap::new();
    for (status, response) in members(responses) {
        for (_, content) in members(&resolve(response)["content"]) {
            for (name, example) in members(&content["examples"]) {
                found.insert((status.parse().unwrap(), name), &example["value"]);
            }
        }
    }
    found
}

#[tokio::test]
async fn every_example_of_a_deletion_is_what_is_answered() {
    let expected = answers("/v1/deletions", "post");
    // What is named differently on both sides: these are problems, which are examples of their own.
    let problems = HashMap::from([("wrong", (400, "invalid_request")), ("unknown_connection", (404, "not_found"))]);
    let mut seen = BTreeSet::new();
    for (media, content) in members(&DOCUMENT["paths"]["/v1/deletions"]["post"]["requestBody"]["content"]) {
        for (name, example) in members(&content["examples"]) {
            let scene = scene().await;
            let body = match media {
                "application/x-ndjson" => {
                    scene.support.fault_always(Some(Fault::Hold));
                    example["value"].as_array().unwrap().iter().map(|line| format!("{line}\n")).collect()
                }
                _ => example["value"].to_string(),
            };
            let answer = scene.post(media, body).await;
            let (status, named) = problems.get(name).copied().unwrap_or((answer.status, name));
            let expected = expected.get(&(status, named)).unwrap_or_else(|| panic!("{name}: {}", answer.text));
            scene.is(&answer, expected, name);
            seen.insert((status, named));
            scene.support.fault_always(None);
            scene.support.release(usize::MAX);
            scene.gateway.stop().await;
        }
    }
    let own: BTreeSet<_> = expected.into_keys().filter(|(status, _)| *status < 300).collect();
    assert!(own.is_subset(&seen), "nothing asks for {:?}", own.difference(&seen));
}

#[tokio::test]
async fn every_example_of_a_look_is_what_is_answered() {
    let scene = scene().await;
    let deletion = scene.post("application/json", json!({ "contacts": [CONTACT] }).to_string()).await.id();
    for (path, name) in [
        ("/v1/deletions/{deletion}", "finished"),
        ("/v1/deletions/{deletion}/results", "finished"),
        ("/v1/deletions/{deletion}/events", "finished"),
    ] {
        let filled = path.replace("{deletion}", &deletion);
        let answer = scene.gateway.get("acme", &filled).await;
        scene.is(&answer, answers(path, "get")[&(200, name)], path);
    }
    let path = "/v1/deletions/{deletion}/cancel";
    let request = scene.gateway.client.post(scene.gateway.url(&path.replace("{deletion}", &deletion)));
    let answer = send(request.bearer_auth(key("acme"))).await;
    scene.is(&answer, answers(path, "post")[&(200, "finished")], path);
    let told = scene.gateway.get("acme", &format!("/v1/deletions/{deletion}/events")).await;
    assert_eq!(told.headers["content-type"], "text/event-stream");
    scene.gateway.stop().await;

    // A list with one deletion, and one connection with all defaults but its pace.
    let support = mock("kore_ai").await;
    support.seed(&id(CONTACT), false);
    let gateway = Setup::new().mock("acme", "support", &support, |_| {}).start().await;
    let scene = Scene { gateway, portal: mock("onlyoffice").await, _lists: mock("talkdesk").await, support };
    scene.post("application/json", json!({ "contacts": [CONTACT, "6960cc07b155d194e2f00002"] }).to_string()).await;
    let list = scene.gateway.get("acme", "/v1/deletions").await;
    scene.is(&list, answers("/v1/deletions", "get")[&(200, "page")], "the list");
    let list = scene.gateway.get("acme", "/v1/connections").await;
    scene.is(&list, answers("/v1/connections", "get")[&(200, "all")], "the connections");
    let one = scene.gateway.get("acme", "/v1/connections/support").await;
    scene.is(&one, answers("/v1/connections/{connection}", "get")[&(200, "one")], "the connection");
    scene.gateway.stop().await;
}

#[tokio::test]
async fn every_example_of_the_short_form_is_what_is_answered() {
    let path = "/v1/connections/{connection}/contacts/{id}";
    let expected = answers(path, "delete");
    let ask = async |scene: &Scene, id: &str| {
        scene.gateway.delete("acme", &format!("/v1/connections/support/contacts/{id}")).await
    };
    let first = scene().await;
    first.is(&ask(&first, CONTACT).await, expected[&(200, "deleted")], "deleted");
    first.is(&ask(&first, "x").await, expected[&(422, "contact_rejected")], "rejected");
    first.support.fault(Fault::Status(401));
    first.is(&ask(&first, CONTACT).await, expected[&(502, "contact_failed")], "failed");
    first.gateway.stop().await;

    let second = scene().await;
    for _ in 0..2 {
        second.support.fault(Fault::Stall);
        second.is(&ask(&second, CONTACT).await, expected[&(504, "contact_unknown")], "unknown");
    }
    second.is(&ask(&second, CONTACT).await, expected[&(503, "contact_skipped")], "skipped");
    second.gateway.stop().await;
}

#[tokio::test]
async fn examples_of_problems_are_what_is_answered() {
    let scene = scene().await;
    let expected = answers("/v1/deletions", "post");
    let post = async |key: String, media: &str, body: &str| {
        let request = scene.gateway.client.post(scene.gateway.url("/v1/deletions")).header("content-type", media);
        send(request.header("idempotency-key", "one").bearer_auth(key).body(body.to_owned())).await
    };
    let one = json!({ "contacts": [CONTACT] }).to_string();
    let many = json!({ "contacts": vec![1; 10_001] }).to_string();
    let (own, json) = (key("acme"), "application/json");
    for (key, media, body, example) in [
        (own.clone(), json, "{\"contacts\":[", (400, "invalid_json")),
        (key("nobody"), json, one.as_str(), (401, "unauthenticated")),
        (read_key("acme"), json, &one, (403, "forbidden")),
        (own.clone(), json, &many, (413, "too_many_contacts")),
        (own.clone(), json, &" ".repeat(4_194_305), (413, "too_large")),
        (own.clone(), "text/plain", &one, (415, "unsupported_media_type")),
    ] {
        scene.is(&post(key, media, body).await, expected[&example], example.1);
    }
    assert_eq!(post(own.clone(), json, &one).await.status, 200);
    let other = post(own, json, r#"{"contacts": [1]}"#).await;
    scene.is(&other, expected[&(422, "idempotency_key_reused")], "another body");
    scene.gateway.stop().await;
}

#[tokio::test]
async fn the_pages_are_there_without_a_key_and_say_what_to_do() {
    let gateway = Setup::new().start().await;
    let get =
        async |path: &str, accept: &str| send(gateway.client.get(gateway.url(path)).header("accept", accept)).await;
    let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
    for kind in api::problem::KINDS {
        let path = format!("/docs/problems/{}", kind.code);
        let (page, text) = (get(&path, browser).await, get(&path, "*/*").await);
        assert_eq!((page.status, text.status), (200, 200), "{path}");
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{path}");
        assert!(text.headers["content-type"].to_str().unwrap().starts_with("text/plain"), "{path}");
        for said in [kind.title, kind.cause, kind.remedy] {
            assert!(text.text.contains(said), "{path}: {said}");
        }
    }
    get("/docs/problems/nothing", browser).await.is_problem(404, "not_found", "no such problem");
    let errors = get("/docs/errors", browser).await.text;
    for code in adapters::FaultCode::ALL {
        assert!(errors.contains(&format!("<tr id=\"{}\">", code.as_str())), "{}", code.as_str());
    }
    for path in ["/docs", "/docs/problems", "/docs/errors"] {
        let page = get(path, browser).await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{path}: {policy}");
        // Whatever a page loads is there.
        let parts = ["src=\"/", "href=\"/"].into_iter().flat_map(|before| page.text.split(before).skip(1));
        for part in parts.filter_map(|rest| rest.split('"').next()) {
            assert_eq!(get(&format!("/{part}"), "*/*").await.status, 200, "{path}: /{part}");
        }
    }
    gateway.stop().await;
}
