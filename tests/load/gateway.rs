//! The program as a child process on a core of its own, and what the system says of it.
//!
//! Linux alone: memory, descriptors and processor time are read from `proc(5)`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::caller::Caller;
use crate::{Wrong, within};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(40);

/// A configuration and the folder that it is in, with the store and the log.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

/// A running gateway. It is killed when it is dropped.
pub(crate) struct Gateway {
    child: Child,
    log: PathBuf,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// What the system says of the process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    pub(crate) rss_kib: u64,
    pub(crate) descriptors: usize,
}

/// The key of a tenant.
pub(crate) fn key(tenant: &str) -> String {
    format!("odk_load-test-key-{tenant}-{}", "0123456789".repeat(4))
}

/// Whether anything here can run on this machine.
pub(crate) fn is_possible() -> Result<(), Wrong> {
    let here = std::fs::metadata("/proc/self/status").is_ok();
    if here { Ok(()) } else { Err("there is no /proc".to_owned()) }
}

/// Whether callers and mocks have one core, and the gateway another.
pub(crate) fn is_apart() -> bool {
    cores() > 1 && Command::new("taskset").arg("--version").stdout(Stdio::null()).status().is_ok()
}

/// All cores of the machine that this process may use, before it stepped aside.
fn cores() -> usize {
    static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Keeps this process to the last core.
pub(crate) fn step_aside() {
    if is_apart() {
        let (core, pid) = ((cores() - 1).to_string(), std::process::id().to_string());
        let _ = Command::new("taskset").args(["-a", "-p", "-c", &core, &pid]).stdout(Stdio::null()).status();
    }
}

impl Site {
    /// Settings, and tenants with their connections. Listeners take free ports.
    pub(crate) fn new(settings: &str, tenants: &[(&str, toml::Table)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tenants")).unwrap();
        for (name, connections) in tenants {
            let sha256 = onedelete::api::sha256_hex(&key(name));
            let keys = format!("id = {name:?}\n[[api_keys]]\nname = \"all\"\nsha256 = {sha256:?}\n");
            let mut tenant: toml::Table = keys.parse().unwrap();
            tenant.insert("connections".to_owned(), connections.clone().into());
            let file = folder.path().join(format!("tenants/{name}.toml"));
            std::fs::write(file, toml::to_string(&tenant).unwrap()).unwrap();
        }
        let mut table: toml::Table = settings.parse().unwrap();
        let server = table.entry("server").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
        server.insert("listen".to_owned(), "127.0.0.1:0".into());
        server.insert("admin_listen".to_owned(), "127.0.0.1:0".into());
        let log = table.entry("log").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
        log.insert("format".to_owned(), "json".into());
        std::fs::write(folder.path().join("onedelete.toml"), toml::to_string(&table).unwrap()).unwrap();
        Self { folder }
    }

    /// Bytes of the store's files, if it has a file `ledger.db`.
    pub(crate) fn store_bytes(&self) -> u64 {
        let size = |name| std::fs::metadata(self.folder.path().join(name)).map_or(0, |data| data.len());
        size("ledger.db") + size("ledger.db-wal")
    }

    /// Starts the program and waits until it listens.
    pub(crate) async fn start(&self) -> Result<Gateway, Wrong> {
        let program = env!("CARGO_BIN_EXE_onedelete");
        let mut command = Command::new(if is_apart() { "taskset" } else { program });
        if is_apart() {
            command.args(["-c", "0", program]);
        }
        let log = self.folder.path().join("log");
        let stderr = std::fs::File::create(&log).unwrap();
        command.args(["serve", "--config"]).arg(self.folder.path().join("onedelete.toml"));
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("NO_COLOR", "1");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let child = child.map_err(|err| format!("the gateway cannot be run: {err}"))?;
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        // Killed whatever fails from here on.
        let mut gateway = Gateway { child, log, public: none, admin: none };
        let listening = async {
            loop {
                if let Some(found) = gateway.lines().iter().find_map(addresses) {
                    return Ok(found);
                }
                if let Some(status) = gateway.child.try_wait().unwrap() {
                    return Err(format!("the gateway did not start: {status}; {:?}", gateway.lines()));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (public, admin) = within("the gateway's start", START, listening).await??;
        (gateway.public, gateway.admin) = (public, admin);
        Ok(gateway)
    }
}

impl Gateway {
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How often it has logged this message so far.
    pub(crate) fn said(&self, message: &str) -> usize {
        self.lines().iter().filter(|line| line["message"] == message).count()
    }

    /// The messages of its warnings and errors, each with how often it was logged.
    pub(crate) fn complaints(&self) -> Vec<(String, usize)> {
        let mut messages = std::collections::BTreeMap::new();
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // What is no JSON is no line of the log's: a panic, for one.
        for line in text.lines().filter(|line| !line.contains("\"INFO\"")) {
            let message = serde_json::from_str::<Value>(line).ok();
            let message = message.and_then(|line| Some(line["message"].as_str()?.to_owned()));
            *messages.entry(message.unwrap_or_else(|| line.to_owned())).or_default() += 1;
        }
        messages.into_iter().collect()
    }

    /// How its calls to upstreams ended so far: by status or by how they were lost, as its metrics have it.
    pub(crate) async fn calls(&self) -> String {
        let Ok(mut caller) = Caller::connect([127, 0, 0, 1].into(), self.admin).await else { return String::new() };
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", self.admin);
        let Ok(page) = caller.ask(request.as_bytes()).await else { return String::new() };
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for line in String::from_utf8_lossy(page.body).lines() {
            let count = line.strip_prefix("onedelete_calls_total{").and_then(|line| {
                let status = line.split("status=\"").nth(1)?.split('"').next()?;
                Some((status.to_owned(), line.rsplit(' ').next()?.parse::<u64>().ok()?))
            });
            if let Some((status, count)) = count.filter(|(_, count)| *count > 0) {
                *counts.entry(status).or_default() += count;
            }
        }
        counts.iter().map(|(status, count)| format!("{count} {status}")).collect::<Vec<_>>().join(", ")
    }

    /// What its metrics say of what waits, and why: all gauges that are not 0.
    pub(crate) async fn waits(&self) -> String {
        let Ok(mut caller) = Caller::connect([127, 0, 0, 1].into(), self.admin).await else { return String::new() };
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", self.admin);
        let Ok(page) = caller.ask(request.as_bytes()).await else { return String::new() };
        let page = String::from_utf8_lossy(page.body);
        let gauges: Vec<_> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge")).collect();
        let shown = |line: &&str| !line.ends_with(" 0") && gauges.iter().any(|gauge| line.starts_with(gauge));
        page.lines().filter(shown).collect::<Vec<_>>().join("; ")
    }

    /// Memory and descriptors now.
    pub(crate) fn vitals(&self) -> Vitals {
        let pid = self.child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Vitals { rss_kib, descriptors }
    }

    /// Processor time that it has used so far.
    pub(crate) fn worked(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 wherever Linux has a stable interface.
        Duration::from_millis(ticks * 10)
    }

    /// SIGTERM, and waits for an end in order.
    pub(crate) async fn stop(mut self) -> Result<(), Wrong> {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let status = within("the gateway's end", STOP, ended).await?;
        if status.success() { Ok(()) } else { Err(format!("the gateway ended with {status}")) }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn addresses(line: &Value) -> Option<(SocketAddr, SocketAddr)> {
    let address = |name: &str| line[name].as_str()?.parse().ok();
    Some((address("public")?, address("admin")?))
}
