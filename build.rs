//! Says which commit the program is built from, for `onedelete --version`.
//!
//! `ONEDELETE_COMMIT` names it where there is no git, as in a container. Without that a release build asks git; a debug build
//! does not, so that a commit alone rebuilds nothing. A build that knows no commit is no failure.

use std::env;
use std::io::Write;
use std::process::Command;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "cargo::rerun-if-env-changed=ONEDELETE_COMMIT")?;
    writeln!(out, "cargo::rerun-if-changed=build.rs")?;
    let given = env::var("ONEDELETE_COMMIT").ok().filter(|text| is_plain(text));
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match given {
        Some(commit) => Some(commit),
        None if release => {
            for name in ["HEAD", "logs/HEAD"] {
                let place = git(&["rev-parse", "--path-format=absolute", "--git-path", name]);
                // A path that is not there would rebuild each time.
                if let Some(path) = place.filter(|path| std::path::Path::new(path).exists()) {
                    writeln!(out, "cargo::rerun-if-changed={path}")?;
                }
            }
            git(&["rev-parse", "--short=12", "HEAD"])
        }
        None => None,
    };
    let known = commit.map(|commit| format!("commit {commit}"));
    let build = if release { "" } else { ", debug build" };
    let told = known.unwrap_or_else(|| "commit not known".to_owned());
    writeln!(out, "cargo::rustc-env=ONEDELETE_BUILD={told}{build}")
}

/// Only what can stand in one line, and in a label.
fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._+".contains(&b))
}

fn git(arguments: &[&str]) -> Option<String> {
    let told = Command::new("git").args(arguments).output().ok().filter(|told| told.status.success())?;
    String::from_utf8(told.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
