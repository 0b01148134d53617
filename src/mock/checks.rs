//! Questions to journals: was every contact deleted once, was nothing deleted that nobody asked for, was the upstream left
//! alone when it had asked for that.
//!
//! A check is a pure function of what the journals say. It sends nothing and changes nothing.

use std::collections::HashMap;

use adapters::{Identifier, Profile};

use super::contact::Key;
use super::journal::{Entry, Kind};
use super::scenario::Progress;

/// What is asked, and of which upstream; of all together, unless one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The upstream's name.
    pub upstream: Option<String>,
    /// The question.
    pub question: Question,
}

/// What can be asked of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `deleted_twice`: whether any contact was. It holds if none was; one that was seeded again in between was.
    DeletedTwice,
    /// `only_asked`: whether each request deleted nobody but those that it asked for.
    OnlyAsked,
    /// `only`: whether nobody but these was deleted.
    Only {
        /// Who may be.
        contacts: Vec<Identifier>,
    },
    /// `no_call_between`: whether no request came in this time, both ends included. Sign-ins are requests too.
    NoCallBetween {
        /// From, in milliseconds since 1970-01-01 UTC.
        from_ms: u64,
        /// To, the same.
        to_ms: u64,
    },
    /// `no_call_after_n`: whether no request came after the one with this number.
    NoCallAfterN {
        /// The number.
        n: usize,
    },
    /// `count`: whether there were so many requests of a kind, or of all kinds.
    Count {
        /// The kind.
        kind: Option<Kind>,
        /// Not more and not fewer.
        exactly: Option<usize>,
        /// Not fewer.
        at_least: Option<usize>,
        /// Not more.
        at_most: Option<usize>,
    },
    /// `calls_per_contact_at_most`: whether no contact was asked for by more deletes.
    CallsPerContactAtMost {
        /// So many.
        n: usize,
    },
    /// `scenario_done`: whether every step of the scenario was taken.
    ScenarioDone,
}

impl Question {
    /// The check's name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DeletedTwice => "deleted_twice",
            Self::OnlyAsked => "only_asked",
            Self::Only { .. } => "only",
            Self::NoCallBetween { .. } => "no_call_between",
            Self::NoCallAfterN { .. } => "no_call_after_n",
            Self::Count { .. } => "count",
            Self::CallsPerContactAtMost { .. } => "calls_per_contact_at_most",
            Self::ScenarioDone => "scenario_done",
        }
    }

    /// The question to all upstreams.
    pub fn everywhere(self) -> Check {
        Check { upstream: None, question: self }
    }

    /// The question to one upstream.
    pub fn at(self, upstream: &str) -> Check {
        Check { upstream: Some(upstream.to_owned()), question: self }
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub check: &'static str,
    /// The upstream that it was asked of, if it was one.
    pub upstream: Option<String>,
    /// Whether it holds.
    pub ok: bool,
    /// Why, in words, without identifiers.
    pub why: String,
    /// The requests that speak against it; for `count`, those that were counted. Of very many, the first.
    pub entries: Vec<Place>,
}

/// Where an entry stands: the upstream's name and the entry's number there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The upstream's name.
    pub upstream: String,
    /// The number.
    pub n: usize,
}

/// One upstream's journal, as checks read it.
pub struct Record {
    /// The upstream's name.
    pub upstream: String,
    /// By what its contacts are told apart.
    pub profile: &'static Profile,
    /// The requests that are still kept. Their paths, headers and bodies are not looked at.
    pub entries: Vec<Entry>,
    /// Every contact that was deleted, in order.
    pub deleted: Vec<Identifier>,
    /// How many requests there were of each kind, those included that are no longer kept.
    pub kinds: Vec<(Kind, usize)>,
}

/// Entries that a verdict names at most.
const MAX_PLACES: usize = 1_000;

/// Asks one question of these journals.
///
/// Where a journal has no longer all its requests, what needs them all does not hold.
pub fn check(question: &Question, upstream: Option<&str>, records: &[Record], progress: &Progress) -> Verdict {
    let (ok, why, mut entries) = match question {
        Question::DeletedTwice => deleted_twice(records),
        Question::OnlyAsked => only_asked(records),
        Question::Only { contacts } => only(records, contacts),
        Question::NoCallBetween { from_ms, to_ms } => no_call_between(records, *from_ms, *to_ms),
        Question::NoCallAfterN { n } => no_call_after(records, *n),
        Question::Count { kind, exactly, at_least, at_most } => count(records, *kind, *exactly, *at_least, *at_most),
        Question::CallsPerContactAtMost { n } => calls_per_contact(records, *n),
        Question::ScenarioDone => scenario_done(progress, upstream),
    };
    entries.truncate(MAX_PLACES);
    Verdict { check: question.name(), upstream: upstream.map(str::to_owned), ok, why, entries }
}

type Finding = (bool, String, Vec<Place>);

impl Record {
    fn key<'i>(&self, identifier: &'i Identifier) -> Key<'i> {
        Key::of(self.profile, identifier)
    }

    fn places(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Place> {
        let wanted = self.entries.iter().filter(|entry| wanted(entry));
        wanted.map(|entry| Place { upstream: self.upstream.clone(), n: entry.n }).collect()
    }

    /// Requests so far.
    fn total(&self) -> usize {
        self.kinds.iter().map(|(_, count)| count).sum()
    }

    /// Requests that the journal no longer has.
    fn lost(&self) -> usize {
        self.total().saturating_sub(self.entries.len())
    }
}

fn found(
    entries: Vec<Place>,
    well: &str,
    ill: impl Fn(usize) -> String,
    records: &[Record],
    needs_all: bool,
) -> Finding {
    let lost: usize = records.iter().map(Record::lost).sum();
    match entries.len() {
        0 if needs_all && lost > 0 => {
            (false, format!("the oldest {lost} requests are no longer in the journal"), entries)
        }
        0 => (true, well.to_owned(), entries),
        some => (false, ill(some), entries),
    }
}

fn deleted_twice(records: &[Record]) -> Finding {
    let (mut entries, mut twice) = (Vec::new(), 0);
    for record in records {
        let mut times: HashMap<Key<'_>, usize> = HashMap::new();
        record.deleted.iter().for_each(|identifier| *times.entry(record.key(identifier)).or_default() += 1);
        times.retain(|_, times| *times > 1);
        twice += times.len();
        entries.extend(record.places(|entry| entry.deleted.iter().any(|each| times.contains_key(&record.key(each)))));
    }
    match twice {
        0 => (true, "no contact was deleted twice".to_owned(), entries),
        _ => (false, format!("contacts deleted more than once: {twice}"), entries),
    }
}

fn only_asked(records: &[Record]) -> Finding {
    let strays = |record: &Record| {
        record.places(|entry| {
            let asked: Vec<_> = entry.asked.iter().map(|each| record.key(each)).collect();
            entry.deleted.iter().any(|each| !asked.contains(&record.key(each)))
        })
    };
    let entries = records.iter().flat_map(strays).collect();
    let ill = |some| format!("requests that deleted whom they did not ask for: {some}");
    found(entries, "nobody was deleted whom the request did not ask for", ill, records, true)
}

fn only(records: &[Record], contacts: &[Identifier]) -> Finding {
    let (mut entries, mut others) = (Vec::new(), 0);
    for record in records {
        let allowed: Vec<_> = contacts.iter().map(|each| record.key(each)).collect();
        let is_other = |identifier: &Identifier| !allowed.contains(&record.key(identifier));
        others += record.deleted.iter().filter(|each| is_other(each)).count();
        entries.extend(record.places(|entry| entry.deleted.iter().any(is_other)));
    }
    match others {
        0 => (true, "nobody else was deleted".to_owned(), entries),
        _ => (false, format!("deleted, and not among these: {others}"), entries),
    }
}

fn no_call_between(records: &[Record], from_ms: u64, to_ms: u64) -> Finding {
    let is_one = |entry: &Entry| (from_ms..=to_ms).contains(&entry.at_ms);
    let entries = records.iter().flat_map(|record| record.places(is_one)).collect();
    found(entries, "no request came in this time", |some| format!("requests in this time: {some}"), records, true)
}

/// Numbers have no gaps, so it needs no entry to know how many came later.
fn no_call_after(records: &[Record], n: usize) -> Finding {
    let entries = records.iter().flat_map(|record| record.places(|entry| entry.n > n)).collect();
    match records.iter().map(|record| record.total().saturating_sub(n)).sum::<usize>() {
        0 => (true, "no request came after that one".to_owned(), entries),
        later => (false, format!("requests after that one: {later}"), entries),
    }
}

fn count(
    records: &[Record],
    kind: Option<Kind>,
    exactly: Option<usize>,
    at_least: Option<usize>,
    at_most: Option<usize>,
) -> Finding {
    let is_one = |each: Kind| kind.is_none_or(|kind| kind == each);
    let kinds = records.iter().flat_map(|record| &record.kinds);
    let count: usize = kinds.filter(|(each, _)| is_one(*each)).map(|(_, count)| count).sum();
    let ok =
        exactly.is_none_or(|n| count == n) && at_least.is_none_or(|n| count >= n) && at_most.is_none_or(|n| count <= n);
    let wanted = [("exactly", exactly), ("at least", at_least), ("at most", at_most)];
    let wanted: Vec<_> = wanted.iter().filter_map(|(word, n)| n.map(|n| format!("{word} {n}"))).collect();
    let what = kind.map_or("requests".to_owned(), |kind| format!("requests of kind {}", kind.as_str()));
    let entries = records.iter().flat_map(|record| record.places(|entry| is_one(entry.kind))).collect();
    (ok, format!("{what}: {count}; wanted: {}", wanted.join(", ")), entries)
}

fn calls_per_contact(records: &[Record], most: usize) -> Finding {
    let mut entries = Vec::new();
    for record in records {
        let mut calls: HashMap<Key<'_>, usize> = HashMap::new();
        let deletes = || record.entries.iter().filter(|entry| entry.kind == Kind::Delete);
        for entry in deletes() {
            // A contact that a call names twice is one contact of one call.
            let mut named: Vec<_> = Vec::with_capacity(entry.asked.len());
            for key in entry.asked.iter().map(|each| record.key(each)) {
                if entry.asked.len() > 1 && named.contains(&key) {
                    continue;
                }
                *calls.entry(key.clone()).or_default() += 1;
                named.push(key);
            }
        }
        calls.retain(|_, calls| *calls > most);
        let is_one = |entry: &Entry| {
            entry.kind == Kind::Delete && entry.asked.iter().any(|each| calls.contains_key(&record.key(each)))
        };
        entries.extend(record.places(is_one));
    }
    let ill = |some| format!("deletes of contacts that were asked for by more than {most}: {some}");
    found(entries, &format!("no contact was asked for by more than {most} deletes"), ill, records, true)
}

fn scenario_done(progress: &Progress, upstream: Option<&str>) -> Finding {
    let steps = progress.steps.iter().filter(|(step, _)| upstream.is_none_or(|name| step.upstream == name));
    let open = steps.clone().filter(|(step, taken)| *taken < step.times).count();
    match (progress.steps.is_empty(), open) {
        (true, _) => (false, "there is no scenario".to_owned(), Vec::new()),
        (false, 0) => (true, format!("all {} steps were taken", steps.count()), Vec::new()),
        (false, open) => (false, format!("steps not taken, or not as often as they say: {open}"), Vec::new()),
    }
}
