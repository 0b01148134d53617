//! Upstreams that say everything back: marked credentials for them, and replies of every kind with whatever the request had.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use onedelete::mock::{Entry, Fault, Mock};

use super::ID;

/// The bytes that would be a line of the log, or paint a terminal, if they got there.
const FORGED: &str = "2026-01-01T00:00:00Z ERROR zq7misplacedzq7";

/// Gives a connection of this dialect marked credentials.
pub(super) fn credentials(dialect: &str, given: &mut toml::Table) {
    let text = match dialect {
        "kore_ai" => "client_id = \"cs-demo\"\nclient_secret = \"env:KORE\"",
        "onlyoffice" => "token = \"file:onlyoffice-token\"",
        "talkdesk" => "client_id = \"td-demo\"\nclient_secret = \"env:TALKDESK\"",
        "wethod" => "token = \"env:WETHOD\"",
        "bas_ip" => "username = \"admin\"\npassword = \"env:BASIP\"",
        other => panic!("{other} has no marked credentials"),
    };
    let token_url = given["credentials"].get("token_url").cloned();
    let mut credentials: toml::Table = text.parse().unwrap();
    credentials.extend(token_url.map(|url| ("token_url".to_owned(), url)));
    given.insert("credentials".to_owned(), credentials.into());
}

/// Where they stand.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("KORE", "zq7KoreClientSecretOfThirtyTwoByteszq7"),
    ("TALKDESK", "zq7TalkdeskSecretzq7"),
    ("WETHOD", "zq7WethodTokenzq7"),
    ("BASIP", "zq7-door-password-zq7"),
    ("HASHKEY", "zq7HashKeyzq7"),
];

/// Replies of every kind, one after the other, with all that the request had in them, and marks of their own.
pub(super) fn haunt(mock: &Mock) {
    let count = AtomicUsize::new(0);
    mock.fault_always(Some(Fault::Raw(Bytes::from_static(
        b"HTTP/1.1 200 zq7headerzq7\r\nzq7headerzq7\r\n: zq7headerzq7\x1b[31m\r\n\r\nzq7bodyzq7",
    ))));
    // It is known to ask for a minute, which nobody waits for here.
    let signs_in = ["bas_ip", "talkdesk"].contains(&mock.registration().profile.id);
    let throttles_for_long = mock.registration().profile.id == "kore_ai";
    mock.answer_with(move |entry: &Entry| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        if entry.sign_in {
            return Some(match n {
                0 => reply(entry, 500, n),
                _ => Response::new(Bytes::from_static(
                    br#"{"access_token":"zq7HandedOutTokenzq7","token_type":"Bearer","expires_in":3600,"token":"zq7HandedOutTokenzq7","account_type":"admin"}"#,
                )),
            });
        }
        const STATUSES: &[u16] = &[
            200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 412, 413,
            415, 422, 429, 431, 451, 500, 501, 502, 503, 504, 599, 999,
        ];
        match n % (STATUSES.len() + 1) {
            // Bytes that are no reply.
            0 => None,
            at if throttles_for_long && STATUSES[at - 1] == 429 => Some(reply(entry, 430, n)),
            // Nobody signs in again for a minute once a fresh token was refused: first everything else.
            at if signs_in && STATUSES[at - 1] == 401 && n <= STATUSES.len() => Some(reply(entry, 402, n)),
            at => Some(reply(entry, STATUSES[at - 1], n)),
        }
    });
}

fn reply(entry: &Entry, status: u16, n: usize) -> Response<Bytes> {
    let shown =
        entry.headers.iter().map(|(_, value)| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(" ");
    // The credential as it was shown, without its scheme.
    let token = ["authorization", "auth"].into_iter().find_map(|name| entry.headers.get(name));
    let token = token.map(|token| String::from_utf8_lossy(token.as_bytes()).rsplit(' ').next().unwrap().to_owned());
    let token = token.unwrap_or_default();
    let asked = format!("{} {}", entry.path, String::from_utf8_lossy(&entry.body));
    let said = format!("zq7bodyzq7 {shown} {asked} \u{1b}[2J\r\n{FORGED}\r\n");
    let body = match n % 6 {
        0 => serde_json::json!({"message": said, "error": {"code": token, "message": said, "data": {"zq7bodyzq7": said}}}).to_string(),
        1 => serde_json::json!({"code": token, "errors": [{"msg": said, "code": ID, "field": said}], "description": said}).to_string(),
        2 => format!("<!DOCTYPE html><html><title>{said}</title></html>"),
        3 => serde_json::json!({"error": token, "error_description": said, "result": [{"link_id": said, "success": said}]}).to_string(),
        4 => said,
        _ => String::new(),
    };
    let body = if status == 204 || status == 304 { String::new() } else { body };
    let mut reply = Response::builder().status(status);
    for (name, value) in [
        ("set-cookie", "c=zq7SetCookiezq7; Path=/"),
        ("location", "http://127.0.0.1:9/zq7headerzq7"),
        ("retry-after", if n.is_multiple_of(2) { "0" } else { "zq7headerzq7" }),
        ("www-authenticate", "Bearer realm=\"zq7headerzq7\""),
        ("x-zq7headerzq7", "zq7headerzq7 \u{1b}"),
        ("content-type", if n % 6 == 2 { "text/html" } else { "application/json" }),
    ] {
        if let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) {
            reply = reply.header(name, value);
        }
    }
    reply.body(Bytes::from(body)).unwrap()
}
