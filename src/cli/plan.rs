//! `onedelete plan`: each call as it would be sent, with the credential left out. It sends nothing.

use std::process::ExitCode;

use adapters::{Call, Identifier, Slot, Target};

use super::{ConfigFile, Failure, Outcome, mistakes, output};
use crate::tenants::Connection;
use crate::{settings, tenants};

#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    #[command(flatten)]
    file: ConfigFile,
    /// The tenant; not needed where there is only one
    #[arg(long)]
    tenant: Option<String>,
    /// The connection; the tenant's default, unless given
    #[arg(long)]
    connection: Option<String>,
    #[command(flatten)]
    contacts: Contacts,
}

/// Contacts on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Contacts {
    /// Native ids
    ids: Vec<String>,
    /// A phone number, `+` and digits; may be given several times
    #[arg(long = "phone", value_name = "NUMBER")]
    phones: Vec<String>,
    /// An id in a third system; may be given several times
    #[arg(long = "external", value_name = "PROVIDER:ID")]
    externals: Vec<String>,
}

impl Contacts {
    pub(super) fn identifiers(&self) -> Result<Vec<Identifier>, Failure> {
        let ids = self.ids.iter().map(|id| Ok(Identifier::Id(id.as_str().into())));
        let phones = self.phones.iter().map(|phone| Ok(Identifier::Phone(phone.as_str().into())));
        let externals = self.externals.iter().map(|text| match text.split_once(':') {
            Some((provider, id)) => Ok(Identifier::External { provider: provider.into(), id: id.into() }),
            None => Err(Failure::Usage("--external needs PROVIDER:ID".to_owned())),
        });
        ids.chain(phones).chain(externals).collect()
    }
}

impl Plan {
    pub(super) fn run(self) -> Outcome {
        let identifiers = self.contacts.identifiers()?;
        if identifiers.is_empty() {
            return Err(Failure::Usage("no contacts: give ids, --phone or --external".to_owned()));
        }
        let settings = settings::load(&self.file.config).map_err(|errors| mistakes(&errors))?;
        let secrets = tenants::Secrets::Skip;
        let tenants = tenants::load(&settings.tenants.directory, &settings.upstream, secrets)
            .map_err(|errors| mistakes(&errors))?;
        let connection = super::connection(&tenants, self.tenant.as_deref(), self.connection.as_deref())?;
        let slots = (0..).map(Slot);
        let targets: Vec<_> = slots.zip(identifiers).map(|(slot, identifier)| Target { slot, identifier }).collect();
        let plan = connection.dialect.plan(targets);
        for call in &plan.calls {
            output::data(&shown(connection, call));
        }
        for (slot, fault) in &plan.refused {
            output::note(&format!("contact {} would be rejected: {}", slot.0, fault.code.as_str()));
        }
        Ok(if plan.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn shown(connection: &Connection, call: &Call) -> String {
    let mut text = format!("{} {}\n", call.request.method(), call.request.uri());
    let auth = &connection.registration.profile.auth;
    text.push_str(&format!("{}: {}<redacted>\n", auth.header, auth.prefix));
    for (name, value) in call.request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    if !call.request.body().is_empty() {
        text.push_str(&format!("\n{}\n", String::from_utf8_lossy(call.request.body())));
    }
    text
}
