//! Settings and tenants' files: any text is read or refused, and no refusal repeats a secret.
//!
//! An input is settings, a line of three dashes, and a tenant. After every `plain:` stands a secret. Each input is written to files;
//! libFuzzer ends the process without cleaning up, so `fuzz/run` gives it a `TMPDIR` of its own.

#![no_main]

use std::cell::RefCell;
use std::fs;

use libfuzzer_sys::fuzz_target;
use onedelete::settings::{self, ConfigError};
use onedelete::tenants::{self, Secrets};
use onedelete_fuzz::{CANARY, seeds};
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(TempDir::new().expect("a folder for the files"));
}

fuzz_target!(init: { seeds::write(seeds::configurations) }, |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A secret that was there already would stand somewhere else, too.
    let text = text.replace(CANARY, "").replace("plain:", &format!("plain:{CANARY}"));
    let (gateway, tenant) = text.split_once("---\n").unwrap_or(("", &text));
    FOLDER.with_borrow(|folder| {
        let (file, other) = (folder.path().join("onedelete.toml"), folder.path().join("tenants"));
        fs::create_dir_all(&other).expect("a folder");
        fs::write(&file, gateway).expect("a file");
        fs::write(other.join("a.toml"), tenant).expect("a file");
        let defaults = match settings::load_with(&file, []) {
            Ok(settings) => {
                assert!(!format!("{settings:?}").contains(CANARY) || gateway.contains("plain:"), "settings");
                settings.upstream
            }
            Err(errors) => {
                check(&errors, gateway);
                fs::write(&file, "").expect("a file");
                settings::load_with(&file, []).expect("an empty file is good").upstream
            }
        };
        // What a file of secrets holds is none of an input's business.
        let secrets = if tenant.contains("file") { Secrets::Skip } else { Secrets::Read };
        match tenants::load(&other, &defaults, secrets) {
            Ok(tenants) => assert!(!format!("{tenants:?}").contains(CANARY) || named(tenant), "tenants that are shown"),
            Err(errors) => check(&errors, tenant),
        }
    });
});

fn check(errors: &[ConfigError], text: &str) {
    assert!(!errors.is_empty());
    for error in errors {
        let shown = format!("{error} {error:?} {}", error.render());
        assert!(!shown.contains(CANARY) || named(text), "{}", error.render());
    }
}

/// Whether the secret stands where a name does, which a refusal says.
fn named(text: &str) -> bool {
    fn in_a_key(value: &toml::Value) -> bool {
        match value {
            toml::Value::Table(table) => table.iter().any(|(key, value)| key.contains(CANARY) || in_a_key(value)),
            toml::Value::Array(items) => items.iter().any(in_a_key),
            _ => false,
        }
    }
    text.parse::<toml::Table>().is_ok_and(|table| in_a_key(&toml::Value::Table(table)))
}
