//! Connections that are kept for the next request: a few, and not for long.
//!
//! It looks at none of them: whether one still leads anywhere is seen when it is used. Nothing in it acts by itself; whoever
//! has it must ask it now and then to close what was kept for its time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::line::{Line, Origin};

/// Idle connections.
pub(super) struct Kept {
    most: usize,
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those kept for longest first.
    lines: Vec<Idle>,
    is_closed: bool,
}

struct Idle {
    line: Box<Line>,
    since: Instant,
}

impl Kept {
    /// None yet, so many at most, and none for longer than this.
    pub(super) fn new(most: usize, longest: Duration) -> Self {
        Self { most, longest, state: Mutex::default() }
    }

    /// The connection to there that was used last.
    pub(super) fn take(&self, origin: &Origin) -> Option<Box<Line>> {
        let mut state = self.state();
        let at = state.lines.iter().rposition(|idle| idle.line.leads_to(origin))?;
        let idle = state.lines.remove(at);
        drop(state);
        if idle.since.elapsed() < self.longest {
            return Some(idle.line);
        }
        // Those before it were kept for longer still.
        idle.line.close();
        self.close_idle();
        None
    }

    /// Keeps a connection that is free. If that is one too many, the one that was kept for longest makes room.
    pub(super) fn keep(&self, line: Box<Line>) {
        let mut state = self.state();
        if state.is_closed || self.most == 0 || self.longest.is_zero() {
            drop(state);
            return line.close();
        }
        let too_many = state.lines.len() >= self.most;
        let oldest = too_many.then(|| state.lines.remove(0));
        state.lines.push(Idle { line, since: Instant::now() });
        drop(state);
        if let Some(oldest) = oldest {
            oldest.line.close();
        }
    }

    /// Whether there is one.
    pub(super) fn has_any(&self) -> bool {
        !self.state().lines.is_empty()
    }

    /// Closes those that were kept for their time.
    pub(super) fn close_idle(&self) {
        let mut state = self.state();
        let over = state.lines.partition_point(|idle| idle.since.elapsed() >= self.longest);
        let over: Vec<_> = state.lines.drain(..over).collect();
        drop(state);
        over.into_iter().for_each(|idle| idle.line.close());
    }

    /// Closes all, and keeps none any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let all = std::mem::take(&mut state.lines);
        drop(state);
        all.into_iter().for_each(|idle| idle.line.close());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
