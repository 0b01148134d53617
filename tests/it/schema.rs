//! `onedelete schema` and the readers of the files know the same keys; the examples point editors at it.
//!
//! Whether the examples are valid under the whole schema is for `tests/packaging/run`, which has a validator.

use std::path::{Path, PathBuf};

use adapters::DIALECTS;
use onedelete::settings::{self, ConfigError};
use onedelete::tenants::{self, Secrets};
use serde_json::Value;

use crate::cli::run;

const FILES: [(&str, &str); 2] = [("settings", "config/schema/settings.json"), ("tenant", "config/schema/tenant.json")];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

async fn schema(kind: &str) -> Value {
    let told = run(&["schema", kind], &[]).await;
    assert_eq!(told.code, Some(0), "{}", told.err);
    serde_json::from_str(&told.out).unwrap()
}

/// What is wrong with these settings.
fn settings_errors(text: &str) -> Vec<ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("onedelete.toml");
    std::fs::write(&file, text).unwrap();
    settings::load_with(&file, []).err().unwrap_or_default()
}

/// What is wrong with this tenant.
fn tenant_errors(file: &toml::Table) -> Vec<ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("onedelete.toml");
    std::fs::write(&config, "").unwrap();
    let upstream = settings::load_with(&config, []).unwrap().upstream;
    let tenants = folder.path().join("tenants");
    std::fs::create_dir(&tenants).unwrap();
    std::fs::write(tenants.join("acme.toml"), toml::to_string(file).unwrap()).unwrap();
    tenants::load(&tenants, &upstream, Secrets::Skip).err().unwrap_or_default()
}

fn unknown(errors: &[ConfigError]) -> Vec<&str> {
    errors.iter().filter(|error| error.message == "is not known").map(|error| error.key.as_str()).collect()
}

/// The keys of a file that its schema does not have.
fn strays(schema: &Value, value: &toml::Value, path: &str, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            let schema = chosen(schema, table);
            for (name, value) in table {
                let path = format!("{path}.{name}");
                match schema["properties"].get(name) {
                    Some(schema) => strays(schema, value, &path, found),
                    None if schema["additionalProperties"].is_object() => {
                        strays(&schema["additionalProperties"], value, &path, found);
                    }
                    None => found.push(path),
                }
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| strays(&schema["items"], item, path, found)),
        _ => {}
    }
}

/// Of several forms the one that is meant: by the dialect, else by its members.
fn chosen<'s>(schema: &'s Value, table: &toml::Table) -> &'s Value {
    let Some(forms) = schema["oneOf"].as_array() else { return schema };
    let fits = |form: &&Value| match form["properties"]["dialect"]["const"].as_str() {
        Some(dialect) => table.get("dialect").and_then(toml::Value::as_str) == Some(dialect),
        None => form["required"].as_array().unwrap().iter().all(|name| table.contains_key(name.as_str().unwrap())),
    };
    forms.iter().find(fits).unwrap_or_else(|| panic!("no form fits {table:?}"))
}

fn strays_of(schema: &Value, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    strays(schema, &text.parse::<toml::Table>().unwrap().into(), "", &mut found);
    found
}

#[tokio::test]
async fn the_schemas_in_the_repository_are_those_that_the_program_prints() {
    for (kind, path) in FILES {
        let told = run(&["schema", kind], &[]).await;
        if std::env::var_os("ONEDELETE_WRITE_DOCS").is_some() {
            std::fs::create_dir_all(root().join(path).parent().unwrap()).unwrap();
            std::fs::write(root().join(path), &told.out).unwrap();
        }
        assert!(told.out == read(path), "{path} is another: ONEDELETE_WRITE_DOCS=1 writes it");
    }
    assert_eq!(run(&["schema", "other"], &[]).await.code, Some(2));
}

#[tokio::test]
async fn every_key_of_the_files_is_in_the_schema() {
    let (of_settings, of_tenant) = (schema("settings").await, schema("tenant").await);
    let everything = read("config/default.toml").replace("# rate = ", "rate = ");
    for text in [&everything, &read("config/examples/onedelete.toml"), &read("config/demo.toml")] {
        assert_eq!(strays_of(&of_settings, text), [""; 0]);
    }
    assert_eq!(strays_of(&of_settings, "[server]\nlisen = 1\n[zebra]"), [".server.lisen", ".zebra"]);
    for text in [read("config/examples/tenants/acme.toml"), read("config/tenants/demo.toml")] {
        assert_eq!(strays_of(&of_tenant, &text), [""; 0]);
    }
    for registration in DIALECTS {
        let text = format!("id = \"acme\"\n[connections.x]\n{}", registration.example);
        assert_eq!(strays_of(&of_tenant, &text), [""; 0], "{}", registration.profile.id);
        let stray = strays_of(&of_tenant, &format!("{text}\n[connections.x.limits]\nzebra = 1\n"));
        assert_eq!(stray, [".connections.x.limits.zebra"], "{}", registration.profile.id);
    }
}

#[tokio::test]
async fn every_key_of_the_schema_is_taken_by_its_reader() {
    let mut paths = Vec::new();
    leaves(&schema("settings").await, "", &mut paths);
    assert!(paths.len() > 50, "{paths:?}");
    for path in &paths {
        // No setting is a list: each is refused for its value, and none for its name.
        let errors = settings_errors(&format!("{path} = []\n"));
        assert!(!errors.is_empty() && unknown(&errors).is_empty(), "{path}: {errors:?}");
    }
    assert_eq!(unknown(&settings_errors("server.zebra = []\n")), ["server.zebra"]);

    let schema = schema("tenant").await;
    let forms = schema["properties"]["connections"]["additionalProperties"]["oneOf"].as_array().unwrap();
    assert_eq!(forms.len(), DIALECTS.len());
    for registration in DIALECTS {
        let id = registration.profile.id;
        let sound: toml::Table = format!("id = \"acme\"\n[connections.x]\n{}", registration.example).parse().unwrap();
        assert!(tenant_errors(&sound).is_empty(), "{id}");
        let form = forms.iter().find(|form| form["properties"]["dialect"]["const"] == id).unwrap();
        let mut paths = Vec::new();
        leaves(form, "", &mut paths);
        for path in paths.iter().filter(|path| *path != "credentials") {
            let mut file = sound.clone();
            let (parent, name) = path.rsplit_once('.').map_or((None, path.as_str()), |(p, name)| (Some(p), name));
            let connection = file["connections"]["x"].as_table_mut().unwrap();
            let table = match parent {
                Some(parent) => crate::support::table(connection, parent),
                None => connection,
            };
            table.insert(name.to_owned(), toml::Value::Array(Vec::new()));
            let errors = tenant_errors(&file);
            assert!(!errors.is_empty() && unknown(&errors).is_empty(), "{id}: {path}: {errors:?}");
        }
        // What must be there is what the reader misses.
        for name in form["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
            let mut file = sound.clone();
            file["connections"]["x"].as_table_mut().unwrap().remove(name);
            let errors = tenant_errors(&file);
            assert!(errors.iter().any(|error| error.message == "is missing"), "{id}: {name}: {errors:?}");
        }
        for name in form["properties"].as_object().unwrap().keys() {
            let required = form["required"].as_array().unwrap().iter().any(|each| each == name.as_str());
            let mut file = sound.clone();
            let removed = file["connections"]["x"].as_table_mut().unwrap().remove(name);
            // A path in the example's credentials may need a leave.
            if removed.is_some() && !required && !name.starts_with("allow_") {
                assert!(tenant_errors(&file).is_empty(), "{id} needs {name}, and the schema does not say so");
            }
        }
    }
    for name in schema["properties"]["api_keys"]["items"]["properties"].as_object().unwrap().keys() {
        let key: toml::Table = format!("id = \"acme\"\n[[api_keys]]\n{name} = {{}}\n").parse().unwrap();
        let errors = tenant_errors(&key);
        assert!(!errors.is_empty() && unknown(&errors).is_empty(), "{name}: {errors:?}");
    }
    for name in schema["properties"].as_object().unwrap().keys() {
        let mut file = toml::Table::new();
        file.insert(name.clone(), 5.into());
        assert!(unknown(&tenant_errors(&file)).is_empty(), "{name}");
    }
}

fn leaves(schema: &Value, path: &str, found: &mut Vec<String>) {
    match schema["properties"].as_object() {
        Some(properties) => {
            for (name, schema) in properties {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(schema, &path, found);
            }
        }
        None => found.push(path.to_owned()),
    }
}

#[test]
fn the_examples_point_editors_at_the_schema() {
    for path in ["config/examples/onedelete.toml", "config/examples/tenants/acme.toml"] {
        let text = read(path);
        let target = text.lines().next().unwrap().strip_prefix("#:schema ").unwrap_or_else(|| panic!("{path}"));
        let target = root().join(path).parent().unwrap().join(target).canonicalize().unwrap();
        assert!(FILES.iter().any(|(_, file)| target == root().join(file)), "{path}: {}", target.display());
    }
}
