//! Signed tokens in the place of gateway keys: which count, for whom, and that nothing is said of those that do not.

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onedelete::mock::Mock;
use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, ids, key, mock, send, within};

const AUDIENCE: &str = "onedelete";
const OURS: &str = "https://id.example/ours";
const THEIRS: &str = "https://id.example/theirs";
const SECRET: &str = "a secret of more than thirty-two bytes";

/// A key that an issuer signs with.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        Self { id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    /// As it stands in a set of keys.
    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let part = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "alg": "ES256", "x": part(1), "y": part(33) })
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_under(&json!({ "alg": "ES256", "kid": self.id }), claims)
    }

    fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let signed = signed_part(header, claims);
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = self.pair.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn signed_part(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// Signed with a secret.
fn hmac(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = signed_part(header, claims);
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, signed.as_bytes())))
}

fn now() -> i64 {
    onedelete::clock::unix_ms() / 1_000
}

/// Claims that count, changed; `null` takes one away.
fn claims(change: Value) -> Value {
    let mut claims = json!({ "iss": OURS, "aud": AUDIENCE, "exp": now() + 300, "sub": "somebody", "org": "acme" });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn rule(text: &str) -> toml::Value {
    let text = format!("audience = \"{AUDIENCE}\"\n{text}");
    text.parse::<toml::Table>().unwrap().into()
}

fn write(folder: &Path, keys: &[Value]) {
    std::fs::write(folder.join("tenants/keys.json"), json!({ "keys": keys }).to_string()).unwrap();
}

async fn start(signers: &[&Signer], rules: &[(&str, &[&str])]) -> (Running, Mock) {
    let mock = mock("wethod").await;
    let mut setup = Setup::new().set("server.max_wrong_keys_per_min", 0);
    for (tenant, rules) in rules {
        setup = setup.mock(tenant, "c", &mock, |_| {}).mock(tenant, "d", &mock, |_| {}).tenant(tenant, |file| {
            file.insert("jwt".to_owned(), rules.iter().map(|text| rule(text)).collect::<Vec<_>>().into());
        });
    }
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    write(&setup.write(), &keys);
    (setup.start().await, mock)
}

async fn ask(gateway: &Running, token: &str) -> Answer {
    send(gateway.client.get(gateway.url("/v1/connections")).bearer_auth(token)).await
}

async fn delete(gateway: &Running, token: &str, connection: &str) -> Answer {
    let id = ids("wethod", 1).remove(0);
    send(gateway.client.delete(gateway.url(&format!("/v1/connections/{connection}/contacts/{id}"))).bearer_auth(token))
        .await
}

const RULE: &str = "name = \"desk\"\nissuer = \"https://id.example/ours\"\nalgorithms = [\"ES256\"]\n\
    jwks = \"file:keys.json\"\naccess = \"delete\"\nclaims = { org = \"acme\" }\n";

#[tokio::test]
async fn a_token_that_does_not_count_is_refused_like_a_wrong_key() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let (gateway, mock) = start(&[&signer], &[("acme", &[RULE])]).await;
    let good = signer.sign(&claims(json!({})));
    assert_eq!(ask(&gateway, &good).await.status, 200);
    assert_eq!(ask(&gateway, &key("acme")).await.status, 200, "keys are keys as before");
    // Clocks may differ by a minute.
    for change in [json!({ "exp": now() - 30 }), json!({ "nbf": now() + 30 }), json!({ "aud": ["x", AUDIENCE] })] {
        assert_eq!(ask(&gateway, &signer.sign(&claims(change.clone()))).await.status, 200, "{change}");
    }
    let es256 = |more: Value| {
        let mut header = json!({ "alg": "ES256", "kid": "one" });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signer.sign_under(&header, &claims(json!({})))
    };
    // What everybody knows of the key, as if it were a secret.
    let public = [signer.pair.public_key().as_ref().to_vec(), signer.jwk().to_string().into_bytes()];
    let hs256 = json!({ "alg": "HS256", "kid": "one" });
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let other_claims = URL_SAFE_NO_PAD.encode(claims(json!({ "sub": "somebody else" })).to_string());
    let wrong = [
        signer.sign(&claims(json!({ "exp": now() - 90 }))),
        signer.sign(&claims(json!({ "exp": null }))),
        signer.sign(&claims(json!({ "exp": "never" }))),
        signer.sign(&claims(json!({ "nbf": now() + 90 }))),
        signer.sign(&claims(json!({ "aud": "another" }))),
        signer.sign(&claims(json!({ "aud": null }))),
        signer.sign(&claims(json!({ "iss": THEIRS }))),
        signer.sign(&claims(json!({ "iss": null }))),
        signer.sign(&claims(json!({ "iss": [OURS] }))),
        signer.sign(&claims(json!({ "org": "beta" }))),
        signer.sign(&claims(json!({ "org": null }))),
        stranger.sign(&claims(json!({}))),
        Signer::new("two").sign(&claims(json!({}))),
        es256(json!({ "kid": "two" })),
        es256(json!({ "alg": "RS256" })),
        es256(json!({ "alg": "ES384" })),
        es256(json!({ "crit": ["exp"] })),
        stranger.sign_under(&json!({ "alg": "ES256", "jwk": stranger.jwk() }), &claims(json!({}))),
        format!("{}.", signed_part(&json!({ "alg": "none" }), &claims(json!({})))),
        format!("{}.{signature}", signed_part(&json!({ "alg": "none" }), &claims(json!({})))),
        hmac(&public[0], &hs256, &claims(json!({}))),
        hmac(&public[1], &hs256, &claims(json!({}))),
        format!("{header}.{other_claims}.{signature}"),
        format!("{header}.{body}."),
        format!("{header}.{body}.{}", &signature[1..]),
        format!("{good}.x"),
        format!("..{}", "x".repeat(40)),
        format!("{header}..{signature}"),
        signer.sign(&claims(json!({ "pad": "x".repeat(7_000) }))),
    ];
    let mut seen = BTreeSet::new();
    for token in &wrong {
        let answer = ask(&gateway, token).await;
        answer.is_problem(401, "unauthenticated", token);
        seen.insert(answer.fingerprint());
        delete(&gateway, token, "c").await.is_problem(401, "unauthenticated", token);
    }
    seen.insert(ask(&gateway, &key("nobody")).await.fingerprint());
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(mock.journal().is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn the_tenant_is_the_one_whose_file_says_so() {
    let (ours, theirs) = (Signer::new("ours"), Signer::new("theirs"));
    let beta = RULE.replace("acme", "beta");
    let foreign = RULE.replace("/ours", "/theirs");
    let both = format!("{RULE}access_claim = \"scope\"\n").replace("acme", "both");
    let rules: [(&str, &[&str]); 3] = [("acme", &[RULE, &both]), ("beta", &[&beta, &both]), ("gamma", &[&foreign])];
    let (gateway, _mock) = start(&[&ours, &theirs], &rules).await;
    let id = |answer: &Answer| answer.json["id"].as_str().unwrap_or_default().to_owned();
    for (org, tenant, other) in [("acme", "acme", "beta"), ("beta", "beta", "acme")] {
        let token = ours.sign(&claims(json!({ "org": org, "tenant": other })));
        let request = gateway.client.post(gateway.url("/v1/deletions")).header("x-tenant", other).bearer_auth(&token);
        let body = json!({ "contacts": [ids("wethod", 1).remove(0)], "connection": "c" });
        let answer = send(request.header("content-type", "application/json").body(body.to_string())).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(gateway.get(tenant, &format!("/v1/deletions/{}", id(&answer))).await.status, 200);
        assert_eq!(gateway.get(other, &format!("/v1/deletions/{}", id(&answer))).await.status, 404);
    }
    // Two files take it: then it is nobody's.
    let token = ours.sign(&claims(json!({ "org": "both", "scope": "delete" })));
    assert_eq!(ask(&gateway, &token).await.status, 401);
    let token = theirs.sign(&claims(json!({ "iss": THEIRS })));
    assert_eq!(ask(&gateway, &token).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_token_may_do_what_its_rule_and_its_claim_say() {
    let signer = Signer::new("one");
    let by_claim = format!("{RULE}access_claim = \"scope\"\nconnections = [\"c\"]\n");
    let reading = RULE.replace("\"delete\"", "\"read\"").replace("org = \"acme\"", "org = \"readers\"");
    let (gateway, mock) = start(&[&signer], &[("acme", &[&by_claim, &reading])]).await;
    for (change, read, deleted) in [
        (json!({ "scope": "delete" }), 200, 200),
        (json!({ "scope": "other read delete" }), 200, 200),
        (json!({ "scope": ["read", "delete"] }), 200, 200),
        (json!({ "scope": "read" }), 200, 403),
        (json!({ "scope": "deletes" }), 401, 401),
        (json!({ "scope": null }), 401, 401),
        (json!({ "scope": { "delete": true } }), 401, 401),
        (json!({ "org": "readers", "scope": "delete" }), 200, 403),
    ] {
        let token = signer.sign(&claims(change.clone()));
        assert_eq!(ask(&gateway, &token).await.status, read, "{change}");
        let before = mock.journal().len();
        assert_eq!(delete(&gateway, &token, "c").await.status, deleted, "{change}");
        assert_eq!(mock.journal().len() > before, deleted == 200, "{change}");
    }
    // Other connections do not exist for it.
    let token = signer.sign(&claims(json!({ "scope": "delete" })));
    assert_eq!(delete(&gateway, &token, "d").await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn keys_in_a_file_can_be_changed_and_what_is_broken_changes_nothing() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (gateway, _mock) = start(&[&old], &[("acme", &[RULE])]).await;
    let by = |signer: &Signer| signer.sign(&claims(json!({})));
    assert_eq!(ask(&gateway, &by(&old)).await.status, 200);
    write(gateway.folder(), &[new.jwk(), json!({ "kty": "what is this" })]);
    within("the new key", async { while ask(&gateway, &by(&new)).await.status != 200 {} }).await;
    assert_eq!(ask(&gateway, &by(&old)).await.status, 401, "a key that is gone");
    write(gateway.folder(), &[]);
    within("some looks", async {
        for _ in 0..200 {
            assert_eq!(ask(&gateway, &by(&new)).await.status, 200);
        }
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_secret_that_both_sides_know_counts_where_it_is_named() {
    let shared = RULE
        .replace("[\"ES256\"]", "[\"HS256\"]")
        .replace("jwks = \"file:keys.json\"", &format!("secret = \"plain:{SECRET}\""));
    let (gateway, _mock) = start(&[], &[("acme", &[&shared])]).await;
    let header = json!({ "alg": "HS256" });
    assert_eq!(ask(&gateway, &hmac(SECRET.as_bytes(), &header, &claims(json!({})))).await.status, 200);
    assert_eq!(ask(&gateway, &hmac(b"another", &header, &claims(json!({})))).await.status, 401);
    let wrong = hmac(SECRET.as_bytes(), &json!({ "alg": "HS512" }), &claims(json!({})));
    assert_eq!(ask(&gateway, &wrong).await.status, 401);
    gateway.stop().await;
}

/// Serves a set of keys, one answer a connection, and counts.
async fn publish(listener: tokio::net::TcpListener, set: &Value, asked: &std::cell::Cell<usize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        asked.set(asked.get() + 1);
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request).await;
        let body = set.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn keys_at_an_address_are_fetched_once_for_all_who_wait() {
    let signer = Signer::new("one");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rule = RULE.replace("file:keys.json", &format!("http://{}/keys", listener.local_addr().unwrap()));
    let (gateway, _mock) = start(&[], &[("acme", &[&rule])]).await;
    let (set, asked) = (json!({ "keys": [signer.jwk()] }), std::cell::Cell::new(0));
    let (good, unknown) = (signer.sign(&claims(json!({}))), Signer::new("two").sign(&claims(json!({}))));
    let asking = async {
        let first = futures_util::future::join_all((0..50).map(|_| ask(&gateway, &good))).await;
        assert!(first.iter().all(|answer| answer.status == 200));
        assert_eq!(asked.get(), 1);
        // Nobody has the issuer asked again by making names up.
        for _ in 0..20 {
            assert_eq!(ask(&gateway, &unknown).await.status, 401);
        }
        assert_eq!(ask(&gateway, &good).await.status, 200);
        assert_eq!(asked.get(), 1);
    };
    tokio::select! {
        () = within("the answers", asking) => {}
        () = publish(listener, &set, &asked) => {}
    }
    gateway.stop().await;
}
