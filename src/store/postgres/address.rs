//! A `postgres://` URL as the way to a server: who, where, and how much TLS.
//!
//! It reads no file and no environment: no `.pgpass`, no `PGPASSWORD`. Its errors repeat nothing of the URL.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::Check;

/// A server that is silent for so long is looked after.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The way to a server.
pub(super) struct Address {
    pub(super) config: Config,
    /// What is demanded of its certificate; `None` for a connection that is never encrypted.
    pub(super) check: Option<Check>,
}

impl Address {
    /// Reads a URL. `authorities` says whether there is a file of those that are trusted.
    pub(super) fn parse(
        url: &SecretString,
        password: Option<&SecretString>,
        authorities: bool,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
        let (url, mode) = take_mode(url.expose_secret())?;
        let mut config: Config = url.parse().map_err(|_| "store.url is no URL of a Postgres database")?;
        if config.get_hosts().is_empty() {
            return Err("store.url names no host".to_owned());
        }
        match (password, config.get_password()) {
            (Some(_), Some(_)) => return Err("store.url has a password, and store.password is another".to_owned()),
            (Some(password), None) => _ = config.password(password.expose_secret()),
            (None, _) => {}
        }
        let mode = mode.unwrap_or(if config.get_hosts().iter().all(is_here) { Mode::Prefer } else { Mode::VerifyFull });
        let (ssl_mode, check) = match mode {
            Mode::Disable => (SslMode::Disable, None),
            Mode::Prefer => (SslMode::Prefer, Some(Check::Nothing)),
            // As in libpq: whoever names authorities wants them asked.
            Mode::Require => (SslMode::Require, Some(if authorities { Check::Issuer } else { Check::Nothing })),
            Mode::VerifyCa => (SslMode::Require, Some(Check::Issuer)),
            Mode::VerifyFull => (SslMode::Require, Some(Check::Name)),
        };
        config.ssl_mode(ssl_mode);
        config.connect_timeout(connect_timeout);
        config.keepalives_idle(KEEP_ALIVE);
        config.tcp_user_timeout(KEEP_ALIVE);
        // Of several hosts, the one that can be written to.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("onedelete");
        }
        Ok(Self { config, check })
    }
}

enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The URL without its `sslmode`, which the client knows fewer words for.
fn take_mode(url: &str) -> Result<(String, Option<Mode>), String> {
    let Some((url, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let mut mode = None;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", word)) => {
                mode = Some(match word {
                    "disable" => Mode::Disable,
                    "prefer" => Mode::Prefer,
                    "require" => Mode::Require,
                    "verify-ca" => Mode::VerifyCa,
                    "verify-full" => Mode::VerifyFull,
                    _ => {
                        let words = "disable, prefer, require, verify-ca or verify-full";
                        return Err(format!("sslmode in store.url must be {words}"));
                    }
                });
            }
            Some(("sslrootcert", _)) => {
                return Err("store.ca_file takes the place of sslrootcert in store.url".to_owned());
            }
            _ => rest.push(pair),
        }
    }
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{url}{query}"), mode))
}

/// Whether a host is this machine: what is sent to it is on no network.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, password: Option<&str>, authorities: bool) -> Result<Address, String> {
        let password = password.map(SecretString::from);
        Address::parse(&url.into(), password.as_ref(), authorities, Duration::from_secs(1))
    }

    #[test]
    fn a_mode_says_how_much_is_demanded() {
        for (url, authorities, mode, check) in [
            ("postgres://a@db/x?sslmode=disable", false, SslMode::Disable, None),
            ("postgres://a@db/x?sslmode=prefer", true, SslMode::Prefer, Some(Check::Nothing)),
            ("postgres://a@db/x?sslmode=require", false, SslMode::Require, Some(Check::Nothing)),
            ("postgres://a@db/x?sslmode=require", true, SslMode::Require, Some(Check::Issuer)),
            ("postgres://a@db/x?keepalives=1&sslmode=verify-ca", false, SslMode::Require, Some(Check::Issuer)),
            ("postgres://a@db/x?sslmode=verify-full&keepalives=1", false, SslMode::Require, Some(Check::Name)),
            // Nobody has to ask for safety.
            ("postgres://a@db/x", false, SslMode::Require, Some(Check::Name)),
            ("postgres://a@localhost,db/x", false, SslMode::Require, Some(Check::Name)),
            ("postgresql://a@127.0.0.1/x", false, SslMode::Prefer, Some(Check::Nothing)),
            ("postgres://a@%2Frun%2Fpostgresql/x", false, SslMode::Prefer, Some(Check::Nothing)),
        ] {
            let address = parse(url, None, authorities).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.config.get_ssl_mode(), address.check), (mode, check), "{url}");
        }
    }

    #[test]
    fn a_mistake_repeats_nothing() {
        for (url, password) in [
            ("postgres://hunter2:hunter2@db:hunter2/x", None),
            ("postgres://a@db/x?hunter2=hunter2", None),
            ("postgres://a@db/x?sslmode=hunter2", None),
            ("postgres://a@db/x?sslrootcert=hunter2", None),
            ("postgres://a:hunter2@db/x", Some("hunter2")),
            ("postgres:///x", None),
            ("hunter2", None),
        ] {
            let error = parse(url, password, false).err().unwrap_or_else(|| panic!("{url}"));
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(parse("postgres://a@db/x", Some("b"), false).unwrap().config.get_password(), Some(&b"b"[..]));
    }
}
