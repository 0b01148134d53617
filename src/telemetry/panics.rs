//! A panic as one line of the log: where, in which thread, and what it says if that stands in the source as it is.
//!
//! What a panic says may be made of what was being worked: an identifier that could not be read, a body. So nothing that was
//! put together at run time is passed on, and no backtrace is printed. It stops no panic, and decides nothing about one.

use std::any::Any;
use std::panic::{Location, PanicHookInfo};

/// Lets panics go to the log, and to nowhere else, from now on. The log must have been started.
pub(super) fn to_log() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let place = panic.location().map(Location::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let (said, request) = (literal(panic.payload()), super::origin::request_id());
        tracing::error!(place, thread, said, request, "panicked: this is a bug");
    }));
}

/// What the source says as it is. A text with anything filled in is a `String`.
fn literal(payload: &(dyn Any + Send)) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_source_says_is_passed_on() {
        let contact = "canary".to_owned();
        let caught = |act: Box<dyn FnOnce() + std::panic::UnwindSafe>| {
            let payload = std::panic::catch_unwind(act).unwrap_err();
            literal(&*payload)
        };
        assert_eq!(caught(Box::new(|| panic!("a literal"))), Some("a literal"));
        let (a, b) = (contact.clone(), contact.clone());
        let failed = Err::<(), String>;
        assert_eq!(caught(Box::new(move || panic!("no contact {a}"))), None);
        assert_eq!(caught(Box::new(move || failed(b).unwrap())), None);
        assert_eq!(caught(Box::new(move || std::panic::panic_any(contact))), None);
    }
}
