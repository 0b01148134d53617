//! Requests that hide in others: a deletion stands where one reading of the bytes before it ends a request and another
//! does not. It must not run, unless every reading agrees that it is a request; and nothing is read behind bytes that
//! have two readings.
//!
//! Whether the bytes are refused for the right reason is `raw`'s matter. There is no proxy here: whatever one makes of
//! such bytes, this is what the gateway makes of them.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::raw::{delete, exchange, filled, first, post, start, text};
use crate::support::{id, ids};

/// What becomes of the hidden deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// The bytes before it have two readings: at most one answer, and the end.
    Cut,
    /// It stands in a body whose length is beyond doubt: no deletion, and the connection goes on.
    Inside,
    /// It is the next request.
    Next,
}

use Hidden::{Cut, Inside, Next};

/// A deletion of the contact that must not be deleted.
fn hidden() -> String {
    delete("").replace("contacts/ID", "contacts/VICTIM")
}

/// A request whose framing is in doubt, and a deletion behind an empty chunked body.
fn behind_chunks(lines: &str) -> String {
    format!("{}{}", post(lines, "0\r\n\r\n"), hidden())
}

/// The same behind a body with the announced length, or none.
fn behind_length(lines: &str) -> String {
    format!("{}{}", post(lines, "JSON"), hidden())
}

/// A deletion behind chunks that may be read in two ways.
fn in_chunks(body: &str) -> String {
    format!("{}{}", post("Transfer-Encoding: chunked\r\n", body), hidden())
}

fn cases() -> Vec<(Hidden, String)> {
    let length = hidden().len();
    let inside = hidden();
    let cl = |lines: &str| lines.replace("TOTAL", &(length + 5).to_string());
    vec![
        // The length and the chunks.
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer-Encoding: chunked\r\n"))),
        (Cut, behind_chunks(&cl("Transfer-Encoding: chunked\r\nContent-Length: TOTAL\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer-Encoding: Chunked\r\n"))),
        (Cut, behind_chunks("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        (Cut, behind_chunks("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
        // Chunks for one, and not for another.
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer-Encoding : chunked\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\n Transfer-Encoding: chunked\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nX: y\nTransfer-Encoding: chunked\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nX: y\rTransfer-Encoding: chunked\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer-Encoding:\u{b}chunked\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer-Encoding: xchunked\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer-Encoding: \"chunked\"\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer-Encoding: identity\r\n"))),
        (Cut, behind_chunks(&cl("Content-Length: TOTAL\r\nTransfer\0-Encoding: chunked\r\n"))),
        (Cut, behind_chunks("Transfer-Encoding: chunked, identity\r\n")),
        (Cut, behind_chunks("Transfer-Encoding: identity, chunked\r\n")),
        (Cut, behind_chunks("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n")),
        (Cut, behind_chunks("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n")),
        (Cut, behind_chunks("Transfer-Encoding: chunked\r\n").replacen("/1.1", "/1.0", 1)),
        // Two lengths.
        (Cut, behind_length("Content-Length: 0\r\nContent-Length: LEN\r\n")),
        (Cut, behind_length("Content-Length: LEN\r\nContent-Length: 0\r\n")),
        (Cut, behind_length("Content-Length: 0, LEN\r\n")),
        (Cut, behind_length("Content-Length: +LEN\r\n")),
        (Cut, behind_length("Content-Length: 0xHEX\r\n")),
        (Cut, behind_length("Content-Length : LEN\r\n")),
        (Cut, behind_length("Content-Length: LEN\r\n 0\r\n")),
        (Cut, behind_length("Content-Length: 18446744073709551616\r\n")),
        (Cut, behind_length("Content-Length:\r\n")),
        (Cut, behind_length("Content-Length: LEN\0\r\n")),
        // A body where some see none.
        (Cut, post("", "JSON") + &hidden()),
        (
            Cut,
            format!("{}GET /x HTTP/1.1\r\nX: {}", delete("Content-Length: 0\r\n").replace("/ID", ""), hidden())
                .replace("GET /x HTTP/1.1\r\nX: ", "GET /x HTTP/1.1\nX: "),
        ),
        // Chunks that end in two places.
        (Cut, in_chunks(&format!("1;a\n{}\r\n0\r\n\r\n", "x"))),
        (Cut, in_chunks("0\n\r\n")),
        (Cut, in_chunks("0\r\n\n")),
        (Cut, in_chunks("1\r\nx0\r\n\r\n")),
        (Cut, in_chunks("1\r\nx\n0\r\n\r\n")),
        (Cut, in_chunks("0x0\r\n\r\n")),
        (Cut, in_chunks("-0\r\n\r\n")),
        (Cut, in_chunks("10000000000000000\r\n\r\n")),
        (Cut, in_chunks("0;\r\r\n\r\n")),
        (Cut, in_chunks("0\r\nX: y\n\r\n")),
        (Cut, in_chunks("0\r\nX\r\n\r\n")),
        (Cut, in_chunks("0\r\n X: y\r\n\r\n")),
        // A head that ends in two places.
        (Cut, format!("{}\n\n{}", delete("X: y\r\n").trim_end(), hidden())),
        (Cut, delete(&format!("X: y\n\n{}X: y\r\n", hidden()))),
        (Cut, first("GET /v1/connections HTTP/1.1\n\n", &hidden())),
        (Cut, first(&format!("GET /v1/connections HTTP/1.1\r\r{}", hidden()), "")),
        (Cut, format!("GET http://HOST/v1/connections HTTP/1.1\r\nHost: other.example\r\n\r\n{}", hidden())),
        (Cut, format!("CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n{}", hidden())),
        (Cut, format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{}", hidden())),
        (Cut, format!("GET /v1/connections\r\n{}", hidden())),
        (Cut, post(&format!("Expect: x\r\nContent-Length: {length}\r\n"), &hidden())),
        // A body that looks like a request is a body.
        (Inside, post(&format!("Content-Length: {length}\r\n"), &inside)),
        (Inside, post("Transfer-Encoding: chunked\r\n", &format!("{length:x}\r\n{inside}\r\n0\r\n\r\n"))),
        (Inside, first("GET /v1/connections HTTP/1.1", &format!("Content-Length: {length}\r\n")) + &inside),
        (Inside, delete(&format!("Content-Length: {length}\r\n")) + &inside),
        (Inside, first("GET /nowhere HTTP/1.1", &format!("Content-Length: {length}\r\n")) + &inside),
        (Inside, first("PUT /v1/deletions HTTP/1.1", &format!("Content-Length: {length}\r\n")) + &inside),
        // Who sends several requests at once has them answered.
        (Next, delete("") + &hidden()),
        (Next, behind_length("Content-Length: LEN\r\n")),
        (Next, in_chunks("HEX\r\nJSON\r\n0\r\n\r\n")),
        (Next, in_chunks("HEX;x=y\r\nJSON\r\n0\r\nX: y\r\n\r\n")),
        (Next, first("GET /v1/connections HTTP/1.1", "") + &hidden()),
        (Next, first("GET /v1/connections HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n") + &hidden()),
    ]
}

#[tokio::test]
async fn a_hidden_request_never_runs() {
    let cases = cases();
    assert!(cases.len() >= 40 + 12, "{}", cases.len());
    let (gateway, mock) = start().await;
    let (own, victims) = (ids("wethod", cases.len()), ids("wethod", cases.len()));
    for text in own.iter().chain(&victims) {
        mock.seed(&id(text), false);
    }
    let exchanges = cases.iter().zip(own.iter().zip(&victims)).map(|((hidden, bytes), (own, victim))| {
        // What comes last is answered only where the connection goes on.
        let last = first("GET /docs/problems/overloaded HTTP/1.1", "Connection: close\r\n");
        let bytes = filled(&format!("{bytes}{last}").replace("VICTIM", victim), &gateway, own);
        // Lengths were counted with the blanks in.
        let bytes = if *hidden == Inside { recounted(&bytes, victim) } else { bytes };
        async move { exchange(gateway.public, &bytes, false).await }
    });
    let answers = join_all(exchanges).await;
    gateway.stop().await;
    let deleted = mock.deleted();
    let deleted: BTreeSet<_> = deleted.iter().map(text).collect();
    for (((hidden, bytes), victim), answers) in cases.iter().zip(&victims).zip(&answers) {
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(deleted.contains(&**victim), *hidden == Next, "{bytes:?}: {statuses:?}");
        match hidden {
            // The one before the ambiguous bytes may be a request of its own.
            Cut => {
                let last = answers.last().unwrap_or_else(|| panic!("no answer: {bytes:?}"));
                assert_eq!((last.status, last.header("connection")), (400, Some("close")), "{bytes:?}: {statuses:?}");
                assert!(answers.len() <= 2 && !statuses.contains(&200), "{bytes:?}: {statuses:?}");
            }
            Inside => assert_eq!((statuses.len(), statuses.last()), (2, Some(&200)), "{bytes:?}: {statuses:?}"),
            Next => assert_eq!(statuses, [200, 200, 200], "{bytes:?}"),
        }
    }
}

/// With the length of what is hidden as it is now.
fn recounted(bytes: &str, victim: &str) -> String {
    let old = hidden().len();
    let start = bytes.rfind(&format!("DELETE /v1/connections/c/contacts/{victim}")).unwrap();
    let now = bytes[start..].find("\r\n\r\n").unwrap() + 4;
    let bytes = bytes.replacen(&format!("Content-Length: {old}\r\n"), &format!("Content-Length: {now}\r\n"), 1);
    bytes.replacen(&format!("\r\n{old:x}\r\n"), &format!("\r\n{now:x}\r\n"), 1)
}
