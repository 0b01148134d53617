//! What Postgres' errors mean: what is tried again, what is not, and how they are told to people.
//!
//! No text of the server's own is passed on, for it may quote what is stored; nor is any part of the URL.

use std::error::Error as _;
use std::io;

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// Why an attempt at something came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// This alone cannot be done; the server is well.
    Refused(StoreError),
    /// It may go well on another connection, or a little later. Whether it was carried out is not known.
    Passing(String),
    /// The server will say the same again.
    Lasting(String),
}

impl Failure {
    /// A row does not hold what was once put there.
    pub(super) fn unreadable() -> Self {
        Self::broken("a stored row cannot be read")
    }

    /// Something that is no fault of the server's.
    pub(super) fn broken(why: &str) -> Self {
        Self::Refused(StoreError::Broken(why.to_owned()))
    }

    /// In one line, for somebody who starts the gateway.
    pub(super) fn into_line(self) -> String {
        match self {
            Self::Refused(StoreError::Broken(why)) | Self::Passing(why) | Self::Lasting(why) => why,
            Self::Refused(error @ StoreError::Fenced) => error.to_string(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let why = describe(&error);
        match error.code() {
            Some(code) if passes(code) => Self::Passing(why),
            // The same call twice, counts that cannot be, or a value that a column cannot have: the server is well.
            Some(code) if code.code().starts_with("23") || code.code().starts_with("22") => {
                Self::Refused(StoreError::Broken(why))
            }
            Some(_) => Self::Lasting(why),
            None if is_about_a_value(&error) => Self::unreadable(),
            None => Self::Passing(why),
        }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        let why = match error {
            // Nothing was sent yet, and a password or a server may be changed while the gateway runs.
            PoolError::Backend(error) => describe(&error),
            PoolError::PostCreateHook(deadpool_postgres::HookError::Backend(error)) => describe(&error),
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => "all connections are busy".to_owned(),
            PoolError::Timeout(_) => NO_ANSWER.to_owned(),
            PoolError::Closed => "it is closed".to_owned(),
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => "no connection could be set up".to_owned(),
        };
        Self::Passing(why)
    }
}

pub(super) const NO_ANSWER: &str = "the database server did not answer in time";

/// Whether the same may go well later. Every call of the ledger may be tried again, whether it was carried out or not.
fn passes(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    // 08: connections; 40: serialization failures and deadlocks; 53: no room, memory or connections; 58: its system.
    matches!(class, "08" | "40" | "53" | "58")
        || [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
            // It has become a standby: the next connection looks for the primary.
            SqlState::READ_ONLY_SQL_TRANSACTION,
            // A statement that was prepared before tables were changed, or on what was another connection.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INVALID_SQL_STATEMENT_NAME,
        ]
        .contains(code)
}

/// What went wrong, with the server's code, and without anything that is stored.
pub(super) fn describe(error: &Error) -> String {
    if let Some(code) = error.code() {
        return format!("{} (SQLSTATE {})", in_words(code), code.code());
    }
    let cause = error.source();
    if let Some(error) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        return describe_io(error);
    }
    let kind = error.to_string();
    let cause = cause.map(ToString::to_string).unwrap_or_default();
    match (kind.as_str(), cause.as_str()) {
        (_, "server does not support TLS") => {
            "the database server does not do TLS; sslmode=disable or prefer in store.url goes without".to_owned()
        }
        (_, "password missing") => "the database server wants a password, and there is none".to_owned(),
        (kind, _) if kind.starts_with("error performing TLS") => "no TLS with the database server".to_owned(),
        (kind, _) if kind.starts_with("authentication") => "the database server's way to sign in failed".to_owned(),
        (kind, _) if kind.starts_with("connection closed") => "the connection to the database server broke".to_owned(),
        _ => "the database server was not understood".to_owned(),
    }
}

fn describe_io(error: &io::Error) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        let why = match tls {
            rustls::Error::InvalidCertificate(why) => match why {
                rustls::CertificateError::UnknownIssuer => "nobody who is trusted signed it",
                rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. } => {
                    "it is for another name"
                }
                rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => "it has expired",
                _ => "it is not valid",
            },
            _ => return "no TLS with the database server".to_owned(),
        };
        return format!("the database server's certificate is not trusted: {why}");
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied if error.to_string() == "database does not allow writes" => {
            "the database is a standby, which cannot be written to".to_owned()
        }
        kind => format!("the database server cannot be reached ({kind})"),
    }
}

fn in_words(code: &SqlState) -> &'static str {
    match code.code() {
        "28000" => "the database server does not let this user in from here",
        "28P01" => "the database server does not take this user and password",
        "3D000" => "there is no such database",
        "42501" => "the database user may not do this",
        "25006" => "the database is a standby, which cannot be written to",
        "57P03" => "the database server is starting or stopping",
        "57P01" | "57P02" => "the database server was stopped",
        "57014" => "the database server took too long",
        "53300" => "the database server has no connection left",
        "53100" => "the database server's disk is full",
        "23505" => "it is there already",
        code if code.starts_with("23") => "it does not fit what is there",
        code if code.starts_with("42") || code.starts_with("3F") => "the tables are not as they were made",
        code if code.starts_with("XX") => "the database is damaged, or its server at fault",
        _ => "the database server failed",
    }
}

/// Whether a value did not fit its column: nothing that another connection would change.
fn is_about_a_value(error: &Error) -> bool {
    let kind = error.to_string();
    ["error serializing", "error deserializing", "invalid column", "query returned"]
        .iter()
        .any(|so| kind.starts_with(so))
}
