//! `onedelete record`: stands before an upstream and writes what is exchanged with it into a file of fixtures.
//!
//! What the file leaves out is the matter of `record`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use adapters::url::BaseUrl;
use adapters::{DIALECTS, SettingsError};
use serde_json::{Map, Value};

use super::{ConfigFile, Failure, Outcome, interrupted, mistakes, output};
use crate::record::{Recorder, Upstream};
use crate::{settings, tenants};

#[derive(Debug, clap::Args)]
pub(super) struct Record {
    #[command(flatten)]
    file: ConfigFile,
    /// The tenant; not needed where there is only one
    #[arg(long)]
    tenant: Option<String>,
    /// The connection whose upstream it stands before; the tenant's default, unless given
    #[arg(long)]
    connection: Option<String>,
    /// The upstream's base URL, instead of a configuration
    #[arg(long, value_name = "URL", requires = "dialect", conflicts_with_all = ["tenant", "connection"])]
    upstream: Option<String>,
    /// With --upstream: its dialect
    #[arg(long, value_name = "ID", requires = "upstream")]
    dialect: Option<String>,
    /// With --upstream: a setting of the connection, as JSON or text; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", requires = "upstream")]
    settings: Vec<String>,
    /// With --upstream: the URL of sign-ins, where that is at another host
    #[arg(long, value_name = "URL", requires = "upstream")]
    sign_in: Option<String>,
    /// Where to listen, on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9200")]
    listen: SocketAddr,
    /// The file to write; it must not be there yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Keep the texts of replies: names, e-mail addresses and whatever else stands there
    #[arg(long)]
    keep_text: bool,
}

impl Record {
    pub(super) async fn run(self) -> Outcome {
        let interrupted = interrupted();
        let upstream = match (&self.upstream, &self.dialect) {
            (Some(url), Some(dialect)) => self.named(url, dialect)?,
            _ => self.configured()?,
        };
        let recorder = Recorder::start(upstream, self.listen, &self.out, self.keep_text, output::note);
        let recorder = recorder.await.map_err(Failure::Usage)?;
        output::data(&format!("base_url = \"{}\"", recorder.base_url()));
        if let Some(url) = recorder.sign_in_url() {
            output::data(&format!("sign-ins: {url}"));
        }
        output::note(&format!("Recording into {}. Ctrl-C ends it.", self.out.display()));
        interrupted.await;
        recorder.stop().await;
        Ok(ExitCode::SUCCESS)
    }

    fn named(&self, url: &str, dialect: &str) -> Result<Upstream, Failure> {
        let known: Vec<_> = DIALECTS.iter().map(|registration| registration.profile.id).collect();
        let registration = adapters::find(dialect)
            .ok_or_else(|| Failure::Usage(format!("there is no dialect {dialect}; there are {}", known.join(", "))))?;
        let wrong = |name: &str, err: SettingsError| Failure::Usage(format!("{name} {}", err.message));
        BaseUrl::parse(url).map_err(|err| wrong("--upstream", err))?;
        let sign_in = match &self.sign_in {
            Some(url) => {
                BaseUrl::parse(url).map_err(|err| wrong("--sign-in", err))?;
                Some(url.parse().map_err(|_| Failure::Usage("--sign-in is no URL".to_owned()))?)
            }
            None => None,
        };
        let mut settings = Map::new();
        for pair in &self.settings {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| Failure::Usage("--set needs NAME=VALUE".to_owned()))?;
            settings.insert(name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)));
        }
        Upstream::at(registration, url, settings, sign_in).map_err(Failure::Usage)
    }

    fn configured(&self) -> Result<Upstream, Failure> {
        let settings = settings::load(&self.file.config).map_err(|errors| mistakes(&errors))?;
        // The client brings its own credential.
        let secrets = tenants::Secrets::Skip;
        let tenants = tenants::load(&settings.tenants.directory, &settings.upstream, secrets)
            .map_err(|errors| mistakes(&errors))?;
        let connection = super::connection(&tenants, self.tenant.as_deref(), self.connection.as_deref())?;
        Upstream::of_connection(connection).map_err(Failure::Usage)
    }
}
