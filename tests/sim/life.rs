//! One life of a process: what belongs to it does nothing more once it is over.
//!
//! A killed gateway's tasks are not taken away. They hang at the next thing that they want of the world: of the network
//! or of the ledger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Whether somebody lives, and what happens when it ends.
#[derive(Default)]
pub(crate) struct Life {
    over: AtomicBool,
    at_the_end: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Life {
    /// One that never ends.
    pub(crate) fn forever() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            let all = std::mem::take(&mut *self.at_the_end.lock().unwrap());
            all.into_iter().for_each(|act| act());
        }
    }

    /// Does this when it ends.
    pub(crate) fn at_the_end(&self, act: impl FnOnce() + Send + 'static) {
        self.at_the_end.lock().unwrap().push(Box::new(act));
    }

    /// Goes on, if it is not over; else never.
    pub(crate) async fn on(&self) {
        if !self.is_on() {
            std::future::pending().await
        }
    }
}
