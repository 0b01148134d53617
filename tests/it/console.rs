//! The console from outside: what it shows, to whom, and that nothing changes but by its own forms.
//!
//! How it looks in a browser is tested in `tests/console`.

use onedelete::mock::Fault;
use serde_json::json;

use crate::support::{Answer, Running, Setup, asked, hold, ids, let_go, mock, within};

const TOKEN: &str = "a-token-for-the-console-0123456789abcdef";

/// A request at the admin listener, with these header lines more.
async fn request(gateway: &Running, line: &str, headers: &str, body: &str) -> Answer {
    let (addr, length) = (gateway.admin, body.len());
    let host = if headers.contains("Host: ") { String::new() } else { format!("Host: {addr}\r\n") };
    let text = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    within("the console", asked(addr, text)).await
}

async fn look(gateway: &Running, path: &str) -> Answer {
    request(gateway, &format!("GET {path}"), "", "").await
}

/// What the forms of a page carry.
fn form_token(page: &Answer) -> String {
    let (_, rest) = page.text.split_once("name=\"token\" value=\"").expect(&page.text);
    rest.split('"').next().unwrap().to_owned()
}

/// What a browser says of a form on a page of the console.
fn own(gateway: &Running) -> String {
    format!("Sec-Fetch-Site: same-origin\r\nOrigin: http://{}\r\n", gateway.admin)
}

#[tokio::test]
async fn every_answer_keeps_others_out_of_the_page_and_the_page_out_of_caches() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "sales", &mock, |_| {}).start().await;
    for (path, status) in [
        ("/console", 200),
        ("/console/deletions", 200),
        ("/console/deletions?id=nonsense", 404),
        ("/console/deletions/del_00000000000000000000000000", 404),
        ("/console/deletions/nonsense", 404),
        ("/console/tenants/acme", 200),
        ("/console/tenants/nobody", 404),
        ("/console/sign-in", 200),
        ("/console/page.css", 200),
        ("/console/page.js", 200),
    ] {
        let answer = look(&gateway, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        for word in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'"] {
            assert!(policy.contains(word), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        // What the policy would refuse, or would load from elsewhere.
        for word in [" style=", " onclick=", "<style", "javascript:", "https://"] {
            assert!(!answer.text.contains(word), "{path}: {word}");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn names_and_reasons_are_text_and_never_a_part_of_the_page() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "sales", &mock, |_| {}).start().await;
    let nasty = "<script>alert(1)</script>\"'&";
    let contact = ids("wethod", 1).remove(0);
    let body = json!({"connection": "sales", "contacts": [{"id": contact, "ref": "a-name-of-the-callers"}],
        "reason": nasty, "reference": nasty});
    let deletion = gateway.post("acme", &body).await.id();
    let page = look(&gateway, &format!("/console/deletions/{deletion}")).await;
    assert!(page.text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"), "{}", page.text);
    let mut pages = vec![page];
    for path in [
        "/console?q=%3Cscript%3Ealert(1)%22&show=%22%3E%3Cscript%3E",
        "/console/tenants/%3Cscript%3E",
        "/console/tenants/acme",
    ] {
        pages.push(look(&gateway, path).await);
    }
    for page in &pages {
        assert!(!page.text.contains("<script>") && !page.text.contains("alert(1)</script>"), "{}", page.text);
        // Neither whom it is about, nor what the caller calls them.
        assert!(!page.text.contains(&contact) && !page.text.contains("a-name-of-the-callers"), "{}", page.text);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn nothing_changes_by_a_look() {
    let mock = mock("wethod").await;
    hold(&mock);
    let gateway = Setup::new().mock("acme", "sales", &mock, |_| {}).start().await;
    let body = json!({"connection": "sales", "contacts": ids("wethod", 20)});
    let deletion = gateway.post_async("acme", &body).await;
    let state = gateway.get("acme", &format!("/v1/deletions/{deletion}")).await.json["cancelled_at"].clone();
    let form = form_token(&look(&gateway, &format!("/console/deletions/{deletion}")).await);
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for path in [format!("/console/deletions/{deletion}/cancel"), "/console/sign-out".to_owned()] {
            let line = format!("{method} {path}?token={form}&sure=on");
            let answer = request(&gateway, &line, &own(&gateway), "").await;
            assert!([403, 405].contains(&answer.status), "{line}: {}", answer.status);
        }
        let line = format!("{method} /console/deletions/{deletion}?token={form}&cancel=1");
        request(&gateway, &line, &own(&gateway), "").await;
    }
    let after = gateway.get("acme", &format!("/v1/deletions/{deletion}")).await;
    assert_eq!(after.json["cancelled_at"], state, "{}", after.text);
    assert_eq!(after.json["state"], "running");
    let_go(&mock);
    gateway.stop().await;
}

#[tokio::test]
async fn a_deletion_is_cancelled_by_its_own_page_alone() {
    let mock = mock("wethod").await;
    hold(&mock);
    let gateway = Setup::new().mock("acme", "sales", &mock, |_| {}).start().await;
    let body = json!({"connection": "sales", "contacts": ids("wethod", 20)});
    let deletion = gateway.post_async("acme", &body).await;
    let (page, place) =
        (format!("/console/deletions/{deletion}"), format!("POST /console/deletions/{deletion}/cancel"));
    let seen = look(&gateway, &page).await;
    assert!(seen.text.contains("Cancel this deletion") && seen.text.contains("data-every"), "{}", seen.text);
    let token = form_token(&seen);
    let good = format!("token={token}&sure=on");
    let origin = format!("Origin: http://{}\r\n", gateway.admin);
    for (headers, body, what) in [
        (String::new(), good.as_str(), "no word of where it comes from"),
        ("Sec-Fetch-Site: cross-site\r\n".to_owned(), &good, "another site"),
        ("Sec-Fetch-Site: same-site\r\n".to_owned(), &good, "a neighbour"),
        ("Sec-Fetch-Site: none\r\n".to_owned(), &good, "nowhere"),
        ("Origin: http://127.0.0.1:1\r\n".to_owned(), &good, "another port"),
        ("Origin: null\r\n".to_owned(), &good, "a sandbox"),
        (format!("Sec-Fetch-Site: cross-site\r\n{origin}"), &good, "both, one of them foreign"),
        (origin.clone(), "sure=on", "no token"),
        (origin.clone(), "token=&sure=on", "an empty token"),
        (origin.clone(), &format!("token={}", "0".repeat(64)), "a wrong token"),
        (origin.clone(), &format!("token={token}&token={token}"), "two tokens"),
        ("Host: evil.example\r\nOrigin: http://evil.example\r\n".to_owned(), &good, "another name for this machine"),
    ] {
        let answer = request(&gateway, &place, &headers, body).await;
        assert!([403, 421].contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
        let state = gateway.get("acme", &format!("/v1/deletions/{deletion}")).await;
        assert!(state.json.get("cancelled_at").is_none(), "{what}: {}", state.text);
    }
    let unsure = request(&gateway, &place, &own(&gateway), &format!("token={token}")).await;
    let state = gateway.get("acme", &format!("/v1/deletions/{deletion}")).await;
    assert_eq!((unsure.status, state.json.get("cancelled_at")), (303, None), "{}", state.text);
    let answer = request(&gateway, &place, &own(&gateway), &good).await;
    assert_eq!((answer.status, &*answer.headers["location"].to_str().unwrap().to_owned()), (303, &*page));
    let state = gateway.get("acme", &format!("/v1/deletions/{deletion}")).await;
    assert!(state.json["cancelled_at"].is_string(), "{}", state.text);
    let_go(&mock);
    let end = gateway.finished("acme", &deletion).await;
    assert!(end.json["counts"]["skipped"].as_u64() > Some(0), "{}", end.text);
    let over = look(&gateway, &page).await;
    assert!(!over.text.contains("Cancel this deletion") && !over.text.contains("data-every"), "{}", over.text);
    assert!(over.text.contains("finished, cancelled") && over.text.contains("<code>cancelled</code>"), "{}", over.text);
    gateway.stop().await;
}

#[tokio::test]
async fn other_names_for_this_machine_are_refused_where_no_token_is_asked_for() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "sales", &mock, |_| {}).start().await;
    for (host, status) in [("evil.example", 421), ("192.0.2.1", 421), ("localhost:9090", 200), ("127.0.0.1", 200)] {
        let answer = request(&gateway, "GET /console", &format!("Host: {host}\r\n"), "").await;
        assert_eq!(answer.status, status, "{host}");
        assert_eq!(answer.text.contains("acme"), status == 200, "{host}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn with_a_token_nobody_looks_without_it() {
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "sales", &mock, |_| {}).set("server.admin_token", "file:token");
    std::fs::write(setup.write().join("token"), TOKEN).unwrap();
    let gateway = setup.start().await;
    for path in
        ["/console", "/console/deletions", "/console/tenants/acme", "/console/deletions/del_00000000000000000000000000"]
    {
        let answer = look(&gateway, path).await;
        assert_eq!((answer.status, answer.headers["location"].to_str().unwrap()), (303, "/console/sign-in"), "{path}");
        let forged = request(&gateway, &format!("GET {path}"), "Cookie: onedelete_console=9999999999.00\r\n", "").await;
        assert_eq!(forged.status, 303, "{path}");
        let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
        assert_eq!(request(&gateway, &format!("GET {path}"), &bearer("x"), "").await.status, 401);
        assert_ne!(request(&gateway, &format!("GET {path}"), &bearer(TOKEN), "").await.status, 303);
    }
    // Health and metrics are for programs, and stay as they are.
    assert_eq!(look(&gateway, "/readyz").await.status, 200);
    assert_eq!(look(&gateway, "/metrics").await.status, 200);
    let (place, body) = ("POST /console/sign-in", format!("admin_token={TOKEN}"));
    assert_eq!(request(&gateway, place, "", &body).await.status, 403, "from nowhere");
    let wrong = request(&gateway, place, &own(&gateway), "admin_token=wrong").await;
    assert_eq!((wrong.status, wrong.headers.get("set-cookie")), (403, None));
    let right = request(&gateway, place, &own(&gateway), &body).await;
    let cookie = right.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let page = request(&gateway, "GET /console", &cookie, "").await;
    assert!(page.status == 200 && page.text.contains("Sign out") && !page.text.contains(TOKEN), "{}", page.text);
    let form = format!("token={}", form_token(&page));
    let out = request(&gateway, "POST /console/sign-out", &format!("{cookie}{}", own(&gateway)), &form).await;
    assert!(out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    // Guessing comes to an end, and with it every answer to that.
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(request(&gateway, place, &own(&gateway), "admin_token=wrong").await.status);
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert_eq!(request(&gateway, "GET /console", &cookie, "").await.status, 200, "whoever is in stays in");
    gateway.stop().await;
}

#[tokio::test]
async fn beyond_loopback_the_console_is_closed_without_a_token() {
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "sales", &mock, |_| {}).set("server.behind_tls", true);
    let gateway = setup.set("server.admin_listen", "0.0.0.0:0").start().await;
    let mut gateway = gateway;
    gateway.admin.set_ip([127, 0, 0, 1].into());
    for path in ["/console", "/console/sign-in", "/console/tenants/acme"] {
        let answer = look(&gateway, path).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text.contains("server.admin_token") && !answer.text.contains("acme"), "{}", answer.text);
    }
    assert_eq!(look(&gateway, "/readyz").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn outcomes_come_with_reasons_and_next_steps() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "sales", &mock, crate::support::attempts(1)).start().await;
    mock.fault_always(Some(Fault::Empty(403)));
    let body = json!({"connection": "sales", "contacts": [ids("wethod", 1).remove(0), "not a number"]});
    let deletion = gateway.post("acme", &body).await;
    let page = look(&gateway, &format!("/console/deletions/{}", deletion.id())).await;
    for code in deletion.errors() {
        let code = adapters::FaultCode::find(code).unwrap();
        assert!(page.text.contains(&format!("<code>{}</code>", code.as_str())), "{code:?}: {}", page.text);
        let first = code.remedy().split('`').next().unwrap().replace('\'', "&#39;");
        assert!(page.text.contains(&first), "{code:?}: {first}: {}", page.text);
    }
    let rejected = look(&gateway, &format!("/console/deletions/{}?outcome=deleted", deletion.id())).await;
    assert!(rejected.text.contains("is like that"), "{}", rejected.text);
    gateway.stop().await;
}

#[tokio::test]
async fn a_tenants_page_says_when_its_keys_were_last_used_and_never_what_they_are() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "sales", &mock, |_| {}).start().await;
    let before = look(&gateway, "/console/tenants/acme").await;
    assert_eq!(before.text.matches("not since this gateway started").count(), 2, "{}", before.text);
    gateway.get("acme", "/v1/connections").await;
    let after = look(&gateway, "/console/tenants/acme").await;
    assert_eq!(after.text.matches("not since this gateway started").count(), 1, "{}", after.text);
    let key = crate::support::key("acme");
    assert!(!after.text.contains(&key) && !after.text.contains(&onedelete::api::sha256_hex(&key)));
    gateway.stop().await;
}

#[tokio::test]
async fn many_connections_are_searched_and_shown_page_by_page() {
    let mock = mock("wethod").await;
    let setup = (0..120).fold(Setup::new(), |setup, n| setup.mock(&format!("tenant-{n:03}"), "sales", &mock, |_| {}));
    let gateway = setup.start().await;
    let mut seen = std::collections::BTreeSet::new();
    for (from, rows) in [(0, 50), (50, 50), (100, 20), (1_000, 0)] {
        let page = look(&gateway, &format!("/console?from={from}")).await;
        let names: Vec<_> = page.text.split("href=\"/console/tenants/").skip(1).collect();
        assert_eq!(names.len(), rows, "{from}");
        seen.extend(names.into_iter().map(|name| name.split('"').next().unwrap().to_owned()));
    }
    assert_eq!(seen.len(), 120);
    let found = look(&gateway, "/console?q=Tenant-11").await;
    assert_eq!(found.text.matches("href=\"/console/tenants/").count(), 10, "{}", found.text);
    let used = look(&gateway, "/console?show=used").await;
    assert!(used.text.contains("No connection is like that."));
    let contacts = ids("wethod", 1);
    gateway.post("tenant-007", &json!({"connection": "sales", "contacts": contacts})).await;
    let used = look(&gateway, "/console?show=used").await;
    assert_eq!(used.text.matches("href=\"/console/tenants/").count(), 1, "{}", used.text);
    gateway.stop().await;
}
