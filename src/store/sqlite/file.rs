//! The file: who may open it, what makes it ours, and what is set for it.
//!
//! Nothing is changed in a file before it is known to be ours or empty.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::fault::{Failure, describe};
use super::log::BUSY;
use super::purge;
use super::tables::{self, APPLICATION_ID, VERSION, WORKING_TABLES};

/// Up to this size a file is examined as a whole when it is opened: a second or so on a slow disk.
const EXAMINED_BYTES: u64 = 128 << 20;

/// An open file.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    /// Held as long as the file is open; the lock goes with it.
    pub(super) lock: File,
    /// The file's own key for the hashes of identifiers.
    pub(super) hash_key: [u8; 16],
    /// Whether something was forgotten and is to be swept.
    pub(super) unswept: bool,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing was ever put into it.
    Empty,
    /// Ours, with tables of this version.
    Ours(i32),
}

/// Opens or begins the file. Nobody works anything of it then. The error is one line for people.
pub(super) fn open(path: &Path) -> Result<Opened, String> {
    let told = |what: String| format!("{}: {what}", path.display());
    let place = place(path).map_err(told)?;
    let lock = lock(&place).map_err(told)?;
    connect(&place, lock).map_err(told)
}

fn connect(place: &Path, lock: File) -> Result<Opened, String> {
    create(place).map_err(|error| format!("the file cannot be created: {error}"))?;
    let mut writer = connection(place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Closing a file that is refused must not move its log into it.
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    let kind = kind(&writer)?;
    if let Kind::Ours(version) = kind {
        examine(&writer, place, version)?;
    }
    set_up(&writer)?;
    match kind {
        Kind::Empty => tables::begin(&mut writer).map_err(Failure::into_cause)?,
        Kind::Ours(version) => tables::migrate(&mut writer, version).map_err(|failure| {
            format!("its tables of version {version} cannot be brought up to date: {}", failure.into_cause())
        })?,
    }
    let (hash_key, unswept) = start_anew(&mut writer).map_err(Failure::into_cause)?;
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sqlite)?;
    let reader = connection(place, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(Opened { writer, reader, lock, hash_key, unswept })
}

/// Whoever worked anything before is gone, and so is whoever was still sending drafts. Gives the file's own key, and
/// whether something is to be swept.
fn start_anew(connection: &mut Connection) -> Result<([u8; 16], bool), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("UPDATE parts SET state = 1 WHERE state = 2", [])?;
    purge::discard_all(&transaction)?;
    transaction.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('hash_key', randomblob(16))", [])?;
    let key = transaction.query_row("SELECT value FROM meta WHERE name = 'hash_key'", [], |row| row.get(0))?;
    let unswept = transaction.prepare("SELECT 1 FROM forgotten")?.exists([])?;
    transaction.commit()?;
    Ok((key, unswept))
}

/// Where the file really is, so that two names of one file have one lock.
fn place(path: &Path) -> Result<PathBuf, String> {
    let name = path.file_name().ok_or("it does not name a file")?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let real = fs::canonicalize(folder).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("its folder {} does not exist", folder.display()),
        _ => format!("its folder {} cannot be used: {error}", folder.display()),
    })?;
    let file = real.join(name);
    match fs::metadata(&file) {
        Ok(found) if !found.is_file() => Err("it is not a file".to_owned()),
        // A name may point elsewhere.
        Ok(_) => fs::canonicalize(&file).map_err(|error| format!("it cannot be looked at: {error}")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(file),
        Err(error) => Err(format!("it cannot be looked at: {error}")),
    }
}

/// Where a file that must exist really is.
pub(super) fn existing(path: &Path) -> Result<PathBuf, String> {
    let told = |what: String| format!("{}: {what}", path.display());
    let place = place(path).map_err(told)?;
    if place.exists() { Ok(place) } else { Err(told("there is no such file".to_owned())) }
}

/// Takes the lock that a second opening fails on. The operating system lets go of it when the process ends, however
/// that ends. The file stays: to remove it would let two processes lock two files of one name.
fn lock(place: &Path) -> Result<File, String> {
    let mut name = place.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let cannot = |error: IoError| format!("{} cannot be locked: {error}", name.display());
    let file = private().create(true).truncate(false).open(&name).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(format!("it is in use: {} is locked by another gateway, or by this one", name.display()))
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

fn create(place: &Path) -> Result<(), IoError> {
    match private().create_new(true).open(place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Files for this user alone: they hold personal data. SQLite gives those beside the database the same mode.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(super) fn connection(place: &Path, access: OpenFlags) -> Result<Connection, String> {
    // Without `SQLITE_OPEN_URI`, a path is a path. Each connection stays on one thread.
    let connection = Connection::open_with_flags(place, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// What the file is. One that is neither empty nor ours is refused.
pub(super) fn kind(connection: &Connection) -> Result<Kind, String> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0)).map_err(sqlite);
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let things = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version) {
        (0, 0) if things == 0 => Ok(Kind::Empty),
        (APPLICATION_ID, 1..=VERSION) => Ok(Kind::Ours(version)),
        (APPLICATION_ID, newer) if newer > VERSION => {
            Err(format!("a newer onedelete wrote it (tables of version {newer}; this one knows up to {VERSION})"))
        }
        (APPLICATION_ID, _) => Err("the file is damaged: its tables have no version".to_owned()),
        _ => Err("it is a SQLite database of another program".to_owned()),
    }
}

/// Looks for damage.
fn examine(connection: &Connection, place: &Path, version: i32) -> Result<(), String> {
    if let Some(name) = missing_table(connection, version)? {
        return Err(format!("the file is damaged: it has no table {name}"));
    }
    let size = fs::metadata(place).map_err(|error| format!("it cannot be looked at: {error}"))?.len();
    let checks = match size {
        0..=EXAMINED_BYTES => vec!["PRAGMA quick_check(1)".to_owned()],
        // What is brought up to date is read as a whole for that.
        _ if version < VERSION => Vec::new(),
        _ => WORKING_TABLES.iter().map(|table| format!("PRAGMA quick_check({table})")).collect(),
    };
    for check in checks {
        let verdict: String = connection.query_row(&check, [], |row| row.get(0)).map_err(sqlite)?;
        // What the check found may quote the file: it is not passed on.
        if verdict != "ok" {
            return Err("the file is damaged (PRAGMA quick_check)".to_owned());
        }
    }
    Ok(())
}

/// A table that should be there and is not.
pub(super) fn missing_table(connection: &Connection, version: i32) -> Result<Option<&'static str>, String> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    for name in tables::names(version) {
        if !connection.prepare_cached(sql).and_then(|mut table| table.exists([name])).map_err(sqlite)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Sets what makes a commit durable and an erasure real.
fn set_up(connection: &Connection) -> Result<(), String> {
    // Where it may not write, SQLite opens a file for reading and says so only at the first write.
    if connection.is_readonly("main").map_err(sqlite)? {
        return Err("the file may not be written to".to_owned());
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        return Err("its file system has no shared memory, which SQLite's log (WAL) needs".to_owned());
    }
    // FULL: with NORMAL, a power cut loses commits that were acknowledged (RELIABILITY, "What was measured", 7).
    // On macOS only `fullfsync` reaches the disk; elsewhere it does nothing.
    // Without `temp_store`, what a savepoint may have to undo could be put into a file of its own.
    for setting in ["synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", "temp_store = MEMORY"] {
        connection.execute_batch(&format!("PRAGMA {setting}")).map_err(sqlite)?;
    }
    // The writer moves the log into the database itself: SQLite's own way of doing it hides a failure.
    for setting in ["secure_delete = ON", "wal_autocheckpoint = 0", "journal_size_limit = 16777216"] {
        connection.query_row(&format!("PRAGMA {setting}"), [], |_| Ok(())).map_err(sqlite)?;
    }
    Ok(())
}

pub(super) fn sqlite(error: rusqlite::Error) -> String {
    describe(&error)
}
