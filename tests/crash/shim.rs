//! Other disks under the gateway: a small C file, compiled when it is needed and preloaded.
//!
//! It reaches what the program asks of the system by way of the C library, and nothing else.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Wrong;
use crate::gateway::Start;

/// What the disk is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Each write and each flush takes a while longer: what is told before it is done has the time to be heard.
    Slow,
    /// `fsync` and `fdatasync` do nothing.
    WithoutFlush,
}

impl Disk {
    /// How the gateway is started on it; `folder` must be there as long as it runs.
    pub(crate) fn start(self, folder: &Path) -> Result<Start, Wrong> {
        let (name, define) = match self {
            Self::Slow => ("slow.so", "-DSLOW_US=2000"),
            Self::WithoutFlush => ("without_flush.so", "-DNO_FLUSH"),
        };
        let library = folder.join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/shim.c");
        tell(Command::new("cc").args(["-O1", "-shared", "-fPIC", define, "-o"]).arg(&library).arg(source))?;
        Ok(Start { variables: vec![("LD_PRELOAD", library.into())], ..Start::default() })
    }
}

/// Runs a command of the system.
pub(crate) fn tell(command: &mut Command) -> Result<(), Wrong> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|err| format!("{name} cannot be run: {err}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{name} failed: {}", said.trim())) }
}
