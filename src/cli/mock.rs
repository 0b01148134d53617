//! `onedelete mock`: the dialects' doubles as HTTP servers, with a control API, for tests of other programs.
//!
//! It listens on loopback unless it is told otherwise, and keeps nothing when it ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use adapters::{DIALECTS, Limit, Registration};
use clap::ValueEnum;
use comfy_table::Cell;
use serde_json::json;

use super::key::new_key;
use super::{Failure, Outcome, interrupted, output};
use crate::api::sha256_hex;
use crate::mock::{Control, Limits, Mocks, Named};

/// The port of the control API, unless free ports are asked for.
const CONTROL_PORT: u16 = 9099;

#[derive(Debug, clap::Args)]
pub(super) struct MockCommand {
    /// What to serve, each as [NAME=]DIALECT[:PORT]; every dialect once, unless given
    #[arg(value_name = "UPSTREAM", conflicts_with = "dialects")]
    upstreams: Vec<Wanted>,
    /// Only these dialects; the same as naming them alone
    #[arg(long = "dialect", value_name = "ID")]
    dialects: Vec<Wanted>,
    /// The port of the first upstream that names none; the others follow. 0 takes free ones
    #[arg(long, default_value_t = 9100)]
    port: u16,
    /// Serve all on this one address, each under /NAME
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "port")]
    one_port: Option<SocketAddr>,
    /// Where the control API listens, or "off" [default: 127.0.0.1:9099, or a free port where the upstreams have free ones]
    #[arg(long, value_name = "ADDRESS:PORT")]
    control: Option<ControlAt>,
    /// Keep to a limit: "vendor" for the documented ones, or REQUESTS/SECONDS for each upstream
    #[arg(long, value_name = "LIMIT", value_parser = limits)]
    limits: Option<Limits>,
    /// Contacts to be there from the start, as JSON Lines: {"upstream": "…", "id": "…", "held": false}
    #[arg(long, value_name = "FILE")]
    seed_file: Option<PathBuf>,
    /// Write a tenant's file with a connection to each upstream and a new key, which is printed; a file that is there is replaced
    #[arg(long, value_name = "FILE")]
    tenant_file: Option<PathBuf>,
    /// How the addresses are printed
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Table,
    /// One line of JSON, once all of them listen
    Json,
}

/// An upstream as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    name: String,
    dialect: String,
    port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ControlAt {
    Off,
    On(SocketAddr),
}

impl MockCommand {
    pub(super) async fn run(self) -> Outcome {
        let interrupted = interrupted();
        let seeds = self.seed_file.as_deref().map(|file| std::fs::read_to_string(file).map_err(|err| at(file, err)));
        let seeds = seeds.transpose()?;
        let mocks = Arc::new(self.start().await?);
        if let (Some(file), Some(text)) = (&self.seed_file, &seeds) {
            mocks.seed_lines(text).map_err(|err| at(file, err))?;
        }
        let control = match self.control_at() {
            ControlAt::Off => None,
            ControlAt::On(address) => {
                let said =
                    |err| Failure::Failed(format!("the control API cannot listen on {address}: {err}; see --control"));
                Some(Control::start(Arc::clone(&mocks), address).await.map_err(said)?)
            }
        };
        let key = self.tenant_file.as_deref().map(|file| write_tenant(file, &mocks)).transpose()?;
        match self.output {
            Form::Table => show(&mocks, control.as_ref(), key.as_deref(), seeds.is_some()),
            Form::Json => print_line(&mocks, control.as_ref(), key.as_deref()),
        }
        interrupted.await;
        if let Some(control) = control {
            control.stop().await;
        }
        // Nobody else has it once the control API is gone; where somebody had, it would end with the program.
        if let Ok(mocks) = Arc::try_unwrap(mocks) {
            mocks.stop().await;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn start(&self) -> Result<Mocks, Failure> {
        let wanted = self.wanted();
        let mut named = Vec::with_capacity(wanted.len());
        for Wanted { name, dialect, port } in wanted {
            named.push((Named { name, registration: find(&dialect)? }, port));
        }
        let failed = |err: std::io::Error| match err.kind() {
            std::io::ErrorKind::InvalidInput => Failure::Usage(err.to_string()),
            _ => Failure::Failed(err.to_string()),
        };
        if let Some(address) = self.one_port {
            if named.iter().any(|(_, port)| port.is_some()) {
                return Err(Failure::Usage("with --one-port no upstream has a port of its own".to_owned()));
            }
            let named = named.into_iter().map(|(named, _)| named);
            return Mocks::start_on_one_port(named, address, self.limits).await.map_err(failed);
        }
        let mut next = self.port;
        let mut listens = Vec::with_capacity(named.len());
        for (named, port) in named {
            let port = match port {
                Some(port) => port,
                None if self.port == 0 => 0,
                None => {
                    next = next.checked_add(1).ok_or_else(|| Failure::Usage("--port is too high".to_owned()))?;
                    next - 1
                }
            };
            listens.push((named, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        Mocks::start(listens, self.limits).await.map_err(failed)
    }

    fn wanted(&self) -> Vec<Wanted> {
        match (&self.upstreams[..], &self.dialects[..]) {
            ([], []) => DIALECTS.iter().map(|registration| Wanted::dialect(registration.profile.id)).collect(),
            (upstreams, []) => upstreams.to_vec(),
            (_, dialects) => dialects.to_vec(),
        }
    }

    fn control_at(&self) -> ControlAt {
        let takes_free_ports = self.one_port.map_or(self.port == 0, |address| address.port() == 0);
        let port = if takes_free_ports { 0 } else { CONTROL_PORT };
        self.control.unwrap_or(ControlAt::On(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
    }
}

impl Wanted {
    fn dialect(id: &str) -> Self {
        Self { name: id.to_owned(), dialect: id.to_owned(), port: None }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, port) = match text.split_once(':') {
            Some((rest, port)) => (rest, Some(port.parse().map_err(|_| format!("{port} is no port"))?)),
            None => (text, None),
        };
        let (name, dialect) = rest.split_once('=').unwrap_or((rest, rest));
        Ok(Self { name: name.to_owned(), dialect: dialect.to_owned(), port })
    }
}

impl FromStr for ControlAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::On).map_err(|_| "neither an address with a port nor \"off\"".to_owned()),
        }
    }
}

fn limits(text: &str) -> Result<Limits, String> {
    if text == "vendor" {
        return Ok(Limits::Vendor);
    }
    let parts = text.split_once('/').and_then(|(n, s)| Some((n.parse().ok()?, s.parse().ok().filter(|s| *s > 0)?)));
    let (requests, window_s) = parts.ok_or("neither \"vendor\" nor REQUESTS/SECONDS, as in 60/60")?;
    Ok(Limits::Of(Limit { requests, window_s }))
}

fn find(id: &str) -> Result<&'static Registration, Failure> {
    let known: Vec<_> = DIALECTS.iter().map(|registration| registration.profile.id).collect();
    adapters::find(id)
        .ok_or_else(|| Failure::Usage(format!("there is no dialect {id}; there are {}", known.join(", "))))
}

fn at(file: &Path, err: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{}: {err}", file.display()))
}

/// Writes a tenant whose one key is returned.
fn write_tenant(file: &Path, mocks: &Mocks) -> Result<String, Failure> {
    let key = new_key()?;
    let hash = toml::Table::from_iter([("name", "mock".to_owned()), ("sha256", sha256_hex(&key))].map(named));
    let mut tenant = toml::Table::from_iter([named(("id", "mock".to_owned()))]);
    if let Some((first, _)) = mocks.iter().next() {
        tenant.insert("default_connection".to_owned(), first.into());
    }
    tenant.insert("api_keys".to_owned(), toml::Value::Array(vec![hash.into()]));
    tenant.insert("connections".to_owned(), connections(mocks).into());
    let text = toml::to_string(&tenant).map_err(|err| at(file, err))?;
    let failed = |err| Failure::Failed(format!("{}: {err}", file.display()));
    std::fs::write(file, text).map_err(failed)?;
    Ok(key)
}

fn named((name, text): (&str, String)) -> (String, toml::Value) {
    (name.to_owned(), text.into())
}

fn connections(mocks: &Mocks) -> toml::Table {
    mocks.iter().map(|(name, mock)| (name.to_owned(), mock.connection_toml().into())).collect()
}

fn show(mocks: &Mocks, control: Option<&Control>, key: Option<&str>, is_seeded: bool) {
    let mut table = output::table(&["upstream", "dialect", "base_url"]);
    for (name, mock) in mocks.iter() {
        let cells = [name, mock.registration().profile.id, mock.base_url()];
        table.add_row(cells.map(Cell::new));
    }
    output::data(&table.to_string());
    if let Some(control) = control {
        output::data(&format!("Control API: {0} (described at {0}/openapi.json)", control.url()));
    }
    if let Some(key) = key {
        output::data(&format!("Key of the tenant: {key}"));
    }
    output::data("A connection for each, ready for a tenant file:");
    for (name, mock) in mocks.iter() {
        let connection = toml::Table::from_iter([(name.to_owned(), mock.connection_toml().into())]);
        let file = toml::Table::from_iter([("connections".to_owned(), connection.into())]);
        output::data(&format!("\n{}", toml::to_string(&file).unwrap_or_default().trim_end()));
    }
    let contacts = if is_seeded { "" } else { "They hold no contacts, so no delete finds anybody. " };
    output::note(&format!("\n{contacts}Ctrl-C ends them."));
}

fn print_line(mocks: &Mocks, control: Option<&Control>, key: Option<&str>) {
    let upstream = |(name, mock): (&str, &crate::mock::Mock)| {
        json!({
            "name": name, "dialect": mock.registration().profile.id, "base_url": mock.base_url(),
            "connection": mock.connection_toml(),
        })
    };
    let upstreams: Vec<_> = mocks.iter().map(upstream).collect();
    output::data(&json!({ "control": control.map(Control::url), "upstreams": upstreams, "key": key }).to_string());
}
