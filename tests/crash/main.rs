//! Crash tests: the real program as a child process, hurt in one way after another, started again, and judged by the
//! mocks' own journals. `tests/README.md` has the commands and what each must show.
//!
//! It knows the program from outside alone: HTTP, the command line, files and signals. What the store looks like inside
//! is not its business, except to `gateways::left_alone`: whose a part is shows nowhere else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test fails by panicking and reports by printing"
)]

mod client;
mod errors;
mod gateway;
mod gateways;
mod kill;
mod laws;
mod orders;
#[path = "../postgres/mod.rs"]
mod postgres;
mod powercut;
mod shim;
mod storm;
mod strace;
mod syscalls;
mod told;
mod world;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

/// What is wrong, in one line or more.
type Wrong = String;

/// How a command ended, if nothing was wrong.
enum End {
    /// Its figures.
    Held(String),
    /// What this machine does not have.
    Skipped(String),
}

/// What a command may be told.
struct Options {
    points: Option<usize>,
    seed: u64,
    /// A command that cannot run here has failed.
    required: bool,
    /// Storm: a kill in every round, and not only in the last.
    kill: bool,
    /// Part of the quick selection.
    quick: bool,
}

const USAGE: &str = "usage: cargo test --test crash -- [COMMAND [OPTIONS]]
  kill     --points N   kill -9 at N random moments under load
  syscalls --points N   kill at N system calls that write (needs strace)
  storm    --rounds N   1,000 identical requests at once, N times; the last with a kill -9 (--kill: all)
  errors   --points N   EIO and ENOSPC at N writes and flushes of the store (needs strace)
  powercut --cuts N     N power cuts, and the control (needs root and loop devices)
  gateways --schedules N  three gateways on one Postgres, killed, frozen and stopped, N times (needs Postgres)
  each: --seed S        repeats the same choices; --required: fails where it would be skipped
without a command: a quick selection";

/// Each command, and what says how often.
const COMMANDS: [(&str, &str); 6] = [
    ("kill", "--points"),
    ("syscalls", "--points"),
    ("storm", "--rounds"),
    ("errors", "--points"),
    ("powercut", "--cuts"),
    ("gateways", "--schedules"),
];

/// Stand-ins for a test harness's own options, which `cargo test` hands to every target.
const IGNORED: [&str; 3] = ["--nocapture", "-q", "--quiet"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !IGNORED.contains(&word.as_str())).collect();
    if words.iter().any(|word| word == "--list") {
        println!("0 tests, 0 benchmarks");
        return ExitCode::SUCCESS;
    }
    // `cargo test NAME` hands a part of a test's name to every target.
    if let [name] = words.as_slice()
        && !name.starts_with('-')
        && COMMANDS.iter().all(|(command, _)| command != name)
    {
        println!("no command is named {name}: 0 run\n{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some((command, options)) = parse(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let held = runtime.block_on(async {
        match command {
            Some(command) => run(command, &options).await,
            None => {
                let quick = [("kill", 4), ("syscalls", 4), ("storm", 1), ("errors", 4), ("gateways", 1)];
                let mut held = true;
                for (command, points) in quick {
                    held &= run(command, &Options { points: Some(points), quick: true, ..options }).await;
                }
                held
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: &[String]) -> Option<(Option<&'static str>, Options)> {
    let mut words = words.iter().map(String::as_str);
    let mut options =
        Options { points: None, seed: fastrand::u64(..1_000_000), required: false, kill: false, quick: false };
    let Some(first) = words.next() else { return Some((None, options)) };
    let (command, number) = COMMANDS.into_iter().find(|(name, _)| *name == first)?;
    while let Some(word) = words.next() {
        match word {
            "--required" => options.required = true,
            "--kill" if command == "storm" => options.kill = true,
            "--seed" => options.seed = words.next()?.parse().ok()?,
            _ if word == number => options.points = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
            _ => return None,
        }
    }
    Some((Some(command), options))
}

/// Runs one command within its time, and says in one line how it went. Whether all is well.
async fn run(command: &'static str, options: &Options) -> bool {
    let seed = options.seed;
    let n = options.points.unwrap_or(match command {
        "kill" | "syscalls" => 50,
        "errors" => 40,
        "powercut" | "gateways" => 10,
        _ => 5,
    });
    let longest = Duration::from_secs(90 + if command == "gateways" { 60 } else { 12 } * n as u64);
    let work = async {
        match command {
            "kill" => kill::run(n, seed).await,
            "syscalls" => syscalls::run(n, seed).await,
            "storm" => storm::run(n, seed, options.kill).await,
            "errors" => errors::run(n, seed).await,
            "gateways" => gateways::run(n, seed, options.quick).await,
            _ => powercut::run(n, seed).await,
        }
    };
    // Whatever ends it early, what was set up is taken down by its guards.
    let end = tokio::select! {
        end = tokio::time::timeout(longest, work) => end.unwrap_or_else(|_| Err(format!("not done after {longest:?}"))),
        () = interrupted() => Err("interrupted".to_owned()),
    };
    match end {
        Ok(End::Held(figures)) => println!("crash {command}: held: {figures}; seed {seed}"),
        Ok(End::Skipped(why)) if !options.required => println!("skipped: crash {command}: {why}"),
        Ok(End::Skipped(why)) => {
            println!("crash {command}: FAILED: required, and cannot run here: {why}");
            return false;
        }
        Err(wrong) => {
            let (name, more) = match command {
                "storm" => ("rounds", if options.kill { " --kill" } else { "" }),
                "powercut" => ("cuts", ""),
                "gateways" => ("schedules", ""),
                _ => ("points", ""),
            };
            println!("crash {command}: FAILED with seed {seed}\n{wrong}");
            println!("again: cargo test --test crash -- {command} --{name} {n} --seed {seed}{more}");
            return false;
        }
    }
    true
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Waits for something that must come; what would hang is wrong instead.
async fn within<T>(what: &str, longest: Duration, waiting: impl Future<Output = T>) -> Result<T, Wrong> {
    tokio::time::timeout(longest, waiting).await.map_err(|_| format!("waited more than {longest:?} for {what}"))
}
