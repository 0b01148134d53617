//! Reading back: deletions, their parts, lists and the backlog.
//!
//! Nothing here locks or waits for a write. Each answer is one statement, so it shows one moment.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use deadpool_postgres::Object;
use tokio_postgres::Row;
use uuid::Uuid;

use super::arrive::{int, uuid};
use super::body::{self, Hidden};
use super::fault::Failure;
use super::pool::{Parameter, query, query_opt};
use super::{tally, work};
use crate::store::{Accepted, Claim, DeletionId, Filter, Page, Summary, Tally};

/// A summary of each deletion that `of` selects, newest first.
fn summaries(of: &str) -> String {
    let sums = Tally::COLUMNS.map(|column| format!("coalesce(sum({column}), 0)::bigint")).join(", ");
    format!(
        "SELECT d.id, d.tenant, d.created_ms, d.reason, d.reference, d.shares, d.finished_ms, d.cancelled_ms,
            d.contacts, d.parts, t.*
        FROM ({of}) d CROSS JOIN LATERAL (SELECT {sums} FROM onedelete.parts WHERE deletion = d.id) t
        ORDER BY d.id DESC"
    )
}

fn summary(row: &Row) -> Result<Summary, Failure> {
    let number = |column: usize| -> Result<u32, Failure> {
        row.try_get::<_, i32>(column)?.try_into().map_err(|_| Failure::unreadable())
    };
    let id = DeletionId::from_bytes(row.try_get::<_, Uuid>(0)?.into_bytes());
    Ok(Summary {
        head: work::head(id, row, [1, 2, 3, 4, 5])?,
        finished_ms: row.try_get(6)?,
        cancelled_ms: row.try_get(7)?,
        contacts: number(8)?,
        parts: number(9)?,
        tally: tally::read(row, 10)?,
    })
}

/// A deletion without its contacts.
pub(super) async fn read(client: &Object, id: DeletionId) -> Result<Option<Summary>, Failure> {
    static SQL: LazyLock<String> = LazyLock::new(|| summaries("SELECT * FROM onedelete.deletions WHERE id = $1"));
    query_opt(client, &SQL, &[&uuid(id)]).await?.as_ref().map(summary).transpose()
}

/// The same, if it is this tenant's.
pub(super) async fn read_of(client: &Object, tenant: &str, id: DeletionId) -> Result<Option<Summary>, Failure> {
    static SQL: LazyLock<String> =
        LazyLock::new(|| summaries("SELECT * FROM onedelete.deletions WHERE id = $1 AND tenant = $2"));
    query_opt(client, &SQL, &[&uuid(id), &tenant]).await?.as_ref().map(summary).transpose()
}

/// One part's contacts and results.
pub(super) async fn page(client: &Object, id: DeletionId, part: u32) -> Result<Option<Page>, Failure> {
    let sql = "SELECT p.first, p.contacts,
            ARRAY (SELECT body FROM onedelete.contacts WHERE deletion = $1 AND part = $2 ORDER BY seq),
            ARRAY (SELECT body FROM onedelete.results WHERE deletion = $1 AND part = $2 ORDER BY fence, number, seq)
        FROM onedelete.parts p WHERE p.deletion = $1 AND p.part = $2 AND p.accepted";
    let Ok(part) = int(part) else { return Ok(None) };
    let Some(row) = query_opt(client, sql, &[&uuid(id), &part]).await? else { return Ok(None) };
    let (asked, results): (Vec<&[u8]>, Vec<&[u8]>) = (row.try_get(2)?, row.try_get(3)?);
    body::page(row.try_get(0)?, row.try_get(1)?, &asked, &results).map(Some)
}

/// A tenant's deletions, newest first.
pub(super) async fn list(client: &Object, filter: &Filter) -> Result<Vec<Summary>, Failure> {
    let tenant = &*filter.tenant;
    let reference = Hidden(filter.reference.as_deref().map(str::as_bytes));
    let connection = filter.connection.as_deref();
    let within: Option<Vec<&str>> = filter.within.as_ref().map(|all| all.iter().map(|name| &**name).collect());
    let before = filter.before.map(uuid);
    let most = i64::try_from(filter.most).unwrap_or(i64::MAX);

    // Only what is asked for stands in the statement, so that each form of it finds its index.
    let mut sql = "SELECT * FROM onedelete.deletions WHERE tenant = $1".to_owned();
    let mut parameters: Vec<Parameter<'_>> = vec![&tenant, &most];
    match filter.finished {
        Some(true) => sql += " AND finished_ms IS NOT NULL",
        Some(false) => sql += " AND finished_ms IS NULL",
        None => {}
    }
    let mut add = |wanted: bool, condition: &str, parameter| {
        if wanted {
            parameters.push(parameter);
            sql += &condition.replace('?', &format!("${}", parameters.len()));
        }
    };
    add(reference.0.is_some(), " AND reference = ?", &reference);
    add(connection.is_some(), " AND ?::text = ANY (shares)", &connection);
    add(within.is_some(), " AND shares <@ ?::text[]", &within);
    add(before.is_some(), " AND id < ?", &before);
    sql += " ORDER BY id DESC LIMIT $2";
    query(client, &summaries(&sql), &parameters).await?.iter().map(summary).collect()
}

/// How many contacts of each tenant are not settled.
pub(super) async fn claimed(client: &Object, claim: Claim) -> Result<Accepted, Failure> {
    let sql = "SELECT fingerprint, deletion FROM onedelete.claims
        WHERE scope = $1 AND (finished_ms IS NULL OR finished_ms >= $2)";
    let row = query_opt(client, sql, &[&claim.scope.as_slice(), &claim.free_before_ms]).await?;
    let Some(row) = row else { return Ok(Accepted::New) };
    if row.try_get::<_, &[u8]>(0)? != claim.fingerprint {
        return Ok(Accepted::Other);
    }
    let id: uuid::Uuid = row.try_get(1)?;
    Ok(Accepted::Before(DeletionId::from_bytes(id.into_bytes())))
}

/// How many contacts of each tenant are not settled.
pub(super) async fn backlog(client: &Object) -> Result<HashMap<Arc<str>, u64>, Failure> {
    let sql =
        "SELECT tenant, sum(open)::bigint FROM onedelete.parts WHERE accepted AND over_at IS NULL GROUP BY tenant";
    let rows = query(client, sql, &[]).await?;
    let open = |row: &Row| {
        let open = u64::try_from(row.try_get::<_, i64>(1)?).map_err(|_| Failure::unreadable())?;
        Ok((row.try_get::<_, &str>(0)?.into(), open))
    };
    rows.iter().map(open).collect()
}
