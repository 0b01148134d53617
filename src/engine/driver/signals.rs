//! What whoever works a part is told from outside: to send nothing more, to give the part back, or that it is somebody else's.
//!
//! What was said stays said. It decides nothing about contacts. Flags and one bell for all of them: a part is waited for on every
//! call, and each bell of its own costs as much as a call's intent.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What was said about a part so far.
#[derive(Debug, Default)]
pub(super) struct Signals {
    said: AtomicU8,
    bell: Notify,
}

const CANCELLED: u8 = 1;
const LOST: u8 = 2;
const MOVED: u8 = 4;
const ACCEPTED: u8 = 8;

impl Signals {
    /// Nothing more is to be sent for it.
    pub(super) fn cancel(&self) {
        self.say(CANCELLED);
    }

    /// It is somebody else's now.
    pub(super) fn lose(&self) {
        self.say(LOST);
    }

    /// A connection is configured otherwise now: it is to be given back and claimed again.
    pub(super) fn move_on(&self) {
        self.say(MOVED);
    }

    /// The ledger has it: before, there is nothing to be renewed. Nobody waits for this.
    pub(super) fn accept(&self) {
        self.said.fetch_or(ACCEPTED, Ordering::Release);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.has(CANCELLED)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.has(LOST)
    }

    pub(super) fn is_moved(&self) -> bool {
        self.has(MOVED)
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.has(ACCEPTED)
    }

    /// Whoever waits for news is to look at what stands elsewhere: whether the engine halts, or an upstream was given up.
    pub(super) fn ring(&self) {
        self.bell.notify_waiters();
    }

    /// Comes to its end when something was said after this call, whenever it is first waited for. So whoever takes it before
    /// looking misses nothing.
    pub(super) fn news(&self) -> Notified<'_> {
        self.bell.notified()
    }

    /// Waits until the part is somebody else's.
    pub(super) async fn lost(&self) {
        loop {
            let news = self.news();
            if self.is_lost() {
                return;
            }
            news.await;
        }
    }

    fn say(&self, what: u8) {
        if self.said.fetch_or(what, Ordering::AcqRel) & what == 0 {
            self.ring();
        }
    }

    fn has(&self, what: u8) -> bool {
        self.said.load(Ordering::Acquire) & what != 0
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_is_said_between_the_look_and_the_wait_is_not_missed() {
        let signals = Signals::default();
        let news = signals.news();
        assert!(!signals.is_cancelled());
        signals.cancel();
        assert_eq!(news.now_or_never(), Some(()));
        // Said again, it is no news; said for the first time, it is.
        let news = signals.news();
        signals.cancel();
        signals.accept();
        assert!(signals.is_cancelled() && signals.is_accepted() && !signals.is_lost() && !signals.is_moved());
        assert_eq!(news.now_or_never(), None);
        assert_eq!(signals.lost().now_or_never(), None);
        signals.lose();
        assert_eq!(signals.lost().now_or_never(), Some(()));
        let news = signals.news();
        signals.move_on();
        assert!(signals.is_moved() && news.now_or_never().is_some());
        let news = signals.news();
        signals.ring();
        assert_eq!(news.now_or_never(), Some(()));
    }
}
