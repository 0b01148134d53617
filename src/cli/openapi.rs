//! `onedelete openapi`: the API's description, as the gateway serves it.

use std::process::ExitCode;

use super::{Outcome, output};
use crate::api::OPENAPI;

#[derive(Debug, clap::Args)]
pub(super) struct Openapi {}

impl Openapi {
    pub(super) fn run(self) -> Outcome {
        output::data(OPENAPI.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}
