//! The memory of the running program: nobody of the same user gets at it, and no crash writes it down.
//!
//! Root sees it all the same; nothing here says otherwise. What needs root to be tried, or a machine that writes cores at
//! all, is left out without.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use crate::cli::program;
use crate::served::Process;
use crate::support::{Setup, mock};

/// Runs a command of the shell that may leave a core in this folder, and says whether the system wrote one.
fn dumps(folder: &Path, script: &str) -> bool {
    let status =
        Command::new("sh").args(["-c", script]).current_dir(folder).stderr(std::process::Stdio::null()).status();
    status.unwrap().core_dumped()
}

/// `serve` in a folder of its own, with leave for cores from outside, and these arguments more.
async fn serve(config: &Path, more: &[&str]) -> Process {
    let config = config.join("onedelete.toml");
    let served = program(&[&["serve", "--config", config.to_str().unwrap()], more].concat(), &[]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\""])
        .arg(served.get_program())
        .args(served.get_args());
    command.current_dir(config.parent().unwrap()).env("NO_COLOR", "1");
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Process::start(command).await
}

async fn signal(process: &Process, name: &str) {
    let (pid, name) = (process.pid().to_string(), format!("-{name}"));
    let sent = tokio::task::spawn_blocking(move || Command::new("kill").args([name, pid]).status());
    assert!(sent.await.unwrap().unwrap().success());
}

#[tokio::test]
async fn no_crash_leaves_a_core_unless_that_was_asked_for() {
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "sales", &mock, |_| {});
    let folder = setup.write();
    for crash in ["ABRT", "ILL", "QUIT"] {
        let served = serve(&folder, &[]).await;
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", served.pid())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"], "{core}");
        signal(&served, crash).await;
        let end = served.ended().await;
        assert!(end.status.signal().is_some(), "{:?}", end.status);
        assert!(!end.status.core_dumped(), "{crash}");
    }
    // The same where it is asked for, if this machine writes cores at all.
    let elsewhere = tempfile::tempdir().unwrap();
    if !dumps(elsewhere.path(), "ulimit -c unlimited; kill -ABRT $$") {
        return eprintln!("this machine writes no cores: that they are written on demand is not shown");
    }
    let served = serve(&folder, &["--core-dumps"]).await;
    signal(&served, "ABRT").await;
    assert!(served.ended().await.status.core_dumped());
    mock.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nobody_of_the_same_user_can_look_into_the_process() {
    /// Neither root's nor anybody's who runs tests.
    const SOMEBODY: u32 = 65_534;
    let mock = mock("wethod").await;
    let setup = Setup::new().mock("acme", "sales", &mock, |_| {});
    let folder = setup.write();
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    for (more, readable) in [(&[][..], false), (&["--core-dumps"][..], true)] {
        let config = folder.join("onedelete.toml");
        let mut command =
            program(&[&["serve", "--config", config.to_str().unwrap()], more].concat(), &[("CANARY", "1")]);
        if root {
            // Root looks into everything: the program has to be somebody else's.
            let copy = folder.join("onedelete");
            std::fs::copy(command.get_program(), &copy).unwrap();
            for path in [folder.clone(), folder.join("tenants")] {
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            }
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = program(&[], &[("CANARY", "1")]);
            let mut as_somebody = Command::new(&copy);
            as_somebody.args(arguments).env_clear().env("CANARY", "1");
            as_somebody.stdin(std::process::Stdio::null());
            as_somebody.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            std::os::unix::process::CommandExt::uid(&mut as_somebody, SOMEBODY);
            std::os::unix::process::CommandExt::gid(&mut as_somebody, SOMEBODY);
            std::mem::swap(&mut command, &mut as_somebody);
        }
        let served = Process::start(command).await;
        // Whoever may read this may attach a debugger, as far as nothing else forbids that.
        let mut look = Command::new("cat");
        look.arg(format!("/proc/{}/environ", served.pid()));
        if root {
            std::os::unix::process::CommandExt::uid(&mut look, SOMEBODY);
            std::os::unix::process::CommandExt::gid(&mut look, SOMEBODY);
        }
        let seen = tokio::task::spawn_blocking(move || look.output().unwrap()).await.unwrap();
        let environ = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert_eq!(
            environ.contains("CANARY=1"),
            readable,
            "{more:?}: {environ:?} {}",
            String::from_utf8_lossy(&seen.stderr)
        );
        assert!(served.stop().await.status.success());
    }
    mock.stop().await;
}
