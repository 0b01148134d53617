//! Work on parts: who has which, what may be under way, and how it ended.
//!
//! A part is somebody's while it has a lease (`lease_until`) and their fence. Whose lease has run out may still write,
//! as long as nobody else has claimed the part: the fence decides, and the lease only says when others may claim.
//! Each write looks at the part's row and locks it in the same statement, so no claim can come in between:
//!
//! - `intent` takes the weakest lock, `FOR KEY SHARE`, which goes with everything but `FOR UPDATE`: calls of one part
//!   do not wait for each other.
//! - `claim` takes `FOR UPDATE`, and skips what anybody has locked. What was committed before it got its lock is seen
//!   by the statements after it, which read the part; they have a snapshot of their own.
//! - `record`, `renew` and `release` update the row, which waits for a claim that is under way, and then looks at the
//!   row as the claim left it (READ COMMITTED).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use adapters::{FaultCode, Slot};
use deadpool_postgres::Object;
use futures_util::future::try_join;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::arrive::{NOW_MS, int, uuid};
use super::body;
use super::fault::Failure;
use super::pool::{Parameter, query, query_one, query_opt};
use super::tally;
use crate::engine::Ticket;
use crate::store::{Attempt, DeletionId, Head, Hold, Intent, Job, Loads, PartKey, Record, StoreError, Tally};

/// What a record meets that has been put down already: its key is there, or more would be settled than is open.
const ALREADY: [SqlState; 2] = [SqlState::UNIQUE_VIOLATION, SqlState::CHECK_VIOLATION];

/// The condition of a part that may be claimed.
const WAITS: &str = "accepted AND over_at IS NULL AND (lease_until IS NULL OR lease_until < clock_timestamp())";

/// Each tenant's oldest part that waits, the oldest of all first: one step into the index for each tenant.
static WAITING: LazyLock<String> = LazyLock::new(|| {
    let open = "FROM onedelete.parts WHERE accepted AND over_at IS NULL";
    format!(
        "WITH RECURSIVE tenants AS (
            (SELECT tenant {open} ORDER BY tenant LIMIT 1)
            UNION ALL
            SELECT (SELECT p.tenant {p_open} AND p.tenant > t.tenant ORDER BY p.tenant LIMIT 1)
            FROM tenants t WHERE t.tenant IS NOT NULL
        ) SELECT t.tenant FROM tenants t CROSS JOIN LATERAL (
            SELECT deletion, part FROM onedelete.parts p WHERE p.tenant = t.tenant AND {WAITS}
            ORDER BY deletion, part LIMIT 1
        ) oldest ORDER BY oldest.deletion, oldest.part",
        p_open = open.replace("parts", "parts p"),
    )
});

/// `FOR UPDATE` looks at each row anew once it has it, so no row is claimed by two; others' locks are passed over.
static CLAIM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH oldest AS MATERIALIZED (
            SELECT deletion, part FROM onedelete.parts WHERE tenant = $1 AND {WAITS}
            ORDER BY deletion, part LIMIT 1 FOR UPDATE SKIP LOCKED
        ) UPDATE onedelete.parts p
        SET fence = p.fence + 1, lease_until = clock_timestamp() + $2 * interval '1 ms', claimed_by = $3
        FROM oldest o WHERE p.deletion = o.deletion AND p.part = o.part
        RETURNING p.deletion, p.part, p.fence"
    )
});

/// One call of [`claim`], however often it is tried.
#[derive(Debug)]
pub(super) struct Claiming {
    name: Uuid,
    tried: AtomicBool,
}

impl Claiming {
    pub(super) fn new() -> Self {
        Self { name: Uuid::new_v4(), tried: AtomicBool::new(false) }
    }
}

/// Claims the oldest part that waits, of the tenant whose turn it is.
pub(super) async fn claim(
    client: &Object,
    claiming: &Claiming,
    loads: &Loads,
    lease_ms: i64,
) -> Result<Option<PartKey>, Failure> {
    // The answer to an earlier attempt may be what was lost.
    if claiming.tried.swap(true, Ordering::Relaxed) {
        let sql = "SELECT deletion, part, fence FROM onedelete.parts
            WHERE accepted AND over_at IS NULL AND claimed_by = $1 AND lease_until IS NOT NULL";
        if let Some(row) = query_opt(client, sql, &[&claiming.name]).await? {
            return Ok(Some(key(&row)?));
        }
    }
    let rows = query(client, &WAITING, &[]).await?;
    let tenants = rows.iter().map(|row| Ok(row.try_get::<_, &str>(0)?.into()));
    let mut waiting = tenants.collect::<Result<Vec<Arc<str>>, Failure>>()?;
    while let Some(tenant) = loads.choose(&waiting).cloned() {
        let row = query_opt(client, &CLAIM, &[&&*tenant, &(lease_ms as f64), &claiming.name]).await?;
        if let Some(row) = row {
            return Ok(Some(key(&row)?));
        }
        // Others were quicker.
        waiting.retain(|other| *other != tenant);
    }
    Ok(None)
}

fn key(row: &Row) -> Result<PartKey, Failure> {
    Ok(PartKey {
        deletion: DeletionId::from_bytes(row.try_get::<_, Uuid>(0)?.into_bytes()),
        part: u32::try_from(row.try_get::<_, i32>(1)?).map_err(|_| Failure::unreadable())?,
        fence: row.try_get::<_, i64>(2)?.cast_unsigned(),
    })
}

/// A part that was claimed, whole. Nobody else writes to it, unless it has been lost: then what is read is of no use.
pub(super) async fn job(client: &Object, key: PartKey) -> Result<Job, Failure> {
    let part = "SELECT d.tenant, d.created_ms, d.reason, d.reference, d.shares, d.parts, d.cancelled_ms IS NOT NULL,
            p.first, p.contacts,
            ARRAY (SELECT body FROM onedelete.contacts WHERE deletion = $1 AND part = $2 ORDER BY seq),
            ARRAY (SELECT body FROM onedelete.results WHERE deletion = $1 AND part = $2 ORDER BY fence, number, seq),
            ARRAY (SELECT body FROM onedelete.identifiers WHERE deletion = $1 AND part = $2 ORDER BY seq)
        FROM onedelete.parts p JOIN onedelete.deletions d ON d.id = p.deletion
        WHERE p.deletion = $1 AND p.part = $2";
    let attempts = "SELECT share, ticket, attempts, in_doubt, closed, last, slots FROM onedelete.attempts
        WHERE deletion = $1 AND part = $2 ORDER BY share, ticket";
    let (id, number) = (uuid(key.deletion), int(key.part)?);
    // Both are sent at once.
    let (part, attempts) =
        try_join(query_one(client, part, &[&id, &number]), query(client, attempts, &[&id, &number])).await?;
    let shares: Vec<&str> = part.try_get(4)?;
    let page = body::page(
        part.try_get(7)?,
        part.try_get(8)?,
        &part.try_get::<_, Vec<_>>(9)?,
        &part.try_get::<_, Vec<_>>(10)?,
    )?;
    Ok(Job {
        attempts: past(&attempts, shares.len())?,
        head: Arc::new(head(key.deletion, &part, [0, 1, 2, 3, 4])?),
        parts: u32::try_from(part.try_get::<_, i32>(5)?).map_err(|_| Failure::unreadable())?,
        key,
        part: Arc::new(body::part(key.part, page, &part.try_get::<_, Vec<_>>(11)?)?),
        cancelled: part.try_get(6)?,
    })
}

/// What is told of a deletion, from these columns: tenant, time, reason, reference, shares.
pub(super) fn head(id: DeletionId, row: &Row, columns: [usize; 5]) -> Result<Head, Failure> {
    let [tenant, created_ms, reason, reference, shares] = columns;
    let text = |column: usize| -> Result<Option<String>, Failure> {
        let bytes: Option<Vec<u8>> = row.try_get(column)?;
        bytes.map(String::from_utf8).transpose().map_err(|_| Failure::unreadable())
    };
    Ok(Head {
        id,
        tenant: row.try_get::<_, &str>(tenant)?.into(),
        created_ms: row.try_get(created_ms)?,
        reason: text(reason)?,
        reference: text(reference)?,
        shares: row.try_get::<_, Vec<&str>>(shares)?.into_iter().map(Arc::from).collect(),
    })
}

/// The calls of each share, in the order of their tickets: that in which they were sent.
fn past(rows: &[Row], shares: usize) -> Result<Vec<Vec<Attempt>>, Failure> {
    let mut attempts = vec![Vec::new(); shares];
    for row in rows {
        let share = usize::try_from(row.try_get::<_, i32>(0)?).ok().and_then(|share| attempts.get_mut(share));
        let slots: Vec<i32> = row.try_get(6)?;
        share.ok_or_else(Failure::unreadable)?.push(Attempt {
            ticket: Ticket(row.try_get::<_, i64>(1)?.cast_unsigned()),
            attempts: u32::try_from(row.try_get::<_, i64>(2)?).map_err(|_| Failure::unreadable())?,
            in_doubt: row.try_get(3)?,
            closed: row.try_get(4)?,
            last: row.try_get::<_, Option<&str>>(5)?.and_then(FaultCode::find),
            slots: slots.into_iter().map(|slot| Slot(slot.cast_unsigned())).collect(),
        });
    }
    Ok(attempts)
}

/// Says that parts are still being worked, and how they stand.
pub(super) async fn renew(client: &Object, keys: &[PartKey], lease_ms: i64) -> Result<Vec<Hold>, Failure> {
    let sql = "WITH kept AS (
            UPDATE onedelete.parts p SET lease_until = clock_timestamp() + $4 * interval '1 ms'
            FROM unnest($1::uuid[], $2::integer[], $3::bigint[]) WITH ORDINALITY AS k (deletion, part, fence, place)
            WHERE p.deletion = k.deletion AND p.part = k.part AND p.fence = k.fence
                AND p.accepted AND p.over_at IS NULL AND p.lease_until IS NOT NULL
            RETURNING k.place, p.deletion
        ) SELECT place, cancelled_ms IS NOT NULL FROM kept JOIN onedelete.deletions ON id = deletion";
    let mut ids = Vec::with_capacity(keys.len());
    let mut parts = Vec::with_capacity(keys.len());
    let mut fences = Vec::with_capacity(keys.len());
    for key in keys {
        ids.push(uuid(key.deletion));
        parts.push(int(key.part)?);
        fences.push(key.fence.cast_signed());
    }
    let mut holds = vec![Hold::Lost; keys.len()];
    for row in query(client, sql, &[&ids, &parts, &fences, &(lease_ms as f64)]).await? {
        let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).ok().and_then(|place| holds.get_mut(place));
        let hold = if row.try_get(1)? { Hold::Cancelled } else { Hold::Held };
        *place.ok_or_else(Failure::unreadable)? = hold;
    }
    Ok(holds)
}

/// Gives a part back, if it is theirs.
pub(super) async fn release(client: &Object, key: PartKey) -> Result<(), Failure> {
    let sql = "UPDATE onedelete.parts SET lease_until = NULL
        WHERE deletion = $1 AND part = $2 AND fence = $3 AND over_at IS NULL AND lease_until IS NOT NULL";
    query(client, sql, &[&uuid(key.deletion), &int(key.part)?, &key.fence.cast_signed()]).await?;
    Ok(())
}

/// Puts down that a call is about to be sent.
pub(super) async fn intent(client: &Object, intent: &Intent) -> Result<(), Failure> {
    let sql = "WITH held AS MATERIALIZED (
            SELECT FROM onedelete.parts WHERE deletion = $1 AND part = $2 AND fence = $3
                AND accepted AND over_at IS NULL AND lease_until IS NOT NULL
            FOR KEY SHARE
        ), put AS (
            INSERT INTO onedelete.attempts (deletion, part, fence, share, ticket, attempts, in_doubt, slots)
            SELECT $1, $2, $3, $4, $5, $6, $7, $8 FROM held ON CONFLICT DO NOTHING
            RETURNING ticket
        ) SELECT EXISTS (SELECT FROM held), EXISTS (SELECT FROM put)";
    let key = intent.key;
    let (id, part, fence) = (uuid(key.deletion), int(key.part)?, key.fence.cast_signed());
    let (share, ticket) = (i32::from(intent.share), intent.ticket.0.cast_signed());
    let slots: Vec<i32> = intent.slots.iter().map(|slot| slot.0.cast_signed()).collect();
    let attempts = i64::from(intent.attempts);
    let row =
        query_one(client, sql, &[&id, &part, &fence, &share, &ticket, &attempts, &intent.in_doubt, &slots]).await?;
    match (row.try_get(0)?, row.try_get(1)?) {
        (false, _) => return Err(Failure::Refused(StoreError::Fenced)),
        (true, true) => return Ok(()),
        (true, false) => {}
    }
    // There is a call of this number: the same, put down by an earlier attempt, or the caller has counted wrong.
    let sql = "SELECT fence = $5 AND slots = $6 FROM onedelete.attempts
        WHERE deletion = $1 AND part = $2 AND share = $3 AND ticket = $4";
    let row = query_one(client, sql, &[&id, &part, &share, &ticket, &fence, &slots]).await?;
    if row.try_get(0)? { Ok(()) } else { Err(Failure::broken("two calls have the same number")) }
}

/// A part's row says what is open of it and how many results of each kind it has, so both change with the results. What
/// is of no use when nothing is open goes with the last of them.
///
/// Several records of one part wait for its row at the same time. It is locked and changed at once: with a lock first
/// and the change after it, the server finds deadlocks among them.
///
/// A record that was put down before has rows in `results`. What another attempt at it puts down at the same time is
/// not seen there yet: then its rows are in the way of this one's, or the part is over already, and nothing of this one
/// is done. So a refusal is only believed when it comes twice: by the second time, the other attempt has ended.
static RECORD: LazyLock<String> = LazyLock::new(|| {
    let add = |(column, n): (&&str, usize)| format!("{column} = p.{column} + ($6::integer[])[{n}]");
    let tally = Tally::COLUMNS.iter().zip(1..).map(add).collect::<Vec<_>>().join(", ");
    let before = "SELECT FROM onedelete.results WHERE deletion = $1 AND part = $2 AND fence = $3 AND number = $4";
    format!(
        "WITH now AS (
            UPDATE onedelete.parts p SET open = p.open - $5, {tally},
                over_at = CASE WHEN p.open = $5 THEN clock_timestamp() END,
                lease_until = CASE WHEN p.open > $5 THEN p.lease_until END
            WHERE p.deletion = $1 AND p.part = $2 AND p.fence = $3
                AND p.accepted AND p.over_at IS NULL AND p.lease_until IS NOT NULL AND NOT EXISTS ({before})
            RETURNING p.open
        ), put AS (
            INSERT INTO onedelete.results (deletion, part, fence, number, seq, body)
            SELECT $1, $2, $3, $4, seq, body FROM now, unnest($7::bytea[]) WITH ORDINALITY AS rows (body, seq)
        ), closed AS (
            UPDATE onedelete.attempts a
            SET closed = true, attempts = c.attempts, in_doubt = c.in_doubt, last = c.last
            FROM now, unnest($9::bigint[], $10::bigint[], $11::boolean[], $12::text[])
                AS c (ticket, attempts, in_doubt, last)
            WHERE now.open > 0 AND a.deletion = $1 AND a.part = $2 AND a.share = $8 AND a.ticket = c.ticket
        ), calls AS (
            DELETE FROM onedelete.attempts a USING now WHERE now.open = 0 AND a.deletion = $1 AND a.part = $2
        ), erased AS (
            DELETE FROM onedelete.identifiers i USING now
            WHERE now.open = 0 AND $13 AND i.deletion = $1 AND i.part = $2
            RETURNING i.seq
        ) SELECT EXISTS (SELECT FROM now) OR EXISTS (
            SELECT FROM onedelete.parts WHERE deletion = $1 AND part = $2 AND fence = $3 AND EXISTS ({before})
        ), EXISTS (SELECT FROM erased)"
    )
});

/// Puts down how calls ended. Whether identifiers were erased.
pub(super) async fn record(client: &Object, record: &Record, keep_identifiers: bool) -> Result<bool, Failure> {
    let key = record.key;
    let tally = Tally::of_runs(&record.settled);
    let closed = &record.closed;
    let tickets: Vec<_> = closed.iter().map(|closed| closed.ticket.0.cast_signed()).collect();
    let attempts: Vec<_> = closed.iter().map(|closed| i64::from(closed.attempts)).collect();
    let in_doubt: Vec<_> = closed.iter().map(|closed| closed.in_doubt).collect();
    let last: Vec<_> = closed.iter().map(|closed| closed.last.map(FaultCode::as_str)).collect();
    let parameters: [Parameter<'_>; 13] = [
        &uuid(key.deletion),
        &int(key.part)?,
        &key.fence.cast_signed(),
        &i64::from(record.number),
        &int(tally.total())?,
        &tally::numbers(&tally)?,
        &body::results_of(&record.settled)?,
        &i32::from(record.share),
        &tickets,
        &attempts,
        &in_doubt,
        &last,
        &!keep_identifiers,
    ];
    let statement = client.prepare_cached(&RECORD).await?;
    let mut looked_again = false;
    loop {
        let row = match client.query_one(&statement, &parameters).await {
            // The first try of this record, if its answer was lost, may be carried out while this one waits for its lock.
            Err(error) if !looked_again && error.code().is_some_and(|code| ALREADY.contains(code)) => None,
            done => Some(done?),
        };
        if let Some(row) = row
            && row.try_get(0)?
        {
            return Ok(row.try_get(1)?);
        }
        if looked_again {
            return Err(Failure::Refused(StoreError::Fenced));
        }
        looked_again = true;
    }
}

/// Closes a deletion whose parts are all over. Whether it is closed.
///
/// The row is locked first. Parts are looked at as they were when the statement began, and that is enough: whoever
/// records the last result has had its answer before asking for this, so of several that end the last parts at once,
/// the last to begin this sees all of them.
pub(super) async fn finish(client: &Object, id: DeletionId, finished_ms: i64) -> Result<bool, Failure> {
    let sql = "WITH head AS MATERIALIZED (
            SELECT finished_ms FROM onedelete.deletions WHERE id = $1 FOR NO KEY UPDATE
        ), closed AS (
            UPDATE onedelete.deletions d
            SET finished_ms = $2, kept = EXISTS (SELECT FROM onedelete.identifiers WHERE deletion = $1)
            FROM head WHERE d.id = $1 AND head.finished_ms IS NULL
                AND NOT EXISTS (SELECT FROM onedelete.parts WHERE deletion = $1 AND over_at IS NULL)
            RETURNING d.id
        ), key AS (
            UPDATE onedelete.claims SET finished_ms = $2 FROM closed WHERE deletion = closed.id
        ) SELECT finished_ms IS NOT NULL OR EXISTS (SELECT FROM closed) FROM head";
    let row = query_opt(client, sql, &[&uuid(id), &finished_ms]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(false))
}

/// Closes deletions whose parts have all been over for longer than a lease: whoever should have closed them is gone.
pub(super) async fn finish_left_behind(client: &Object, lease_ms: i64) -> Result<(), Failure> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "WITH left_behind AS MATERIALIZED (
                SELECT id FROM onedelete.deletions d WHERE finished_ms IS NULL AND NOT EXISTS (
                    SELECT FROM onedelete.parts p WHERE p.deletion = d.id
                        AND (over_at IS NULL OR over_at > clock_timestamp() - $1 * interval '1 ms')
                ) LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
            ), closed AS (
                UPDATE onedelete.deletions d
                SET finished_ms = {NOW_MS}, kept = EXISTS (SELECT FROM onedelete.identifiers i WHERE i.deletion = d.id)
                FROM left_behind l WHERE d.id = l.id
                RETURNING d.id, d.finished_ms
            ) UPDATE onedelete.claims c SET finished_ms = closed.finished_ms FROM closed WHERE c.deletion = closed.id"
        )
    });
    query(client, &SQL, &[&(lease_ms as f64)]).await?;
    Ok(())
}

/// Puts down that nothing more shall be sent for a deletion.
pub(super) async fn cancel(client: &Object, id: DeletionId, cancelled_ms: i64) -> Result<(), Failure> {
    let sql = "UPDATE onedelete.deletions SET cancelled_ms = $2
        WHERE id = $1 AND finished_ms IS NULL AND cancelled_ms IS NULL";
    query(client, sql, &[&uuid(id), &cancelled_ms]).await?;
    Ok(())
}
