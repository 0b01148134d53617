//! Forgetting what was kept long enough.
//!
//! Several gateways may do it at once: each passes over what another has locked. A deletion is forgotten in two steps,
//! so that a large one is no large transaction: first it is gone for everybody, and its parts are as drafts that nobody
//! will accept; then those go, some at a time.

use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::fault::Failure;
use super::pool::{query, query_one};
use crate::store::{Purge, Purged};

/// About so many rows of contacts, identifiers, attempts and results belong to a part.
const PART_ROWS: usize = 20;
/// When the parts of a forgotten deletion were "begun": before everything.
const FORGOTTEN: i64 = i64::MIN;

/// What is to be forgotten, one statement each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Deletions,
    Parts,
    Identifiers,
    Keys,
    Paces,
}

/// In an order in which what an earlier step leaves over is found by a later one.
pub(super) const STEPS: [Step; 5] = [Step::Deletions, Step::Parts, Step::Identifiers, Step::Keys, Step::Paces];

/// What a step did. Whether it erased identifiers.
pub(super) async fn step(
    client: &Object,
    step: Step,
    purge: Purge,
    keep_identifiers: bool,
) -> Result<(Purged, bool), Failure> {
    let mut purged = Purged::default();
    let mut erased = false;
    match step {
        Step::Deletions => {
            let Some(before_ms) = purge.deletions_before_ms else { return Ok((purged, false)) };
            let most = (purge.most / PART_ROWS).max(1);
            purged.deletions = forget(client, before_ms, most).await?;
            purged.more = purged.deletions >= most;
        }
        Step::Parts => {
            let most = (purge.most / PART_ROWS).max(1);
            let (parts, drafts) = drop_loose_parts(client, purge.drafts_before_ms, most).await?;
            purged.drafts = drafts;
            purged.more = parts >= most;
            erased = parts > 0;
        }
        Step::Identifiers => {
            // Where they are not to be kept at all, those that once were are too old.
            let before_ms = if keep_identifiers { purge.identifiers_before_ms } else { i64::MAX };
            let most = (purge.most / PART_ROWS).max(1);
            purged.identifiers = erase(client, before_ms, most).await?;
            purged.more = purged.identifiers >= most;
            erased = purged.identifiers > 0;
        }
        Step::Keys => {
            let most = purge.most.max(1);
            purged.keys = free_keys(client, purge.keys_before_ms, most).await?;
            purged.more = purged.keys >= most;
        }
        Step::Paces => drop_idle_paces(client).await?,
    }
    Ok((purged, erased))
}

/// Makes deletions that were finished before absent, with the keys that they were asked for under.
async fn forget(client: &Object, before_ms: i64, most: usize) -> Result<usize, Failure> {
    let sql = "WITH old AS MATERIALIZED (
            SELECT id FROM onedelete.deletions WHERE finished_ms < $1
            ORDER BY finished_ms LIMIT $2 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM onedelete.deletions d USING old WHERE d.id = old.id RETURNING d.id
        ), keys AS (
            DELETE FROM onedelete.claims c USING gone WHERE c.deletion = gone.id
        ), parts AS (
            UPDATE onedelete.parts p SET accepted = false, begun_ms = $3 FROM gone WHERE p.deletion = gone.id
        ) SELECT count(*) FROM gone";
    count(&query_one(client, sql, &[&before_ms, &limit(most), &FORGOTTEN]).await?, 0)
}

/// Drops parts of forgotten deletions, and drafts none of whose parts came after. How many parts, and of how many
/// drafts.
async fn drop_loose_parts(client: &Object, before_ms: i64, most: usize) -> Result<(usize, usize), Failure> {
    let sql = "WITH loose AS MATERIALIZED (
            SELECT deletion, part, begun_ms FROM onedelete.parts p WHERE NOT accepted AND begun_ms < $1 AND NOT EXISTS (
                SELECT FROM onedelete.parts later
                WHERE later.deletion = p.deletion AND NOT later.accepted AND later.begun_ms >= $1
            ) ORDER BY begun_ms LIMIT $2 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM onedelete.parts p USING loose l WHERE p.deletion = l.deletion AND p.part = l.part
        ), asked AS (
            DELETE FROM onedelete.contacts c USING loose l WHERE c.deletion = l.deletion AND c.part = l.part
        ), named AS (
            DELETE FROM onedelete.identifiers i USING loose l WHERE i.deletion = l.deletion AND i.part = l.part
        ), calls AS (
            DELETE FROM onedelete.attempts a USING loose l WHERE a.deletion = l.deletion AND a.part = l.part
        ), known AS (
            DELETE FROM onedelete.results r USING loose l WHERE r.deletion = l.deletion AND r.part = l.part
        ) SELECT count(*), count(DISTINCT deletion) FILTER (WHERE begun_ms > $3) FROM loose";
    let row = query_one(client, sql, &[&before_ms, &limit(most), &FORGOTTEN]).await?;
    Ok((count(&row, 0)?, count(&row, 1)?))
}

/// Erases the identifiers of deletions that were finished before. Of how many.
async fn erase(client: &Object, before_ms: i64, most: usize) -> Result<usize, Failure> {
    let sql = "WITH old AS MATERIALIZED (
            SELECT id FROM onedelete.deletions WHERE kept AND finished_ms < $1
            ORDER BY finished_ms LIMIT $2 FOR UPDATE SKIP LOCKED
        ), named AS (
            DELETE FROM onedelete.identifiers i USING old WHERE i.deletion = old.id
        ), said AS (
            UPDATE onedelete.deletions d SET kept = false FROM old WHERE d.id = old.id
        ) SELECT count(*) FROM old";
    count(&query_one(client, sql, &[&before_ms, &limit(most)]).await?, 0)
}

/// Frees keys of deletions that were finished before. The row is looked at anew once it is locked: a key that was taken
/// for another deletion meanwhile is not free.
async fn free_keys(client: &Object, before_ms: i64, most: usize) -> Result<usize, Failure> {
    let sql = "WITH old AS MATERIALIZED (
            SELECT scope FROM onedelete.claims WHERE finished_ms < $1
            ORDER BY finished_ms LIMIT $2 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM onedelete.claims c USING old WHERE c.scope = old.scope
        ) SELECT count(*) FROM old";
    count(&query_one(client, sql, &[&before_ms, &limit(most)]).await?, 0)
}

/// Drops the paces of connections that were not called for a day.
async fn drop_idle_paces(client: &Object) -> Result<(), Failure> {
    let sql = "DELETE FROM onedelete.paces
        WHERE greatest(next_us, held_us) < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 86400000000";
    query(client, sql, &[]).await?;
    Ok(())
}

/// Lets the database overwrite what was erased. It passes over what others are busy with.
pub(super) async fn vacuum(client: &Object) -> Result<(), Failure> {
    Ok(client.batch_execute("VACUUM (SKIP_LOCKED) onedelete.identifiers").await?)
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn count(row: &Row, column: usize) -> Result<usize, Failure> {
    usize::try_from(row.try_get::<_, i64>(column)?).map_err(|_| Failure::unreadable())
}
