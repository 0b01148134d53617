//! A copy of the ledger's file, taken while a gateway may be at work on it.
//!
//! It has what was acknowledged before the copy was begun, including the identifiers of work that is not finished: it is
//! as confidential as the file itself, and nothing in it is erased later. It changes nothing in the file.

use std::fs::{self, File};
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::OpenFlags;

use super::file::{self, Kind};

/// Copies the ledger at `path`, of this version or an older one, to `target`, which must not exist. While this runs,
/// the log beside the ledger grows. This blocks.
///
/// The copy is whole: it is written beside its place as `TARGET.partial`, for this user alone, put on the disk, examined
/// (`PRAGMA quick_check`) and only then given its name.
///
/// # Errors
/// One line: what is at `path` is not there, not a ledger, or damaged; `target` or `TARGET.partial` is there already; or
/// the copy could not be written. No `target` exists then.
pub fn backup(path: &Path, target: &Path) -> Result<(), String> {
    let place = file::existing(path)?;
    let goal = |what: String| format!("{}: {what}", target.display());
    if fs::symlink_metadata(target).is_ok() {
        return Err(goal("it is there already".to_owned()));
    }
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    file::private().create_new(true).open(&partial).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{}: it is there already: another copy is being taken, or was not completed", partial.display())
        }
        _ => format!("{}: it cannot be created: {error}", partial.display()),
    })?;
    let done = copy(&place, &partial)
        .map_err(|what| format!("{}: {what}", path.display()))
        .and_then(|()| name(&partial, target).map_err(|error| goal(format!("it cannot be put in place: {error}"))));
    if done.is_err() {
        // What it was is said already.
        let _ = fs::remove_file(&partial);
    }
    done
}

fn copy(place: &Path, partial: &Path) -> Result<(), String> {
    let connection = file::connection(place, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let Kind::Ours(_) = file::kind(&connection)? else { return Err("nothing was ever put into it".to_owned()) };
    let name = partial.to_str().ok_or("the copy's name is not UTF-8")?;
    // Row by row, as of one moment: free pages and what may be left in them do not come along.
    connection.execute("VACUUM INTO ?1", [name]).map_err(file::sqlite)?;
    let copy = file::connection(partial, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(file::sqlite)?;
    // What the check found may quote the file: it is not passed on.
    if verdict == "ok" { Ok(()) } else { Err("the file is damaged (PRAGMA quick_check of the copy)".to_owned()) }
}

/// Gives the copy its name, once its bytes are on the disk, and puts that on the disk as well.
fn name(partial: &Path, target: &Path) -> Result<(), IoError> {
    File::open(partial)?.sync_all()?;
    if fs::symlink_metadata(target).is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(partial, target)?;
    let folder = target.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    // Only Unix can open a folder, and needs to.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
