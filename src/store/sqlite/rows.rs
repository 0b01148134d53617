//! Every change of a row that the engine asks for.
//!
//! No transaction begins or ends here, and nothing is kept between two calls: the file alone is the truth. A part's row
//! says who works it and counts its results; whoever works it no more finds nothing to change.

use std::sync::Arc;

use adapters::FaultCode;
use rusqlite::{Connection, OptionalExtension, params};

use super::body::{self, json, put_results, slot_bytes};
use super::fault::Failure;
use super::look;
use super::purge;
use super::tables::{DRAFT, HELD, OVER, WAITING};
use super::writer::After;
use crate::store::{Accept, Accepted, Claim, DeletionId, Intent, Loads, Part, PartKey, Record, StoreError, Tally};

/// Puts an earlier part of a deletion down that is still arriving.
pub(super) fn draft(
    connection: &Connection,
    keep: bool,
    id: DeletionId,
    tenant: &str,
    part: &Part,
) -> Result<(), Failure> {
    let sql = "SELECT 1 FROM forgotten WHERE id = ?1 UNION ALL SELECT 1 FROM deletions WHERE id = ?1";
    if connection.prepare_cached(sql)?.exists([id.to_bytes()])? {
        return Err(refused("the draft was thrown away"));
    }
    connection.prepare_cached("INSERT OR IGNORE INTO drafts (id) VALUES (?1)")?.execute([id.to_bytes()])?;
    put(connection, keep, id, tenant, part, (DRAFT, 0))
}

/// Puts a deletion down, unless its key was used before.
pub(super) fn accept(
    connection: &Connection,
    keep: bool,
    deletion: &Accept,
    after: &mut After,
) -> Result<Accepted, Failure> {
    let (head, last) = (&deletion.head, &deletion.last);
    let id = head.id;
    if let Some(claim) = deletion.claim {
        let accepted = take_key(connection, claim, id)?;
        if accepted != Accepted::New {
            purge::discard(connection, id, after)?;
            return Ok(accepted);
        }
    }
    let sql = "INSERT INTO deletions
        (id, tenant, created_ms, contacts, parts, reason, reference, shares, scope, kept)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, CAST(?8 AS TEXT), ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        id.to_bytes(),
        head.tenant,
        head.created_ms,
        deletion.contacts() as i64,
        deletion.parts(),
        head.reason,
        head.reference,
        json(&head.shares)?,
        deletion.claim.map(|claim| claim.scope),
        keep
    ])?;
    if last.number > 0 {
        take_drafts(connection, id, last)?;
    }
    let held = deletion.hold && last.number == 0;
    put(connection, keep, id, &head.tenant, last, if held { (HELD, 1) } else { (WAITING, 0) })?;
    Ok(Accepted::New)
}

/// Takes a key for a deletion, if it was not used before or is free again.
fn take_key(connection: &Connection, claim: Claim, id: DeletionId) -> Result<Accepted, Failure> {
    if let Some(used) = look::key(connection, claim)? {
        let accepted = used.accepted(claim);
        if accepted != Accepted::New {
            return Ok(accepted);
        }
        connection.prepare_cached("UPDATE deletions SET scope = NULL WHERE id = ?1")?.execute([used.deletion])?;
    }
    let sql = "INSERT OR REPLACE INTO claims (scope, fingerprint, deletion) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![claim.scope, claim.fingerprint, id.to_bytes()])?;
    Ok(Accepted::New)
}

/// Makes the earlier parts of a deletion ones that can be worked. All of them must be there.
fn take_drafts(connection: &Connection, id: DeletionId, last: &Part) -> Result<(), Failure> {
    let sql = "SELECT count(*), coalesce(sum(contacts), 0) FROM parts WHERE deletion = ?1";
    let there: (u32, u32) =
        connection.prepare_cached(sql)?.query_row([id.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let were = connection.prepare_cached("DELETE FROM drafts WHERE id = ?1")?.execute([id.to_bytes()])?;
    if were != 1 || there != (last.number, last.first) {
        return Err(refused("an earlier part of the deletion was thrown away"));
    }
    let sql = "UPDATE parts SET state = ?3 WHERE deletion = ?1 AND state = ?2";
    connection.prepare_cached(sql)?.execute(params![id.to_bytes(), DRAFT, WAITING])?;
    Ok(())
}

/// Puts a part down, in this state and under this fence if any of its contacts is open.
fn put(
    connection: &Connection,
    keep: bool,
    id: DeletionId,
    tenant: &str,
    part: &Part,
    (state, fence): (i64, u64),
) -> Result<(), Failure> {
    let tally = Tally::of(part.settled.iter().map(|(_, settled)| settled));
    let is_over = tally.total() as usize == part.contacts.len();
    let state = if is_over { OVER } else { state };
    put_row(connection, id, tenant, (part.number, part.first, part.contacts.len()), (state, fence), &tally)?;
    body::put_contacts(connection, id, part.number, &part.contacts)?;
    if keep || !is_over {
        body::put_identifiers(connection, id, part.number, &part.identifiers)?;
    }
    let settled = part.settled.iter().map(|(slot, settled)| (*slot, 1, settled));
    put_results(connection, PartKey { deletion: id, part: part.number, fence: 0 }, 0, settled)
}

/// Puts a part's own row down: its number, its first slot and how many contacts it has; state and fence; its results.
pub(super) fn put_row(
    connection: &Connection,
    id: DeletionId,
    tenant: &str,
    (number, first, contacts): (u32, u32, usize),
    (state, fence): (i64, u64),
    tally: &Tally,
) -> Result<(), Failure> {
    let sql = "INSERT INTO parts (deletion, part, tenant, first, contacts, state, fence, open,
            deleted, not_found, rejected, failed, unknown, skipped, pending, would_delete, absent, duplicates)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?5 - ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
    let [deleted, not_found, rejected, failed, unknown, skipped, pending, would_delete] = tally.settled;
    connection.prepare_cached(sql)?.execute(params![
        id.to_bytes(),
        number,
        tenant,
        first,
        contacts as i64,
        state,
        fence.cast_signed(),
        tally.total(),
        deleted,
        not_found,
        rejected,
        failed,
        unknown,
        skipped,
        pending,
        would_delete,
        tally.absent,
        tally.duplicates
    ])?;
    Ok(())
}

/// Claims the oldest part that waits, of the tenant whose turn it is.
pub(super) fn claim(connection: &Connection, loads: &Loads) -> Result<Option<PartKey>, Failure> {
    // One step into the index for each tenant that has something waiting, however much that is.
    let sql = "SELECT tenant, deletion, part FROM parts INDEXED BY working
        WHERE state = 1 AND tenant > ?1 ORDER BY tenant, deletion, part LIMIT 1";
    let mut next = connection.prepare_cached(sql)?;
    let mut oldest: Vec<([u8; 16], u32, Arc<str>)> = Vec::new();
    loop {
        let after = oldest.last().map_or("", |(_, _, tenant)| tenant);
        let found = next.query_row([after], |row| Ok((row.get(1)?, row.get(2)?, row.get(0)?))).optional()?;
        let Some(found) = found else { break };
        oldest.push(found);
    }
    // Of tenants with the same load, the one that has waited for longest.
    oldest.sort_unstable();
    let Some(tenant) = loads.choose(oldest.iter().map(|(_, _, tenant)| tenant)) else { return Ok(None) };
    let chosen = oldest.iter().find(|(_, _, other)| other == tenant);
    let Some((deletion, part, _)) = chosen else { return Ok(None) };
    let sql = "UPDATE parts SET state = ?3, fence = fence + 1 WHERE deletion = ?1 AND part = ?2
        RETURNING fence";
    let fence: i64 = connection.prepare_cached(sql)?.query_row(params![deletion, part, HELD], |row| row.get(0))?;
    Ok(Some(PartKey { deletion: DeletionId::from_bytes(*deletion), part: *part, fence: fence.cast_unsigned() }))
}

/// Gives a part back, if it is theirs.
pub(super) fn release(connection: &Connection, key: PartKey) -> Result<(), Failure> {
    let sql = "UPDATE parts SET state = ?5 WHERE deletion = ?1 AND part = ?2 AND fence = ?3 AND state = ?4";
    let PartKey { deletion, part, fence } = key;
    connection.prepare_cached(sql)?.execute(params![deletion.to_bytes(), part, fence.cast_signed(), HELD, WAITING])?;
    Ok(())
}

/// Puts down that a call is about to be sent.
pub(super) fn intent(connection: &Connection, intent: &Intent) -> Result<(), Failure> {
    let sql = "INSERT INTO attempts (deletion, part, share, ticket, attempts, in_doubt, closed, slots)
        SELECT deletion, part, ?5, ?6, ?7, ?8, 0, ?9 FROM parts
        WHERE deletion = ?1 AND part = ?2 AND fence = ?3 AND state = ?4";
    let PartKey { deletion, part, fence } = intent.key;
    let put = connection.prepare_cached(sql)?.execute(params![
        deletion.to_bytes(),
        part,
        fence.cast_signed(),
        HELD,
        intent.share,
        intent.ticket.0.cast_signed(),
        intent.attempts,
        intent.in_doubt,
        slot_bytes(&intent.slots)
    ])?;
    if put == 1 { Ok(()) } else { Err(Failure::Refused(StoreError::Fenced)) }
}

/// Puts down how calls ended, and closes a part whose contacts are all settled.
pub(super) fn record(connection: &Connection, keep: bool, record: &Record, after: &mut After) -> Result<(), Failure> {
    let key @ PartKey { deletion, part, .. } = record.key;
    let Some(open) = count(connection, record)? else { return Ok(()) };
    let settled = record.settled.iter().map(|run| (run.first, run.contacts, &run.settled));
    put_results(connection, key, record.number, settled)?;
    if open > 0 {
        return close_calls(connection, record);
    }
    let sql = "DELETE FROM attempts WHERE deletion = ?1 AND part = ?2";
    connection.prepare_cached(sql)?.execute(params![deletion.to_bytes(), part])?;
    if keep {
        let sql = "UPDATE deletions SET kept = 1 WHERE id = ?1 AND kept = 0";
        connection.prepare_cached(sql)?.execute([deletion.to_bytes()])?;
    } else {
        let sql = "DELETE FROM identifiers WHERE deletion = ?1 AND part = ?2";
        connection.prepare_cached(sql)?.execute(params![deletion.to_bytes(), part])?;
        after.erased = true;
    }
    Ok(())
}

/// Counts what a record settles, and says how many contacts are open then; `None` if it was put down before.
fn count(connection: &Connection, record: &Record) -> Result<Option<i64>, Failure> {
    let sql = "UPDATE parts SET open = open - ?6, state = iif(open > ?6, state, ?7),
            deleted = deleted + ?8, not_found = not_found + ?9, rejected = rejected + ?10, failed = failed + ?11,
            unknown = unknown + ?12, skipped = skipped + ?13, pending = pending + ?14,
            would_delete = would_delete + ?15, absent = absent + ?16, duplicates = duplicates + ?17
        WHERE deletion = ?1 AND part = ?2 AND fence = ?3 AND state = ?4 AND NOT EXISTS
            (SELECT 1 FROM results WHERE deletion = ?1 AND part = ?2 AND results.fence = ?3 AND number = ?5)
        RETURNING open";
    let PartKey { deletion, part, fence } = record.key;
    let (id, fence) = (deletion.to_bytes(), fence.cast_signed());
    let tally = Tally::of_runs(&record.settled);
    let [deleted, not_found, rejected, failed, unknown, skipped, pending, would_delete] = tally.settled;
    let values = params![
        id,
        part,
        fence,
        HELD,
        record.number,
        tally.total(),
        OVER,
        deleted,
        not_found,
        rejected,
        failed,
        unknown,
        skipped,
        pending,
        would_delete,
        tally.absent,
        tally.duplicates
    ];
    let open = connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
    if open.is_some() {
        return Ok(open);
    }
    let sql = "SELECT 1 FROM parts WHERE deletion = ?1 AND part = ?2 AND fence = ?3 AND state = ?4";
    let theirs = connection.prepare_cached(sql)?.exists(params![id, part, fence, HELD])?;
    if theirs { Ok(None) } else { Err(Failure::Refused(StoreError::Fenced)) }
}

fn close_calls(connection: &Connection, record: &Record) -> Result<(), Failure> {
    let sql = "UPDATE attempts SET closed = 1, attempts = ?5, in_doubt = ?6, last = ?7
        WHERE deletion = ?1 AND part = ?2 AND share = ?3 AND ticket = ?4";
    let mut close = connection.prepare_cached(sql)?;
    let PartKey { deletion, part, .. } = record.key;
    for closed in &record.closed {
        // A call without an intent was never sent: then there is no row, and nothing to close.
        close.execute(params![
            deletion.to_bytes(),
            part,
            record.share,
            closed.ticket.0.cast_signed(),
            closed.attempts,
            closed.in_doubt,
            closed.last.map(FaultCode::as_str)
        ])?;
    }
    Ok(())
}

/// Closes a deletion whose parts are all over. Whether it is closed.
pub(super) fn finish(connection: &Connection, id: DeletionId, finished_ms: i64) -> Result<bool, Failure> {
    let sql = "UPDATE deletions SET finished_ms = ?2 WHERE id = ?1 AND finished_ms IS NULL
        AND NOT EXISTS (SELECT 1 FROM parts WHERE deletion = ?1 AND open > 0)";
    connection.prepare_cached(sql)?.execute(params![id.to_bytes(), finished_ms])?;
    let sql = "SELECT 1 FROM deletions WHERE id = ?1 AND finished_ms IS NOT NULL";
    Ok(connection.prepare_cached(sql)?.exists([id.to_bytes()])?)
}

/// Puts down that nothing more shall be sent for a deletion.
pub(super) fn cancel(connection: &Connection, id: DeletionId, cancelled_ms: i64) -> Result<(), Failure> {
    let sql = "UPDATE deletions SET cancelled_ms = ?2 WHERE id = ?1 AND cancelled_ms IS NULL AND finished_ms IS NULL";
    connection.prepare_cached(sql)?.execute(params![id.to_bytes(), cancelled_ms])?;
    Ok(())
}

fn refused(why: &str) -> Failure {
    Failure::Refused(StoreError::Broken(why.to_owned()))
}
