//! The composition root: settings and tenants become a running gateway. Nothing imports this but the command line.

pub mod console;
pub mod ledger;
mod pace;
mod reload;
pub mod tls;
pub mod trace;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::pace::LedgerPace;
use self::reload::{Parts, Reloader};
use crate::api::{self, Api, BodyLimits, Creation, Entry, HeldAnswers, Streams};
use crate::arrivals::Arrivals;
use crate::desk::Desk;
use crate::engine::driver::{Bounds, Engine, Routes};
use crate::issuers::Issuers;
use crate::live::Live;
use crate::outbound::{Dial, Outbound, Rules, SharedPace};
use crate::server::tls::Tls;
use crate::server::{self, ListenerLimits, Valve, ValveRules};
use crate::settings::{ConfigError, Settings};
use crate::store::{Head, Ledger, StoreError};
use crate::tenants::Tenants;

/// A running gateway.
pub struct Gateway {
    telling: TaskTracker,
    exporting: CancellationToken,
    public: SocketAddr,
    admin: SocketAddr,
    engine: Arc<Engine>,
    ledger: Arc<dyn Ledger>,
    stopping: CancellationToken,
    listeners: TaskTracker,
    drain: Duration,
    reloader: Arc<Reloader>,
}

/// What other gateways are to be told must not hold up the end.
const TELLING: Duration = Duration::from_secs(2);

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Traces cannot be sent.
    #[error("{0}")]
    Telemetry(String),
    /// The files of TLS are no good.
    #[error("{count} mistakes in the files of TLS", count = .0.len())]
    Tls(Vec<ConfigError>),
    /// The console's token cannot be used.
    #[error("{0}")]
    Token(String),
}

/// What a gateway stands on.
#[doc(hidden)]
pub struct Surroundings<A> {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Where callers and operators come in.
    pub addresses: [SocketAddr; 2],
    /// The same, as listeners.
    pub listeners: [A; 2],
    /// TLS of the listeners.
    pub tls: Option<Arc<Tls>>,
    /// What makes connections to upstreams, if not the system's sockets.
    pub dial: Option<Arc<dyn Dial>>,
}

impl Gateway {
    /// Opens the store, takes up what an earlier process left unfinished, and listens.
    pub async fn start(settings: &Settings, tenants: Tenants) -> Result<Self, StartError> {
        crate::telemetry::count();
        let tls = tls::open(settings).await.map_err(StartError::Tls)?;
        let listen = |address| server::bind(address).map_err(|source| StartError::Listen { address, source });
        let (public_listener, public) = listen(settings.server.listen)?;
        let (admin_listener, admin) = listen(settings.server.admin_listen)?;
        let ledger = ledger::open(settings).await?;
        let secure = tls.is_some();
        let listeners = [public_listener, admin_listener];
        let around = Surroundings { ledger, addresses: [public, admin], listeners, tls, dial: None };
        let gateway = Self::begin(settings, Arc::new(tenants), around).await?;
        tracing::info!(%public, %admin, tls = secure, "listening");
        Ok(gateway)
    }

    /// The same in given surroundings: a simulation has its own.
    ///
    /// Public for the simulation alone, whose test is a crate of its own. A feature would make it another gateway that is tested.
    #[doc(hidden)]
    pub async fn begin(
        settings: &Settings,
        tenants: Arc<Tenants>,
        around: Surroundings<impl Arrivals>,
    ) -> Result<Self, StartError> {
        let Surroundings { ledger, addresses: [public, admin], listeners, tls, dial } = around;
        let [public_listener, admin_listener] = listeners;
        let telling = TaskTracker::new();
        let pace = ledger.lease().map(|_| -> Arc<dyn SharedPace> {
            Arc::new(LedgerPace { ledger: Arc::clone(&ledger), tasks: telling.clone() })
        });
        // No tenant's requests may fill the places of all.
        let waiters_per_tenant = (settings.server.max_requests_in_flight / 4).max(1);
        let rules = Rules {
            max_in_flight: settings.upstream.max_in_flight,
            max_in_flight_per_tenant: settings.upstream.max_in_flight_per_tenant,
            breaker_failures: settings.upstream.breaker_failures,
            breaker_open_ms: settings.upstream.breaker_open_ms,
        };
        let outbound = Outbound::new(rules).sharing(pace);
        let outbound = match dial {
            Some(dial) => outbound.dialled_by(dial),
            None => outbound,
        };
        let desk = Arc::new(Desk::new(Arc::clone(&tenants), outbound, waiters_per_tenant));
        let (tracer, exporting) = trace::begin(settings, &telling).map_err(StartError::Telemetry)?;
        let engine = Arc::new(Engine::new(Arc::clone(&ledger), bounds(settings)).traced(tracer));
        engine.begin().await?;
        let stopping = CancellationToken::new();
        let keeping_up = stopping.clone();
        engine.spawn(async move { _ = keeping_up.run_until_cancelled(crate::telemetry::keep_up()).await });
        let dispatching = {
            let (engine, desk) = (Arc::clone(&engine), Arc::clone(&desk));
            move || {
                let desk = Arc::clone(&desk);
                Arc::clone(&engine).dispatch(move |head: &Head| routes(&desk, head))
            }
        };
        engine.tend(dispatching);
        let (keeping, forgetting) = (Arc::clone(&engine), Arc::clone(&engine));
        engine.tend(move || Arc::clone(&keeping).keep());
        let retention = ledger::retention(settings);
        engine.tend(move || Arc::clone(&forgetting).forget(retention));

        let issuers = Arc::new(Issuers::new(&tenants));
        let may = Arc::new(Live::new(Arc::new(limits(settings))));
        let parts = Parts {
            desk: Arc::clone(&desk),
            issuers: Arc::clone(&issuers),
            engine: Arc::clone(&engine),
            limits: Arc::clone(&may),
            tls: tls.clone(),
        };
        let reloader = Arc::new(Reloader::new(parts, settings.clone(), &tenants));
        drop(tenants);
        let configured = Arc::clone(&reloader);
        let configured = Arc::new(move || Some(configured.shown()));
        let console = console::open(settings, admin, &desk, &engine, configured).map_err(StartError::Token)?;
        let tidying = Arc::clone(&desk);
        let api = Api {
            issuers,
            desk,
            entry: Arc::new(Entry::new(settings.server.max_wrong_keys_per_min)),
            engine: Arc::clone(&engine),
            limits: may,
            streams: Arc::new(Streams::new(settings.deletions.max_streams)),
            answers: Arc::new(Streams::new((settings.server.max_requests_in_flight / 8).max(2))),
            held: Arc::new(HeldAnswers::new(settings.server.max_held_answer_bytes)),
            stopping: stopping.clone(),
        };
        let (routes, creation) = (api::routes(api.clone()), Creation::new(api));
        let valve = Valve::new(ValveRules {
            max_requests_in_flight: settings.server.max_requests_in_flight,
            max_lag_ms: settings.server.max_lag_ms,
        });
        let routes = server::guarded(routes, Some(creation), Arc::clone(&valve));
        let configuration = Arc::new(Arc::clone(&reloader));
        let console = crate::console::routes(console);
        let admin_routes = server::admin_routes(Arc::clone(&engine), stopping.clone(), configuration, console);
        let listeners = TaskTracker::new();
        let allowed = listener_limits(settings);
        let admin_tls = tls.clone().filter(|_| settings.server.tls.admin);
        listeners.spawn(valve.tend(stopping.clone()));
        listeners.spawn(server::serve(public_listener, routes, allowed, tls.clone(), stopping.clone()));
        listeners.spawn(server::serve(admin_listener, admin_routes, allowed, admin_tls, stopping.clone()));
        if let Some(tls) = &tls {
            listeners.spawn(Arc::clone(tls).watch(stopping.clone()));
        }
        listeners.spawn(Arc::clone(&tidying).close_idle(stopping.clone()));
        if settings.upstream.idle_ms > 0 {
            listeners.spawn(tidying.tidy(Duration::from_millis(settings.upstream.idle_ms), stopping.clone()));
        }
        let drain = Duration::from_millis(settings.server.drain_ms);
        Ok(Self { telling, exporting, public, admin, engine, ledger, stopping, listeners, drain, reloader })
    }

    /// The public listener's address.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// The admin listener's address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// From now on, this is the file that the settings came from: it is looked at again, with the tenants' files, when they change
    /// and at [`reload`](Self::reload).
    pub fn follow(&self, file: &Path) {
        self.reloader.follow(file);
        self.listeners.spawn(Arc::clone(&self.reloader).watch(self.stopping.clone()));
    }

    /// Reads again what can change while the gateway runs: the files of settings and tenants, if they are followed, and those of
    /// TLS. Whether all of it is in use now; what is no good is said in the log, and changes nothing.
    pub async fn reload(&self) -> bool {
        Reloader::reload(&self.reloader).await
    }

    /// Takes no more deletions, lets what runs come to its end within the time for it, and closes the store. What is
    /// not finished then stands in the ledger; the next start goes on with it.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.stopping.cancel();
        self.engine.close_claims();
        self.listeners.close();
        let ended = async {
            self.listeners.wait().await;
            self.engine.idle().await;
        };
        // Half of the time for deletions to finish; then calls in flight alone, so that none of them is left in doubt.
        let mut ended = pin!(ended);
        if tokio::time::timeout(self.drain / 2, ended.as_mut()).await.is_err() {
            self.engine.halt();
            if tokio::time::timeout(self.drain / 2, ended).await.is_err() {
                tracing::warn!("some calls did not end in time: what became of them is in doubt");
            }
        }
        self.exporting.cancel();
        self.telling.close();
        let _ = tokio::time::timeout(TELLING, self.telling.wait()).await;
        self.ledger.close().await;
        tracing::info!("stopped");
    }
}

/// The ways out of a deletion's shares. A connection that is no longer configured holds up its own share alone.
fn routes(desk: &Desk, head: &Head) -> Routes {
    let tenants = desk.tenants();
    let route = |name: &Arc<str>| desk.route(tenants.connection(&head.tenant, name)?).ok();
    head.shares.iter().map(route).collect()
}

fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        deadline_ms: settings.deletions.deadline_s.saturating_mul(1_000),
        max_open_contacts: settings.deletions.max_open_contacts,
        max_open_contacts_per_tenant: settings.deletions.max_open_contacts_per_tenant,
        max_worked_contacts: settings.deletions.max_worked_contacts,
        max_worked_contacts_per_tenant: settings.deletions.max_worked_contacts_per_tenant,
    }
}

fn limits(settings: &Settings) -> api::Limits {
    api::Limits {
        body: BodyLimits {
            max_bytes: settings.server.max_body_bytes,
            timeout_ms: settings.server.body_timeout_ms,
            min_bytes_per_s: settings.server.min_body_bytes_per_s,
        },
        max_contacts: settings.deletions.max_contacts,
        max_contacts_streamed: settings.deletions.max_contacts_streamed,
        max_wait_s: settings.deletions.max_wait_s,
        keep_keys_ms: ledger::retention(settings).keys_ms,
    }
}

fn listener_limits(settings: &Settings) -> ListenerLimits {
    ListenerLimits {
        max_connections: settings.server.max_connections,
        max_connections_per_address: settings.server.max_connections_per_address,
        max_uri_bytes: settings.server.max_uri_bytes,
        max_headers: settings.server.max_headers,
        max_header_bytes: settings.server.max_header_bytes,
        header_timeout_ms: settings.server.header_timeout_ms,
        idle_timeout_ms: settings.server.idle_timeout_ms,
        write_timeout_ms: settings.server.write_timeout_ms,
        min_answer_bytes_per_s: settings.server.min_answer_bytes_per_s,
        drain_ms: settings.server.drain_ms,
        http2_plain: settings.server.http2_plain,
        http2_max_streams: settings.server.http2_max_streams,
    }
}
