//! What came in, what went out, and what it deleted.
//!
//! The deletions are kept for good: they are the truth that a test compares with. Requests are kept up to a bound.

use std::collections::VecDeque;
use std::fmt;

use adapters::Identifier;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};

/// Requests that a journal keeps at most; the oldest go first.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of all kept bodies together.
const MAX_BODY_BYTES: usize = 64 << 20;

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It asked to delete contacts.
    Delete,
    /// It asked for a token.
    SignIn,
    /// It asked to look at contacts.
    Read,
    /// Anything else.
    Other,
    /// One too many: whatever it asked for, the upstream's limit kept it from being looked at.
    Throttled,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Delete, Self::SignIn, Self::Read, Self::Other, Self::Throttled];

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::SignIn => "sign_in",
            Self::Read => "read",
            Self::Other => "other",
            Self::Throttled => "throttled",
        }
    }
}

/// One request. It holds credentials and identifiers: `Debug` shows its number, method, status and counts alone.
#[derive(Clone)]
pub struct Entry {
    /// Its number, counted from 1 in the order of arrival.
    pub n: usize,
    /// When it arrived, in milliseconds since 1970-01-01 UTC by the mock's clock.
    pub at_ms: u64,
    /// What it was.
    pub kind: Kind,
    /// The method.
    pub method: Method,
    /// The path, with its query if there is one.
    pub path: String,
    /// The headers, credential included.
    pub headers: HeaderMap,
    /// The body; empty if it was larger than the mock takes.
    pub body: Bytes,
    /// Whether it asked for a token, and not for a delete.
    pub sign_in: bool,
    /// Whom it asked to delete, as far as that can be read from it.
    pub asked: Vec<Identifier>,
    /// What it deleted.
    pub deleted: Vec<Identifier>,
    /// The name of the fault that it met with.
    pub fault: Option<&'static str>,
    /// Whether that fault did what its name says. Not so where, for example, this reply of this vendor has no ids that
    /// could be wrong: then the plain reply went out.
    pub fault_applied: bool,
    /// The status that was sent; `None` as long as no answer was given, and for raw bytes.
    pub status: Option<u16>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} {} {}, {} bytes, ", self.n, self.kind.as_str(), self.method, self.body.len())?;
        if let Some(fault) = self.fault {
            write!(f, "{fault}{}, ", if self.fault_applied { "" } else { " (not applied)" })?;
        }
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("no answer")?,
        }
        write!(f, ", {} deleted)", self.deleted.len())
    }
}

/// Every request of one mock, as far as there is room.
#[derive(Default)]
pub(super) struct Journal {
    entries: VecDeque<Entry>,
    body_bytes: usize,
    count: usize,
    kinds: [usize; Kind::ALL.len()],
    deleted: Vec<Identifier>,
}

impl Journal {
    /// Numbers a request and keeps it.
    pub(super) fn push(&mut self, mut entry: Entry) -> usize {
        self.count += 1;
        entry.n = self.count;
        self.kinds[entry.kind as usize] += 1;
        self.body_bytes += entry.body.len();
        self.deleted.extend_from_slice(&entry.deleted);
        self.entries.push_back(entry);
        while self.entries.len() > MAX_ENTRIES || self.body_bytes > MAX_BODY_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.body_bytes -= oldest.body.len();
        }
        self.count
    }

    /// The number that the next request gets.
    pub(super) fn next(&self) -> usize {
        self.count + 1
    }

    /// Puts down what the request with this number deleted after all, and its status if it is answered by now.
    pub(super) fn carried_out(&mut self, n: usize, deleted: Vec<Identifier>, status: Option<u16>) {
        self.deleted.extend_from_slice(&deleted);
        if let Some(entry) = self.entry(n) {
            entry.deleted = deleted;
            entry.status = status;
        }
    }

    /// Puts down that the request with this number was answered after all.
    pub(super) fn answered(&mut self, n: usize, status: u16) {
        if let Some(entry) = self.entry(n) {
            entry.status = Some(status);
        }
    }

    /// The entry with this number, if it is still kept.
    fn entry(&mut self, n: usize) -> Option<&mut Entry> {
        let first = self.entries.front().map_or(0, |entry| entry.n);
        n.checked_sub(first).and_then(|index| self.entries.get_mut(index))
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }

    /// The kept entries after this number that are wanted, so many at most.
    pub(super) fn after(&self, n: usize, most: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let first = self.entries.front().map_or(0, |entry| entry.n);
        let later = self.entries.iter().skip((n + 1).saturating_sub(first));
        later.filter(|entry| wanted(entry)).take(most).cloned().collect()
    }

    /// The kept entries without what checks do not look at, and what is large: paths, headers and bodies.
    pub(super) fn gist(&self) -> Vec<Entry> {
        let gist = |entry: &Entry| Entry {
            method: entry.method.clone(),
            path: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            asked: entry.asked.clone(),
            deleted: entry.deleted.clone(),
            ..*entry
        };
        self.entries.iter().map(gist).collect()
    }

    /// How many there were of each kind, those included that are no longer kept.
    pub(super) fn kinds(&self) -> [usize; Kind::ALL.len()] {
        self.kinds
    }

    pub(super) fn deleted(&self) -> Vec<Identifier> {
        self.deleted.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body_bytes: usize) -> Entry {
        Entry {
            n: 0,
            at_ms: 1,
            kind: Kind::Delete,
            method: Method::DELETE,
            path: "/contacts/7000001?password=hunter2".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from(vec![b'7'; body_bytes]),
            sign_in: false,
            asked: vec![Identifier::Id("7000001".into())],
            deleted: vec![Identifier::Id("7000001".into())],
            fault: Some("lie"),
            fault_applied: false,
            status: None,
        }
    }

    #[test]
    fn the_oldest_requests_make_room_and_no_deletion_does() {
        let mut journal = Journal::default();
        for n in 1..=70 {
            assert_eq!(journal.push(entry(1 << 20)), n);
        }
        assert_eq!(journal.entries().iter().map(|entry| entry.n).collect::<Vec<_>>(), (7..=70).collect::<Vec<_>>());
        assert_eq!((journal.deleted().len(), journal.kinds()), (70, [70, 0, 0, 0, 0]));
        let numbers = |after, most| journal.after(after, most, |_| true).iter().map(|e| e.n).collect::<Vec<_>>();
        assert_eq!((numbers(0, 2), numbers(7, 2), numbers(69, 9)), (vec![7, 8], vec![8, 9], vec![70]));
        assert!(numbers(70, 9).is_empty() && numbers(usize::MAX - 1, 9).is_empty());
        for n in [0, 6, 7, 70, 71] {
            journal.answered(n, 200);
        }
        journal.carried_out(6, vec![Identifier::Id("8".into())], Some(200));
        journal.carried_out(8, vec![Identifier::Id("9".into())], None);
        assert_eq!((journal.deleted().len(), journal.next()), (72, 71));
        assert_eq!(
            (journal.entries()[1].deleted[0].clone(), journal.entries()[1].status),
            (Identifier::Id("9".into()), None)
        );
        let answered: Vec<_> = journal.entries().iter().filter(|e| e.status.is_some()).map(|e| e.n).collect();
        assert_eq!(answered, [7, 70]);
    }

    #[test]
    fn debug_shows_no_identifier_and_no_secret() {
        let shown = format!("{:?}", entry(9));
        assert_eq!(shown, "Entry(0 delete DELETE, 9 bytes, lie (not applied), no answer, 1 deleted)");
    }
}
