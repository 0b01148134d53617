//! What is worked here, and how much more may be. It starts nothing and waits for nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::signals::Signals;
use super::{Bounds, Engine, Finished};
use crate::maps::HashMap;
use crate::store::{DeletionId, Hold, Job, Loads, PartKey};
use crate::telemetry;

/// What is worked here, and what is known to be open.
pub(super) struct Register {
    state: Mutex<State>,
}

struct State {
    bounds: Bounds,
    parts: BTreeMap<(DeletionId, u32), Running>,
    /// Deletions that are closed, as long as parts of them are here: few, and not for long.
    closed: Vec<DeletionId>,
    worked: Load,
    open: Load,
}

impl State {
    /// How many contacts may be worked; for a tenant that has none yet, more.
    fn room(&self, idle: bool) -> usize {
        self.bounds.max_worked_contacts.saturating_mul(if idle { 2 } else { 1 })
    }

    /// When the oldest deletion was made that is worked here. Ids sort by it.
    fn oldest_ms(&self) -> Option<i64> {
        self.parts.first_key_value().map(|((id, _), _)| id.created_ms())
    }
}

/// Contacts, together and of each tenant.
#[derive(Default)]
struct Load {
    all: usize,
    by_tenant: HashMap<Arc<str>, usize>,
}

/// A part that is worked here.
#[derive(Clone)]
pub(super) struct Running {
    key: PartKey,
    tenant: Arc<str>,
    contacts: usize,
    /// What is said about it.
    pub(super) signals: Arc<Signals>,
    finished: Option<Finished>,
    /// Until when it is certainly held, where it could be taken over.
    valid_until: Option<Arc<Mutex<Instant>>>,
}

/// Takes a part off the register when its task ends, however it ends.
pub(super) struct Leaving {
    pub(super) engine: Arc<Engine>,
    pub(super) key: PartKey,
    pub(super) is_over: bool,
}

/// A part whose task broke off is given back after a while: at once, it might break off again and again.
const GIVE_BACK: Duration = Duration::from_secs(30);

impl Leaving {
    /// Its task has come to its end.
    pub(super) fn in_order(mut self) {
        self.is_over = true;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.engine.register.leave(self.key);
        // Where nothing waits for the room that this one leaves, nobody need look; but a gateway that closes waits for the last.
        if self.engine.may_wait.load(Ordering::Relaxed) || self.engine.closing.is_cancelled() {
            self.engine.stir();
        }
        if !self.is_over {
            let (engine, key) = (Arc::clone(&self.engine), self.key);
            let giving_back = async move {
                tracing::error!(deletion = %key.deletion, part = key.part, "the work on a part broke off");
                let closing = engine.closing.clone();
                let _ = tokio::time::timeout(GIVE_BACK, closing.cancelled()).await;
                let _ = engine.ledger.release(key).await;
                engine.stir();
            };
            self.engine.tasks.spawn(giving_back);
        }
    }
}

impl Load {
    fn of(&self, tenant: &Arc<str>) -> usize {
        self.by_tenant.get(tenant).copied().unwrap_or(0)
    }

    fn add(&mut self, tenant: &Arc<str>, contacts: usize) {
        self.all += contacts;
        *self.by_tenant.entry(Arc::clone(tenant)).or_default() += contacts;
    }

    fn take(&mut self, tenant: &Arc<str>, contacts: usize) {
        // What is counted anew from the ledger can be less than what is then taken away.
        self.all = self.all.saturating_sub(contacts);
        if let Some(open) = self.by_tenant.get_mut(tenant) {
            *open = open.saturating_sub(contacts);
            if *open == 0 {
                self.by_tenant.remove(tenant);
            }
        }
    }
}

impl Running {
    /// One that was claimed, or that is about to be accepted if its end can be followed.
    pub(super) fn new(job: &Job, finished: Option<Finished>, valid_until: Option<Instant>) -> Self {
        let signals = Signals::default();
        if finished.is_none() {
            signals.accept();
        }
        Self {
            key: job.key,
            tenant: Arc::clone(&job.head.tenant),
            contacts: job.part.contacts.len(),
            signals: Arc::new(signals),
            finished,
            valid_until: valid_until.map(|until| Arc::new(Mutex::new(until))),
        }
    }

    /// Whether it is certainly held now.
    pub(super) fn is_held(&self) -> bool {
        self.valid_until
            .as_ref()
            .is_none_or(|until| Instant::now() < *until.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Register {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (worked, open) = (Load::default(), Load::default());
        let state = State { bounds, parts: BTreeMap::new(), closed: Vec::new(), worked, open };
        Self { state: Mutex::new(state) }
    }

    /// From now on, these bounds hold. What is worked already stays.
    pub(super) fn set_bounds(&self, bounds: Bounds) {
        self.state().bounds = bounds;
    }

    /// After so many milliseconds, a deletion gives up what is not in flight.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.state().bounds.deadline_ms
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many contacts can be taken beside those that are not settled.
    pub(super) fn has_room(&self, tenant: &Arc<str>, contacts: usize) -> bool {
        let state = self.state();
        // One alone is always taken, however large requests may be.
        let fits = |open: usize, most: usize| open == 0 || open + contacts <= most;
        fits(state.open.all, state.bounds.max_open_contacts)
            && fits(state.open.of(tenant), state.bounds.max_open_contacts_per_tenant)
    }

    /// Whether so many contacts can be worked at once. A tenant without work gets in where others have filled the room.
    pub(super) fn may_start(&self, tenant: &Arc<str>, contacts: usize) -> bool {
        let state = self.state();
        let own = state.worked.of(tenant);
        let room = state.room(own == 0);
        state.worked.all < room && (own == 0 || own + contacts <= state.bounds.max_worked_contacts_per_tenant)
    }

    /// What is worked, to claim more; `None` if there is no room.
    pub(super) fn loads(&self) -> Option<Loads> {
        let state = self.state();
        if state.worked.all >= state.room(true) {
            return None;
        }
        let full = state.worked.all >= state.room(false);
        let most = if full { 1 } else { state.bounds.max_worked_contacts_per_tenant };
        let by_tenant = state.worked.by_tenant.iter().map(|(tenant, contacts)| (Arc::clone(tenant), *contacts));
        Some(Loads { by_tenant: by_tenant.collect(), most })
    }

    pub(super) fn enter(&self, running: &Running) {
        let mut state = self.state();
        state.worked.add(&running.tenant, running.contacts);
        // One that was lost and is claimed again.
        if let Some(old) = state.parts.insert((running.key.deletion, running.key.part), running.clone()) {
            old.signals.lose();
            state.worked.take(&old.tenant, old.contacts);
        }
        telemetry::running(state.parts.len(), state.oldest_ms());
    }

    fn leave(&self, key: PartKey) {
        let mut state = self.state();
        let place = (key.deletion, key.part);
        // A part that was lost and claimed again stands here under its new fence.
        if state.parts.get(&place).is_some_and(|running| running.key == key)
            && let Some(running) = state.parts.remove(&place)
        {
            state.worked.take(&running.tenant, running.contacts);
        }
        let id = key.deletion;
        if !state.closed.is_empty() && state.parts.range((id, 0)..=(id, u32::MAX)).next().is_none() {
            state.closed.retain(|closed| *closed != id);
        }
        telemetry::running(state.parts.len(), state.oldest_ms());
    }

    /// Whether nobody has said before that the deletion is closed. Of one whose parts are not here, nobody else does.
    pub(super) fn first_to_close(&self, id: DeletionId) -> bool {
        let mut state = self.state();
        let is_here = state.parts.range((id, 0)..=(id, u32::MAX)).next().is_some();
        let is_first = !state.closed.contains(&id);
        if is_here && is_first {
            state.closed.push(id);
        }
        is_first
    }

    /// A deletion is about to be accepted, with so many contacts that are not settled.
    pub(super) fn opened(&self, tenant: &Arc<str>, contacts: usize) {
        if contacts > 0 {
            self.state().open.add(tenant, contacts);
        }
    }

    /// So many contacts are settled now, or were not accepted after all.
    pub(super) fn settled(&self, tenant: &Arc<str>, contacts: usize) {
        self.state().open.take(tenant, contacts);
    }

    /// What is open as the ledger counts it.
    pub(super) fn set_backlog(&self, backlog: impl IntoIterator<Item = (Arc<str>, u64)>) {
        let mut open = Load::default();
        for (tenant, contacts) in backlog {
            open.add(&tenant, usize::try_from(contacts).unwrap_or(usize::MAX));
        }
        self.state().open = open;
    }

    /// What is to be renewed.
    pub(super) fn keys(&self) -> Vec<PartKey> {
        let state = self.state();
        let down = state.parts.values().filter(|running| running.signals.is_accepted());
        down.map(|running| running.key).collect()
    }

    /// Whether everything that is worked here is certainly held. Else it is to be renewed before more is claimed, or
    /// the claim might find what is worked here.
    pub(super) fn holds_all(&self) -> bool {
        let state = self.state();
        let mut down = state.parts.values().filter(|running| running.signals.is_accepted());
        down.all(Running::is_held)
    }

    pub(super) fn renewed(&self, key: PartKey, hold: Hold, until: Instant) {
        let state = self.state();
        let Some(running) = state.parts.get(&(key.deletion, key.part)).filter(|running| running.key == key) else {
            return;
        };
        match hold {
            Hold::Lost => running.signals.lose(),
            Hold::Held => {}
            Hold::Cancelled => running.signals.cancel(),
        }
        if hold != Hold::Lost
            && let Some(valid) = &running.valid_until
        {
            *valid.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }

    pub(super) fn cancel(&self, id: DeletionId) {
        let state = self.state();
        state.parts.range((id, 0)..=(id, u32::MAX)).for_each(|(_, running)| running.signals.cancel());
    }

    /// Whoever works a part is to look at what stands elsewhere.
    pub(super) fn ring(&self) {
        self.state().parts.values().for_each(|running| running.signals.ring());
    }

    pub(super) fn follow(&self, id: DeletionId) -> Option<Finished> {
        self.state().parts.get(&(id, 0))?.finished.clone()
    }
}
