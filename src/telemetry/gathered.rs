//! Lines of a busy moment, written together: a write costs more than to put a line into words.
//!
//! A worker of the runtime keeps what it logs until it has nothing else to do, or until there is enough for one write. Warnings and
//! errors go out at once with all that came before them, as does what any other thread logs. Lines stay in their order.

use std::cell::Cell;
use std::io::{self, Stderr, Write};
use std::sync::{Mutex, PoisonError, TryLockError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::line::Lines;

/// No more bytes than this are written at once, but for a line that is longer: a pipe takes so many as one piece on Linux, whoever
/// else writes into it (pipe(7)).
const MOST: usize = 4_096;

/// What is kept, and written to standard error.
static LOG: Gathered<fn() -> Stderr> = Gathered { kept: Mutex::new(Vec::new()), out: io::stderr };

thread_local! {
    /// Whether this thread says when it has nothing to do.
    static SAYS_SO: Cell<bool> = const { Cell::new(false) };
}

/// A worker of the runtime has nothing to do.
pub fn worker_is_idle() {
    SAYS_SO.set(true);
    LOG.write_kept_unless_busy();
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
        if !kept.is_empty() && kept.len() + line.len() > MOST {
            self.write(&mut kept)?;
        }
        kept.extend_from_slice(line);
        if at_once || kept.len() >= MOST { self.write(&mut kept) } else { Ok(()) }
    }

    fn write_kept(&self) {
        self.write_all(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The same, without waiting for another thread: that one writes, or is a worker that says later that it is idle. Whoever
    /// waited here for a log that nobody reads would keep the sockets waiting.
    fn write_kept_unless_busy(&self) {
        match self.kept.try_lock() {
            Ok(mut kept) => self.write_all(&mut kept),
            Err(TryLockError::Poisoned(kept)) => self.write_all(&mut kept.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn write_all(&self, kept: &mut Vec<u8>) {
        if !kept.is_empty() {
            // Nobody is left to be told that there is no log.
            let _ = self.write(kept);
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
        log.add(b"e\n", false).unwrap();
        let writing = log.kept.lock().unwrap();
        log.write_kept_unless_busy();
        drop(writing);
        assert!(lines().is_empty());
        log.write_kept_unless_busy();
        assert_eq!(lines(), [b"e\n".to_vec()]);
    }

    #[test]
    fn no_more_is_written_at_once_than_a_pipe_takes_as_one() {
        let out = Mutex::new(Vec::new());
        let log = Gathered { kept: Mutex::new(Vec::new()), out: || Out(&out) };
        let (half, long) = (vec![b'h'; MOST / 2], vec![b'l'; MOST + 1]);
        for at_once in [false, true] {
            for line in [&half, &half, &half, &long, &half] {
                log.add(line, at_once).unwrap();
            }
            log.write_kept();
            let sizes: Vec<_> = std::mem::take(&mut *out.lock().unwrap()).iter().map(Vec::len).collect();
            let (half, long) = (MOST / 2, MOST + 1);
            assert_eq!(sizes, if at_once { vec![half, half, half, long, half] } else { vec![MOST, half, long, half] });
        }
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
