//! What came in, what went out, and what it deleted.
//!
//! The deletions are kept for good: they are the truth that a test compares with. Requests are kept up to a bound.

use std::collections::VecDeque;
use std::fmt;

use adapters::Identifier;
use bytes::Bytes;
use http::{HeaderMap, Method};

/// Requests that a journal keeps at most; the oldest go first.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of all kept bodies together.
const MAX_BODY_BYTES: usize = 64 << 20;

/// One request. It holds credentials and identifiers: `Debug` shows its number, method, status and counts alone.
#[derive(Clone)]
pub struct Entry {
    /// Its number, counted from 1 in the order of arrival.
    pub n: usize,
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
    /// The status that was sent; `None` as long as no answer was given.
    pub status: Option<u16>,
    /// What it deleted.
    pub deleted: Vec<Identifier>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.sign_in { "sign-in" } else { "delete" };
        write!(f, "Entry({} {what} {}, {} bytes, ", self.n, self.method, self.body.len())?;
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
    deleted: Vec<Identifier>,
}

impl Journal {
    /// Numbers a request and keeps it.
    pub(super) fn push(&mut self, mut entry: Entry) -> usize {
        self.count += 1;
        entry.n = self.count;
        self.body_bytes += entry.body.len();
        self.deleted.extend_from_slice(&entry.deleted);
        self.entries.push_back(entry);
        while self.entries.len() > MAX_ENTRIES || self.body_bytes > MAX_BODY_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.body_bytes -= oldest.body.len();
        }
        self.count
    }

    /// Puts down that the request with this number was answered after all.
    pub(super) fn answered(&mut self, n: usize, status: u16) {
        let first = self.entries.front().map_or(0, |entry| entry.n);
        let entry = n.checked_sub(first).and_then(|index| self.entries.get_mut(index));
        if let Some(entry) = entry {
            entry.status = Some(status);
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
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
            method: Method::DELETE,
            path: "/contacts/7000001?password=hunter2".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from(vec![b'7'; body_bytes]),
            sign_in: false,
            status: None,
            deleted: vec![Identifier::Id("7000001".into())],
        }
    }

    #[test]
    fn the_oldest_requests_make_room_and_no_deletion_does() {
        let mut journal = Journal::default();
        for n in 1..=70 {
            assert_eq!(journal.push(entry(1 << 20)), n);
        }
        assert_eq!(journal.entries().iter().map(|entry| entry.n).collect::<Vec<_>>(), (7..=70).collect::<Vec<_>>());
        assert_eq!(journal.deleted().len(), 70);
        for n in [0, 6, 7, 70, 71] {
            journal.answered(n, 200);
        }
        let answered: Vec<_> = journal.entries().iter().filter(|e| e.status.is_some()).map(|e| e.n).collect();
        assert_eq!(answered, [7, 70]);
    }

    #[test]
    fn debug_shows_no_identifier_and_no_secret() {
        let shown = format!("{:?}", entry(9));
        assert_eq!(shown, "Entry(0 delete DELETE, 9 bytes, no answer, 1 deleted)");
    }
}
