//! Who is let in, and how often: refusals that say nothing, guessing that gets slow, keys with a rate.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Answer, Running, Setup, ids, key, mock, raw, send};

async fn ask(gateway: &Running, key: &str) -> Answer {
    send(gateway.client.get(gateway.url("/v1/connections")).bearer_auth(key)).await
}

/// RFC 9110, section 11.6.1: a challenge, and not a word on what was wrong.
#[tokio::test]
async fn every_refusal_of_a_key_is_the_same() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().set("server.max_wrong_keys_per_min", 0).mock("acme", "c", &mock, |_| {}).start().await;
    let (good, id) = (key("acme"), ids("wethod", 1).remove(0));
    let mut last_wrong = good.clone();
    last_wrong.replace_range(good.len() - 1.., "x");
    let lines = [
        String::new(),
        "Authorization:".to_owned(),
        "Authorization: Bearer".to_owned(),
        "Authorization: Bearer ".to_owned(),
        "Authorization: Bearer x".to_owned(),
        format!("Authorization: {good}"),
        format!("Authorization: Basic {good}"),
        format!("Authorization: Bearer{good}"),
        format!("Authorization: Bearer \"{good}\""),
        format!("Authorization: Bearer {good} x"),
        format!("Authorization: Bearer {good},"),
        format!("Authorization: Bearer {last_wrong}"),
        format!("Authorization: Bearer {}", &good[1..]),
        format!("Authorization: Bearer {}", good.to_uppercase()),
        format!("Authorization: Bearer {}", key("nobody")),
        format!("Authorization: Bearer {}", "k".repeat(10_000)),
        format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {good}"),
        "Authorization: Bearer \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"
            .to_owned(),
        format!("X-Api-Key: {good}"),
        format!("Cookie: key={good}"),
    ];
    for (method, path) in [
        ("GET", "/v1/connections".to_owned()),
        ("GET", "/v1/connections/nowhere".to_owned()),
        ("GET", "/v1/deletions/del_01jdx5m0w2e8v9a4k7c3b6n1pq".to_owned()),
        ("DELETE", format!("/v1/connections/c/contacts/{id}")),
        ("POST", "/v1/deletions".to_owned()),
    ] {
        let mut seen = BTreeSet::new();
        for line in &lines {
            let line = if line.is_empty() { String::new() } else { format!("{line}\r\n") };
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{line}\r\n");
            let answer = raw(gateway.public, head).await;
            answer.is_problem(401, "unauthenticated", &line);
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"onedelete\"");
            seen.insert(answer.fingerprint());
        }
        assert_eq!(seen.len(), 1, "{method} {path}: {seen:?}");
    }
    gateway.stop().await;
    assert!(mock.journal().is_empty());
}

#[tokio::test]
async fn whoever_guesses_is_not_listened_to_for_a_while() {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .set("server.max_wrong_keys_per_min", 3)
        .mock("acme", "c", &mock, |_| {})
        .mock("other", "c", &mock, |_| {})
        .start()
        .await;
    assert_eq!(ask(&gateway, &key("acme")).await.status, 200);
    // Whoever shows no key guesses none.
    for _ in 0..5 {
        send(gateway.client.get(gateway.url("/v1/connections"))).await.is_problem(401, "unauthenticated", "no key");
    }
    for n in 0..3 {
        ask(&gateway, &key(&format!("nobody-{n}"))).await.is_problem(401, "unauthenticated", "a guess");
    }
    let mut seen = BTreeSet::new();
    // A key that is right is not told from one that is wrong, if it was never right from here.
    for guess in [key("nobody-3"), key("other"), "x".to_owned()] {
        let mut answer = ask(&gateway, &guess).await;
        answer.is_problem(429, "too_many_wrong_keys", "too many");
        let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=20).contains(&wait), "{wait}");
        answer.headers.remove("retry-after");
        seen.insert(answer.fingerprint());
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    let id = ids("wethod", 1).remove(0);
    let guess = gateway.delete("other", &format!("/v1/connections/c/contacts/{id}")).await;
    guess.is_problem(429, "too_many_wrong_keys", "a deletion");
    assert!(mock.journal().is_empty());
    // Somebody else's guesses are not the fault of a caller behind the same proxy.
    assert_eq!(gateway.delete("acme", &format!("/v1/connections/c/contacts/{id}")).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_may_be_used_as_often_as_its_rate_says() {
    let mock = mock("wethod").await;
    let gateway = Setup::new()
        .mock("acme", "c", &mock, |_| {})
        .tenant("acme", |file| {
            file["api_keys"][0].as_table_mut().unwrap().insert("rate".to_owned(), "3/h".into());
        })
        .start()
        .await;
    let id = ids("wethod", 1).remove(0);
    for _ in 0..3 {
        assert_eq!(ask(&gateway, &key("acme")).await.status, 200);
    }
    let answer = gateway.post("acme", &json!({ "contacts": [id] })).await;
    answer.is_problem(429, "rate_limited", "one too many");
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=1_200).contains(&wait), "{wait}");
    // Each key has its own.
    for _ in 0..10 {
        assert_eq!(ask(&gateway, &crate::support::read_key("acme")).await.status, 200);
    }
    gateway.stop().await;
    assert!(mock.journal().is_empty());
}
