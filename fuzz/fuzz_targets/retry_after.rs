//! `Retry-After` in any form: a wait is read as RFC 9110 has it, or as none, and a share never waits longer than it may.
//!
//! An input is a dialect and the value.

#![no_main]

use adapters::{DIALECTS, Wait, reply};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use onedelete::engine::{Backoff, Moment, Policy, Share, Step};
use onedelete_fuzz::calls::cases;
use onedelete_fuzz::seeds;

/// As the contract has it: 15 minutes, and the little that is added to what is asked.
const LONGEST_MS: u64 = 900_500;

fuzz_target!(init: { seeds::write(seeds::waits) }, |data: &[u8]| {
    let Some((dialect, text)) = data.split_first() else { return };
    let Ok(value) = HeaderValue::from_bytes(text) else { return };
    let registration = &DIALECTS[*dialect as usize % DIALECTS.len()];
    let case = cases().into_iter().find(|case| std::ptr::eq(case.registration, registration)).expect("a case");
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    reply.headers_mut().insert("retry-after", value);

    let text = String::from_utf8_lossy(text);
    // Blanks and tabs alone: a text with any other white space is no ASCII, and not read as a number.
    let text = text.trim_matches([' ', '\t']);
    match reply::retry_after(reply.headers()) {
        Some(Wait::For(seconds)) => {
            assert!(text.bytes().all(|b| b.is_ascii_digit()));
            let digits = text.trim_start_matches('0');
            assert!(seconds.to_string() == digits || digits.len() >= 20 || (seconds == 0 && digits.is_empty()));
        }
        Some(Wait::Until(_)) => {
            // Three forms, all of them with the time of day and English names.
            assert!(text.is_ascii() && text.matches(':').count() == 2 && text.len() >= 24, "{text:?}");
        }
        None => assert!(text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()), "{text:?}"),
    }

    let dialect = case.dialect();
    let targets = case.call(&*dialect, 1).targets;
    let backoff = Backoff { base_ms: 500, cap_ms: 60_000 };
    let policy = Policy { max_attempts: 3, doubt_ms: 0, backoff, deadline_ms: u64::MAX, renewable: false };
    let mut share = Share::new(dialect, policy, targets);
    let mut now = Moment { ms: 5_000, unix_s: 1_700_000_000 };
    let mut dice = fastrand::Rng::with_seed(1);
    for _ in 0..2 {
        let Step::Send(ticket, _) = share.poll(now) else { panic!("it is not sent") };
        share.on_reply(ticket, &reply, now, &mut dice);
        match share.poll(now) {
            Step::Wait(until) => {
                assert!(until > now.ms && until <= now.ms + LONGEST_MS, "from {} until {until}", now.ms);
                now = Moment { ms: until, unix_s: now.unix_s + (until - now.ms) / 1_000 };
            }
            // No wait at all is one, too.
            Step::Send(..) => return,
            other => panic!("{other:?}"),
        }
    }
});
