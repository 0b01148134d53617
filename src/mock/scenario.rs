//! Scenarios: what happens to the next deletes, one after the other, at one upstream or at several.
//!
//! Every upstream takes its own steps in their order; the steps of two upstreams do not wait for each other. Requests that
//! are no deletes take no step.

use super::fault::Fault;

/// Steps, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scenario {
    /// The steps.
    pub steps: Vec<Step>,
}

/// What happens to the next deletes of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The upstream's name.
    pub upstream: String,
    /// What happens; [`Fault::Plain`] for nothing out of the ordinary.
    pub fault: Fault,
    /// To so many deletes.
    pub times: u64,
}

impl Scenario {
    /// One more step, for one delete.
    pub fn then(mut self, upstream: &str, fault: Fault) -> Self {
        self.steps.push(Step { upstream: upstream.to_owned(), fault, times: 1 });
        self
    }
}

/// How far a scenario has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its steps, with the deletes that each has taken.
    pub steps: Vec<(Step, u64)>,
}

impl Progress {
    /// Whether every step was taken as often as it says. A scenario without steps is done.
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|(step, taken)| *taken >= step.times)
    }
}

/// One upstream's part of a scenario.
#[derive(Default)]
pub(super) struct Script {
    turns: Vec<Turn>,
    /// Where the first stands that is not used up.
    at: usize,
}

/// A step, by its place in the scenario.
pub(super) struct Turn {
    pub(super) step: usize,
    pub(super) fault: Fault,
    pub(super) times: u64,
    pub(super) taken: u64,
}

impl Script {
    pub(super) fn new(turns: impl Iterator<Item = Turn>) -> Self {
        Self { turns: turns.collect(), at: 0 }
    }

    /// The next delete's fault, if there is a step for it.
    pub(super) fn next(&mut self) -> Option<Fault> {
        while self.turns.get(self.at).is_some_and(|turn| turn.taken >= turn.times) {
            self.at += 1;
        }
        let turn = self.turns.get_mut(self.at)?;
        turn.taken += 1;
        Some(turn.fault.clone())
    }

    pub(super) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter()
    }
}
