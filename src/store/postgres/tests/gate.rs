//! Holds statements up in their middle: where they insert into a table, after whatever they locked before.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::machine::{self, Database};

/// A table that nothing is inserted into for now.
pub(super) struct Gate {
    url: String,
    open: oneshot::Sender<()>,
    holder: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Gate {
    /// Holds up whatever is inserted into a table of the ledger's from now on.
    pub(super) async fn shut(database: &Database, table: &str) -> Self {
        database.execute(&[
            "CREATE FUNCTION onedelete.wait() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END'",
            &format!(
                "CREATE TRIGGER wait BEFORE INSERT ON onedelete.{table} FOR EACH ROW EXECUTE FUNCTION onedelete.wait()"
            ),
        ]);
        let (open, wait) = oneshot::channel();
        let (held, hold) = oneshot::channel();
        let url = database.url();
        let holder = spawn_blocking(move || {
            machine::on_connection(&url, async move |client| {
                client.batch_execute("SELECT pg_advisory_lock(1)").await?;
                held.send(()).unwrap();
                wait.await.unwrap();
                client.batch_execute("SELECT pg_advisory_unlock(1)").await
            })
        });
        hold.await.unwrap();
        Self { url: database.url(), open, holder }
    }

    /// Returns when so many statements wait: for the gate, or for one that does.
    pub(super) async fn wait_for(&self, statements: i64) {
        let start = tokio::time::Instant::now();
        loop {
            assert!(start.elapsed() < Duration::from_secs(60), "they do not wait for the gate");
            let url = self.url.clone();
            let waiting = spawn_blocking(move || {
                machine::on_connection(&url, async |client| {
                    let sql = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock'";
                    client.query_one(sql, &[]).await?.try_get::<_, i64>(0)
                })
            });
            if waiting.await.unwrap().unwrap() >= statements {
                return;
            }
        }
    }

    pub(super) async fn open(self) {
        self.open.send(()).unwrap();
        self.holder.await.unwrap().unwrap();
    }
}
