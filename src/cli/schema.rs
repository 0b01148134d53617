//! `onedelete schema`: the JSON Schema of the configuration's files, for editors.
//!
//! The gateway itself does not read it: `onedelete check` says more, and says it better.

use std::process::ExitCode;

use clap::ValueEnum;

use super::{Failure, Outcome, output};
use crate::{settings, tenants};

#[derive(Debug, clap::Args)]
pub(super) struct Schema {
    /// Of which file
    #[arg(value_enum)]
    file: Kind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The gateway's own settings, onedelete.toml
    Settings,
    /// One tenant's file
    Tenant,
}

impl Schema {
    pub(super) fn run(self) -> Outcome {
        let schema = match self.file {
            Kind::Settings => settings::schema(),
            Kind::Tenant => tenants::schema(),
        };
        let text = serde_json::to_string_pretty(&schema).map_err(|err| Failure::Failed(err.to_string()))?;
        output::data(&text);
        Ok(ExitCode::SUCCESS)
    }
}
