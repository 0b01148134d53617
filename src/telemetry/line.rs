//! Keeps what is logged at once on one line, so that no text in it can pass for a line of its own or paint a terminal.
//!
//! It does not know what is logged, and hides nothing: what must not be in the log is kept from it by those who log.

use std::borrow::Cow;
use std::io::{self, Write};

/// A writer of whole lines. Each `write` is one event with its line break.
pub(super) struct Lines<W> {
    inner: W,
    /// Whether the log is painted: its own escape sequences stay then, and the log sees to others' itself.
    painted: bool,
}

impl<W> Lines<W> {
    pub(super) fn new(inner: W, painted: bool) -> Self {
        Self { inner, painted }
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // Most are, and it is seen at a glance.
        if let [text @ .., b'\n'] = event
            && text.iter().fold(true, |is_plain, byte| is_plain & (b' '..=b'~').contains(byte))
        {
            self.inner.write_all(event)?;
            return Ok(event.len());
        }
        self.inner.write_all(on_one_line(&String::from_utf8_lossy(event), self.painted).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// An event with everything escaped that is not to be seen, but for the break at its end. In JSON, where nothing of the kind
/// stands outside a string, it means the same as before.
fn on_one_line(event: &str, painted: bool) -> Cow<'_, str> {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let unseen = |c: char| is_unseen(c) && !(painted && c == '\u{1b}');
    if !text.contains(unseen) {
        return Cow::Borrowed(event);
    }
    let mut line = String::with_capacity(event.len() + 16);
    for c in text.chars() {
        // All of them have four digits at most.
        if unseen(c) { line.push_str(&format!("\\u{:04x}", c as u32)) } else { line.push(c) }
    }
    Cow::Owned(line + end)
}

/// Whether a character is none to look at: it controls something, breaks lines or paragraphs, or turns the direction of the text
/// around it.
pub(super) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        for (event, line) in [
            ("plain, Köln\n", "plain, Köln\n"),
            ("", ""),
            ("without an end", "without an end"),
            ("a\nforged\r\nline\n", "a\\u000aforged\\u000d\\u000aline\n"),
            ("two ends\n\n", "two ends\\u000a\n"),
            ("\u{1b}[2Jgone\u{7}\u{0}\u{9b}1m\u{7f}\t\n", "\\u001b[2Jgone\\u0007\\u0000\\u009b1m\\u007f\\u0009\n"),
            ("a\u{2028}b\u{202e}c\u{85}d\n", "a\\u2028b\\u202ec\\u0085d\n"),
        ] {
            assert_eq!(on_one_line(event, false), line);
            let mut out = Vec::new();
            Lines::new(&mut out, false).write_all(event.as_bytes()).unwrap();
            assert_eq!(out, line.as_bytes());
        }
        assert_eq!(on_one_line("\u{1b}[31mred\u{1b}[0m\nforged\n", true), "\u{1b}[31mred\u{1b}[0m\\u000aforged\n");
        let json = "{\"text\":\"\\\\\u{7f}\u{2028}\"}\n";
        let told: serde_json::Value = serde_json::from_str(&on_one_line(json, false)).unwrap();
        assert_eq!(told, serde_json::from_str::<serde_json::Value>(json).unwrap());
    }

    #[test]
    fn bytes_that_are_no_text_break_no_line() {
        let mut out = Vec::new();
        Lines::new(&mut out, false).write_all(b"a\xff\xfe\nb\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}\u{fffd}\\u000ab\n");
    }
}
