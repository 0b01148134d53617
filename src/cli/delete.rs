//! `onedelete delete`: asks a running gateway to delete contacts, and waits for the end.
//!
//! It is a client of the contract like any other. The key comes from the environment or a file, never from an argument.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adapters::Identifier;
use comfy_table::Cell;
use serde::Deserialize;
use serde_json::{Value, json};

use super::plan::Contacts;
use super::{Failure, Outcome, Output, output};

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// The gateway
    #[arg(long, env = "ONEDELETE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A file that holds the gateway key; else it is read from ONEDELETE_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The connection of contacts that name none; else the tenant's default
    #[arg(long)]
    connection: Option<String>,
    #[command(flatten)]
    contacts: Contacts,
    /// Contacts from a file, `-` for standard input: JSON Lines (a contact a line, as in the contract), or one id a line
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Why, for the records
    #[arg(long)]
    reason: Option<String>,
    /// Your own name for this deletion
    #[arg(long)]
    reference: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// The deletion's idempotency key: give the same one again where an answer was lost. Else a new one is made
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Refuse to delete more contacts than this
    #[arg(long, default_value_t = 10_000)]
    max: usize,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The parts of a deletion that are printed; the whole of it is kept for `--output json`.
#[derive(Deserialize)]
struct Deletion {
    id: Option<String>,
    state: String,
    results: Vec<Value>,
}

struct Gateway {
    client: reqwest::Client,
    url: String,
    key: String,
    /// The idempotency key.
    name: String,
}

/// So many looks at a running deletion may fail in a row.
const LOST_LOOKS: u32 = 10;

impl Delete {
    pub(super) async fn run(self) -> Outcome {
        let contacts = self.read_contacts()?;
        if contacts.is_empty() {
            return Err(Failure::Usage("no contacts: give ids, --phone, --external or --file".to_owned()));
        }
        if contacts.len() > self.max {
            let text = format!("{} contacts are more than --max {}; nothing was sent", contacts.len(), self.max);
            return Err(Failure::Usage(text));
        }
        let url = self.url.trim_end_matches('/').to_owned();
        let name = self.idempotency_key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let gateway = Gateway { client: client()?, url, key: self.key()?, name };
        let mut body = json!({ "contacts": contacts, "dry_run": true });
        for (name, value) in
            [("connection", &self.connection), ("reason", &self.reason), ("reference", &self.reference)]
        {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        if self.dry_run {
            let (text, deletion) = gateway.post(&body).await?;
            self.print(&text, &deletion);
            let all = deletion.results.iter().all(|result| result["outcome"] == "would_delete");
            return Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        if !self.yes {
            self.ask(&gateway, &body, contacts.len()).await?;
        }
        body["dry_run"] = false.into();
        let (mut text, mut deletion) = gateway.post(&body).await?;
        if deletion.state != "finished" {
            let Some(id) = deletion.id.clone() else {
                return Err(Failure::Failed("the gateway's answer has no id".to_owned()));
            };
            output::note(&format!("accepted as {id}; waiting for its end"));
            (text, deletion) = gateway.follow(&id).await?;
        }
        self.print(&text, &deletion);
        let absent = deletion.results.iter().filter(|result| result["absent"] == true).count();
        output::note(&format!(
            "{absent} of {} are absent; deletion {}",
            deletion.results.len(),
            deletion.id.as_deref().unwrap_or("-")
        ));
        Ok(if absent == deletion.results.len() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    /// Shows what would be done and asks; on anything but a terminal, `--yes` is needed.
    async fn ask(&self, gateway: &Gateway, body: &Value, count: usize) -> Result<(), Failure> {
        if !std::io::stdin().is_terminal() || self.file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
            return Err(Failure::Usage(
                "this deletes contacts for good: say --yes, or run it on a terminal".to_owned(),
            ));
        }
        let (_, plan) = gateway.post(body).await?;
        let would = plan.results.iter().filter(|result| result["outcome"] == "would_delete").count();
        output::note(&format!("{would} of {count} contacts would be deleted at {}, for good.", gateway.url));
        output::note(&format!("Type {count} to go on:"));
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        if read.is_ok() && answer.trim() == count.to_string() {
            return Ok(());
        }
        Err(Failure::Usage("nothing was sent".to_owned()))
    }

    fn read_contacts(&self) -> Result<Vec<Value>, Failure> {
        let mut contacts = Vec::new();
        for identifier in self.contacts.identifiers()? {
            contacts.push(match identifier {
                Identifier::Id(id) => json!({ "id": &*id }),
                Identifier::Phone(phone) => json!({ "phone": &*phone }),
                Identifier::External { provider, id } => json!({ "external": { "provider": &*provider, "id": &*id } }),
            });
        }
        if let Some(file) = &self.file {
            let mut text = String::new();
            let read = if file.as_os_str() == "-" {
                std::io::stdin().read_to_string(&mut text)
            } else {
                std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
            };
            read.map_err(|err| Failure::Usage(format!("{}: {err}", file.display())))?;
            for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
                contacts.push(match line.trim_start().starts_with(['{', '"']) {
                    true => serde_json::from_str(line)
                        .map_err(|_| Failure::Usage(format!("{}:{number}: is no JSON", file.display())))?,
                    false => json!({ "id": line.trim() }),
                });
            }
        }
        Ok(contacts)
    }

    fn key(&self) -> Result<String, Failure> {
        let key = match &self.key_file {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|err| Failure::Usage(format!("{}: {err}", file.display())))?
            }
            None => std::env::var("ONEDELETE_KEY")
                .map_err(|_| Failure::Usage("no gateway key: set ONEDELETE_KEY or give --key-file".to_owned()))?,
        };
        Ok(key.trim().to_owned())
    }

    fn print(&self, text: &str, deletion: &Deletion) {
        match self.output {
            Output::Json => output::data(text),
            Output::Jsonl => deletion.results.iter().for_each(|result| output::data(&result.to_string())),
            Output::Table => output::data(&results_table(&deletion.results).to_string()),
        }
    }
}

/// Results as people read them.
pub(super) fn results_table(results: &[Value]) -> comfy_table::Table {
    let mut table =
        output::table(&["#", "ref", "connection", "outcome", "absent", "evidence", "tries", "retry", "error"]);
    for result in results {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let absent = match &result["absent"] {
            Value::Bool(true) => "yes",
            Value::Bool(false) => "no",
            _ => "?",
        };
        let retry = match result["retry_after_s"].as_u64() {
            Some(seconds) => format!("{} {seconds} s", text(&result["retry"])),
            None => text(&result["retry"]),
        };
        table.add_row([
            Cell::new(text(&result["index"])),
            Cell::new(text(&result["ref"])),
            Cell::new(text(&result["connection"])),
            Cell::new(text(&result["outcome"])),
            Cell::new(absent),
            Cell::new(text(&result["evidence"])),
            Cell::new(text(&result["attempts"])),
            Cell::new(retry),
            Cell::new(text(&result["error"]["code"])),
        ]);
    }
    table
}

/// An error with what caused it: the outermost says little more than that sending failed.
fn cause(err: reqwest::Error) -> String {
    let err = err.without_url();
    let mut text = err.to_string();
    let mut source = std::error::Error::source(&err);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

fn client() -> Result<reqwest::Client, Failure> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        // The key and the identifiers are for the gateway alone.
        .no_proxy()
        .timeout(Duration::from_secs(330))
        .build();
    client.map_err(|err| Failure::Failed(err.without_url().to_string()))
}

impl Gateway {
    async fn post(&self, body: &Value) -> Result<(String, Deletion), Failure> {
        let request = self.client.post(format!("{}/v1/deletions", self.url));
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.to_string());
        self.send(request.header("idempotency-key", &self.name), true).await
    }

    /// Looks at a deletion until it is finished. A look that fails says nothing about the deletion.
    async fn follow(&self, id: &str) -> Result<(String, Deletion), Failure> {
        let mut lost = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match self.get(&format!("/v1/deletions/{id}")).await {
                Ok((text, deletion)) if deletion.state == "finished" => return Ok((text, deletion)),
                Ok(_) => lost = 0,
                Err(failure) if lost >= LOST_LOOKS => return Err(failure),
                Err(_) => lost += 1,
            }
        }
    }

    async fn get(&self, path: &str) -> Result<(String, Deletion), Failure> {
        self.send(self.client.get(format!("{}{path}", self.url)), false).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, deletes: bool) -> Result<(String, Deletion), Failure> {
        let unreachable = |err: reqwest::Error| {
            let sent = deletes && !err.is_connect();
            let doubt = if sent {
                let name = &self.name;
                format!("; the gateway may have accepted the deletion: ask again with --idempotency-key {name}")
            } else {
                String::new()
            };
            Failure::Unreachable(format!("{}: {}{doubt}", self.url, cause(err)))
        };
        let mut reply = request.bearer_auth(&self.key).send().await.map_err(unreachable)?;
        let status = reply.status();
        let mut body = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        if let Ok(deletion) = serde_json::from_str(&text)
            && status.is_success()
        {
            return Ok((text, deletion));
        }
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let title = problem["title"].as_str().unwrap_or("the answer is not the gateway's");
        let mut lines = vec![format!("{} ({status})", title.trim_end_matches('.'))];
        lines.extend(problem["detail"].as_str().map(str::to_owned));
        for error in problem["errors"].as_array().into_iter().flatten() {
            lines.push(format!(
                "{}: {}",
                error["pointer"].as_str().unwrap_or("?"),
                error["message"].as_str().unwrap_or("?")
            ));
        }
        let text = lines.join("\n  ");
        // What the gateway cannot do now is not the caller's mistake.
        Err(if status.is_server_error() { Failure::Failed(text) } else { Failure::Usage(text) })
    }
}
