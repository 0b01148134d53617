//! Plausible short cuts that each reach a false statement, for the tests that must find them.
//!
//! Outside the unit tests of this crate every one is off, and the compiler removes the question.

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "some are taken by the simulation's driver alone")]
pub(crate) enum Shortcut {
    /// A call is sent before its intent is on disk.
    NoIntent,
    /// A call in flight at a crash counts as never sent.
    RestartMeansNeverSent,
    /// A call that timed out counts as not carried out.
    TimeoutMeansNotApplied,
    /// An internal error of the upstream counts as not carried out.
    ServerErrorMeansNotApplied,
    /// Not found after doubt counts as proven.
    NotFoundAfterDoubtIsProof,
    /// A refusal after doubt counts as "still there".
    RefusalAfterDoubtMeansThere,
    /// A cancelled contact in doubt counts as never sent.
    CancelAfterDoubtMeansSkipped,
    /// A result is written whoever holds the lease.
    NoFence,
}

#[cfg(test)]
impl Shortcut {
    pub(crate) const ALL: [Self; 8] = [
        Self::NoIntent,
        Self::RestartMeansNeverSent,
        Self::TimeoutMeansNotApplied,
        Self::ServerErrorMeansNotApplied,
        Self::NotFoundAfterDoubtIsProof,
        Self::RefusalAfterDoubtMeansThere,
        Self::CancelAfterDoubtMeansSkipped,
        Self::NoFence,
    ];
}

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<Option<Shortcut>> = const { std::cell::Cell::new(None) };
}

/// Breaks one rule, on this thread, until it is called again.
#[cfg(test)]
pub(crate) fn take(shortcut: Option<Shortcut>) {
    TAKEN.set(shortcut);
}

/// Whether a rule is broken on purpose.
#[cfg(test)]
pub(crate) fn taken(shortcut: Shortcut) -> bool {
    TAKEN.get() == Some(shortcut)
}

/// Whether a rule is broken on purpose: never, outside tests.
#[cfg(not(test))]
pub(crate) const fn taken(_: Shortcut) -> bool {
    false
}
