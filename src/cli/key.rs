//! `onedelete key`: keys for callers of the gateway. The gateway itself keeps only their hashes.

use std::process::ExitCode;

use base64::Engine;

use super::{Failure, Outcome, output};
use crate::api::sha256_hex;

#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key: printed once, with the lines for the tenant's file
    New {
        /// A name for it, shown in logs
        #[arg(long, default_value = "new")]
        name: String,
    },
}

impl KeyCommand {
    pub(super) fn run(self) -> Outcome {
        let Self::New { name } = self;
        let key = new_key()?;
        output::data(&key);
        output::note("Keep it now: it is not shown again. For the tenant's file:");
        output::note(&format!("\n[[api_keys]]\nname = {name:?}\nsha256 = \"{}\"", sha256_hex(&key)));
        Ok(ExitCode::SUCCESS)
    }
}

/// `odk_` and 256 bits.
pub(super) fn new_key() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Failed("the system gives no random bytes".to_owned()))?;
    Ok(format!("odk_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
}
