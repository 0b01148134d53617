//! `onedelete key`: keys for callers of the gateway. The gateway itself keeps only their hashes.
//!
//! It changes no file: what belongs into a tenant's file is printed. No key is ever an argument, where others on the
//! machine could read it.

use std::fmt::Write;
use std::io::Read;
use std::process::ExitCode;

use base64::Engine;
use serde_json::json;

use super::{ConfigFile, Failure, Outcome, Output, mistakes, output};
use crate::api::{is_key, sha256_hex};
use crate::tenants::{Access, Key, expiry};
use crate::{clock, settings, tenants};

#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key: printed once, with the lines for the tenant's file
    New(New),
    /// List the keys of the tenants' files: whose they are, what they may do, and until when
    List(List),
    /// Read a key from stdin and print its hash, as a tenant's file has it
    Hash,
}

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// A name for it, shown in logs
    #[arg(long, default_value = "new")]
    name: String,
    /// A connection that it may use, once for each; all of the tenant's, unless given
    #[arg(long, value_name = "NAME")]
    connection: Vec<String>,
    /// What it may do
    #[arg(long, value_parser = ["delete", "read"], default_value = "delete")]
    access: String,
    /// The last day on which it works, in UTC, or a moment: 2027-01-31 or 2027-01-31T18:00:00Z
    #[arg(long, value_name = "DATE", conflicts_with = "days")]
    expires: Option<String>,
    /// For how many more days it works, today left out
    #[arg(long, value_name = "N")]
    days: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    file: ConfigFile,
    /// The keys of one tenant alone
    #[arg(long)]
    tenant: Option<String>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl KeyCommand {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::New(new) => new.run(),
            Self::List(list) => list.run(),
            Self::Hash => hash(),
        }
    }
}

impl New {
    fn run(self) -> Outcome {
        if let Some(wrong) = self.connection.iter().find(|name| !tenants::is_name(name)) {
            return Err(Failure::Usage(format!("{wrong:?} cannot be the name of a connection")));
        }
        let expires = match (&self.expires, self.days) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(days)) => Some(expiry::last_day(clock::unix_ms(), days).map_err(Failure::Usage)?),
            (None, None) => None,
        };
        if let Some(text) = &expires {
            let end = expiry::parse(text).map_err(|why| Failure::Usage(format!("--expires {why}")))?;
            if end <= clock::unix_ms() {
                return Err(Failure::Usage("--expires is in the past: such a key would never work".to_owned()));
            }
        }
        let key = new_key()?;
        let mut lines = format!("\n[[api_keys]]\nname = {:?}\nsha256 = \"{}\"", self.name, sha256_hex(&key));
        if !self.connection.is_empty() {
            // Cannot fail: it goes into memory.
            let _ = write!(lines, "\nconnections = {:?}", self.connection);
        }
        if self.access != "delete" {
            let _ = write!(lines, "\naccess = {:?}", self.access);
        }
        if let Some(expires) = expires {
            let _ = write!(lines, "\nexpires = {expires}");
        }
        output::data(&key);
        output::note("Keep it now: it is not shown again. For the tenant's file:");
        output::note(&lines);
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(self) -> Outcome {
        let settings = settings::load(&self.file.config).map_err(|errors| mistakes(&errors))?;
        let skip = tenants::Secrets::Skip;
        let tenants =
            tenants::load(&settings.tenants.directory, &settings.upstream, skip).map_err(|errors| mistakes(&errors))?;
        if let Some(id) = self.tenant.as_deref().filter(|id| tenants.tenant(id).is_none()) {
            return Err(Failure::Usage(format!("there is no tenant {id}")));
        }
        let wanted = |key: &&Key| self.tenant.as_deref().is_none_or(|id| *key.tenant.id == *id);
        let mut keys: Vec<_> = tenants.keys().filter(wanted).collect();
        keys.sort_by_key(|key| (key.tenant.id.clone(), key.name.clone(), key.sha256));
        let now = clock::unix_ms();
        match self.output {
            Output::Table => {
                let mut table = output::table(&["tenant", "name", "id", "access", "connections", "rate", "expires"]);
                for key in keys {
                    table.add_row(row(key, now));
                }
                output::data(&table.to_string());
            }
            Output::Json => {
                let all: Vec<_> = keys.into_iter().map(|key| described(key, now)).collect();
                output::data(&serde_json::Value::from(all).to_string());
            }
            Output::Jsonl => keys.into_iter().for_each(|key| output::data(&described(key, now).to_string())),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(key: &Key, now: i64) -> [String; 7] {
    let names = |names: &std::collections::BTreeSet<std::sync::Arc<str>>| {
        names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ")
    };
    let expires = key.expires_ms.map_or("never".to_owned(), clock::rfc3339);
    [
        key.tenant.id.to_string(),
        key.name.to_string(),
        id(key),
        access(key).to_owned(),
        key.connections.as_ref().map_or("all".to_owned(), names),
        key.rate.map_or("off".to_owned(), |rate| format!("{} in {} s", rate.calls, rate.per_s)),
        if key.has_expired(now) { format!("{expires} (over)") } else { expires },
    ]
}

fn described(key: &Key, now: i64) -> serde_json::Value {
    json!({
        "tenant": *key.tenant.id,
        "name": *key.name,
        "id": id(key),
        "access": access(key),
        "connections": key.connections.as_ref().map(|names| names.iter().map(|name| &**name).collect::<Vec<_>>()),
        "rate": key.rate.map(|rate| json!({"requests": rate.calls, "seconds": rate.per_s})),
        "expires_at": key.expires_ms.map(clock::rfc3339),
        "expired": key.has_expired(now),
    })
}

/// What tells keys apart: the first 12 digits of the hash, and no more of it.
fn id(key: &Key) -> String {
    key.sha256.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn access(key: &Key) -> &'static str {
    match key.access {
        Access::Read => "read",
        Access::Delete => "delete",
    }
}

/// The longest line that is taken for a key, in bytes.
const LONGEST: u64 = 4_096;

fn hash() -> Outcome {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_string(&mut text);
    read.map_err(|err| Failure::Failed(format!("stdin cannot be read: {}", err.kind())))?;
    let key = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    // What the gateway would not look at has no use as a hash.
    if !is_key(key) {
        let why = "a key is one line of 32 to 512 visible ASCII characters; onedelete key new makes one";
        return Err(Failure::Usage(why.to_owned()));
    }
    output::data(&sha256_hex(key));
    Ok(ExitCode::SUCCESS)
}

/// `odk_` and 256 bits.
pub(super) fn new_key() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Failed("the system gives no random bytes".to_owned()))?;
    Ok(format!("odk_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
}
