//! Where a secret is: `env:NAME`, `file:PATH` or `plain:VALUE`. What it is for is not known here.
//!
//! No error repeats the secret, nor what may be one.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

/// The longest secret in a file, in bytes: a wrong path must not fill the memory.
const LONGEST: u64 = 65_536;

/// What is wrong with a reference, as the end of a sentence, and a hint.
pub(crate) type Wrong = (String, Option<&'static str>);

/// A setting that says where a secret is; empty if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "String")]
pub struct SecretRef {
    text: String,
    folder: PathBuf,
}

impl From<String> for SecretRef {
    fn from(text: String) -> Self {
        Self { text, folder: PathBuf::new() }
    }
}

impl SecretRef {
    /// Whether a text can be such a setting. Secrets do not stand in the settings, not even for tests.
    pub(super) fn check(text: &str) -> Result<(), String> {
        let known = ["", "env:", "file:"].iter().any(|prefix| match *prefix {
            "" => text.is_empty(),
            prefix => text.len() > prefix.len() && text.starts_with(prefix),
        });
        if known {
            Ok(())
        } else {
            Err("must be env:NAME or file:PATH; the secret itself does not belong here".to_owned())
        }
    }

    /// With relative paths taken from a folder.
    pub(super) fn below(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
    }

    /// The secret, if there is one.
    ///
    /// # Errors
    /// The end of a sentence that begins with the setting's name.
    pub fn read(&self) -> Result<Option<SecretString>, String> {
        if self.text.is_empty() {
            return Ok(None);
        }
        let secret = fetch(&self.text, &|name| std::env::var_os(name), &self.folder, false);
        match secret.map_err(|(message, _)| message)? {
            Some(secret) if secret.is_empty() => Err("leads to an empty secret".to_owned()),
            secret => Ok(secret.map(SecretString::from)),
        }
    }
}

/// The secret that a text refers to; none if secrets are not to be read. An error names the place, never what is there.
pub(crate) fn fetch(
    text: &str,
    variable: &dyn Fn(&str) -> Option<OsString>,
    folder: &Path,
    skip: bool,
) -> Result<Option<String>, Wrong> {
    let wrong = |message: String| (message, None);
    if let Some(secret) = text.strip_prefix("plain:") {
        return Ok(Some(secret.to_owned()));
    }
    if let Some(name) = text.strip_prefix("env:") {
        // What does not look like a name may be the secret itself.
        let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !named || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(wrong("must name a variable after env: (letters, digits and _)".to_owned()));
        }
        if skip {
            return Ok(None);
        }
        let value = variable(name).ok_or_else(|| wrong(format!("needs the variable {name}, which is not set")))?;
        let value = value.into_string().map_err(|_| wrong(format!("needs the variable {name}, which is not UTF-8")))?;
        return Ok(Some(value));
    }
    let Some(path) = text.strip_prefix("file:") else {
        let hint = "env:NAME, file:PATH or, for tests and demos, plain:VALUE; the secret itself does not belong here";
        return Err(("must say where the secret is".to_owned(), Some(hint)));
    };
    if path.is_empty() {
        return Err(wrong("must name a file after file:".to_owned()));
    }
    if skip {
        return Ok(None);
    }
    let path = folder.join(path);
    let unreadable = |why: &str| wrong(format!("needs the file {}, which cannot be read: {why}", path.display()));
    let file = std::fs::File::open(&path).map_err(|err| unreadable(&err.to_string()))?;
    let mut secret = String::new();
    file.take(LONGEST + 1).read_to_string(&mut secret).map_err(|err| unreadable(&err.to_string()))?;
    if secret.len() as u64 > LONGEST {
        return Err(unreadable(&format!("it has more than {LONGEST} bytes")));
    }
    let end = secret.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).len());
    secret.truncate(end.unwrap_or(secret.len()));
    Ok(Some(secret))
}
