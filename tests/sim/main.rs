//! Simulation of the whole gateway: its real server, API, engine, outbound and store over a simulated network, in virtual
//! time, against the mocks of all five dialects. `tests/README.md` has the commands and what each must show.
//!
//! Everything that happens follows from a seed. What is said about contacts is judged by the mocks' own journals, with the
//! laws of `tests/crash/`. It does not look at how files, processes and sockets fail: `tests/crash/` does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test fails by panicking and reports by printing"
)]

mod callers;
mod gateway;
#[path = "../crash/laws.rs"]
mod laws;
mod ledger;
mod life;
mod line;
mod net;
#[path = "../crash/orders.rs"]
#[allow(dead_code, reason = "some of it is for tests in real time")]
mod orders;
mod run;
mod schedule;
#[path = "../crash/told.rs"]
#[allow(dead_code, reason = "some of it is for tests in real time")]
mod told;
mod trace;
#[path = "../crash/world.rs"]
#[allow(dead_code, reason = "some of it is for tests in real time")]
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gateway::Site;
use run::{Figures, run};
use schedule::Class;

/// What is wrong, in one line or more.
type Wrong = String;

const USAGE: &str = "usage: cargo test --test sim -- [COMMAND [OPTIONS]]
  run      --seeds N [--seed S] [--jobs J]   N schedules from seed S on, and some of them twice
  campaign --seeds N [--seed S] [--jobs J]   the same; the result goes to tests/sim/campaign.txt
  replay SEED                                one schedule with all its events, twice
without a command: a quick selection";

/// Seeds of the quick selection.
const QUICK: u64 = 40;
/// One in so many schedules is run a second time and must have the same trace.
const TWICE: u64 = 50;
/// No schedule takes nearly so long, unless it goes round in circles.
const LONGEST: Duration = Duration::from_secs(180);
/// How often a long run says how far it is.
const TELL: Duration = Duration::from_secs(60);
/// In schedules whose faults all last under 5 minutes: unknown ones of 100,000 contacts that can be sent again, at most,
/// without those that no further attempt could tell. So whoever says "unknown" of everything does not pass.
const MOST_UNKNOWN: usize = 100;
/// The same, with those.
const MOST_UNKNOWN_IN_ALL: usize = 1_500;
/// Where the last campaign's result stands.
const RESULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/campaign.txt");

/// Stand-ins for a test harness's own options, which `cargo test` hands to every target.
const IGNORED: [&str; 3] = ["--nocapture", "-q", "--quiet"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !IGNORED.contains(&word.as_str())).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words.contains(&"--list") {
        println!("0 tests, 0 benchmarks");
        return ExitCode::SUCCESS;
    }
    run::count_panics();
    let held = match words[..] {
        [] => many(&Options { seeds: QUICK, ..Options::default() }).is_some(),
        ["run", ref rest @ ..] | ["campaign", ref rest @ ..] => match Options::read(rest) {
            Some(options) => {
                let told = many(&options);
                if words[0] == "campaign"
                    && let Some(told) = &told
                {
                    std::fs::write(RESULT, told).unwrap();
                }
                told.is_some()
            }
            None => return usage(),
        },
        ["replay", seed] => match seed.parse() {
            Ok(seed) => replay(seed),
            Err(_) => return usage(),
        },
        // `cargo test NAME` hands a part of a test's name to every target.
        [name] if !name.starts_with('-') => {
            println!("no command is named {name}: 0 run\n{USAGE}");
            true
        }
        _ => return usage(),
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// What a command may be told.
struct Options {
    seeds: u64,
    seed: u64,
    jobs: usize,
}

impl Default for Options {
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Self { seeds: 2_000, seed: 1, jobs }
    }
}

impl Options {
    fn read(words: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next()?;
            match *word {
                "--seeds" => options.seeds = value.parse().ok().filter(|n| *n > 0)?,
                "--seed" => options.seed = value.parse().ok()?,
                "--jobs" => options.jobs = value.parse().ok().filter(|n| *n > 0)?,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// What many schedules came to.
#[derive(Default)]
struct Sum {
    short: Figures,
    long: Figures,
    twice: usize,
    events: usize,
    hash: u64,
    wrong: Vec<(u64, Wrong)>,
}

/// Runs schedules side by side. Their figures in words, if nothing was wrong.
fn many(options: &Options) -> Option<String> {
    let Options { seeds, seed: first, jobs } = *options;
    let site = site();
    let (next, begun, sum) = (AtomicU64::new(0), Instant::now(), Mutex::new(Sum::default()));
    // What each worker is at, and since when.
    let at: Vec<_> = (0..jobs).map(|_| Mutex::new(None::<(u64, Instant)>)).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = at
            .iter()
            .map(|at| {
                let (next, sum, site) = (&next, &sum, &site);
                scope.spawn(move || {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        // A few false ones say as much as many.
                        if n >= seeds || sum.lock().unwrap().wrong.len() >= 5 {
                            break;
                        }
                        *at.lock().unwrap() = Some((first + n, Instant::now()));
                        one(site, first + n, n % TWICE == 0, sum);
                    }
                    *at.lock().unwrap() = None;
                })
            })
            .collect();
        let mut told = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            if told.elapsed() > TELL {
                told = Instant::now();
                eprintln!(
                    "sim: {} of {seeds} schedules after {} s",
                    next.load(Ordering::Relaxed).min(seeds),
                    begun.elapsed().as_secs()
                );
            }
            for at in &at {
                if let Some((seed, since)) = *at.lock().unwrap()
                    && since.elapsed() > LONGEST
                {
                    println!("sim: FAILED: seed {seed} comes to no end\nagain: cargo test --test sim -- replay {seed}");
                    std::process::exit(1);
                }
            }
        }
    });
    let took = begun.elapsed();
    let sum = sum.into_inner().unwrap();
    for (seed, wrong) in &sum.wrong {
        println!("sim: FAILED with seed {seed}\n{wrong}\nagain: cargo test --test sim -- replay {seed}");
    }
    let last = first + seeds - 1;
    let told = [
        format!("sim: seeds {first} to {last}, {} events, trace {:016x}", sum.events, sum.hash),
        line(Class::Short, &sum.short),
        untellable(Class::Short, &sum.short),
        line(Class::Long, &sum.long),
        untellable(Class::Long, &sum.long),
        format!("same seed, same trace: {} of {} run twice", sum.twice, seeds.div_ceil(TWICE)),
    ]
    .join("\n");
    println!("{told}");
    let mut faults = sum.short.faults.clone();
    sum.long.faults.iter().for_each(|(fault, count)| *faults.entry(fault).or_default() += count);
    let faults: Vec<_> = faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    println!("what went wrong: {}", faults.join(", "));
    for (cause, count) in &sum.short.causes {
        println!("  unknown where every fault is short: {count:>6} {cause}");
    }
    println!(
        "{:.1} s, {:.1} ms a schedule and job",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e3 * jobs as f64 / seeds as f64
    );
    let short = &sum.short;
    let beyond = |unknown: usize, most: usize| unknown * 100_000 > short.ids * most;
    let too_many = beyond(short.could_be_told(), MOST_UNKNOWN) || beyond(short.unknown_ids, MOST_UNKNOWN_IN_ALL);
    let too_many = too_many && seeds >= 1_000;
    if too_many {
        println!("sim: FAILED: too many are unknown where every fault is short");
    }
    let held = sum.wrong.is_empty() && !too_many;
    let count = sum.short.schedules + sum.long.schedules;
    if held {
        println!("sim: held: {count} schedules, 0 false");
    }
    held.then(|| format!("{told}\nfalse outcomes per million fault schedules: 0 of {count}\n"))
}

/// Runs one schedule, perhaps twice, and adds it up.
fn one(site: &Site, seed: u64, twice: bool, sum: &Mutex<Sum>) {
    let outcome = run(site, seed, false);
    let again = twice.then(|| run(site, seed, false).hash);
    let mut sum = sum.lock().unwrap();
    match outcome.class {
        Class::Short => sum.short += outcome.figures,
        Class::Long => sum.long += outcome.figures,
    }
    sum.events += outcome.events;
    // In whatever order they come.
    sum.hash = sum.hash.wrapping_add(outcome.hash);
    match again {
        Some(hash) if hash != outcome.hash => sum.wrong.push((seed, "another trace at the second time".to_owned())),
        Some(_) => sum.twice += 1,
        None => {}
    }
    if let Some(wrong) = outcome.wrong {
        sum.wrong.push((seed, wrong));
    }
}

fn line(class: Class, figures: &Figures) -> String {
    let Figures { schedules, deletions, contacts, deleted, unknown_ids, ids, unknown_others, others, repeated, .. } =
        figures;
    let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    format!(
        "{}: {schedules} schedules, {deletions} deletions, {contacts} contacts, {deleted} deleted, {repeated} sent more than \
         once; unknown: {unknown_ids} of {ids} that may be sent again ({:.3} %), {unknown_others} of {others} that may not \
         ({:.3} %)",
        class.name(),
        share(*unknown_ids, *ids),
        share(*unknown_others, *others),
    )
}

/// Why those that may be sent again are unknown.
fn untellable(class: Class, figures: &Figures) -> String {
    let share = |part: usize| 100.0 * part as f64 / figures.ids.max(1) as f64;
    let told = figures.could_be_told();
    let mut line = format!(
        "{}: of the unknown ones that may be sent again, {told} could have been told by another attempt ({:.3} %)",
        class.name(),
        share(told)
    );
    for (why, count) in &figures.untellable {
        line += &format!(", {count} not: {} ({:.3} %)", why.words(), share(*count));
    }
    line
}

/// One schedule with all its events, twice: the traces must agree.
fn replay(seed: u64) -> bool {
    let site = site();
    let (first, second) = (run(&site, seed, true), run(&site, seed, true));
    first.lines.iter().for_each(|line| println!("{line}"));
    println!("sim: seed {seed}, {} events, trace {:016x}", first.events, first.hash);
    let same = first.hash == second.hash;
    if !same {
        let at = first.lines.iter().zip(&second.lines).position(|(one, other)| one != other).unwrap_or_default();
        println!("another trace at the second time, from line {at} on:");
        println!("  {:?}\n  {:?}", first.lines.get(at), second.lines.get(at));
    }
    match &first.wrong {
        Some(wrong) => println!("sim: FAILED with seed {seed}\n{wrong}"),
        None => println!("sim: held"),
    }
    same && first.wrong.is_none()
}

/// The configuration. Mocks need a runtime to say what their connections are.
fn site() -> Site {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { Site::new() })
}
