//! Where a body ends: lengths and chunks.

use super::{Row, delete, first, post};

/// A body in one chunk, with this line for its size.
fn one_chunk(line: &str) -> String {
    format!("{line}\r\nJSON\r\n0\r\n\r\n")
}

pub(super) fn rows() -> Vec<Row> {
    let length = |lines: &str| Row::new("9112 6.3", post(lines, "JSON"));
    let coded = |lines: &str| Row::new("9112 6.1", post(lines, &one_chunk("HEX")));
    let chunks = |body: &str| Row::new("9112 7.1", post("Transfer-Encoding: chunked\r\n", body));
    let trailers = |lines: &str| {
        Row::new("9110 6.5.1", post("Transfer-Encoding: chunked\r\n", &format!("HEX\r\nJSON\r\n0\r\n{lines}\r\n")))
    };
    let extensions = format!("1;{}\r\n", "x".repeat(200));
    vec![
        length("Content-Length: LEN\r\n").deletes(),
        length("content-length:\t LEN \t\r\n").deletes(),
        length("Content-Length: 000LEN\r\n").deletes(),
        length("Content-Length: LEN\r\nContent-Length: LEN\r\n").refused("framing"),
        length("Content-Length: LEN\r\nContent-Length: 0\r\n").refused("framing"),
        length("Content-Length: 0\r\nX: y\r\nContent-Length: LEN\r\n").refused("framing"),
        length("Content-Length: LEN, LEN\r\n").refused("framing"),
        length("Content-Length: LEN,\r\n").refused("framing"),
        length("Content-Length: LEN 0\r\n").refused("framing"),
        length("Content-Length: +LEN\r\n").refused("framing"),
        length("Content-Length: -LEN\r\n").refused("framing"),
        length("Content-Length: 0xHEX\r\n").refused("framing"),
        length("Content-Length: LEN.0\r\n").refused("framing"),
        length("Content-Length: 1e1\r\n").refused("framing"),
        length("Content-Length: \"LEN\"\r\n").refused("framing"),
        length("Content-Length: LEN;x\r\n").refused("framing"),
        length("Content-Length:\r\n").refused("framing"),
        length("Content-Length: \u{661}\r\n").refused("framing"),
        length("Content-Length: 9223372036854775808\r\n").refused("framing"),
        length("Content-Length: 18446744073709551615\r\n").refused("framing"),
        length("Content-Length: 18446744073709551616\r\n").refused("framing"),
        length("Content-Length: 99999999999999999999999999\r\n").refused("framing"),
        length("Content-Length: 9223372036854775807\r\n").problem(413, "too_large").then_closed(),
        length("Content-Length: 100001\r\n").problem(413, "too_large").then_closed(),
        // All but what was announced: the wait for it ends, and so does the connection.
        length("Content-Length: 5000\r\n").problem(408, "request_timeout").then_closed(),
        // What stands behind a length belongs to the next request.
        Row::new("9112 6.3", post("", "JSON")).answered(400).then_refused(),
        Row::new("9112 6.3", post("Content-Length: 5\r\n", "JSON")).answered(400).then_refused(),
        Row::new("9112 6.3", post("Content-Length: LEN\r\n", "JSON}")).deletes().then_refused(),
        // One empty line too much is forgiven.
        Row::new("9112 2.2", post("Content-Length: LEN\r\n", "JSON\r\n")).deletes(),
        Row::new("9110 9.3.1", first("GET /v1/connections HTTP/1.1", "Content-Length: 5\r\n") + "hello").answered(200),
        Row::new("9110 9.3.1", first("GET /v1/connections HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n")
            .answered(200)
            .then_as_said(),
        Row::new("9110 9.3.5", delete("Content-Length: 0\r\n")).deletes(),
        Row::new("9110 9.3.5", delete("Content-Length: 5\r\n") + "hello").problem(400, "body_not_allowed"),
        Row::new("9110 9.3.5", delete("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n")
            .problem(400, "body_not_allowed")
            .then_as_said(),
        coded("Transfer-Encoding: chunked\r\n").deletes(),
        coded("transfer-encoding:CHUNKED\r\n").deletes(),
        coded("Transfer-Encoding: chunked\r\nContent-Length: LEN\r\n").refused("framing"),
        coded("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n").refused("framing"),
        coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n").refused("framing"),
        coded("Transfer-Encoding: chunked, chunked\r\n").refused("framing"),
        coded("Transfer-Encoding: gzip, chunked\r\n").refused("framing"),
        coded("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n").refused("framing"),
        coded("Transfer-Encoding: chunked, gzip\r\n").refused("framing"),
        coded("Transfer-Encoding: chunked, identity\r\n").refused("framing"),
        coded("Transfer-Encoding: identity\r\n").refused("framing"),
        coded("Transfer-Encoding: gzip\r\n").refused("framing"),
        coded("Transfer-Encoding: xchunked\r\n").refused("framing"),
        coded("Transfer-Encoding: chunked;x=y\r\n").refused("framing"),
        coded("Transfer-Encoding: \"chunked\"\r\n").refused("framing"),
        coded("Transfer-Encoding: chunked,\r\n").refused("framing"),
        coded("Transfer-Encoding: , chunked\r\n").refused("framing"),
        coded("Transfer-Encoding: chunked x\r\n").refused("framing"),
        coded("Transfer-Encoding:\r\n").refused("framing"),
        coded("Transfer-Encoding: \u{b}chunked\r\n").refused("header"),
        coded("Transfer-Encoding:\r\n chunked\r\n").refused("framing"),
        Row::new("9112 6.1", post("Transfer-Encoding: chunked\r\n", &one_chunk("HEX")).replace("/1.1", "/1.0"))
            .refused("framing"),
        chunks("1\r\n{\r\n0\r\n\r\n").problem(400, "invalid_json"),
        chunks(&one_chunk("000HEX")).deletes(),
        chunks("0F\r\n               \r\nHEX\r\nJSON\r\n000\r\n\r\n").deletes(),
        chunks(&one_chunk("HEX;name")).deletes(),
        chunks(&one_chunk("HEX ; name=value;other=\"a;b\"")).deletes(),
        chunks("HEX\r\nJSON\r\n0;last\r\n\r\n").deletes(),
        chunks(&one_chunk("0xHEX")).refused("body_incomplete"),
        chunks(&one_chunk("+HEX")).refused("body_incomplete"),
        chunks(&one_chunk("-HEX")).refused("body_incomplete"),
        chunks(&one_chunk(" HEX")).refused("body_incomplete"),
        chunks(&one_chunk("HEX ")).refused("body_incomplete"),
        chunks(&one_chunk("")).refused("body_incomplete"),
        chunks(&one_chunk(";x")).refused("body_incomplete"),
        chunks(&one_chunk("HEX,HEX")).refused("body_incomplete"),
        chunks(&one_chunk("\u{661}")).refused("body_incomplete"),
        chunks(&one_chunk("00000000000000HEX")).refused("body_incomplete"),
        chunks(&one_chunk("ffffffffffffffff")).refused("body_incomplete"),
        chunks(&one_chunk("100000000000000000000")).refused("body_incomplete"),
        chunks("HEX\nJSON\n0\n\n").refused("body_incomplete"),
        chunks("HEX\r\nJSON\n0\r\n\r\n").refused("body_incomplete"),
        chunks("HEX\r\nJSON0\r\n\r\n").refused("body_incomplete"),
        chunks("HEX\r\nJSON}\r\n0\r\n\r\n").refused("body_incomplete"),
        chunks("HEX\r\nJSON\r\n0\r\n\n").refused("body_incomplete"),
        chunks("HEX\r\nJSON\r\n0\n\r\n").refused("body_incomplete"),
        Row::new("9112 7.1.1", post("Transfer-Encoding: chunked\r\n", &one_chunk("HEX;a\nb")))
            .refused("body_incomplete"),
        Row::new("9112 7.1.1", post("Transfer-Encoding: chunked\r\n", &one_chunk("HEX;a\rb")))
            .refused("body_incomplete"),
        Row::new("9112 7.1.1", post("Transfer-Encoding: chunked\r\n", &one_chunk("HEX;a\0")))
            .refused("body_incomplete"),
        chunks(&one_chunk(&format!("HEX;{}", "x".repeat(300)))).refused("body_incomplete"),
        chunks(&format!("{extensions} \r\n").repeat(100)).refused("body_incomplete"),
        // What is said behind a body is not listened to.
        trailers("X: y\r\n").deletes(),
        trailers("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n").deletes(),
        trailers("Host: other.example\r\nAuthorization: Bearer nobody\r\nIdempotency-Key: \"x\"\r\n").deletes(),
        trailers("no colon\r\n").refused("body_incomplete"),
        trailers("X : y\r\n").refused("body_incomplete"),
        trailers("X: y\r\n z\r\n").refused("body_incomplete"),
        trailers("X: \0\r\n").refused("body_incomplete"),
        trailers("X: y\n").refused("body_incomplete"),
        trailers(&"X: y\r\n".repeat(1_500)).refused("body_incomplete"),
    ]
}
