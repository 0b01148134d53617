//! What is read back: deletions, their parts, and a part for whoever works it.
//!
//! Nothing is changed here. Whoever asks holds a transaction, so that all rows are as of one moment.

use std::collections::HashMap;
use std::sync::Arc;

use adapters::{FaultCode, Identifier, Outcome};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::body;
use super::fault::Failure;
use super::tables::{HELD, OVER, WAITING};
use crate::engine::Ticket;
use crate::store::{
    Accepted, Asked, Attempt, Claim, DeletionId, Filter, Head, Hold, Job, Page, Part, PartKey, StoreError, Summary,
    Tally,
};

/// The columns that [`told`] reads.
const HEAD: &str = "id, tenant, created_ms, finished_ms, cancelled_ms, contacts, parts, reason, reference, shares";

/// A deletion without its contacts.
pub(super) fn read(connection: &Connection, id: DeletionId) -> Result<Option<Summary>, Failure> {
    let sql = format!("SELECT {HEAD} FROM deletions WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.to_bytes()])?;
    rows.next()?.map(|row| told(connection, row)).transpose()
}

/// The same, if it is this tenant's.
pub(super) fn read_of(connection: &Connection, tenant: &str, id: DeletionId) -> Result<Option<Summary>, Failure> {
    let sql = format!("SELECT {HEAD} FROM deletions WHERE id = ?1 AND tenant = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![id.to_bytes(), tenant])?;
    rows.next()?.map(|row| told(connection, row)).transpose()
}

/// What a key was used for.
pub(super) struct Used {
    pub(super) fingerprint: [u8; 32],
    pub(super) deletion: [u8; 16],
    /// The deletion is gone, or was finished long enough ago.
    pub(super) is_free: bool,
}

/// What a key was used for, if it was.
pub(super) fn key(connection: &Connection, claim: Claim) -> Result<Option<Used>, Failure> {
    let sql = "SELECT fingerprint, deletion, id IS NULL OR coalesce(finished_ms < ?2, 0)
        FROM claims LEFT JOIN deletions ON id = deletion WHERE claims.scope = ?1";
    let values = params![claim.scope, claim.free_before_ms];
    let used = |row: &Row<'_>| Ok(Used { fingerprint: row.get(0)?, deletion: row.get(1)?, is_free: row.get(2)? });
    Ok(connection.prepare_cached(sql)?.query_row(values, used).optional()?)
}

impl Used {
    /// What it means for somebody who asks for the same, or for other things.
    pub(super) fn accepted(&self, claim: Claim) -> Accepted {
        match self {
            Self { is_free: true, .. } => Accepted::New,
            Self { fingerprint, deletion, .. } if *fingerprint == claim.fingerprint => {
                Accepted::Before(DeletionId::from_bytes(*deletion))
            }
            _ => Accepted::Other,
        }
    }
}

/// What was asked for before under a key.
pub(super) fn claimed(connection: &Connection, claim: Claim) -> Result<Accepted, Failure> {
    Ok(key(connection, claim)?.map_or(Accepted::New, |used| used.accepted(claim)))
}

/// Deletions that nobody has closed although nothing of them is open.
pub(super) fn ended(connection: &Connection) -> Result<Vec<Head>, Failure> {
    let sql = format!(
        "SELECT {HEAD} FROM deletions INDEXED BY unfinished WHERE finished_ms IS NULL AND NOT EXISTS (
            SELECT 1 FROM parts WHERE deletion = id AND state <> {OVER})"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut ended = Vec::new();
    while let Some(row) = rows.next()? {
        ended.push(told(connection, row)?.head);
    }
    Ok(ended)
}

/// A tenant's deletions, newest first.
pub(super) fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Summary>, Failure> {
    // No id is above this one.
    let before = filter.before.map_or(vec![0xff; 17], |id| id.to_bytes().to_vec());
    let mut values = vec![Value::Text(filter.tenant.to_string()), Value::Blob(before)];
    let (index, mut and) = match (&filter.reference, filter.finished) {
        (Some(_), _) => ("of_reference", String::new()),
        (None, Some(false)) => ("unfinished", String::new()),
        (None, _) => ("of_tenant", String::new()),
    };
    if let Some(reference) = &filter.reference {
        values.push(Value::Text(reference.clone()));
        and.push_str(" AND reference = ?3");
    }
    match filter.finished {
        Some(true) => and.push_str(" AND finished_ms IS NOT NULL"),
        Some(false) => and.push_str(" AND finished_ms IS NULL"),
        None => {}
    }
    let sql =
        format!("SELECT {HEAD} FROM deletions INDEXED BY {index} WHERE tenant = ?1 AND id < ?2{and} ORDER BY id DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut list = Vec::new();
    while list.len() < filter.most
        && let Some(row) = rows.next()?
    {
        let shares: Vec<Arc<str>> = body::parse(row.get_ref(9)?)?;
        let concerns = filter.connection.as_ref().is_none_or(|wanted| shares.contains(wanted));
        let within = filter.within.as_ref().is_none_or(|all| shares.iter().all(|share| all.contains(share)));
        if concerns && within {
            list.push(told(connection, row)?);
        }
    }
    Ok(list)
}

/// A deletion's row, and what its parts count.
fn told(connection: &Connection, row: &Row<'_>) -> Result<Summary, Failure> {
    let id: [u8; 16] = row.get(0)?;
    let sums = Tally::COLUMNS.map(|column| format!("coalesce(sum({column}), 0)")).join(", ");
    let sql = format!("SELECT {sums} FROM parts WHERE deletion = ?1");
    let tally = connection.prepare_cached(&sql)?.query_row([id], |row| tally(row, 0))?;
    Ok(Summary {
        head: Head {
            id: DeletionId::from_bytes(id),
            tenant: row.get(1)?,
            created_ms: row.get(2)?,
            reason: row.get(7)?,
            reference: row.get(8)?,
            shares: body::parse(row.get_ref(9)?)?,
        },
        finished_ms: row.get(3)?,
        cancelled_ms: row.get(4)?,
        contacts: row.get(5)?,
        parts: row.get(6)?,
        tally,
    })
}

/// Reads the columns of [`Tally::COLUMNS`], the first of which has this number.
pub(super) fn tally(row: &Row<'_>, first: usize) -> Result<Tally, rusqlite::Error> {
    let mut tally = Tally::default();
    for (n, count) in tally.settled.iter_mut().enumerate() {
        *count = row.get(first + n)?;
    }
    let outcomes = Outcome::ALL.len();
    tally.absent = row.get(first + outcomes)?;
    tally.duplicates = row.get(first + outcomes + 1)?;
    Ok(tally)
}

/// One part's contacts and their results.
pub(super) fn page(connection: &Connection, id: DeletionId, part: u32) -> Result<Option<Page>, Failure> {
    // A draft has no deletion.
    let sql = "SELECT first, parts.contacts FROM parts JOIN deletions ON id = deletion
        WHERE deletion = ?1 AND part = ?2";
    let found = connection.prepare_cached(sql)?.query_row(params![id.to_bytes(), part], place).optional()?;
    let Some((first, count)) = found else { return Ok(None) };
    let contacts = Arc::new(body::all::<Asked>(connection, "contacts", id, part, count)?);
    let results = body::results(connection, id, part, first, count)?;
    Ok(Some(Page { first, contacts, results }))
}

/// How many contacts of each tenant are not settled.
pub(super) fn backlog(connection: &Connection) -> Result<HashMap<Arc<str>, u64>, Failure> {
    let mut backlog = HashMap::new();
    // The index has parts of two states: each is asked for by itself.
    for state in [WAITING, HELD] {
        let sql =
            format!("SELECT tenant, sum(open) FROM parts INDEXED BY working WHERE state = {state} GROUP BY tenant");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let open: i64 = row.get(1)?;
            *backlog.entry(row.get(0)?).or_default() += open.unsigned_abs();
        }
    }
    Ok(backlog)
}

/// How a part stands for whoever works it.
pub(super) fn hold(connection: &Connection, key: PartKey) -> Result<Hold, Failure> {
    let sql = "SELECT cancelled_ms IS NOT NULL FROM parts JOIN deletions ON id = deletion
        WHERE deletion = ?1 AND part = ?2 AND fence = ?3 AND state = ?4";
    let values = params![key.deletion.to_bytes(), key.part, key.fence.cast_signed(), HELD];
    Ok(match connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()? {
        Some(true) => Hold::Cancelled,
        Some(false) => Hold::Held,
        None => Hold::Lost,
    })
}

/// A part, for whoever claimed it.
pub(super) fn job(connection: &Connection, key: PartKey) -> Result<Job, Failure> {
    let PartKey { deletion: id, part: number, fence } = key;
    let sql = "SELECT first, contacts FROM parts WHERE deletion = ?1 AND part = ?2 AND fence = ?3 AND state = ?4";
    let values = params![id.to_bytes(), number, fence.cast_signed(), HELD];
    let found = connection.prepare_cached(sql)?.query_row(values, place).optional()?;
    let (first, count) = found.ok_or(Failure::Refused(StoreError::Fenced))?;
    let summary = read(connection, id)?.ok_or_else(Failure::unreadable)?;

    let contacts = Arc::new(body::all::<Asked>(connection, "contacts", id, number, count)?);
    let identifiers = body::all::<Identifier>(connection, "identifiers", id, number, count)?;
    let results = body::results(connection, id, number, first, count)?;
    let settled = Page { first, contacts: Arc::clone(&contacts), results }.settled();
    let attempts = attempts(connection, id, number, summary.head.shares.len())?;
    Ok(Job {
        head: Arc::new(summary.head),
        parts: summary.parts,
        key,
        part: Arc::new(Part { number, first, contacts, identifiers, settled }),
        attempts,
        cancelled: summary.cancelled_ms.is_some(),
    })
}

/// The calls of each share, in the order of their tickets: that in which they were sent.
fn attempts(connection: &Connection, id: DeletionId, part: u32, shares: usize) -> Result<Vec<Vec<Attempt>>, Failure> {
    let mut attempts = vec![Vec::new(); shares];
    let sql = "SELECT share, ticket, attempts, in_doubt, closed, slots, last FROM attempts
        WHERE deletion = ?1 AND part = ?2 ORDER BY share, ticket";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![id.to_bytes(), part])?;
    while let Some(row) = rows.next()? {
        let share = attempts.get_mut(usize::from(row.get::<_, u16>(0)?)).ok_or_else(Failure::unreadable)?;
        share.push(Attempt {
            ticket: Ticket(row.get::<_, i64>(1)?.cast_unsigned()),
            attempts: row.get(2)?,
            in_doubt: row.get(3)?,
            closed: row.get(4)?,
            slots: body::slots(row.get_ref(5)?.as_blob().map_err(|_| Failure::unreadable())?)?,
            last: row.get_ref(6)?.as_str_or_null().ok().flatten().and_then(FaultCode::find),
        });
    }
    Ok(attempts)
}

/// A part's first slot, and how many contacts it has.
fn place(row: &Row<'_>) -> Result<(u32, usize), rusqlite::Error> {
    Ok((row.get(0)?, row.get::<_, u32>(1)? as usize))
}
