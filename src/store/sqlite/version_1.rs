//! The tables of version 1, and how they become those of version 2.
//!
//! Version 1 knew no parts: it worked each share of a whole deletion under a fence of its own, counted no results, and
//! forgot no key. Nothing is lost: what is finished reads back the same, and a call that was in flight still is, in
//! each of the parts that it covers. It kept no hashes of identifiers, and none are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use adapters::{Identifier, Slot};
use rusqlite::{Connection, Row, params};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::body::{self, CHUNK};
use super::fault::Failure;
use super::rows::put_row;
use super::tables::{self, OVER, WAITING};
use crate::engine::Settled;
use crate::store::{Asked, DeletionId, PART, PartKey, Tally};

/// The names of the tables.
pub(super) const TABLES: [&str; 7] =
    ["deletions", "contacts", "identifiers", "shares", "attempts", "results", "claims"];

/// What was told of a deletion besides its contacts.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    reference: Option<String>,
    shares: Vec<Arc<str>>,
}

/// A deletion's row.
struct Old {
    id: DeletionId,
    tenant: String,
    created_ms: i64,
    finished_ms: Option<i64>,
    contacts: usize,
    head: Head,
}

/// Makes the tables those of version 2. What was there must be whole.
pub(super) fn convert(connection: &rusqlite::Transaction<'_>) -> Result<(), Failure> {
    for table in TABLES {
        connection.execute_batch(&format!("ALTER TABLE {table} RENAME TO old_{table}"))?;
    }
    // Its name is used again.
    connection.execute_batch("DROP INDEX unfinished")?;
    connection.execute_batch(tables::TABLES)?;
    let sql = "SELECT id, tenant, created_ms, finished_ms, contacts, head FROM old_deletions";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        convert_deletion(connection, &old(row)?)?;
    }
    drop(rows);
    drop(statement);
    connection.execute_batch(
        "INSERT INTO claims (scope, fingerprint, deletion)
            SELECT scope, fingerprint, deletion FROM old_claims WHERE deletion IN (SELECT id FROM deletions);
        UPDATE deletions SET scope = claims.scope FROM claims WHERE deletion = id;",
    )?;
    for table in TABLES {
        connection.execute_batch(&format!("DROP TABLE old_{table}"))?;
    }
    Ok(())
}

fn old(row: &Row<'_>) -> Result<Old, Failure> {
    Ok(Old {
        id: DeletionId::from_bytes(row.get(0)?),
        tenant: row.get(1)?,
        created_ms: row.get(2)?,
        finished_ms: row.get(3)?,
        contacts: row.get::<_, u32>(4)? as usize,
        head: body::parse(row.get_ref(5)?)?,
    })
}

fn convert_deletion(connection: &Connection, old: &Old) -> Result<(), Failure> {
    let parts = old.contacts.div_ceil(PART).max(1);
    let sql =
        "INSERT INTO deletions (id, tenant, created_ms, finished_ms, contacts, parts, reason, reference, shares, kept)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, CAST(?9 AS TEXT), 0)";
    connection.prepare_cached(sql)?.execute(params![
        old.id.to_bytes(),
        old.tenant,
        old.created_ms,
        old.finished_ms,
        old.contacts as i64,
        parts as i64,
        old.head.reason,
        old.head.reference,
        body::json(&old.head.shares)?
    ])?;
    let sql = "SELECT coalesce(max(fence), 1) FROM old_shares WHERE deletion = ?1";
    let fence: i64 = connection.prepare_cached(sql)?.query_row([old.id.to_bytes()], |row| row.get(0))?;
    let mut results = results(connection, old)?.into_iter();
    copy_lists::<Asked>(connection, old, "contacts", &|_| true)?;
    let mut open = Vec::with_capacity(parts);
    for (number, first) in (0u32..).zip((0..).step_by(PART)).take(parts) {
        let contacts = (old.contacts - first).min(PART);
        let settled: Vec<_> =
            (first as u32..).zip(results.by_ref().take(contacts)).filter_map(|(n, r)| Some((Slot(n), r?))).collect();
        let is_over = settled.len() == contacts;
        if !is_over && old.finished_ms.is_some() {
            return Err(Failure::unreadable());
        }
        let tally = Tally::of(settled.iter().map(|(_, settled)| settled));
        let state = if is_over { OVER } else { WAITING };
        let place = (number, first as u32, contacts);
        put_row(connection, old.id, &old.tenant, place, (state, fence.cast_unsigned()), &tally)?;
        let key = PartKey { deletion: old.id, part: number, fence: 0 };
        body::put_results(connection, key, 0, settled.iter().map(|(slot, settled)| (*slot, 1, settled)))?;
        open.push(!is_over);
    }
    if open.contains(&true) {
        copy_lists::<Identifier>(connection, old, "identifiers", &|part| open[part])?;
        split_attempts(connection, old, &open)?;
    }
    Ok(())
}

/// The results so far; the first one of a contact counts.
fn results(connection: &Connection, old: &Old) -> Result<Vec<Option<Settled>>, Failure> {
    let mut results = vec![None; old.contacts];
    let mut statement = connection.prepare_cached("SELECT body FROM old_results WHERE deletion = ?1 ORDER BY seq")?;
    let mut rows = statement.query([old.id.to_bytes()])?;
    while let Some(row) = rows.next()? {
        for (slot, settled) in body::parse::<Vec<(Slot, Settled)>>(row.get_ref(0)?)? {
            if let Some(place @ None) = results.get_mut(slot.0 as usize) {
                *place = Some(settled);
            }
        }
    }
    Ok(results)
}

/// Copies the lists of those parts that are wanted. Ten of them were, and are, the contacts of a part.
fn copy_lists<T: DeserializeOwned>(
    connection: &Connection,
    old: &Old,
    table: &str,
    wanted: &dyn Fn(usize) -> bool,
) -> Result<(), Failure> {
    let sql = format!("INSERT INTO {table} (deletion, part, seq, body) VALUES (?1, ?2, ?3, ?4)");
    let mut insert = connection.prepare_cached(&sql)?;
    let sql = format!("SELECT body FROM old_{table} WHERE deletion = ?1 ORDER BY seq");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([old.id.to_bytes()])?;
    for seq in 0..old.contacts.div_ceil(CHUNK) {
        let row = rows.next()?.ok_or_else(Failure::unreadable)?;
        let list = row.get_ref(0)?;
        if body::parse::<Vec<T>>(list)?.len() != (old.contacts - seq * CHUNK).min(CHUNK) {
            return Err(Failure::unreadable());
        }
        let part = seq * CHUNK / PART;
        if wanted(part) {
            let list = list.as_bytes().map_err(|_| Failure::unreadable())?;
            insert.execute(params![old.id.to_bytes(), part as i64, (seq % (PART / CHUNK)) as i64, list])?;
        }
    }
    if rows.next()?.is_some() { Err(Failure::unreadable()) } else { Ok(()) }
}

/// Puts each call down in those of its parts that have open contacts.
fn split_attempts(connection: &Connection, old: &Old, open: &[bool]) -> Result<(), Failure> {
    let sql = "INSERT INTO attempts (deletion, part, share, ticket, attempts, in_doubt, closed, last, slots)
        SELECT deletion, ?4, share, ticket, attempts, in_doubt, closed, last, ?5 FROM old_attempts
        WHERE deletion = ?1 AND share = ?2 AND ticket = ?3";
    let mut insert = connection.prepare_cached(sql)?;
    let mut statement =
        connection.prepare_cached("SELECT share, ticket, slots FROM old_attempts WHERE deletion = ?1")?;
    let mut rows = statement.query([old.id.to_bytes()])?;
    while let Some(row) = rows.next()? {
        let (share, ticket): (i64, i64) = (row.get(0)?, row.get(1)?);
        let mut parts: BTreeMap<usize, Vec<Slot>> = BTreeMap::new();
        for slot in body::slots(row.get_ref(2)?.as_blob().map_err(|_| Failure::unreadable())?)? {
            parts.entry(slot.0 as usize / PART).or_default().push(slot);
        }
        for (part, slots) in parts {
            if open.get(part).copied().ok_or_else(Failure::unreadable)? {
                let slots = body::slot_bytes(&slots);
                insert.execute(params![old.id.to_bytes(), share, ticket, part as i64, slots])?;
            }
        }
    }
    Ok(())
}
