//! What the log says of one share: its first call that failed, and at the end what became of its contacts if not all are gone.
//!
//! It names tenant, connection, deletion and request, and what to do next; never a contact. It decides nothing.

use adapters::{FaultCode, Outcome};
use bytes::Bytes;

use super::Engine;
use crate::engine::{Lost, Run};
use crate::store::Head;
use crate::telemetry::{Trace, Tracer};

impl Engine {
    /// The same, with traces of its deletions.
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }
}

/// What there is to tell of a share.
pub(super) struct Told<'t> {
    head: &'t Head,
    connection: &'t str,
    trace: Option<&'t Trace>,
    calls_failed: u64,
    outcomes: [u64; Outcome::ALL.len()],
    /// Why contacts are not known to be gone.
    reasons: Vec<(FaultCode, u64)>,
}

impl<'t> Told<'t> {
    pub(super) fn new(head: &'t Head, connection: &'t str, trace: Option<&'t Trace>) -> Self {
        Self { head, connection, trace, calls_failed: 0, outcomes: [0; Outcome::ALL.len()], reasons: Vec::new() }
    }

    /// A call was answered, and nothing was carried out as far as can be told.
    pub(super) fn answered_badly(&mut self, attempt: u32, reply: &http::Response<Bytes>) {
        self.failed(attempt, Some(reply.status().as_u16()), None);
    }

    /// A call was not answered.
    pub(super) fn lost(&mut self, attempt: u32, lost: &Lost) {
        match lost {
            // Told by the breaker, once for all who wait; told by the end of the deletion.
            Lost::CircuitOpen { .. } => {}
            Lost::NotSent { fault, .. } if fault.code.outcome() == Outcome::Skipped => {}
            Lost::NotSent { fault, .. } | Lost::MaybeSent(fault) => self.failed(attempt, None, Some(fault.code)),
        }
    }

    fn failed(&mut self, attempt: u32, status: Option<u16>, error: Option<FaultCode>) {
        self.calls_failed += 1;
        let Head { id: deletion, tenant, .. } = self.head;
        let (connection, trace, request) = (self.connection, self.trace(), self.request());
        let error = error.map(FaultCode::as_str);
        if self.calls_failed == 1 {
            tracing::warn!(%deletion, tenant = &**tenant, connection, request, trace, attempt, status, error, "a call failed; the next ones that do are counted");
        } else {
            tracing::debug!(%deletion, tenant = &**tenant, connection, request, trace, attempt, status, error, "a call failed");
        }
    }

    /// Contacts were settled.
    pub(super) fn settled(&mut self, run: &Run) {
        let new = u64::from(run.contacts);
        self.outcomes[run.settled.outcome as usize] += new;
        if let Some(reason) = &run.settled.reason {
            match self.reasons.iter_mut().find(|(code, _)| *code == reason.code) {
                Some((_, contacts)) => *contacts += new,
                None => self.reasons.push((reason.code, new)),
            }
        }
    }

    /// The share is over, or not worked here any more.
    pub(super) fn end(self) {
        let of = |outcome: Outcome| self.outcomes[outcome as usize];
        let (rejected, failed, unknown) = (of(Outcome::Rejected), of(Outcome::Failed), of(Outcome::Unknown));
        let (deleted, not_found, skipped) = (of(Outcome::Deleted), of(Outcome::NotFound), of(Outcome::Skipped));
        let calls_failed = self.calls_failed;
        let all_gone = rejected + failed + unknown + skipped == 0;
        if all_gone && calls_failed == 0 {
            return;
        }
        let Head { id: deletion, tenant, .. } = self.head;
        let (tenant, connection, trace, request) = (&**tenant, self.connection, self.trace(), self.request());
        if all_gone {
            tracing::info!(%deletion, tenant, connection, request, trace, calls_failed, deleted, not_found, "calls failed, and their contacts are gone all the same");
            return;
        }
        let error = self.reasons.iter().max_by_key(|(_, contacts)| *contacts).map(|(code, _)| *code);
        let (next, error) = (error.map(FaultCode::remedy), error.map(FaultCode::as_str));
        tracing::warn!(
            %deletion, tenant, connection, request, trace, calls_failed, deleted, not_found, rejected, failed, unknown, skipped, error, next,
            "some contacts are not known to be gone"
        );
    }

    fn trace(&self) -> Option<String> {
        self.trace?.id()
    }

    fn request(&self) -> Option<&'t str> {
        self.trace?.request()
    }
}
