//! Deletions that arrive: drafts, and their acceptance.
//!
//! Each is one statement; whoever waits for a row in it sees that row as it is by then (READ COMMITTED). The same one,
//! carried out twice, finds its own rows: the second waits for the first to end, for both insert the same keys.

use std::sync::LazyLock;

use deadpool_postgres::Object;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::body::{self, Bodies, Hidden};
use super::fault::Failure;
use super::pool::{Parameter, query, query_opt};
use super::tally;
use crate::store::{Accept, Accepted, DeletionId, Part, StoreError, Tally};

/// A part as the rows that it becomes.
struct Rows {
    number: i32,
    first: i32,
    contacts: i32,
    open: i32,
    tally: Vec<i32>,
    asked: Bodies,
    identifiers: Bodies,
    results: Bodies,
}

impl Rows {
    fn of(part: &Part, keep_identifiers: bool) -> Result<Self, Failure> {
        let tally = Tally::of(part.settled.iter().map(|(_, settled)| settled));
        let open = int(part.contacts.len())? - int(tally.total())?;
        // Nobody will ask for the identifiers of a part that is over before it begins.
        let needed = if open > 0 || keep_identifiers { part.identifiers.as_slice() } else { &[] };
        Ok(Self {
            number: int(part.number)?,
            first: int(part.first)?,
            contacts: int(part.contacts.len())?,
            open,
            tally: tally::numbers(&tally)?,
            asked: body::asked(part)?,
            identifiers: body::identifiers(needed)?,
            results: body::results(&part.settled)?,
        })
    }
}

/// What puts a part down, as further parts of a statement whose `from` answers one row if it shall be put down.
/// Its parameters: deletion, tenant, part, first, contacts, open, tally, rows of contacts, identifiers and results.
fn put(from: &str, accepted: bool, fence: &str, lease: &str) -> String {
    format!(
        "part AS (
            INSERT INTO onedelete.parts (deletion, part, tenant, accepted, begun_ms, first, contacts, open, fence,
                lease_until, over_at, {columns})
            SELECT $1, $3, $2, {accepted}, {now_ms}, $4, $5, $6, {fence},
                CASE WHEN $6 > 0 THEN {lease} END, CASE WHEN $6 = 0 THEN clock_timestamp() END, {tally}
            FROM {from} {conflict}
            RETURNING deletion, part
        ), asked AS (
            INSERT INTO onedelete.contacts (deletion, part, seq, body)
            SELECT deletion, part, seq, body FROM part, unnest($8::bytea[]) WITH ORDINALITY AS rows (body, seq)
        ), named AS (
            INSERT INTO onedelete.identifiers (deletion, part, seq, body)
            SELECT deletion, part, seq, body FROM part, unnest($9::bytea[]) WITH ORDINALITY AS rows (body, seq)
        ), known AS (
            INSERT INTO onedelete.results (deletion, part, fence, number, seq, body)
            SELECT deletion, part, 0, 0, seq, body FROM part, unnest($10::bytea[]) WITH ORDINALITY AS rows (body, seq)
        )",
        columns = Tally::COLUMNS.join(", "),
        tally = (1..=Tally::COLUMNS.len()).map(|n| format!("($7::integer[])[{n}]")).collect::<Vec<_>>().join(", "),
        now_ms = NOW_MS,
        // A draft that is there already was put down by an earlier attempt, as a whole.
        conflict = if accepted { "" } else { "ON CONFLICT DO NOTHING" },
    )
}

/// Milliseconds since 1970-01-01 UTC by the database's clock.
pub(super) const NOW_MS: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The types of the parameters of [`put`].
const PUT: &str = "SELECT $1::uuid, $2::text, $3::integer, $4::integer, $5::integer, $6::integer, $7::integer[]";

static DRAFT: LazyLock<String> = LazyLock::new(|| {
    let put = put("given", false, "0", "NULL::timestamptz");
    format!("WITH given AS ({PUT}), {put} SELECT FROM part")
});

/// Puts an earlier part of a deletion down that is still arriving.
pub(super) async fn draft(
    client: &Object,
    id: DeletionId,
    tenant: &str,
    part: &Part,
    keep_identifiers: bool,
) -> Result<(), Failure> {
    let rows = Rows::of(part, keep_identifiers)?;
    let id = uuid(id);
    query(
        client,
        &DRAFT,
        &[
            &id,
            &tenant,
            &rows.number,
            &rows.first,
            &rows.contacts,
            &rows.open,
            &rows.tally,
            &rows.asked,
            &rows.identifiers,
            &rows.results,
        ],
    )
    .await?;
    Ok(())
}

/// Throws drafts of a deletion away. One that is being accepted stays: its rows are looked at anew once it is.
pub(super) async fn discard(client: &Object, id: DeletionId) -> Result<(), Failure> {
    let sql = "WITH gone AS (
            DELETE FROM onedelete.parts WHERE deletion = $1 AND NOT accepted RETURNING deletion, part
        ), asked AS (
            DELETE FROM onedelete.contacts c USING gone g WHERE c.deletion = g.deletion AND c.part = g.part
        ), named AS (
            DELETE FROM onedelete.identifiers i USING gone g WHERE i.deletion = g.deletion AND i.part = g.part
        ), known AS (
            DELETE FROM onedelete.results r USING gone g WHERE r.deletion = g.deletion AND r.part = g.part
        ) SELECT FROM gone";
    query(client, sql, &[&uuid(id)]).await?;
    Ok(())
}

/// The key's row is locked first, so of many with the same key one goes on. `earlier` turns drafts into parts; where
/// one of them is gone, `contacts` would be null, which the table refuses, and with it everything here.
static ACCEPT: LazyLock<String> = LazyLock::new(|| {
    let put = put("new", true, "$18::bigint", "CASE WHEN $18 > 0 THEN clock_timestamp() + $19 * interval '1 ms' END");
    format!(
        "WITH given AS ({PUT}), key AS (
            INSERT INTO onedelete.claims AS c (scope, fingerprint, deletion)
            SELECT $11::bytea, $12::bytea, $1 WHERE $11 IS NOT NULL
            ON CONFLICT (scope) DO UPDATE SET
                fingerprint = CASE WHEN c.finished_ms < $13 THEN excluded.fingerprint ELSE c.fingerprint END,
                deletion = CASE WHEN c.finished_ms < $13 THEN excluded.deletion ELSE c.deletion END,
                finished_ms = CASE WHEN c.finished_ms < $13::bigint THEN NULL ELSE c.finished_ms END
            RETURNING c.fingerprint, c.deletion
        ), go AS (
            SELECT WHERE $11 IS NULL OR EXISTS (SELECT FROM key WHERE deletion = $1)
        ), earlier AS (
            UPDATE onedelete.parts SET accepted = true FROM go WHERE deletion = $1 AND NOT accepted AND part < $3
            RETURNING part
        ), new AS (
            INSERT INTO onedelete.deletions (id, tenant, created_ms, contacts, parts, reason, reference, shares)
            SELECT $1, $2, $14::bigint, CASE WHEN (SELECT count(*) FROM earlier) = $3 THEN $4 + $5 END, $3 + 1,
                $15::bytea, $16::bytea, $17::text[]
            FROM go ON CONFLICT DO NOTHING
            RETURNING id
        ), {put} SELECT fingerprint, deletion FROM key"
    )
});

/// Puts a deletion down, unless its key was used before.
pub(super) async fn accept(
    client: &Object,
    deletion: &Accept,
    lease_ms: i64,
    keep_identifiers: bool,
) -> Result<Accepted, Failure> {
    let head = &deletion.head;
    let rows = Rows::of(&deletion.last, keep_identifiers)?;
    let id = uuid(head.id);
    let scope = deletion.claim.as_ref().map(|claim| claim.scope.as_slice());
    let fingerprint = deletion.claim.as_ref().map(|claim| claim.fingerprint.as_slice());
    let free_before = deletion.claim.map(|claim| claim.free_before_ms);
    let (reason, reference) = (head.reason.as_ref(), head.reference.as_ref());
    let reason = Hidden(reason.map(String::as_bytes));
    let reference = Hidden(reference.map(String::as_bytes));
    let shares: Vec<&str> = head.shares.iter().map(|share| &**share).collect();
    let fence = i64::from(deletion.hold && deletion.last.number == 0);
    let tenant = &*head.tenant;
    let parameters: [Parameter<'_>; 19] = [
        &id,
        &tenant,
        &rows.number,
        &rows.first,
        &rows.contacts,
        &rows.open,
        &rows.tally,
        &rows.asked,
        &rows.identifiers,
        &rows.results,
        &scope,
        &fingerprint,
        &free_before,
        &head.created_ms,
        &reason,
        &reference,
        &shares,
        &fence,
        &(lease_ms as f64),
    ];
    let statement = client.prepare_cached(&ACCEPT).await?;
    let key = match client.query_opt(&statement, &parameters).await {
        Ok(key) => key,
        // Parts are missing, or an earlier attempt at this went well and left no draft to be found.
        Err(error) if error.code() == Some(&SqlState::NOT_NULL_VIOLATION) => {
            let there = query_opt(client, "SELECT FROM onedelete.deletions WHERE id = $1", &[&id]).await?;
            let missing = || StoreError::Broken("earlier parts of the deletion are gone".to_owned());
            return there.map(|_| Accepted::New).ok_or_else(|| Failure::Refused(missing()));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(key) = key else { return Ok(Accepted::New) };
    let before: Uuid = key.try_get(1)?;
    if before == id {
        return Ok(Accepted::New);
    }
    discard(client, head.id).await?;
    let same = key.try_get::<_, Option<&[u8]>>(0)? == fingerprint;
    Ok(if same { Accepted::Before(DeletionId::from_bytes(before.into_bytes())) } else { Accepted::Other })
}

/// An id as the database has it.
pub(super) fn uuid(id: DeletionId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

/// A number as the database has it.
pub(super) fn int(number: impl TryInto<i32>) -> Result<i32, Failure> {
    number.try_into().map_err(|_| Failure::broken("a number is too large"))
}
