//! Header lines: their form, `Host`, and those that say how to go on.

use super::{Row, delete, first};

const LINE: &str = "DELETE /v1/connections/c/contacts/ID HTTP/1.1";
const OLD: &str = "DELETE /v1/connections/c/contacts/ID HTTP/1.0";

pub(super) fn rows() -> Vec<Row> {
    let of_host = |lines: &str| Row::new("9112 3.2", format!("{LINE}\r\n{lines}Authorization: Bearer KEY\r\n\r\n"));
    let with = |section: &'static str, lines: &str| Row::new(section, delete(lines));
    let count = |n: usize| delete(&"X: y\r\n".repeat(n));
    vec![
        of_host("").refused("host"),
        of_host("Host: HOST\r\nHost: HOST\r\n").refused("host"),
        of_host("Host: HOST\r\nHost: other.example\r\n").refused("host"),
        of_host("Host: HOST\r\nX: y\r\nhOST: HOST\r\n").refused("host"),
        of_host("Host:\r\n").refused("host"),
        of_host("Host: \t \r\n").refused("host"),
        of_host("Host: u@HOST\r\n").refused("host"),
        of_host("Host: HOST/x\r\n").refused("host"),
        of_host("Host: http://HOST\r\n").refused("host"),
        of_host("Host: a b\r\n").refused("host"),
        of_host("Host: a:b\r\n").refused("host"),
        of_host("Host: a:123456\r\n").refused("host"),
        of_host("Host: :80\r\n").refused("host"),
        of_host("Host: [::1\r\n").refused("host"),
        of_host("Host: [evil]\r\n").refused("host"),
        of_host("Host: [::1]x\r\n").refused("host"),
        of_host("Host: \u{e9}\r\n").refused("host"),
        // The gateway has no name of its own: whatever is well-formed is a host.
        of_host("Host: other.example\r\n").deletes(),
        of_host("Host:a:\r\n").deletes(),
        of_host("Host: [::1]:8080\r\n").deletes(),
        Row::new("9112 3.2", format!("{OLD}\r\nAuthorization: Bearer KEY\r\n\r\n")).deletes().then_closed(),
        Row::new("9112 3.2", format!("{OLD}\r\nHost: a\r\nHost: a\r\n\r\n")).refused("host"),
        // A line that begins with a blank would go on with the one before it.
        with("9112 5.2", "X: a\r\n b\r\n").refused("header"),
        with("9112 5.2", "X: a\r\n\tb: c\r\n").refused("header"),
        with("9112 5.2", "X: a\r\n \r\n").refused("header"),
        with("9112 5.2", "Content-Length: 1\r\n 0\r\n").refused("header"),
        Row::new("9112 2.2", delete("").replacen("\r\nHost", "\r\n Host", 1)).refused("header"),
        Row::new("9112 2.2", delete("").replacen("\r\nHost", "\r\n X: y\r\nHost", 1)).refused("header"),
        with("9112 5.1", "X : y\r\n").refused("header"),
        with("9112 5.1", "X\t: y\r\n").refused("header"),
        with("9112 5.1", "Content-Length : 0\r\n").refused("header"),
        with("9112 5.1", "Transfer-Encoding : chunked\r\n").refused("header"),
        of_host("Host : HOST\r\n").refused("header"),
        with("9110 5.1", ": y\r\n").refused("header"),
        with("9110 5.1", "X Y: z\r\n").refused("header"),
        with("9110 5.1", "X(Y): z\r\n").refused("header"),
        with("9110 5.1", "X/Y: z\r\n").refused("header"),
        with("9110 5.1", "\"X\": z\r\n").refused("header"),
        with("9110 5.1", "X\u{e9}: z\r\n").refused("header"),
        with("9110 5.1", "X\0: z\r\n").refused("header"),
        with("9112 5", "no colon\r\n").refused("header"),
        with("9110 5.5", "X: a\0b\r\n").refused("header"),
        with("9110 5.5", "X: a\u{1}b\r\n").refused("header"),
        with("9110 5.5", "X: a\u{8}b\r\n").refused("header"),
        with("9110 5.5", "X: a\u{b}b\r\n").refused("header"),
        with("9110 5.5", "X: a\u{1b}[31mb\r\n").refused("header"),
        with("9110 5.5", "X: a\u{7f}b\r\n").refused("header"),
        with("9110 5.5", "X: a\tb c\r\n").deletes(),
        with("9110 5.5", "X: \u{e9}\u{ff}\r\n").deletes(),
        with("9110 5.5", "X:\r\nY:y\r\nZ:   z \t \r\n").deletes(),
        with("9110 5.1", "!#$%&'*+-.^_`|~09: y\r\n").deletes(),
        // Two lines are there already.
        Row::new("9110 5.4", count(62)).deletes(),
        Row::new("9110 5.4", count(63)).problem(431, "headers_too_large").then_closed(),
        Row::new("9110 5.4", count(1_000)).problem(431, "headers_too_large").then_closed(),
        with("9110 5.4", &format!("X: {}\r\n", "y".repeat(10_000))).deletes(),
        with("9110 5.4", &format!("X: {}\r\n", "y".repeat(17_000))).problem(431, "headers_too_large").then_closed(),
        with("9110 5.4", &format!("{}: y\r\n", "X".repeat(17_000))).problem(431, "headers_too_large").then_closed(),
        Row::new("9110 5.4", format!("{LINE}\r\n{}", "X".repeat(40_000)))
            .problem(431, "headers_too_large")
            .then_closed(),
        Row::new("9110 11.6.2", format!("{LINE}\r\nHost: HOST\r\n\r\n")).problem(401, "unauthenticated"),
        with("9110 11.6.2", "Authorization: Bearer KEY\r\n").problem(401, "unauthenticated"),
        Row::new("9110 11.4", delete("").replace("Bearer", "Basic")).problem(401, "unauthenticated"),
        // The name of a scheme is not case-sensitive.
        Row::new("9110 11.1", delete("").replace("Bearer", "bEARER")).deletes(),
        with("9112 9.6", "Connection: close\r\n").deletes().then_closed(),
        with("9112 9.6", "Connection: CLOSE\r\n").deletes().then_closed(),
        with("9112 9.6", "Connection: x, close\r\n").deletes().then_closed(),
        with("9112 9.6", "Connection: keep-alive, close\r\n").deletes().then_closed(),
        with("9112 9.6", "Connection: keep-alive\r\nConnection: close\r\n").deletes().then_closed(),
        with("9112 9.3", "Connection: keep-alive\r\n").deletes(),
        with("9112 9.3", "Keep-Alive: timeout=0, max=0\r\n").deletes(),
        with("9110 7.6.1", "Connection: authorization, host\r\n").deletes(),
        Row::new("9112 9.3", first(OLD, "")).deletes().then_closed(),
        Row::new("9112 9.3", first(OLD, "Connection: keep-alive\r\n")).deletes(),
        // Nothing here can be switched to.
        with("9110 7.8", "Connection: upgrade\r\nUpgrade: websocket\r\n").deletes(),
        with("9110 7.8", "Connection: upgrade\r\nUpgrade: TLS/1.2\r\n").deletes(),
        with("9113 3.1", "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
            .deletes(),
        with("9110 10.1.1", "Expect: 100-continue\r\n").deletes(),
        with("9110 10.1.1", "Expect: 100-CONTINUE\r\n").deletes(),
        with("9110 10.1.1", "Expect: 200-ok\r\n").refused("expectation"),
        with("9110 10.1.1", "Expect: 100-continue, x\r\n").refused("expectation"),
        with("9110 10.1.1", "Expect:\r\n").refused("expectation"),
        with("9110 10.1.4", "TE: trailers, deflate\r\nConnection: te\r\n").deletes(),
        // What other servers take for another method or path is nothing here.
        Row::new("9110 9.1", first("GET /v1/connections HTTP/1.1", "X-HTTP-Method-Override: DELETE\r\n")).answered(200),
        Row::new("9110 7.1", first("GET /v1/connections HTTP/1.1", "X-Original-URL: /v1/deletions\r\n")).answered(200),
        Row::new("9110 7.6.3", first("GET /v1/connections HTTP/1.1", "X-Forwarded-Host: a\r\nForwarded: for=b\r\n"))
            .answered(200),
    ]
}
