//! The ledger that the settings name: opens it, and does with it what operators ask for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::clock;
use crate::engine::driver::Retention;
use crate::settings::{Settings, StoreUrl};
use crate::store::{self, Ledger, Memory, Options, Postgres, PostgresSettings, Purged, Report, Sqlite, StoreError};

/// Opens the ledger, or begins one.
///
/// # Errors
/// One line that says what is the matter.
pub async fn open(settings: &Settings) -> Result<Arc<dyn Ledger>, StoreError> {
    let Secrets { hash_key, password } = Secrets::read(settings).map_err(StoreError::Broken)?;
    let hash_key = hash_key.map(|secret| crate::api::short_hash(secret.expose_secret()));
    let keep_identifiers = settings.retention.identifiers_s > 0;
    match &settings.store.url {
        StoreUrl::Memory => Ok(Arc::new(Memory::default())),
        StoreUrl::Sqlite(path) => Ok(Arc::new(Sqlite::open(path, Options { hash_key, keep_identifiers })?)),
        StoreUrl::Postgres(url) => {
            let store = &settings.store;
            let named = PostgresSettings {
                password,
                ca_file: Some(store.ca_file.clone()).filter(|file| !file.as_os_str().is_empty()),
                pool_size: store.pool_size,
                connect_timeout: Duration::from_millis(store.connect_timeout_ms),
                statement_timeout: Duration::from_millis(store.statement_timeout_ms),
                lease: Duration::from_secs(store.lease_s),
                hash_key,
                keep_identifiers,
                ..PostgresSettings::new(SecretString::from(url.as_str()))
            };
            Ok(Arc::new(Postgres::open(named).await?))
        }
    }
}

/// What the settings of the store refer to.
struct Secrets {
    hash_key: Option<SecretString>,
    password: Option<SecretString>,
}

impl Secrets {
    fn read(settings: &Settings) -> Result<Self, String> {
        let named = |name: &'static str| move |message: String| format!("store.{name}: {message}");
        Ok(Self {
            hash_key: settings.store.hash_key.read().map_err(named("hash_key"))?,
            password: settings.store.password.read().map_err(named("password"))?,
        })
    }
}

/// Reads the secrets that the store needs, and keeps none.
///
/// # Errors
/// One line: which setting leads nowhere.
pub fn check_secrets(settings: &Settings) -> Result<(), String> {
    Secrets::read(settings).map(drop)
}

/// Reads the whole ledger and says what is wrong with it. A gateway may be at work on it. This blocks.
///
/// # Errors
/// One line, if it cannot be read or is not kept in a file.
pub fn check(settings: &Settings) -> Result<Report, String> {
    store::check(file(settings, "amcheck (pg_amcheck) checks a Postgres database")?)
}

/// Copies the ledger as it is now to a file that does not exist yet. A gateway may be at work on it. This blocks.
///
/// # Errors
/// One line, if it cannot be copied or is not kept in a file.
pub fn backup(settings: &Settings, target: &Path) -> Result<(), String> {
    store::backup(file(settings, "pg_dump --schema=onedelete copies what stands in Postgres")?, target)
}

/// Forgets what the settings do not want kept, and finished deletions that are older than so many seconds. A deletion
/// goes with its key, so those whose key still acts stay, unless `with_keys` gives their keys up.
///
/// # Errors
/// One line: a ledger in a file must not be in use.
pub async fn purge(settings: &Settings, older_than_s: Option<u64>, with_keys: bool) -> Result<Purged, StoreError> {
    let ledger = open(settings).await?;
    let now_ms = clock::unix_ms();
    let mut purge = retention(settings).purge(now_ms);
    if let Some(seconds) = older_than_s {
        let before_ms = now_ms.saturating_sub(ms(seconds));
        let before_ms = if with_keys { before_ms } else { before_ms.min(purge.keys_before_ms) };
        purge.deletions_before_ms = Some(purge.deletions_before_ms.map_or(before_ms, |ms| ms.max(before_ms)));
    }
    let mut all = Purged::default();
    let done = loop {
        match ledger.purge(purge).await {
            Ok(some) => {
                all.keys += some.keys;
                all.deletions += some.deletions;
                all.identifiers += some.identifiers;
                all.drafts += some.drafts;
                if !some.more {
                    break Ok(all);
                }
            }
            Err(err) => break Err(err),
        }
    };
    ledger.close().await;
    done
}

/// How long what is kept.
pub(super) fn retention(settings: &Settings) -> Retention {
    let retention = settings.retention;
    Retention {
        keys_ms: ms(retention.keys_s),
        deletions_ms: (retention.deletions_s > 0).then(|| ms(retention.deletions_s)),
        identifiers_ms: ms(retention.identifiers_s),
    }
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

fn file<'s>(settings: &'s Settings, elsewhere: &str) -> Result<&'s PathBuf, String> {
    match &settings.store.url {
        StoreUrl::Sqlite(path) => Ok(path),
        StoreUrl::Postgres(_) => Err(format!("the store is not in a file: {elsewhere}")),
        StoreUrl::Memory => Err("memory: keeps nothing".to_owned()),
    }
}
