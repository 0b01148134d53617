//! The command line: one file or folder a command. Data goes to stdout, progress and logs to stderr.
//!
//! Exit codes: 0 all is well, 1 it ran and not all is well, 2 usage or configuration, 3 the gateway could not be
//! reached, or the end not be learnt.

mod check;
mod conform;
mod delete;
mod demo;
mod dialects;
mod dumps;
mod healthcheck;
mod key;
mod man;
mod mock;
mod notify;
mod openapi;
mod output;
mod plan;
mod record;
mod schema;
mod serve;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::settings::ConfigError;
use crate::telemetry;
use crate::tenants::{Connection, Tenants};

/// The version, and which commit it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ONEDELETE_BUILD"), ")");

/// One inbound contract to delete contacts, translated into each CRM's own dialect.
#[derive(Debug, Parser)]
#[command(name = "onedelete", version = VERSION, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start five mock upstreams and the gateway on loopback, and send one deletion through it
    Demo(demo::Demo),
    /// Run the gateway
    Serve(serve::Serve),
    /// Check the configuration: every mistake, with file, line and key
    Check(check::Check),
    /// Print what would be sent for some contacts, without credentials; sends nothing
    Plan(plan::Plan),
    /// Ask a running gateway to delete contacts
    Delete(Box<delete::Delete>),
    /// List the dialects and what each can do
    Dialects(dialects::Dialects),
    /// Serve mock upstreams for tests
    Mock(mock::MockCommand),
    /// Stand before a real upstream and write what is exchanged with it into a file, without identifiers or credentials
    Record(Box<record::Record>),
    /// Run exchanges, built in or recorded, through their dialects: what holds, and what a dialect does not yet know
    Conform(conform::Conform),
    /// Look after the store: check it, copy it, forget what is old
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Keys for callers of the gateway
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Print the API's description: OpenAPI 3.1, as JSON
    Openapi(openapi::Openapi),
    /// Ask a running gateway whether it is ready
    Healthcheck(healthcheck::Healthcheck),
    /// Print the JSON Schema of a configuration file, for editors
    Schema(schema::Schema),
    /// Write the manual pages
    Man(man::Man),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "ONEDELETE_CONFIG", default_value = "onedelete.toml")]
    config: PathBuf,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a contact
    Jsonl,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// The words of the command line, or the configuration, are wrong: exit code 2.
    Usage(String),
    /// It ran and did not succeed: exit code 1.
    Failed(String),
    /// The gateway could not be reached, or the end not be learnt: exit code 3.
    Unreachable(String),
}

/// What a command ends with: an exit code, or a failure to be printed.
type Outcome = Result<ExitCode, Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let name = matches.subcommand_name().unwrap_or_default();
    // What was matched by the same description always fits it.
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|err| err.exit());
    let result = match cli.command {
        Command::Demo(command) => on_runtime(command.run()),
        Command::Serve(command) => on_runtime(command.run()),
        Command::Check(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Delete(command) => on_runtime(command.run()),
        Command::Dialects(command) => command.run(),
        Command::Mock(command) => on_runtime(command.run()),
        Command::Record(command) => on_runtime(command.run()),
        Command::Conform(command) => command.run(),
        Command::Store(command) => on_runtime(command.run()),
        Command::Key(command) => command.run(),
        Command::Openapi(command) => command.run(),
        Command::Healthcheck(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Completions { shell } => {
            // Into memory first: it would panic where a reader such as `head` has gone away.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "onedelete", &mut script);
            output::data(String::from_utf8_lossy(&script).trim_end());
            Ok(ExitCode::SUCCESS)
        }
    };
    let Err(failure) = result else { return result.unwrap_or(ExitCode::FAILURE) };
    let next = next(name, &failure);
    let (text, code) = match failure {
        Failure::Failed(text) => (text, 1),
        Failure::Usage(text) => (text, 2),
        Failure::Unreachable(text) => (text, 3),
    };
    output::note(&format!("error: {text}"));
    // Where the text names a command itself, that one fits better.
    if !text.contains("`onedelete ") {
        output::note(&format!("next: {next}"));
    }
    ExitCode::from(code)
}

/// The command to try after a failure of another.
fn next(command: &str, failure: &Failure) -> String {
    match (command, failure) {
        ("check", _) => "onedelete schema tenant, or onedelete schema settings, for what may stand where".to_owned(),
        ("serve" | "key", Failure::Usage(_)) => "onedelete check".to_owned(),
        ("plan", Failure::Usage(_)) => "onedelete plan --help, or onedelete check for the files".to_owned(),
        ("mock" | "record", Failure::Usage(_)) => format!("onedelete dialects, or onedelete {command} --help"),
        ("delete", Failure::Unreachable(_)) => "onedelete healthcheck, on the gateway's machine".to_owned(),
        ("healthcheck", Failure::Failed(_)) => "onedelete check, and the log of onedelete serve".to_owned(),
        _ => format!("onedelete {command} --help"),
    }
}

fn on_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().on_thread_park(telemetry::worker_is_idle).build();
    let runtime = runtime.map_err(|err| Failure::Failed(format!("the runtime cannot start: {err}")))?;
    let outcome = runtime.block_on(command);
    // Nothing is left that must be waited for; a blocking look-up of a name must not hold up the end.
    runtime.shutdown_background();
    telemetry::flush_log();
    outcome
}

/// Configuration mistakes, a line each; the first is what `error:` shows. Then the command that shows more.
fn mistakes(errors: &[ConfigError]) -> Failure {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    Failure::Usage(format!("{}\n`onedelete check` shows the place of each", lines.join("\nerror: ")))
}

/// The connection that these names mean: the only tenant and its default connection, unless they are given.
fn connection<'t>(tenants: &'t Tenants, tenant: Option<&str>, name: Option<&str>) -> Result<&'t Connection, Failure> {
    let tenant = match tenant {
        Some(id) => tenants.tenant(id).ok_or_else(|| Failure::Usage(format!("there is no tenant {id}")))?,
        None => {
            let mut all = tenants.iter();
            match (all.next(), all.next()) {
                (Some(only), None) => only,
                (None, _) => return Err(Failure::Usage("there is no tenant".to_owned())),
                _ => return Err(Failure::Usage("there are several tenants: give --tenant".to_owned())),
            }
        }
    };
    let name = name.or(tenant.default_connection.as_deref());
    let name =
        name.ok_or_else(|| Failure::Usage("the tenant has no default connection: give --connection".to_owned()))?;
    tenant.connections.get(name).map(|connection| &**connection).ok_or_else(|| {
        let known: Vec<_> = tenant.connections.keys().map(|name| &**name).collect();
        Failure::Usage(format!("tenant {} has no connection {name}; it has {}", tenant.id, known.join(", ")))
    })
}

/// SIGHUP, from when this is made: a gateway that is told to read its files again does not end.
struct HungUp(std::io::Result<tokio::signal::unix::Signal>);

impl HungUp {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self(signal(SignalKind::hangup()))
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        let came = match &mut self.0 {
            Ok(signals) => signals.recv().await,
            Err(_) => None,
        };
        if came.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for the first Ctrl-C or SIGTERM. They are listened for from the call on, not from the first poll: one that
/// comes while a command is still starting ends it in order as well.
fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let [mut interrupt, mut terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async fn first(signals: &mut std::io::Result<tokio::signal::unix::Signal>) {
        match signals {
            Ok(signals) => drop(signals.recv().await),
            // Where the signal cannot be listened to, the default action ends the process anyway.
            Err(_) => std::future::pending().await,
        }
    }
    async move {
        tokio::select! {
            () = first(&mut interrupt) => {}
            () = first(&mut terminate) => {}
        }
    }
}
