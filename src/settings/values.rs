//! Settings that are texts with a form of their own: where the ledger is, how fast calls go, how a line is logged.
//!
//! Their errors are the end of a sentence that starts with the setting's name, and never repeat the text.

use std::path::PathBuf;

use adapters::Pace;
use serde::Deserialize;

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StoreUrl {
    /// In a SQLite file.
    Sqlite(PathBuf),
    /// In a Postgres database that several gateways may share. The URL has no password.
    Postgres(String),
    /// Nowhere: all is forgotten at the end.
    Memory,
}

/// How many calls may be made in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Rate {
    /// As many as there are.
    Off,
    /// So many; at most 1,000,000 in a second, a minute or an hour.
    Pace(Pace),
}

/// Whether callers must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ClientCertificates {
    /// They are not asked for one.
    None,
    /// Without one there is no connection.
    Required,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// More could not be told from `off`, and its interval would be too short for a clock.
const MOST_CALLS: u32 = 1_000_000;

impl StoreUrl {
    /// Reads `sqlite:PATH`, `postgres://…` or `memory:`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(rest) = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
            let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
            if user.contains(':') || after.to_ascii_lowercase().contains("password=") {
                return Err("must not have a password in it: store.password says where that is".to_owned());
            }
            if authority.is_empty() && !after.contains("host=") {
                return Err("must name a host: postgres://user@host/database".to_owned());
            }
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:") {
            Some(path) if path.starts_with("//") => Err("takes a plain path after sqlite: and no //".to_owned()),
            Some(":memory:") => Err("must be memory: for a store that keeps nothing".to_owned()),
            // SQLite reads `file:` as a URI of its own.
            Some(path) if !path.trim().is_empty() && !path.starts_with("file:") => {
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            _ => Err("must be sqlite:PATH, postgres://user@host/database or memory:".to_owned()),
        }
    }
}

impl Rate {
    /// Reads `5/s`, `60/min`, `5000/h` or `off`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let wrong = || format!("must be calls in a time, such as 5/s, 60/min or 5000/h (1 to {MOST_CALLS}), or off");
        let (calls, unit) = text.split_once('/').ok_or_else(wrong)?;
        let per_s = [("s", 1), ("min", 60), ("h", 3_600)].into_iter().find(|(name, _)| *name == unit);
        let digits = calls.bytes().all(|b| b.is_ascii_digit());
        let calls = calls.parse().ok().filter(|calls| digits && (1..=MOST_CALLS).contains(calls));
        let ((_, per_s), calls) = per_s.zip(calls).ok_or_else(wrong)?;
        Ok(Self::Pace(Pace { calls, per_s }))
    }

    /// The pace, if there is one.
    pub fn pace(self) -> Option<Pace> {
        match self {
            Self::Off => None,
            Self::Pace(pace) => Some(pace),
        }
    }
}

impl LogFormat {
    /// Reads `text` or `json`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json".to_owned()),
        }
    }
}

impl ClientCertificates {
    /// Reads `none` or `required`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "required" => Ok(Self::Required),
            _ => Err("must be none or required".to_owned()),
        }
    }
}

impl TryFrom<String> for ClientCertificates {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_calls_in_a_time() {
        let pace = |calls, per_s| Rate::Pace(Pace { calls, per_s });
        for (text, rate) in
            [("off", Rate::Off), ("5/s", pace(5, 1)), ("60/min", pace(60, 60)), ("5000/h", pace(5_000, 3_600))]
        {
            assert_eq!(Rate::parse(text), Ok(rate));
        }
        for text in
            ["", "60", "0/s", "-1/s", "+1/s", "1.5/s", "60/m", "60 / min", "1000001/s", "Off", "none", "/s", "5/"]
        {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_store_is_a_file_or_memory() {
        assert_eq!(StoreUrl::parse("sqlite:a b.db"), Ok(StoreUrl::Sqlite("a b.db".into())));
        assert_eq!(StoreUrl::parse("memory:"), Ok(StoreUrl::Memory));
        for text in
            ["", "sqlite:", "sqlite: ", "memory", "memory:x", "mysql:x", "onedelete.db", "sqlite:file:x?mode=ro"]
        {
            assert_eq!(
                StoreUrl::parse(text),
                Err("must be sqlite:PATH, postgres://user@host/database or memory:".to_owned()),
                "{text}"
            );
        }
        assert!(StoreUrl::parse("sqlite:///var/x.db").unwrap_err().contains("no //"));
        assert!(StoreUrl::parse("sqlite::memory:").unwrap_err().contains("memory:"));
        let refusal = StoreUrl::parse("postgres://user:hunter2@db/x").unwrap_err();
        assert!(refusal.contains("store.password") && !refusal.contains("hunter2"));
        assert!(StoreUrl::parse("postgres://u@db/x?PASSWORD=hunter2").is_err());
        let url = "postgres://u@db/x?sslmode=require";
        assert_eq!(StoreUrl::parse(url), Ok(StoreUrl::Postgres(url.to_owned())));
    }
}
