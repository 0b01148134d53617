//! What a corpus begins with: every fixture's reply, written for the contacts that the targets ask for, and texts of the
//! project's own files. It is written anew at every start, and only where `ONEDELETE_FUZZ_SEEDS` names a folder.

use std::fs;
use std::path::{Path, PathBuf};

use adapters::exchange::{Exchange, Exchanges};
use adapters::{DIALECTS, Identifier, Registration};

use crate::CANARY;
use crate::calls::{Case, cases};
use crate::tree::Tree;

/// The statuses that a target may choose from.
pub const STATUSES: [u16; 24] = [
    200, 201, 202, 204, 206, 301, 303, 307, 400, 401, 402, 403, 404, 405, 408, 409, 412, 422, 429, 500, 502, 503, 504,
    999,
];

/// Writes a target's first inputs.
pub fn write(inputs: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("ONEDELETE_FUZZ_SEEDS").map(PathBuf::from) else { return };
    fs::create_dir_all(&folder).expect("the folder of seeds can be made");
    for (n, input) in inputs().into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{n:04}")), input).expect("a seed can be written");
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn fixtures(registration: &Registration) -> Vec<Exchange> {
    let folder = root().join("adapters").join(registration.profile.id).join("fixtures");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("fixtures").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let read = |file: PathBuf| -> Exchanges {
        serde_json::from_slice(&fs::read(file).expect("a fixture")).expect("a fixture is an exchange")
    };
    files.into_iter().flat_map(|file| read(file).exchanges).collect()
}

/// Replies for the target `interpret`: five bytes that choose, then the body.
pub fn replies() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for (n, case) in cases().iter().enumerate() {
        for exchange in fixtures(case.registration) {
            let Some(response) = &exchange.response else { continue };
            let status = STATUSES.iter().position(|status| *status == response.status).unwrap_or(0);
            let contacts = exchange.contacts.len().clamp(1, 4);
            let retry_after = u8::from(response.headers.contains_key("retry-after"));
            let start = [n as u8, contacts as u8 - 1, status as u8];
            let body = renamed(case, &exchange, &response.body);
            inputs.push([&start, &[0, retry_after][..], body.as_bytes()].concat());
            // The same packed, and with an identifier in the place of the upstream's own word.
            inputs.push([&start, &[255, retry_after][..], body.as_bytes()].concat());
            if let Some(mut tree) = Tree::of(body.as_bytes()) {
                put_in_words(&mut tree, case.contact(0).text());
                inputs.push([&start, &[0, retry_after][..], tree.to_json().as_bytes()].concat());
            }
        }
    }
    inputs
}

/// Writes a text wherever an upstream has a word of its own.
fn put_in_words(tree: &mut Tree, text: &str) {
    match tree {
        Tree::Map(members) => {
            for (name, value) in members {
                match value {
                    Tree::Text(word) if ["code", "key", "extended_info"].contains(&name.as_str()) => {
                        *word = text.to_owned()
                    }
                    other => put_in_words(other, text),
                }
            }
        }
        Tree::List(items) => items.iter_mut().for_each(|item| put_in_words(item, text)),
        _ => {}
    }
}

/// A fixture's text with the contacts of a case in the place of its own.
fn renamed(case: &Case, exchange: &Exchange, text: &str) -> String {
    let mut text = text.to_owned();
    for (n, contact) in exchange.contacts.iter().enumerate().filter(|(_, contact)| contact.text().len() >= 2) {
        text = text.replace(contact.text(), case.contact(n).text());
    }
    text
}

/// Identifiers for the target `identifiers`: a byte that chooses, then a text, or two with a zero between them.
pub fn identifiers() -> Vec<Vec<u8>> {
    let odd = [
        "",
        ".",
        "..",
        "%2e%2e",
        "a/b",
        "42?x",
        "filter",
        "+1",
        "042",
        "9223372036854775808",
        "2147483648",
        "\"\\",
        "\t1",
    ];
    let mut inputs = Vec::new();
    for (n, case) in cases().iter().enumerate() {
        let texts = (0..3).map(|n| case.contact(n)).map(|contact| match &contact {
            Identifier::External { provider, id } => format!("{provider}\0{}", &**id),
            other => other.text().to_owned(),
        });
        for text in texts.chain(odd.map(str::to_owned)) {
            inputs.push([&[n as u8], text.as_bytes()].concat());
        }
    }
    inputs
}

/// Bodies of requests.
pub fn requests() -> Vec<Vec<u8>> {
    let mut bodies = vec![
        r#"{"contacts":["1",2,{"id":"3"},{"id":4,"ref":"r","connection":"c"}],"connection":"c","dry_run":true}"#.to_owned(),
        r#"{"contacts":[{"phone":"+14155550100"},{"external":{"provider":"p","id":"x"}}],"reason":"r","reference":"f"}"#.to_owned(),
        format!(r#"{{"contacts":[{{"id":"{CANARY}","id":"{CANARY}"}}]}}"#),
        format!(r#"{{"contacts":"{CANARY}"}}"#),
        format!(r#"{{"contacts":[{{"id":"1","phone":"{CANARY}"}}],"dry_run":"{CANARY}"}}"#),
        format!(r#"{{"contacts":[{{"external":"{CANARY}"}}],"{CANARY}":1}}"#),
        r#"{"contacts":[]}"#.to_owned(),
        "{\"contacts\":[\"\\u00e9\\ud83d\\ude00\"]} ".to_owned(),
    ];
    bodies.extend(DIALECTS.iter().flat_map(fixtures).map(|exchange| {
        let contacts = serde_json::to_value(&exchange.contacts).expect("contacts are JSON");
        serde_json::json!({ "contacts": contacts }).to_string()
    }));
    bodies.into_iter().map(String::into_bytes).collect()
}

/// Bodies of JSON Lines: a byte for the size of the pieces, then the lines.
pub fn lines() -> Vec<Vec<u8>> {
    let mut bodies = vec![
        "\"1\"\n2\r\n{\"id\":\"3\"}\n\n{\"phone\":\"+1\",\"ref\":\"r\"}".to_owned(),
        format!("\"{CANARY}\"\n{{\"id\":\"{CANARY}\"\n"),
        format!("{{\"external\":\"{CANARY}\"}}\n"),
        "\"é\"\n".repeat(20),
    ];
    bodies.extend(DIALECTS.iter().flat_map(fixtures).map(|exchange| {
        let lines = exchange.contacts.iter().map(|contact| serde_json::to_string(contact).expect("a contact is JSON"));
        lines.collect::<Vec<_>>().join("\n")
    }));
    bodies.into_iter().zip(0u8..).map(|(body, size)| [&[size], body.as_bytes()].concat()).collect()
}

/// Settings, then a line of dashes, then a tenant.
pub fn configurations() -> Vec<Vec<u8>> {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a file of the project");
    let mut texts = vec![read("config/default.toml") + "\n---\n" + &read("config/tenants/demo.toml")];
    texts.push(read("config/examples/onedelete.toml") + "\n---\n" + &read("config/examples/tenants/acme.toml"));
    texts.push(read("config/demo.toml") + "\n---\nid = \"a\"\n");
    for registration in DIALECTS {
        texts.push(format!("\n---\nid = \"acme\"\n[connections.a]\n{}", registration.example.trim_start()));
    }
    for wrong in [
        "[store]\npassword = \"plain:x\"\nurl = \"postgres://u:plain:x@h/d\"\n---\n",
        "---\n[connections.a]\ncredentials = { token = plain:x }",
        "---\n[connections.a.credentials]\ntoken = \"plain:x",
        "---\n[connections.a.credentials]\ntoken = \"\"\"\nplain:x\n",
        "---\nconnections = { a = { credentials = { token = \"plain:x\" }, dialect = 5 } }",
        "---\n[connections.a]\ndialect = \"onlyoffice\"\napikey = \"plain:x\"\nbase_url = \"https://plain:x@x.example\"",
        "---\n[[api_keys]]\nname = \"a\"\nsha256 = \"plain:x\"",
    ] {
        texts.push(wrong.to_owned());
    }
    texts.into_iter().map(String::into_bytes).collect()
}

/// Values of headers, with a zero between two.
pub fn headers() -> Vec<Vec<u8>> {
    let key = "odk_0123456789abcdefghijklmnopqrstuvwxyz";
    let texts = [
        format!("Bearer {key}\0\"8e03978e-40d5\""),
        format!("bearer  {key}\0abc"),
        format!("Basic {key}\0\"\""),
        format!("Bearer {}\0{}", "x".repeat(512), "y".repeat(255)),
        format!("Bearer {key}\0a\0b"),
        "\0\"a\\b\"\0application/json; charset=utf-8\0respond-async, wait=5".to_owned(),
        format!("Bearer {key}\0k\0application/x-ndjson\0wait=\"99999999999999999999\"; x, wait=3"),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// Values of `Retry-After`.
pub fn waits() -> Vec<Vec<u8>> {
    let texts = [
        "120",
        " 7 ",
        "\u{a0}2",
        "0",
        "99999999999999999999999",
        "-1",
        "1.5",
        "Fri, 31 Dec 1999 23:59:59 GMT",
        "Friday, 31-Dec-99 23:59:59 GMT",
        "Fri Dec 31 23:59:59 1999",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    ];
    let dialects = 0..DIALECTS.len() as u8;
    dialects.flat_map(|dialect| texts.map(|text| [&[dialect], text.as_bytes()].concat())).collect()
}

/// Base URLs.
pub fn base_urls() -> Vec<Vec<u8>> {
    let mut texts: Vec<String> = [
        "http://[::1]:9/a/b",
        "https://2130706433",
        "http://x.example:81/",
        "https://x.example/%2e",
        "http://0x7f.1",
        "https://a_b.example",
        "https://x.example/..",
    ]
    .map(str::to_owned)
    .into();
    texts.extend(
        DIALECTS.iter().map(|registration| {
            crate::calls::settings(registration)["base_url"].as_str().unwrap_or_default().to_owned()
        }),
    );
    texts.into_iter().map(|text| [text.as_bytes(), b"\0", b"42"].concat()).collect()
}
