//! `onedelete man DIR`: a manual page for the program and for each of its commands, made from their own help texts.
//!
//! It installs nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, Failure, Outcome, output};

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The folder for the pages; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Outcome {
        let wrong = |err: std::io::Error| Failure::Failed(format!("{}: {}", self.folder.display(), err.kind()));
        std::fs::create_dir_all(&self.folder).map_err(wrong)?;
        clap_mangen::generate_to(Cli::command(), &self.folder).map_err(wrong)?;
        output::note(&format!("man -l {} shows the first", self.folder.join("onedelete.1").display()));
        Ok(ExitCode::SUCCESS)
    }
}
