//! `onedelete check`: reads the configuration as `serve` would, and prints every mistake.

use std::process::ExitCode;

use super::{ConfigFile, Failure, Outcome, output};
use crate::app::{console, ledger, tls, trace};
use crate::settings::ConfigError;
use crate::{settings, tenants};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Do not read the secrets, certificates and keys that the configuration refers to
    #[arg(long)]
    offline: bool,
}

impl Check {
    pub(super) fn run(self) -> Outcome {
        let settings = settings::load(&self.file.config).map_err(|errors| shown(&errors))?;
        let secrets = if self.offline { tenants::Secrets::Skip } else { tenants::Secrets::Read };
        let tenants =
            tenants::load(&settings.tenants.directory, &settings.upstream, secrets).map_err(|errors| shown(&errors))?;
        if !self.offline {
            let mistakes = tls::check(&settings);
            if !mistakes.is_empty() {
                return Err(shown(&mistakes));
            }
            ledger::check_secrets(&settings)
                .and_then(|()| trace::check_secrets(&settings))
                .and_then(|()| console::token(&settings).map(drop))
                .map_err(|why| Failure::Usage(format!("{}: {why}", self.file.config.display())))?;
        }
        let connections: usize = tenants.iter().map(|tenant| tenant.connections.len()).sum();
        let count = tenants.iter().count();
        output::data(&format!("{}: ok, {count} tenants, {connections} connections", self.file.config.display()));
        Ok(ExitCode::SUCCESS)
    }
}

fn shown(errors: &[ConfigError]) -> Failure {
    let rendered: Vec<_> = errors.iter().map(ConfigError::render).collect();
    let count = if errors.len() == 1 { "one mistake".to_owned() } else { format!("{} mistakes", errors.len()) };
    Failure::Usage(format!("{}\n{count} in the configuration", rendered.join("\nerror: ")))
}
