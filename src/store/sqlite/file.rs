//! The file: who may open it, what makes it ours, and its tables.
//!
//! Nothing is changed in a file before it is known to be ours or empty.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::fault::describe;

/// `1del`, in the header of every file of ours (`PRAGMA application_id`).
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"1del");
/// The version of the tables (`PRAGMA user_version`).
pub(super) const VERSION: i32 = 1;

/// Up to this size a file is examined as a whole when it is opened: a second or so on a slow disk.
const EXAMINED_BYTES: u64 = 128 << 20;
/// Nobody else uses the file, so this only bridges what one of our two connections holds for a moment.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE deletions (
        id BLOB NOT NULL PRIMARY KEY, tenant TEXT NOT NULL, created_ms INTEGER NOT NULL, finished_ms INTEGER,
        contacts INTEGER NOT NULL, head BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX unfinished ON deletions (id) WHERE finished_ms IS NULL;
    CREATE TABLE contacts (
        deletion BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (deletion, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE identifiers (
        deletion BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (deletion, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE shares (
        deletion BLOB NOT NULL, share INTEGER NOT NULL, fence INTEGER NOT NULL, PRIMARY KEY (deletion, share)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE attempts (
        deletion BLOB NOT NULL, share INTEGER NOT NULL, ticket INTEGER NOT NULL, attempts INTEGER NOT NULL,
        in_doubt INTEGER NOT NULL, closed INTEGER NOT NULL, last TEXT,
        slots BLOB NOT NULL, PRIMARY KEY (deletion, share, ticket)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE results (
        deletion BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (deletion, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE claims (
        scope BLOB NOT NULL PRIMARY KEY, fingerprint BLOB NOT NULL, deletion BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";
const TABLE_NAMES: [&str; 7] = ["deletions", "contacts", "identifiers", "shares", "attempts", "results", "claims"];
/// Where unfinished work stands; small, however long the history is.
const WORKING_TABLES: [&str; 2] = ["shares", "attempts"];

/// An open file.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    /// Held as long as the file is open; the lock goes with it.
    pub(super) lock: File,
}

/// Opens or begins the file. The error is one line for people.
pub(super) fn open(path: &Path) -> Result<Opened, String> {
    let told = |what: String| format!("{}: {what}", path.display());
    let place = place(path).map_err(told)?;
    let lock = lock(&place).map_err(told)?;
    let (writer, reader) = connect(&place).map_err(told)?;
    Ok(Opened { writer, reader, lock })
}

fn connect(place: &Path) -> Result<(Connection, Connection), String> {
    create(place).map_err(|error| format!("the file cannot be created: {error}"))?;
    let mut writer = connection(place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Closing a file that is refused must not move its log into it.
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    let empty = is_empty(&writer)?;
    if !empty {
        examine(&writer, place)?;
    }
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sqlite)?;
    set_up(&writer)?;
    if empty {
        begin(&mut writer).map_err(sqlite)?;
    }
    let reader = connection(place, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok((writer, reader))
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
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn connection(place: &Path, access: OpenFlags) -> Result<Connection, String> {
    // Without `SQLITE_OPEN_URI`, a path is a path. Each connection stays on one thread.
    let connection = Connection::open_with_flags(place, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Whether nothing was ever put into the file. A file that is neither empty nor ours is refused.
fn is_empty(connection: &Connection) -> Result<bool, String> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0)).map_err(sqlite);
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let things = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version) {
        (0, 0) if things == 0 => Ok(true),
        (APPLICATION_ID, VERSION) => Ok(false),
        (APPLICATION_ID, newer) if newer > VERSION => {
            Err(format!("a newer onedelete wrote it (tables of version {newer}; this one knows up to {VERSION})"))
        }
        (APPLICATION_ID, _) => Err("the file is damaged: its tables have no version".to_owned()),
        _ => Err("it is a SQLite database of another program".to_owned()),
    }
}

/// Looks for damage.
fn examine(connection: &Connection, place: &Path) -> Result<(), String> {
    for name in TABLE_NAMES {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        if connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).map_err(sqlite)? == 0 {
            return Err(format!("the file is damaged: it has no table {name}"));
        }
    }
    let size = fs::metadata(place).map_err(|error| format!("it cannot be looked at: {error}"))?.len();
    let checks = match size {
        0..=EXAMINED_BYTES => vec!["PRAGMA quick_check(1)".to_owned()],
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

/// Makes an empty file ours, whole or not at all.
fn begin(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn sqlite(error: rusqlite::Error) -> String {
    describe(&error)
}
