//! Keeps the process's memory to itself: it has credentials, and identifiers of what is being worked.
//!
//! A process that is not dumpable leaves no core whatever `kernel.core_pattern` says, and lets nobody but root attach to it.
//! Root, swap and a sleeping machine's disk are out of its reach.

use rustix::process::{Resource, Rlimit, setrlimit};

/// No core dump from here on, and no debugger of the same user. Cannot be taken back by this process's own user.
///
/// # Errors
/// One line that says what the system refused.
pub(super) fn forbid() -> Result<(), String> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|err| format!("core dumps cannot be limited: {err}"))?;
    // A limit does not hold where cores go to a program: that is asked for them all the same.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|err| format!("core dumps cannot be turned off: {err}"))?;
    Ok(())
}
