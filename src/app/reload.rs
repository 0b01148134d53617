//! The configuration read again while the gateway runs: settings, tenants and the files of TLS, whole or not at all.
//!
//! Everything is read and checked first; the last good configuration stays where anything is wrong. Settings that hold from the next
//! start are left as they are, and named. It does not watch secrets, nor where issuers have their keys.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{bounds, limits};
use crate::api::Limits;
use crate::console;
use crate::desk::Desk;
use crate::engine::driver::Engine;
use crate::issuers::Issuers;
use crate::live::Live;
use crate::server::Configuration;
use crate::server::tls::Tls;
use crate::settings::{self, Deletions, Server, Settings, Upstream};
use crate::tenants::{self, Secrets, Tenants};
use crate::{clock, telemetry};

/// What gets to know a new configuration.
pub(super) struct Parts {
    pub(super) desk: Arc<Desk>,
    pub(super) issuers: Arc<Issuers>,
    pub(super) engine: Arc<Engine>,
    pub(super) limits: Arc<Live<Limits>>,
    pub(super) tls: Option<Arc<Tls>>,
}

/// Reads the configuration again, and knows which one is in use.
pub(super) struct Reloader {
    parts: Parts,
    file: OnceLock<PathBuf>,
    /// Held by whoever reads.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    /// In use.
    settings: Settings,
    version: String,
    since_ms: i64,
    refused: Option<Refused>,
    restart_needed: Vec<&'static str>,
    /// How the files looked when they were last read.
    looks: Option<u64>,
}

struct Refused {
    at_ms: i64,
    mistakes: Vec<String>,
}

/// So many mistakes are shown, each so many characters long. The log has all of them.
const SHOWN: (usize, usize) = (5, 300);
/// Without looks at the files, whether there shall be some is asked so often.
const LOOK_WHETHER: Duration = Duration::from_secs(5);

impl Refused {
    fn shown(&self) -> impl Iterator<Item = String> {
        self.mistakes.iter().take(SHOWN.0).map(|mistake| mistake.chars().take(SHOWN.1).collect())
    }
}

impl Reloader {
    /// With the configuration that the gateway starts with.
    pub(super) fn new(parts: Parts, settings: Settings, tenants: &Tenants) -> Self {
        let since_ms = clock::unix_ms();
        telemetry::in_use_since(since_ms.div_euclid(1_000));
        let version = version(&settings, tenants);
        let state = State { settings, version, since_ms, refused: None, restart_needed: Vec::new(), looks: None };
        Self { parts, file: OnceLock::new(), turn: tokio::sync::Mutex::new(()), state: Mutex::new(state) }
    }

    /// The settings came from this file. Only the first one counts. This blocks for a moment.
    pub(super) fn follow(&self, file: &Path) {
        let directory = self.state().settings.tenants.directory.clone();
        let looks = look(file, &directory);
        if self.file.set(file.to_owned()).is_ok() {
            self.state().looks = Some(looks);
        }
    }

    /// Which configuration is in use, for the console.
    pub(super) fn shown(&self) -> console::Configuration {
        let state = self.state();
        let first = |refused: &Refused| (refused.at_ms, refused.shown().next().unwrap_or_default());
        let refused = state.refused.as_ref().map(first);
        console::Configuration { version: state.version.clone(), loaded_ms: state.since_ms, refused }
    }

    /// Reads everything again. Whether it is in use now.
    pub(super) async fn reload(self: &Arc<Self>) -> bool {
        let _turn = self.turn.lock().await;
        let reloader = Arc::clone(self);
        tokio::task::spawn_blocking(move || reloader.read_and_use()).await.unwrap_or_else(|_| {
            self.refuse(vec!["the reading broke off".to_owned()]);
            false
        })
    }

    /// Reads everything again whenever the files have changed and have then stayed as they are for one look: until then, somebody
    /// may be writing them.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut before = self.state().looks;
        loop {
            let poll_ms = self.state().settings.tenants.poll_ms;
            let poll = if poll_ms == 0 { LOOK_WHETHER } else { Duration::from_millis(poll_ms) };
            if stop.run_until_cancelled(tokio::time::sleep(poll)).await.is_none() {
                return;
            }
            if poll_ms == 0 {
                continue;
            }
            let looks = self.look().await;
            let is_new = self.state().looks != looks;
            if is_new && before == looks {
                self.reload().await;
            }
            before = looks;
        }
    }

    async fn look(self: &Arc<Self>) -> Option<u64> {
        let file = self.file.get().cloned()?;
        let directory = self.state().settings.tenants.directory.clone();
        tokio::task::spawn_blocking(move || look(&file, &directory)).await.ok()
    }

    /// This blocks.
    fn read_and_use(&self) -> bool {
        let read = match self.file.get() {
            Some(file) => self.read(file).map(Some),
            None => Ok(None),
        };
        // Last, since it takes into use what is good.
        let read = read.and_then(|read| match &self.parts.tls {
            Some(tls) => tls.reload().map(|()| read).map_err(|all| all.iter().map(ToString::to_string).collect()),
            None => Ok(read),
        });
        match read {
            Ok(Some((settings, tenants))) => self.take_in(&settings, tenants),
            Ok(None) => {}
            Err(mistakes) => {
                self.refuse(mistakes);
                return false;
            }
        }
        true
    }

    fn read(&self, file: &Path) -> Result<(Settings, Tenants), Vec<String>> {
        let said = |errors: Vec<settings::ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let directory = self.state().settings.tenants.directory.clone();
        // From before they are read: what changes meanwhile shows in the next look.
        let looks = look(file, &directory);
        self.state().looks = Some(looks);
        let settings = settings::load(file).map_err(said)?;
        let tenants = tenants::load(&settings.tenants.directory, &settings.upstream, Secrets::Read).map_err(said)?;
        if settings.tenants.directory != directory {
            self.state().looks = Some(look(file, &settings.tenants.directory));
        }
        Ok((settings, tenants))
    }

    fn take_in(&self, read: &Settings, tenants: Tenants) {
        let (version, tenants) = (version(read, &tenants), Arc::new(tenants));
        let settings = with_what_is_live(&self.state().settings, read);
        let restart_needed = left_as_they_are(&settings, read);
        let Parts { desk, issuers, engine, limits: may, .. } = &self.parts;
        may.replace(Arc::new(limits(&settings)));
        desk.replace(Arc::clone(&tenants));
        issuers.replace(&tenants);
        let count = tenants.iter().count();
        engine.reconfigure(tenants, bounds(&settings));
        let since_ms = clock::unix_ms();
        telemetry::configured(Some(since_ms.div_euclid(1_000)));
        tracing::info!(
            version,
            tenants = count,
            restart_needed = restart_needed.join(", "),
            "the configuration was read again, and is in use"
        );
        let mut state = self.state();
        let looks = state.looks;
        *state = State { settings, version, since_ms, refused: None, restart_needed, looks };
    }

    fn refuse(&self, mistakes: Vec<String>) {
        telemetry::configured(None);
        let mut state = self.state();
        tracing::error!(
            version = state.version,
            mistakes = mistakes.join("; "),
            "the configuration that was read is not in use: the last good one stays"
        );
        state.refused = Some(Refused { at_ms: clock::unix_ms(), mistakes });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Configuration for Arc<Reloader> {
    fn view(&self) -> Value {
        let state = self.state();
        let refused = state.refused.as_ref().map(|refused| {
            let shown: Vec<_> = refused.shown().collect();
            json!({ "at": clock::rfc3339(refused.at_ms), "count": refused.mistakes.len(), "mistakes": shown })
        });
        json!({
            "version": state.version,
            "in_use_since": clock::rfc3339(state.since_ms),
            "restart_needed": state.restart_needed,
            "refused": refused,
        })
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(Reloader::reload(self))
    }
}

/// The settings in use, with those of the others that can change while the gateway runs.
fn with_what_is_live(used: &Settings, read: &Settings) -> Settings {
    Settings {
        server: Server {
            max_body_bytes: read.server.max_body_bytes,
            body_timeout_ms: read.server.body_timeout_ms,
            min_body_bytes_per_s: read.server.min_body_bytes_per_s,
            ..used.server.clone()
        },
        deletions: Deletions { max_streams: used.deletions.max_streams, ..read.deletions.clone() },
        tenants: read.tenants.clone(),
        upstream: Upstream {
            limits: read.upstream.limits.clone(),
            timeouts: read.upstream.timeouts.clone(),
            retry: read.upstream.retry.clone(),
            ..used.upstream.clone()
        },
        ..used.clone()
    }
}

/// Sections with settings that hold from the next start.
fn left_as_they_are(used: &Settings, read: &Settings) -> Vec<&'static str> {
    // All of them by name, so that none that is added later is forgotten here. The tenants' are always live.
    let Settings { server, deletions, store, retention, tenants: _, upstream, telemetry, log } = used;
    let sections = [
        ("server", *server == read.server),
        ("deletions", *deletions == read.deletions),
        ("store", *store == read.store),
        ("retention", *retention == read.retention),
        ("upstream", *upstream == read.upstream),
        ("telemetry", *telemetry == read.telemetry),
        ("log", *log == read.log),
    ];
    sections.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// A short hash of what was read: gateways with the same configuration have the same. Secrets that stand elsewhere are not in it.
fn version(settings: &Settings, tenants: &Tenants) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    digest.update(format!("{settings:?}").as_bytes());
    digest.update(tenants.version());
    digest.finish().as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// How the files look from outside: which there are, when they were changed, how long they are.
fn look(file: &Path, directory: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    // A folder that cannot be read looks like an empty one; reading it says what is wrong.
    let tenants = tenants::files(directory).unwrap_or_default();
    for file in [file.to_owned()].into_iter().chain(tenants) {
        let about = fs::metadata(&file).ok();
        let about = about.map(|about| (about.mtime(), about.mtime_nsec(), about.len(), about.ino()));
        (file, about).hash(&mut hasher);
    }
    hasher.finish()
}
