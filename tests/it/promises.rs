//! `SECURITY.md` and `docs/habits.md` name a test for each promise: it is there. Whether it shows what is promised is not
//! checked here.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let text = read("SECURITY.md");
    let promised = text.split_once("\n## What is promised\n").unwrap().1.split_once("\n## ").unwrap().0;
    let rows: Vec<_> = promised.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in rows {
        assert!(shown(row) > 0, "no test shows this: {row}");
    }
}

#[test]
fn every_habit_names_a_test_that_is_there() {
    let text = read("docs/habits.md");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| habit |")).collect();
    assert!(rows.len() >= 25, "{}", rows.len());
    for row in rows {
        shown(row);
    }
}

/// How many tests the last cell of a row names. All of them, and its commands, are there.
fn shown(row: &str) -> usize {
    let shown = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
    let mut tests = 0;
    for proof in shown.split("; ") {
        match proof.split_once(" in ") {
            Some((test, file)) => {
                let (test, file) = (test.trim_matches('`'), file.trim_matches('`'));
                let there = read(file).contains(&format!("fn {test}("));
                assert!(there, "{file} has no test {test}");
                tests += 1;
            }
            None => is_a_command(proof.trim_matches('`')),
        }
    }
    tests
}

/// A command of the project, with targets that are there.
fn is_a_command(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    match &words[..] {
        ["fuzz/run", _, targets @ ..] => {
            for target in targets {
                assert!(root().join(format!("fuzz/fuzz_targets/{target}.rs")).exists(), "{command}");
            }
        }
        [script] if script.starts_with("tests/") => assert!(root().join(script).exists(), "{command}"),
        ["cargo", "test", "--test", target, ..] => {
            assert!(root().join(format!("tests/{target}/main.rs")).exists(), "{command}");
        }
        _ => panic!("{command} is no command of this project"),
    }
}
