//! Bodies of JSON Lines: cut into pieces of any size they are the same contacts, and those that JSON would name.
//!
//! An input is the size of the pieces and the body.

#![no_main]

use std::cell::RefCell;
use std::io;

use libfuzzer_sys::fuzz_target;
use onedelete::api::Problem;
use onedelete::api::fuzzing::{Asked, body, lines, request};
use onedelete_fuzz::tree::may_name;
use onedelete_fuzz::{CANARY, seeds};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime can be made"));
}

fn read(pieces: &[&[u8]]) -> Result<Vec<(usize, Asked)>, (usize, Problem)> {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, io::Error>(piece.to_vec())).collect();
    RUNTIME.with_borrow(|runtime| runtime.block_on(lines(body(pieces))))
}

fuzz_target!(init: { seeds::write(seeds::lines) }, |data: &[u8]| {
    let Some((size, text)) = data.split_first() else { return };
    let whole = read(&[text]);
    let pieces: Vec<_> = text.chunks(*size as usize + 1).collect();
    let cut = read(&pieces);
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"), "it depends on where the body is cut");

    let found: Vec<_> = text.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty()).collect();
    let read = match &whole {
        Ok(contacts) => {
            assert_eq!(contacts.len(), found.len(), "a line is a contact");
            contacts.len()
        }
        Err((before, problem)) => {
            assert!(*before < found.len() || found.len() > 10_000 || text.len() > 4_096);
            let shown = format!("{problem:?}");
            let a_name = shown.contains("unknown_member") || shown.contains("duplicate_member");
            assert!(!shown.contains(CANARY) || (a_name && may_name(text, CANARY)), "a refusal repeats a value");
            *before
        }
    };
    // Whatever was read of a line alone is what it would be in an array.
    for (n, (line, number)) in found.iter().take(read).enumerate() {
        let alone = request(&[b"{\"contacts\":[", *line, b"]}"].concat()).expect("a line is JSON");
        assert_eq!(alone.contacts.len(), 1, "a line is one contact");
        if let Ok(contacts) = &whole {
            assert_eq!((contacts[n].0, &contacts[n].1), (*number, &alone.contacts[0]));
        }
    }
});
