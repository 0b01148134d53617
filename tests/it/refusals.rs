//! Bad requests: each gets its problem, before which nothing was sent, and nothing reaches the upstream.

use onedelete::mock::Mock;
use serde_json::json;

use crate::support::{Running, Setup, ids, key, mock, raw, read_key, send};

const MAX_CONTACTS: usize = 5;
const MAX_BODY: usize = 4000;

async fn start() -> (Running, Mock) {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .set("deletions.max_contacts", i64::try_from(MAX_CONTACTS).unwrap())
        .set("server.max_body_bytes", i64::try_from(MAX_BODY).unwrap())
        .set("server.max_wrong_keys_per_min", 0)
        .mock("acme", "c", &mock, |_| {})
        .mock("other", "theirs", &mock, |_| {})
        .start()
        .await;
    (gateway, mock)
}

async fn nothing_arrived(gateway: Running, mock: &Mock) {
    gateway.stop().await;
    assert!(mock.journal().is_empty(), "{:?}", mock.journal());
}

#[tokio::test]
async fn a_body_that_breaks_the_contract_is_refused_with_a_pointer() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let cases = [
        ("", "invalid_json", "", ""),
        ("{\"contacts\": [", "invalid_json", "", ""),
        ("{\"contacts\": [\"ID\"]} {}", "invalid_json", "", ""),
        ("\u{feff}{\"contacts\": [\"ID\"]}", "invalid_json", "", ""),
        ("[\"ID\"]", "invalid_request", "", "wrong_type"),
        ("{}", "invalid_request", "/contacts", "missing_member"),
        ("{\"contacts\": []}", "invalid_request", "/contacts", "no_contacts"),
        ("{\"contacts\": null}", "invalid_request", "/contacts", "wrong_type"),
        ("{\"contacts\": \"ID\"}", "invalid_request", "/contacts", "wrong_type"),
        ("{\"contacts\": [\"ID\"], \"filter\": {}}", "invalid_request", "/filter", "unknown_member"),
        ("{\"contacts\": [{\"id\": \"ID\", \"ids\": []}]}", "invalid_request", "/contacts/0/ids", "unknown_member"),
        ("{\"contacts\": [\"ID\"], \"contacts\": [\"ID\"]}", "invalid_request", "/contacts", "duplicate_member"),
        ("{\"contacts\": [{\"id\": \"ID\", \"id\": \"ID\"}]}", "invalid_request", "/contacts/0/id", "duplicate_member"),
        (
            "{\"contacts\": [\"ID\", {\"id\": \"ID\", \"phone\": \"+1\"}]}",
            "invalid_request",
            "/contacts/1",
            "identifier_count",
        ),
        ("{\"contacts\": [{\"ref\": \"ID\"}]}", "invalid_request", "/contacts/0", "identifier_count"),
        ("{\"contacts\": [{\"id\": true}]}", "invalid_request", "/contacts/0/id", "wrong_type"),
        ("{\"contacts\": [1.5]}", "invalid_request", "/contacts/0", "wrong_type"),
        ("{\"contacts\": [null]}", "invalid_request", "/contacts/0", "wrong_type"),
        ("{\"contacts\": [{\"phone\": 14155550100}]}", "invalid_request", "/contacts/0/phone", "wrong_type"),
        (
            "{\"contacts\": [{\"external\": {\"id\": \"ID\"}}]}",
            "invalid_request",
            "/contacts/0/external/provider",
            "missing_member",
        ),
        ("{\"contacts\": [\"ID\"], \"dry_run\": 1}", "invalid_request", "/dry_run", "wrong_type"),
        ("{\"contacts\": [\"ID\"], \"connection\": [\"c\"]}", "invalid_request", "/connection", "wrong_type"),
    ];
    for (body, code, pointer, error) in cases {
        let body = body.replace("ID", &id);
        let answer = gateway.post_text("acme", body.clone()).await;
        answer.is_problem(400, code, &body);
        assert!(!answer.text.contains(&id), "an identifier is repeated: {}", answer.text);
        if code == "invalid_request" {
            let first = &answer.json["errors"][0];
            assert_eq!((first["pointer"].as_str(), first["code"].as_str()), (Some(pointer), Some(error)), "{body}");
            assert!(first["message"].is_string());
        }
    }
    let contacts: Vec<_> = ids("wethod", MAX_CONTACTS + 1);
    gateway.post("acme", &json!({ "contacts": contacts })).await.is_problem(413, "too_many_contacts", "one too many");
    let deep = format!("{{\"contacts\": {}{}}}", "[".repeat(1500), "]".repeat(1500));
    gateway.post_text("acme", deep).await.is_problem(400, "invalid_request", "nested");
    let long = "r".repeat(129);
    let answer = gateway.post("acme", &json!({ "contacts": [{ "id": id, "ref": long }] })).await;
    answer.is_problem(400, "invalid_request", "a long ref");
    assert_eq!(answer.json["errors"][0]["pointer"], "/contacts/0/ref");
    nothing_arrived(gateway, &mock).await;
}

#[tokio::test]
async fn a_connection_of_somebody_else_is_one_that_does_not_exist() {
    let (gateway, mock) = start().await;
    let known = ids("wethod", 2);
    let body = |connection: &str| json!({ "contacts": [known[0], { "id": known[1], "connection": connection }] });
    let unknown = gateway.post("acme", &body("nowhere")).await;
    unknown.is_problem(404, "not_found", "an unknown connection");
    assert_eq!(gateway.post("acme", &body("theirs")).await.fingerprint(), unknown.fingerprint());
    let top = gateway.post("acme", &json!({ "connection": "theirs", "contacts": [known[0]] })).await;
    assert_eq!(top.fingerprint(), unknown.fingerprint());
    let dry = gateway.post("acme", &json!({ "connection": "theirs", "contacts": [known[0]], "dry_run": true })).await;
    assert_eq!(dry.fingerprint(), unknown.fingerprint());
    for odd in ["", "C", "../c", "c ", "\u{0}"] {
        gateway.post("acme", &body(odd)).await.is_problem(404, "not_found", odd);
    }
    let short = |name: &str| format!("/v1/connections/{name}/contacts/{}", known[0]);
    let unknown = gateway.delete("acme", &short("nowhere")).await;
    unknown.is_problem(404, "not_found", "the shorthand");
    assert_eq!(gateway.delete("acme", &short("theirs")).await.fingerprint(), unknown.fingerprint());
    nothing_arrived(gateway, &mock).await;
}

#[tokio::test]
async fn every_bad_key_gets_the_same_refusal() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let good = key("acme");
    let wrong = "odk_0123456789012345678901234567890123456789";
    let cases: Vec<Vec<String>> = vec![
        vec![],
        vec![String::new()],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![format!("Bearer {wrong}")],
        vec![format!("Bearer {}", &good[..31])],
        vec![format!("Bearer {good}x")],
        vec![format!("Bearer {}", good.to_uppercase())],
        vec![format!("Bearer {}", onedelete::api::sha256_hex(&good))],
        vec![format!("Basic {good}")],
        vec![good.clone()],
        vec![format!("Bearer {good}"), format!("Bearer {good}")],
        vec![format!("Bearer {wrong}"), format!("Bearer {good}")],
        vec![format!("Bearer {good}, Bearer {good}")],
        vec![format!("Bearer {}", "k".repeat(5_000))],
    ];
    let mut first = None;
    for values in &cases {
        let deletion = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
        let deletion = deletion.body(json!({ "contacts": [id] }).to_string());
        let routes = [
            deletion,
            gateway.client.delete(gateway.url(&format!("/v1/connections/c/contacts/{id}"))),
            gateway.client.get(gateway.url("/v1/connections")),
            gateway.client.get(gateway.url("/v1/deletions/del_01jdx5m0w2e8v9a4k7c3b6n1pq")),
        ];
        for request in routes {
            let request = values.iter().fold(request, |request, value| request.header("authorization", value));
            let answer = send(request).await;
            answer.is_problem(401, "unauthenticated", &format!("{values:?}"));
            assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
            let print = first.get_or_insert_with(|| answer.fingerprint());
            assert_eq!(*print, answer.fingerprint(), "{values:?}");
        }
    }
    // A key that may only read may look and not delete, whatever it asks to have deleted.
    let reader = read_key("acme");
    for contact in [json!(id), json!("not an id"), json!({ "id": id, "connection": "theirs" })] {
        let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
        let answer = send(request.bearer_auth(&reader).body(json!({ "contacts": [contact] }).to_string())).await;
        answer.is_problem(403, "forbidden", "a deletion");
    }
    let short = gateway.client.delete(gateway.url(&format!("/v1/connections/c/contacts/{id}")));
    send(short.bearer_auth(&reader)).await.is_problem(403, "forbidden", "the shorthand");
    let look = send(gateway.client.get(gateway.url("/v1/connections")).bearer_auth(&reader)).await;
    assert_eq!(look.status, 200);
    nothing_arrived(gateway, &mock).await;
}

#[tokio::test]
async fn a_body_of_another_kind_is_refused() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let body = json!({ "contacts": [id] }).to_string();
    let cases: &[&[(&str, &str)]] = &[
        &[],
        &[("content-type", "")],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "application/json; charset=utf-16")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        &[("content-type", "application/json"), ("content-encoding", "identity, gzip")],
    ];
    for headers in cases {
        let request = gateway.client.post(gateway.url("/v1/deletions")).bearer_auth(key("acme")).body(body.clone());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        send(request).await.is_problem(415, "unsupported_media_type", &format!("{headers:?}"));
    }
    for fine in ["application/json; charset=UTF-8", "Application/JSON;charset=\"utf-8\""] {
        let request = gateway.client.post(gateway.url("/v1/deletions")).bearer_auth(key("acme"));
        let body = json!({ "contacts": [id], "dry_run": true }).to_string();
        assert_eq!(send(request.header("content-type", fine).body(body)).await.status, 200, "{fine}");
    }
    nothing_arrived(gateway, &mock).await;
}

#[tokio::test]
async fn routes_methods_and_parameters_that_do_not_exist_are_named() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let with = |method: &str, path: &str| {
        let request = gateway.client.request(method.parse().unwrap(), gateway.url(path)).bearer_auth(key("acme"));
        request.header("content-type", "application/json").body(json!({ "contacts": [id] }).to_string())
    };
    for path in ["/", "/v1", "/v1/deletions/", "/v1/Deletions", "/v2/deletions", "//v1/deletions", "/v1/deletions/a/b"]
    {
        send(with("POST", path)).await.is_problem(404, "not_found", path);
    }
    for (method, path, allow) in [
        ("PUT", "/v1/deletions", "GET,HEAD,POST"),
        ("PATCH", "/v1/deletions", "GET,HEAD,POST"),
        ("DELETE", "/v1/deletions", "GET,HEAD,POST"),
        ("POST", "/v1/deletions/del_01jdx5m0w2e8v9a4k7c3b6n1pq", "GET,HEAD"),
        ("DELETE", "/v1/connections/c", "GET,HEAD"),
        ("POST", "/v1/connections", "GET,HEAD"),
        ("POST", "/v1/connections/c/contacts/1", "DELETE"),
        ("GET", "/v1/connections/c/contacts/1", "DELETE"),
        ("BREW", "/v1/deletions", "GET,HEAD,POST"),
    ] {
        let answer = send(with(method, path)).await;
        answer.is_problem(405, "method_not_allowed", path);
        assert_eq!(answer.headers["allow"], allow, "{method} {path}");
    }
    for query in ["?", "?dry_run=true", "?connection=c"] {
        let answer = send(with("POST", &format!("/v1/deletions{query}"))).await;
        answer.is_problem(400, "invalid_request", query);
        assert_eq!(answer.json["errors"][0]["code"], "unknown_parameter");
    }
    let answer = send(with("DELETE", &format!("/v1/connections/c/contacts/{id}"))).await;
    answer.is_problem(400, "invalid_request", "a body on the shorthand");
    assert_eq!(answer.json["errors"][0]["code"], "body_not_allowed");
    nothing_arrived(gateway, &mock).await;
}

/// A request as bytes. `HOST` and `BODY` in the lines are filled in.
fn request(gateway: &Running, id: &str, lines: &str, body: &str) -> String {
    let head = lines.replace("HOST", &gateway.public.to_string()).replace("ID", id);
    format!("{head}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n{body}", key("acme"))
}

#[tokio::test]
async fn requests_that_could_be_misunderstood_are_refused() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let body = json!({ "contacts": [id] }).to_string();
    let (length, chunked) = (body.len(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let json = "Content-Type: application/json";
    let fixed = format!("{json}\r\nContent-Length: {length}");
    let long = "a".repeat(1100);
    let cases = [
        ("host", format!("POST /v1/deletions HTTP/1.1\r\n{fixed}"), &body),
        ("host", format!("POST /v1/deletions HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n{fixed}"), &body),
        ("host", format!("DELETE /v1/connections/c/contacts/{id} HTTP/1.1\r\nX-Y: z"), &String::new()),
        ("request_target", format!("POST http://other.example/v1/deletions HTTP/1.1\r\nHost: HOST\r\n{fixed}"), &body),
        ("request_target", format!("OPTIONS * HTTP/1.1\r\nHost: HOST\r\n{fixed}"), &body),
        ("uri_too_long", format!("POST /v1/deletions?{long} HTTP/1.1\r\nHost: HOST\r\n{fixed}"), &body),
        ("uri_too_long", format!("DELETE /v1/connections/c/contacts/{long} HTTP/1.1\r\nHost: HOST"), &String::new()),
        (
            "body_not_allowed",
            format!("DELETE /v1/connections/c/contacts/{id} HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked"),
            &chunked,
        ),
    ];
    for (code, head, body) in cases {
        let answer = raw(gateway.public, request(&gateway, &id, &head, body)).await;
        answer.is_problem(400, "invalid_request", &head);
        assert_eq!(answer.json["errors"][0]["code"], code, "{head}");
    }
    // What is no HTTP/1.1 at all, or frames itself in two ways, is refused by the parser: whatever it answers, nothing is sent.
    for head in [
        format!("POST /v1/deletions HTTP/1.1\r\nHost: HOST\r\n{fixed}\r\nContent-Length: {}", length + 1),
        format!("POST /v1/deletions HTTP/1.1\r\nHost: HOST\r\n{json}\r\nTransfer-Encoding: gzip"),
        format!("POST /v1/deletions HTTP/1.1\r\nHost: HOST\r\n{json}\r\nContent-Length: -1"),
        format!("POST /v1/deletions HTTP/1.1\r\nHost: HOST\r\nContent-Length : {length}\r\n{json}"),
        format!("POST /v1/deletions HTTP/9.9\r\nHost: HOST\r\n{fixed}"),
        format!("CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: HOST\r\n{fixed}"),
        "garbage".to_owned(),
    ] {
        let answer = raw(gateway.public, request(&gateway, &id, &head, &body)).await;
        assert!(answer.status == 0 || (400..600).contains(&answer.status), "{head}: {} {}", answer.status, answer.text);
    }
    nothing_arrived(gateway, &mock).await;
}

#[tokio::test]
async fn nothing_is_read_behind_a_body_whose_length_is_said_in_two_ways() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let body = json!({ "contacts": [id], "dry_run": true }).to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let key = key("acme");
    let common = format!("Host: {}\r\nAuthorization: Bearer {key}\r\n", gateway.public);
    // What a proxy that believed the length would have taken for part of the first body.
    let hidden = format!("DELETE /v1/connections/c/contacts/{id} HTTP/1.1\r\n{common}\r\n");
    let length = format!("Content-Length: {}\r\n", chunked.len() + hidden.len());
    for framing in
        [format!("{length}Transfer-Encoding: chunked\r\n"), format!("Transfer-Encoding: chunked\r\n{length}")]
    {
        let head = format!("POST /v1/deletions HTTP/1.1\r\n{common}Content-Type: application/json\r\n{framing}\r\n");
        // RFC 9112, section 6.1: answered or not, the connection ends there.
        let answer = raw(gateway.public, format!("{head}{chunked}{hidden}")).await;
        assert_eq!(answer.headers["connection"], "close", "{framing}: {}", answer.text);
        assert!(!answer.text.contains("HTTP/1.1"), "a second answer: {}", answer.text);
    }
    nothing_arrived(gateway, &mock).await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_not_read() {
    let (gateway, mock) = start().await;
    let id = ids("wethod", 1).remove(0);
    let head = "POST /v1/deletions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json";
    // Announced and never sent: the answer does not wait for it.
    let announced = format!("{head}\r\nContent-Length: {}", MAX_BODY + 1);
    let answer = raw(gateway.public, request(&gateway, &id, &announced, "")).await;
    answer.is_problem(413, "too_large", "announced");
    let chunks = format!("3e8\r\n{}\r\n", " ".repeat(1000)).repeat(MAX_BODY / 1000 + 1);
    let head = format!("{head}\r\nTransfer-Encoding: chunked");
    raw(gateway.public, request(&gateway, &id, &head, &chunks)).await.is_problem(413, "too_large", "in chunks");
    // Exactly the limit is no problem.
    let body = json!({ "contacts": [id], "dry_run": true }).to_string();
    let body = format!("{body}{}", " ".repeat(MAX_BODY - body.len()));
    assert_eq!(gateway.post_text("acme", body).await.status, 200);
    nothing_arrived(gateway, &mock).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().set("server.body_timeout_ms", 100).mock("acme", "c", &mock, |_| {}).start().await;
    let id = ids("wethod", 1).remove(0);
    let body = json!({ "contacts": [id] }).to_string();
    let head = format!(
        "POST /v1/deletions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    // All but its last byte: a parser that is content with that would delete.
    let answer = raw(gateway.public, request(&gateway, &id, &head, &body[..body.len() - 1])).await;
    answer.is_problem(408, "request_timeout", "a slow body");
    nothing_arrived(gateway, &mock).await;
}
