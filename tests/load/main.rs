//! Load tests: the real program as a child process, under more than it can take, for longer than one likes to wait, or
//! with peers that hold on to everything. `tests/README.md` has the commands and what each must show.
//!
//! It measures from outside: answers, the upstreams' journals, and what the system says of the process. Nothing here looks
//! at single requests' correctness beyond that; `tests/it/` does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test fails by panicking and reports by printing"
)]

mod bombs;
mod caller;
mod figures;
mod gateway;
mod oracle;
mod overload;
mod slow;
mod soak;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

/// What is wrong, in one line or more.
type Wrong = String;

/// What a command may be told.
#[derive(Clone, Copy)]
struct Options {
    /// How long: of a phase (`overload`), or of all (`soak`).
    seconds: Option<u64>,
    /// How often (`slow`).
    rounds: Option<usize>,
    seed: u64,
    /// A command that cannot run here has failed.
    required: bool,
    /// The machine is used by others as well: ratios of times have wider bounds.
    shared: bool,
    /// Part of the quick selection: small, and without ratios, which a busy machine would spoil.
    quick: bool,
}

const USAGE: &str = "usage: cargo test --test load -- [COMMAND [OPTIONS]]
  overload --seconds N  five times the capacity for N seconds, with each store
  slow     --rounds N   1,000 slow connections of each kind, N times, beside a bystander
  bombs                 50 upstream replies that are too large, too long or too slow, of each kind, at once
  soak     --seconds N  a million contacts with 10 % faults, spread over N seconds
  each: --seed S        repeats the same choices; --required: fails where it would be skipped; --shared: wider bounds
        of ratios, for a machine that does other things as well
without a command: a quick selection, without ratios";

/// Each command, and its own option.
const COMMANDS: [(&str, &str); 4] =
    [("overload", "--seconds"), ("slow", "--rounds"), ("bombs", ""), ("soak", "--seconds")];

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
    if let Err(wrong) = gateway::is_possible() {
        println!("skipped: load: {wrong}");
        return if options.required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    // Before there is a second thread: all that come later are kept to the same core.
    gateway::step_aside();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let held = runtime.block_on(async {
        match command {
            Some(command) => run(command, options).await,
            None => {
                let mut held = true;
                for (command, _) in COMMANDS {
                    held &= run(command, Options { quick: true, ..options }).await;
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
    let seed = fastrand::u64(..1_000_000);
    let mut options = Options { seconds: None, rounds: None, seed, required: false, shared: false, quick: false };
    let Some(first) = words.next() else { return Some((None, options)) };
    let (command, own) = COMMANDS.into_iter().find(|(name, _)| *name == first)?;
    while let Some(word) = words.next() {
        match word {
            "--required" => options.required = true,
            "--shared" => options.shared = true,
            "--seed" => options.seed = words.next()?.parse().ok()?,
            "--seconds" if own == word => options.seconds = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
            "--rounds" if own == word => options.rounds = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
            _ => return None,
        }
    }
    Some((Some(command), options))
}

/// Runs one command within its time, and says in one line how it went. Whether all is well.
async fn run(command: &'static str, options: Options) -> bool {
    let seed = options.seed;
    let seconds = options.seconds.unwrap_or(match command {
        "overload" => 10,
        _ => 120,
    });
    let rounds = options.rounds.unwrap_or(3);
    let longest = Duration::from_secs(match command {
        "overload" => 240 + 8 * seconds,
        "slow" => 60 + 90 * rounds as u64,
        "bombs" => 120,
        _ => 180 + seconds,
    });
    let work = async {
        match command {
            "overload" => overload::run(seconds, options.shared, options.quick).await,
            "slow" => slow::run(rounds, options.shared, options.quick).await,
            "bombs" => bombs::run(options.quick).await,
            _ => soak::run(seconds, seed, options.quick).await,
        }
    };
    // Whatever ends it early, the gateway is killed by its guard.
    let end = tokio::select! {
        end = tokio::time::timeout(longest, work) => end.unwrap_or_else(|_| Err(format!("not done after {longest:?}"))),
        () = interrupted() => Err("interrupted".to_owned()),
    };
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    match end {
        Ok(figures) => println!("load {command}: held: {figures}; {build} build, seed {seed}"),
        Err(wrong) => {
            println!("load {command}: FAILED with seed {seed}, {build} build\n{wrong}");
            println!("again: cargo test --test load -- {command} --seed {seed}");
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
