//! The life of a key: made, listed, hashed, limited in time and reach; refused afterwards like one that never was.
//!
//! Who is let in otherwise stands in `entry`, and what each tenant may see in `tenancy`.

use serde_json::Value;

use crate::cli::{program, run, run_with};
use crate::support::{Running, Setup, mock, raw};

const LONG_AGO: &str = "2001-01-01";
const LONG_AFTER: &str = "2999-12-31";

/// What a gateway answers to a look at the connections with this key, without what names the request.
async fn asked(gateway: &Running, key: &str) -> (u16, String) {
    let head =
        format!("GET /v1/connections HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n");
    let answer = raw(gateway.public, head).await;
    (answer.status, answer.fingerprint())
}

fn entry(name: &str, key: &str, more: &[(&str, toml::Value)]) -> toml::Value {
    let mut entry = toml::Table::new();
    entry.insert("name".to_owned(), name.into());
    entry.insert("sha256".to_owned(), onedelete::api::sha256_hex(key).into());
    entry.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    entry.into()
}

#[tokio::test]
async fn a_key_whose_time_is_over_is_refused_like_one_that_never_was() {
    let mock = mock("wethod").await;
    let named = |name: &str| format!("odk_{name}_{}", "0123456789".repeat(4));
    let (text, date) =
        (|text: &str| toml::Value::from(text), |text: &str| toml::Value::Datetime(text.parse().unwrap()));
    let lasting = [
        ("moment", text("2999-12-31T23:59:59+01:00")),
        ("day", text(LONG_AFTER)),
        ("toml", date(LONG_AFTER)),
        ("exact", date("2999-12-31T00:00:00Z")),
    ];
    let over = [("ended", text("2001-01-01T00:00:00Z")), ("yesterday", text(LONG_AGO)), ("before", date(LONG_AGO))];
    let gateway = Setup::new()
        .set("server.max_wrong_keys_per_min", 0)
        .mock("acme", "c", &mock, |_| {})
        .tenant("acme", |file| {
            let keys = file["api_keys"].as_array_mut().unwrap();
            for (name, end) in lasting.iter().chain(&over) {
                keys.push(entry(name, &named(name), &[("expires", end.clone())]));
            }
        })
        .start()
        .await;
    for (name, _) in &lasting {
        assert_eq!(asked(&gateway, &named(name)).await.0, 200, "{name}");
    }
    let unknown = asked(&gateway, &named("nobody")).await;
    assert_eq!(unknown.0, 401);
    for (name, _) in &over {
        assert_eq!(asked(&gateway, &named(name)).await, unknown, "{name}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_that_is_over_counts_as_a_wrong_one() {
    let mock = mock("wethod").await;
    let old = format!("odk_old_{}", "0123456789".repeat(4));
    let gateway = Setup::new()
        .set("server.max_wrong_keys_per_min", 2)
        .mock("acme", "c", &mock, |_| {})
        .tenant("acme", |file| {
            file["api_keys"].as_array_mut().unwrap().push(entry("old", &old, &[("expires", LONG_AGO.into())]));
        })
        .start()
        .await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(asked(&gateway, &old).await.0);
    }
    assert_eq!(seen, [401, 401, 429]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_new_key_comes_with_what_it_may_do_and_until_when() {
    let options = ["--name", "nightly", "--connection", "c", "--connection", "d", "--access", "read"];
    let made = run(&[&["key", "new"], &options[..], &["--expires", LONG_AFTER]].concat(), &[]).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    let lines: String = made.err.lines().skip_while(|line| *line != "[[api_keys]]").flat_map(|l| [l, "\n"]).collect();
    let file: toml::Table = lines.parse().unwrap();
    let entry = &file["api_keys"][0];
    assert_eq!(entry["sha256"].as_str(), Some(&*onedelete::api::sha256_hex(made.out.trim())));
    assert_eq!((entry["name"].as_str(), entry["access"].as_str()), (Some("nightly"), Some("read")));
    assert_eq!(entry["connections"].as_array().unwrap().len(), 2);
    assert_eq!(entry["expires"].to_string(), LONG_AFTER);

    let days = run(&["key", "new", "--days", "30"], &[]).await;
    assert!(days.code == Some(0) && days.err.contains("\nexpires = 2"), "{}", days.err);
    for (wrong, says) in [
        (&["--expires", "soon"][..], "2027-01-31"),
        (&["--expires", LONG_AGO], "past"),
        (&["--days", "4000000000"], "no day"),
        (&["--connection", "Not A Name"], "connection"),
        (&["--access", "write"], "read"),
        (&["--days", "1", "--expires", LONG_AFTER], "--days"),
    ] {
        let refused = run(&[&["key", "new"], wrong].concat(), &[]).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{wrong:?}");
        assert!(refused.err.contains(says), "{wrong:?}: {}", refused.err);
    }
}

#[tokio::test]
async fn a_key_is_hashed_from_stdin_and_from_nowhere_else() {
    let key = format!("odk_{}", "k".repeat(43));
    for input in [key.clone(), format!("{key}\n"), format!("{key}\r\n")] {
        let told = run_with(program(&["key", "hash"], &[]), &input).await;
        assert_eq!(told.code, Some(0), "{}", told.err);
        assert_eq!(told.out.trim(), onedelete::api::sha256_hex(&key));
    }
    for wrong in ["\n".to_owned(), "short\n".to_owned(), format!("{key} {key}"), "k".repeat(513), "é".repeat(40)] {
        let refused = run_with(program(&["key", "hash"], &[]), &wrong).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{wrong}");
        assert!(!refused.err.contains(wrong.trim()) || wrong == "\n", "{}", refused.err);
    }
    assert_eq!(run(&["key", "hash", &key], &[]).await.code, Some(2));
}

#[tokio::test]
async fn the_list_of_keys_shows_everything_but_the_hash() {
    let mock = mock("wethod").await;
    let (old, narrow) = (format!("odk_old_{}", "o".repeat(40)), format!("odk_narrow_{}", "n".repeat(40)));
    let setup = Setup::new()
        .mock("acme", "c", &mock, |connection| {
            // The list needs no secret.
            connection.insert(
                "credentials".to_owned(),
                "x = { token = \"env:NO_SUCH_VARIABLE\" }".parse::<toml::Table>().unwrap()["x"].clone(),
            );
        })
        .mock("beta", "c", &mock, |_| {})
        .tenant("acme", |file| {
            let keys = file["api_keys"].as_array_mut().unwrap();
            keys.push(entry("old", &old, &[("expires", LONG_AGO.into())]));
            let more = [("connections", vec!["c"].into()), ("rate", "5/min".into()), ("expires", LONG_AFTER.into())];
            keys.push(entry("narrow", &narrow, &more));
        });
    let folder = setup.write();
    let config = folder.join("onedelete.toml");
    let list = async |more: &[&str]| {
        let listed = run(&[&["key", "list", "--config", config.to_str().unwrap()], more].concat(), &[]).await;
        assert_eq!(listed.code, Some(0), "{}", listed.err);
        listed.out
    };
    let keys: Vec<Value> = serde_json::from_str(&list(&["--output", "json"]).await).unwrap();
    let names: Vec<_> =
        keys.iter().map(|key| (key["tenant"].as_str().unwrap(), key["name"].as_str().unwrap())).collect();
    let expected =
        [("acme", "all"), ("acme", "narrow"), ("acme", "old"), ("acme", "reader"), ("beta", "all"), ("beta", "reader")];
    assert_eq!(names, expected);
    let (narrow_key, old_key, reader) = (&keys[1], &keys[2], &keys[3]);
    assert_eq!(narrow_key["connections"], serde_json::json!(["c"]));
    assert_eq!(
        (narrow_key["expires_at"].as_str(), &narrow_key["expired"]),
        (Some("3000-01-01T00:00:00Z"), &false.into())
    );
    assert_eq!((old_key["expires_at"].as_str(), &old_key["expired"]), (Some("2001-01-02T00:00:00Z"), &true.into()));
    assert_eq!((reader["access"].as_str(), &reader["expires_at"]), (Some("read"), &Value::Null));
    let hash = onedelete::api::sha256_hex(&narrow);
    let id = narrow_key["id"].as_str().unwrap();
    assert!(id.len() == 12 && hash.starts_with(id));

    let table = list(&["--tenant", "acme"]).await;
    let line = table.lines().find(|line| line.contains("old")).unwrap();
    assert!(line.contains("2001-01-02T00:00:00Z (over)") && !table.contains("beta"), "{table}");
    let lines = list(&["--output", "jsonl"]).await;
    assert_eq!(lines.lines().count(), expected.len());
    for shown in [table, lines] {
        assert!(!shown.contains(&hash[..16]) && shown.contains(id), "{shown}");
    }
    let nobody = run(&["key", "list", "--config", config.to_str().unwrap(), "--tenant", "nobody"], &[]).await;
    assert_eq!(nobody.code, Some(2));
}

#[tokio::test]
async fn a_date_that_is_none_is_a_mistake_with_its_line() {
    let mock = mock("wethod").await;
    for wrong in [
        toml::Value::from("next year"),
        toml::Value::from(2027),
        "2027-01-31T18:00:00".parse::<toml::value::Datetime>().unwrap().into(),
    ] {
        let setup = Setup::new().mock("acme", "c", &mock, |_| {}).tenant("acme", |file| {
            file["api_keys"].as_array_mut().unwrap()[0]
                .as_table_mut()
                .unwrap()
                .insert("expires".to_owned(), wrong.clone());
        });
        let config = setup.write().join("onedelete.toml");
        let checked = run(&["check", "--config", config.to_str().unwrap()], &[]).await;
        assert_eq!(checked.code, Some(2), "{wrong}");
        let first = checked.err.lines().next().unwrap();
        assert!(first.contains("acme.toml:") && first.contains("api_keys[1].expires: must be a date"), "{first}");
        assert!(checked.err.contains('^'), "{}", checked.err);
    }
}
