//! What SQLite's errors mean: which end the store, and how they are told to people.
//!
//! No text of SQLite's or of the JSON reader's own is passed on, for it may quote what is stored.

use rusqlite::{Error, ErrorCode};

use crate::store::StoreError;

/// Why a command or a query was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// This one alone; what it changed is undone.
    Refused(StoreError),
    /// Nothing can be relied on any more.
    Fatal(String),
}

impl Failure {
    /// A row does not hold what was once put there.
    pub(super) fn unreadable() -> Self {
        Self::Refused(StoreError::Broken("a stored row cannot be read".to_owned()))
    }

    /// It as a line, where the one that it befell cannot be refused alone.
    pub(super) fn into_cause(self) -> String {
        match self {
            Self::Refused(StoreError::Broken(cause)) | Self::Fatal(cause) => cause,
            Self::Refused(error) => error.to_string(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.sqlite_error_code() {
            // The same id or ticket twice, or a row beyond SQLite's limit.
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig) => {
                Self::Refused(StoreError::Broken(describe(&error)))
            }
            Some(_) => Self::Fatal(describe(&error)),
            None => Self::unreadable(),
        }
    }
}

/// What went wrong, with SQLite's extended code, and without anything that is stored.
pub(super) fn describe(error: &Error) -> String {
    let Error::SqliteFailure(cause, _) = error else {
        return "SQLite was asked for something that it cannot do".to_owned();
    };
    let what = match cause.code {
        ErrorCode::DiskFull => "the disk is full",
        ErrorCode::SystemIoFailure => "reading or writing the file failed",
        ErrorCode::DatabaseCorrupt => "the file is damaged",
        ErrorCode::NotADatabase => "it is not a SQLite database",
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            "another program holds the file"
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => "the file may not be written to",
        ErrorCode::CannotOpen => "the file, or one beside it, cannot be opened",
        ErrorCode::OutOfMemory => "there is no memory left",
        ErrorCode::ConstraintViolation => "it is there already",
        ErrorCode::TooBig => "it is too large",
        _ => "SQLite failed",
    };
    format!("{what} (SQLite code {})", cause.extended_code)
}
