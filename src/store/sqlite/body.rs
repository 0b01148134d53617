//! The rows whose bodies are lists: contacts, identifiers and results, up to a thousand in a row.
//!
//! A list of results has an entry for each run of the same result, for most calls settle all of their contacts alike.
//! It is not known here what a part is, or when something is put down.

use std::iter::Peekable;

use adapters::{Identifier, Slot};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fault::Failure;
use crate::engine::Settled;
use crate::store::{Asked, DeletionId, PartKey, Results, StoreError, places};

/// The most contacts in one row, so that no row grows with its deletion.
pub(super) const CHUNK: usize = 1_000;

/// Puts down what stays of a part's contacts.
pub(super) fn put_contacts(
    connection: &Connection,
    id: DeletionId,
    part: u32,
    contacts: &[Asked],
) -> Result<(), Failure> {
    let sql = "INSERT INTO contacts (deletion, part, seq, body) VALUES (?1, ?2, ?3, ?4)";
    put_lists(connection, sql, id, part, contacts)
}

/// Puts down whom a part's contacts name.
pub(super) fn put_identifiers(
    connection: &Connection,
    id: DeletionId,
    part: u32,
    identifiers: &[Identifier],
) -> Result<(), Failure> {
    let sql = "INSERT INTO identifiers (deletion, part, seq, body) VALUES (?1, ?2, ?3, ?4)";
    put_lists(connection, sql, id, part, identifiers)
}

fn put_lists<T: Serialize>(
    connection: &Connection,
    sql: &str,
    id: DeletionId,
    part: u32,
    list: &[T],
) -> Result<(), Failure> {
    let mut row = connection.prepare_cached(sql)?;
    for (chunk, seq) in list.chunks(CHUNK).zip(0i64..) {
        row.execute(params![id.to_bytes(), part, seq, json(chunk)?])?;
    }
    Ok(())
}

/// Contacts one after another that have the same result, as they are put down: the first, how many, and the result.
pub(super) type Run<S> = (Slot, u32, S);

/// Puts down what a record settles, or under no fence what was settled before. A record without results has a row as
/// well: it says that the record was put down.
pub(super) fn put_results<'s>(
    connection: &Connection,
    key: PartKey,
    number: u32,
    settled: impl Iterator<Item = Run<&'s Settled>>,
) -> Result<(), Failure> {
    let sql = "INSERT INTO results (deletion, part, fence, number, seq, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut row = connection.prepare_cached(sql)?;
    let (id, fence) = (key.deletion.to_bytes(), key.fence.cast_signed());
    let mut seq = 0i64;
    let mut settled = settled.peekable();
    while settled.peek().is_some() {
        row.execute(params![id, key.part, fence, number, seq, json(&next_row(&mut settled))?])?;
        seq += 1;
    }
    if seq == 0 && number > 0 {
        row.execute(params![id, key.part, fence, number, seq, b"[]"])?;
    }
    Ok(())
}

/// As many results as go into a row. What does not stays where it is.
fn next_row<'s>(settled: &mut Peekable<impl Iterator<Item = Run<&'s Settled>>>) -> Vec<Run<&'s Settled>> {
    let mut runs: Vec<Run<&Settled>> = Vec::new();
    let mut room = CHUNK as u32;
    while room > 0
        && let Some((slot, count, settled_so)) = settled.peek_mut()
    {
        let fitting = room.min(*count);
        match runs.last_mut() {
            Some((first, before, same)) if first.0.checked_add(*before) == Some(slot.0) && same == settled_so => {
                *before += fitting
            }
            _ => runs.push((*slot, fitting, settled_so)),
        }
        room -= fitting;
        *count -= fitting;
        slot.0 += fitting;
        if *count == 0 {
            settled.next();
        }
    }
    runs
}

/// Hands on the results of a part, run by run.
pub(super) fn each_run(
    connection: &Connection,
    id: DeletionId,
    part: u32,
    mut take: impl FnMut(Slot, u32, &Settled),
) -> Result<(), Failure> {
    let mut sound = true;
    each(connection, "results", id, part, |runs: Vec<Run<Settled>>| {
        for (first, count, settled) in runs {
            // What a row says of its length is not believed.
            sound &= count as usize <= CHUNK;
            take(first, count.min(CHUNK as u32), &settled);
        }
    })?;
    if sound { Ok(()) } else { Err(Failure::unreadable()) }
}

/// Hands on each list of a table that belongs to a part, in the order in which they were put down.
pub(super) fn each<T: DeserializeOwned>(
    connection: &Connection,
    table: &str,
    id: DeletionId,
    part: u32,
    mut take: impl FnMut(Vec<T>),
) -> Result<(), Failure> {
    let order = if table == "results" { "fence, number, seq" } else { "seq" };
    let sql = format!("SELECT body FROM {table} WHERE deletion = ?1 AND part = ?2 ORDER BY {order}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![id.to_bytes(), part])?;
    while let Some(row) = rows.next()? {
        take(parse(row.get_ref(0)?)?);
    }
    Ok(())
}

/// All of a part's lists in one. There must be as many entries as there are contacts.
pub(super) fn all<T: DeserializeOwned>(
    connection: &Connection,
    table: &str,
    id: DeletionId,
    part: u32,
    contacts: usize,
) -> Result<Vec<T>, Failure> {
    // What a row says of its length is not believed before it is read.
    let mut whole = Vec::with_capacity(contacts.min(crate::store::PART));
    each(connection, table, id, part, |mut list| whole.append(&mut list))?;
    if whole.len() == contacts { Ok(whole) } else { Err(Failure::unreadable()) }
}

/// A part's results: one place for each contact.
pub(super) fn results(
    connection: &Connection,
    id: DeletionId,
    part: u32,
    first: u32,
    contacts: usize,
) -> Result<Results, Failure> {
    let mut results = Results::open(contacts);
    each_run(connection, id, part, |slot, count, settled| {
        results.put(places(first, slot, count), settled, |_| {});
    })?;
    Ok(results)
}

/// Slots as they stand in an attempt's row: four bytes each, the lowest first.
pub(super) fn slots(bytes: &[u8]) -> Result<Vec<Slot>, Failure> {
    let (slots, rest) = bytes.as_chunks();
    let [] = rest else { return Err(Failure::unreadable()) };
    Ok(slots.iter().map(|slot| Slot(u32::from_le_bytes(*slot))).collect())
}

/// The same, to be put down.
pub(super) fn slot_bytes<'s>(slots: impl IntoIterator<Item = &'s Slot>) -> Vec<u8> {
    slots.into_iter().flat_map(|slot| slot.0.to_le_bytes()).collect()
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Failure> {
    let failed = |_| Failure::Refused(StoreError::Broken("a row cannot be written".to_owned()));
    serde_json::to_vec(value).map_err(failed)
}

/// Reads what [`json`] made, in a column of either kind.
pub(super) fn parse<T: DeserializeOwned>(body: ValueRef<'_>) -> Result<T, Failure> {
    let body = body.as_bytes().map_err(|_| Failure::unreadable())?;
    serde_json::from_slice(body).map_err(|_| Failure::unreadable())
}
