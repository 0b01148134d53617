//! `onedelete demo`: mock upstreams, a real gateway between them and a real client, one deletion with every outcome.
//!
//! It reaches nothing but loopback and leaves nothing behind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adapters::{DIALECTS, Identifier};
use comfy_table::Cell;
use serde::Deserialize;
use serde_json::{Value, json};

use super::key::new_key;
use super::{Failure, Outcome, interrupted, mistakes, output};
use crate::api::sha256_hex;
use crate::app::Gateway;
use crate::mock::{Fault, Mock};
use crate::tenants::Tenants;
use crate::{settings, telemetry, tenants};

const SETTINGS: &str = include_str!("../../config/demo.toml");
const TENANT: &str = include_str!("../../config/tenants/demo.toml");
const SCRIPT: &str = include_str!("../../config/demo.json");

#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Stop after the table
    #[arg(long)]
    once: bool,
}

/// One contact of the demo's deletion.
#[derive(Deserialize)]
struct Line {
    /// Its connection.
    at: String,
    /// The contact, as in a request.
    contact: Value,
    /// What the upstream makes of it before.
    upstream: Before,
    /// What happens to the call that names it.
    fault: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    Free,
    Held,
    Absent,
    /// Another line seeds it.
    Same,
}

/// A folder that is gone when this is dropped.
struct Folder(PathBuf);

impl Demo {
    pub(super) async fn run(self) -> Outcome {
        let mut mocks = Vec::new();
        for registration in DIALECTS {
            let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
            mocks.push((registration.profile.id, Mock::start(registration, free).await.map_err(io)?));
        }
        let folder = Folder::new()?;
        let key = new_key()?;
        folder.write("demo.toml", SETTINGS)?;
        folder.write("tenants/demo.toml", &tenant_file(&mocks, &key))?;

        // From here on it is the gateway as anybody runs it.
        let settings = settings::load(&folder.0.join("demo.toml")).map_err(|errors| mistakes(&errors))?;
        telemetry::log(telemetry::LogFormat::Text, &settings.log.filter);
        let read = tenants::Secrets::Read;
        let tenants =
            tenants::load(&settings.tenants.directory, &settings.upstream, read).map_err(|errors| mistakes(&errors))?;
        let script: Vec<Line> = serde_json::from_str(SCRIPT).map_err(|err| Failure::Failed(err.to_string()))?;
        seed(&script, &tenants, &mocks);
        let gateway = Gateway::start(&settings, tenants).await.map_err(|err| Failure::Failed(err.to_string()))?;
        let url = format!("http://{}", gateway.public());

        output::note(&format!("The gateway listens on {url}; {} mock upstreams stand behind it.", mocks.len()));
        let contacts: Vec<_> = script.iter().map(contact).collect();
        let body = json!({ "contacts": contacts, "reason": "demo", "reference": "DEMO-1" });
        let deletion = post(&url, &key, &body).await?;
        output::data(&table(&script, &deletion, &mocks).to_string());
        let counts = deletion["counts"].as_object().into_iter().flatten().filter(|(_, n)| n.as_u64() != Some(0));
        let counts: Vec<_> = counts.map(|(name, n)| format!("{n} {name}")).collect();
        output::data(&format!("deletion {}: {}", deletion["id"].as_str().unwrap_or("?"), counts.join(", ")));

        if !self.once {
            self.linger(&script, &mocks, &url, &key, gateway.admin()).await;
        }
        gateway.stop().await;
        for (_, mock) in mocks {
            mock.stop().await;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn linger(&self, script: &[Line], mocks: &[(&str, Mock)], url: &str, key: &str, admin: SocketAddr) {
        // The first contact comes back, so that the request below has something to delete.
        if let Some(identifier) = script.first().and_then(|line| identifier(&line.contact)) {
            mocks.iter().for_each(|(_, mock)| mock.seed(&identifier, false));
        }
        let again = script.first().map(contact).unwrap_or_default();
        let body = json!({ "contacts": [again] });
        output::data(&format!(
            "\nTry more:\n\ncurl -sS {url}/v1/deletions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n  -d '{body}'\n"
        ));
        output::data(&format!(
            "curl -sS {url}/v1/connections -H 'Authorization: Bearer {key}'\ncurl -sS http://{admin}/metrics\n"
        ));
        output::note("Ctrl-C ends the demo.");
        interrupted().await;
    }
}

/// The tenant's file, with addresses and the key's hash filled in.
fn tenant_file(mocks: &[(&str, Mock)], key: &str) -> String {
    let file = TENANT.replace("{key_sha256}", &sha256_hex(key));
    mocks.iter().fold(file, |file, (id, mock)| file.replace(&format!("{{{id}}}"), mock.base_url()))
}

fn seed(script: &[Line], tenants: &Tenants, mocks: &[(&str, Mock)]) {
    let connections = tenants.iter().next().map(|tenant| &tenant.connections);
    for line in script {
        let connection = connections.and_then(|connections| connections.get(line.at.as_str()));
        let id = connection.map_or("", |connection| connection.registration.profile.id);
        let Some((_, mock)) = mocks.iter().find(|(dialect, _)| *dialect == id) else { continue };
        if let Some(identifier) = identifier(&line.contact)
            && matches!(line.upstream, Before::Free | Before::Held)
        {
            mock.seed(&identifier, line.upstream == Before::Held);
        }
        if line.fault.as_deref() == Some("commit_then_drop") {
            mock.fault(Fault::CommitThenDrop);
        }
    }
}

fn contact(line: &Line) -> Value {
    let mut contact = line.contact.clone();
    contact["connection"] = line.at.as_str().into();
    contact
}

fn identifier(contact: &Value) -> Option<Identifier> {
    if let Some(phone) = contact["phone"].as_str() {
        return Some(Identifier::Phone(phone.into()));
    }
    if let (Some(provider), Some(id)) = (contact["external"]["provider"].as_str(), contact["external"]["id"].as_str()) {
        return Some(Identifier::External { provider: provider.into(), id: id.into() });
    }
    let id = contact["id"].as_str().map(str::to_owned).or_else(|| contact["id"].as_u64().map(|id| id.to_string()))?;
    Some(Identifier::Id(id.into()))
}

/// What was asked, what the gateway says, and what the upstream has: the last column is not known to the gateway.
fn table(script: &[Line], deletion: &Value, mocks: &[(&str, Mock)]) -> comfy_table::Table {
    let mut table = output::table(&[
        "contact",
        "connection",
        "dialect",
        "outcome",
        "absent",
        "evidence",
        "tries",
        "error",
        "upstream has it",
    ]);
    let nobody = Vec::new();
    let dialects = deletion["dialects"].as_object();
    for (line, result) in script.iter().zip(deletion["results"].as_array().unwrap_or(&nobody)) {
        let text = |value: &Value| value.as_str().map_or_else(String::new, str::to_owned);
        let absent = match &result["absent"] {
            Value::Bool(true) => "yes",
            Value::Bool(false) => "no",
            _ => "?",
        };
        let dialect = dialects.and_then(|all| all.get(&line.at)).map(text).unwrap_or_default();
        let truth = mocks.iter().find(|(id, _)| *id == dialect).zip(identifier(&line.contact));
        let truth = truth.map_or("", |((_, mock), identifier)| if mock.holds(&identifier) { "yes" } else { "no" });
        table.add_row([
            Cell::new(text(&line.contact["ref"])),
            Cell::new(&line.at),
            Cell::new(&dialect),
            Cell::new(text(&result["outcome"])),
            Cell::new(absent),
            Cell::new(text(&result["evidence"])),
            Cell::new(&result["attempts"]),
            Cell::new(text(&result["error"]["code"])),
            Cell::new(truth),
        ]);
    }
    table
}

/// Sends the deletion and, so that the table can name them, asks which dialect each connection speaks.
async fn post(url: &str, key: &str, body: &Value) -> Result<Value, Failure> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build();
    let client = client.map_err(|err| Failure::Failed(err.without_url().to_string()))?;
    let request = client.post(format!("{url}/v1/deletions")).header("content-type", "application/json");
    let mut deletion = receive(request.bearer_auth(key).body(body.to_string())).await?;
    while deletion["state"] != "finished" {
        let Some(id) = deletion["id"].as_str() else {
            return Err(Failure::Failed(format!("the gateway refused the deletion: {deletion}")));
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        deletion = receive(client.get(format!("{url}/v1/deletions/{id}")).bearer_auth(key)).await?;
    }
    let connections = receive(client.get(format!("{url}/v1/connections")).bearer_auth(key)).await?;
    for connection in connections["connections"].as_array().into_iter().flatten() {
        if let Some(name) = connection["name"].as_str() {
            deletion["dialects"][name] = connection["dialect"].clone();
        }
    }
    Ok(deletion)
}

async fn receive(request: reqwest::RequestBuilder) -> Result<Value, Failure> {
    let failed = |err: reqwest::Error| Failure::Failed(err.without_url().to_string());
    let mut reply = request.send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|err| Failure::Failed(format!("the gateway's answer cannot be read: {err}")))
}

fn io(err: std::io::Error) -> Failure {
    Failure::Failed(err.to_string())
}

impl Folder {
    fn new() -> Result<Self, Failure> {
        let name = format!("onedelete-demo-{}", uuid::Uuid::now_v7().simple());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(folder.0.join("tenants")).map_err(io)?;
        Ok(folder)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        std::fs::write(self.0.join(name), text).map_err(io)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a temporary file left in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
