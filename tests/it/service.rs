//! The gateway as a service: what it tells the service manager, its health check, its version, manual and completions.
//!
//! The files under `packaging/` are held to what Rust can see of them in `packaging`; the rest is `tests/packaging/run`.

use std::io::BufReader;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use onedelete::mock::Fault;

use crate::cli::{JSON_LOG, Served, Watched, ended, lines_until, program, run, serve, terminate};
use crate::support::{Setup, id, ids, key, mock, raw, within};

/// The next message that comes in.
fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1_024];
    let length = socket.recv(&mut bytes).expect("nothing is told");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// A gateway that tells this socket; it has been stopped in order. What it told.
async fn told(name: &str, socket: UnixDatagram, more: &[(&str, &str)], alive: usize) -> Vec<String> {
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "c", &mock, |_| {});
    let config = setup.write().join("onedelete.toml");
    let variables: Vec<_> = [("NOTIFY_SOCKET", name)].iter().chain(more).copied().collect();
    let mut child = Watched(program(&["serve", "--config", config.to_str().unwrap()], &variables).spawn().unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        let mut all = vec![heard(&socket)];
        while all.len() <= alive {
            all.push(heard(&socket));
        }
        (all, socket)
    });
    let (mut all, socket) = within("what is told at the start", reading).await.unwrap();
    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    let start = lines_until(&mut log, "listening");
    assert!(start.contains("listening"));
    terminate(&child).await;
    child.0.stderr = Some(log.into_inner());
    let end = within("the end of serve", ended(child)).await;
    assert_eq!(end.code, Some(0), "{}", end.err);
    let rest = tokio::task::spawn_blocking(move || {
        while !all.last().is_some_and(|last| last.starts_with("STOPPING=1")) {
            all.push(heard(&socket));
        }
        all
    });
    within("what is told at the end", rest).await.unwrap()
}

#[tokio::test]
async fn the_service_manager_is_told_of_the_start_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let all = told(path.to_str().unwrap(), socket, &[], 0).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].starts_with("READY=1") && all[1].starts_with("STOPPING=1"), "{all:?}");
}

#[tokio::test]
async fn an_abstract_socket_is_told_too_and_that_the_process_is_alive() {
    let name = format!("onedelete-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let all = told(&format!("@{name}"), socket, &[("WATCHDOG_USEC", "100000")], 3).await;
    assert!(all[0].starts_with("READY=1"), "{all:?}");
    assert!(all[1..all.len() - 1].iter().all(|each| each == "WATCHDOG=1") && all.len() >= 5, "{all:?}");
}

#[tokio::test]
async fn a_socket_that_is_not_there_holds_nobody_up() {
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "c", &mock, |_| {});
    let config = setup.write().join("onedelete.toml");
    for name in ["/no/such/socket", "vsock:2:1", ""] {
        let variables = [("NOTIFY_SOCKET", name)];
        let mut child = Watched(program(&["serve", "--config", config.to_str().unwrap()], &variables).spawn().unwrap());
        let mut log = BufReader::new(child.0.stderr.take().unwrap());
        lines_until(&mut log, "listening");
        terminate(&child).await;
        child.0.stderr = Some(log.into_inner());
        assert_eq!(within("the end of serve", ended(child)).await.code, Some(0), "{name}");
    }
}

/// A metric without labels.
async fn metric(admin: std::net::SocketAddr, name: &str) -> Option<f64> {
    let page = raw(admin, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.text;
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn the_age_of_the_oldest_deletion_grows_until_it_is_over() {
    let mock = mock("wethod").await;
    let known = ids("wethod", 1).remove(0);
    mock.seed(&id(&known), false);
    mock.fault(Fault::Hold);
    let folder = Setup::new().mock("acme", "c", &mock, |_| {});
    let served = serve(&folder.write(), &JSON_LOG[..1]);
    let name = "onedelete_oldest_pending_seconds";
    let body = format!("{{\"contacts\": [{known:?}]}}");
    let head = format!(
        "POST /v1/deletions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nPrefer: respond-async\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        key("acme"),
        body.len()
    );
    assert_eq!(metric(served.admin, name).await, Some(0.0));
    let accepted = raw(served.public, head + &body).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let grows = async {
        let mut ages = Vec::new();
        while ages.len() < 2 {
            let age = metric(served.admin, name).await.unwrap();
            // Made just now: not since 1970.
            assert!(age < 3_600.0, "{age}");
            if ages.last().copied().unwrap_or(0.0) < age {
                ages.push(age);
            }
        }
    };
    within("an age that grows", grows).await;
    let freed = async {
        while mock.release(1) == 0 {
            metric(served.admin, name).await;
        }
    };
    within("a call to let go", freed).await;
    let over = async { while metric(served.admin, name).await != Some(0.0) {} };
    within("the end of the deletion", over).await;
    terminate(&served.child).await;
    let Served { mut child, log, .. } = served;
    child.0.stderr = Some(log.into_inner());
    assert_eq!(within("the end of serve", ended(child)).await.code, Some(0));
}

#[tokio::test]
async fn a_health_check_ends_with_0_only_if_the_gateway_is_ready() {
    let mock = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
    let admin = gateway.admin;
    let config = gateway.folder().join("onedelete.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let url = |path: &str| format!("http://{admin}{path}");
    for (arguments, says) in [
        (vec!["--url".to_owned(), url("/readyz")], "ready"),
        (vec!["--url".to_owned(), url("/")], "ready"),
        (vec!["--url".to_owned(), url("/livez")], "alive"),
    ] {
        let arguments: Vec<_> = ["healthcheck"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let well = run(&arguments, &[]).await;
        assert_eq!((well.code, well.out.trim()), (Some(0), says), "{}", well.err);
    }
    // As the configuration has it, with the address that the gateway got.
    let named = config.with_file_name("named.toml");
    let config_of = |address: &str| {
        std::fs::write(&named, text.replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = {address:?}")))
            .unwrap();
        named.to_str().unwrap().to_owned()
    };
    let path = config_of(&admin.to_string());
    for (more, says) in [(&[][..], "ready"), (&["--live"], "alive")] {
        let well = run(&[&["healthcheck", "--config", &path], more].concat(), &[]).await;
        assert_eq!((well.code, well.out.trim()), (Some(0), says), "{}", well.err);
    }
    // A listener on every address is asked on loopback.
    let path = config_of(&format!("0.0.0.0:{}", admin.port()));
    let everywhere =
        run(&["healthcheck"], &[("ONEDELETE_CONFIG", &path), ("ONEDELETE__SERVER__BEHIND_TLS", "true")]).await;
    assert_eq!(everywhere.code, Some(0), "{}", everywhere.err);

    // It has no TLS, and says what to do instead of a failure that nobody understands.
    let secure = text.replace("[server]", "[server]\ntls = { certificate = \"c.pem\", key = \"k.pem\", admin = true }");
    std::fs::write(&named, secure).unwrap();
    let secure = run(&["healthcheck", "--config", named.to_str().unwrap()], &[]).await;
    assert_eq!(secure.code, Some(2), "{}", secure.err);
    assert!(secure.err.contains("server.tls.admin is true") && secure.err.contains("curl --cacert"), "{}", secure.err);

    let elsewhere = run(&["healthcheck", "--url", &url("/nowhere")], &[]).await;
    assert_eq!((elsewhere.code, elsewhere.out.as_str()), (Some(1), ""));
    assert!(elsewhere.err.contains("404"), "{}", elsewhere.err);
    for wrong in [&["--url", "https://127.0.0.1:1/readyz"][..], &["--config", "/no/such.toml"], &["--url", "/readyz"]] {
        assert_eq!(run(&[&["healthcheck"], wrong].concat(), &[]).await.code, Some(2), "{wrong:?}");
    }
    gateway.stop().await;
    let gone = run(&["healthcheck", "--url", &url("/readyz")], &[]).await;
    assert_eq!((gone.code, gone.out.as_str()), (Some(1), ""), "{}", gone.err);
}

#[tokio::test]
async fn a_health_check_waits_for_nobody_for_ever() {
    // It accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", silent.local_addr().unwrap());
    let waited = run(&["healthcheck", "--timeout-ms", "50", "--url", &url], &[]).await;
    assert_eq!((waited.code, waited.out.as_str()), (Some(1), ""), "{}", waited.err);
    assert!(waited.err.contains("does not answer"), "{}", waited.err);
}

#[tokio::test]
async fn the_version_says_what_it_was_built_from() {
    for option in ["--version", "-V"] {
        let told = run(&[option], &[]).await;
        let rest = told.out.trim().strip_prefix(concat!("onedelete ", env!("CARGO_PKG_VERSION"), " (commit ")).unwrap();
        assert!(told.code == Some(0) && rest.ends_with(')'), "{}", told.out);
    }
}

#[tokio::test]
async fn every_command_has_a_page_in_the_manual() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("man");
    let made = run(&["man", target.to_str().unwrap()], &[]).await;
    assert_eq!((made.code, made.out.as_str()), (Some(0), ""), "{}", made.err);
    let help = run(&["--help"], &[]).await.out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> =
        commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(names.len() >= 12, "{names:?}");
    for name in names
        .iter()
        .map(|name| format!("onedelete-{name}"))
        .chain(["onedelete", "onedelete-key-new"].map(str::to_owned))
    {
        let page =
            std::fs::read_to_string(target.join(format!("{name}.1"))).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert!(page.contains(".TH ") && page.contains(".SH SYNOPSIS"), "{name}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(run(&["man", file.to_str().unwrap()], &[]).await.code, Some(1));
}

#[tokio::test]
async fn every_failure_ends_with_a_command_to_try() {
    let empty = tempfile::tempdir().unwrap();
    let file = empty.path().join("absent.toml").to_str().unwrap().to_owned();
    let absent = |command: &[&str]| [command, &["--config", &file]].concat().join(" ");
    let all = [
        absent(&["check"]),
        absent(&["serve"]),
        absent(&["plan", "1"]),
        absent(&["healthcheck"]),
        absent(&["store", "check"]),
        absent(&["key", "list"]),
        "healthcheck --url http://127.0.0.1:1/".to_owned(),
        "delete 1 --url http://127.0.0.1:1".to_owned(),
        "delete 1 --url nowhere".to_owned(),
        "mock --dialect none".to_owned(),
        "conform no-such-file.json".to_owned(),
        "key new --connection A/B".to_owned(),
    ];
    for line in all {
        let words: Vec<_> = line.split(' ').collect();
        let told = run(&words, &[("ONEDELETE_KEY", "odk_a-key-of-nobody-0123456789abcdef")]).await;
        assert_ne!(told.code, Some(0), "{line}");
        let named =
            told.err.rsplit_once("onedelete ").map(|(_, rest)| rest.split([' ', '`', ',', '\n']).next().unwrap());
        let named = named.unwrap_or_else(|| panic!("{line}: {}", told.err));
        assert!(told.err.contains("next: ") || told.err.contains("`onedelete "), "{line}: {}", told.err);
        assert_eq!(run(&[named, "--help"], &[]).await.code, Some(0), "{line}: {named}");
    }
}

#[tokio::test]
async fn there_are_completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(&["completions", shell], &[]).await;
        assert_eq!(script.code, Some(0), "{shell}");
        for word in ["healthcheck", "completions", "tenant"] {
            assert!(script.out.contains(word), "{shell} knows no {word}");
        }
        // Read by the shell itself, where there is one.
        let reads = match shell {
            "bash" | "zsh" | "fish" => Command::new(shell).args(["-n", "-c", &script.out]).output(),
            _ => continue,
        };
        if let Ok(read) = reads {
            assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
        }
    }
}
