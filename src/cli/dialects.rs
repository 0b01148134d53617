//! `onedelete dialects`: what each dialect can do, from its profile.

use std::process::ExitCode;

use adapters::{DIALECTS, Profile};
use clap::ValueEnum;
use comfy_table::Cell;
use serde_json::json;

use super::{Outcome, output};

#[derive(Debug, clap::Args)]
pub(super) struct Dialects {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

impl Dialects {
    pub(super) fn run(self) -> Outcome {
        let profiles = DIALECTS.iter().map(|registration| registration.profile);
        match self.output {
            Form::Json => {
                let list: Vec<_> = profiles.map(describe).collect();
                output::data(&serde_json::to_string_pretty(&list).unwrap_or_default());
            }
            Form::Table => {
                let mut table =
                    output::table(&["dialect", "product", "request", "contacts a call", "identifiers", "pace"]);
                for profile in profiles {
                    let kinds: Vec<_> = profile.identifiers.iter().map(|rule| rule.kind.as_str()).collect();
                    let pace =
                        profile.pace.map_or("off".to_owned(), |pace| format!("{} in {} s", pace.calls, pace.per_s));
                    table.add_row([
                        Cell::new(profile.id),
                        Cell::new(profile.title),
                        Cell::new(profile.style),
                        Cell::new(profile.max_contacts_per_call),
                        Cell::new(kinds.join(", ")),
                        Cell::new(pace),
                    ]);
                }
                output::data(&table.to_string());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(profile: &Profile) -> serde_json::Value {
    let identifiers = profile
        .identifiers
        .iter()
        .map(|rule| json!({ "kind": rule.kind.as_str(), "syntax": rule.syntax, "replay_safe": rule.replay_safe }));
    let forms = profile.auth.forms.iter().map(|form| form.members.iter().map(|m| m.name).collect::<Vec<_>>());
    json!({
        "id": profile.id,
        "title": profile.title,
        "docs": profile.docs,
        "style": profile.style,
        "max_contacts_per_call": profile.max_contacts_per_call,
        "contacts_per_call_ceiling": profile.contacts_per_call_ceiling,
        "identifiers": identifiers.collect::<Vec<_>>(),
        "pace": profile.pace.map(|pace| json!({ "calls": pace.calls, "per_s": pace.per_s })),
        "credentials": forms.collect::<Vec<_>>(),
        "evidence": profile.evidence.iter().map(|e| e.as_str()).collect::<Vec<_>>(),
        "assumptions": profile.assumptions,
    })
}
