//! The body of a request with many contacts: JSON Lines, read from the source while they are sent.
//!
//! It ends properly only if the contacts are still those that were looked at before anything was sent; else it breaks off,
//! and a gateway accepts no body that broke off.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::Sleep;

use super::input::{Contacts, Mistake, Source, Survey, Tally};

/// About so many bytes are read and sent at once.
const PIECE: usize = 64 * 1024;

/// So long the body waits behind the head of the request. A gateway that refuses the request for its head alone (a wrong
/// key, too much to do) answers meanwhile; later its answer could be lost when it closes a connection that is being written.
const PAUSE: Duration = Duration::from_millis(400);

/// What is known of a body while it is sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    lines: AtomicU64,
    whole: AtomicBool,
    broken: OnceLock<String>,
}

/// A body that is being sent.
pub(super) struct Upload {
    contacts: Contacts,
    /// `None` once the end was reached.
    tally: Option<Tally>,
    expected: Survey,
    sent: Arc<Sent>,
    /// Begins when the body is first asked for; `None` once it is over.
    pause: Option<Pin<Box<Sleep>>>,
    begun: bool,
}

impl Sent {
    /// So many contacts were handed over.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Whether all of them were: only then can the gateway have accepted them.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Why the body was broken off on this side.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }
}

impl Upload {
    pub(super) fn new(source: &Source, expected: &Survey) -> Result<(Self, Arc<Sent>), Mistake> {
        let sent = Arc::new(Sent::default());
        let (contacts, tally) = (source.read()?, Some(source.tally()));
        let upload =
            Self { contacts, tally, expected: expected.clone(), sent: Arc::clone(&sent), pause: None, begun: false };
        Ok((upload, sent))
    }

    /// The next lines; `None` at the end.
    fn piece(&mut self) -> Result<Option<Bytes>, String> {
        let Some(tally) = &mut self.tally else { return Ok(None) };
        let mut piece = Vec::with_capacity(PIECE + 1024);
        while piece.len() < PIECE {
            let Some(line) = self.contacts.next() else { break };
            let line = line.map_err(|mistake| mistake.to_string())?;
            tally.add(&line);
            piece.extend_from_slice(line.as_bytes());
            piece.push(b'\n');
        }
        self.sent.lines.store(tally.count(), Ordering::Relaxed);
        // The last piece goes out only once it is known to be the right one.
        if piece.len() < PIECE
            && let Some(tally) = self.tally.take()
        {
            if tally.survey() != self.expected {
                return Err("the file was changed while it was read".to_owned());
            }
            self.sent.whole.store(true, Ordering::Release);
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !std::mem::replace(&mut self.begun, true) {
            self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        }
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        // A local file: reading a piece of it is no longer than a task may take.
        Poll::Ready(match self.piece() {
            Ok(piece) => piece.map(|piece| Ok(Frame::data(piece))),
            Err(text) => {
                self.tally = None;
                let _ = self.sent.broken.set(text.clone());
                Some(Err(io::Error::other(text)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::Columns;
    use super::*;

    #[test]
    fn a_file_that_was_changed_is_not_sent_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.txt");
        let ids = |n: u32| (0..n).map(|n| format!("{n:012}\n")).collect::<String>();
        std::fs::write(&path, ids(20_000)).unwrap();
        let source = Source::new([], Some(&path), &Columns::default(), String::new(), 0).unwrap();
        let survey = source.survey().unwrap();
        let read = || {
            let (mut upload, sent) = Upload::new(&source, &survey).unwrap();
            let mut bytes = 0;
            let end = loop {
                match upload.piece() {
                    Ok(Some(piece)) => bytes += piece.len() as u64,
                    end => break end.map(|_| ()),
                }
            };
            (bytes, end, sent.is_whole(), sent.lines())
        };
        assert_eq!(read(), (survey.bytes, Ok(()), true, 20_000));
        for changed in [ids(19_999), ids(20_001), ids(20_000).replace("000000000007\n", "000000000008\n")] {
            std::fs::write(&path, changed).unwrap();
            let (bytes, end, whole, _) = read();
            assert!(end.unwrap_err().contains("changed") && !whole && bytes < survey.bytes);
        }
    }
}
