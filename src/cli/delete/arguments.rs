//! The words of `onedelete delete`, and what follows from them alone.

use std::path::PathBuf;

use adapters::Outcome;

use super::input::Columns;
use crate::cli::plan::Contacts;
use crate::cli::{Failure, Output};

/// The most contacts of one JSON document, of a dry run, and of a deletion without `--max`.
pub(super) const MOST_AT_ONCE: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Delete {
    /// The gateway
    #[arg(long, env = "ONEDELETE_URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: String,
    /// A file that holds the gateway key; else it is read from ONEDELETE_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that sign the gateway's; else those of the system
    #[arg(long, value_name = "FILE", env = "ONEDELETE_CA")]
    pub(super) ca: Option<PathBuf>,
    /// A certificate and its private key (PEM, in one file), for a gateway that demands one
    #[arg(long, value_name = "FILE", env = "ONEDELETE_CLIENT_CERTIFICATE")]
    pub(super) client_certificate: Option<PathBuf>,
    /// The connection of contacts that name none; else the tenant's default
    #[arg(long)]
    pub(super) connection: Option<String>,
    #[command(flatten)]
    pub(super) contacts: Contacts,
    /// Contacts from a file, `-` for standard input: CSV with a header if its name ends with .csv, else JSON Lines (a
    /// contact a line, as in the contract) or one id a line
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) columns: Columns,
    /// Why, for the records
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Your own name for this deletion
    #[arg(long)]
    pub(super) reference: Option<String>,
    /// Only say what would be done, for at most 10,000 contacts
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The deletion's idempotency key: give the same one again where an answer was lost. Else a new one is made, and
    /// for a file kept in FILE.onedelete until all results were printed
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Refuse to delete more contacts than this
    #[arg(long, default_value_t = MOST_AT_ONCE)]
    pub(super) max: u64,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
    /// Print only results with these outcomes, with commas between them
    #[arg(long, value_name = "OUTCOMES", value_delimiter = ',', value_parser = outcome)]
    pub(super) outcome: Option<Vec<Outcome>>,
    /// No progress and no summary, only results and errors
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Send nothing: wait for the end of this deletion and print its results
    #[arg(
        long,
        value_name = "DELETION",
        conflicts_with_all = ["ids", "phones", "externals", "file", "connection", "reason", "reference", "dry_run", "idempotency_key"]
    )]
    pub(super) follow: Option<String>,
    /// With --follow: stop that deletion first. What was not sent by then is skipped
    #[arg(long, requires = "follow")]
    pub(super) cancel: bool,
}

impl Delete {
    /// The gateway key.
    pub(super) fn key(&self) -> Result<String, Failure> {
        let key = match &self.key_file {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|err| Failure::Usage(format!("{}: {err}", file.display())))?
            }
            None => std::env::var("ONEDELETE_KEY")
                .map_err(|_| Failure::Usage("no gateway key: set ONEDELETE_KEY or give --key-file".to_owned()))?,
        };
        Ok(key.trim().to_owned())
    }

    /// Whether the contacts come on standard input, so that nobody can be asked there.
    pub(super) fn reads_stdin(&self) -> bool {
        self.file.as_deref().is_some_and(|file| file.as_os_str() == "-")
    }

    /// The members of a request besides its contacts.
    pub(super) fn options(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("connection", self.connection.as_deref()),
            ("reason", self.reason.as_deref()),
            ("reference", self.reference.as_deref()),
        ]
    }
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let known = || format!("expected some of {}", Outcome::ALL.map(Outcome::as_str).join(", "));
    Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or_else(known)
}
