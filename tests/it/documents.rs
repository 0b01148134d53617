//! The documents say what the code does: names that stand in both are compared.
//!
//! Whether a sentence is true is not checked here.

use std::fs;
use std::path::{Path, PathBuf};

use adapters::{DIALECTS, Evidence, FaultCode, Outcome};
use onedelete::api::problem::KINDS;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// Every name must stand in the document, in backquotes.
fn names_all<'n>(document: &str, names: impl IntoIterator<Item = &'n str>) {
    let text = read(document);
    let missing: Vec<_> = names.into_iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{document} does not name {missing:?}");
}

#[test]
fn the_readme_names_every_code_outcome_and_kind_of_evidence() {
    let readme = read("README.md");
    for row in FaultCode::ALL.map(FaultCode::as_str).into_iter().chain(Outcome::ALL.map(Outcome::as_str)) {
        assert!(readme.contains(&format!("\n| `{row}` | ")), "{row} has no line in the README's tables");
    }
    names_all("README.md", KINDS.iter().map(|kind| kind.code));
    let evidence = DIALECTS.iter().flat_map(|registration| registration.profile.evidence);
    names_all("README.md", evidence.map(|evidence| evidence.as_str()).chain([Evidence::Inferred.as_str()]));
}

#[test]
fn the_readme_gives_a_reason_for_every_dependency() {
    for manifest in ["Cargo.toml", "adapters/Cargo.toml"] {
        let manifest: toml::Table = read(manifest).parse().unwrap();
        let readme = read("README.md");
        for name in manifest["dependencies"].as_table().unwrap().keys() {
            assert!(readme.contains(&format!("\n| `{name}` | ")), "{name} has no line in the README's table");
        }
    }
}

#[test]
fn the_dialects_stand_with_what_their_profiles_say() {
    let readme = read("README.md");
    for profile in DIALECTS.iter().map(|registration| registration.profile) {
        let start = format!("| [`{}`](adapters/{}/README.md) | {} |", profile.id, profile.id, profile.title);
        let line = readme.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no line {start}"));
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        for rule in profile.identifiers {
            assert!(cells[4].contains(rule.kind.as_str()), "{line}");
        }
        let most = profile.max_contacts_per_call.to_string();
        assert_eq!(cells[5].split([',', ';']).next(), Some(&*most), "{line}");
        let pace = profile.pace.map_or("off".to_owned(), |pace| format!("{} in {} s", pace.calls, pace.per_s));
        assert_eq!(cells[6], pace, "{line}");
        let evidence: Vec<_> = profile.evidence.iter().map(|evidence| format!("`{}`", evidence.as_str())).collect();
        assert_eq!(cells[7], evidence.join(", "), "{line}");
    }
}

#[test]
fn both_lists_of_metrics_are_whole() {
    let source = read("src/telemetry.rs");
    let names: Vec<_> = source.split('"').filter(|text| text.starts_with("onedelete_")).collect();
    assert!(names.len() >= 8, "{names:?}");
    names_all("README.md", names.iter().copied());
    names_all("ARCHITECTURE.md", names);
}

#[test]
fn every_link_leads_to_something() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = read(document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("https://")) {
            match target.strip_prefix('#') {
                Some(anchor) => {
                    let heading = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                    let found = text.lines().any(|line| line.starts_with('#') && heading(line) == anchor);
                    assert!(found, "{document}: #{anchor}");
                }
                None => assert!(root().join(target).exists(), "{document}: {target}"),
            }
        }
    }
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let text = read("ARCHITECTURE.md");
    // A table that lists a folder's files leaves the folder's name out.
    let places = ["", "src", "src/engine", "src/server", "adapters"];
    for name in text.split('`').skip(1).step_by(2).filter(|name| !name.contains(['*', ' '])) {
        let is_source = Path::new(name).extension().is_some_and(|extension| extension == "rs");
        if is_source || name.ends_with('/') {
            let found = places.iter().any(|place| root().join(place).join(name).exists());
            assert!(found, "ARCHITECTURE.md names {name}, which is not there");
        }
    }
}
