//! Seeded bugs: a copy of the source in which rules are broken on purpose, one at a time, and the tests that must notice.
//!
//! The list is in `bugs.rs`. All bugs are built into one copy, each behind a switch in the environment, so there is one build;
//! without a switch the copy is the product, and every test that is named must pass in it. The product itself has no switch.
//! `cargo test --test seeded` looks whether every bug still fits the source; `cargo test --test seeded -- run` runs them.
//! It does not look for tests that are missing: only for those that are named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "every function here is part of a test, and its figures are printed"
)]

mod bugs;
mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bugs::{BUGS, Bug, SHORT_CUTS, Suite};

/// The variable that switches one bug on.
const SWITCH: &str = "ONEDELETE_SEEDED";

/// No test that is named takes nearly as long, whatever is broken.
const LONGEST: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["run"] => run(&BUGS.iter().collect::<Vec<_>>(), true),
        ["run", name] => match BUGS.iter().find(|bug| bug.name == name) {
            Some(bug) => run(&[bug], false),
            None => {
                println!("seeded: there is no bug {name}; tests/seeded/bugs.rs has the list");
                ExitCode::from(2)
            }
        },
        // Another word is the name of some other target's test.
        [_, ..] => ExitCode::SUCCESS,
        [] => {
            let wrong = copy::misfits();
            wrong.iter().for_each(|line| println!("{line}"));
            let (bugs, cuts) = (BUGS.len(), SHORT_CUTS.1);
            println!("seeded: {bugs} bugs and {cuts} short cuts, {} do not fit the source", wrong.len());
            if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn run(bugs: &[&Bug], whole: bool) -> ExitCode {
    let wrong = copy::misfits();
    if !wrong.is_empty() {
        wrong.iter().for_each(|line| println!("{line}"));
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let programs = match copy::build() {
        Ok(programs) => programs,
        Err(said) => {
            println!("{said}\nseeded: the copy with the bugs does not build");
            return ExitCode::FAILURE;
        }
    };
    println!("seeded: built in {} s", begun.elapsed().as_secs());
    if !control(&programs, bugs) {
        return ExitCode::FAILURE;
    }
    let (mut found, mut sought) = (0, 0);
    if whole {
        sought += SHORT_CUTS.1;
        found += short_cuts(&programs);
    }
    for bug in bugs {
        sought += 1;
        let ended = test(&programs, bug.suite, &[bug.test], Some(bug.name));
        let noticed = ended.failed(1);
        found += usize::from(noticed);
        let verdict = if noticed { "found by" } else { "NOT FOUND by" };
        println!("{:<44} {:<8} {verdict} {}", bug.name, bug.area, bug.test);
        if !noticed {
            println!("{}", ended.said);
        }
    }
    let verdict = if found == sought { "held" } else { "broken" };
    println!("seeded: {verdict}: {found} of {sought} found, {} s", begun.elapsed().as_secs());
    if found == sought { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// With every bug switched off, every test that is named is there and passes.
fn control(programs: &BTreeMap<Suite, PathBuf>, bugs: &[&Bug]) -> bool {
    let mut good = true;
    for suite in programs.keys() {
        let names: BTreeSet<_> = bugs.iter().filter(|bug| bug.suite == *suite).map(|bug| bug.test).collect();
        let names: Vec<_> = names.into_iter().collect();
        if names.is_empty() {
            continue;
        }
        let ended = test(programs, *suite, &names, None);
        if !ended.passed(names.len()) {
            println!("{}\nseeded: without a bug, not all of these pass: {names:?}", ended.said);
            good = false;
        }
    }
    good
}

/// How many of the engine's own short cuts its test finds.
fn short_cuts(programs: &BTreeMap<Suite, PathBuf>) -> usize {
    let (name, many) = SHORT_CUTS;
    let ended = test(programs, Suite::Gateway, &[name], None);
    let lines: Vec<_> = ended.said.lines().filter(|line| line.contains(", seed ")).collect();
    lines.iter().for_each(|line| println!("{line}"));
    if !ended.said.contains("test result: ok. 1 passed;") || lines.len() != many {
        println!("{}", ended.said);
    }
    lines.len()
}

/// How a run of tests ended.
struct Ended {
    said: String,
}

impl Ended {
    /// Whether so many tests ran, and none of them failed.
    fn passed(&self, many: usize) -> bool {
        self.said.contains(&format!("test result: ok. {many} passed;")) || self.said.contains("sim: held: ")
    }

    /// Whether so many tests ran, and all of them failed.
    fn failed(&self, many: usize) -> bool {
        let simulated = self.said.contains("sim: FAILED with seed ") && self.said.contains("again: ");
        simulated || self.said.contains(&format!("test result: FAILED. 0 passed; {many} failed;"))
    }
}

/// Runs tests by their whole names, with one bug or none.
fn test(programs: &BTreeMap<Suite, PathBuf>, suite: Suite, names: &[&str], bug: Option<&str>) -> Ended {
    let mut command = Command::new(&programs[&suite]);
    match suite {
        Suite::Simulation => command.args(names.iter().flat_map(|words| words.split(' '))),
        _ => command.args(names).args(["--exact", "--nocapture"]),
    };
    command.current_dir(copy::folder());
    match bug {
        Some(name) => command.env(SWITCH, name),
        None => command.env_remove(SWITCH),
    };
    // Both streams into one pipe, so that neither fills up while nobody reads it.
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    // The command holds ends of the pipe that would keep it open.
    drop(command);
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        reader.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    });
    let end = Instant::now() + LONGEST;
    let mut late = false;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            late = true;
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut said = reading.join().unwrap();
    if late {
        said.push_str("\nit took too long, and was ended\n");
    }
    Ended { said }
}
