//! Methods that a route does not take, and what a body says that it is.

use super::{Row, first, post};

pub(super) fn rows() -> Vec<Row> {
    let other = |line: &str| Row::new("9110 15.5.6", first(line, "")).problem(405, "method_not_allowed");
    let media = |lines: &str| {
        let lines = format!("{lines}Content-Length: LEN\r\n");
        Row::new("9110 8.3", first("POST /v1/deletions HTTP/1.1", &lines) + "JSON")
    };
    let unsupported = |lines: &str| media(lines).problem(415, "unsupported_media_type");
    let look = |lines: &str| Row::new("9110 12.5.1", first("GET /v1/connections HTTP/1.1", lines)).answered(200);
    vec![
        Row::new("9110 9.3.2", first("HEAD /v1/connections HTTP/1.1", "")).answered(200),
        Row::new("9110 9.3.2", first("HEAD /nowhere HTTP/1.1", "")).answered(404),
        Row::new("9110 9.3.2", first("HEAD /v1/connections/c/contacts/ID HTTP/1.1", "")).answered(405),
        Row::new("9110 9.3.2", "HEAD /v1/connections HTTP/1.1\r\n\r\n").answered(400).then_closed(),
        other("OPTIONS /v1/deletions HTTP/1.1"),
        other("TRACE /v1/deletions HTTP/1.1"),
        other("PUT /v1/deletions HTTP/1.1"),
        other("PATCH /v1/connections/c HTTP/1.1"),
        other("DELETE /v1/deletions HTTP/1.1"),
        other("DELETE /v1/connections/c HTTP/1.1"),
        other("GET /v1/connections/c/contacts/ID HTTP/1.1"),
        other("POST /v1/connections/c/contacts/ID HTTP/1.1"),
        other("OPTIONS /v1/connections/c/contacts/ID HTTP/1.1"),
        other("TRACE /v1/connections/c/contacts/ID HTTP/1.1"),
        other("PROPFIND /v1/connections HTTP/1.1"),
        other("GET /v1/deletions/del_01jdx5m0w2e8v9a4k7c3b6n1pq/cancel HTTP/1.1"),
        Row::new("9110 15.5.5", first("POST /nowhere HTTP/1.1", "Content-Length: LEN\r\n") + "JSON")
            .problem(404, "not_found"),
        media("Content-Type: application/json\r\n").deletes(),
        media("Content-Type: Application/Json ; Charset=\"UTF-8\"\r\n").deletes(),
        unsupported(""),
        unsupported("Content-Type:\r\n"),
        unsupported("Content-Type: application/json, text/plain\r\n"),
        unsupported("Content-Type: application/json\r\nContent-Type: application/json\r\n"),
        unsupported("Content-Type: application/json; charset=utf-16\r\n"),
        unsupported("Content-Type: application/x-www-form-urlencoded\r\n"),
        unsupported("Content-Type: multipart/form-data; boundary=x\r\n"),
        unsupported("Content-Type: text/json\r\n"),
        unsupported("Content-Type: application/json\r\nContent-Encoding: gzip\r\n"),
        unsupported("Content-Type: application/json\r\nContent-Encoding: identity, br\r\n"),
        media("Content-Type: application/json\r\nContent-Encoding: identity\r\n").deletes(),
        Row::new("9110 14.4", post("Content-Length: LEN\r\nContent-Range: bytes 0-1/2\r\n", "JSON")).deletes(),
        look("Accept: application/xml\r\n"),
        look("Accept: application/json;q=0\r\n"),
        look("Accept:\r\n"),
        look("Accept-Encoding: gzip;q=1, identity;q=0\r\n"),
        Row::new("9110 14.2", first("GET /v1/connections HTTP/1.1", "Range: bytes=0-1\r\n")).answered(200),
        Row::new("9110 13.1.2", first("GET /v1/connections HTTP/1.1", "If-None-Match: *\r\n")).answered(200),
    ]
}
