//! Hostile identifiers: more than 200 at every dialect, and no byte of one reaches an upstream.
//!
//! Which texts are native ids of a dialect is its own tests' matter; here stand those that are nobody's.

use std::collections::BTreeSet;

use adapters::{DIALECTS, Identifier};
use serde_json::{Value, json};

use crate::support::{Setup, ids, key, mock, raw, registration};

#[tokio::test]
async fn no_byte_of_a_hostile_identifier_reaches_an_upstream() {
    for each in DIALECTS {
        let dialect = each.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
        let contacts = hostile(dialect);
        assert!(contacts.len() >= 200, "{dialect}: only {}", contacts.len());
        let answer = gateway.post("acme", &json!({ "contacts": contacts })).await;
        assert_eq!(answer.status, 207, "{dialect}: {}", answer.text);
        for (result, contact) in answer.json["results"].as_array().unwrap().iter().zip(&contacts) {
            let code = result["error"]["code"].as_str().unwrap_or("-");
            assert_eq!(
                (&result["outcome"], &result["attempts"]),
                (&json!("rejected"), &json!(0)),
                "{dialect}: {contact}"
            );
            assert!(["invalid_identifier", "unsupported_identifier"].contains(&code), "{dialect}: {contact}: {code}");
        }
        // The same by the shorthand's path, as a careful and as a careless client writes it.
        for text in contacts.iter().filter_map(Value::as_str).filter(|text| text.len() < 200) {
            let careful: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            for path in [careful, text.to_owned()] {
                let target = format!("/v1/connections/c/contacts/{path}");
                // What is no request target cannot be sent by a client at all.
                if !target.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(['#', '?']) {
                    continue;
                }
                let head = format!("DELETE {target} HTTP/1.1\r\nHost: {}\r\nConnection: close", gateway.public);
                let head = format!("{head}\r\nAuthorization: Bearer {}\r\n\r\n", key("acme"));
                let answer = raw(gateway.public, head).await;
                assert!([400, 404, 405, 422].contains(&answer.status), "{dialect}: {target}: {}", answer.text);
            }
        }
        gateway.stop().await;
        assert!(mock.journal().is_empty(), "{dialect}: {:?}", mock.journal());
    }
}

/// Contacts that no grammar takes: fragments that mean something to a parser, alone and in, before and after a good id.
fn hostile(dialect: &str) -> Vec<Value> {
    const FRAGMENTS: &[&str] = &[
        "..",
        "/",
        "../",
        "/..",
        "/../",
        "..\\",
        "\\",
        "%2e%2e",
        "%2e%2e%2f",
        "%2F",
        "%252f",
        "%00",
        "\0",
        "?",
        "?x=1",
        "#",
        "&",
        "=",
        ";",
        ":",
        "@",
        "*",
        "+",
        "-",
        " ",
        "\t",
        "\r\n",
        "\r\nX-Evil: 1\r\n",
        "\n",
        "\u{b}",
        "\u{85}",
        "\u{a0}",
        "\u{200b}",
        "\u{202e}",
        "\u{feff}",
        "\u{2028}",
        "'",
        "\"",
        "`",
        "<",
        ">",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "|",
        "^",
        "~",
        "$",
        "!",
        ",",
        "é",
        "１",
        "١",
        "²",
        "😀",
        "g",
        "x",
        "filter",
    ];
    const WHOLE: &[&str] = &[
        "",
        "filter",
        "FILTER",
        "status",
        "type",
        "bulk-delete",
        "null",
        "true",
        "undefined",
        "NaN",
        "-1",
        "+1",
        "0",
        "00",
        "01",
        "1e3",
        "1.0",
        "0x10",
        "1_000",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
        "00000000-0000-0000-0000-00000000000",
        "{91c615e3-1040-4815-8ecb-039a18b756b5}",
        "urn:uuid:91c615e3-1040-4815-8ecb-039a18b756b5",
        "91c615e3104048158ecb039a18b756b5",
        "91c615e3-1040-4815-8ecb-039a18b756bg",
        "6960cbe9b155d194e2f0000",
        "6960cbe9b155d194e2f000011",
        "' OR 1=1 --",
        "$(reboot)",
        "<script>",
        "*",
        "%",
        "_",
        "[]",
        "{}",
        "[\"a\"]",
        "1,2",
        "1;2",
        "1 2",
        "https://evil.example/",
        "//evil",
    ];
    let good = ids(dialect, 1).remove(0);
    let (left, right) = good.split_at(good.len() / 2);
    let mut texts: BTreeSet<String> = WHOLE.iter().map(|text| (*text).to_owned()).collect();
    for fragment in FRAGMENTS {
        for text in [
            (*fragment).to_owned(),
            format!("{fragment}{good}"),
            format!("{good}{fragment}"),
            format!("{left}{fragment}{right}"),
        ] {
            texts.insert(text);
        }
    }
    texts.insert("9".repeat(10_000));
    texts.insert("../".repeat(3_000));
    texts.insert(format!("{good}{}", " ".repeat(200)));
    let mut contacts: Vec<_> = texts.into_iter().map(Value::from).collect();
    let takes_phones = registration(dialect).profile.identifiers.len() > 1;
    for phone in [
        "",
        "+",
        "14155550100",
        "+1 415",
        "+1-415",
        "+1234567890123456",
        "+1a",
        "tel:+14155550100",
        "++1",
        "+１",
        "+1\n",
    ] {
        contacts.push(json!({ "phone": phone }));
    }
    for (provider, id) in
        [("", "x"), ("x", ""), ("a b", "x"), ("x", "a\nb"), ("é", "x"), ("x", "\0"), ("x", "\u{202e}")]
    {
        contacts.push(json!({ "external": { "provider": provider, "id": id } }));
    }
    contacts.push(json!({ "external": { "provider": "x", "id": "y".repeat(129) } }));
    if !takes_phones {
        contacts.push(json!({ "phone": "+14155550100" }));
        contacts.push(json!({ "external": { "provider": "salesforce", "id": "003DL0000212DetYAE" } }));
    }
    let accepted = |contact: &Value| {
        let text = contact.as_str().unwrap_or_default();
        registration(dialect).profile.identifiers.iter().any(|rule| (rule.accepts)(&Identifier::Id(text.into())))
    };
    // A number is hostile to one dialect and another's native id; which is which the dialects' own tests say.
    let harmless = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    contacts.retain(|contact| !(contact.as_str().is_some_and(harmless) && accepted(contact)));
    contacts
}
