//! Rules: which requests meet with a fault, by route, by contact and by number.
//!
//! A rule counts every request that it is about, also those that another fault took.

use adapters::{Identifier, Profile};
use serde::{Deserialize, Serialize};

use super::contact::Key;
use super::fault::Fault;
use super::journal::Kind;

/// A fault and the requests that meet with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// To which requests.
    pub when: Match,
    /// So many times at most; without it, for good.
    pub times: Option<u64>,
}

/// Which requests a rule is about. With both `nth` and `every`, both must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// What they ask for.
    pub route: Route,
    /// A contact among those they ask to delete.
    pub contact: Option<Identifier>,
    /// The n-th of them, counted from 1 since the rule was set.
    pub nth: Option<u64>,
    /// One of so many of them: with 3, the third, the sixth and so on.
    pub every: Option<u64>,
}

/// What a request asks for, as a rule sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// To delete contacts.
    #[default]
    Delete,
    /// A token.
    SignIn,
    /// To look at contacts.
    Read,
    /// Whatever it is.
    Any,
}

/// The number of a rule, unique in its mock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId(pub u64);

/// A rule that is set, and what it has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub id: RuleId,
    /// The rule.
    pub rule: Rule,
    /// Requests that it is about, so far.
    pub seen: u64,
    /// Requests that met with its fault, so far.
    pub applied: u64,
}

impl Rule {
    /// This fault for every delete.
    pub fn always(fault: Fault) -> Self {
        Self { fault, when: Match::default(), times: None }
    }

    /// This fault for the n-th delete from now, counted from 1.
    pub fn nth(fault: Fault, n: u64) -> Self {
        Self { fault, when: Match { nth: Some(n), ..Match::default() }, times: None }
    }
}

impl Route {
    fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Delete => kind == Kind::Delete,
            Self::SignIn => kind == Kind::SignIn,
            Self::Read => kind == Kind::Read,
            Self::Any => true,
        }
    }
}

/// The rules of one mock, in the order in which they were set.
#[derive(Default)]
pub(super) struct Rules {
    rules: Vec<(Standing, Option<Key<'static>>)>,
    count: u64,
}

impl Rules {
    pub(super) fn set(&mut self, rule: Rule, profile: &Profile) -> RuleId {
        self.count += 1;
        let id = RuleId(self.count);
        let key = rule.when.contact.as_ref().map(|contact| Key::of(profile, contact).into_owned());
        self.rules.push((Standing { id, rule, seen: 0, applied: 0 }, key));
        id
    }

    pub(super) fn standing(&self) -> Vec<Standing> {
        self.rules.iter().map(|(standing, _)| standing.clone()).collect()
    }

    /// Whether there was one with this number.
    pub(super) fn drop(&mut self, id: RuleId) -> bool {
        let before = self.rules.len();
        self.rules.retain(|(standing, _)| standing.id != id);
        self.rules.len() < before
    }

    /// Numbers are not given twice.
    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Counts a request, and returns where the first rule stands that has a fault for it.
    pub(super) fn find(&mut self, kind: Kind, asked: &[Identifier], profile: &Profile) -> Option<usize> {
        let mut first = None;
        for (at, (standing, contact)) in self.rules.iter_mut().enumerate() {
            let Rule { when, times, .. } = &standing.rule;
            let named = |key: &Key<'_>| asked.iter().any(|identifier| Key::of(profile, identifier) == *key);
            if !when.route.fits(kind) || !contact.as_ref().is_none_or(named) {
                continue;
            }
            standing.seen += 1;
            let is_due = when.nth.is_none_or(|nth| standing.seen == nth)
                && when.every.is_none_or(|every| standing.seen.is_multiple_of(every))
                && times.is_none_or(|times| standing.applied < times);
            if is_due && first.is_none() {
                first = Some(at);
            }
        }
        first
    }

    /// The fault of the rule that `find` found.
    pub(super) fn apply(&mut self, at: usize) -> Option<Fault> {
        let (standing, _) = self.rules.get_mut(at)?;
        standing.applied += 1;
        Some(standing.rule.fault.clone())
    }
}
