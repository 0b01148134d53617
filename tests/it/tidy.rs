//! The rules about where things stand, as tests over the source files.
//!
//! They read text, not syntax: whole-line comments and test modules are left out where a rule says so, and what is
//! written to get around a rule will get around it. What a lint can check is left to the lints.
//!
//! Above 500 lines because the tables of owners and of modules are read as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use adapters::DIALECTS;

/// What the adapters may depend on: nothing with I/O, a clock or a runtime in it.
const PURE_CRATES: &[&str] = &[
    "base64",
    "bytes",
    "compact_str",
    "hmac",
    "http",
    "httpdate",
    "md-5",
    "percent-encoding",
    "serde",
    "serde_json",
    "serde_path_to_error",
    "sha2",
    "thiserror",
    "uuid",
];

/// What must not come in by way of those either.
const IMPURE_CRATES: &[&str] =
    &["axum", "fastrand", "getrandom", "hyper", "mio", "rand", "reqwest", "rusqlite", "socket2", "tokio"];

/// Crates, and the only places that may name them: whoever wants to replace one finds it in one place.
const OWNERS: &[(&[&str], &[&str])] = &[
    (&["axum"], &["src/api/", "src/console/", "src/mock/control", "src/server/"]),
    (&["backon"], &["src/engine/backoff.rs"]),
    (&["clap", "clap_complete", "clap_mangen", "comfy_table", "csv", "indicatif"], &["src/cli/"]),
    (&["config"], &["src/settings.rs", "src/settings/"]),
    (&["form_urlencoded"], &["src/api/", "src/console/", "src/record/"]),
    (&["governor"], &["src/outbound/pace.rs"]),
    (&["hashbrown"], &["src/api/submission.rs", "src/maps.rs"]),
    (&["siphasher"], &["src/api/submission.rs"]),
    // The mocks are servers too, and so is what stands before an upstream to record it.
    (
        &["hyper", "hyper_util"],
        &["src/mock/", "src/outbound/client", "src/outbound/dial.rs", "src/record/", "src/server/"],
    ),
    (&["memchr"], &["src/server/head.rs"]),
    (&["tikv_jemallocator"], &["src/main.rs"]),
    (&["jsonwebtoken"], &["src/issuers/", "src/outbound/credentials.rs"]),
    (&["metrics", "metrics_exporter_prometheus", "tracing_subscriber"], &["src/telemetry"]),
    (&["rustix"], &["src/cli/dumps.rs", "src/server/valve.rs"]),
    // The command line is a client of the gateway; issuers publish their keys; collectors take traces.
    (&["reqwest"], &["src/cli/", "src/issuers/keys.rs", "src/telemetry/otlp.rs"]),
    (&["rusqlite"], &["src/store/sqlite"]),
    (&["deadpool_postgres", "tokio_postgres"], &["src/store/postgres"]),
    (&["rustls_platform_verifier"], &["src/outbound/dial.rs", "src/store/postgres"]),
    // TLS to the database and to upstreams, and TLS of callers.
    (&["rustls", "tokio_rustls"], &["src/outbound/dial.rs", "src/server/", "src/store/postgres"]),
];

/// Which modules a module may name. The way goes down: `cli › app › server › api › desk › engine::driver › outbound`,
/// each of which may also name what stands below it. At the bottom are the engine's pure core and the settings, which
/// name nobody.
///
/// Where two modules would name each other, one of the two gets single names and no more: words that both sides
/// speak (`engine::Lost`, `tenants::Connection`, `outbound::BreakerState`), one pure function
/// (`api::sha256_hex`), one type (`engine::Moment`). The whole of the other module is never open to it.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("main", &[]),
    ("lib", &[]),
    (
        "cli",
        &[
            "api::OPENAPI",
            "api::is_key",
            "api::sha256_hex",
            "app",
            "clock",
            "mock",
            "record",
            "settings",
            "telemetry",
            "tenants",
        ],
    ),
    (
        "app",
        &[
            "api",
            "arrivals",
            "clock",
            "console",
            "desk",
            "engine",
            "issuers",
            "live",
            "outbound",
            "server",
            "settings",
            "store",
            "telemetry",
            "tenants",
        ],
    ),
    ("server", &["api", "arrivals", "clock", "engine::driver", "telemetry"]),
    (
        "api",
        &[
            "clock",
            "desk",
            "engine",
            "issuers",
            "live",
            "maps",
            "outbound::BreakerState",
            "store",
            "telemetry",
            "tenants",
        ],
    ),
    // Beside the API, for operators. What an error means is said once; guessing is counted once.
    (
        "console",
        &[
            "api::Entry",
            "api::Peer",
            "api::reason",
            "clock",
            "desk",
            "engine",
            "outbound::BreakerState",
            "outbound::CredentialStanding",
            "outbound::Standing",
            "store",
            "telemetry",
            "tenants",
        ],
    ),
    // A route is a connection with its upstream: the driver's word for what the desk hands out.
    ("desk", &["clock", "engine::driver::Route", "live", "maps", "outbound", "tenants"]),
    ("engine::driver", &["clock", "maps", "outbound", "store", "telemetry", "tenants"]),
    // The state machine. Time, chance and the world are arguments.
    ("engine", &[]),
    // What is kept: the engine's own types.
    (
        "store",
        &["engine::Closed", "engine::Past", "engine::Run", "engine::Settled", "engine::Ticket", "engine::shortcut"],
    ),
    (
        "outbound",
        &[
            "address",
            "clock",
            "engine::Lost",
            "engine::Signal",
            "telemetry::CallMetrics",
            "telemetry::Onward",
            "telemetry::WaitsFor",
            "tenants::Connection",
            "tenants::CredentialValue",
            "tenants::Credentials",
        ],
    ),
    (
        "telemetry",
        &[
            "clock",
            "engine::Lost",
            "maps",
            "outbound::BreakerState",
            "store::DeletionId",
            "store::Head",
            "tenants::Connection",
        ],
    ),
    ("issuers", &["live", "tenants"]),
    ("live", &[]),
    ("maps", &[]),
    ("tenants", &["address", "maps", "settings"]),
    ("address", &[]),
    ("arrivals", &[]),
    ("settings", &[]),
    ("clock", &["engine::Moment"]),
    ("mock", &["arrivals"]),
    ("record", &["outbound::Client", "outbound::ClientRules", "tenants::Connection", "tenants::CredentialValue"]),
];

/// Words of a workplace. Who reads the project later knows nothing of it.
const WORKPLACE: &[&str] = &["session", "sessions", "issue #", "/work/", "sub-agent", "subagent"];

#[test]
fn adapters_depend_on_nothing_with_io() {
    let direct: BTreeSet<_> = dependencies("adapters/Cargo.toml").into_iter().collect();
    for name in &direct {
        assert!(PURE_CRATES.contains(&name.as_str()), "adapters depend on {name}");
    }
    // The lock file has all that any of them can bring along.
    let lock = toml_file("Cargo.lock");
    let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let needs = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
        // Where two versions are locked, the name has the version behind it.
        let needs = needs.filter_map(|need| need.as_str()?.split(' ').next());
        below.entry(package["name"].as_str().unwrap()).or_default().extend(needs);
    }
    let mut tree = BTreeSet::new();
    let mut open: Vec<&str> = direct.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if tree.insert(name) {
            open.extend(below.get(name).unwrap_or_else(|| panic!("{name} is not locked")));
        }
    }
    for name in IMPURE_CRATES {
        assert!(!tree.contains(name), "adapters bring along {name}: {tree:?}");
    }
}

#[test]
fn the_gateway_knows_no_dialect() {
    for source in sources("src").iter().filter(|source| !source.is_test) {
        for registration in DIALECTS {
            let id = registration.profile.id;
            let before_tests = &source.text[..source.tests_at];
            assert!(!has_word(before_tests, id), "{}: {id}; a dialect is for adapters/ and config/", source.path);
        }
    }
}

#[test]
fn no_dialect_knows_another() {
    for registration in DIALECTS {
        let own = registration.profile.id;
        for path in files(&format!("adapters/{own}")) {
            let text = read(&path).to_lowercase();
            let other = DIALECTS.iter().map(|other| other.profile.id).find(|id| *id != own && has_word(&text, id));
            assert_eq!(other, None, "{path} names another dialect; what two need stands beside the folders");
        }
    }
}

#[test]
fn every_crate_stays_with_its_owner() {
    let sources = sources("src");
    for (crates, places) in OWNERS {
        for name in *crates {
            let users: Vec<_> = sources.iter().filter(|source| names_crate(&source.code(), name)).collect();
            for user in &users {
                let allowed = places.iter().any(|place| user.path.starts_with(place));
                assert!(allowed, "{} names {name}, which belongs to {places:?}", user.path);
            }
            assert!(!users.is_empty(), "nobody names {name}: is it still needed?");
        }
    }
}

#[test]
fn modules_name_only_what_stands_below_them() {
    for source in sources("src").iter().filter(|source| !source.is_test) {
        let module = source.module();
        let own = module.split("::").next().unwrap();
        let row = MAY_NAME.iter().filter(|(name, _)| within(&module, name)).max_by_key(|(name, _)| name.len());
        let (_, allowed) = row.unwrap_or_else(|| panic!("{}: say in MAY_NAME where it stands", source.path));
        for path in crate_paths(source.code_before_tests()) {
            let good = within(&path, own) || allowed.iter().any(|name| within(&path, name));
            assert!(good, "{} names crate::{path}; {module} may name {allowed:?}", source.path);
        }
    }
}

#[test]
fn only_the_command_line_names_the_composition_root() {
    let (users, others): (Vec<_>, Vec<_>) =
        MAY_NAME.iter().partition(|(_, names)| names.iter().any(|name| within(name, "app")));
    assert_eq!(users.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cli"]);
    for (module, names) in others.iter().filter(|(module, _)| *module != "app") {
        assert!(!names.contains(&"server") && !names.contains(&"cli"), "{module}");
    }
}

#[test]
fn the_engine_has_no_clock_and_waits_for_nothing() {
    let engine = sources("src/engine");
    let pure = |source: &&Source| !source.path.starts_with("src/engine/driver") && !source.is_test;
    for source in engine.iter().filter(pure) {
        let code = source.code();
        for word in ["async", "await", "tokio"] {
            assert!(!has_word(&code, word), "{}: {word}", source.path);
        }
        assert!(!code.contains("now()"), "{}: the time is an argument", source.path);
    }
    assert!(engine.iter().filter(pure).count() >= 5);
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    for source in all_sources() {
        assert!(source.text.starts_with("//! "), "{}", source.path);
    }
}

#[test]
fn a_file_above_500_lines_says_why() {
    for source in all_sources() {
        let head = source.text.lines().take_while(|line| line.starts_with("//!"));
        let says_why = head.collect::<Vec<_>>().join(" ").contains("Above 500 lines because");
        let lines = source.text.lines().count();
        assert!(lines <= 500 || says_why, "{} has {lines} lines", source.path);
    }
}

#[test]
fn both_crates_are_under_the_workspaces_lints() {
    let root = toml_file("Cargo.toml");
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for lint in ["unwrap_used", "expect_used", "panic", "print_stdout", "print_stderr"] {
        assert!(root["workspace"]["lints"]["clippy"].get(lint).is_some(), "{lint}");
    }
    let mut manifests = vec!["Cargo.toml".to_owned()];
    let members = root["workspace"]["members"].as_array().unwrap().iter();
    manifests.extend(members.map(|member| format!("{}/Cargo.toml", member.as_str().unwrap())));
    for manifest in &manifests {
        let inherits = toml_file(manifest).get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        assert_eq!(inherits, Some(true), "{manifest}");
    }
    assert!(manifests.len() >= 2);
}

#[test]
fn nothing_panics_or_prints_outside_tests() {
    let sources = [sources("src"), sources("adapters")].concat();
    for source in sources.iter().filter(|source| !source.is_test) {
        let code = source.code_before_tests();
        for word in [".unwrap()", ".expect(", "panic!", "todo!", "println!", "tokio::spawn("] {
            assert!(!code.contains(word), "{}: {word}", source.path);
        }
    }
}

#[test]
fn a_request_is_read_into_types_and_not_into_a_tree() {
    let path = "src/api/request.rs";
    let source = sources("src/api").into_iter().find(|source| source.path == path).unwrap();
    for line in source.code_before_tests().lines().filter(|line| has_word(line, "Value")) {
        // serde's word for what a visitor makes.
        assert!(line.trim_start().starts_with("type Value = "), "{path}: {line}");
    }
}

#[test]
fn the_readme_says_what_every_dependency_is_for() {
    let readme = read("README.md");
    for name in dependencies("Cargo.toml").iter().chain(&dependencies("adapters/Cargo.toml")) {
        assert!(readme.contains(&format!("`{name}`")), "README.md does not list `{name}`");
    }
}

#[test]
fn the_pages_that_a_reader_looks_for_are_there() {
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        assert!(read(page).lines().count() > 5, "{page}");
    }
}

#[test]
fn nothing_speaks_of_a_workplace() {
    let mut all: Vec<_> = ["src", "adapters", "tests", "benches", "config", "fuzz/src", "fuzz/fuzz_targets"]
        .into_iter()
        .flat_map(files)
        .collect();
    let top = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.extend(top.filter(|name| name.ends_with(".md") || name.ends_with(".toml")));
    // This file has the words, and fixtures have a vendor's.
    for path in all.iter().filter(|path| *path != "tests/it/tidy.rs" && !path.contains("/fixtures/")) {
        // What TLS calls so is another thing.
        let text = read(path).to_lowercase().replace("tls session", "").replace("in_memory_sessions", "");
        for word in WORKPLACE {
            let found = if word.bytes().all(is_word) { has_word(&text, word) } else { text.contains(word) };
            assert!(!found, "{path}: {word}");
        }
    }
}

#[test]
fn the_readers_of_this_file_read_rightly() {
    assert!(names_crate("use config::Config;", "config") && names_crate("x(config::y)", "config"));
    assert!(names_crate("use ::config::Config;", "config") && names_crate("use config;", "config"));
    assert!(!names_crate("use rusqlite::config::DbConfig;", "config") && !names_crate("my_config::x", "config"));
    assert!(!names_crate("self.metrics.ended()", "metrics") && !names_crate("let config: X;", "config"));
    assert!(has_word("a `bas_ip` b", "bas_ip") && !has_word("bas_ips", "bas_ip"));
    let code = "use crate::{a, b::{c, d::E as F}, g::{self, h::*}}; crate::f::g(); pub(crate) x; crate::store::{\n    A,\n    B,\n};";
    assert_eq!(crate_paths(code), ["a", "b::c", "b::d::E", "g", "g::h::*", "f::g", "store::A", "store::B"]);
    assert!(within("engine::driver", "engine") && !within("engines", "engine"));
}

/// A Rust file.
#[derive(Clone)]
struct Source {
    /// From the root of the project.
    path: String,
    text: String,
    /// Whether it is compiled for tests alone.
    is_test: bool,
    /// Where its test module begins, or its end.
    tests_at: usize,
}

impl Source {
    /// Without whole-line comments.
    fn code(&self) -> String {
        uncommented(&self.text)
    }

    /// The same, up to the test module.
    fn code_before_tests(&self) -> String {
        uncommented(&self.text[..self.tests_at])
    }

    /// Its module under `src/`, for example `engine::driver`.
    fn module(&self) -> String {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        path.replace('/', "::")
    }
}

fn uncommented(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

/// All Rust files.
fn all_sources() -> Vec<Source> {
    ["src", "adapters", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"].into_iter().flat_map(sources).collect()
}

/// The Rust files under a folder.
fn sources(folder: &str) -> Vec<Source> {
    let paths: Vec<_> = files(folder).into_iter().filter(|path| path.ends_with(".rs")).collect();
    assert!(!paths.is_empty(), "{folder}");
    let texts: Vec<_> = paths.iter().map(|path| read(path)).collect();
    // `#[cfg(test)] mod x;` in a file makes x.rs, and all under x/, a matter of tests.
    let mut for_tests = Vec::new();
    for (path, text) in paths.iter().zip(&texts) {
        let base = ["/mod.rs", "/lib.rs", "/main.rs", ".rs"].into_iter().find_map(|end| path.strip_suffix(end));
        for after in text.split("#[cfg(test)]\nmod ").skip(1) {
            let (name, _) = after.split_once(|c: char| !c.is_alphanumeric() && c != '_').unwrap();
            for_tests.push(format!("{}/{name}", base.unwrap()));
        }
    }
    let is_for_tests = |path: &str| {
        for_tests.iter().any(|test| path.strip_prefix(test).is_some_and(|r| r == ".rs" || r.starts_with('/')))
    };
    let source = |(path, text): (String, String)| Source {
        is_test: is_for_tests(&path),
        tests_at: text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len()),
        path,
        text,
    };
    paths.into_iter().zip(texts).map(source).collect()
}

/// All files under a folder, from the root of the project, in order.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

fn toml_file(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// The names under `[dependencies]`, the project's own crate left out.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest = toml_file(manifest);
    let all = manifest["dependencies"].as_table().unwrap().keys();
    all.filter(|name| *name != "adapters").cloned().collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where a word stands by itself.
fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = (&'t str, &'t str)> {
    let around = text.match_indices(word).map(|(at, _)| (&text[..at], &text[at + word.len()..]));
    around.filter(|(before, after)| {
        !before.bytes().last().is_some_and(is_word) && !after.bytes().next().is_some_and(is_word)
    })
}

fn has_word(text: &str, word: &str) -> bool {
    words(text, word).next().is_some()
}

/// Whether code names a crate: first in a path, or imported as it is.
fn names_crate(code: &str, name: &str) -> bool {
    words(code, name).any(|(before, after)| {
        let inside = before.strip_suffix("::").is_some_and(|before| before.bytes().last().is_some_and(is_word));
        let imported = before.ends_with("use ") && (after.starts_with(';') || after.starts_with(" as "));
        !inside && (after.starts_with("::") || imported)
    })
}

/// Whether a path is that of a module or leads into it.
fn within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path that starts with `crate::`, without that; braces are spread out.
fn crate_paths(code: impl AsRef<str>) -> Vec<String> {
    let code: String = code.as_ref().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paths = Vec::new();
    for after in code.split("crate::").skip(1) {
        spread("", after, &mut paths);
    }
    paths
}

/// Reads one path or one list in braces, puts its paths down, and returns what follows.
fn spread<'c>(prefix: &str, code: &'c str, paths: &mut Vec<String>) -> &'c str {
    let name_ends = code.find(|c: char| !c.is_alphanumeric() && !"_:*".contains(c)).unwrap_or(code.len());
    let (name, mut rest) = code.split_at(name_ends);
    let prefix = format!("{prefix}{name}");
    let Some(list) = rest.strip_prefix('{').filter(|_| prefix.is_empty() || prefix.ends_with("::")) else {
        let path = prefix.trim_end_matches("::self").trim_end_matches(':');
        paths.push(path.to_owned());
        return rest;
    };
    rest = list;
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        match rest.strip_prefix('}') {
            Some(after) => return after,
            None if rest.is_empty() => return rest,
            // What follows a name is its new one, after `as`; it leads nowhere else.
            None => rest = spread(&prefix, rest, paths).trim_start_matches(|c| c != ',' && c != '}'),
        }
    }
}
