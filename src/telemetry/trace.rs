//! Where a deletion stands in its caller's trace, and its spans: deletion › connection › call › attempt.
//!
//! A deletion that nobody traces has none of it. Where a deletion is worked whose caller's trace is not known here, because it was
//! accepted by another process, it has a trace of its own, whose id is that of the deletion; so have those without a caller's
//! trace. No span has an identifier, a credential or a byte of a body. What becomes of spans is the exporter's.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapters::{Outcome, Slot};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::origin::{self, Origin, Parent, REQUEST_ID, TRACEPARENT, TRACESTATE};
use super::otlp::{Fact, Kind, Queue, Span};
use crate::clock;
use crate::engine::Lost;
use crate::store::{DeletionId, Head};
use crate::tenants::Connection;

/// The flag of a trace that is recorded.
const RECORDED: u8 = 1;
/// So many deletions keep what is known of their callers' traces; beyond, the oldest go on without.
const MOST_KEPT: usize = 4_096;

/// What is passed on and what is recorded; one a gateway.
pub struct Tracer {
    /// Whether upstreams are told what callers said.
    tells: bool,
    /// Of so many deletions, one is recorded.
    one_in: u64,
    /// Where spans go; without it, none is made.
    spans: Option<Queue>,
    kept: Mutex<BTreeMap<DeletionId, Arc<Trace>>>,
    /// Whether there may be something in `kept`.
    keeps: AtomicBool,
}

/// A deletion's trace.
pub(crate) struct Trace {
    id: u128,
    /// The deletion's own span.
    span: u64,
    parent: Option<Arc<Parent>>,
    flags: u8,
    /// The caller's own name of its request.
    request: Option<HeaderValue>,
    tells: bool,
    /// Where spans go, if it is recorded.
    spans: Option<Queue>,
}

/// What an upstream is told with one attempt.
pub struct Onward([Option<(HeaderName, HeaderValue)>; 3]);

impl Default for Tracer {
    /// Passes on, and records nothing.
    fn default() -> Self {
        Self::new(true, 1, None)
    }
}

impl Tracer {
    /// Tells upstreams or not; records one deletion of so many, if there is a place for spans.
    pub fn new(tells: bool, one_in: u64, spans: Option<Queue>) -> Self {
        Self { tells, one_in: one_in.max(1), spans, kept: Mutex::default(), keeps: AtomicBool::new(false) }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<DeletionId, Arc<Trace>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that is worked on here asks for this deletion.
    pub(crate) fn begin(&self, deletion: DeletionId) {
        if let Some(origin) = origin::chosen() {
            self.keep(deletion, Some(&origin));
        }
    }

    fn keep(&self, deletion: DeletionId, origin: Option<&Origin>) -> Option<Arc<Trace>> {
        let trace = Arc::new(self.trace_of(deletion, origin)?);
        let mut kept = self.kept();
        self.keeps.store(true, Ordering::Relaxed);
        if kept.len() >= MOST_KEPT {
            kept.pop_first();
        }
        kept.insert(deletion, Arc::clone(&trace));
        Some(trace)
    }

    /// The trace of a deletion that is about to be worked, if it has one.
    pub(crate) fn of(&self, deletion: DeletionId) -> Option<Arc<Trace>> {
        let known = self.keeps.load(Ordering::Relaxed).then(|| self.kept().get(&deletion).cloned()).flatten();
        known.or_else(|| self.spans.is_some().then(|| Arc::new(self.trace_of(deletion, None)?).into()).flatten())
    }

    /// What was known of a deletion is not needed any more.
    pub(crate) fn forget(&self, deletion: DeletionId) {
        if self.keeps.load(Ordering::Relaxed) {
            let mut kept = self.kept();
            kept.remove(&deletion);
            self.keeps.store(!kept.is_empty(), Ordering::Relaxed);
        }
    }

    /// A deletion came to its end.
    pub(crate) fn finished(&self, head: &Head, finished_ms: i64) {
        let trace = self.of(head.id);
        self.forget(head.id);
        let Some(trace) = trace else { return };
        let ns = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
        trace.record(|| Span {
            name: "deletion",
            start_ns: ns(head.created_ms),
            end_ns: ns(finished_ms),
            facts: vec![
                ("onedelete.deletion", Fact::Text(head.id.to_string())),
                ("onedelete.tenant", Fact::Text(head.tenant.to_string())),
                ("onedelete.connections", Fact::Number(head.shares.len() as u64)),
            ],
            ..trace.span(trace.span, trace.parent.as_ref().map(|parent| parent.span))
        });
    }

    fn trace_of(&self, deletion: DeletionId, origin: Option<&Origin>) -> Option<Trace> {
        let parent = origin.and_then(|origin| origin.parent.clone());
        let own = u128::from_be_bytes(deletion.to_bytes());
        let span = mix(own);
        let recorded = self.spans.is_some()
            && match &parent {
                Some(parent) => parent.flags & RECORDED != 0,
                // From the id, so that all who work on the deletion agree.
                None => span.is_multiple_of(self.one_in),
            };
        let request = origin.and_then(Origin::own_id).cloned();
        if parent.is_none() && request.is_none() && !recorded {
            return None;
        }
        Some(Trace {
            id: parent.as_ref().map_or(own, |parent| parent.trace),
            span,
            flags: parent.as_ref().map_or(if recorded { RECORDED } else { 0 }, |parent| parent.flags),
            parent,
            request,
            tells: self.tells,
            spans: self.spans.clone().filter(|_| recorded),
        })
    }
}

/// A span's id for a deletion, the same wherever it is worked: its two halves, mixed (the finisher of SplitMix64).
fn mix(deletion: u128) -> u64 {
    let mut mixed = (deletion >> 64) as u64 ^ (deletion as u64).rotate_left(29);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

impl Trace {
    /// Its id, for log lines; `None` if there is a request's name alone.
    pub(crate) fn id(&self) -> Option<String> {
        self.is_one().then(|| origin::hex(self.id))
    }

    /// Whether there is more than a request's name.
    fn is_one(&self) -> bool {
        self.parent.is_some() || self.spans.is_some()
    }

    /// The caller's own name of its request, for log lines.
    pub(crate) fn request(&self) -> Option<&str> {
        self.request.as_ref()?.to_str().ok()
    }

    /// Begins to work a share.
    pub(crate) fn share(self: Arc<Self>, deletion: DeletionId, connection: &Connection) -> ShareTrace {
        let recorded = self.spans.is_some().then(|| Recorded {
            id: fastrand::u64(1..),
            start_ns: clock::unix_ns(),
            facts: vec![
                ("onedelete.deletion", Fact::Text(deletion.to_string())),
                ("onedelete.tenant", Fact::Text(connection.tenant.to_string())),
                ("onedelete.connection", Fact::Text(connection.name.to_string())),
                ("onedelete.dialect", Fact::Word(connection.registration.profile.id)),
            ],
            outcomes: [0; Outcome::ALL.len()],
            calls: HashMap::new(),
        });
        ShareTrace { trace: self, recorded }
    }

    /// What goes upstream with an attempt, whose span this is.
    fn onward(&self, span: u64) -> Option<Box<Onward>> {
        if !self.tells {
            return None;
        }
        let place = || HeaderValue::try_from(format!("00-{:032x}-{span:016x}-{:02x}", self.id, self.flags)).ok();
        let state = || self.parent.as_ref()?.state.clone();
        Some(Box::new(Onward([
            self.request.clone().map(|value| (REQUEST_ID, value)),
            self.is_one().then(place).flatten().map(|value| (TRACEPARENT, value)),
            state().map(|value| (TRACESTATE, value)),
        ])))
    }

    fn span(&self, id: u64, parent: Option<u64>) -> Span {
        let state = self.parent.as_ref().and_then(|parent| parent.state.clone());
        Span {
            trace: self.id,
            id,
            parent,
            state,
            name: "",
            kind: Kind::Internal,
            start_ns: 0,
            end_ns: 0,
            facts: Vec::new(),
            failed: None,
        }
    }

    fn record(&self, span: impl FnOnce() -> Span) {
        if let Some(spans) = &self.spans {
            spans.put(span());
        }
    }
}

impl Onward {
    /// Puts it beside a call's own headers, which come first.
    pub(crate) fn put_into(&self, headers: &mut HeaderMap) {
        for (name, value) in self.0.iter().flatten() {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}

/// A share's place in its deletion's trace. Its spans go out when this goes.
pub(crate) struct ShareTrace {
    trace: Arc<Trace>,
    recorded: Option<Recorded>,
}

/// What is recorded of a share.
struct Recorded {
    id: u64,
    start_ns: u64,
    facts: Vec<(&'static str, Fact)>,
    outcomes: [u64; Outcome::ALL.len()],
    /// Calls whose contacts wait, by their first one: a contact is in one call at a time.
    calls: HashMap<Slot, CallSpan>,
}

/// A call and its attempts so far.
struct CallSpan {
    id: u64,
    start_ns: u64,
    contacts: usize,
    attempts: u64,
}

/// One attempt of a call.
pub(crate) struct Attempt {
    trace: Arc<Trace>,
    id: u64,
    call: u64,
    number: u32,
    planned_ns: u64,
    start_ns: u64,
}

impl ShareTrace {
    /// The next attempt of a call with these contacts.
    pub(crate) fn attempt(&mut self, slots: &[Slot], number: u32) -> Attempt {
        let (id, planned_ns) = (fastrand::u64(1..), clock::unix_ns());
        let mut call = 0;
        if let (Some(recorded), Some(first)) = (&mut self.recorded, slots.first()) {
            // With other contacts it is another call.
            if recorded.calls.get(first).is_some_and(|before| before.contacts != slots.len())
                && let Some(before) = recorded.calls.remove(first)
            {
                self.trace.record(|| before.span(&self.trace, recorded.id, planned_ns));
            }
            let new = || CallSpan { id: fastrand::u64(1..), start_ns: planned_ns, contacts: slots.len(), attempts: 0 };
            let of_call = recorded.calls.entry(*first).or_insert_with(new);
            of_call.attempts += 1;
            call = of_call.id;
        }
        Attempt { trace: Arc::clone(&self.trace), id, call, number, planned_ns, start_ns: planned_ns }
    }

    /// A contact is settled, and with it the call that begins with it.
    pub(crate) fn settled(&mut self, slot: Slot, outcome: Outcome) {
        if let Some(recorded) = &mut self.recorded {
            recorded.outcomes[outcome as usize] += 1;
            if let Some(call) = recorded.calls.remove(&slot) {
                self.trace.record(|| call.span(&self.trace, recorded.id, clock::unix_ns()));
            }
        }
    }
}

impl CallSpan {
    fn span(&self, trace: &Trace, share: u64, end_ns: u64) -> Span {
        let facts = vec![
            ("onedelete.contacts", Fact::Number(self.contacts as u64)),
            ("onedelete.attempts", Fact::Number(self.attempts)),
        ];
        Span { name: "call", start_ns: self.start_ns, end_ns, facts, ..trace.span(self.id, Some(share)) }
    }
}

impl Drop for ShareTrace {
    fn drop(&mut self) {
        let Some(recorded) = self.recorded.take() else { return };
        let end_ns = clock::unix_ns();
        for call in recorded.calls.values() {
            self.trace.record(|| call.span(&self.trace, recorded.id, end_ns));
        }
        let Recorded { id, start_ns, mut facts, outcomes, .. } = recorded;
        let counted = Outcome::ALL.into_iter().zip(outcomes).filter(|(_, contacts)| *contacts > 0);
        facts.extend(counted.map(|(outcome, contacts)| (outcome_fact(outcome), Fact::Number(contacts))));
        let parent = Some(self.trace.span);
        self.trace.record(|| Span { name: "connection", start_ns, end_ns, facts, ..self.trace.span(id, parent) });
    }
}

/// How many contacts had an outcome, as the name of a fact.
fn outcome_fact(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Deleted => "onedelete.outcome.deleted",
        Outcome::NotFound => "onedelete.outcome.not_found",
        Outcome::Rejected => "onedelete.outcome.rejected",
        Outcome::Failed => "onedelete.outcome.failed",
        Outcome::Unknown => "onedelete.outcome.unknown",
        Outcome::Skipped => "onedelete.outcome.skipped",
        Outcome::Pending => "onedelete.outcome.pending",
        Outcome::WouldDelete => "onedelete.outcome.would_delete",
    }
}

impl Attempt {
    /// It has leave to go out: what the upstream is to be told with it.
    pub(crate) fn goes_out(&mut self) -> Option<Box<Onward>> {
        if self.trace.spans.is_some() {
            self.start_ns = clock::unix_ns();
        }
        self.trace.onward(self.id)
    }

    /// It came to its end.
    pub(crate) fn ended(self, method: &http::Method, reply: &Result<http::Response<Bytes>, Lost>) {
        let Self { trace, id, call, number, planned_ns, start_ns } = &self;
        trace.record(|| {
            let mut facts = vec![
                ("http.request.method", Fact::Text(method.to_string())),
                ("onedelete.attempt", Fact::Number(u64::from(*number))),
                ("onedelete.waited_ms", Fact::Number(start_ns.saturating_sub(*planned_ns) / 1_000_000)),
            ];
            let failed = match reply {
                Ok(reply) => {
                    facts.push(("http.response.status_code", Fact::Number(u64::from(reply.status().as_u16()))));
                    let failed = reply.status().is_client_error() || reply.status().is_server_error();
                    failed.then(|| reply.status().as_str().to_owned())
                }
                Err(Lost::MaybeSent(fault) | Lost::NotSent { fault, .. }) => Some(fault.code.as_str().to_owned()),
                Err(Lost::CircuitOpen { .. }) => Some("circuit_open".to_owned()),
            };
            facts.extend(failed.clone().map(|what| ("error.type", Fact::Text(what))));
            Span {
                name: "attempt",
                kind: Kind::Client,
                start_ns: *start_ns,
                end_ns: clock::unix_ns(),
                facts,
                failed,
                ..trace.span(*id, Some(*call))
            }
        });
    }
}
