//! What comes in with the dependencies is what `deny.toml` allows: licences, bans and sources.
//!
//! It reads the packages that are locked and that this platform is built of; with `ONEDELETE_EVERY_PLATFORM`, those of every
//! platform, which a build alone does not fetch. Advisories are left to cargo-deny, which has them.

use std::process::Command;

use serde_json::Value;

fn policy() -> toml::Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn texts(list: &toml::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Every package, the project's own two among them.
fn packages() -> Vec<Value> {
    let mut asked = vec!["metadata", "--format-version", "1", "--offline", "--locked"];
    let version;
    if std::env::var_os("ONEDELETE_EVERY_PLATFORM").is_none() {
        version = cargo(&["--version", "--verbose"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        asked.extend(["--filter-platform", host]);
    }
    let metadata: Value = serde_json::from_str(&cargo(&asked)).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn cargo(args: &[&str]) -> String {
    let told = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

#[test]
fn every_dependency_is_one_that_the_policy_allows() {
    let policy = policy();
    let allowed = texts(&policy["licenses"]["allow"]);
    let banned: Vec<_> =
        policy["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    let registries: Vec<_> =
        texts(&policy["sources"]["allow-registry"]).iter().map(|url| format!("registry+{url}")).collect();
    let (mut own, packages) = (0, packages());
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(&name), "{name} is banned");
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        assert!(is_allowed(licence, &allowed), "{name}: {licence}");
        match package["source"].as_str() {
            Some(source) => assert!(registries.iter().any(|known| known == source), "{name} comes from {source}"),
            None => own += 1,
        }
    }
    assert!(own == 2 && packages.len() > 100, "{own} of {}", packages.len());
}

#[test]
fn the_policy_refuses_what_it_does_not_know() {
    let policy = policy();
    for key in ["unknown-registry", "unknown-git"] {
        assert_eq!(policy["sources"][key].as_str(), Some("deny"), "{key}");
    }
    let allowed = ["MIT", "Apache-2.0", "ISC"];
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR X) AND ISC", "ISC AND (GPL-3.0 OR (X OR MIT))"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND X", "MIT WITH X", "MIT OR", "(MIT", "MIT ISC"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

/// Whether an SPDX expression can be met with these licences. What cannot be read is not allowed; an exception (`WITH`) makes
/// another licence.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    matches!(any(&words, allowed), Some((met, [])) if met)
}

type Read<'w> = Option<(bool, &'w [&'w str])>;

fn any<'w>(words: &'w [&'w str], allowed: &[&str]) -> Read<'w> {
    let (mut met, mut rest) = all(words, allowed)?;
    while let ["OR", after @ ..] = rest {
        let (also, left) = all(after, allowed)?;
        (met, rest) = (met || also, left);
    }
    Some((met, rest))
}

fn all<'w>(words: &'w [&'w str], allowed: &[&str]) -> Read<'w> {
    let (mut met, mut rest) = one(words, allowed)?;
    while let ["AND", after @ ..] = rest {
        let (also, left) = one(after, allowed)?;
        (met, rest) = (met && also, left);
    }
    Some((met, rest))
}

fn one<'w>(words: &'w [&'w str], allowed: &[&str]) -> Read<'w> {
    match words {
        ["(", inside @ ..] => match any(inside, allowed)? {
            (met, [")", rest @ ..]) => Some((met, rest)),
            _ => None,
        },
        [_, "WITH", exception, rest @ ..] if !["(", ")"].contains(exception) => Some((false, rest)),
        [word, ..] if ["OR", "AND", "WITH", ")"].contains(word) => None,
        [name, rest @ ..] => Some((allowed.contains(name), rest)),
        [] => None,
    }
}
