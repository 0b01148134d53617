//! What a configuration file and its variables may say, and how they are corrected.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use adapters::Pace;
use tempfile::TempDir;

use super::*;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn read(folder: &Path, text: &str, variables: Variables<'_>) -> Result<Settings, Vec<ConfigError>> {
    let file = folder.join("onedelete.toml");
    fs::write(&file, text).unwrap();
    load_with(&file, variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn good(text: &str, variables: Variables<'_>) -> Settings {
    let folder = TempDir::new().unwrap();
    read(folder.path(), text, variables).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The lines that the errors print, without the folder.
fn check(text: &str, variables: Variables<'_>, expected: &[&str]) {
    let folder = TempDir::new().unwrap();
    let Err(errors) = read(folder.path(), text, variables) else { panic!("accepted: {text}") };
    let prefix = format!("{}/", folder.path().display());
    let lines: Vec<_> = errors.iter().map(|error| error.to_string().replace(&prefix, "")).collect();
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let folder = TempDir::new().unwrap();
    let settings = read(folder.path(), "", &[("PATH", "/bin"), ("ONEDELETE_CONFIG", "x")]).unwrap();
    assert_eq!(settings.server.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(settings.server.max_body_bytes, 4_194_304);
    assert_eq!(settings.deletions.deadline_s, 86_400);
    assert_eq!(settings.store.url, StoreUrl::Sqlite(folder.path().join("onedelete.db")));
    assert_eq!(settings.tenants.directory, folder.path().join("tenants"));
    assert_eq!(settings.upstream.limits.rate, None);
    let retry = Retry {
        max_attempts: 4,
        doubt_s: 600,
        base_ms: 500,
        cap_ms: 60_000,
        budget_percent: 20,
        budget_floor_per_minute: 10,
    };
    assert_eq!(settings.upstream.retry, retry);
    assert_eq!(settings.log.format, LogFormat::Text);
}

#[test]
fn the_file_lies_over_the_defaults_and_variables_over_both() {
    let text = "[server]\nmax_headers = 10\nmax_uri_bytes = 2_048\n[upstream.limits]\nrate = \"60/min\"\n[log]\nformat = \"json\"";
    let variables = [
        ("ONEDELETE__SERVER__MAX_HEADERS", "20"),
        ("ONEDELETE__SERVER__BEHIND_TLS", "true"),
        ("ONEDELETE__UPSTREAM__RETRY__BASE_MS", "7"),
        ("ONEDELETE__STORE__URL", "memory:"),
        ("ONEDELETE__TENANTS__DIRECTORY", "/etc/onedelete/tenants"),
    ];
    let settings = good(text, &variables);
    assert_eq!(settings.server.max_headers, 20);
    assert_eq!(settings.server.max_uri_bytes, 2_048);
    assert!(settings.server.behind_tls);
    assert_eq!(settings.upstream.retry.base_ms, 7);
    assert_eq!(settings.upstream.limits.max_in_flight, 4);
    assert_eq!(settings.upstream.limits.rate, Some(Rate::Pace(Pace { calls: 60, per_s: 60 })));
    assert_eq!(settings.store.url, StoreUrl::Memory);
    assert_eq!(settings.tenants.directory, PathBuf::from("/etc/onedelete/tenants"));
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let defaults = good("", &[]);
    for key in keys::KEYS {
        let value = match key.path {
            "server.listen" => "127.0.0.1:1",
            "server.admin_listen" => "127.0.0.1:2",
            "server.behind_tls" | "server.http2" | "server.http2_plain" | "server.tls.admin" => "true",
            "server.tls.client_certificates" => "required",
            "server.tls.certificate" | "server.tls.key" | "server.tls.client_ca" => "tls.pem",
            "server.max_header_bytes" => "9000",
            "store.url" => "memory:",
            "server.admin_token" | "store.password" | "store.hash_key" => "env:X",
            "store.ca_file" => "ca.pem",
            "store.lease_s" => "2",
            "retention.keys_s" | "retention.deletions_s" => "700000",
            "tenants.directory" => "/elsewhere",
            "telemetry.pass_upstream" => "false",
            "telemetry.otlp.endpoint" => "http://127.0.0.1:4318",
            "telemetry.otlp.headers" => "env:X",
            "telemetry.otlp.sample_one_in" => "2",
            "upstream.limits.rate" => "off",
            "upstream.retry.cap_ms" => "501",
            "log.format" => "json",
            "log.filter" => "debug",
            _ => "1",
        };
        // These go together or not at all.
        let together = [
            ("ONEDELETE__SERVER__TLS__CERTIFICATE", "tls.pem"),
            ("ONEDELETE__SERVER__TLS__KEY", "tls.pem"),
            ("ONEDELETE__SERVER__TLS__CLIENT_CA", "tls.pem"),
            ("ONEDELETE__SERVER__TLS__CLIENT_CERTIFICATES", "required"),
        ];
        let (name, mut variables) = (key.variable(), Vec::new());
        if key.path.starts_with("server.tls.") {
            variables.extend(together);
        }
        variables.push((&name, value));
        let mut settings = good("", &variables);
        assert_ne!(settings, defaults, "{}", key.path);
        // Paths differ by the folder: what was set is something else.
        settings.tenants.directory.clone_from(&defaults.tenants.directory);
        if !matches!(key.path.split_once('.'), Some(("store", _)) | Some(("tenants", _))) {
            settings.store = defaults.store.clone();
            assert_ne!(settings, defaults, "{}", key.path);
        }
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    check(
        "[server]\n\nmax_conections = 1\n",
        &[],
        &["onedelete.toml:3: server.max_conections: is not known (did you mean max_connections?)"],
    );
    check(
        "[severs]\nlisten = 1\n[upstream.limit]\nx = 1",
        &[],
        &[
            "onedelete.toml:1: severs: is not known (did you mean server?)",
            "onedelete.toml:3: upstream.limit: is not known (did you mean limits?)",
        ],
    );
    check("zzzzzz = 1", &[], &["onedelete.toml:1: zzzzzz: is not known"]);
    check(
        "",
        &[("ONEDELETE__SERVER__LISTN", "x"), ("ONEDELETE__ZZZ", "x")],
        &[
            "ONEDELETE__SERVER__LISTN: is no setting (did you mean ONEDELETE__SERVER__LISTEN?)",
            "ONEDELETE__ZZZ: is no setting",
        ],
    );
    check(
        "",
        &[("ONEDELETE__server__listen", "127.0.0.1:1")],
        &["ONEDELETE__server__listen: is no setting (did you mean ONEDELETE__SERVER__LISTEN?)"],
    );
}

#[test]
fn values_above_their_ceiling_and_of_the_wrong_type_are_refused() {
    let text = "[server]\nmax_headers = 1001\nmax_header_bytes = 8191\nlisten = \"localhost:80\"\nbehind_tls = \"yes\"\n\
                max_uri_bytes = \"1\"\nmax_connections = -1\nmax_body_bytes = 99999999999999999999999\n";
    check(
        text,
        &[],
        &[
            "onedelete.toml:2: server.max_headers: must be from 1 to 1000",
            "onedelete.toml:3: server.max_header_bytes: must be from 8192 to 1048576",
            "onedelete.toml:4: server.listen: must be an IP address and a port, such as 127.0.0.1:8080",
            "onedelete.toml:5: server.behind_tls: must be true or false, without quotes",
            "onedelete.toml:6: server.max_uri_bytes: must be a whole number, without quotes",
            "onedelete.toml:7: server.max_connections: must be from 1 to 100000",
            "onedelete.toml:8: server.max_body_bytes: must be from 1 to 67108864",
        ],
    );
    check(
        "server = 1\n[[log]]\n",
        &[],
        &["onedelete.toml:1: server: must be a table", "onedelete.toml:2: log: must be a table"],
    );
    check(
        "[log]\nformat = \"xml\"\nfilter = \"\"\n[tenants]\ndirectory = \" \"\n[upstream.limits]\nrate = \"60\"",
        &[],
        &[
            "onedelete.toml:2: log.format: must be text or json",
            "onedelete.toml:3: log.filter: must not be empty",
            "onedelete.toml:5: tenants.directory: must not be empty",
            "onedelete.toml:7: upstream.limits.rate: must be calls in a time, such as 5/s, 60/min or 5000/h (1 to 1000000), or off",
        ],
    );
    let variables = [
        ("ONEDELETE__SERVER__BEHIND_TLS", "1"),
        ("ONEDELETE__SERVER__LISTEN", ""),
        ("ONEDELETE__SERVER__MAX_HEADERS", "1001"),
        ("ONEDELETE__SERVER__MAX_URI_BYTES", "many"),
    ];
    check(
        "",
        &variables,
        &[
            "ONEDELETE__SERVER__BEHIND_TLS: server.behind_tls: must be true or false",
            "ONEDELETE__SERVER__LISTEN: server.listen: must be an IP address and a port, such as 127.0.0.1:8080",
            "ONEDELETE__SERVER__MAX_HEADERS: server.max_headers: must be from 1 to 1000",
            "ONEDELETE__SERVER__MAX_URI_BYTES: server.max_uri_bytes: must be a whole number",
        ],
    );
}

#[test]
fn listening_beyond_loopback_needs_tls_in_front() {
    let hint = format!("({IN_THE_CLEAR})");
    let line = format!("onedelete.toml:2: server.listen: must be a loopback address {hint}");
    check("[server]\nlisten = \"0.0.0.0:80\"", &[], &[&line]);
    let line = format!("onedelete.toml:2: server.admin_listen: must be a loopback address ({ADMIN_IN_THE_CLEAR})");
    check("[server]\nadmin_listen = \"[::]:80\"", &[], &[&line]);
    let line = format!("ONEDELETE__SERVER__LISTEN: server.listen: must be a loopback address {hint}");
    check("[server]\nlisten = \"127.0.0.1:80\"", &[("ONEDELETE__SERVER__LISTEN", "192.0.2.1:80")], &[&line]);
    good("[server]\nlisten = \"0.0.0.0:80\"\nadmin_listen = \"[::1]:80\"\nbehind_tls = true", &[]);
    good("[server]\nlisten = \"0.0.0.0:80\"", &[("ONEDELETE__SERVER__BEHIND_TLS", "true")]);
    good("[server]\nlisten = \"127.9.9.9:80\"", &[]);
    // The gateway's own TLS will do, on the listener that has it.
    let tls = "[server.tls]\ncertificate = \"a.pem\"\nkey = \"k.pem\"";
    let settings = good(&format!("[server]\nlisten = \"0.0.0.0:80\"\n{tls}"), &[]);
    assert!(settings.server.tls.is_on() && settings.server.tls.key.ends_with("k.pem"));
    check(
        &format!("[server]\nadmin_listen = \"[::]:80\"\n{tls}"),
        &[],
        &[&line
            .replace("server.listen", "server.admin_listen")
            .replace(IN_THE_CLEAR, ADMIN_IN_THE_CLEAR)
            .replace("ONEDELETE__SERVER__LISTEN", "onedelete.toml:2")],
    );
    good(&format!("[server]\nadmin_listen = \"[::]:80\"\n{tls}\nadmin = true"), &[]);
}

#[test]
fn half_a_tls_setup_is_none() {
    let key = "server.tls.key: must name the private key of server.tls.certificate";
    check("[server.tls]\ncertificate = \"a.pem\"", &[], &[&format!("onedelete.toml: {key}")]);
    let none = "server.tls.certificate: must name a certificate: without it there is no TLS";
    for line in ["key = \"k.pem\"", "admin = true"] {
        check(&format!("[server.tls]\n{line}"), &[], &[&format!("onedelete.toml: {none}")]);
    }
    let both = "[server.tls]\ncertificate = \"a.pem\"\nkey = \"k.pem\"\n";
    let authorities = "server.tls.client_ca: must name the authorities that sign callers' certificates";
    check(&format!("{both}client_certificates = \"required\""), &[], &[&format!("onedelete.toml: {authorities}")]);
    let unused = "server.tls.client_certificates: must be required, or server.tls.client_ca is for nothing";
    check(&format!("{both}client_ca = \"c.pem\""), &[], &[&format!("onedelete.toml: {unused}")]);
    let word = "onedelete.toml:4: server.tls.client_certificates: must be none or required";
    check(&format!("{both}client_certificates = \"maybe\""), &[], &[word]);
    good(&format!("{both}client_ca = \"c.pem\"\nclient_certificates = \"required\""), &[]);
}

#[test]
fn settings_that_contradict_each_other_are_refused_where_they_are_made() {
    check(
        "[server]\nlisten = \"127.0.0.1:9090\"",
        &[],
        &["onedelete.toml: server.admin_listen: must not be the same as server.listen"],
    );
    good("[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"", &[]);
    check(
        "[upstream.retry]\nbase_ms = 10\ncap_ms = 9",
        &[],
        &["onedelete.toml:3: upstream.retry.cap_ms: must not be less than base_ms"],
    );
}

#[test]
fn the_store_is_checked_and_its_url_is_never_shown() {
    let no_password = "must not have a password in it: store.password says where that is";
    let folder = TempDir::new().unwrap();
    let text = "[store]\nurl = \"postgres://gateway:hunter2@db/x\"";
    let errors = read(folder.path(), text, &[]).unwrap_err();
    assert!(errors[0].to_string().ends_with(&format!("onedelete.toml:2: store.url: {no_password}")), "{}", errors[0]);
    assert!(!errors[0].render().contains("hunter2"));
    let expected = "onedelete.toml:2: store.url: must be sqlite:PATH, postgres://user@host/database or memory:";
    check("[store]\nurl = \"mysql:x\"", &[], &[expected]);
    let expected =
        "onedelete.toml:2: store.password: must be env:NAME or file:PATH; the secret itself does not belong here";
    check("[store]\npassword = \"hunter2\"", &[], &[expected]);
}

#[test]
fn a_missing_file_is_an_error_and_so_is_one_that_is_no_toml() {
    let folder = TempDir::new().unwrap();
    let errors = load_with(&folder.path().join("none.toml"), []).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("none.toml: cannot be read: "), "{}", errors[0]);
    check(
        "[server]\nlisten = 127.0.0.1:80\n\n[log]\nformat = json\n",
        &[("ONEDELETE__X", "")],
        &[
            "onedelete.toml:2: invalid float",
            "onedelete.toml:5: string values must be quoted, expected literal string",
            "ONEDELETE__X: is no setting",
        ],
    );
    check("[log]\nformat = \"text\"\nformat = \"json\"\n", &[], &["onedelete.toml:3: duplicate key"]);
}

#[test]
fn a_rendered_error_points_at_the_value() {
    let folder = TempDir::new().unwrap();
    let text =
        "[server]\n  max_headers = 1001 # too many\nlisten_on = \"a secret, for all we know\"\n[log]\nformat = json\n";
    let render = |text: &str| -> Vec<String> {
        let errors = read(folder.path(), text, &[]).unwrap_err();
        errors.iter().map(|error| error.render().split_once('\n').map_or("", |(_, rest)| rest).to_owned()).collect()
    };
    assert_eq!(render(text), ["  5 | format = json\n    |          ^^^^"]);
    assert_eq!(
        render(&text.replace("json", "\"json\"")),
        ["  2 |   max_headers = 1001\n    |                 ^^^^", "  3 | listen_on\n    | ^^^^^^^^^",]
    );
    // Where no one knows what stands in a line, it is not shown.
    assert_eq!(render("[store]\nurl = hunter2\n"), [""]);
    assert_eq!(render("[server]\npassword = hunter2\n"), [""]);
}

#[test]
fn a_collector_has_a_url_without_credentials_and_mistakes_do_not_show_them() {
    let bad = |text: &str| {
        let folder = TempDir::new().unwrap();
        let errors = read(folder.path(), text, &[]).unwrap_err();
        errors.iter().map(ToString::to_string).collect::<String>()
    };
    for good_one in ["", "http://127.0.0.1:4318", "https://collector.example/otlp"] {
        let settings = good(&format!("[telemetry.otlp]\nendpoint = {good_one:?}"), &[]);
        assert_eq!(settings.telemetry.otlp.endpoint, good_one);
    }
    for wrong in
        ["https://me:canary@collector.example", "canary", "ftp://canary", "http://x/?key=canary", "http://x/#canary"]
    {
        let told = bad(&format!("[telemetry.otlp]\nendpoint = {wrong:?}"));
        assert!(told.contains("telemetry.otlp.endpoint: must be") && !told.contains("canary"), "{wrong}: {told}");
    }
    let told = bad("[telemetry.otlp]\nheaders = \"x-api-key=canary\"");
    assert!(told.contains("telemetry.otlp.headers: must be") && !told.contains("canary"), "{told}");
}
