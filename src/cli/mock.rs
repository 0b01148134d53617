//! `onedelete mock`: the dialects' doubles as HTTP servers on loopback, for tests of other programs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use adapters::{DIALECTS, Registration};
use comfy_table::Cell;

use super::{Failure, Outcome, interrupted, output};
use crate::mock::Mock;

#[derive(Debug, clap::Args)]
pub(super) struct MockCommand {
    /// Only these dialects; all, unless given
    #[arg(long = "dialect", value_name = "ID")]
    dialects: Vec<String>,
    /// The port of the first; the others follow. 0 takes free ones
    #[arg(long, default_value_t = 9100)]
    port: u16,
}

impl MockCommand {
    pub(super) async fn run(self) -> Outcome {
        let interrupted = interrupted();
        let mut mocks = Vec::new();
        for (registration, n) in self.chosen()?.into_iter().zip(0u16..) {
            let port = if self.port == 0 { 0 } else { self.port.saturating_add(n) };
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let mock = Mock::start(registration, address).await;
            mocks.push((
                registration,
                mock.map_err(|err| Failure::Failed(format!("cannot listen on {address}: {err}")))?,
            ));
        }
        let mut table = output::table(&["dialect", "base_url"]);
        for (registration, mock) in &mocks {
            table.add_row([Cell::new(registration.profile.id), Cell::new(mock.base_url())]);
        }
        output::data(&table.to_string());
        output::data("A connection for each, ready for a tenant file:");
        for (registration, mock) in &mocks {
            let mut connections = toml::Table::new();
            connections.insert(registration.profile.id.to_owned(), mock.connection_toml().into());
            let mut file = toml::Table::new();
            file.insert("connections".to_owned(), connections.into());
            output::data(&format!("\n{}", toml::to_string(&file).unwrap_or_default().trim_end()));
        }
        output::note("\nThey hold no contacts, so no delete finds anybody. Ctrl-C ends them.");
        interrupted.await;
        for (_, mock) in mocks {
            mock.stop().await;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn chosen(&self) -> Result<Vec<&'static Registration>, Failure> {
        if self.dialects.is_empty() {
            return Ok(DIALECTS.iter().collect());
        }
        let known: Vec<_> = DIALECTS.iter().map(|registration| registration.profile.id).collect();
        let find = |id: &String| {
            adapters::find(id)
                .ok_or_else(|| Failure::Usage(format!("there is no dialect {id}; there are {}", known.join(", "))))
        };
        self.dialects.iter().map(find).collect()
    }
}
