//! Lines of a busy moment, written together: a write costs more than to put a line into words.
//!
//! A worker of the runtime keeps what it logs until it has nothing else to do, which is less than a moment. Warnings and errors go
//! out at once with all that came before them, as does what any other thread logs. Lines stay in their order.

use std::cell::Cell;
use std::io::{self, Stderr, Write};
use std::sync::{Mutex, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::line::Lines;

/// No more bytes than this are kept for later.
const MOST: usize = 16 * 1_024;

/// What is kept, and written to standard error.
static LOG: Gathered<fn() -> Stderr> = Gathered { kept: Mutex::new(Vec::new()), out: io::stderr };

thread_local! {
    /// Whether this thread says when it has nothing to do.
    static SAYS_SO: Cell<bool> = const { Cell::new(false) };
}

/// A worker of the runtime has nothing to do.
pub fn worker_is_idle() {
    SAYS_SO.set(true);
    LOG.write_kept();
}

/// The process is about to end.
pub fn flush_log() {
    LOG.write_kept();
}

/// Writers to standard error for the log.
pub(super) struct ToStderr {
    /// Whether it is painted.
    pub(super) painted: bool,
}

impl<'w> MakeWriter<'w> for ToStderr {
    type Writer = Lines<Gathering<'w, fn() -> Stderr>>;

    fn make_writer(&'w self) -> Self::Writer {
        Lines::new(Gathering { log: &LOG, at_once: true }, self.painted)
    }

    fn make_writer_for(&'w self, about: &Metadata<'_>) -> Self::Writer {
        let at_once = *about.level() <= Level::WARN || !SAYS_SO.get();
        Lines::new(Gathering { log: &LOG, at_once }, self.painted)
    }
}

/// Lines that were not written yet, and where they go.
struct Gathered<O> {
    kept: Mutex<Vec<u8>>,
    out: O,
}

impl<W: Write, O: Fn() -> W> Gathered<O> {
    fn add(&self, line: &[u8], at_once: bool) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(line);
        if at_once || kept.len() >= MOST { self.write(&mut kept) } else { Ok(()) }
    }

    fn write_kept(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.is_empty() {
            // Nobody is left to be told that there is no log.
            let _ = self.write(&mut kept);
        }
    }

    /// What cannot be written is not tried again: it would stand in the way of all that follows.
    fn write(&self, kept: &mut Vec<u8>) -> io::Result<()> {
        let written = (self.out)().write_all(kept);
        kept.clear();
        kept.shrink_to(MOST);
        written
    }
}

/// A writer of one event.
pub(super) struct Gathering<'w, O> {
    log: &'w Gathered<O>,
    at_once: bool,
}

impl<W: Write, O: Fn() -> W> Write for Gathering<'_, O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.add(line, self.at_once).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_in_their_order_and_none_is_kept_for_long() {
        let out = Mutex::new(Vec::new());
        let log = Gathered { kept: Mutex::new(Vec::new()), out: || Out(&out) };
        let lines = || std::mem::take(&mut *out.lock().unwrap());
        log.add(b"a\n", false).unwrap();
        log.add(b"b\n", false).unwrap();
        assert!(lines().is_empty());
        log.add(b"c\n", true).unwrap();
        assert_eq!(lines(), [b"a\nb\nc\n".to_vec()]);
        log.add(b"d\n", false).unwrap();
        log.write_kept();
        log.write_kept();
        assert_eq!(lines(), [b"d\n".to_vec()]);
        let long = vec![b'x'; MOST - 1];
        log.add(&long, false).unwrap();
        assert!(lines().is_empty());
        log.add(b"\n", false).unwrap();
        assert_eq!(lines(), [[&long[..], b"\n"].concat()]);
    }

    struct Out<'o>(&'o Mutex<Vec<Vec<u8>>>);

    impl Write for Out<'_> {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(text.to_vec());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
