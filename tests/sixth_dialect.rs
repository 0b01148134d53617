//! A sixth dialect is one folder and one line: a copy of `adapters/` gets both, and its laws are run.
//!
//! "One line" is the dialect's entry in `DIALECTS`. Besides it Rust wants `mod toy;`, as for every folder of source;
//! [`add`] changes these two and nothing else. The toy dialect stays out of the product: only the copy has it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "every function here is part of a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn a_sixth_dialect_is_one_folder_and_one_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Under target/, and kept from run to run: the second one only builds what changed.
    let workshop = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sixth_dialect");
    let copy = workshop.join("workspace");
    mirror(&root.join("adapters"), &copy.join("adapters"), &["lib.rs", "toy"]);
    mirror(&root.join("tests/sixth/toy"), &copy.join("adapters/toy"), &[]);
    let lib = fs::read_to_string(root.join("adapters/lib.rs")).unwrap();
    put(&copy.join("adapters/lib.rs"), add("toy", &lib).as_bytes());
    put(&copy.join("Cargo.toml"), workspace(&fs::read_to_string(root.join("Cargo.toml")).unwrap()).as_bytes());
    // Afresh each time, as cargo drops from it what the copy does not need.
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock")).unwrap();

    let tested = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--lib"])
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", workshop.join("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stdout);
    let all = format!("{said}\n{}", String::from_utf8_lossy(&tested.stderr));
    assert!(tested.status.success(), "{all}");
    assert_eq!(said.matches("test result: ok. ").count(), 1, "{all}");
    assert!(said.contains("test toy::tests::toy_is_in_dialects ... ok"), "{all}");
    for (file, module) in [("conformance.rs", "conformance"), ("conformance/doubles.rs", "conformance::doubles")] {
        let laws = laws(&fs::read_to_string(root.join("adapters").join(file)).unwrap());
        assert!(laws.len() >= 8, "{laws:?}");
        for law in laws {
            assert!(said.contains(&format!("test {module}::{law} ... ok")), "{law} did not run\n{all}");
        }
    }
}

/// `adapters/lib.rs` with one more dialect: its module and its entry, both in alphabetical order.
fn add(dialect: &str, lib: &str) -> String {
    let module = |line: &str| line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')).map(str::to_owned);
    let (modules, list) = lib.split_once("&[Registration] =").unwrap();
    let (list, rest) = list.split_once("];").unwrap();

    let mut lines: Vec<_> = modules.lines().map(str::to_owned).collect();
    let before = lines.iter().rposition(|line| module(line).is_some_and(|name| name.as_str() < dialect)).unwrap();
    lines.insert(before + 1, format!("mod {dialect};"));

    let entries = list.split_once('[').unwrap().1.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let mut entries: BTreeSet<_> = entries.map(str::to_owned).collect();
    assert!(entries.insert(format!("{dialect}::DIALECT")), "{dialect} is there already");
    let entries: Vec<_> = entries.into_iter().collect();
    format!("{}&[Registration] = &[{}];{rest}", lines.join("\n"), entries.join(", "))
}

/// The smallest workspace that `adapters/` builds in, with the real one's versions, lints and edition.
fn workspace(real: &str) -> String {
    let real: toml::Table = real.parse().unwrap();
    let mut workspace = real["workspace"].as_table().unwrap().clone();
    workspace.retain(|key, _| ["resolver", "package", "lints", "dependencies"].contains(&key));
    workspace.insert("members".to_owned(), vec!["adapters"].into());
    toml::Table::from_iter([("workspace".to_owned(), toml::Value::Table(workspace))]).to_string()
}

/// The names of the laws: every test function of one of their files.
fn laws(conformance: &str) -> Vec<String> {
    let tests = conformance.split("#[test]\nfn ").skip(1);
    tests.map(|test| test.split_once('(').unwrap().0.to_owned()).collect()
}

/// Makes the folder at `to` like the one at `from`, but for the names in `except`, which are left alone.
///
/// A file that is the same already is not written: cargo goes by the time of the last change.
fn mirror(from: &Path, to: &Path, except: &[&str]) {
    fs::create_dir_all(to).unwrap();
    let names = |folder: &Path| -> BTreeSet<_> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !except.iter().any(|except| name == except)).collect()
    };
    let wanted = names(from);
    for gone in names(to).difference(&wanted).map(|name| to.join(name)) {
        if gone.is_dir() { fs::remove_dir_all(gone) } else { fs::remove_file(gone) }.unwrap();
    }
    for name in wanted {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { mirror(&from, &to, &[]) } else { put(&to, &fs::read(&from).unwrap()) }
    }
}

fn put(path: &Path, bytes: &[u8]) {
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes).unwrap();
    }
}
