//! `onedelete store`: looks after the ledger that the configuration names.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{ConfigFile, Failure, Outcome, mistakes, output};
use crate::app::ledger;
use crate::settings::{self, Settings};

#[derive(Debug, clap::Subcommand)]
pub(super) enum StoreCommand {
    /// Read the whole store and say what is wrong with it; a gateway may run
    Check(#[command(flatten)] ConfigFile),
    /// Copy the store as it is now to a new file; a gateway may run
    Backup {
        #[command(flatten)]
        file: ConfigFile,
        /// The copy; it must not exist. It is as confidential as the store
        target: PathBuf,
    },
    /// Forget now what the retention settings do not want kept. A gateway does so by itself, every minute
    Purge {
        #[command(flatten)]
        file: ConfigFile,
        /// Forget finished deletions and their results, too, that are older than this: 90d, 12h, 30min or 0s
        #[arg(long, value_name = "AGE", value_parser = age)]
        older_than: Option<u64>,
        /// Those, too, whose idempotency key still acts: a request that is repeated under it is then a new deletion
        #[arg(long, requires = "older_than")]
        with_keys: bool,
    },
}

impl StoreCommand {
    pub(super) async fn run(self) -> Outcome {
        match self {
            Self::Check(file) => check(&load(&file)?),
            Self::Backup { file, target } => {
                ledger::backup(&load(&file)?, &target).map_err(Failure::Usage)?;
                output::note(&format!("{}: a sound copy", target.display()));
                Ok(ExitCode::SUCCESS)
            }
            Self::Purge { file, older_than, with_keys } => {
                let settings = load(&file)?;
                let forgotten = ledger::purge(&settings, older_than, with_keys).await;
                let forgotten = forgotten.map_err(|err| Failure::Usage(err.to_string()))?;
                output::data(&format!(
                    "forgotten: {} deletions, {} keys, the identifiers of {} deletions, {} drafts",
                    forgotten.deletions, forgotten.keys, forgotten.identifiers, forgotten.drafts
                ));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn load(file: &ConfigFile) -> Result<Settings, Failure> {
    settings::load(&file.config).map_err(|errors| mistakes(&errors))
}

fn check(settings: &Settings) -> Outcome {
    let report = ledger::check(settings).map_err(Failure::Usage)?;
    let mut table = output::table(&["what", "how many"]);
    for (what, count) in [
        ("bytes", report.bytes),
        ("deletions", report.deletions),
        ("not finished", report.unfinished),
        ("contacts", report.contacts),
        ("without a result", report.open),
        ("with their identifiers", report.identifiers),
        ("idempotency keys", report.claims),
        ("drafts", report.drafts),
    ] {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    output::data(&table.to_string());
    if report.is_sound() {
        output::note("sound");
        return Ok(ExitCode::SUCCESS);
    }
    let count = report.findings.len() as u64 + report.more_findings;
    Err(Failure::Failed(format!("{}\n{count} findings", report.findings.join("\n"))))
}

/// A number of seconds, from a number and a unit.
fn age(text: &str) -> Result<u64, String> {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let read = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds)
    });
    read.ok_or_else(|| "must be a number and a unit: d, h, min or s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn an_age_has_a_unit() {
        for (text, seconds) in [("90d", 7_776_000), ("12h", 43_200), ("30min", 1_800), ("0s", 0)] {
            assert_eq!(age(text), Ok(seconds));
        }
        for text in ["", "90", "d", "-1d", "1.5h", "1 d", "99999999999999999d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
