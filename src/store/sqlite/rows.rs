//! What the tables hold, as the types of the ledger: every statement that reads or writes a row.
//!
//! No transaction begins or ends here, and nothing is kept between two calls: the file alone is the truth.
//!
//! A results row is never changed, and one that comes later never counts for a slot that an earlier one has settled.

use std::sync::Arc;

use adapters::{FaultCode, Identifier, Slot};
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::fault::Failure;
use crate::engine::{Settled, Ticket};
use crate::store::{
    Accept, Accepted, Asked, Attempt, Contact, DeletionId, Intent, Record, ShareKey, StoreError, Stored, Unfinished,
};

/// The most contacts in one row, so that no row grows with its deletion.
const CHUNK: usize = 1_000;
/// The fence of a share that nobody has taken over.
const FIRST_FENCE: i64 = 1;

/// What is told of a deletion besides its contacts.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    shares: Vec<Arc<str>>,
}

/// Puts a deletion down, unless its key was used before.
pub(super) fn accept(connection: &Connection, deletion: &Accept) -> Result<Accepted, Failure> {
    let id = deletion.id.to_bytes();
    if let Some(claim) = deletion.claim {
        let sql = "SELECT fingerprint, deletion FROM claims WHERE scope = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, [u8; 16]>(1)?));
        match connection.prepare_cached(sql)?.query_row([claim.scope], row).optional()? {
            Some((fingerprint, before)) if fingerprint == claim.fingerprint => {
                return Ok(Accepted::Before(DeletionId::from_bytes(before)));
            }
            Some(_) => return Ok(Accepted::Other),
            None => {
                let sql = "INSERT INTO claims (scope, fingerprint, deletion) VALUES (?1, ?2, ?3)";
                connection.prepare_cached(sql)?.execute(params![claim.scope, claim.fingerprint, id])?;
            }
        }
    }
    let head = Head {
        reason: deletion.reason.clone(),
        reference: deletion.reference.clone(),
        shares: deletion.shares.clone(),
    };
    let sql = "INSERT INTO deletions (id, tenant, created_ms, contacts, head) VALUES (?1, ?2, ?3, ?4, ?5)";
    let count = number(deletion.contacts.len())?;
    connection.prepare_cached(sql)?.execute(params![id, deletion.tenant, deletion.created_ms, count, json(&head)?])?;
    let mut share = connection.prepare_cached("INSERT INTO shares (deletion, share, fence) VALUES (?1, ?2, ?3)")?;
    for n in 0..deletion.shares.len() {
        share.execute(params![id, number(n)?, FIRST_FENCE])?;
    }
    let mut contacts = connection.prepare_cached("INSERT INTO contacts (deletion, seq, body) VALUES (?1, ?2, ?3)")?;
    let mut identifiers =
        connection.prepare_cached("INSERT INTO identifiers (deletion, seq, body) VALUES (?1, ?2, ?3)")?;
    for (chunk, seq) in deletion.contacts.chunks(CHUNK).zip(0i64..) {
        let asked = |contact: &Contact| Asked { share: contact.share, reference: contact.reference.clone() };
        contacts.execute(params![id, seq, json(&chunk.iter().map(asked).collect::<Vec<_>>())?])?;
        let named: Vec<_> = chunk.iter().map(|contact| &contact.identifier).collect();
        identifiers.execute(params![id, seq, json(&named)?])?;
    }
    settle(connection, deletion.id, &deletion.settled)?;
    Ok(Accepted::New)
}

/// Puts down that a call is about to be sent.
pub(super) fn intent(connection: &Connection, intent: &Intent) -> Result<(), Failure> {
    works(connection, intent.key)?;
    let slots: Vec<u8> = intent.slots.iter().flat_map(|slot| slot.0.to_le_bytes()).collect();
    let sql = "INSERT INTO attempts (deletion, share, ticket, attempts, in_doubt, closed, slots)
        VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6)";
    connection.prepare_cached(sql)?.execute(params![
        intent.key.deletion.to_bytes(),
        intent.key.share,
        intent.ticket.0.cast_signed(),
        intent.attempts,
        intent.in_doubt,
        slots
    ])?;
    Ok(())
}

/// Puts down how calls ended.
pub(super) fn record(connection: &Connection, record: &Record) -> Result<(), Failure> {
    let key = record.key;
    works(connection, key)?;
    let sql = "UPDATE attempts SET closed = 1, attempts = ?4, in_doubt = ?5, last = ?6
        WHERE deletion = ?1 AND share = ?2 AND ticket = ?3";
    let mut close = connection.prepare_cached(sql)?;
    for closed in &record.closed {
        let ticket = closed.ticket.0.cast_signed();
        // A call without an intent was never sent: then there is no row, and nothing to close.
        let last = closed.last.map(FaultCode::as_str);
        close.execute(params![key.deletion.to_bytes(), key.share, ticket, closed.attempts, closed.in_doubt, last])?;
    }
    settle(connection, key.deletion, &record.settled)
}

/// Closes a deletion whose contacts all have a result, and erases whom they named.
pub(super) fn finish(connection: &Connection, id: DeletionId, finished_ms: i64) -> Result<(), Failure> {
    let sql = "SELECT contacts FROM deletions WHERE id = ?1 AND finished_ms IS NULL";
    let contacts = connection.prepare_cached(sql)?.query_row([id.to_bytes()], |row| row.get(0)).optional()?;
    let Some(contacts) = contacts else { return Ok(()) };
    let mut open = vec![true; length(contacts)?];
    for rows in bodies::<(Slot, IgnoredAny)>(connection, "results", id)? {
        for (slot, _) in rows {
            if let Some(place) = open.get_mut(slot.0 as usize) {
                *place = false;
            }
        }
    }
    if open.contains(&true) {
        return Ok(());
    }
    let close = "UPDATE deletions SET finished_ms = ?2 WHERE id = ?1";
    connection.prepare_cached(close)?.execute(params![id.to_bytes(), finished_ms])?;
    for table in ["identifiers", "attempts", "shares"] {
        // Without its shares, nobody works it any more, under whatever fence.
        let erase = format!("DELETE FROM {table} WHERE deletion = ?1");
        connection.prepare_cached(&erase)?.execute([id.to_bytes()])?;
    }
    Ok(())
}

/// Shuts out whoever worked before, and hands over what is unfinished.
pub(super) fn take_over(connection: &Connection) -> Result<Vec<Unfinished>, Failure> {
    // Only unfinished deletions have shares.
    connection.execute("UPDATE shares SET fence = fence + 1", [])?;
    let mut statement = connection.prepare("SELECT id FROM deletions WHERE finished_ms IS NULL")?;
    let ids: Vec<[u8; 16]> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    ids.into_iter().map(|id| unfinished(connection, DeletionId::from_bytes(id))).collect()
}

/// A deletion and its results so far.
pub(super) fn read(connection: &Connection, id: DeletionId) -> Result<Option<Stored>, Failure> {
    let sql = "SELECT tenant, created_ms, finished_ms, contacts, head FROM deletions WHERE id = ?1";
    let row = connection.prepare_cached(sql)?.query_row([id.to_bytes()], |row| {
        let tenant: Arc<str> = row.get(0)?;
        Ok((tenant, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, Vec<u8>>(4)?))
    });
    let Some((tenant, created_ms, finished_ms, count, head)) = row.optional()? else { return Ok(None) };
    let head: Head = parse(&head)?;
    let contacts = bodies::<Asked>(connection, "contacts", id)?.concat();
    if contacts.len() != length(count)? {
        return Err(Failure::unreadable());
    }
    let mut results = vec![None; contacts.len()];
    for (slot, settled) in bodies::<(Slot, Settled)>(connection, "results", id)?.into_iter().flatten() {
        // The first result stays.
        if let Some(place @ None) = results.get_mut(slot.0 as usize) {
            *place = Some(settled);
        }
    }
    Ok(Some(Stored {
        id,
        tenant,
        created_ms,
        finished_ms,
        reason: head.reason,
        reference: head.reference,
        shares: head.shares,
        contacts,
        results,
    }))
}

fn unfinished(connection: &Connection, id: DeletionId) -> Result<Unfinished, Failure> {
    let stored = read(connection, id)?.ok_or_else(Failure::unreadable)?;
    let identifiers = bodies::<Identifier>(connection, "identifiers", id)?.concat();
    if identifiers.len() != stored.contacts.len() {
        return Err(Failure::unreadable());
    }
    let contact = |(asked, identifier): (Asked, Identifier)| Contact {
        share: asked.share,
        identifier,
        reference: asked.reference,
    };
    let results = stored.results.into_iter().zip(0..);
    let settled = results.filter_map(|(result, n)| Some((Slot(n), result?))).collect();
    // A deletion's shares are taken over together. One that has none has nobody to shut out.
    let sql = "SELECT coalesce(max(fence), ?2) FROM shares WHERE deletion = ?1";
    let fence: i64 =
        connection.prepare_cached(sql)?.query_row(params![id.to_bytes(), FIRST_FENCE], |row| row.get(0))?;
    let attempts = attempts(connection, id, stored.shares.len())?;
    let deletion = Accept {
        id,
        tenant: stored.tenant,
        created_ms: stored.created_ms,
        reason: stored.reason,
        reference: stored.reference,
        shares: stored.shares,
        contacts: stored.contacts.into_iter().zip(identifiers).map(contact).collect(),
        settled,
        claim: None,
    };
    Ok(Unfinished { deletion: Arc::new(deletion), fence: fence.cast_unsigned(), attempts })
}

/// The calls of each share, in the order of their tickets: that in which they were sent.
fn attempts(connection: &Connection, id: DeletionId, shares: usize) -> Result<Vec<Vec<Attempt>>, Failure> {
    let mut attempts = vec![Vec::new(); shares];
    let sql = "SELECT share, ticket, attempts, in_doubt, closed, slots, last FROM attempts
        WHERE deletion = ?1 ORDER BY share, ticket";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([id.to_bytes()])?;
    while let Some(row) = rows.next()? {
        let slots: Vec<u8> = row.get(5)?;
        let (slots, rest) = slots.as_chunks();
        let share = attempts.get_mut(usize::from(row.get::<_, u16>(0)?));
        let (Some(share), []) = (share, rest) else { return Err(Failure::unreadable()) };
        share.push(Attempt {
            ticket: Ticket(row.get::<_, i64>(1)?.cast_unsigned()),
            attempts: row.get(2)?,
            in_doubt: row.get(3)?,
            closed: row.get(4)?,
            last: row.get_ref(6)?.as_str_or_null().ok().flatten().and_then(FaultCode::find),
            slots: slots.iter().map(|slot| Slot(u32::from_le_bytes(*slot))).collect(),
        });
    }
    Ok(attempts)
}

/// Refuses whoever does not work the share, or does no more.
fn works(connection: &Connection, key: ShareKey) -> Result<(), Failure> {
    let sql = "SELECT 1 FROM shares WHERE deletion = ?1 AND share = ?2 AND fence = ?3";
    let fence = key.fence.cast_signed();
    let works = connection.prepare_cached(sql)?.exists(params![key.deletion.to_bytes(), key.share, fence])?;
    if works { Ok(()) } else { Err(Failure::Refused(StoreError::Fenced)) }
}

/// Adds results after those that are there.
fn settle(connection: &Connection, id: DeletionId, settled: &[(Slot, Settled)]) -> Result<(), Failure> {
    let sql = "INSERT INTO results (deletion, seq, body)
        SELECT ?1, coalesce(max(seq) + 1, 0), ?2 FROM results WHERE deletion = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    for chunk in settled.chunks(CHUNK) {
        statement.execute(params![id.to_bytes(), json(chunk)?])?;
    }
    Ok(())
}

/// The lists of a table that belong to a deletion, in the order in which they were put down.
fn bodies<T: DeserializeOwned>(connection: &Connection, table: &str, id: DeletionId) -> Result<Vec<Vec<T>>, Failure> {
    let sql = format!("SELECT body FROM {table} WHERE deletion = ?1 ORDER BY seq");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.to_bytes()])?;
    let mut lists = Vec::new();
    while let Some(row) = rows.next()? {
        lists.push(parse(row.get_ref(0)?.as_bytes().map_err(|_| Failure::unreadable())?)?);
    }
    Ok(lists)
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Failure> {
    let failed = |_| Failure::Refused(StoreError::Broken("a row cannot be written".to_owned()));
    serde_json::to_vec(value).map_err(failed)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| Failure::unreadable())
}

fn number(count: usize) -> Result<i64, Failure> {
    i64::try_from(count).map_err(|_| Failure::unreadable())
}

fn length(count: i64) -> Result<usize, Failure> {
    usize::try_from(count).map_err(|_| Failure::unreadable())
}
