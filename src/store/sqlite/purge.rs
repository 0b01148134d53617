//! What is forgotten: drafts, old keys, old deletions, and identifiers that were kept.
//!
//! What belongs to a deletion that is forgotten goes row by row, over several transactions if it is a lot. It is out of
//! sight at once: its row in `deletions` or `drafts` goes first, and `forgotten` says what is left to be swept.
//! Nothing decides here when something is old.

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Failure;
use super::tables::OF_A_DELETION;
use super::writer::After;
use crate::store::{DeletionId, Purge, Purged};

/// Throws a draft away, if it is one.
pub(super) fn discard(connection: &Connection, id: DeletionId, after: &mut After) -> Result<(), Failure> {
    let was = connection.prepare_cached("DELETE FROM drafts WHERE id = ?1")?.execute([id.to_bytes()])?;
    if was > 0 { forget(connection, id.to_bytes(), after) } else { Ok(()) }
}

/// Throws all drafts away: whoever sent them is gone.
pub(super) fn discard_all(connection: &Connection) -> Result<(), Failure> {
    connection.execute("INSERT OR IGNORE INTO forgotten (id) SELECT id FROM drafts", [])?;
    connection.execute("DELETE FROM drafts", [])?;
    Ok(())
}

fn forget(connection: &Connection, id: [u8; 16], after: &mut After) -> Result<(), Failure> {
    *after = After { erased: true, forgotten: true };
    connection.prepare_cached("INSERT OR IGNORE INTO forgotten (id) VALUES (?1)")?.execute([id])?;
    Ok(())
}

/// Forgets what is kept longer than it should be, up to about so many rows.
pub(super) fn purge(connection: &Connection, purge: &Purge, after: &mut After) -> Result<Purged, Failure> {
    let mut left = purge.most.max(1);
    let mut purged = Purged::default();
    sweep(connection, &mut left, after)?;
    while left > 0
        && let Some(id) = old_draft(connection, purge.drafts_before_ms)?
    {
        discard(connection, DeletionId::from_bytes(id), after)?;
        purged.drafts += 1;
        left -= 1;
        sweep(connection, &mut left, after)?;
    }
    if let Some(before_ms) = purge.deletions_before_ms {
        while left > 0
            && let Some((id, scope)) = finished(connection, "finished", "", before_ms)?
        {
            free(connection, id, scope)?;
            connection.prepare_cached("DELETE FROM deletions WHERE id = ?1")?.execute([id])?;
            forget(connection, id, after)?;
            purged.deletions += 1;
            left -= 1;
            sweep(connection, &mut left, after)?;
        }
    }
    while left > 0
        && let Some((id, scope)) =
            finished(connection, "finished_with_key", " AND scope IS NOT NULL", purge.keys_before_ms)?
    {
        purged.keys += free(connection, id, scope)?;
        connection.prepare_cached("UPDATE deletions SET scope = NULL WHERE id = ?1")?.execute([id])?;
        left -= 1;
    }
    while left > 0
        && let Some((id, _)) = finished(connection, "finished_and_kept", " AND kept = 1", purge.identifiers_before_ms)?
    {
        after.erased = true;
        left -= 1;
        if erase(connection, "identifiers", "part, seq", id, &mut left)? {
            connection.prepare_cached("UPDATE deletions SET kept = 0 WHERE id = ?1")?.execute([id])?;
            purged.identifiers += 1;
        }
    }
    // Where all that was allowed was done, there may be more.
    Ok(Purged { more: left == 0, ..purged })
}

/// Removes up to so many rows of what is forgotten already. Whether nothing is left of it.
pub(super) fn sweep(connection: &Connection, left: &mut usize, after: &mut After) -> Result<bool, Failure> {
    loop {
        let next = connection.prepare_cached("SELECT id FROM forgotten LIMIT 1")?.query_row([], |row| row.get(0));
        let Some(id) = next.optional()? else { return Ok(true) };
        after.erased = true;
        for (table, key) in OF_A_DELETION {
            if !erase(connection, table, key, id, left)? {
                return Ok(false);
            }
        }
        connection.prepare_cached("DELETE FROM forgotten WHERE id = ?1")?.execute([id])?;
    }
}

/// Removes up to so many rows of a deletion from a table. Whether none is left there.
fn erase(connection: &Connection, table: &str, key: &str, id: [u8; 16], left: &mut usize) -> Result<bool, Failure> {
    let sql = format!(
        "DELETE FROM {table} WHERE deletion = ?1
            AND ({key}) IN (SELECT {key} FROM {table} WHERE deletion = ?1 LIMIT ?2)"
    );
    let done = connection.prepare_cached(&sql)?.execute(params![id, *left as i64])?;
    *left = left.saturating_sub(done);
    // Were there just as many, the next time finds none.
    Ok(*left > 0)
}

/// Frees a deletion's key, unless another deletion has it by now. How many keys that were.
fn free(connection: &Connection, id: [u8; 16], scope: Option<[u8; 32]>) -> Result<usize, Failure> {
    let Some(scope) = scope else { return Ok(0) };
    let sql = "DELETE FROM claims WHERE scope = ?1 AND deletion = ?2";
    Ok(connection.prepare_cached(sql)?.execute(params![scope, id])?)
}

/// A deletion, and the scope of its key.
type Old = ([u8; 16], Option<[u8; 32]>);

/// The deletion of an index that was finished first, if that was before.
fn finished(connection: &Connection, index: &str, and: &str, before_ms: i64) -> Result<Option<Old>, Failure> {
    let sql = format!(
        "SELECT id, scope FROM deletions INDEXED BY {index}
            WHERE finished_ms IS NOT NULL{and} AND finished_ms < ?1 ORDER BY finished_ms LIMIT 1"
    );
    let row = connection.prepare_cached(&sql)?.query_row([before_ms], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(row.optional()?)
}

/// A draft that was begun before: its id begins with the moment at which it was made.
fn old_draft(connection: &Connection, before_ms: i64) -> Result<Option<[u8; 16]>, Failure> {
    let first_later = (before_ms.clamp(0, (1 << 48) - 1).unsigned_abs().to_be_bytes(), [0; 10]);
    let bound = [&first_later.0[2..], &first_later.1].concat();
    let sql = "SELECT id FROM drafts WHERE id < ?1 LIMIT 1";
    Ok(connection.prepare_cached(sql)?.query_row([bound], |row| row.get(0)).optional()?)
}
