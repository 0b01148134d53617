//! `onedelete serve`: runs the gateway until it is told to stop. SIGHUP has it read again what can change meanwhile.

use std::process::ExitCode;

use super::notify::{Notify, State};
use super::{ConfigFile, Failure, HungUp, Outcome, dumps, interrupted, mistakes};
use crate::app::{Gateway, StartError};
use crate::settings::{self, LogFormat};
use crate::{telemetry, tenants};

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Let a crash leave a core dump, and debuggers attach: both have credentials and identifiers in them
    #[arg(long)]
    core_dumps: bool,
    /// How lines of the log are written; the default is log.format of the configuration file
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl Serve {
    pub(super) async fn run(self) -> Outcome {
        // Before anything secret is read.
        if !self.core_dumps {
            dumps::forbid().map_err(|err| Failure::Failed(format!("{err} (--core-dumps serves all the same)")))?;
        }
        let settings = settings::load(&self.file.config).map_err(|errors| mistakes(&errors))?;
        let read = tenants::Secrets::Read;
        let tenants =
            tenants::load(&settings.tenants.directory, &settings.upstream, read).map_err(|errors| mistakes(&errors))?;
        let format = match (self.log_format, settings.log.format) {
            (Some(Format::Text), _) | (None, LogFormat::Text) => telemetry::LogFormat::Text,
            (Some(Format::Json), _) | (None, LogFormat::Json) => telemetry::LogFormat::Json,
        };
        telemetry::log(format, &settings.log.filter);
        let (interrupted, mut hung_up) = (interrupted(), HungUp::listen());
        let gateway = Gateway::start(&settings, tenants).await.map_err(|err| match err {
            StartError::Listen { .. } => Failure::Failed(err.to_string()),
            StartError::Tls(errors) => mistakes(&errors),
            StartError::Store(_) | StartError::Telemetry(_) | StartError::Token(_) => Failure::Usage(err.to_string()),
        })?;
        gateway.follow(&self.file.config);
        let notify = Notify::from_environment();
        notify.tell(State::Ready);
        let serving = async {
            let mut interrupted = std::pin::pin!(interrupted);
            loop {
                tokio::select! {
                    () = &mut interrupted => break,
                    () = hung_up.next() => {
                        notify.tell(State::Reloading);
                        gateway.reload().await;
                        notify.tell(State::Ready);
                    }
                }
            }
        };
        notify.watch(serving).await;
        notify.tell(State::Stopping);
        // The drain is watched too: it ends by itself, but the watchdog's time may be shorter.
        notify.watch(gateway.stop()).await;
        Ok(ExitCode::SUCCESS)
    }
}
