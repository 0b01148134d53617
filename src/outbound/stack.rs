//! One upstream's stack: metrics › retry budget › lanes › pace › credential › places › breaker › timeout › client.
//!
//! A call passes it in two steps, so that the intent can be put down between them: `admit` waits until the call may
//! go out, `send` lets it go. Whatever becomes of a permit, its places and a probe end with it. One attempt in; one
//! reply, or how it was lost, out. What a reply means is not known here. Above 500 lines because the tests of the order stand
//! with it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use adapters::{Call, Fault, FaultCode, Outcome};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::accounts::Accounts;
use super::breaker::{Breaker, BreakerRules, BreakerState, Pass};
use super::budget::{Budget, BudgetRules};
#[cfg(test)]
use super::client::StandIn;
use super::client::{Client, ClientRules};
use super::credentials::{NoCredential, Shown, Wallet};
use super::dial::Dial;
use super::pace::{Pace, SharedPace};
use super::standing::Standing;
use crate::clock;
use crate::engine::{Lost, Signal};
use crate::telemetry::{CallMetrics, Onward, WaitsFor};
use crate::tenants::Connection;

/// Calls that a breaker looks back upon.
const BREAKER_WINDOW: usize = 20;

/// Who asked to be left alone for at least so long is named in the log.
const LONG_HOLD_MS: u64 = 10_000;
/// The retry budget counts the calls of so many milliseconds.
const BUDGET_MS: u64 = 60_000;

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
pub struct Outbound {
    rules: Rules,
    pace: Option<Arc<dyn SharedPace>>,
    dial: Option<Arc<dyn Dial>>,
    in_flight: Arc<Semaphore>,
    tenants: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    accounts: Accounts,
}

/// One connection's upstream.
#[derive(Debug)]
pub struct Upstream {
    connection: Arc<Connection>,
    client: Client,
    breaker: Arc<Mutex<Breaker>>,
    budget: Budget,
    pace: Arc<Pace>,
    lanes: Arc<Semaphore>,
    of_tenant: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    wallet: Wallet,
    metrics: CallMetrics,
    /// Whether nothing may be sent again that was sent here.
    elsewhere: AtomicBool,
    /// Set when the connection is configured otherwise now, or not at all.
    is_retired: AtomicBool,
    /// Until when the connection led elsewhere, in milliseconds since 1970-01-01 UTC.
    elsewhere_until_ms: i64,
}

/// Leave for one call to go out. Dropped without a word, it is given back unused.
pub struct Permit {
    // Dropped first: whoever waits for a place must not find a probe that is over.
    leave: Leave,
    shown: Shown,
    /// What the upstream is told beside the call.
    onward: Option<Box<Onward>>,
    _places: [OwnedSemaphorePermit; 3],
}

/// A pass that the breaker gave, and that it gets to know the end of.
struct Leave {
    breaker: Arc<Mutex<Breaker>>,
    pass: Pass,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Outbound {
    /// With nothing in flight.
    pub fn new(rules: Rules) -> Self {
        let in_flight = Arc::new(Semaphore::new(rules.max_in_flight));
        Self { rules, pace: None, dial: None, in_flight, tenants: Mutex::default(), accounts: Accounts::default() }
    }

    /// The same, with paces that are shared with other gateways.
    pub fn sharing(self, pace: Option<Arc<dyn SharedPace>>) -> Self {
        Self { pace, ..self }
    }

    /// The same, with connections that something else makes than the system's sockets.
    pub fn dialled_by(self, dial: Arc<dyn Dial>) -> Self {
        Self { dial: Some(dial), ..self }
    }

    /// How many calls are in flight, and how many may be.
    pub fn in_flight(&self) -> (usize, usize) {
        let most = self.rules.max_in_flight;
        (most.saturating_sub(self.in_flight.available_permits()), most)
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
        self.open_after(connection, None)
    }

    /// The same for one that was configured otherwise before. Where it leads to the same contacts, what is known of the upstream
    /// stays: how often it may be called, and whether it is being left alone.
    pub fn open_after(&self, connection: &Arc<Connection>, before: Option<&Upstream>) -> Result<Upstream, String> {
        let before = before.filter(|before| before.connection.leads_where(connection));
        let Rules { breaker_failures, breaker_open_ms, .. } = self.rules;
        let rules = ClientRules {
            connect_ms: connection.timeouts.connect_ms,
            response_ms: connection.timeouts.response_ms,
            pool_idle_ms: connection.limits.pool_idle_ms,
            max_idle: connection.limits.max_in_flight,
            max_response_bytes: connection.limits.max_response_bytes,
            allow_private: connection.allow_private,
            https_only: connection.base_url.starts_with("https://"),
        };
        let breaker = || {
            let rules =
                BreakerRules { failures_in_row: breaker_failures, window: BREAKER_WINDOW, open_ms: breaker_open_ms };
            Arc::new(Mutex::new(Breaker::new(rules)))
        };
        let limits = connection.limits;
        let same_rate = before.filter(|before| before.connection.limits.rate == limits.rate);
        let same_lanes = before.filter(|before| before.max_in_flight() == limits.max_in_flight);
        let client = match &self.dial {
            Some(dial) => Client::dialled_by(rules, Arc::clone(dial)),
            None => Client::new(rules)?,
        };
        Ok(Upstream {
            connection: Arc::clone(connection),
            client,
            breaker: before.map_or_else(breaker, |before| Arc::clone(&before.breaker)),
            budget: Budget::new(BudgetRules {
                percent: connection.retry.budget_percent,
                floor: connection.retry.budget_floor_per_minute,
            }),
            pace: same_rate
                .map_or_else(|| Arc::new(Pace::new(connection, self.pace.as_ref())), |before| Arc::clone(&before.pace)),
            lanes: same_lanes
                .map_or_else(|| Arc::new(Semaphore::new(limits.max_in_flight)), |before| Arc::clone(&before.lanes)),
            of_tenant: self.of_tenant(&connection.tenant),
            in_flight: Arc::clone(&self.in_flight),
            wallet: Wallet::new(connection, &self.accounts),
            metrics: CallMetrics::new(connection),
            elsewhere: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            elsewhere_until_ms: i64::MIN,
        })
    }

    /// Forgets the places of tenants that are none of these, as far as nobody has them.
    pub fn keep_tenants(&self, is_kept: impl Fn(&str) -> bool) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|tenant, places| Arc::strong_count(places) > 1 || is_kept(tenant));
    }
}

impl Upstream {
    /// Waits until a call's attempt may go out, at most until `deadline`; attempts count from 1, and from the second on
    /// they need a part of the retry budget. Nothing has been sent when this returns.
    pub async fn admit(&self, attempt: u32, deadline: Option<Instant>) -> Result<Permit, Lost> {
        let waiting = self.wait_for_leave(attempt);
        match deadline {
            None => waiting.await,
            Some(deadline) => tokio::time::timeout_at(deadline, waiting).await.unwrap_or_else(|_| {
                Err(Lost::NotSent { fault: Fault::new(FaultCode::DeadlineExceeded), again: false })
            }),
        }
    }

    async fn wait_for_leave(&self, attempt: u32) -> Result<Permit, Lost> {
        // An open breaker is no reason to queue, and what waited meanwhile need not go on waiting.
        self.left_alone()?;
        // Before everything that first attempts wait for too: they must not wait for a retry.
        let retry = match attempt {
            0 | 1 => None,
            _ => Some(self.budget.leave(&self.metrics).await),
        };
        self.left_alone()?;
        // Own lanes first: a connection that is busy must not hold places that others could use.
        let lane = self.counted(WaitsFor::Lane, place(&self.lanes)).await?;
        self.left_alone()?;
        let _turn = self.counted(WaitsFor::Pace, self.pace.pass()).await;
        self.left_alone()?;
        loop {
            // Nor must one whose sign-in hangs.
            let shown = self.counted(WaitsFor::Credential, self.wallet.obtain(&self.client)).await;
            let shown = shown.map_err(|missing| self.signed_out(missing))?;
            let of_tenant = self.counted(WaitsFor::Place, place(&self.of_tenant)).await?;
            let in_flight = self.counted(WaitsFor::Place, place(&self.in_flight)).await?;
            // It can have been refused or renewed while this call waited for its places.
            let Some(shown) = self.wallet.latest(shown) else { continue };
            // Asked at the end, so that a probe is under way as soon as it is allowed.
            let (admitted, state) = {
                let (mut breaker, now_ms) = (self.breaker(), clock::ms());
                (breaker.admit(now_ms), breaker.state(now_ms))
            };
            let pass = admitted.map_err(|wait_ms| Lost::CircuitOpen { wait_ms })?;
            self.metrics.breaker(state);
            match retry {
                Some(retry) => retry.used(),
                None => self.budget.first_attempt(),
            }
            let leave = Leave { breaker: Arc::clone(&self.breaker), pass };
            return Ok(Permit { leave, shown, onward: None, _places: [lane, of_tenant, in_flight] });
        }
    }

    /// Waits for something, and counts the call among those that do. What is there already is not waited for.
    async fn counted<T>(&self, what: WaitsFor, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await {
            return done;
        }
        let _waits = self.metrics.waits_for(what);
        waiting.await
    }

    /// Sends nothing: this answers instead. Without its breaker, it goes on whatever happens.
    #[cfg(test)]
    pub(crate) fn standing_in(mut self, stand_in: StandIn, breaker: bool) -> Self {
        self.client.standing_in(stand_in);
        if !breaker {
            let rules = BreakerRules { failures_in_row: u32::MAX, window: usize::MAX, open_ms: 0 };
            self.breaker = Arc::new(Mutex::new(Breaker::new(rules)));
        }
        self
    }

    fn left_alone(&self) -> Result<(), Lost> {
        let breaker = self.breaker();
        // Mostly it is, and then it is all the same what time it is.
        if breaker.is_closed() {
            return Ok(());
        }
        match breaker.open_for(clock::ms()) {
            Some(wait_ms) => Err(Lost::CircuitOpen { wait_ms }),
            None => Ok(()),
        }
    }

    /// A call that gets no credential. One whose sign-in failed stands for a call that failed, a probe included.
    fn signed_out(&self, missing: NoCredential) -> Lost {
        if missing.sign_in_failed {
            let admitted = self.breaker().admit(clock::ms());
            if let Ok(pass) = admitted {
                self.heard_of(pass, false, 0);
            }
        }
        missing.lost
    }

    /// Sends a call once. `heard` must be told what its reply was worth.
    pub async fn send(&self, permit: &Permit, call: &Call) -> Result<http::Response<Bytes>, Lost> {
        let mut request = call.request.clone();
        request.headers_mut().insert(self.wallet.header(), permit.shown.value.clone());
        if let Some(onward) = &permit.onward {
            onward.put_into(request.headers_mut());
        }
        let start = Instant::now();
        let reply = self.client.send(request).await;
        self.metrics.ended(&reply, start.elapsed());
        if let Err(lost) = &reply
            && !matches!(lost, Lost::CircuitOpen { .. })
        {
            self.heard_of(permit.leave.pass, false, 0);
        }
        reply
    }

    /// What a reply was worth, once it has been read.
    pub fn heard(&self, permit: &Permit, signal: Signal) {
        self.heard_of(permit.leave.pass, !signal.failing, signal.hold_ms.unwrap_or(0));
        if signal.credential_refused {
            let (tenant, connection) = self.name();
            tracing::warn!(tenant, connection, "the upstream does not accept the connection's credential");
            self.wallet.refused(permit.shown.generation);
        } else {
            self.wallet.accepted(permit.shown.generation);
        }
        if let Some(hold_ms) = signal.hold_ms {
            self.hold(hold_ms);
        }
    }

    /// The upstream asks to be left alone. Said once: what is in flight meanwhile is told the same.
    fn hold(&self, hold_ms: u64) {
        let (before_ms, now) = (self.pace.hold(hold_ms), clock::now());
        let seconds = hold_ms.div_ceil(1_000);
        if before_ms < now.ms.saturating_add(hold_ms) {
            self.metrics.held_until(now.unix_s.saturating_add(seconds));
        }
        if before_ms <= now.ms && hold_ms >= LONG_HOLD_MS {
            let (tenant, connection) = self.name();
            tracing::info!(tenant, connection, seconds, "the upstream asks to be left alone");
        }
    }

    /// Whether a text that the upstream said would give its credential away to whoever reads it.
    pub fn is_given_away_by(&self, text: &str) -> bool {
        self.wallet.is_given_away_by(text)
    }

    /// Whether another credential could be had when one is refused.
    pub fn renewable(&self) -> bool {
        self.wallet.renewable()
    }

    /// Counts contacts that were settled, with an answer of the upstream or without.
    pub fn settled(&self, outcomes: impl IntoIterator<Item = (Outcome, u64)>) {
        self.metrics.settled(outcomes);
    }

    /// Calls in flight at most.
    pub fn max_in_flight(&self) -> usize {
        self.connection.limits.max_in_flight
    }

    /// Nothing more is to be begun here: the connection is configured otherwise now, or not at all.
    pub fn retire(&self, now: Option<&Connection>) {
        let elsewhere = now.is_none_or(|now| !now.leads_where(&self.connection));
        self.elsewhere.store(elsewhere, Ordering::Release);
        self.is_retired.store(true, Ordering::Release);
        self.client.keep_none();
    }

    /// Whether there is an idle connection.
    pub fn has_idle(&self) -> bool {
        self.client.has_idle()
    }

    /// Closes connections that nobody used for their time.
    pub fn close_idle(&self) {
        self.client.close_idle();
    }

    /// The same, of a connection that led elsewhere until this moment, in milliseconds since 1970-01-01 UTC.
    pub fn elsewhere_until(self, unix_ms: i64) -> Self {
        Self { elsewhere_until_ms: unix_ms, ..self }
    }

    /// Whether what was sent before for a deletion of this age may have been sent elsewhere, and must not be sent again here.
    pub fn is_newer_than(&self, created_ms: i64) -> bool {
        created_ms <= self.elsewhere_until_ms
    }

    /// Whether nothing more is to be begun here.
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Whether what was sent here must not be sent again by whoever goes on: the connection leads elsewhere now.
    pub fn is_elsewhere(&self) -> bool {
        self.is_retired() && self.elsewhere.load(Ordering::Acquire)
    }

    /// For how many milliseconds after its last use it has to be kept: what is counted within a time must not be forgotten in it.
    pub fn remembers_for_ms(&self) -> u64 {
        let rate_ms = self.connection.limits.rate.map_or(0, |rate| u64::from(rate.per_s) * 1_000);
        rate_ms.max(BUDGET_MS)
    }

    /// Whether it is being left alone now, because it fails or because it asked for it.
    pub fn is_left_alone(&self) -> bool {
        self.breaker_state() != BreakerState::Closed || self.pace.is_held()
    }

    /// Whose upstream it is.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        let (breaker, open_ms) = {
            let (breaker, now_ms) = (self.breaker(), clock::now().ms);
            (breaker.state(now_ms), breaker.open_for(now_ms))
        };
        Standing {
            breaker,
            left_alone_ms: open_ms.unwrap_or(0).max(self.pace.held_ms()),
            under_way: self.max_in_flight().saturating_sub(self.lanes.available_permits()),
            credential: self.wallet.standing(),
        }
    }

    /// What the breaker is doing.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker().state(clock::ms())
    }

    fn heard_of(&self, pass: Pass, well: bool, asked_ms: u64) {
        let now_ms = clock::ms();
        let (before, after) = {
            let mut breaker = self.breaker();
            let before = breaker.state(now_ms);
            breaker.heard(pass, well, asked_ms, now_ms);
            (before, breaker.state(now_ms))
        };
        self.metrics.breaker(after);
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                let (tenant, connection) = self.name();
                tracing::warn!(tenant, connection, "the upstream keeps failing and is left alone for a while");
            }
            (BreakerState::HalfOpen, BreakerState::Closed) => {
                let (tenant, connection) = self.name();
                tracing::info!(tenant, connection, "the upstream works again");
            }
            _ => {}
        }
    }

    /// The tenant and the connection, for log lines.
    fn name(&self) -> (&str, &str) {
        (&self.connection.tenant, &self.connection.name)
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The same, with something that the upstream is told beside the call.
    pub(crate) fn telling(self, onward: Option<Box<Onward>>) -> Self {
        Self { onward, ..self }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).gone(self.pass);
    }
}

/// The semaphores are never closed; if they were, nothing would have been sent.
async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Lost> {
    let closed = |_| Lost::NotSent { fault: Fault::new(FaultCode::Cancelled), again: false };
    Arc::clone(places).acquire_owned().await.map_err(closed)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use adapters::{DIALECTS, Grant, Identifier, Registration, Slot, Target, Wait};

    use super::*;
    use crate::mock::{Fault as Mishap, Mock};
    use crate::tenants::{CredentialValue, Credentials, Limits, RetryPolicy, Timeouts};

    const FAILING: Signal = Signal { failing: true, credential_refused: false, hold_ms: None };
    const REFUSED: Signal = Signal { failing: false, credential_refused: true, hold_ms: None };

    /// A way out with one place for everybody, whose breakers open at the first failure and let a probe go at once.
    fn outbound() -> Outbound {
        Outbound::new(Rules { max_in_flight: 1, max_in_flight_per_tenant: 1, breaker_failures: 1, breaker_open_ms: 0 })
    }

    /// The first dialect whose example shows a credential of this kind.
    fn dialect(signs_in: bool) -> &'static Registration {
        let grant = |each: &&Registration| matches!(form(each).1.grant, Grant::SignIn);
        DIALECTS.iter().find(|each| grant(each) == signs_in).unwrap()
    }

    /// The example's credentials and the form that they have.
    fn form(registration: &Registration) -> (toml::Table, &'static adapters::CredentialForm) {
        let example: toml::Table = registration.example.parse().unwrap();
        let members = example["credentials"].as_table().unwrap().clone();
        let fits = |form: &&adapters::CredentialForm| form.members.iter().all(|each| members.contains_key(each.name));
        let form = registration.profile.auth.forms.iter().find(fits).unwrap();
        (members, form)
    }

    /// A connection with a table as a mock gives it.
    fn connection(registration: &'static Registration, mut table: toml::Table, lanes: usize) -> Arc<Connection> {
        let base_url = table["base_url"].as_str().unwrap().to_owned();
        let given = table.remove("credentials").unwrap();
        let member = |name: &'static str| {
            let text = given[name].as_str().unwrap();
            (name, CredentialValue::Secret(text.strip_prefix("plain:").unwrap_or(text).to_owned().into()))
        };
        let form = form(registration).1;
        for key in ["dialect", "allow_http", "allow_private"] {
            table.remove(key);
        }
        let settings = serde_json::to_value(table).unwrap();
        let dialect = (registration.open)(settings.clone()).unwrap();
        Arc::new(Connection {
            name: "c".into(),
            tenant: "acme".into(),
            registration,
            dialect: dialect.into(),
            settings: settings.as_object().unwrap().clone(),
            base_url,
            credentials: Credentials {
                grant: &form.grant,
                members: form.members.iter().map(|each| member(each.name)).collect(),
            },
            allow_http: true,
            allow_private: true,
            limits: Limits { rate: None, max_in_flight: lanes, pool_idle_ms: 1_000, max_response_bytes: 1 << 20 },
            timeouts: Timeouts { connect_ms: 10_000, response_ms: 20_000 },
            retry: RetryPolicy {
                max_attempts: 4,
                doubt_s: 600,
                base_ms: 1,
                cap_ms: 1,
                budget_percent: 20,
                budget_floor_per_minute: 1,
            },
        })
    }

    /// An upstream that nothing is sent to: a token is at hand, and no test here lets a call go.
    fn fixed(outbound: &Outbound, lanes: usize) -> Upstream {
        let registration = dialect(false);
        outbound.open(&connection(registration, registration.example.parse().unwrap(), lanes)).unwrap()
    }

    async fn mock(registration: &'static Registration) -> Mock {
        Mock::start(registration, (Ipv4Addr::LOCALHOST, 0).into()).await.unwrap()
    }

    /// An upstream whose sign-in goes to this listener instead of a mock.
    async fn elsewhere(outbound: &Outbound, listener: &TcpListener, lanes: usize) -> Upstream {
        let registration = dialect(true);
        let mock = mock(registration).await;
        let table = mock.connection_toml().to_string();
        let table = table.replace(&mock.addr().to_string(), &listener.local_addr().unwrap().to_string());
        outbound.open(&connection(registration, table.parse().unwrap(), lanes)).unwrap()
    }

    /// What stands in the way of a call, unless it still waits for leave after ten seconds.
    async fn admit(upstream: &Upstream) -> Result<Permit, Lost> {
        upstream.admit(1, Some(Instant::now() + Duration::from_secs(10))).await
    }

    fn a_call(registration: &Registration, upstream: &Upstream) -> Call {
        let forms = ["7000001", "00000000000000000000000a", "91c615e3-1040-4815-8ecb-00000000000a"];
        let mut ids = forms.into_iter().map(|text| Identifier::Id(text.into()));
        let identifier = ids.find(|id| registration.profile.admit(id).is_ok()).unwrap();
        upstream.connection.dialect.plan(vec![Target { slot: Slot(0), identifier }]).calls.remove(0)
    }

    fn wait_for_credential(admitted: Result<Permit, Lost>) -> (Option<Wait>, bool) {
        match admitted.err() {
            Some(Lost::NotSent { fault, again }) if fault.code == FaultCode::CredentialUnavailable => {
                (fault.wait, again)
            }
            other => panic!("{other:?}"),
        }
    }

    fn sign_ins(mock: &Mock) -> usize {
        mock.journal().iter().filter(|entry| entry.sign_in).count()
    }

    #[tokio::test]
    async fn a_sign_in_that_hangs_keeps_nobody_else_waiting() {
        // The system takes the connection; nobody ever answers on it.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let outbound = outbound();
        let hanging = elsewhere(&outbound, &listener, 1).await;
        let other = fixed(&outbound, 1);
        let mut hangs = std::pin::pin!(hanging.admit(1, None));
        let accepted = tokio::task::spawn_blocking(move || listener.accept());
        // Keeps the first going until its sign-in is under way.
        let _connection = tokio::select! {
            _ = &mut hangs => panic!("admitted without a credential"),
            accepted = accepted => accepted.unwrap().unwrap(),
        };
        tokio::select! {
            biased;
            admitted = admit(&other) => assert!(admitted.is_ok(), "the same tenant's other connection waits"),
            _ = &mut hangs => panic!("admitted without a credential"),
        }
    }

    #[tokio::test]
    async fn a_failed_sign_in_is_one_failure_and_one_pause_for_all_who_wait() {
        let rules = Rules { breaker_failures: 2, breaker_open_ms: 60_000, ..outbound().rules };
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let upstream = elsewhere(&Outbound::new(rules), &nobody, 20).await;
        drop(nobody);
        let all = futures_util::future::join_all((0..20).map(|_| admit(&upstream))).await;
        for admitted in all {
            assert_eq!(wait_for_credential(admitted), (Some(Wait::For(1)), true));
        }
        assert_eq!(upstream.breaker_state(), BreakerState::Closed, "more than one sign-in was tried");
    }

    #[tokio::test]
    async fn failed_sign_ins_open_the_breaker() {
        let rules = Rules { breaker_open_ms: 60_000, ..outbound().rules };
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let upstream = elsewhere(&Outbound::new(rules), &nobody, 1).await;
        drop(nobody);
        wait_for_credential(admit(&upstream).await);
        assert_eq!(upstream.breaker_state(), BreakerState::Open);
        assert!(matches!(admit(&upstream).await, Err(Lost::CircuitOpen { .. })));
    }

    #[tokio::test]
    async fn a_fresh_token_that_is_refused_is_no_reason_to_sign_in_again_at_once() {
        let registration = dialect(true);
        let mock = mock(registration).await;
        let upstream = outbound().open(&connection(registration, mock.connection_toml(), 1)).unwrap();
        mock.fault_always(Some(Mishap::Empty(401)));
        let call = a_call(registration, &upstream);
        for signal in [Signal::default(), REFUSED, REFUSED] {
            let permit = admit(&upstream).await.ok().unwrap();
            assert_eq!(upstream.send(&permit, &call).await.unwrap().status(), 401);
            upstream.heard(&permit, signal);
        }
        // The first token was accepted once, so it was renewed; the second never was.
        for _ in 0..3 {
            assert_eq!(wait_for_credential(admit(&upstream).await), (Some(Wait::For(60)), false));
        }
        assert_eq!((sign_ins(&mock), mock.journal().len()), (2, 5));
        mock.stop().await;
    }

    #[tokio::test]
    async fn a_token_that_is_refused_while_a_call_waits_for_its_place_is_not_shown() {
        let registration = dialect(true);
        let mock = mock(registration).await;
        let upstream = outbound().open(&connection(registration, mock.connection_toml(), 2)).unwrap();
        let first = admit(&upstream).await.ok().unwrap();
        let mut waits = std::pin::pin!(admit(&upstream));
        // Polled once, it has the token and waits for the place that the first one holds.
        assert!(futures_util::poll!(&mut waits).is_pending());
        upstream.heard(&first, REFUSED);
        drop(first);
        wait_for_credential(waits.await);
        mock.stop().await;
    }

    #[tokio::test]
    async fn a_probe_ends_with_its_permit() {
        let upstream = fixed(&outbound(), 2);
        upstream.heard(&admit(&upstream).await.ok().unwrap(), FAILING);
        assert_eq!(upstream.breaker_state(), BreakerState::HalfOpen);
        for _ in 0..3 {
            let probe = admit(&upstream).await.expect("the last probe is still open");
            assert!(matches!(admit(&upstream).await, Err(Lost::CircuitOpen { wait_ms: 1 })));
            drop(probe);
        }
        let probe = admit(&upstream).await.ok().unwrap();
        upstream.heard(&probe, Signal::default());
        assert_eq!(upstream.breaker_state(), BreakerState::Closed);
    }

    #[tokio::test]
    async fn while_a_probe_is_under_way_nobody_queues_for_a_lane() {
        let upstream = fixed(&outbound(), 1);
        upstream.heard(&admit(&upstream).await.ok().unwrap(), FAILING);
        let _probe = admit(&upstream).await.ok().unwrap();
        assert!(matches!(admit(&upstream).await, Err(Lost::CircuitOpen { .. })));
    }

    #[tokio::test]
    async fn only_the_probe_decides() {
        for signal in [Signal::default(), FAILING] {
            let upstream =
                fixed(&Outbound::new(Rules { max_in_flight: 3, max_in_flight_per_tenant: 3, ..outbound().rules }), 3);
            let stale = admit(&upstream).await.ok().unwrap();
            upstream.heard(&admit(&upstream).await.ok().unwrap(), FAILING);
            let _probe = admit(&upstream).await.ok().unwrap();
            upstream.heard(&stale, signal);
            drop(stale);
            assert_eq!(upstream.breaker_state(), BreakerState::HalfOpen);
            assert!(admit(&upstream).await.is_err(), "the probe is still under way");
        }
    }
}
