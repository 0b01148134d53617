//! The pace of a connection that several gateways call, by the database's clock.
//!
//! It counts turns, not calls: one that is taken and not used is lost.

use std::sync::LazyLock;
use std::time::Duration;

use deadpool_postgres::Object;

use super::fault::Failure;
use super::pool::{query, query_one};
use crate::store::Turn;

/// Microseconds since 1970-01-01 UTC by the database's clock.
const NOW_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// `next_us` is when a call would come if all came evenly. A turn may come before that by as much as a burst takes
/// ($4), but not before `held_us`; each turn moves `next_us` on by one interval ($3) from there, from now, or from the
/// end of the hold, whichever is latest. Whoever waits for the row sees it as the one before left it.
static TURN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO onedelete.paces AS p (tenant, connection, next_us, held_us)
        VALUES ($1, $2, {NOW_US} + $3::bigint, 0)
        ON CONFLICT (tenant, connection)
            DO UPDATE SET next_us = greatest(p.next_us, p.held_us, {NOW_US}) + $3
        RETURNING greatest(p.next_us - $3 - $4::bigint, p.held_us) - {NOW_US}"
    )
});

/// Reserves a turn: how long to wait for it.
pub(super) async fn turn(client: &Object, turn: &Turn) -> Result<Duration, Failure> {
    let every = micros(turn.every);
    let ahead = every.saturating_mul(i64::from(turn.burst.saturating_sub(1)));
    let row = query_one(client, &TURN, &[&&*turn.tenant, &&*turn.connection, &every, &ahead]).await?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?).map_or(Duration::ZERO, Duration::from_micros))
}

/// Lets no turn come before so long from now.
pub(super) async fn hold(client: &Object, tenant: &str, connection: &str, hold: Duration) -> Result<(), Failure> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO onedelete.paces AS p (tenant, connection, next_us, held_us)
            VALUES ($1, $2, 0, {NOW_US} + $3::bigint)
            ON CONFLICT (tenant, connection) DO UPDATE SET held_us = greatest(p.held_us, excluded.held_us)"
        )
    });
    query(client, &SQL, &[&tenant, &connection, &micros(hold)]).await?;
    Ok(())
}

/// Rounded up, and no more than a century: sums stay within the column.
fn micros(duration: Duration) -> i64 {
    const CENTURY: u128 = 100 * 366 * 86_400 * 1_000_000;
    i64::try_from(duration.as_nanos().div_ceil(1_000).min(CENTURY)).unwrap_or(i64::MAX)
}
