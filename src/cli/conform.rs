//! `onedelete conform`: runs exchanges, shipped or recorded, through their dialects and prints what holds.
//!
//! It talks to nobody. Of requests it prints the names of fields, never a value.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adapters::exchange::{Exchange, Exchanges, Source};
use adapters::judge::{Made, Remark, judge};
use adapters::vocabulary::Vocabulary;
use adapters::{DIALECTS, Outcome, Registration};
use clap::ValueEnum;
use comfy_table::Cell;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, output};
use crate::record::example;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Conform {
    /// Files of exchanges in JSON, or folders of them
    #[arg(required_unless_present = "shipped")]
    exchanges: Vec<PathBuf>,
    /// The exchanges that are built in, of every dialect
    #[arg(long)]
    shipped: bool,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

/// What came of one file.
#[derive(Serialize)]
struct Report {
    file: String,
    dialect: &'static str,
    exchanges: usize,
    hold: usize,
    percent: f64,
    different: Vec<Different>,
    recorded: Vec<Recorded>,
}

/// An exchange that does not hold.
#[derive(Serialize)]
struct Different {
    exchange: String,
    differences: Vec<Remark>,
}

/// An exchange that somebody recorded: what the dialect makes of it, and what it does not yet know.
#[derive(Serialize)]
struct Recorded {
    exchange: String,
    made: Value,
    not_yet_known: Vec<Remark>,
}

impl Conform {
    pub(super) fn run(self) -> super::Outcome {
        let mut reports = Vec::new();
        let mut unreadable = Vec::new();
        let mut take = |report: Result<Report, String>| match report {
            Ok(report) => reports.push(report),
            Err(mistake) => unreadable.push(mistake),
        };
        if self.shipped {
            for registration in DIALECTS {
                for text in registration.fixtures {
                    take(examined("shipped", text));
                }
            }
        }
        for path in &self.exchanges {
            match files(path) {
                Ok(files) => files.iter().for_each(|file| take(read(file))),
                Err(mistake) => take(Err(mistake)),
            }
        }
        if !unreadable.is_empty() {
            return Err(Failure::Usage(unreadable.join("\nerror: ")));
        }
        match self.output {
            Form::Json => output::data(&serde_json::to_string_pretty(&whole(&reports)).unwrap_or_default()),
            Form::Table => print(&reports),
        }
        let all_hold = reports.iter().all(|report| report.hold == report.exchanges);
        Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// The file, or the JSON files that stand in the folder itself, in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let wrong = |err: std::io::Error| format!("{}: {err}", path.display());
    if !fs::metadata(path).map_err(wrong)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(wrong)? {
        let file = entry.map_err(wrong)?.path();
        if file.extension().is_some_and(|extension| extension == "json") && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(format!("{}: there is no JSON file in this folder", path.display())) } else { Ok(files) }
}

fn read(file: &Path) -> Result<Report, String> {
    let wrong = |err: std::io::Error| format!("{}: {err}", file.display());
    if fs::metadata(file).map_err(wrong)?.len() > MAX_FILE_BYTES {
        return Err(format!("{}: is larger than {MAX_FILE_BYTES} bytes", file.display()));
    }
    let text = fs::read_to_string(file).map_err(wrong)?;
    examined(&file.display().to_string(), &text)
}

/// Judges every exchange of a file. A mistake names the file and the place in it.
fn examined(name: &str, text: &str) -> Result<Report, String> {
    let mistake = |path: &str, what: &str| format!("{name}: {path}: {what}");
    let mut reader = serde_json::Deserializer::from_str(text);
    let file: Exchanges = serde_path_to_error::deserialize(&mut reader)
        .map_err(|err| mistake(&err.path().to_string(), &without_values(err.inner())))?;
    reader.end().map_err(|err| mistake("$", &without_values(&err)))?;
    let known: Vec<_> = DIALECTS.iter().map(|registration| registration.profile.id).collect();
    let registration = adapters::find(&file.dialect)
        .ok_or_else(|| mistake("dialect", &format!("is no dialect; there are {}", known.join(", "))))?;
    let connection = example(registration)?;
    let vocabulary = vocabulary(registration);
    let mut report = Report {
        file: name.to_owned(),
        dialect: registration.profile.id,
        exchanges: file.exchanges.len(),
        hold: 0,
        percent: 100.0,
        different: Vec::new(),
        recorded: Vec::new(),
    };
    let mut names = std::collections::HashSet::new();
    for (n, exchange) in file.exchanges.iter().enumerate() {
        if !names.insert(exchange.name.as_str()) {
            return Err(mistake(&format!("exchanges[{n}].name"), "stands twice in this file"));
        }
        let verdict = judge(registration, &connection, exchange).map_err(|err| {
            let path = format!("exchanges[{n}].settings.{}", err.key);
            mistake(path.trim_end_matches('.'), &err.message)
        })?;
        if exchange.source == Source::Recorded {
            report.recorded.push(Recorded {
                exchange: exchange.name.clone(),
                made: made(&verdict.made),
                not_yet_known: vocabulary.news(exchange, &verdict.made),
            });
        }
        if verdict.differences.is_empty() {
            report.hold += 1;
        } else {
            report.different.push(Different { exchange: exchange.name.clone(), differences: verdict.differences });
        }
    }
    report.percent = percent(report.hold, report.exchanges);
    Ok(report)
}

fn vocabulary(registration: &Registration) -> Vocabulary {
    let files = registration.fixtures.iter().filter_map(|text| serde_json::from_str::<Exchanges>(text).ok());
    let exchanges: Vec<Exchange> = files.flat_map(|file| file.exchanges).collect();
    Vocabulary::of(&exchanges)
}

/// What is wrong with a text, and where; serde's messages may repeat what stands there.
fn without_values(err: &serde_json::Error) -> String {
    let what = match err.classify() {
        serde_json::error::Category::Data => {
            let text = err.to_string();
            // These name members of the format, never values.
            match ["unknown field", "missing field", "duplicate field"].iter().find(|kind| text.starts_with(**kind)) {
                Some(_) => text.split(" at line ").next().unwrap_or_default().to_owned(),
                None => "is not of the form that exchanges have".to_owned(),
            }
        }
        serde_json::error::Category::Eof => "ends in the middle".to_owned(),
        _ => "is no JSON".to_owned(),
    };
    format!("{what}, line {} column {}", err.line(), err.column())
}

/// Percent with one digit, rounded down: only what holds as a whole is 100.
fn percent(hold: usize, of: usize) -> f64 {
    (hold * 1_000).checked_div(of).map_or(100.0, |permille| permille as f64 / 10.0)
}

fn made(made: &Made) -> Value {
    match made {
        Made::SignIn(word) => json!({ "sign_in": word }),
        Made::Outcomes(outcomes) => json!({ "outcomes": outcomes }),
    }
}

fn whole(reports: &[Report]) -> Value {
    let (hold, exchanges) = totals(reports);
    json!({ "exchanges": exchanges, "hold": hold, "percent": percent(hold, exchanges), "files": reports })
}

fn totals(reports: &[Report]) -> (usize, usize) {
    reports.iter().fold((0, 0), |(hold, of), report| (hold + report.hold, of + report.exchanges))
}

fn print(reports: &[Report]) {
    let mut table = output::table(&["file", "dialect", "hold", "of", "percent"]);
    for report in reports {
        table.add_row([
            Cell::new(&report.file),
            Cell::new(report.dialect),
            Cell::new(report.hold),
            Cell::new(report.exchanges),
            Cell::new(format!("{} %", report.percent)),
        ]);
    }
    output::data(&table.to_string());
    for report in reports {
        for different in &report.different {
            for difference in &different.differences {
                output::data(&format!("{}: {}: {difference}", report.file, different.exchange));
            }
        }
    }
    for report in reports.iter().filter(|report| !report.recorded.is_empty()) {
        output::data(&format!("\n{}: what the dialect makes of what was recorded", report.file));
        for recorded in &report.recorded {
            output::data(&format!("{}: {}", recorded.exchange, in_words(&recorded.made)));
            for news in &recorded.not_yet_known {
                output::data(&format!("  not yet known: {news}"));
            }
        }
    }
    let (hold, exchanges) = totals(reports);
    output::data(&format!("\n{hold} of {exchanges} exchanges hold: {} %", percent(hold, exchanges)));
}

fn in_words(made: &Value) -> String {
    if let Some(word) = made["sign_in"].as_str() {
        return format!("sign-in, {word}");
    }
    let outcomes = made["outcomes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let counts = Outcome::ALL.iter().filter_map(|outcome| {
        let count = outcomes.iter().filter(|each| each["outcome"] == outcome.as_str()).count();
        (count > 0).then(|| format!("{count} {}", outcome.as_str()))
    });
    counts.collect::<Vec<_>>().join(", ")
}
