//! The files under `packaging/` speak of what the program has: its metrics with their labels, its version, its commands.
//!
//! Whether they are well-formed for the tools that read them is for `tests/packaging/run`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use adapters::{FaultCode, Outcome};
use serde_json::Value;

const DASHBOARD: &str = "packaging/grafana/onedelete.json";
const ALERTS: &str = "packaging/prometheus/alerts.yml";

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Every query of the dashboard: its panels' and its variables'.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut found = Vec::new();
    gather(&dashboard, &mut found);
    found
}

fn gather(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&name.as_str()) => {
                        found.push(text.to_owned())
                    }
                    _ => gather(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
        _ => {}
    }
}

/// The expressions of the alerts, each as one text.
fn alert_queries() -> Vec<String> {
    let text = read(ALERTS);
    let mut found = Vec::new();
    for rule in text.split("\n      - alert: ").skip(1) {
        let expr = rule.split_once("\n        expr: ").unwrap().1;
        let lines = expr.lines().enumerate().take_while(|(n, line)| *n == 0 || line.starts_with("          "));
        found.push(lines.flat_map(|(_, line)| [line.trim_start_matches('|').trim(), " "]).collect());
    }
    found
}

/// Each metric's kind and labels, as README.md has them; `documents` holds that list to the source.
fn metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let source = read("src/telemetry.rs");
    let described = source.match_indices("describe_").filter_map(|(at, _)| {
        let (kind, rest) = source[at + "describe_".len()..].split_once("!(")?;
        let name = rest.trim_start().strip_prefix('"')?.split('"').next()?;
        (kind.len() < 10).then(|| (name.to_owned(), kind.to_owned()))
    });
    let readme = read("README.md");
    let labels = |name: &str| {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        let cell = row.and_then(|row| row.split('|').nth(3)).unwrap_or_default();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    described.map(|(name, kind)| (name.clone(), (kind, labels(&name)))).collect()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Names of ours in a query, each with the matchers behind it.
fn ours(query: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices("onedelete_") {
        let rest = &query[at..];
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        let mut inside = false;
        let end = after.strip_prefix('{').and_then(|after| {
            after.find(|c| {
                inside ^= c == '"';
                c == '}' && !inside
            })
        });
        found.push((name, end.map_or("", |end| &after[1..=end])));
    }
    found
}

/// A label's name, how it is compared and with what.
fn matchers(text: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        let (value, after) = after.split_once('"').unwrap();
        let label = before.trim_start_matches([',', ' ']);
        let length = label.find(|c| !is_name(c)).unwrap();
        found.push((&label[..length], label[length..].trim(), value));
        rest = after;
    }
    found
}

#[test]
fn every_query_names_metrics_and_labels_that_there_are() {
    let metrics = metrics();
    assert!(metrics.len() >= 10, "{metrics:?}");
    // What Prometheus adds to everything that it collects.
    let common = ["instance", "job", "le"];
    let outcomes = Outcome::ALL.map(Outcome::as_str);
    let codes = FaultCode::ALL.map(FaultCode::as_str);
    let mut used = BTreeSet::new();
    for query in dashboard_queries().iter().chain(&alert_queries()) {
        let mut labels: BTreeSet<&str> = common.into();
        for (name, within) in ours(query) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let (kind, own) = metrics.get(base).unwrap_or_else(|| panic!("{name} is no metric: {query}"));
            assert_eq!(base != name, kind == "histogram", "{name} is a {kind}: {query}");
            if kind == "counter" {
                let before = query.split(name).next().unwrap();
                let counted =
                    ["rate(", "increase(", "label_values("].iter().any(|word| before.trim_end().ends_with(word));
                assert!(counted, "{name} only grows: {query}");
            }
            used.insert(base.to_owned());
            labels.extend(own.iter().map(String::as_str));
            for (label, _, value) in matchers(within) {
                assert!(own.contains(label) || common.contains(&label), "{name} has no label {label}: {query}");
                let words: Vec<_> = value.split('|').filter(|word| !word.starts_with('$')).collect();
                let known = |word: &&str| match label {
                    "outcome" => outcomes.contains(word),
                    "status" => word.starts_with(|c: char| c.is_ascii_digit()) || codes.contains(word),
                    _ => true,
                };
                assert!(words.iter().all(known), "{label}: {value}: {query}");
            }
        }
        for (at, _) in query.match_indices("by (") {
            let list = query[at + 4..].split(')').next().unwrap();
            for label in list.split(',').map(str::trim) {
                assert!(labels.contains(label), "no label {label}: {query}");
            }
        }
    }
    let left_out: Vec<_> = metrics.keys().filter(|name| !used.contains(*name)).collect();
    assert!(left_out.is_empty(), "nobody looks at {left_out:?}");
}

#[test]
fn an_alert_says_what_to_do() {
    let text = read(ALERTS);
    let rules: Vec<_> = text.split("\n      - alert: ").skip(1).collect();
    assert!(rules.len() >= 12, "{}", rules.len());
    for rule in rules {
        let name = rule.lines().next().unwrap();
        for part in ["\n        expr: ", "\n          severity: ", "\n          summary: \"", "\n          action: \""]
        {
            assert!(rule.contains(part), "{name} has no {}", part.trim());
        }
    }
}

#[test]
fn files_name_the_version_that_is_built_from_them() {
    let version = env!("CARGO_PKG_VERSION");
    for (path, line) in [
        ("packaging/Containerfile", format!("org.opencontainers.image.version=\"{version}\"")),
        ("packaging/Containerfile", format!("-t onedelete:{version} .")),
        ("packaging/compose/compose.yaml", format!("image: onedelete:{version}\n")),
        ("packaging/helm/onedelete/Chart.yaml", format!("\nversion: {version}\n")),
        ("packaging/helm/onedelete/Chart.yaml", format!("\nappVersion: \"{version}\"\n")),
    ] {
        assert!(read(path).contains(&line), "{path} has no {line}");
    }
}

#[test]
fn no_image_is_the_latest() {
    let (container, compose) = (read("packaging/Containerfile"), read("packaging/compose/compose.yaml"));
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    let bases =
        container.lines().filter_map(|line| line.strip_prefix("ARG ")?.split_once("_IMAGE=")).map(|(_, image)| image);
    let all: Vec<_> = images.chain(bases).collect();
    assert!(all.len() >= 6, "{all:?}");
    for image in all {
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
        assert!(!tag.is_empty() && !tag.contains('/') && tag != "latest", "{image}");
    }
}
