//! One upstream's stack: metrics › breaker › pace › concurrency › credential › timeout › client.
//!
//! A call passes it in two steps, so that the intent can be put down between them: `admit` waits until the call may
//! go out, `send` lets it go. One attempt in; one reply, or how it was lost, out. What a reply means is not known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use adapters::{Call, Dialect, Fault, FaultCode};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::breaker::{Breaker, BreakerRules, BreakerState};
use super::client::{Client, ClientRules};
use super::credentials::{Shown, Wallet};
use super::pace::Pace;
use crate::clock;
use crate::engine::{Lost, Signal};
use crate::telemetry::CallMetrics;
use crate::tenants::Connection;

/// What holds for the whole process.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Calls in flight, all connections together.
    pub max_in_flight: usize,
    /// Of them, at the connections of one tenant.
    pub max_in_flight_per_tenant: usize,
    /// Failures in a row that open a breaker.
    pub breaker_failures: u32,
    /// How long it stays open.
    pub breaker_open_ms: u64,
}

/// What all upstreams share.
#[derive(Debug)]
pub struct Outbound {
    rules: Rules,
    in_flight: Arc<Semaphore>,
    tenants: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// One connection's upstream.
#[derive(Debug)]
pub struct Upstream {
    dialect: Arc<dyn Dialect>,
    client: Client,
    breaker: Mutex<Breaker>,
    pace: Pace,
    lanes: Arc<Semaphore>,
    max_in_flight: usize,
    of_tenant: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    wallet: Wallet,
    metrics: CallMetrics,
}

/// Leave for one call to go out.
pub struct Permit {
    _places: [OwnedSemaphorePermit; 3],
    shown: Shown,
}

impl Outbound {
    /// With nothing in flight.
    pub fn new(rules: Rules) -> Self {
        Self { rules, in_flight: Arc::new(Semaphore::new(rules.max_in_flight)), tenants: Mutex::default() }
    }

    /// One tenant's places: a tenant whose upstreams all stall must leave some to the others.
    fn of_tenant(&self, tenant: &Arc<str>) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.rules.max_in_flight_per_tenant;
        let places = tenants.entry(Arc::clone(tenant)).or_insert_with(|| Arc::new(Semaphore::new(most)));
        Arc::clone(places)
    }

    /// The runtime side of a connection. Fails only where the machine has no usable TLS set-up.
    pub fn open(&self, connection: &Arc<Connection>) -> Result<Upstream, String> {
        let Rules { breaker_failures, breaker_open_ms, .. } = self.rules;
        let client = Client::new(ClientRules {
            connect_ms: connection.timeouts.connect_ms,
            response_ms: connection.timeouts.response_ms,
            pool_idle_ms: connection.limits.pool_idle_ms,
            max_idle: connection.limits.max_in_flight,
            max_response_bytes: connection.limits.max_response_bytes,
            allow_private: connection.allow_private,
            https_only: connection.base_url.starts_with("https://"),
        })?;
        Ok(Upstream {
            dialect: Arc::clone(&connection.dialect),
            client,
            breaker: Mutex::new(Breaker::new(BreakerRules {
                failures_in_row: breaker_failures,
                open_ms: breaker_open_ms,
            })),
            pace: Pace::new(connection.limits.rate),
            lanes: Arc::new(Semaphore::new(connection.limits.max_in_flight)),
            max_in_flight: connection.limits.max_in_flight,
            of_tenant: self.of_tenant(&connection.tenant),
            in_flight: Arc::clone(&self.in_flight),
            wallet: Wallet::new(connection),
            metrics: CallMetrics::new(connection),
        })
    }
}

impl Upstream {
    /// Waits until a call may go out, at most until `deadline`. Nothing has been sent when this returns.
    pub async fn admit(&self, deadline: Option<Instant>) -> Result<Permit, Lost> {
        let waiting = self.wait_for_leave();
        match deadline {
            None => waiting.await,
            Some(deadline) => tokio::time::timeout_at(deadline, waiting).await.unwrap_or_else(|_| {
                Err(Lost::NotSent { fault: Fault::new(FaultCode::DeadlineExceeded), again: false })
            }),
        }
    }

    async fn wait_for_leave(&self) -> Result<Permit, Lost> {
        // An open breaker is no reason to queue.
        if let Some(wait_ms) = self.breaker().open_for(clock::now().ms) {
            return Err(Lost::CircuitOpen { wait_ms });
        }
        // Own lanes first: a connection that is busy must not hold places that others could use.
        let lane = place(&self.lanes).await?;
        self.pace.pass().await;
        let of_tenant = place(&self.of_tenant).await?;
        let in_flight = place(&self.in_flight).await?;
        // Asked again at the end, so that a probe is under way as soon as it is allowed.
        let admitted = self.breaker().admit(clock::now().ms);
        admitted.map_err(|wait_ms| Lost::CircuitOpen { wait_ms })?;
        self.show_breaker();
        // Whatever ends this before the call goes out, a probe must not stay open.
        let unheard = Unheard { breaker: &self.breaker, armed: true };
        let shown = self.wallet.show(&*self.dialect, &self.client).await?;
        unheard.disarm();
        Ok(Permit { _places: [lane, of_tenant, in_flight], shown })
    }

    /// Sends a call once. `heard` must be told what its reply was worth.
    pub async fn send(&self, permit: &Permit, call: &Call) -> Result<http::Response<Bytes>, Lost> {
        let mut request = call.request.clone();
        request.headers_mut().insert(self.wallet.header(), permit.shown.value.clone());
        let start = Instant::now();
        let reply = self.client.send(request).await;
        self.metrics.ended(&reply, start.elapsed());
        if let Err(lost) = &reply
            && !matches!(lost, Lost::CircuitOpen { .. })
        {
            self.heard_of(false);
        }
        reply
    }

    /// What a reply was worth, once it has been read.
    pub fn heard(&self, permit: &Permit, signal: Signal) {
        self.heard_of(!signal.failing);
        if signal.credential_refused {
            tracing::warn!("the upstream does not accept the connection's credential");
            self.wallet.refused(permit.shown.generation);
        }
        if let Some(hold_ms) = signal.hold_ms {
            self.pace.hold(hold_ms);
        }
    }

    /// A permit that is given back unused.
    pub fn unused(&self, _: &Permit) {
        self.breaker().unheard();
    }

    /// Whether another credential could be had when one is refused.
    pub fn renewable(&self) -> bool {
        self.wallet.renewable()
    }

    /// Calls in flight at most.
    pub fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// What the breaker is doing.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker().state(clock::now().ms)
    }

    fn heard_of(&self, well: bool) {
        let now_ms = clock::now().ms;
        let (before, after) = {
            let mut breaker = self.breaker();
            let before = breaker.state(now_ms);
            breaker.heard(well, now_ms);
            (before, breaker.state(now_ms))
        };
        self.metrics.breaker(after);
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::warn!("the upstream keeps failing and is left alone for a while");
            }
            (BreakerState::HalfOpen, BreakerState::Closed) => tracing::info!("the upstream works again"),
            _ => {}
        }
    }

    fn show_breaker(&self) {
        self.metrics.breaker(self.breaker_state());
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the breaker, when it is dropped, that a call which passed it brings no news.
struct Unheard<'b> {
    breaker: &'b Mutex<Breaker>,
    armed: bool,
}

impl Unheard<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.breaker.lock().unwrap_or_else(PoisonError::into_inner).unheard();
        }
    }
}

/// The semaphores are never closed; if they were, nothing would have been sent.
async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Lost> {
    let closed = |_| Lost::NotSent { fault: Fault::new(FaultCode::Cancelled), again: false };
    Arc::clone(places).acquire_owned().await.map_err(closed)
}
