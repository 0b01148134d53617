//! `record` between a gateway and an upstream, and `conform` over what it wrote: the built program, as people run it.
//!
//! What is made up here for a secret or an identifier must be nowhere afterwards but where it was sent.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use adapters::DIALECTS;
use bytes::Bytes;
use http::Response;
use onedelete::mock::Mock;
use serde_json::{Value, json};

use crate::cli::{Run, Watched, ended, lines_until, program, run, terminate};
use crate::support::{Running, Setup, attempts, id, mock, within};

/// A recording under way.
struct Recording {
    child: Watched,
    out: BufReader<std::process::ChildStdout>,
    base_url: String,
    said: String,
    file: PathBuf,
    folder: tempfile::TempDir,
}

impl Recording {
    /// Starts the program on a free port.
    async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recorded.json");
        let mut all = vec!["record", "--listen", "127.0.0.1:0", "--out", file.to_str().unwrap()];
        all.extend(arguments);
        let mut child = Watched(program(&all, &[]).spawn().unwrap());
        let mut out = BufReader::new(child.0.stdout.take().unwrap());
        let reading = tokio::task::spawn_blocking(move || (lines_until(&mut out, "base_url"), out));
        let (said, out) = within("the recorder's address", reading).await.unwrap();
        let base_url = said.split('"').nth(1).unwrap().to_owned();
        Self { child, out, base_url, said, file, folder }
    }

    /// Before the upstream of a connection in a configuration.
    async fn of(setup: &Setup) -> Self {
        let folder = setup.write();
        let config = folder.join("onedelete.toml");
        Self::start(&["--config", config.to_str().unwrap()]).await
    }

    /// The connection with its URLs leading to the recorder.
    fn lead_here(&self, connection: &mut toml::Table) {
        let origin = self.base_url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        for (_, value) in connection.iter_mut() {
            match value {
                toml::Value::Table(inner) => self.lead_here(inner),
                toml::Value::String(text) => {
                    if let Some((_, rest)) = text.split_once("://") {
                        let path = rest.find('/').map_or("", |slash| &rest[slash..]);
                        *text = format!("{origin}{path}");
                    }
                }
                _ => {}
            }
        }
    }

    /// Ends it: all that it said, and the text of the file.
    async fn stop(self) -> (Run, String) {
        terminate(&self.child).await;
        let Self { mut child, mut out, file, said, folder, .. } = self;
        let rest = tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            while out.read_line(&mut rest).unwrap() > 0 {}
            (rest, out)
        });
        let (rest, out) = within("the recorder's last words", rest).await.unwrap();
        child.0.stdout = Some(out.into_inner());
        let mut run = within("the end of the recorder", ended(child)).await;
        run.out = said + &rest;
        assert_eq!(run.code, Some(0), "{}", run.err);
        assert!(!file.with_file_name("recorded.json.part").exists());
        let text = std::fs::read_to_string(file).unwrap();
        drop(folder);
        (run, text)
    }
}

/// Contacts that nobody else has: one to be deleted, one that the upstream keeps, one that is not there.
fn contacts(dialect: &str) -> Vec<String> {
    let rule = &DIALECTS.iter().find(|each| each.profile.id == dialect).unwrap().profile.identifiers[0];
    let forms = [
        [
            "C0FFEE11-dead-4bee-8f00-9a7e5a11c0de",
            "c0ffee12-dead-4bee-8f00-9a7e5a11c0de",
            "c0ffee13-dead-4bee-8f00-9a7e5a11c0de",
        ],
        ["c0ffee11dead4bee8f00aaa1", "c0ffee12dead4bee8f00aaa1", "C0FFEE13DEAD4BEE8F00AAA1"],
        ["77317731", "88428842", "99539953"],
    ];
    let fits = |form: &&[&str; 3]| form.iter().all(|text| (rule.accepts)(&id(text)));
    forms.iter().find(fits).unwrap().map(str::to_owned).to_vec()
}

/// Fails if one of these stands in the text, in whatever case.
fn has_none(what: &str, text: &str, canaries: &[String]) {
    let text = text.to_lowercase();
    for canary in canaries {
        assert!(!text.contains(&canary.to_lowercase()), "{what}: {canary} in {text}");
    }
}

/// Every text in the credentials that is a secret.
fn secrets(connection: &toml::Table) -> Vec<String> {
    let credentials = connection["credentials"].as_table().unwrap();
    credentials.iter().filter_map(|(_, text)| text.as_str()?.strip_prefix("plain:").map(str::to_owned)).collect()
}

/// Takes the form of credentials that has most to send before a delete.
fn sign_in_if_possible(connection: &mut toml::Table) {
    if connection["dialect"].as_str() == Some("bas_ip") {
        let account: toml::Table = "username = \"admin\"\npassword = \"plain:door-demo-password\"".parse().unwrap();
        connection.insert("credentials".to_owned(), account.into());
    }
}

/// A gateway that sends to a recorder which sends to the mock.
async fn through_a_recorder(mock: &Mock) -> (Running, Recording, toml::Table) {
    let mut connection = mock.connection_toml();
    sign_in_if_possible(&mut connection);
    let recording = Recording::of(&Setup::new().connection("acme", "c", connection.clone())).await;
    recording.lead_here(&mut connection);
    attempts(1)(&mut connection);
    let secrets = connection.clone();
    (Setup::new().connection("acme", "c", connection).start().await, recording, secrets)
}

async fn conform(file: &str, text: &str, arguments: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    std::fs::write(&path, text).unwrap();
    run(&[&["conform", path.to_str().unwrap()], arguments].concat(), &[]).await
}

#[tokio::test]
async fn what_is_recorded_of_every_dialect_holds_and_shows_nobody() {
    for dialect in DIALECTS.iter().map(|registration| registration.profile.id) {
        let mock = mock(dialect).await;
        let (gateway, recording, connection) = through_a_recorder(&mock).await;
        let mut canaries = contacts(dialect);
        mock.seed(&id(&canaries[0]), false);
        mock.seed(&id(&canaries[1]), true);
        let mut asked: Vec<Value> = canaries.iter().map(|text| json!({ "id": text })).collect();
        if dialect == "talkdesk" {
            let more = ["+493055577311", "003Canary00000Xy"];
            asked.extend([
                json!({ "phone": more[0] }),
                json!({ "external": { "provider": "salesforce", "id": more[1] } }),
            ]);
            canaries.extend(more.map(str::to_owned));
        }
        let answer = gateway.post("acme", &json!({ "contacts": asked })).await;
        gateway.stop().await;
        let (said, text) = recording.stop().await;

        // The gateway was told what the upstream said, and the upstream what the gateway asked.
        assert_eq!(answer.outcomes()[0], "deleted", "{dialect}: {}", answer.text);
        assert_eq!(mock.deleted(), [id(&canaries[0])], "{dialect}");
        assert!(["rejected", "failed"].contains(&answer.outcomes()[1]), "{dialect}: {}", answer.text);
        assert!(["not_found", "failed"].contains(&answer.outcomes()[2]), "{dialect}: {}", answer.text);

        canaries.extend(secrets(&connection));
        let journal = mock.journal();
        let shown = journal.iter().flat_map(|entry| entry.headers.get_all(credential_header(dialect)));
        canaries.extend(shown.map(|value| value.to_str().unwrap().rsplit(' ').next().unwrap().to_owned()));
        has_none(dialect, &text, &canaries);
        has_none(dialect, &said.err, &canaries);
        has_none(dialect, &said.out, &canaries);
        let file: Value = serde_json::from_str(&text).unwrap();
        let exchanges = file["exchanges"].as_array().unwrap();
        assert_eq!(exchanges.len(), journal.len(), "{dialect}: {text}");
        assert_eq!(said.err.matches("\n").count(), 1 + exchanges.len(), "{dialect}: a line each\n{}", said.err);
        assert!(!said.err.contains("changed what") && !said.err.contains("not what"), "{dialect}: {}", said.err);

        let report = conform("recorded.json", &text, &["--output", "json"]).await;
        assert_eq!(report.code, Some(0), "{dialect}: {}\n{}\n{text}", report.out, report.err);
        let report: Value = serde_json::from_str(&report.out).unwrap();
        assert_eq!(report["percent"], 100.0, "{dialect}");
        let recorded = report["files"][0]["recorded"].as_array().unwrap();
        let mut made: Vec<_> =
            recorded.iter().filter_map(|each| each["made"]["outcomes"].as_array()).flatten().collect();
        assert_eq!(made.len(), asked.len(), "{dialect}");
        // Calls of one contact may go out in any order.
        let mut told: Vec<_> = answer.outcomes();
        told.sort_unstable();
        made.sort_by_key(|each| each["outcome"].as_str().unwrap().to_owned());
        assert_eq!(made.iter().map(|each| each["outcome"].as_str().unwrap()).collect::<Vec<_>>(), told, "{dialect}");

        each_change_is_named(dialect, &file).await;
        mock.stop().await;
    }
}

fn credential_header(dialect: &str) -> &'static str {
    DIALECTS.iter().find(|each| each.profile.id == dialect).unwrap().profile.auth.header
}

/// Changes one field of a recording after the other, each by itself.
async fn each_change_is_named(dialect: &str, file: &Value) {
    let exchanges = file["exchanges"].as_array().unwrap();
    let n = exchanges.iter().position(|each| each["request"]["method"] == "DELETE").unwrap();
    let name = exchanges[n]["name"].as_str().unwrap();
    let mut places = vec![("/request/method", "request.method"), ("/request/path", "request.path")];
    places.push(("/request/headers/accept", "request.headers.accept"));
    let text = exchanges[n]["request"]["body"].to_string();
    places.extend(text.contains("link_ids").then_some(("/request/body/link_ids/0", "request.body.link_ids[0]")));
    places.extend(text.contains("\"ids\"").then_some(("/request/body/ids/1", "request.body.ids[1]")));
    places.extend(text.starts_with("[{\"id\"").then_some(("/request/body/0/id", "request.body[0].id")));
    for (place, field) in places {
        let mut changed = file.clone();
        *changed.pointer_mut(&format!("/exchanges/{n}{place}")).unwrap() = "/other".into();
        let report = conform("changed.json", &changed.to_string(), &[]).await;
        assert_eq!(report.code, Some(1), "{dialect} {field}: {}{}", report.out, report.err);
        let line = format!("changed.json: {name}: {field}: ");
        assert_eq!(report.out.matches(&line).count(), 1, "{dialect} {field}: {}", report.out);
        assert!(!report.out.contains("100 %"), "{dialect} {field}: {}", report.out);
    }
    let mut changed = file.clone();
    let right = json!([{ "outcome": "skipped" }]);
    changed["exchanges"][n]["outcomes"] = right;
    let report = conform("changed.json", &changed.to_string(), &[]).await;
    assert!(report.out.contains(&format!("{name}: outcomes[0].outcome: expected skipped, is ")), "{}", report.out);
}

#[tokio::test]
async fn nothing_that_an_upstream_says_of_people_is_written_down() {
    let reply = json!({
        "totalRequested": 2, "successful": 2, "failed": 0,
        "successfulRecords": [
            { "id": "C0FFEE12DEAD4BEE8F00AAA1", "contact": { "_id": "c0ffee12dead4bee8f00aaa1", "displayName": "Zora Canary",
              "email": "zora@canary.example", "nick_name": "zora", "phone": "+4930555888", "streamId": "st-canary-stream",
              "customer": 88442211, "link": "https://canary.example/c/c0ffee12dead4bee8f00aaa1", "status": "soft_deleted",
              "created_by": "c0ffee99dead4bee8f00aaa1", "zora@canary.example": 1 } },
            { "id": "c0ffee11dead4bee8f00aaa1" },
        ],
        "failedRecords": [], "accountId": "canary-account",
    });
    let text = Bytes::from(reply.to_string());
    let upstream = mock("kore_ai").await;
    upstream.answer_with(move |_| {
        let reply = Response::builder().status(200).header("content-type", "application/json; charset=utf-8");
        let reply = reply.header("set-cookie", "canary-cookie=1").header("x-canary", "canary-header");
        Some(reply.header("location", "https://canary.example/x").body(text.clone()).unwrap())
    });
    let mut connection = upstream.connection_toml();
    connection.insert("stream_id".to_owned(), "st-canary-stream".into());
    connection.insert("account_id".to_owned(), "canary-account".into());
    connection.insert(
        "credentials".to_owned(),
        toml::Table::from_iter([("jwt".to_owned(), "plain:canary.jwt.x".into())]).into(),
    );
    let base = connection["base_url"].as_str().unwrap();
    let set = ["stream_id=st-canary-stream", "account_id=canary-account"].map(str::to_owned);
    let arguments = ["--upstream", base, "--dialect", "kore_ai", "--set", &set[0], "--set", &set[1]];
    let recording = Recording::start(&arguments).await;
    recording.lead_here(&mut connection);
    let gateway = Setup::new().connection("acme", "c", connection).start().await;
    let ids = ["c0ffee11dead4bee8f00aaa1", "c0ffee12dead4bee8f00aaa1"];
    let answer = gateway.post("acme", &json!({ "contacts": ids })).await;
    assert_eq!(answer.outcomes(), ["deleted"; 2], "{}", answer.text);
    // Neither a delete nor a sign-in: it is passed on and leaves no trace.
    let other = reqwest::Client::new().get(format!("{}/canary-path?canary=1", recording.base_url));
    let other = other.header("connection", "x-hop").header("x-hop", "1").header("x-kept", "1").send().await.unwrap();
    assert_eq!((other.status().as_u16(), other.headers()["x-canary"].to_str().unwrap()), (200, "canary-header"));
    let arrived = upstream.journal();
    assert_eq!(arrived[1].path, "/canary-path?canary=1");
    assert!(arrived[1].headers.contains_key("x-kept") && !arrived[1].headers.contains_key("x-hop"));
    gateway.stop().await;
    let (said, text) = recording.stop().await;
    upstream.stop().await;

    let canaries = ["canary", "c0ffee", "zora", "4930555888", "88442211", "x-hop"].map(str::to_owned);
    has_none("the file", &text, &canaries);
    has_none("what it says", &said.err, &canaries);
    assert!(said.err.contains("2: 200, passed on and not recorded"), "{}", said.err);
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["exchanges"].as_array().unwrap().len(), 1, "{text}");
    let exchange = &file["exchanges"][0];
    assert_eq!(exchange["request"]["headers"]["auth"], "<credential>", "{text}");
    assert_eq!(exchange["response"]["headers"]["location"], "<url>", "{text}");
    let body = exchange["response"]["body"].as_str().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let record = &body["successfulRecords"][0];
    assert_eq!(record["id"], record["contact"]["_id"], "{body}");
    assert_eq!(record["contact"]["displayName"], "<text>", "{body}");
    assert_eq!(record["contact"]["status"], "soft_deleted", "{body}");

    let report = conform("recorded.json", &text, &[]).await;
    assert_eq!(report.code, Some(0), "{}{}", report.out, report.err);
    for new in
        ["response.body.successfulRecords[].contact: is in no fixture with status 200", "response.body.accountId: "]
    {
        assert!(report.out.contains(new), "{}", report.out);
    }
    assert!(report.out.contains("2 deleted"), "{}", report.out);
}

#[tokio::test]
async fn a_recorder_stays_on_loopback_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there.json");
    std::fs::write(&there, "kept").unwrap();
    let out = there.to_str().unwrap();
    let upstream = ["--upstream", "http://127.0.0.1:9", "--dialect", "wethod"];
    for wrong in [
        &["--listen", "0.0.0.0:0", "--out", "unused.json"][..],
        &["--listen", "127.0.0.1:0", "--out", out],
        &["--listen", "127.0.0.1:0", "--out", "unused.json", "--set", "tokn=1"],
        &["--listen", "127.0.0.1:0"],
    ] {
        let run = run(&[&["record"], &upstream[..], wrong].concat(), &[]).await;
        assert_eq!(run.code, Some(2), "{wrong:?}: {}", run.err);
    }
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "kept");
    assert!(!Path::new("unused.json").exists());
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_no_exchange() {
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let base = format!("http://{free}");
    let recording = Recording::start(&["--upstream", &base, "--dialect", "wethod"]).await;
    let asked = reqwest::Client::new().delete(format!("{}/api/contact/77317731", recording.base_url));
    assert!(asked.send().await.is_err(), "an answer was made up");
    let (said, text) = recording.stop().await;
    assert!(said.err.contains("no whole reply") && !said.err.contains("77317731"), "{}", said.err);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["exchanges"], json!([]));
}

#[tokio::test]
async fn all_shipped_exchanges_hold() {
    let report = run(&["conform", "--shipped"], &[]).await;
    assert_eq!(report.code, Some(0), "{}{}", report.out, report.err);
    assert_eq!(report.out.matches("100 %").count(), DIALECTS.len() + 1, "{}", report.out);
}

#[tokio::test]
async fn an_unreadable_file_is_named_with_the_place_in_it() {
    let whole = json!({ "dialect": "wethod", "exchanges": [{ "name": "a", "source": "recorded", "why": "", "contacts": [{ "id": "77317731" }],
        "request": { "method": "DELETE", "path": "/api/contact/77317731", "headers": {}, "body": null },
        "response": { "status": 204, "headers": {}, "body": "" }, "outcomes": [] }] });
    assert_eq!(conform("f.json", &whole.to_string(), &[]).await.code, Some(0));
    for (place, value, named) in [
        ("/dialect", json!("none"), "f.json: dialect: "),
        ("/exchanges/0/response/status", json!("77317731"), "f.json: exchanges[0].response.status: "),
        ("/exchanges/0/contacts/0", json!({ "it": "77317731" }), "f.json: exchanges[0].contacts[0]"),
        ("/exchanges/0", json!(7), "f.json: exchanges[0]: "),
    ] {
        let mut changed = whole.clone();
        *changed.pointer_mut(place).unwrap() = value;
        let report = conform("f.json", &changed.to_string(), &[]).await;
        assert_eq!((report.code, report.out.as_str()), (Some(2), ""), "{place}");
        assert!(report.err.contains(named) && !report.err.contains("77317731"), "{place}: {}", report.err);
    }
    let mut settings = whole.clone();
    settings["exchanges"][0]["settings"] = json!({ "path": "../x" });
    let report = conform("f.json", &settings.to_string(), &[]).await;
    assert!(report.code == Some(2) && report.err.contains("f.json: exchanges[0].settings.path: "), "{}", report.err);
    assert_eq!(run(&["conform"], &[]).await.code, Some(2));
    assert_eq!(run(&["conform", "no-such-file.json"], &[]).await.code, Some(2));
}
