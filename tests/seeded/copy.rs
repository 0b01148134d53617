//! The copy with the bugs: where it is, what is changed in it, how it is built. It changes nothing outside `target/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::SWITCH;
use super::bugs::{BUGS, MODULES, Suite};

/// What stands for the switch in a bug's text.
const BROKEN: &str = "BROKEN";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Under `target/`, and kept from run to run: the second one only builds what changed.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("seeded")
}

/// The bugs whose text does not stand in the source exactly once, or that break nothing.
pub(crate) fn misfits() -> Vec<String> {
    let mut wrong = Vec::new();
    let names: BTreeSet<_> = BUGS.iter().map(|bug| bug.name).collect();
    if names.len() != BUGS.len() {
        wrong.push("two bugs have the same name".to_owned());
    }
    for bug in BUGS {
        let text = fs::read_to_string(root().join(bug.file)).unwrap_or_default();
        let many = text.matches(bug.from).count();
        if many != 1 {
            wrong
                .push(format!("{}: its text stands {many} times in {}, and must stand there once", bug.name, bug.file));
        }
        if !bug.to.contains(BROKEN) {
            wrong.push(format!("{}: it has no {BROKEN}", bug.name));
        }
    }
    wrong
}

/// Makes the copy and its test programs; what was said, if they cannot be built.
pub(crate) fn build() -> Result<BTreeMap<Suite, PathBuf>, String> {
    let copy = folder();
    for name in ["adapters", "config", "src", "tests/crash", "tests/it", "tests/postgres", "tests/sim"] {
        mirror(&root().join(name), &copy.join(name), Path::new(name));
    }
    put(&copy.join("Cargo.toml"), manifest().as_bytes());
    put(&copy.join("build.rs"), &fs::read(root().join("build.rs")).unwrap());
    // Afresh each time, as cargo drops from it what the copy does not need.
    fs::copy(root().join("Cargo.lock"), copy.join("Cargo.lock")).unwrap();
    // The project's own folder has the dependencies built already. Programs of the copy have other names there.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--no-run", "--lib", "--test", "it", "--test", "sim"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    let mut programs = BTreeMap::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let Some(program) = message["executable"].as_str() else { continue };
        let suite = match message["target"]["name"].as_str() {
            Some("adapters") => Suite::Adapters,
            Some("onedelete") => Suite::Gateway,
            Some("it") => Suite::Outside,
            Some("sim") => Suite::Simulation,
            _ => continue,
        };
        programs.insert(suite, PathBuf::from(program));
    }
    assert_eq!(programs.len(), 4, "{programs:?}");
    Ok(programs)
}

/// The project's manifest without what the copy has not.
fn manifest() -> String {
    let mut manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    manifest.retain(|key, _| !["bench", "test"].contains(&key));
    let package = manifest["package"].as_table_mut().unwrap();
    package.remove("default-run");
    package.remove("readme");
    for targets in ["autobins", "autobenches", "autotests", "autoexamples"] {
        package.insert(targets.to_owned(), false.into());
    }
    let target = |name: &str, harness: bool| {
        let path = format!("tests/{name}/main.rs").into();
        let members = [("name", name.into()), ("path", path), ("harness", harness.into())];
        toml::Value::Table(members.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
    };
    manifest.insert("test".to_owned(), vec![target("it", true), target("sim", false)].into());
    manifest.to_string()
}

/// A file of the copy: with the bugs, if it has some.
fn text(path: &Path) -> Vec<u8> {
    let name = path.to_str().unwrap();
    let original = fs::read(root().join(path)).unwrap();
    let Ok(mut text) = String::from_utf8(original.clone()) else { return original };
    for bug in BUGS.iter().filter(|bug| bug.file == name) {
        let owner = if bug.file.starts_with("adapters/") { "crate" } else { "adapters" };
        let to = bug.to.replace(BROKEN, &format!("{owner}::seeded({:?})", bug.name));
        assert_eq!(text.matches(bug.from).count(), 1, "{}: another bug has changed its text", bug.name);
        text = text.replace(bug.from, &to);
    }
    match name {
        "adapters/lib.rs" => text.push_str(&format!(
            "\n/// Whether a bug is switched on.\npub fn seeded(name: &str) -> bool {{\n    \
             static ON: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var({SWITCH:?}).ok());\n    \
             ON.as_deref() == Some(name)\n}}\n"
        )),
        // Only the modules whose tests are named: some need the program, which the copy has not.
        "tests/it/main.rs" => {
            let kept = |line: &&str| {
                let module = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
                module.is_none_or(|name| MODULES.contains(&name))
            };
            text = text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect();
        }
        _ => {}
    }
    text.into_bytes()
}

/// Makes the folder at `to` like the one at `from`; `name` is its path from the root of the project.
///
/// A file that is the same already is not written: cargo goes by the time of the last change.
fn mirror(from: &Path, to: &Path, name: &Path) {
    fs::create_dir_all(to).unwrap();
    let names = |folder: &Path| -> BTreeSet<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let wanted = names(from);
    for gone in names(to).difference(&wanted).map(|name| to.join(name)) {
        if gone.is_dir() { fs::remove_dir_all(gone) } else { fs::remove_file(gone) }.unwrap();
    }
    for file in wanted {
        let (from, to, name) = (from.join(&file), to.join(&file), name.join(&file));
        if from.is_dir() { mirror(&from, &to, &name) } else { put(&to, &text(&name)) }
    }
}

fn put(path: &Path, bytes: &[u8]) {
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes).unwrap();
    }
}
