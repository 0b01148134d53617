//! How long a part, or a deletion that has only to be closed, is without anybody who works it, as the database says.
//!
//! It reads, and changes nothing. It is the one place of these tests that knows tables of the store.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::Wrong;
use crate::gateway::LEASE_S;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps the longest times.
#[derive(Default)]
pub(super) struct LeftAlone(Mutex<Longest>);

/// The longest that anything was left alone.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Longest {
    /// A part that is not over.
    pub(super) part: Duration,
    /// A deletion whose parts are over.
    pub(super) end: Duration,
}

impl Longest {
    pub(super) fn max(self, other: Self) -> Self {
        Self { part: self.part.max(other.part), end: self.end.max(other.end) }
    }
}

impl fmt::Display for Longest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, end) = (self.part.as_secs_f64(), self.end.as_secs_f64());
        write!(f, "at most {part:.1} s until a part was taken over, {end:.1} s until a deletion was closed for another")
    }
}

impl LeftAlone {
    /// Looks until told to end.
    pub(super) async fn watch(&self, url: &str, mut end: watch::Receiver<bool>) -> Result<(), Wrong> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
        let looking = async {
            let mut seen = HashMap::new();
            loop {
                let rows = client.simple_query(&sql()).await.map_err(failed)?;
                self.take(&rows, &mut seen);
                if *end.borrow() {
                    return Ok(());
                }
                // Its end is the end of waiting, and of one more look.
                let _ = tokio::time::timeout(PAUSE, end.changed()).await;
            }
        };
        tokio::select! {
            looked = looking => looked,
            lost = connection => Err(format!("the database: {lost:?}")),
        }
    }

    pub(super) fn longest(&self) -> Longest {
        *self.0.lock().unwrap()
    }

    /// `seen`: since when what nobody ever had has been waiting.
    fn take(&self, rows: &[SimpleQueryMessage], seen: &mut HashMap<String, Instant>) {
        let mut waiting = HashMap::new();
        for row in rows {
            let SimpleQueryMessage::Row(row) = row else { continue };
            let what = row.get(0).unwrap_or_default().to_owned();
            let alone = match row.get(1).map(|seconds| seconds.parse::<f64>().unwrap()) {
                Some(seconds) => Duration::from_secs_f64(seconds.max(0.0)),
                None => {
                    let since = seen.get(&what).copied().unwrap_or_else(Instant::now);
                    waiting.insert(what.clone(), since);
                    since.elapsed()
                }
            };
            let mut longest = self.0.lock().unwrap();
            *longest = longest.max(match row.get(2) {
                Some("part") => Longest { part: alone, ..Longest::default() },
                _ => Longest { end: alone, ..Longest::default() },
            });
        }
        *seen = waiting;
    }
}

/// What the database says of all that is not finished.
pub(super) async fn open(url: &str) -> Result<Vec<String>, Wrong> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
    let sql = "SELECT concat_ws(' ', p.deletion, 'part', p.part, 'of', d.parts, 'tenant', p.tenant,
            'accepted', p.accepted, 'over', p.over_at IS NOT NULL, 'contacts', p.contacts, 'open', p.open,
            'fence', p.fence, 'cancelled', d.cancelled_ms IS NOT NULL, 'lease ends in s',
            coalesce(round(extract(epoch FROM p.lease_until - clock_timestamp())::numeric, 1)::text, 'none'), 'calls',
            (SELECT count(*) FROM onedelete.attempts a WHERE a.deletion = p.deletion AND a.part = p.part AND NOT closed))
        FROM onedelete.deletions d JOIN onedelete.parts p ON p.deletion = d.id
        WHERE d.finished_ms IS NULL ORDER BY 1";
    let reading = async {
        let rows = client.simple_query(sql).await.map_err(failed)?;
        let text = |row: &SimpleQueryMessage| match row {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        Ok(rows.iter().filter_map(text).collect())
    };
    tokio::select! {
        read = reading => read,
        lost = connection => Err(format!("the database: {lost:?}")),
    }
}

/// A part is left alone from its owner's last sign of life, which is a lease before its lease ends; one that nobody has
/// is waiting. A deletion whose parts are over is left alone from the end of the last of them.
fn sql() -> String {
    format!(
        "SELECT deletion || ' ' || part || ' ' || fence,
            extract(epoch FROM clock_timestamp() - lease_until) + {LEASE_S}, 'part'
        FROM onedelete.parts WHERE accepted AND over_at IS NULL
        UNION ALL SELECT d.id::text, extract(epoch FROM clock_timestamp() - max(p.over_at)), 'end'
        FROM onedelete.deletions d JOIN onedelete.parts p ON p.deletion = d.id
        WHERE d.finished_ms IS NULL AND p.accepted
        GROUP BY d.id HAVING bool_and(p.over_at IS NOT NULL)"
    )
}

fn failed(error: tokio_postgres::Error) -> Wrong {
    format!("the database: {error}")
}
