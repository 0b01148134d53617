//! The configuration is read again while the gateway runs: whole or not at all, without a request that is lost, and without a
//! contact that is asked for where it was not meant.
//!
//! The files of TLS stand in `tls`; when an upstream is forgotten is in `src/desk.rs`.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Answer, Running, Setup, hold, id, ids, key, let_go, mock, send, table, within};

/// So many times by default; `ONEDELETE_RELOADS` says otherwise.
const RELOADS: usize = 100;

async fn ready(gateway: &Running) -> Value {
    send(gateway.client.get(format!("http://{}/readyz", gateway.admin))).await.json["configuration"].take()
}

async fn ask_to_reload(gateway: &Running) -> Answer {
    send(gateway.client.post(format!("http://{}/reload", gateway.admin))).await
}

fn connection<'f>(file: &'f mut toml::Table, name: &str) -> &'f mut toml::Table {
    file["connections"].as_table_mut().unwrap()[name].as_table_mut().unwrap()
}

/// One contact in a call, one call at a time, and a second and a half for an answer.
fn one_by_one(connection: &mut toml::Table) {
    connection.insert("max_contacts_per_call".to_owned(), 1.into());
    table(connection, "limits").insert("max_in_flight".to_owned(), 1.into());
    table(connection, "timeouts").insert("response_ms".to_owned(), 1_500.into());
}

#[tokio::test]
async fn a_key_that_was_taken_out_stops_at_once_and_a_new_one_works() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).mock("beta", "c", &mock, |_| {}).start().await;
    let before = ready(&gateway).await;
    assert!(before["version"].as_str().unwrap().len() == 12 && before["refused"].is_null(), "{before}");
    assert_eq!(gateway.get("acme", "/v1/connections").await.status, 200);
    gateway.change_tenant("acme", |file| {
        file["api_keys"].as_array_mut().unwrap()[0]["sha256"] = onedelete::api::sha256_hex(&key("later")).into();
    });
    std::fs::remove_file(gateway.folder().join("tenants/beta.toml")).unwrap();
    let told = ask_to_reload(&gateway).await;
    assert_eq!((told.status, told.json["status"].as_str()), (200, Some("in use")), "{}", told.text);
    for (tenant, status) in [("acme", 401), ("beta", 401), ("later", 200), ("acme-reader", 200)] {
        assert_eq!(gateway.get(tenant, "/v1/connections").await.status, status, "{tenant}");
    }
    let after = ready(&gateway).await;
    assert_ne!(before["version"], after["version"]);
    assert!(gateway.reload().await);
    assert_eq!(ready(&gateway).await["version"], after["version"], "nothing has changed");
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_wrong_changes_nothing_and_is_told_without_secrets() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).mock("beta", "c", &mock, |_| {}).start().await;
    let before = ready(&gateway).await;
    let good = std::fs::read_to_string(gateway.folder().join("tenants/beta.toml")).unwrap();
    // One file is good and new, the other one is not.
    gateway.change_tenant("acme", |file| {
        file["api_keys"].as_array_mut().unwrap()[0]["sha256"] = onedelete::api::sha256_hex(&key("later")).into();
    });
    gateway.change_tenant("beta", |file| {
        connection(file, "c")["credentials"]["token"] = "zq7-misplaced-secret".into();
        connection(file, "c").insert("no_such_setting".to_owned(), 1.into());
    });
    let told = ask_to_reload(&gateway).await;
    assert_eq!((told.status, told.json["status"].as_str()), (409, Some("refused")), "{}", told.text);
    let refused = ready(&gateway).await;
    assert_eq!((&refused["version"], &refused["in_use_since"]), (&before["version"], &before["in_use_since"]));
    assert_eq!(refused["refused"]["count"], 2, "{refused}");
    let reasons = refused["refused"]["mistakes"].to_string();
    assert!(reasons.contains("beta.toml:") && reasons.contains("connections.c.no_such_setting"), "{reasons}");
    assert!(reasons.contains("credentials.token") && !reasons.contains("zq7"), "{reasons}");
    for (tenant, status) in [("acme", 200), ("beta", 200), ("later", 401)] {
        assert_eq!(gateway.get(tenant, "/v1/connections").await.status, status, "{tenant}");
    }
    std::fs::write(gateway.folder().join("tenants/beta.toml"), good).unwrap();
    assert_eq!(ask_to_reload(&gateway).await.status, 200);
    assert!(ready(&gateway).await["refused"].is_null());
    assert_eq!(gateway.get("later", "/v1/connections").await.status, 200);
    let metrics = gateway.metrics().await;
    for result in ["done", "refused"] {
        assert!(metrics.contains(&format!("onedelete_config_reloads_total{{result={result:?}}}")), "{metrics}");
    }
    assert!(metrics.contains("onedelete_config_last_good_seconds "), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn nothing_changes_by_a_get_or_for_another_site() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    std::fs::remove_file(gateway.folder().join("tenants/acme.toml")).unwrap();
    let url = format!("http://{}/reload", gateway.admin);
    assert_eq!(send(gateway.client.get(&url)).await.status, 405);
    assert_eq!(send(gateway.client.post(&url).header("sec-fetch-site", "cross-site")).await.status, 403);
    assert_eq!(gateway.get("acme", "/v1/connections").await.status, 200);
    assert_eq!(send(gateway.client.post(&url).header("sec-fetch-site", "same-origin")).await.status, 200);
    assert_eq!(gateway.get("acme", "/v1/connections").await.status, 401);
    gateway.stop().await;
}

#[tokio::test]
async fn files_that_change_are_read_again() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().set("tenants.poll_ms", 20).set("server.max_wrong_keys_per_min", 0);
    let gateway = gateway.mock("acme", "c", &mock, |_| {}).start().await;
    gateway.change_tenant("acme", |file| {
        file["api_keys"].as_array_mut().unwrap()[0]["sha256"] = onedelete::api::sha256_hex(&key("later")).into();
    });
    let seen = async { while gateway.get("later", "/v1/connections").await.status != 200 {} };
    within("the new key", seen).await;
    // What is wrong is told once, and mended.
    gateway.change("onedelete.toml", |file| drop(table(file, "deletions").insert("max_contacts".to_owned(), 0.into())));
    within("the refusal", async { while ready(&gateway).await["refused"].is_null() {} }).await;
    gateway.change("onedelete.toml", |file| drop(table(file, "deletions").insert("max_contacts".to_owned(), 1.into())));
    within("the end of it", async { while !ready(&gateway).await["refused"].is_null() {} }).await;
    let two = gateway.post("later", &json!({ "contacts": ids("wethod", 2) })).await;
    two.is_problem(413, "too_many_contacts", "two contacts");
    gateway.stop().await;
}

#[tokio::test]
async fn limits_hold_at_once_and_what_needs_a_restart_is_named() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    gateway.change("onedelete.toml", |file| {
        table(file, "deletions").insert("max_contacts".to_owned(), 1.into());
        table(file, "server").insert("max_body_bytes".to_owned(), 200.into());
        table(table(file, "upstream"), "timeouts").insert("response_ms".to_owned(), 1_234.into());
    });
    assert!(gateway.reload().await);
    assert_eq!(ready(&gateway).await["restart_needed"], json!([]));
    let two = gateway.post("acme", &json!({ "contacts": ids("wethod", 2) })).await;
    two.is_problem(413, "too_many_contacts", "two contacts");
    let long = gateway.post("acme", &json!({ "contacts": ids("wethod", 1), "reference": "x".repeat(200) })).await;
    assert_eq!(long.status, 413, "{}", long.text);
    let shown = gateway.get("acme", "/v1/connections/c").await;
    assert_eq!(shown.json["limits"]["response_ms"], 1_234, "{}", shown.text);
    gateway.change("onedelete.toml", |file| {
        table(file, "server").insert("max_connections".to_owned(), 77.into());
        table(file, "log").insert("filter".to_owned(), "warn".into());
        file.insert("telemetry".to_owned(), toml::toml! { pass_upstream = false }.into());
    });
    assert!(gateway.reload().await);
    assert_eq!(ready(&gateway).await["restart_needed"], json!(["server", "telemetry", "log"]));
    gateway.stop().await;
}

/// All 1,000: `ONEDELETE_RELOADS=1000 cargo test --test it -- reloads_under_load`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_no_request() {
    let reloads = std::env::var("ONEDELETE_RELOADS").map_or(RELOADS, |text| text.parse().unwrap());
    let mock = mock("kore_ai").await;
    let gateway = Setup::new()
        .durable()
        .mock("acme", "c", &mock, |_| {})
        .mock("acme", "same", &mock, |_| {})
        .mock("beta", "c", &mock, |_| {})
        .start()
        .await;
    let is_over = AtomicBool::new(false);
    let caller = async |tenant: &str, name: &str| {
        let mut asked = 0;
        while !is_over.load(Ordering::Relaxed) {
            let contacts = ids("kore_ai", 3);
            contacts.iter().for_each(|each| mock.seed(&id(each), false));
            let answer = gateway.post(tenant, &json!({ "connection": name, "contacts": contacts })).await;
            assert_eq!((answer.status, answer.outcomes()), (200, vec!["deleted"; 3]), "{}", answer.text);
            let once = answer.json["results"].as_array().unwrap().iter().all(|result| result["attempts"] == 1);
            assert!(once, "{}", answer.text);
            asked += 3;
        }
        asked
    };
    let reloading = async {
        for n in 0..reloads {
            // Every other time it is refused, and the connection changes with those that are not.
            gateway.change_tenant("acme", |file| {
                table(connection(file, "c"), "timeouts").insert("response_ms".to_owned(), (20_000 + n as i64).into());
            });
            gateway.change_tenant("beta", |file| {
                file.insert("require_idempotency_key".to_owned(), if n % 2 == 0 { false.into() } else { 1.into() });
            });
            assert_eq!(gateway.reload().await, n % 2 == 0, "reload {n}");
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (.., one, two, three, four) =
        tokio::join!(reloading, caller("acme", "c"), caller("acme", "c"), caller("acme", "same"), caller("beta", "c"));
    let asked = one + two + three + four;
    assert!(one > 0 && two > 0 && three > 0 && four > 0);
    let deleted = mock.deleted();
    let different: std::collections::BTreeSet<_> = deleted.iter().map(|each| each.text().to_owned()).collect();
    assert_eq!((deleted.len(), different.len()), (asked, asked));
    println!("{reloads} reloads, {asked} contacts");
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_in_doubt_is_not_asked_for_elsewhere() {
    let (old, new) = (mock("kore_ai").await, mock("kore_ai").await);
    let gateway = Setup::new().mock("acme", "c", &old, one_by_one).start().await;
    let contacts = ids("kore_ai", 2);
    for mock in [&old, &new] {
        contacts.iter().for_each(|each| mock.seed(&id(each), false));
    }
    hold(&old);
    let deletion = gateway.post_async("acme", &json!({ "contacts": contacts })).await;
    within("the first call", async {
        while old.held() == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    gateway.change_tenant("acme", |file| {
        connection(file, "c").insert("base_url".to_owned(), new.base_url().to_owned().into());
    });
    assert!(gateway.reload().await);
    let answer = gateway.finished("acme", &deletion).await;
    assert_eq!(answer.outcomes(), ["unknown", "deleted"], "{}", answer.text);
    assert_eq!(answer.json["results"][0]["retry"], "verify_first", "{}", answer.text);
    // What was not sent goes where the connection leads now; what was sent, nowhere.
    assert_eq!(new.deleted(), [id(&contacts[1])]);
    assert!(new.holds(&id(&contacts[0])));
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_in_doubt_goes_on_where_the_connection_leads_to_the_same() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().mock("acme", "c", &mock, one_by_one).start().await;
    let contacts = ids("kore_ai", 2);
    contacts.iter().for_each(|each| mock.seed(&id(each), false));
    hold(&mock);
    let deletion = gateway.post_async("acme", &json!({ "contacts": contacts })).await;
    within("the first call", async {
        while mock.held() == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    gateway.change_tenant("acme", |file| {
        table(connection(file, "c"), "timeouts").insert("response_ms".to_owned(), 20_000.into());
    });
    assert!(gateway.reload().await);
    // The call under way still has the patience that it was sent with; the next one is answered.
    mock.fault_always(None);
    let answer = gateway.finished("acme", &deletion).await;
    assert_eq!(answer.outcomes(), ["deleted", "deleted"], "{}", answer.text);
    let attempts: Vec<_> = answer.json["results"].as_array().unwrap().iter().map(|each| &each["attempts"]).collect();
    assert_eq!(attempts, [2, 1], "{}", answer.text);
    gateway.stop().await;
}

#[tokio::test]
async fn a_tenant_that_is_taken_out_sends_nothing_more_and_goes_on_when_it_is_back() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().durable().mock("acme", "c", &mock, one_by_one).start().await;
    let contacts = ids("kore_ai", 2);
    contacts.iter().for_each(|each| mock.seed(&id(each), false));
    hold(&mock);
    let deletion = gateway.post_async("acme", &json!({ "contacts": contacts })).await;
    within("the first call", async {
        while mock.held() == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let file = gateway.folder().join("tenants/acme.toml");
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    assert!(gateway.reload().await);
    assert_eq!(gateway.get("acme", &format!("/v1/deletions/{deletion}")).await.status, 401);
    let_go(&mock);
    within("the end of the call", async {
        while mock.deleted().is_empty() {
            tokio::task::yield_now().await
        }
    })
    .await;
    // Nothing follows the call that was under way.
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(mock.deleted(), [id(&contacts[0])]);
    assert!(gateway.reload().await);
    let answer = gateway.finished("acme", &deletion).await;
    assert_eq!(answer.outcomes(), ["deleted", "deleted"], "{}", answer.text);
    assert_eq!(mock.deleted(), [id(&contacts[0]), id(&contacts[1])]);
    gateway.stop().await;
}
