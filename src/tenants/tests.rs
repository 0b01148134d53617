//! What a tenant's file may say, and how it is corrected; its credentials apart.

mod secrets;

use std::fs;
use std::path::Path;

use adapters::Pace;
use tempfile::TempDir;

use super::file::load_with;
use super::*;
use crate::settings::{self, ConfigError, Rate, Upstream};

const SUPPORT: &str = "[connections.support]\ndialect = \"kore_ai\"\nbase_url = \"https://platform.kore.ai\"\n\
    stream_id = \"st-1\"\naccount_id = \"acc\"\ncredentials = { client_id = \"cs\", client_secret = \"plain:hunter2\" }\n";
const PORTAL: &str = "[connections.portal]\ndialect = \"onlyoffice\"\nbase_url = \"https://portal.example\"\n\
    credentials = { token = \"plain:hunter2\" }\n";

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn defaults() -> Upstream {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("x.toml");
    fs::write(&file, "").unwrap();
    settings::load_with(&file, []).unwrap().upstream
}

fn read(folder: &Path, files: &[(&str, &str)], secrets: Secrets) -> Result<Tenants, Vec<ConfigError>> {
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    load_with(folder, &defaults(), secrets, &|name| match name {
        "FULL" => Some("hunter2".into()),
        "BLANK" => Some("hunter 2".into()),
        "EMPTY" => Some("".into()),
        _ => None,
    })
}

fn good(text: &str) -> Tenants {
    let folder = TempDir::new().unwrap();
    read(folder.path(), &[("acme.toml", text)], Secrets::Read).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn connection(text: &str) -> Arc<Connection> {
    good(&format!("id = \"acme\"\n{text}")).tenant("acme").unwrap().connections.values().next().unwrap().clone()
}

/// The lines that the errors of these files print, without the folder. No secret is in them, however they are printed.
fn check_files(files: &[(&str, &str)], secrets: Secrets, expected: &[&str]) {
    let folder = TempDir::new().unwrap();
    let Err(errors) = read(folder.path(), files, secrets) else { panic!("accepted: {files:?}") };
    let prefix = format!("{}/", folder.path().display());
    let lines: Vec<_> = errors.iter().map(|error| error.to_string().replace(&prefix, "")).collect();
    assert_eq!(lines, expected, "{files:?}");
    for error in errors {
        assert!(!format!("{}{error:?}", error.render()).contains("hunter"), "{}", error.render());
    }
}

/// The same for one file, with its id in the first line; `expected` is the rest after `acme.toml:`.
fn check(text: &str, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|line| format!("acme.toml:{line}")).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check_files(&[("acme.toml", &format!("id = \"acme\"\n{text}"))], Secrets::Read, &expected);
}

/// The same for a connection in lines 2 and after, with this change.
fn check_with(connection: &str, from: &str, to: &str, expected: &[&str]) {
    assert!(connection.contains(from), "{from}");
    check(&connection.replace(from, to), expected);
}

#[test]
fn the_examples_load() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples"));
    let settings = settings::load_with(&folder.join("onedelete.toml"), []).unwrap();
    let tenants = load(&settings.tenants.directory, &settings.upstream, Secrets::Skip).unwrap();
    let acme = tenants.tenant("acme").unwrap();
    let dialects: BTreeSet<_> = acme.connections.values().map(|c| c.registration.profile.id).collect();
    assert_eq!(dialects.len(), adapters::DIALECTS.len());
    let key = tenants.key(&[0; 32]).unwrap();
    assert_eq!((key.name.as_ref(), key.access, key.reaches("door")), ("crm-sync", Access::Delete, true));
    let unread = |value: &CredentialValue| matches!(value, CredentialValue::Unread);
    for connection in acme.connections.values() {
        assert_eq!(connection.credentials.members.iter().filter(|(_, value)| unread(value)).count(), 1);
    }
}

#[test]
fn every_dialects_own_example_loads() {
    for registration in adapters::DIALECTS {
        let connection = connection(&format!("[connections.x]\n{}", registration.example));
        assert_eq!(connection.registration.profile.id, registration.profile.id);
        assert_eq!(connection.limits.rate, registration.profile.pace);
    }
}

#[test]
fn a_tenant_may_take_signed_tokens() {
    let rule = "[[jwt]]\nname = \"desk\"\nissuer = \"https://id.example\"\naudience = \"onedelete\"\nalgorithms = [\"ES256\"]\n\
        jwks = \"file:keys.json\"\naccess = \"read\"\n";
    let tenants =
        good(&format!("id = \"acme\"\n{rule}claims = {{ org = \"acme\" }}\nconnections = [\"portal\"]\n{PORTAL}"));
    let [rule_read] = &tenants.tenant("acme").unwrap().token_rules[..] else { panic!() };
    assert_eq!((&*rule_read.name, rule_read.access), ("desk", Access::Read));
    assert!(matches!(&rule_read.keys, TokenKeys::File(path) if path.ends_with("keys.json")));
    assert_eq!(rule_read.claims["org"], "acme");
    assert!(rule_read.connections.as_ref().unwrap().contains("portal"));

    let possible = "must be one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";
    check(
        &rule
            .replace("\"desk\"", "\"\"")
            .replace("[\"ES256\"]", "[\"HS256\", \"none\"]")
            .replace("file:keys.json", "http://id.example/keys")
            .replace("\"read\"", "\"all\""),
        &[
            "3: jwt[1].name: must not be empty",
            &format!("6: jwt[1].algorithms[1]: {possible}"),
            &format!("6: jwt[1].algorithms[2]: {possible}"),
            "7: jwt[1].jwks: must be file:PATH or an address with https://",
            "8: jwt[1].access: must be delete or read",
        ],
    );
    let shared = rule.replace("jwks = \"file:keys.json\"", "secret = \"plain:hunter2\"");
    check(
        &shared,
        &[
            "6: jwt[1].algorithms[1]: must be one of HS256, HS384, HS512",
            "7: jwt[1].secret: leads to a secret of less than 32 bytes",
        ],
    );
    check(
        &rule.replace("\naccess", "\nclaims = { org = 7 }\nconnections = [\"none\"]\nacces"),
        &[
            "2: jwt[1].access: is missing",
            "8: jwt[1].claims.org: must be text, in quotes",
            "9: jwt[1].connections[1]: is no connection of this tenant",
            "10: jwt[1].acces: is not known (did you mean access?)",
        ],
    );
}

#[test]
fn a_tenant_has_keys_and_connections() {
    let keys = format!(
        "id = \"acme\"\ndefault_connection = \"portal\"\n[[api_keys]]\nname = \"all\"\nsha256 = \"{}\"\n\
         [[api_keys]]\nname = \"some\"\nsha256 = \"{}\"\nconnections = [\"support\"]\naccess = \"read\"\nrate = \"5/min\"\n",
        hash('a'),
        hash('1')
    );
    let tenants = good(&format!("{keys}{SUPPORT}{PORTAL}"));
    let some = tenants.key(&[0x11; 32]).unwrap();
    assert_eq!((some.access, some.reaches("support"), some.reaches("portal")), (Access::Read, true, false));
    let all = tenants.key(&[0xaa; 32]).unwrap();
    assert_eq!((all.access, all.reaches("support"), all.reaches("portal")), (Access::Delete, true, true));
    assert_eq!((some.rate, all.rate), (Some(adapters::Pace { calls: 5, per_s: 60 }), None));
    assert_eq!(all.tenant.default_connection.as_deref(), Some("portal"));
    assert!(tenants.key(&[0; 32]).is_none());
    assert_eq!(tenants.iter().count(), 1);
}

#[test]
fn only_visible_toml_files_are_tenants() {
    let folder = TempDir::new().unwrap();
    let files = [("b.toml", "id = \"b\""), ("a.toml", "id = \"a\""), (".c.toml", "?"), ("d.toml.bak", "?"), ("e", "?")];
    let tenants = read(folder.path(), &files, Secrets::Read).unwrap();
    assert_eq!(tenants.iter().map(|tenant| tenant.id.to_string()).collect::<Vec<_>>(), ["a", "b"]);
    let errors = load(&folder.path().join("none"), &defaults(), Secrets::Read).unwrap_err();
    assert!(errors[0].to_string().contains("none: cannot be read as a folder: "), "{}", errors[0]);
}

#[test]
fn all_mistakes_of_all_files_are_found_in_order() {
    let one = format!("id = \"Acme\"\nx = 1\n\n{}", SUPPORT.replace("st-1", ""));
    let files = [("b.toml", one.as_str()), ("a.toml", "[connections.y]\n"), ("c.toml", "id = acme")];
    check_files(
        &files,
        Secrets::Read,
        &[
            "a.toml: id: is missing",
            "a.toml:1: connections.y.base_url: is missing",
            "a.toml:1: connections.y.credentials: is missing",
            "a.toml:1: connections.y.dialect: is missing",
            "b.toml:1: id: must be a name of 1 to 64 lower-case letters, digits, - and _, with a letter or digit first",
            "b.toml:2: x: is not known",
            "b.toml:7: connections.support.stream_id: may have letters, digits and - . _ ~ only, and must not be empty",
            "c.toml:1: string values must be quoted, expected literal string",
        ],
    );
}

#[test]
fn names_have_one_form() {
    let rule = "must be a name of 1 to 64 lower-case letters, digits, - and _, with a letter or digit first";
    for id in ["", "Acme", "-a", "_a", "a.b", "a b", "é", &"a".repeat(65)] {
        let line = format!("acme.toml:1: id: {rule}");
        check_files(&[("acme.toml", &format!("id = \"{id}\""))], Secrets::Read, &[&line]);
    }
    check_files(&[("acme.toml", "id = 5")], Secrets::Read, &["acme.toml:1: id: must be text, in quotes"]);
    check_files(&[("acme.toml", "")], Secrets::Read, &["acme.toml: id: is missing"]);
    let upper = format!("2: connections.Support: {rule}");
    check_with(SUPPORT, "connections.support", "connections.Support", &[&upper]);
    let hostile = format!("2: connections.\"a\\n\\u{{1b}}[2J\": {rule}");
    check_with(SUPPORT, "connections.support", "connections.\"a\\n\\u001b[2J\"", &[&hostile]);
    good(&format!("id = \"{}\"", "a".repeat(64)));
    good("id = \"0-_\"");
}

#[test]
fn an_id_and_a_key_belong_to_one_tenant() {
    let key = |name: &str| format!("[[api_keys]]\nname = \"{name}\"\nsha256 = \"{}\"\n", hash('a'));
    let folder = TempDir::new().unwrap();
    let (a, b) = (format!("id = \"acme\"\n{}", key("one")), format!("id = \"acme\"\n{}{}", key("two"), key("three")));
    let errors = read(folder.path(), &[("a.toml", &a), ("b.toml", &b)], Secrets::Read).unwrap_err();
    let prefix = format!("{}/", folder.path().display());
    let lines: Vec<_> = errors.iter().map(|error| error.to_string().replace(&prefix, "")).collect();
    assert_eq!(
        lines,
        [
            "b.toml:1: id: is the id of another tenant, in a.toml",
            "b.toml:4: api_keys[1].sha256: is that of another key, \"one\" in a.toml",
            "b.toml:7: api_keys[2].sha256: is that of another key, \"one\" in a.toml",
        ]
    );
}

#[test]
fn what_is_named_must_exist() {
    check(
        &format!("default_connection = \"suport\"\n{SUPPORT}"),
        &["2: default_connection: is no connection of this tenant (did you mean support?)"],
    );
    let key = format!("[[api_keys]]\nname = \"k\"\nsha256 = \"{}\"\n", hash('a'));
    check(
        &format!("{key}connections = [\"support\",\n\"zzz\", 5]\n{SUPPORT}"),
        &[
            "6: api_keys[1].connections[2]: is no connection of this tenant",
            "6: api_keys[1].connections[3]: must be text, in quotes",
        ],
    );
    check(
        &format!("{key}connections = []\n"),
        &["5: api_keys[1].connections: must name a connection (without this line, all of them may be used)"],
    );
}

#[test]
fn a_key_has_a_name_a_hash_and_nothing_else() {
    let hint = "(onedelete key new prints the whole line)";
    let form = "must be 64 hexadecimal digits in lower case";
    check(
        "[[api_keys]]\n[[api_keys]]\nname = \"\"\nsha256 = 5\nacces = \"read\"\naccess = \"write\"\nrate = \"often\"\n",
        &[
            "2: api_keys[1].name: is missing",
            "2: api_keys[1].sha256: is missing",
            "4: api_keys[2].name: must have 1 to 64 printable characters",
            "5: api_keys[2].sha256: must be text, in quotes",
            "6: api_keys[2].acces: is not known (did you mean access?)",
            "7: api_keys[2].access: must be delete or read",
            "8: api_keys[2].rate: must be calls in a time, such as 5/s, 60/min or 5000/h (1 to 1000000), or off",
        ],
    );
    for wrong in [hash('A'), hash('g'), hash('a')[1..].to_owned(), String::new(), "é".repeat(32)] {
        let line = format!("4: api_keys[1].sha256: {form} {hint}");
        check(&format!("[[api_keys]]\nname = \"k\"\nsha256 = \"{wrong}\""), &[&line]);
    }
    let line = format!("4: api_keys[1].sha256: {form} (this looks like the key itself: only its hash belongs here)");
    check("[[api_keys]]\nname = \"k\"\nsha256 = \"odk_hunter2\"", &[&line]);
    check("[api_keys]\nname = \"k\"\n", &["2: api_keys: must be a list, in square brackets"]);
    check("api_keys = [1]\n", &["2: api_keys[1]: must be a table"]);
}

#[test]
fn an_unknown_dialect_gets_the_nearest_and_the_list() {
    let known = "known: bas_ip, kore_ai, onlyoffice, talkdesk, wethod";
    for (word, meant) in [("koreai", "did you mean kore_ai? "), ("Kore.AI", "did you mean kore_ai? "), ("hubspot", "")]
    {
        let line = format!("3: connections.support.dialect: is no dialect of this gateway ({meant}{known})");
        check_with(SUPPORT, "kore_ai", word, &[&line]);
    }
    check_with(SUPPORT, "dialect = \"kore_ai\"\n", "", &["2: connections.support.dialect: is missing"]);
}

#[test]
fn unknown_keys_are_found_at_every_level() {
    check("default_conection = \"x\"\n", &["2: default_conection: is not known (did you mean default_connection?)"]);
    check(
        &format!("{SUPPORT}strem_id = \"x\"\nallow_htp = true\nzzzz = 1\n"),
        &[
            "8: connections.support.strem_id: is not known (did you mean stream_id?)",
            "9: connections.support.allow_htp: is not known (did you mean allow_http?)",
            "10: connections.support.zzzz: is not known",
        ],
    );
    check(
        &format!("{SUPPORT}[connections.support.limits]\nrte = \"5/s\"\n[connections.support.retry]\nmax_atempts = 1"),
        &[
            "9: connections.support.limits.rte: is not known (did you mean rate?)",
            "11: connections.support.retry.max_atempts: is not known (did you mean max_attempts?)",
        ],
    );
    check(
        &format!("{SUPPORT}[connections.support.timeout]\nconnect_ms = 1\n"),
        &["8: connections.support.timeout: is not known (did you mean timeouts?)"],
    );
}

#[test]
fn all_of_what_a_dialect_says_is_put_beside_its_line() {
    let text = "[connections.a]\ndialect = \"kore_ai\"\nbase_url = \"https://x.example/a b\"\naccount_id = \"a b\"\n\
                max_contacts_per_call = 0\ntoken = \"plain:hunter2\"\ncredentials = { jwt = \"plain:hunter2\" }";
    check(
        text,
        &[
            "2: connections.a.stream_id: is missing",
            "4: connections.a.base_url: may have a path of letters, digits and - . _ ~ only, and no query or fragment",
            "5: connections.a.account_id: must be printable characters without blanks",
            "6: connections.a.max_contacts_per_call: must be from 1 to 10000",
            "7: connections.a.token: is not known",
        ],
    );
    check_with(
        SUPPORT,
        "\"st-1\"",
        "5",
        &["5: connections.support.stream_id: invalid type: integer `5`, expected a string"],
    );
    check_with(
        SUPPORT,
        "\"st-1\"",
        "2024-06-15",
        &["5: connections.support.stream_id: must be text: put the date in quotes"],
    );
    check_with(
        SUPPORT,
        "\"st-1\"",
        "[[1, 2024-06-15]]",
        &["5: connections.support.stream_id[1][2]: must be text: put the date in quotes"],
    );
    check_with(
        SUPPORT,
        "\"st-1\"",
        "99999999999999999999",
        &["5: connections.support.stream_id: is too large a number"],
    );
    check(
        &format!("{PORTAL}max_contacts_per_call = 5\n"),
        &["6: connections.portal.max_contacts_per_call: is not known"],
    );
}

#[test]
fn plain_http_and_private_addresses_need_leave() {
    let http = "4: connections.portal.base_url: must start with https:// \
                (plain http shows the credential to everybody on the way; allow_http = true allows it)";
    let private =
        "4: connections.portal.base_url: must not be a private or special address (allow_private = true allows it)";
    for (url, leave, expected) in [
        ("https://portal.example", "", &[][..]),
        ("http://portal.example", "", &[http]),
        ("http://localhost:8080", "", &[http]),
        ("https://localhost:8080", "", &[]),
        ("http://portal.example", "allow_http = true", &[]),
        ("http://127.0.0.1:8080", "", &[]),
        ("http://127.9.9.9", "", &[]),
        ("http://[::1]:8080", "", &[]),
        ("http://10.0.0.1", "", &[http, private]),
        ("http://10.0.0.1", "allow_http = true", &[private]),
        ("http://10.0.0.1", "allow_private = true", &[http]),
        ("http://10.0.0.1", "allow_http = true\nallow_private = true", &[]),
        ("https://169.254.169.254", "", &[private]),
        ("https://100.64.0.1", "", &[private]),
        ("https://0.0.0.0", "", &[private]),
        ("https://224.0.0.1", "", &[private]),
        ("https://[fd00::1]", "", &[private]),
        ("https://[fe80::1]", "", &[private]),
        ("https://[::ffff:8.8.8.8]", "", &[private]),
        ("http://[::ffff:127.0.0.1]", "", &[http, private]),
        ("https://[64:ff9b::808:808]", "", &[private]),
        ("https://1.1.1.1", "", &[]),
    ] {
        let text = format!("{}{leave}\n", PORTAL.replace("https://portal.example", url));
        if expected.is_empty() {
            assert_eq!(connection(&text).base_url, url);
        } else {
            check(&text, expected);
        }
    }
    check(
        &format!("{PORTAL}allow_http = \"yes\"\n"),
        &["6: connections.portal.allow_http: must be true or false, without quotes"],
    );
    check_with(
        PORTAL,
        "https://portal",
        "https://admin:hunter2@portal",
        &["4: connections.portal.base_url: has a port that is not a number from 1 to 65535"],
    );
}

#[test]
fn limits_come_from_the_connection_then_the_settings_then_the_dialect() {
    let plain = connection(SUPPORT);
    assert_eq!(plain.limits.rate, Some(Pace { calls: 60, per_s: 60 }));
    assert_eq!((plain.limits.max_in_flight, plain.timeouts.response_ms, plain.retry.max_attempts), (4, 30_000, 4));
    assert_eq!(connection(PORTAL).limits.rate, None);

    let own = connection(&format!(
        "{SUPPORT}limits = {{ rate = \"5/s\", max_in_flight = 9, pool_idle_ms = 1, max_response_bytes = 2 }}\n\
         timeouts = {{ connect_ms = 3, response_ms = 4 }}\nretry = {{ max_attempts = 5, doubt_s = 10, base_ms = 6, cap_ms = 7, budget_percent = 8, budget_floor_per_minute = 9 }}\n"
    ));
    let limits =
        Limits { rate: Some(Pace { calls: 5, per_s: 1 }), max_in_flight: 9, pool_idle_ms: 1, max_response_bytes: 2 };
    assert_eq!(own.limits, limits);
    assert_eq!(own.timeouts, Timeouts { connect_ms: 3, response_ms: 4 });
    let retry = RetryPolicy {
        max_attempts: 5,
        doubt_s: 10,
        base_ms: 6,
        cap_ms: 7,
        budget_percent: 8,
        budget_floor_per_minute: 9,
    };
    assert_eq!(own.retry, retry);
    assert_eq!(connection(&format!("{SUPPORT}limits.rate = \"off\"\n")).limits.rate, None);

    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("acme.toml"), format!("id = \"acme\"\n{SUPPORT}")).unwrap();
    let mut upstream = defaults();
    upstream.limits.rate = Some(Rate::Off);
    let tenants = load(folder.path(), &upstream, Secrets::Read).unwrap();
    assert_eq!(tenants.tenant("acme").unwrap().connections["support"].limits.rate, None);
}

#[test]
fn a_connections_limits_have_the_ceilings_of_the_defaults() {
    let text = "[connections.support.limits]\nmax_in_flight = 1001\nrate = 60\n[connections.support.timeouts]\n\
                connect_ms = 0\nresponse_ms = \"1\"\n[connections.support.retry]\nmax_attempts = 21\nbase_ms = 60000\ncap_ms = 1";
    check(
        &format!("{SUPPORT}{text}"),
        &[
            "9: connections.support.limits.max_in_flight: must be from 1 to 1000",
            "10: connections.support.limits.rate: must be text, in quotes",
            "12: connections.support.timeouts.connect_ms: must be from 1 to 60000",
            "13: connections.support.timeouts.response_ms: must be a whole number, without quotes",
            "15: connections.support.retry.max_attempts: must be from 1 to 20",
            "17: connections.support.retry.cap_ms: must not be less than base_ms",
        ],
    );
    check(
        &format!("{SUPPORT}retry.base_ms = 60_000\nlimits = 5\n"),
        &["9: connections.support.limits: must be a table"],
    );
}
