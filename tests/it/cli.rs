//! The built program, as people and scripts run it: exit codes, what goes to which stream, and that nothing secret does.
//!
//! Every process gets an environment of its own and is ended after a while, whatever it does.
//! Above 500 lines because how a process is run, watched and ended is needed by every test in it and by no other.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use onedelete::mock::Fault;
use serde_json::{Value, json};

use crate::support::{Running, Setup, id, ids, key, mock, raw, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_onedelete");

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn program(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().envs(variables.iter().copied()).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    run_with(program(arguments, variables), "").await
}

pub(crate) async fn run_with(mut command: Command, input: &str) -> Run {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = Watched(command.spawn().unwrap());
    if let Some(mut stdin) = child.0.stdin.take() {
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
    }
    ended(child).await
}

/// A process that does not outlive its test.
pub(crate) struct Watched(pub(crate) Child);

impl Drop for Watched {
    fn drop(&mut self) {
        // It has ended already, in all tests that pass.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it wrote and how it ended, once it has; it is killed if that takes too long.
pub(crate) async fn ended(mut child: Watched) -> Run {
    let (mut out, mut err) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
    let pid = child.0.id().to_string();
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if waiting.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    });
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let read = move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        let output = (child.0.wait().unwrap(), text, errors.join().unwrap());
        drop(done);
        output
    };
    let (status, out, err) = tokio::task::spawn_blocking(read).await.unwrap();
    Run { code: status.code(), out, err }
}

/// A key of the tenant in a run's environment.
pub(crate) fn caller<'a>(url: &'a str, key: &'a str) -> [(&'a str, &'a str); 2] {
    [("ONEDELETE_URL", url), ("ONEDELETE_KEY", key)]
}

pub(crate) async fn terminate(child: &Watched) {
    signal(child, "-TERM").await;
}

pub(crate) async fn signal(child: &Watched, which: &'static str) {
    let pid = child.0.id().to_string();
    let sent = tokio::task::spawn_blocking(move || Command::new("kill").args([which, &pid]).status());
    assert!(sent.await.unwrap().unwrap().success());
}

/// Reads lines of a stream until one has this text; the lines so far.
pub(crate) fn lines_until(stream: &mut impl BufRead, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let read = stream.read_line(&mut all).unwrap();
        assert_ne!(read, 0, "it ended before {text:?}: {all}");
    }
    all
}

#[tokio::test]
async fn the_demo_shows_every_dialect_and_every_outcome() {
    let done = run(&["demo", "--once"], &[]).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    for dialect in adapters::DIALECTS.iter().map(|each| each.profile.id) {
        assert!(done.out.contains(dialect), "{dialect} is not in {}", done.out);
    }
    for outcome in ["deleted", "not_found", "rejected", "failed", "unknown", "skipped"] {
        let rows = done.out.lines().filter(|line| line.split([' ', ',']).any(|word| word == outcome)).count();
        assert!(rows >= 2, "{outcome} is not in the table and the counts: {}", done.out);
    }
    // The last column is the upstream's own word: it must not contradict the one before.
    for row in done.out.lines().filter(|line| line.contains(" deleted ") || line.contains(" not_found ")) {
        assert!(row.trim_end().ends_with("no") || row.starts_with("deletion"), "{row}");
    }
}

/// Runs `check` on a configuration of these texts.
async fn check(settings: &str, tenants: &[(&str, String)], more: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tenants")).unwrap();
    let file = folder.path().join("onedelete.toml");
    std::fs::write(&file, settings).unwrap();
    for (name, text) in tenants {
        std::fs::write(folder.path().join("tenants").join(format!("{name}.toml")), text).unwrap();
    }
    let arguments: Vec<_> = ["check", "--config", file.to_str().unwrap()].iter().chain(more).copied().collect();
    run(&arguments, &[]).await
}

const SETTINGS: &str = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[store]\nurl = \"memory:\"\n\
                        [tenants]\ndirectory = \"tenants\"\n";

/// A tenant's file, with the lines of its connection.
fn tenant(id: &str, connection: &str) -> String {
    let hash = onedelete::api::sha256_hex(&key(id));
    format!(
        "id = \"{id}\"\ndefault_connection = \"sales\"\n\n[[api_keys]]\nname = \"all\"\nsha256 = \"{hash}\"\n\n\
         [connections.sales]\ndialect = \"wethod\"\n{connection}"
    )
}

const SOUND: &str =
    "base_url = \"https://api.wethod.com\"\ncompany = \"acme\"\ncredentials = { token = \"plain:tok3n-canary\" }\n";

/// What is wrong, the settings, the tenant files, and what the first line of the refusal must have.
type Mistake<'a> = (&'a str, &'a str, Vec<(&'a str, String)>, Vec<String>);

#[tokio::test]
async fn check_names_file_line_and_key_of_every_mistake() {
    let fine = check(SETTINGS, &[("acme", tenant("acme", SOUND))], &[]).await;
    assert_eq!(fine.code, Some(0), "{}", fine.err);
    assert!(fine.out.contains("1 tenants, 1 connections"), "{}", fine.out);

    let line = |text: &str, part: &str| format!(":{}", text.lines().position(|line| line.contains(part)).unwrap() + 1);
    let unknown = SETTINGS.replace("url = ", "ulr = \"memory:\"\nurl = ");
    let no_hash_key = SETTINGS.replace("url = ", "hash_key = \"env:NO_SUCH_VARIABLE\"\nurl = ");
    let stray = tenant("acme", &format!("{SOUND}colour = \"red\"\n"));
    let variable = tenant("acme", &SOUND.replace("plain:tok3n-canary", "env:NO_SUCH_VARIABLE"));
    let missing = tenant("acme", &SOUND.replace("plain:tok3n-canary", "file:/no/such/s3cret-file"));
    let bare = tenant("acme", &SOUND.replace("plain:tok3n-canary", "b4re-canary-secret"));
    let http = tenant("acme", &SOUND.replace("https://", "http://"));
    let private = tenant("acme", &SOUND.replace("https://api.wethod.com", "https://10.0.0.1"));
    let dialect = tenant("acme", SOUND).replace("\"wethod\"", "\"whethod\"");
    let sound = tenant("acme", SOUND);
    let twin = tenant("acme", SOUND);
    let cases: Vec<Mistake<'_>> = vec![
        (
            "an unknown setting",
            &unknown,
            vec![("acme", sound.clone())],
            vec!["onedelete.toml".into(), line(&unknown, "ulr"), "ulr".into()],
        ),
        (
            "a secret of the store that leads nowhere",
            &no_hash_key,
            vec![("acme", sound.clone())],
            vec!["onedelete.toml".into(), "store.hash_key".into(), "NO_SUCH_VARIABLE".into()],
        ),
        (
            "an unknown key",
            SETTINGS,
            vec![("acme", stray.clone())],
            vec!["acme.toml".into(), line(&stray, "colour"), "colour".into()],
        ),
        (
            "a missing variable",
            SETTINGS,
            vec![("acme", variable.clone())],
            vec!["acme.toml".into(), line(&variable, "credentials"), "NO_SUCH_VARIABLE".into()],
        ),
        (
            "a missing secret file",
            SETTINGS,
            vec![("acme", missing.clone())],
            vec!["acme.toml".into(), line(&missing, "credentials"), "token".into()],
        ),
        (
            "a bare secret",
            SETTINGS,
            vec![("acme", bare.clone())],
            vec!["acme.toml".into(), line(&bare, "credentials"), "token".into()],
        ),
        (
            "plain http",
            SETTINGS,
            vec![("acme", http.clone())],
            vec!["acme.toml".into(), line(&http, "base_url"), "base_url".into(), "allow_http".into()],
        ),
        (
            "a private address",
            SETTINGS,
            vec![("acme", private.clone())],
            vec!["acme.toml".into(), line(&private, "base_url"), "base_url".into(), "allow_private".into()],
        ),
        (
            "an unknown dialect",
            SETTINGS,
            vec![("acme", dialect.clone())],
            vec!["acme.toml".into(), line(&dialect, "dialect"), "dialect".into()],
        ),
        (
            "one id twice",
            SETTINGS,
            vec![("acme", sound), ("beta", twin)],
            vec!["beta.toml".into(), "acme".into(), "id".into()],
        ),
        ("no TOML", "[server\n", vec![], vec!["onedelete.toml".into(), ":1".into()]),
    ];
    for (what, settings, tenants, expected) in cases {
        let wrong = check(settings, &tenants, &[]).await;
        assert_eq!(wrong.code, Some(2), "{what}: {} {}", wrong.out, wrong.err);
        assert_eq!(wrong.out, "", "{what}");
        let first = wrong.err.lines().next().unwrap();
        for part in &expected {
            assert!(first.contains(part), "{what}: {part} is not in {}", wrong.err);
        }
        for secret in ["canary", "tok3n", "b4re"] {
            assert!(!wrong.err.contains(secret), "{what}: a secret is printed: {}", wrong.err);
        }
    }
    let absent = run(&["check", "--config", "/no/such/onedelete.toml"], &[]).await;
    assert_eq!(absent.code, Some(2));
    assert!(absent.err.contains("/no/such/onedelete.toml"), "{}", absent.err);
    // `serve` and `plan` read the same files and say the same.
    for command in
        [&["serve", "--config", "/no/such/onedelete.toml"][..], &["plan", "--config", "/no/such/onedelete.toml", "1"]]
    {
        let other = run(command, &[]).await;
        assert_eq!(other.code, Some(2), "{}", other.err);
        assert!(other.err.contains("/no/such/onedelete.toml"), "{}", other.err);
    }
    // Without their secrets, files can be checked elsewhere.
    let offline = check(SETTINGS, &[("acme", variable)], &["--offline"]).await;
    assert_eq!(offline.code, Some(0), "{}", offline.err);
}

#[tokio::test]
async fn plan_shows_the_calls_without_the_credential_and_sends_nothing() {
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "sales", &mock, |_| {});
    let folder = setup.write();
    let config = folder.join("onedelete.toml");
    let config = config.to_str().unwrap();
    let known = ids("wethod", 1).remove(0);
    let shown = run(&["plan", "--config", config, &known], &[]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    assert!(shown.out.contains(&format!("DELETE {}/api/contact/{known}", mock.base_url())), "{}", shown.out);
    assert!(shown.out.contains("authorization: Bearer <redacted>"), "{}", shown.out);
    assert!(!shown.out.contains("wethod-demo-personal-token") && !shown.err.contains("wethod-demo-personal-token"));
    let refused = run(&["plan", "--config", config, &known, "filter"], &[]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("contact 1") && refused.err.contains("invalid_identifier"), "{}", refused.err);
    for wrong in [
        &["plan", "--config", config][..],
        &["plan", "--config", config, "--tenant", "nobody", "1"],
        &["plan", "--config", config, "--connection", "nothing", "1"],
        &["plan", "--config", config, "--external", "no-colon"],
        &["plan", "--config", config, "--no-such-option"],
    ] {
        assert_eq!(run(wrong, &[]).await.code, Some(2), "{wrong:?}");
    }
    assert!(mock.journal().is_empty());
}

async fn gateway(mock: &onedelete::mock::Mock) -> (Running, String) {
    let gateway = Setup::new().mock("acme", "sales", mock, |_| {}).start().await;
    let url = gateway.url("");
    (gateway, url)
}

#[tokio::test]
async fn delete_says_by_its_exit_code_whether_all_are_absent() {
    let mock = mock("wethod").await;
    let (gateway, url) = gateway(&mock).await;
    let key = key("acme");
    let variables = caller(&url, &key);
    let known = ids("wethod", 5);
    known.iter().for_each(|each| mock.seed(&id(each), false));

    let table = run(&["delete", "--yes", &known[0]], &variables).await;
    assert_eq!(table.code, Some(0), "{}", table.err);
    assert!(table.out.contains("deleted") && table.out.contains("outcome"), "{}", table.out);
    let whole =
        run(&["delete", "-y", "--output", "json", "--reference", "R-1", &known[1], "absent-of-course"], &variables)
            .await;
    assert_eq!(whole.code, Some(1), "{}", whole.err);
    let parsed: Value = serde_json::from_str(&whole.out).unwrap();
    assert_eq!((&parsed["counts"]["deleted"], &parsed["counts"]["rejected"]), (&json!(1), &json!(1)));
    assert_eq!(parsed["reference"], "R-1");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n\n{{\"id\": {}, \"ref\": \"row-2\"}}\n", known[2], known[3])).unwrap();
    let lines =
        run(&["delete", "--yes", "--output", "jsonl", "--file", file.path().to_str().unwrap()], &variables).await;
    assert_eq!(lines.code, Some(0), "{}", lines.err);
    let results: Vec<Value> = lines.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((results.len(), &results[1]["ref"], &results[1]["outcome"]), (2, &json!("row-2"), &json!("deleted")));
    let piped = run_with(program(&["delete", "--yes", "--file", "-"], &variables), &format!("{}\n", known[4])).await;
    assert_eq!(piped.code, Some(0), "{}", piped.err);
    assert_eq!(mock.deleted().len(), 5);

    let before = mock.journal().len();
    let dry = run(&["delete", "--dry-run", "--output", "json", &known[0]], &variables).await;
    assert_eq!(dry.code, Some(0), "{}", dry.err);
    assert!(dry.out.contains("would_delete"), "{}", dry.out);
    let closed = TcpPort::closed();
    let nobody = format!("http://127.0.0.1:{}", closed.0);
    for (what, code, arguments, variables) in [
        ("no leave and no terminal", 2, vec!["delete", &known[0]], variables.to_vec()),
        ("no contacts", 2, vec!["delete", "--yes"], variables.to_vec()),
        ("too many", 2, vec!["delete", "--yes", "--max", "1", &known[0], &known[1]], variables.to_vec()),
        ("no key", 2, vec!["delete", "--yes", &known[0]], vec![variables[0]]),
        ("no key file", 2, vec!["delete", "--yes", "--key-file", "/no/such/key", &known[0]], variables.to_vec()),
        (
            "a wrong key",
            2,
            vec!["delete", "--yes", &known[0]],
            vec![variables[0], ("ONEDELETE_KEY", "odk_0123456789012345678901234567890123456789")],
        ),
        ("a wrong connection", 2, vec!["delete", "--yes", "--connection", "nothing", &known[0]], variables.to_vec()),
        ("a wrong word", 2, vec!["delete", "--yes", "--output", "xml", &known[0]], variables.to_vec()),
        ("nobody there", 3, vec!["delete", "--yes", "--url", &nobody, &known[0]], variables.to_vec()),
    ] {
        let wrong = run(&arguments, &variables).await;
        assert_eq!(wrong.code, Some(code), "{what}: {} {}", wrong.out, wrong.err);
        assert_eq!(wrong.out, "", "{what}");
        assert!(!wrong.err.contains(&key), "{what}: the key is printed");
    }
    assert_eq!(mock.journal().len(), before, "something was sent");
    gateway.stop().await;
}

/// A port where nobody listens: it was free a moment ago.
struct TcpPort(u16);

impl TcpPort {
    fn closed() -> Self {
        Self(std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port())
    }
}

#[tokio::test]
async fn dialects_and_completions_are_printed() {
    let table = run(&["dialects"], &[]).await;
    let list = run(&["dialects", "--output", "json"], &[]).await;
    assert_eq!((table.code, list.code), (Some(0), Some(0)));
    let list: Vec<Value> = serde_json::from_str(&list.out).unwrap();
    assert_eq!(list.len(), adapters::DIALECTS.len());
    for each in &list {
        assert!(table.out.contains(each["id"].as_str().unwrap()), "{}", table.out);
    }
    let script = run(&["completions", "bash"], &[]).await;
    assert_eq!(script.code, Some(0));
    let Output { status, .. } = Command::new("bash").args(["-n", "-c", &script.out]).output().unwrap();
    assert!(status.success() && script.out.contains("onedelete"), "no script that bash can read");
    for wrong in [&[][..], &["no-such-command"], &["completions", "no-such-shell"], &["mock", "--dialect", "none"]] {
        assert_eq!(run(wrong, &[]).await.code, Some(2), "{wrong:?}");
    }
}

/// A `serve` that is up: the process, the rest of its log, what it logged so far, its public and its admin address.
pub(crate) struct Served {
    pub(crate) child: Watched,
    pub(crate) log: BufReader<std::process::ChildStderr>,
    start: String,
    pub(crate) public: std::net::SocketAddr,
    pub(crate) admin: std::net::SocketAddr,
}

pub(crate) fn serve(folder: &Path, variables: &[(&str, &str)]) -> Served {
    let config = folder.join("onedelete.toml");
    let mut child = Watched(program(&["serve", "--config", config.to_str().unwrap()], variables).spawn().unwrap());
    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    let start = lines_until(&mut log, "\"listening\"");
    let line: Value = serde_json::from_str(start.lines().last().unwrap()).unwrap();
    let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
    let (public, admin) = (address("public"), address("admin"));
    Served { child, log, start, public, admin }
}

pub(crate) const JSON_LOG: [(&str, &str); 2] =
    [("ONEDELETE__LOG__FORMAT", "json"), ("ONEDELETE__LOG__FILTER", "trace")];

#[tokio::test]
async fn a_new_key_opens_a_gateway_that_serves_until_it_is_told_to_stop() {
    let made = run(&["key", "new", "--name", "crm-sync"], &[]).await;
    assert_eq!(made.code, Some(0));
    let key = made.out.trim();
    assert!(key.starts_with("odk_") && key.len() >= 46 && !made.err.contains(key));
    assert!(made.err.contains("crm-sync"), "{}", made.err);
    let hash = made.err.split('"').find(|text| text.len() == 64).unwrap();
    let another = run(&["key", "new"], &[]).await;
    assert_ne!(another.out.trim(), key);

    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "sales", &mock, |_| {});
    let folder = setup.write();
    let file = folder.join("tenants/acme.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let old = onedelete::api::sha256_hex(&crate::support::key("acme"));
    std::fs::write(&file, text.replace(&old, hash)).unwrap();

    let served = serve(&folder, &JSON_LOG);
    let ready = raw(served.admin, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((ready.status, &ready.json["status"]), (200, &"ready".into()), "{}", ready.text);
    let url = format!("http://{}", served.public);
    let known = ids("wethod", 1).remove(0);
    mock.seed(&id(&known), false);
    let done = run(&["delete", "--yes", &known], &caller(&url, key)).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    let refused = run(&["delete", "--yes", &known], &caller(&url, &crate::support::key("acme"))).await;
    assert_eq!(refused.code, Some(2), "the old key still opens it");
    terminate(&served.child).await;
    let Served { mut child, log, .. } = served;
    child.0.stderr = Some(log.into_inner());
    let end = within("the end of serve", ended(child)).await;
    assert_eq!((end.code, end.out.as_str()), (Some(0), ""), "{}", end.err);
    assert_eq!(mock.deleted(), [id(&known)]);
    // The line of the request that asked for a deletion names it, and the others name none.
    let log: Vec<Value> = end.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |message: &str| log.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let [finished] = of("deletion finished")[..] else { panic!("{}", end.err) };
    let asked: Vec<_> = of("answered").into_iter().filter(|line| line["method"] == "POST").collect();
    let named = |line: &&Value| line["deletion"] == finished["deletion"] && line["status"] == 200;
    assert!(finished["deletion"].is_string() && asked.iter().filter(|line| named(line)).count() == 1, "{}", end.err);
    assert!(asked.iter().all(|line| named(line) || line.get("deletion").is_none()), "{}", end.err);
}

#[tokio::test]
async fn the_log_has_no_identifier_no_credential_and_no_upstream_body() {
    let (sales, lists) = (mock("wethod").await, mock("talkdesk").await);
    let key = key("acme");
    let setup = Setup::new()
        .mock("acme", "sales", &sales, |connection| {
            let credentials = "token = \"env:CANARY_TOKEN\"".parse::<toml::Table>().unwrap();
            connection.insert("credentials".to_owned(), credentials.into());
        })
        .mock("acme", "lists", &lists, |_| {})
        .durable();
    let folder = setup.write();
    let variables = [JSON_LOG[0], JSON_LOG[1], ("CANARY_TOKEN", "wethod-demo-personal-token")];
    let mut served = serve(&folder, &variables);
    // The log is read all along, or the pipe would fill and stop the program.
    let (mut log, start) = (served.log, served.start);
    let reading = std::thread::spawn(move || {
        let mut all = start;
        log.read_to_string(&mut all).unwrap();
        all
    });
    let numbers: Vec<String> = (0..6).map(|n| format!("77431902{n}")).collect();
    let url = format!("http://{}", served.public);
    let phone = adapters::Identifier::Phone("+14155559371".into());
    lists.seed(&phone, false);
    numbers.iter().take(4).for_each(|each| sales.seed(&id(each), false));
    sales.fault(Fault::CommitThenDrop);
    sales.fault(Fault::Html(500));
    sales.fault(Fault::Redirect(302, "http://127.0.0.1:9/canary-redirect".to_owned()));
    lists.fault(Fault::Empty(401));
    let path = folder.join("contacts.jsonl");
    let mut lines: Vec<String> = numbers.clone();
    lines.push("{\"phone\": \"+14155559371\", \"connection\": \"lists\", \"ref\": \"canary-ref\"}".to_owned());
    lines.push(
        "{\"external\": {\"provider\": \"canary-provider\", \"id\": \"canary-external\"}, \"connection\": \"lists\"}"
            .to_owned(),
    );
    lines.push("{\"id\": \"canary/../id\"}".to_owned());
    std::fs::write(&path, lines.join("\n")).unwrap();
    let done = run(&["delete", "--yes", "--file", path.to_str().unwrap()], &caller(&url, &key)).await;
    assert_eq!(done.code, Some(1), "{} {}", done.out, done.err);
    // Requests that are refused, and paths with an identifier.
    let with = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n{more}")
    };
    for request in [
        with("DELETE /v1/connections/sales/contacts/774319025", "\r\n"),
        with("DELETE /v1/connections/canary-connection/contacts/774319025", "\r\n"),
        with("GET /v1/canary-path/774319025?canary-query=1", "X-Request-Id: canary id\r\n\r\n"),
        with("POST /v1/deletions", "Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"contacts\": [\"canary-body\", 1"),
        "GET /v1/connections HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary-wrong-key-0123456789012345\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let answer = raw(served.public, request).await;
        assert!(answer.status >= 200, "{}", answer.text);
        let told = format!("{} {:?}", answer.text, answer.headers);
        assert!(!told.contains("canary") && !told.contains("774319025"), "{told}");
    }
    let metrics = raw(served.admin, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.text;
    terminate(&served.child).await;
    let status = tokio::task::spawn_blocking(move || served.child.0.wait().unwrap()).await.unwrap();
    let log = reading.join().unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("deletion finished") && metrics.contains("onedelete_calls_total"), "{log}");
    let texts = numbers.iter().map(String::as_str).chain([
        "4155559371",
        "canary",
        key.as_str(),
        "odk_",
        "wethod-demo-personal-token",
        "talkdesk-demo-client-secret",
        "Bearer ",
        "<html",
        "DOCTYPE",
        "not_found\",\"message",
        "access_token",
    ]);
    for text in texts {
        let at = log.find(text).map(|at| log[..at].rfind('\n').map_or(0, |line| line + 1));
        assert_eq!(at.map(|at| log[at..].lines().next().unwrap_or("")), None, "{text} is in the log");
        assert!(!metrics.contains(text), "{text} is in the metrics");
    }
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "no JSON: {line}");
    }
}

#[tokio::test]
async fn the_mock_prints_connections_and_serves_them() {
    let mut child = Watched(program(&["mock", "--port", "0"], &[]).spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let table = tokio::task::spawn_blocking(move || {
        let text = lines_until(&mut out, "[connections.wethod");
        let rest = lines_until(&mut out, "base_url");
        (text + &rest, out)
    });
    let (text, out) = within("the mock's table", table).await.unwrap();
    for dialect in adapters::DIALECTS.iter().map(|each| each.profile.id) {
        assert!(text.contains(dialect), "{text}");
    }
    let base = text.lines().find_map(|line| line.strip_prefix("base_url = \"http://")).unwrap().trim_end_matches('"');
    let address = base.split('/').next().unwrap().parse().unwrap();
    let answer = raw(address, format!("DELETE / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.status >= 200, "{}", answer.status);
    terminate(&child).await;
    child.0.stdout = Some(out.into_inner());
    assert_eq!(within("the end of the mock", ended(child)).await.code, Some(0));
}
