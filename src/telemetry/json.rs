//! An event as one line of JSON: when, how bad, and its own fields, in the order in which they stand in the source.
//!
//! It knows no spans, and hides nothing: what must not be in the log is kept from it by those who log.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::line::is_unseen;
use crate::clock;

/// Writes events as JSON, one object a line.
pub(super) struct Json;

/// A line for which more was needed is not kept for the next one.
const KEPT: usize = 4_096;

thread_local! {
    static LINE: Cell<String> = const { Cell::new(String::new()) };
    /// The last second that was written, and how. Most lines are in the same one.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Whatever logs while it is being logged gets a line of its own.
        let mut line = LINE.take();
        line.clear();
        write_event(event, &mut line);
        let written = writer.write_str(&line);
        if line.capacity() <= KEPT {
            LINE.set(line);
        }
        written
    }
}

fn write_event(event: &Event<'_>, line: &mut String) {
    line.push_str("{\"timestamp\":\"");
    write_time(clock::unix_ms(), line);
    line.push_str("\",\"level\":\"");
    line.push_str(event.metadata().level().as_str());
    line.push('"');
    event.record(&mut Fields(line));
    line.push_str("}\n");
}

/// As RFC 3339 has it, with milliseconds.
fn write_time(unix_ms: i64, line: &mut String) {
    let (second, ms) = (unix_ms.div_euclid(1_000), unix_ms.rem_euclid(1_000));
    SECOND.with_borrow_mut(|(last, text)| {
        if *last != second {
            *text = clock::rfc3339(second.saturating_mul(1_000));
            *last = second;
        }
        line.push_str(text.strip_suffix('Z').unwrap_or(text));
    });
    line.push('.');
    for place in [100, 10, 1] {
        line.push(char::from(b'0' + (ms / place % 10) as u8));
    }
    line.push('Z');
}

/// An event's fields, each with the comma before it.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push_str(",\"");
        // Names are the source's, but any text can be one.
        let name = field.name();
        write_escaped(name.strip_prefix("r#").unwrap_or(name), self.0);
        self.0.push_str("\":");
    }

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        // A `String` takes everything.
        let _ = write!(self.0, "{value}");
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        self.0.push('"');
        let _ = Escaped(self.0).write_fmt(value);
        self.0.push('"');
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.0.push('"');
        write_escaped(value, self.0);
        self.0.push('"');
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.bare(field, value),
            // JSON has no number for it.
            false => self.bare(field, "null"),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// Takes text in pieces, as formatting has it, into a JSON string.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(text, self.0);
        Ok(())
    }
}

/// What stands between the quotes of a JSON string (RFC 8259, section 7), with nothing in it that is not to be seen.
fn write_escaped(text: &str, line: &mut String) {
    // Without a way out in between, a processor looks at many bytes at once.
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return line.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            // All of them have four digits at most.
            c if is_unseen(c) => drop(write!(line, "\\u{:04x}", c as u32)),
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are logged meanwhile.
    fn logged(act: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Json).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = std::mem::take(&mut *written.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8(bytes).unwrap().split_inclusive('\n').map(str::to_owned).collect()
    }

    #[test]
    fn an_event_is_an_object_with_its_fields() {
        let hostile = "a\"b\\c\nd\r\t\u{0}\u{7f}\u{2028}\u{202e}é\u{1f40c}";
        let lines = logged(|| {
            let absent: Option<u64> = None;
            let shown = tracing::field::display(hostile);
            tracing::info!(text = hostile, shown, number = 7_u64, less = -7, is = true, absent, "it is \"so\"");
            tracing::warn!(error = %io::Error::other("no\nway"), list = ?["x", "\u{1b}[2J"], much = f64::INFINITY, "b");
        });
        let [first, second] = &lines[..] else { panic!("{lines:?}") };
        for line in [first, second] {
            assert!(line.starts_with("{\"timestamp\":\"2") && line.ends_with("}\n"), "{line:?}");
            assert!(!line.trim_end_matches('\n').contains(is_unseen), "{line:?}");
        }
        let mut first: Value = serde_json::from_str(first).unwrap();
        let time = first.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert_eq!(time.as_str().unwrap().len(), "2026-01-01T00:00:00.000Z".len());
        let expected = json!({ "level": "INFO", "message": "it is \"so\"", "text": hostile, "shown": hostile, "number": 7,
            "less": -7, "is": true });
        assert_eq!(first, expected);
        let second: Value = serde_json::from_str(second).unwrap();
        let told = (&second["level"], &second["error"], &second["list"], &second["much"]);
        assert_eq!(told, (&json!("WARN"), &json!("no\nway"), &json!("[\"x\", \"\\u{1b}[2J\"]"), &Value::Null));
    }

    #[test]
    fn a_line_within_a_line_spoils_neither() {
        struct Talkative;
        impl fmt::Debug for Talkative {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                tracing::info!("within");
                f.write_str("told")
            }
        }
        let lines = logged(|| tracing::info!(who = ?Talkative, "around"));
        let messages: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let around = messages.iter().find(|line| line["message"] == "around").unwrap();
        assert_eq!(around["who"], "told");
    }

    #[test]
    fn times_are_written_as_they_are() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (1_767_225_600_007, "2026-01-01T00:00:00.007Z"),
            (1_767_225_600_256, "2026-01-01T00:00:00.256Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            let mut line = String::new();
            write_time(unix_ms, &mut line);
            assert_eq!(line, expected);
        }
    }
}
