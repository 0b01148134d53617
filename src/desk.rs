//! The desk: which tenants there are now, which connection a contact goes to, and the connection's runtime side: made when it is
//! first used, forgotten when it was not used for long, and given up when the connection is configured otherwise.
//!
//! It reads no file, and decides nothing about contacts: whoever works at an upstream that was given up is told so by it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::driver::Route;
use crate::live::Live;
use crate::maps::HashMap;
use crate::outbound::{Outbound, Upstream};
use crate::tenants::{Connection, Tenants};

/// No deletion goes on for longer: the ceiling of `deletions.deadline_s`.
const LONGEST_DELETION_MS: i64 = 2_592_000_000;

/// Tenants and the upstreams of their connections.
#[derive(Debug)]
pub struct Desk {
    tenants: Live<Tenants>,
    outbound: Outbound,
    open: Mutex<HashMap<Name, Opened>>,
    /// Until when connections led elsewhere, in milliseconds since 1970-01-01 UTC.
    elsewhere: Mutex<HashMap<Name, i64>>,
    waiters: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    waiters_per_tenant: usize,
    last_used: RwLock<HashMap<[u8; 32], AtomicI64>>,
}

/// Milliseconds.
const DAY: i64 = 86_400_000;

/// A tenant's id and a connection's name.
type Name = (Arc<str>, Arc<str>);

/// An upstream that has been used.
#[derive(Debug)]
struct Opened {
    /// The connection as it is configured now; the upstream may have been opened with an equal one.
    connection: Arc<Connection>,
    upstream: Arc<Upstream>,
    /// Since it was last looked.
    is_used: bool,
    /// When it was last seen in use, in the clock's milliseconds.
    used_ms: u64,
}

/// Why there is no way to a connection.
#[derive(Debug, thiserror::Error)]
pub enum NoWay {
    /// Meanwhile, it is another dialect's or not configured any more.
    #[error("the connection is not configured any more")]
    Gone,
    /// The machine has no usable TLS set-up.
    #[error("{0}")]
    NoClient(String),
}

impl Desk {
    /// With no upstream opened yet. So many requests of one tenant may wait for their deletions at the same time.
    pub fn new(tenants: Arc<Tenants>, outbound: Outbound, waiters_per_tenant: usize) -> Self {
        let (open, elsewhere, waiters, last_used) = Default::default();
        Self { tenants: Live::new(tenants), outbound, open, elsewhere, waiters, waiters_per_tenant, last_used }
    }

    /// The tenants as they are now.
    pub fn tenants(&self) -> Arc<Tenants> {
        self.tenants.now()
    }

    /// The places of a tenant's requests that wait.
    pub fn waiters(&self, tenant: &Arc<str>) -> Arc<Semaphore> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let places = || Arc::new(Semaphore::new(self.waiters_per_tenant));
        Arc::clone(waiters.entry(Arc::clone(tenant)).or_insert_with(places))
    }

    /// A key was used, the one with this hash. Written is only the first use on each day, so that those after it cost a look.
    pub fn used_key(&self, sha256: &[u8; 32]) {
        let today = clock::unix_ms().div_euclid(DAY);
        let known = self.last_used.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(day) = known.get(sha256) {
            if day.load(Ordering::Relaxed) != today {
                day.store(today, Ordering::Relaxed);
            }
            return;
        }
        drop(known);
        let mut known = self.last_used.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(*sha256, AtomicI64::new(today));
    }

    /// The beginning of the day, in UTC, on which the key with this hash was last used since the gateway started, in
    /// milliseconds since 1970-01-01 UTC.
    pub fn key_last_used_ms(&self, sha256: &[u8; 32]) -> Option<i64> {
        let known = self.last_used.read().unwrap_or_else(PoisonError::into_inner);
        known.get(sha256).map(|day| day.load(Ordering::Relaxed) * DAY)
    }

    /// The upstreams of all connections that have been used and not been forgotten, in no order.
    pub fn all_opened(&self) -> Vec<Arc<Upstream>> {
        self.open().values().map(|opened| Arc::clone(&opened.upstream)).collect()
    }

    /// How many calls are in flight at all connections together, and how many may be.
    pub fn in_flight(&self) -> (usize, usize) {
        self.outbound.in_flight()
    }

    /// A connection with its upstream, both as they are configured now: whoever asks may have found the connection before it
    /// was changed.
    ///
    /// # Errors
    /// If there is no connection of this name and dialect any more, or no client can be made.
    pub fn route(&self, connection: &Arc<Connection>) -> Result<Route, NoWay> {
        let name = (Arc::clone(&connection.tenant), Arc::clone(&connection.name));
        let mut open = self.open();
        if let Some(opened) = open.get_mut(&name).filter(|opened| Arc::ptr_eq(&opened.connection, connection)) {
            return Ok(opened.route());
        }
        let tenants = self.tenants();
        let now = tenants.connection(&name.0, &name.1).ok_or(NoWay::Gone)?;
        if now.registration.profile.id != connection.registration.profile.id {
            return Err(NoWay::Gone);
        }
        if let Some(opened) = open.get_mut(&name) {
            return Ok(opened.route());
        }
        let upstream = self.outbound.open(now).map_err(NoWay::NoClient)?;
        let upstream = Arc::new(upstream.elsewhere_until(self.elsewhere_until(&name)));
        let opened = Opened { connection: Arc::clone(now), upstream, is_used: true, used_ms: 0 };
        Ok(open.entry(name).or_insert(opened).route())
    }

    /// The upstream of a connection, if it has been used.
    pub fn opened(&self, connection: &Connection) -> Option<Arc<Upstream>> {
        let name = (Arc::clone(&connection.tenant), Arc::clone(&connection.name));
        self.open().get(&name).map(|opened| Arc::clone(&opened.upstream))
    }

    /// From now on, these are the tenants. Upstreams of connections that are as they were stay as they are; the others are given
    /// up, and made anew with what is still true of them.
    pub fn replace(&self, tenants: Arc<Tenants>) {
        let mut open = self.open();
        self.note_what_leads_elsewhere(&tenants);
        let mut kept = HashMap::with_capacity(open.len());
        for (name, opened) in open.drain() {
            let now = tenants.connection(&name.0, &name.1);
            let upstream = match now {
                Some(now) if now.is_same(&opened.connection) => Some(Arc::clone(&opened.upstream)),
                // Without a client it is made again when it is needed.
                Some(now) => {
                    let next = self.outbound.open_after(now, Some(&opened.upstream)).ok();
                    next.map(|next| Arc::new(next.elsewhere_until(self.elsewhere_until(&name))))
                }
                None => None,
            };
            let stays = upstream.as_ref().is_some_and(|upstream| Arc::ptr_eq(upstream, &opened.upstream));
            if !stays {
                opened.upstream.retire(now.map(|now| &**now));
            }
            if let Some((now, upstream)) = now.zip(upstream) {
                kept.insert(name, Opened { connection: Arc::clone(now), upstream, ..opened });
            }
        }
        *open = kept;
        self.outbound.keep_tenants(|tenant| tenants.tenant(tenant).is_some());
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|tenant, _| tenants.tenant(tenant).is_some());
        drop(waiters);
        let mut last_used = self.last_used.write().unwrap_or_else(PoisonError::into_inner);
        last_used.retain(|sha256, _| tenants.key(sha256).is_some());
        drop(last_used);
        // Before others may open upstreams again.
        let before = self.tenants.replace(tenants);
        drop(open);
        // It can be large.
        drop(before);
    }

    /// What was sent for a deletion may stand in the ledger, and the connection may come back, long after nobody works there.
    fn note_what_leads_elsewhere(&self, next: &Tenants) {
        let (before, now_ms) = (self.tenants(), clock::unix_ms());
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.retain(|_, until_ms| now_ms.saturating_sub(*until_ms) < LONGEST_DELETION_MS);
        for connection in before.iter().flat_map(|tenant| tenant.connections.values()) {
            let now = next.connection(&connection.tenant, &connection.name);
            if now.is_none_or(|now| !now.leads_where(connection)) {
                elsewhere.insert((Arc::clone(&connection.tenant), Arc::clone(&connection.name)), now_ms);
            }
        }
    }

    fn elsewhere_until(&self, name: &Name) -> i64 {
        let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.get(name).copied().unwrap_or(i64::MIN)
    }

    /// Forgets upstreams that nobody used for so long, looking at them a few times in it, until it is told to stop.
    pub async fn tidy(self: Arc<Self>, idle: Duration, stop: CancellationToken) {
        let pause = (idle / 4).clamp(Duration::from_secs(1), Duration::from_secs(60));
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            self.forget_idle(idle);
        }
    }

    /// Closes connections to upstreams that nobody used for their time, looking once a second, until it is told to stop.
    pub async fn close_idle(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_some() {
            let open = self.open();
            let idle = open.values().map(|opened| &opened.upstream).filter(|upstream| upstream.has_idle());
            let idle: Vec<_> = idle.cloned().collect();
            drop(open);
            idle.iter().for_each(|upstream| upstream.close_idle());
        }
    }

    /// Whatever is used now stays, as does what has still to be remembered: paces, budgets, and that an upstream is being left
    /// alone. Pauses of sign-ins outlive their upstreams.
    fn forget_idle(&self, idle: Duration) {
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let now_ms = clock::now().ms;
        self.open().retain(|_, opened| {
            if std::mem::take(&mut opened.is_used) || Arc::strong_count(&opened.upstream) > 1 {
                opened.used_ms = now_ms;
                return true;
            }
            let keep_ms = idle_ms.max(opened.upstream.remembers_for_ms());
            now_ms.saturating_sub(opened.used_ms) < keep_ms || opened.upstream.is_left_alone()
        });
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Name, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    fn route(&mut self) -> Route {
        self.is_used = true;
        Route { connection: Arc::clone(&self.connection), upstream: Arc::clone(&self.upstream) }
    }
}

#[cfg(test)]
mod tests {
    use adapters::{DIALECTS, Grant, Identifier, Pace, Slot, Target};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::outbound::{Dial, Dialling, Rules, sample, sample_connection};
    use crate::tenants::Tenant;

    /// A tenant "acme" whose connection "c" is so.
    fn tenants(change: impl FnOnce(&mut Connection)) -> Arc<Tenants> {
        let mut connection = sample_connection(&DIALECTS[0]);
        change(&mut connection);
        let tenant = Tenant {
            id: "acme".into(),
            default_connection: None,
            require_idempotency_key: false,
            connections: [("c".into(), Arc::new(connection))].into(),
            token_rules: Vec::new(),
        };
        Arc::new(Tenants::new([Arc::new(tenant)], []))
    }

    fn desk(tenants: &Arc<Tenants>) -> Desk {
        let rules =
            Rules { max_in_flight: 4, max_in_flight_per_tenant: 4, breaker_failures: 5, breaker_open_ms: 30_000 };
        Desk::new(Arc::clone(tenants), Outbound::new(rules), 4)
    }

    fn connection(tenants: &Tenants) -> &Arc<Connection> {
        tenants.connection("acme", "c").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_is_forgotten_when_it_was_idle_for_long_and_never_in_use() {
        let slow = tenants(|connection| connection.limits.rate = Some(Pace { calls: 2, per_s: 3_600 }));
        for (tenants, kept_s) in [(tenants(|_| {}), 600), (slow, 3_600)] {
            let desk = desk(&tenants);
            let idle = Duration::from_secs(600);
            let in_use = desk.route(connection(&tenants)).unwrap();
            for _ in 0..20 {
                tokio::time::advance(Duration::from_secs(600)).await;
                desk.forget_idle(idle);
                assert!(desk.opened(connection(&tenants)).is_some(), "it is in use");
            }
            drop(in_use);
            tokio::time::advance(Duration::from_secs(kept_s - 1)).await;
            desk.forget_idle(idle);
            assert!(desk.opened(connection(&tenants)).is_some(), "it is too early");
            tokio::time::advance(Duration::from_secs(1)).await;
            desk.forget_idle(idle);
            assert!(desk.opened(connection(&tenants)).is_none(), "it was idle for {kept_s} s");
        }
    }

    #[tokio::test]
    async fn an_upstream_stays_where_its_connection_did_not_change() {
        let first = tenants(|_| {});
        let desk = desk(&first);
        let Route { upstream, .. } = desk.route(connection(&first)).unwrap();
        let equal = tenants(|_| {});
        desk.replace(Arc::clone(&equal));
        assert!(Arc::ptr_eq(&upstream, &desk.opened(connection(&equal)).unwrap()) && !upstream.is_retired());
        // Whoever asks with the connection as it was gets it as it is.
        let route = desk.route(connection(&first)).unwrap();
        assert!(Arc::ptr_eq(&route.connection, connection(&equal)) && Arc::ptr_eq(&route.upstream, &upstream));

        // The same contacts, with other patience: nothing is in doubt for that.
        let other = tenants(|connection| connection.timeouts.response_ms = 1);
        desk.replace(Arc::clone(&other));
        assert!(upstream.is_retired() && !upstream.is_elsewhere());
        let second = desk.opened(connection(&other)).unwrap();
        assert!(!Arc::ptr_eq(&second, &upstream) && !second.is_retired());

        desk.replace(tenants(|connection| connection.base_url = "https://other.example".to_owned()));
        assert!(second.is_elsewhere());
        let now_ms = clock::unix_ms();
        let third = desk.opened(connection(&other)).unwrap();
        assert!(third.is_newer_than(now_ms - 60_000) && !third.is_newer_than(now_ms + 1) && !second.is_newer_than(0));
        desk.replace(Arc::default());
        assert!(matches!(desk.route(connection(&other)), Err(NoWay::Gone)));
        assert_eq!(desk.open().len(), 0);
    }

    /// Answers whatever comes, until it is hung up on; then it says so.
    struct Answering(tokio::sync::mpsc::UnboundedSender<()>);

    impl Dial for Answering {
        fn dial<'d>(&'d self, _: &'d http::Uri) -> Dialling<'d> {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let hung_up = self.0.clone();
            TaskTracker::new().spawn(async move {
                let mut bytes = [0; 4_096];
                while far.read(&mut bytes).await.unwrap() > 0 {
                    far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                }
                hung_up.send(()).unwrap();
            });
            Box::pin(std::future::ready(Ok(Box::new(near) as Box<_>)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_though_nobody_calls() {
        let registration = sample(|grant| matches!(grant, Grant::Fixed));
        let tenants = tenants(|connection| *connection = sample_connection(registration));
        let (hanging_up, mut hung_up) = tokio::sync::mpsc::unbounded_channel();
        let Desk { outbound, .. } = desk(&tenants);
        let desk = Arc::new(Desk::new(Arc::clone(&tenants), outbound.dialled_by(Arc::new(Answering(hanging_up))), 4));
        let stop = CancellationToken::new();
        let closing = TaskTracker::new().spawn(Arc::clone(&desk).close_idle(stop.clone()));
        let Route { upstream, .. } = desk.route(connection(&tenants)).unwrap();
        let ids = ["7000001", "00000000000000000000000a", "91c615e3-1040-4815-8ecb-00000000000a"];
        let mut ids = ids.into_iter().map(|text| Identifier::Id(text.into()));
        let identifier = ids.find(|id| registration.profile.admit(id).is_ok()).unwrap();
        let target = Target { slot: Slot(0), identifier };
        let call = connection(&tenants).dialect.plan(vec![target]).calls.remove(0);
        for is_retired in [false, true] {
            let permit = upstream.admit(1, None).await.unwrap();
            assert!(upstream.send(&permit, &call).await.is_ok() && upstream.has_idle());
            let start = tokio::time::Instant::now();
            if is_retired {
                upstream.retire(None);
            }
            hung_up.recv().await.unwrap();
            // Kept for 4 s, and looked for once a second.
            let took = start.elapsed().as_secs();
            assert!(if is_retired { took == 0 } else { (4..=5).contains(&took) }, "{took} s");
            assert!(!upstream.has_idle());
        }
        stop.cancel();
        closing.await.unwrap();
    }
}
