//! The program as a child process: its configuration, its start under whatever wrapper, its signals and its end.
//!
//! Every wait has an end, and what still runs when its guard goes is killed by its id.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::world::{BATCH, SALES, World};
use crate::{Wrong, within};

/// Attempts for a contact, in the configuration of these tests.
pub(crate) const MAX_ATTEMPTS: u64 = 8;

/// What one of several gateways does not renew for so long, another takes over. Whole seconds.
pub(crate) const LEASE_S: u64 = 3;

/// From the start to the line that says where it listens. Under strace everything takes longer.
const START: Duration = Duration::from_secs(30);
/// From SIGTERM to the end: the configured drain, and what a slow machine adds.
const STOP: Duration = Duration::from_secs(20);

/// Where a gateway lives: its configuration, and the folder of its store, if that has one.
pub(crate) struct Site {
    config: tempfile::TempDir,
    pub(crate) store: PathBuf,
}

/// How the program is started.
#[derive(Default, Clone)]
pub(crate) struct Start {
    /// A program and its arguments that start the gateway's own command, which follows them.
    pub(crate) wrapper: Vec<OsString>,
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

/// A running gateway. It is killed when it is dropped.
pub(crate) struct Gateway {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// A gateway that ended by itself before it listened.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) status: Option<ExitStatus>,
    pub(crate) log: Vec<String>,
}

/// The key of the one tenant.
pub(crate) fn key() -> String {
    format!("odk_crash-test-key-{}", "0123456789".repeat(4))
}

impl Site {
    /// Writes a configuration whose connections lead to the mocks, and whose store is in this folder.
    pub(crate) fn new(world: &World, store: &Path) -> Self {
        let store = store.canonicalize().unwrap();
        let url = format!("sqlite:{}", store.join("ledger.db").display());
        Self::with(world, store, &format!("url = {url:?}"), "off", 4)
    }

    /// The same for several gateways with one store, a database. `rate` is that of the connection `sales`.
    pub(crate) fn shared(world: &World, url: &str, rate: &str) -> Self {
        // The program takes no password in a URL.
        let user_of = |address: &str| Some((address.find("://")? + 3, address.rfind('@')?));
        let (mut url, mut password) = (url.to_owned(), None);
        if let Some((start, end)) = user_of(&url)
            && let Some(colon) = url[start..end].find(':')
        {
            let config: tokio_postgres::Config = url.parse().unwrap();
            password = config.get_password().map(<[u8]>::to_vec);
            url.replace_range(start + colon..end, "");
        }
        let mut store = format!("url = {url:?}, lease_s = {LEASE_S}");
        if password.is_some() {
            store += ", password = \"file:password\"";
        }
        let site = Self::with(world, PathBuf::new(), &store, rate, 12);
        if let Some(password) = password {
            std::fs::write(site.config.path().join("password"), password).unwrap();
        }
        site
    }

    fn with(world: &World, folder: PathBuf, store: &str, rate: &str, in_flight: u32) -> Self {
        let config = tempfile::tempdir().unwrap();
        let settings = format!(
            r#"
            server = {{ listen = "127.0.0.1:0", admin_listen = "127.0.0.1:0", drain_ms = 4000 }}
            store = {{ {store} }}
            deletions = {{ max_contacts = 20000 }}
            tenants = {{ directory = "tenants" }}
            log = {{ format = "json" }}
            [upstream]
            breaker_failures = 1000
            breaker_open_ms = 50
            retry = {{ max_attempts = {MAX_ATTEMPTS}, base_ms = 1, cap_ms = 20, budget_percent = 100 }}
            timeouts = {{ response_ms = 2000 }}
            "#
        );
        std::fs::write(config.path().join("onedelete.toml"), settings).unwrap();
        let mut connections = toml::Table::new();
        for (n, link) in world.links.iter().enumerate() {
            let mut connection = link.mock.connection_toml();
            let rate = if n == SALES { rate } else { "off" };
            connection.insert(
                "limits".to_owned(),
                format!("rate = {rate:?}\nmax_in_flight = {in_flight}").parse::<toml::Table>().unwrap().into(),
            );
            if n == BATCH {
                connection.insert("attribution".to_owned(), "batch".into());
            }
            connections.insert(link.name.to_owned(), connection.into());
        }
        let sha256 = onedelete::api::sha256_hex(&key());
        let mut tenant: toml::Table =
            format!("id = \"acme\"\n[[api_keys]]\nname = \"all\"\nsha256 = {sha256:?}\n").parse().unwrap();
        tenant.insert("connections".to_owned(), connections.into());
        std::fs::create_dir(config.path().join("tenants")).unwrap();
        std::fs::write(config.path().join("tenants/acme.toml"), toml::to_string(&tenant).unwrap()).unwrap();
        Self { config, store: folder }
    }

    /// Starts the program and waits until it listens.
    pub(crate) async fn start(&self) -> Result<Gateway, Wrong> {
        self.start_as(&Start::default())
            .await?
            .map_err(|early| format!("the gateway did not start: {:?}\n{}", early.status, tail(&early.log)))
    }

    /// The same under a wrapper. The outer error is a start that comes to no end.
    pub(crate) async fn start_as(&self, start: &Start) -> Result<Result<Gateway, NotStarted>, Wrong> {
        let mut words = start.wrapper.clone();
        words.push(env!("CARGO_BIN_EXE_onedelete").into());
        words.extend(["serve".into(), "--config".into(), self.config.path().join("onedelete.toml").into()]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("NO_COLOR", "1").envs(start.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|err| format!("{:?} cannot be run: {err}", words[0]))?;

        let log = Arc::new(Mutex::new(Vec::new()));
        let (line_came, mut lines) = watch::channel(0);
        let (kept, stderr) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        // Ends with the process.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
                line_came.send_modify(|count| *count += 1);
            }
        });
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gateway = Gateway { child, log, public: none, admin: none };
        let listening = within("the gateway's start", START, async {
            loop {
                if let Some(found) = gateway.lines().iter().find_map(|line| addresses(line)) {
                    return Some(found);
                }
                if lines.changed().await.is_err() {
                    return gateway.lines().iter().find_map(|line| addresses(line));
                }
            }
        });
        match listening.await? {
            Some((public, admin)) => {
                (gateway.public, gateway.admin) = (public, admin);
                Ok(Ok(gateway))
            }
            None => {
                let status = gateway.ended(STOP).await?;
                Ok(Err(NotStarted { status: Some(status), log: gateway.lines() }))
            }
        }
    }
}

impl Gateway {
    /// What it logged so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// What it logs, which can still be read when it is gone.
    pub(crate) fn log(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.log)
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and waits for an end in order.
    pub(crate) async fn stop(mut self) -> Result<(ExitStatus, Vec<String>), Wrong> {
        self.signal("TERM");
        let status = self.ended(STOP).await?;
        Ok((status, self.lines()))
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        // One that is gone already cannot be told anything.
        let _ = Command::new("kill").args([format!("-{name}"), pid]).stderr(Stdio::null()).status();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, which it was brought to in some other way.
    pub(crate) async fn ended(&mut self, longest: Duration) -> Result<ExitStatus, Wrong> {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                // A process tells nobody but its parent, and only when asked.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        match within("the gateway's end", longest, waiting).await {
            Ok(status) => Ok(status),
            Err(wrong) => Err(format!("{wrong}\n{}", tail(&self.lines()))),
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    Some((address("public")?, address("admin")?))
}

/// The last lines of a log, for people.
pub(crate) fn tail(log: &[String]) -> String {
    log[log.len().saturating_sub(12)..].join("\n")
}
