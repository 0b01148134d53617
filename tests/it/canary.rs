//! Every secret and every identifier is marked; the real program is driven through good requests, bad ones and every kind of
//! reply; then all that came out of it is searched for the marks: log, answers, metrics, files.
//!
//! What may be repeated is taken out first, and nothing else: a caller's own `ref`, `reason` and `reference` in answers to that
//! caller, and in the store. Memory is `dumps`' matter, panics are `panics`'.

mod upstreams;

use std::collections::BTreeMap;
use std::path::Path;

use adapters::DIALECTS;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::cli::{program, run};
use crate::served::Process;
use crate::support::{Answer, Setup, key, mock, raw, table, within};
use upstreams::{VARIABLES, credentials, haunt};

/// Secrets: what each connection is given, what sign-ins hand out, and the gateway's own.
const SECRETS: &[(&str, &str)] = &[
    ("the key of a caller", "test-key-of-acme"),
    ("a wrong key", "zq7WrongKeyzq7"),
    ("kore_ai's secret", "zq7KoreClientSecretOfThirtyTwoByteszq7"),
    ("onlyoffice's token", "zq7OnlyofficeTokenzq7"),
    ("talkdesk's secret", "zq7TalkdeskSecretzq7"),
    ("wethod's token", "zq7WethodTokenzq7"),
    ("bas_ip's password", "zq7-door-password-zq7"),
    ("the MD5 of bas_ip's password", "416d6a0cca07ae9faafcc2dce1116ef2"),
    ("a token of a sign-in", "zq7HandedOutTokenzq7"),
    ("a cookie of an upstream", "zq7SetCookiezq7"),
    ("a cookie of a caller", "zq7Cookiezq7"),
    ("an idempotency key", "zq7IdempotencyKeyzq7"),
    ("the key of hashes", "zq7HashKeyzq7"),
];

/// Identifiers, in the forms that the dialects take and in others, and what else is of nobody's business.
const PRIVATE: &[(&str, &str)] = &[
    ("an id of digits", "774319025"),
    ("an id of 24 digits", "7a7a7a7a7a7a774319025777"),
    ("a UUID", "91c615e3-1040-4815-8ecb-774319025abc"),
    ("a phone number", "4155559371"),
    ("a provider", "zq7providerzq7"),
    ("an external id", "zq7externalzq7"),
    ("an id that nobody takes", "zq7hostilezq7"),
    ("what is in an upstream's body", "zq7bodyzq7"),
    ("what is in an upstream's header", "zq7headerzq7"),
    ("what a caller sends in the wrong place", "zq7misplacedzq7"),
];

/// What a caller gets back, and nobody else sees.
const OWN: &[(&str, &str)] = &[("ref", "zq7refzq7"), ("reason", "zq7reasonzq7"), ("reference", "zq7referencezq7")];

/// The store's file before the gateway has ended.
const RUNNING: &str = "ledger.db of a gateway that runs";

const ID: &str = "774319025";
const PHONE: &str = "+14155559371";

/// The ways in which a text could be written down.
fn forms(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let each = |form: fn(u8) -> String| bytes.iter().map(|b| form(*b)).collect::<String>();
    let mut forms = vec![
        text.to_owned(),
        each(|b| format!("{b:02x}")),
        each(|b| format!("%{b:02x}")),
        each(|b| format!("\\u{b:04x}")),
        each(|b| format!("\\x{b:02x}")),
        format!("{bytes:?}").trim_matches(['[', ']']).to_owned(),
    ];
    // In base64 a text looks different by what stands before it; what shares a character with its neighbours is left out.
    for before in 0..3 {
        let padded = [&vec![b'-'; before], bytes].concat();
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            let (skip, whole) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
            forms.push(encoded[skip..whole].to_owned());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// All that came out of the program, by where it came from.
#[derive(Default)]
struct Found(BTreeMap<String, Vec<u8>>);

impl Found {
    fn put(&mut self, place: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.0.entry(place.into()).or_default().extend_from_slice(bytes.as_ref());
    }

    fn answer(&mut self, place: &str, answer: &Answer) {
        self.put(format!("answer to {place}"), format!("{:?}\n{}\n", answer.headers, answer.text));
    }

    fn file(&mut self, path: &Path) {
        self.put(path.file_name().unwrap().to_str().unwrap(), std::fs::read(path).unwrap());
    }

    /// Every mark that stands somewhere it must not, in whatever form.
    fn hits(&self, marks: &[(&str, &str)], searched: impl Fn(&str) -> bool) -> Vec<String> {
        let forms: Vec<_> =
            marks.iter().flat_map(|(what, text)| forms(text).into_iter().map(move |f| (*what, f))).collect();
        let mut hits = Vec::new();
        for (place, bytes) in self.0.iter().filter(|(place, _)| searched(place)) {
            let (plain, lower) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(bytes).to_lowercase());
            for (what, form) in &forms {
                // Base64 goes by capitals, everything else need not.
                if let Some(at) = plain.find(form).or_else(|| lower.find(&form.to_lowercase())) {
                    let around: String =
                        lower.get(at.saturating_sub(60)..).unwrap_or(&lower).chars().take(160).collect();
                    hits.push(format!("{what} is in {place}, as {form}: …{around}…"));
                }
            }
        }
        hits
    }
}

/// A request with this head and body, as a caller with the key or without.
fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: c=zq7Cookiezq7\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Bodies that break the contract in every place where a text can stand.
fn broken_bodies() -> Vec<String> {
    let deep = format!("{}\"zq7misplacedzq7\"{}", "[".repeat(20), "]".repeat(20));
    let mut bodies: Vec<String> = [
        r#"{"contacts": ["774319025"], "zq7misplacedzq7": 1}"#,
        r#"{"contacts": [{"zq7misplacedzq7": "774319025"}]}"#,
        r#"{"contacts": [{"id": "774319025", "774319025": 1}]}"#,
        r#"{"contacts": [{"id": ["zq7misplacedzq7"]}]}"#,
        r#"{"contacts": [{"id": {"zq7misplacedzq7": "774319025"}}]}"#,
        r#"{"contacts": [{"id": 774319025.5}]}"#,
        r#"{"contacts": [{"id": true}, 774319025.25, {"phone": 14155559371}]}"#,
        r#"{"contacts": [{"phone": "4155559371"}]}"#,
        r#"{"contacts": [{"phone": "+1 (415) 555-9371 4155559371"}]}"#,
        r#"{"contacts": [{"external": {"provider": "zq7providerzq7"}}]}"#,
        r#"{"contacts": [{"external": {"provider": "zq7providerzq7", "id": "zq7externalzq7", "zq7misplacedzq7": 0}}]}"#,
        r#"{"contacts": [{"id": "774319025", "phone": "+14155559371"}]}"#,
        r#"{"contacts": [{"id": "774319025", "id": "zq7misplacedzq7"}]}"#,
        r#"{"contacts": "zq7misplacedzq7"}"#,
        r#"{"contacts": {"id": "774319025"}}"#,
        r#"{"contacts": ["774319025"], "connection": "zq7misplacedzq7"}"#,
        r#"{"contacts": [{"id": "774319025", "connection": "zq7misplacedzq7"}]}"#,
        r#"{"contacts": ["774319025"], "dry_run": "zq7misplacedzq7"}"#,
        r#"{"contacts": ["774319025"], "reason": {"zq7misplacedzq7": 1}}"#,
        r#"{"contacts": ["774319025"], "filter": "zq7misplacedzq7"}"#,
        r#"{"contacts": ["774319025"], "x, expected zq7misplacedzq7": 1}"#,
        r#"{"contacts": ["774319025"], "dry_run": "x expected zq7misplacedzq7 at line 1 column 1"}"#,
        r#"{"contacts": [{"id": "774319025", "ref": 774319025}]}"#,
        r#"{"contacts": ["774319025" "zq7misplacedzq7"]}"#,
        r#"{"contacts": ["zq7misplacedzq7"#,
        r#"["774319025"]"#,
        r#""zq7misplacedzq7""#,
        r#"zq7misplacedzq7"#,
        "{\"contacts\": [\"774319025\u{0}\u{1b}[31m\r\n\"]}",
        r#"{"contacts": ["\ud800zq7misplacedzq7"]}"#,
        r#"{"contacts": []}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    bodies.push(format!("{{\"contacts\": [{deep}]}}"));
    bodies.push(format!("{{\"contacts\": [\"{}\"]}}", "zq7misplacedzq7".repeat(100)));
    bodies
}

/// Contacts of every connection: ids that it takes, others, and what no dialect takes.
fn contacts() -> String {
    let mut all = Vec::new();
    for registration in DIALECTS {
        let connection = registration.profile.id;
        for id in [ID, "7a7a7a7a7a7a774319025777", "91c615e3-1040-4815-8ecb-774319025abc", "zq7hostilezq7/../%0d%0a"] {
            all.push(serde_json::json!({"connection": connection, "id": id, "ref": "zq7refzq7"}));
        }
        all.push(serde_json::json!({"connection": connection, "phone": PHONE}));
        let external = serde_json::json!({"provider": "zq7providerzq7", "id": "zq7externalzq7"});
        all.push(serde_json::json!({"connection": connection, "external": external}));
    }
    serde_json::Value::from(all).to_string()
}

/// Drives a gateway through everything, and puts down what it answered.
async fn drive(served: &Process, found: &mut Found) {
    let (public, admin) = (served.public, served.admin);
    let bearer = format!("Authorization: Bearer {}", key("acme"));
    let json = "Content-Type: application/json";
    let good =
        format!("{{\"contacts\": {}, \"reason\": \"zq7reasonzq7\", \"reference\": \"zq7referencezq7\"}}", contacts());
    let lines = contacts();
    let lines: Vec<serde_json::Value> = serde_json::from_str(&lines).unwrap();
    let lines: String = lines.iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect();

    // Deletions, often enough for each upstream to give every one of its replies.
    let mut deletions = Vec::new();
    for n in 0..48 {
        let idempotent = format!("Idempotency-Key: \"zq7IdempotencyKeyzq7-{n}\"");
        let asynchronous = "Prefer: respond-async";
        let answer = match n % 3 {
            0 => {
                raw(public, request("POST /v1/deletions", &[&bearer, json, &idempotent, asynchronous], good.as_bytes()))
                    .await
            }
            1 => raw(public, request("POST /v1/deletions", &[&bearer, json, asynchronous], good.as_bytes())).await,
            _ => {
                let line = "POST /v1/deletions?reason=zq7reasonzq7&reference=zq7referencezq7";
                raw(public, request(line, &[&bearer, "Content-Type: application/x-ndjson"], lines.as_bytes())).await
            }
        };
        assert!([200, 202, 207].contains(&answer.status), "{}", answer.text);
        deletions.push(answer.id());
        found.answer("a good request", &answer);
    }
    for deletion in &deletions {
        let look = async {
            loop {
                let line = format!("GET /v1/deletions/{deletion}");
                let answer = raw(public, request(&line, &[&bearer], b"")).await;
                if answer.json["state"] == "finished" {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        let answer = within("the end of a deletion", look).await;
        found.answer("a look at a deletion", &answer);
        for part in ["results", "events"] {
            let answer = raw(public, request(&format!("GET /v1/deletions/{deletion}/{part}"), &[&bearer], b"")).await;
            found.answer(part, &answer);
        }
    }
    let outcomes = String::from_utf8_lossy(&found.0["answer to results"]).into_owned();
    for outcome in ["deleted", "rejected", "failed", "unknown"] {
        assert!(outcomes.contains(&format!("\"outcome\":\"{outcome}\"")), "no contact was {outcome}: {outcomes}");
    }

    // Requests with something wrong about them.
    for body in broken_bodies() {
        let answer = raw(public, request("POST /v1/deletions", &[&bearer, json], body.as_bytes())).await;
        assert!((200..500).contains(&answer.status), "{body}: {}", answer.text);
        found.answer("a broken body", &answer);
        let line = body.replace('\n', " ") + "\n";
        let headers = [&*bearer, "Content-Type: application/x-ndjson"];
        found.answer("a broken line", &raw(public, request("POST /v1/deletions", &headers, line.as_bytes())).await);
    }
    let same_key = "Idempotency-Key: \"zq7IdempotencyKeyzq7-0\"";
    let other = br#"{"connection": "wethod", "contacts": ["774319026"]}"#;
    let answer = raw(public, request("POST /v1/deletions", &[&bearer, json, same_key], other)).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    found.answer("a key that is used again", &answer);
    let dry = format!("{{\"contacts\": {}, \"dry_run\": true}}", contacts());
    found.answer("a dry run", &raw(public, request("POST /v1/deletions", &[&bearer, json], dry.as_bytes())).await);
    for line in [
        "GET /v1/deletions",
        "GET /v1/connections",
        "GET /v1/connections/wethod",
        "GET /v1/connections/zq7misplacedzq7",
        "GET /v1/zq7misplacedzq7/774319025?zq7misplacedzq7=774319025",
        "GET /v1/deletions/del_zq7misplacedzq7",
        "GET /v1/deletions?limit=zq7misplacedzq7&cursor=zq7misplacedzq7&zq7misplacedzq7=1",
        "POST /v1/deletions/zq7misplacedzq7/cancel",
        "DELETE /v1/connections/wethod/contacts/774319025",
        "DELETE /v1/connections/kore_ai/contacts/7a7a7a7a7a7a774319025777",
        "DELETE /v1/connections/wethod/contacts/zq7hostilezq7%2f..%0d%0a%1b[31m",
        "DELETE /v1/connections/zq7misplacedzq7/contacts/774319025",
        "PUT /v1/connections/wethod/contacts/774319025",
        "ZQ7MISPLACEDZQ7 /v1/deletions",
        "GET /v1/%0d%0a2026-01-01T00:00:00Z%20%20ERROR%20zq7misplacedzq7%1b%5b31m",
        "GET /v1/\x1b[31mzq7misplacedzq7",
        "GET /v1/zq7misplacedzq7\u{0}",
        "GET /v1/zq7misplacedzq7\u{85}\u{2028}",
        "GET http://zq7misplacedzq7/v1/connections",
        "GET /v1/zq7misplacedzq7\r\n2026-01-01T00:00:00Z ERROR zq7misplacedzq7",
    ] {
        found.answer(line, &raw(public, request(line, &[&bearer], b"")).await);
    }
    for header in [
        "Authorization: Bearer zq7WrongKeyzq7-0123456789012345678901234567890",
        "Authorization: Basic enE3V3JvbmdLZXl6cTc6enE3V3JvbmdLZXl6cTc=",
        "Authorization: Bearer zq7WrongKeyzq7\r\n2026-01-01T00:00:00Z ERROR zq7WrongKeyzq7",
        "Authorization: Bearer zq7WrongKeyzq7\x1b[31m\u{0}",
        "Authorization: zq7WrongKeyzq7",
        "Proxy-Authorization: Bearer zq7WrongKeyzq7",
        "zq7misplacedzq7: 774319025\r2026-01-01T00:00:00Z ERROR zq7misplacedzq7",
        "X-Request-Id: zq7misplacedzq7 with\x1b[31m blanks",
        "Transfer-Encoding: zq7misplacedzq7",
        "Expect: zq7misplacedzq7",
    ] {
        found.answer("a wrong header", &raw(public, request("GET /v1/connections", &[header], b"")).await);
    }
    for header in [
        "Content-Type: text/zq7misplacedzq7",
        "Content-Encoding: zq7misplacedzq7",
        "Idempotency-Key: zq7misplacedzq7\u{e9}",
    ] {
        found.answer(
            "a wrong header",
            &raw(public, request("POST /v1/deletions", &[&bearer, json, header], good.as_bytes())).await,
        );
    }
    for line in ["GET /metrics", "GET /readyz", "GET /livez", "GET /zq7misplacedzq7", "POST /zq7misplacedzq7"] {
        let answer = raw(admin, request(line, &[&bearer], b"")).await;
        found.answer(&format!("{line} (admin)"), &answer);
    }
    let pages = deletions.iter().map(|deletion| format!("/console/deletions/{deletion}"));
    for path in pages.chain(["/console", "/console?q=zq7misplaced", "/console/tenants/acme"].map(str::to_owned)) {
        let text = String::from_utf8(request(&format!("GET {path}"), &[], b"")).unwrap();
        let answer = raw(admin, text.replace("Host: x\r\n", "Host: localhost\r\n")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        found.answer("a look at the console", &answer);
    }
}

/// Runs the whole thing with one form of the log, and says what was found.
async fn haunted(format: &str) -> Found {
    let mut found = Found::default();
    let mut mocks = Vec::new();
    let mut setup = Setup::new()
        .durable()
        .set("store.hash_key", "env:HASHKEY")
        .set("upstream.breaker_failures", 1_000)
        .set("upstream.breaker_open_ms", 1)
        .set("server.max_wrong_keys_per_min", 0)
        .set("log.format", format)
        .set("log.filter", "trace");
    for registration in DIALECTS {
        let name = registration.profile.id;
        let mock = mock(name).await;
        haunt(&mock);
        setup = setup.mock("acme", name, &mock, |connection| {
            credentials(name, connection);
            table(connection, "retry").insert("max_attempts".to_owned(), 2.into());
            table(connection, "limits").insert("max_in_flight".to_owned(), 4.into());
        });
        mocks.push(mock);
    }
    let folder = setup.write();
    std::fs::write(folder.join("tenants/onlyoffice-token"), "zq7OnlyofficeTokenzq7\n").unwrap();
    let config = folder.join("onedelete.toml").to_str().unwrap().to_owned();
    let variables: Vec<_> =
        VARIABLES.iter().copied().chain([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")]).collect();
    let served = Process::start(program(&["serve", "--config", &config], &variables)).await;
    drive(&served, &mut found).await;
    for mock in &mocks {
        assert!(mock.journal().len() > 36, "{}: not every reply was given", mock.registration().profile.id);
    }

    // Commands beside the gateway, and its files: everything is finished, and nothing is kept of whom it was about.
    let copy = folder.join("copy.db").to_str().unwrap().to_owned();
    for command in [
        &["check", "--config", &config][..],
        &["check", "--offline", "--config", &config],
        &["store", "check", "--config", &config],
        &["store", "backup", "--config", &config, &copy],
        &["store", "purge", "--config", &config, "--older-than", "0s"],
        &["serve", "--config", &config],
        &["plan", "--config", &config, "--connection", "wethod", "zq7hostilezq7"],
    ] {
        // Where the port is free, as it is here, a second gateway ends at the store's lock.
        let done = run(command, &variables).await;
        found.put(format!("output of {}", command[..2].join(" ")), done.out + &done.err);
    }
    // While it runs, what was erased may stand in the file for some seconds until the log beside it is emptied: of that file, the
    // secrets alone are looked for.
    found.put(RUNNING, std::fs::read(folder.join("ledger.db")).unwrap());
    let end = served.stop().await;
    assert!(end.status.success(), "{}", end.log);
    for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("ledger.db") || name.starts_with("copy.db") {
            found.file(&entry);
        }
    }
    assert!(end.log.contains("deletion finished"), "{}", end.log);
    // One event, one line, and each begins as the log's own do.
    for line in end.log.lines() {
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        match format {
            "json" => assert!(line.starts_with("{\"timestamp\""), "{line}"),
            _ => assert!(
                line.starts_with("20") && ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].iter().any(|l| line.contains(l)),
                "{line}"
            ),
        }
    }
    found.put("the log", &end.log);
    found.put("standard output", &end.out);
    for mock in mocks {
        mock.stop().await;
    }
    found
}

async fn is_clean(format: &str) {
    let start = std::time::Instant::now();
    let found = haunted(format).await;
    let searched = found.0.len();
    assert!(searched > 20, "{:?}", found.0.keys());
    let is_store = |place: &str| place.contains(".db");
    let is_answer = |place: &str| place.starts_with("answer to ");
    let mut hits = found.hits(SECRETS, |_| true);
    hits.extend(found.hits(PRIVATE, |place| place != RUNNING));
    hits.extend(found.hits(OWN, |place| !is_store(place) && !is_answer(place)));
    // Nothing of one caller's words stands in a problem either.
    hits.extend(found.hits(OWN, |place| place == "answer to a broken body" || place == "answer to a wrong header"));
    assert!(hits.is_empty(), "{} hits in {searched} places:\n{}", hits.len(), hits.join("\n"));
    let marks = SECRETS.len() + PRIVATE.len() + OWN.len();
    eprintln!(
        "canary, {format}: {marks} marks in up to 12 forms each, {searched} places, {} bytes, {} s, 0 hits",
        found.0.values().map(Vec::len).sum::<usize>(),
        start.elapsed().as_secs()
    );
}

#[tokio::test]
async fn no_mark_comes_out_where_the_log_is_json() {
    is_clean("json").await;
}

#[tokio::test]
async fn no_mark_comes_out_where_the_log_is_text() {
    is_clean("text").await;
}

#[test]
fn a_mark_is_found_in_every_form_and_in_every_place() {
    for before in ["", "x", "xy", "xyz", "user:"] {
        let text = "zq7WethodTokenzq7";
        let whole = format!("{before}{text}!");
        let written: [Vec<u8>; 6] = [
            whole.clone().into_bytes(),
            STANDARD_NO_PAD.encode(&whole).into_bytes(),
            URL_SAFE_NO_PAD.encode(&whole).into_bytes(),
            whole.bytes().map(|b| format!("{b:02X}")).collect::<String>().into_bytes(),
            whole.bytes().map(|b| format!("%{b:02X}")).collect::<String>().into_bytes(),
            [&[0, 0xff, 0xfe][..], whole.to_uppercase().as_bytes(), &[0x80]].concat(),
        ];
        for bytes in written {
            let mut found = Found::default();
            found.put("here", b"nothing before it ");
            found.put("here", &bytes);
            assert!(!found.hits(SECRETS, |_| true).is_empty(), "{before}: {:?}", String::from_utf8_lossy(&bytes));
            assert!(found.hits(PRIVATE, |_| true).is_empty());
        }
    }
}
