//! Results on stdout, as they are read: a table, one JSON document, or a line each.
//!
//! It knows how many results a finished deletion must have, so that a stream that ends early is noticed however it ends,
//! and it takes each result once, so that a stream can be asked for again. Only a table of few rows is held in memory.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use adapters::Outcome;
use comfy_table::{Cell, CellAlignment};
use serde::Deserialize;
use serde_json::Value;

use super::deletion::Deletion;
use crate::cli::{Output, output};

/// A table has at most so many rows; of more contacts, only sums are shown.
const MOST_ROWS: u64 = 1_000;

/// What is printed of a finished deletion.
pub(super) struct Report {
    deletion: Deletion,
    /// The outcomes that are wanted; all, if `None`.
    only: Option<Vec<Outcome>>,
    /// The outcomes whose results are asked for; all, if `None`.
    asked: Option<Vec<Outcome>>,
    form: Form,
    out: Out,
    /// How many results came, and the first index that is yet to come.
    read: u64,
    next: u64,
    printed: u64,
    /// Contacts that were skipped and are absent: duplicates.
    skipped_absent: u64,
}

enum Form {
    Lines,
    Document,
    Rows(Vec<Value>),
    Sums(BTreeMap<(&'static str, String), u64>),
}

/// A writer of which nothing more is wanted once its reader has gone away.
struct Out {
    writer: Box<dyn Write>,
    is_open: bool,
}

/// What is needed of each result.
#[derive(Deserialize)]
struct Row {
    index: u64,
    outcome: String,
    absent: Option<bool>,
    error: Option<RowError>,
}

#[derive(Deserialize)]
struct RowError {
    code: String,
}

/// Why a result was not taken.
#[derive(Debug)]
pub(super) enum ReportError {
    /// It is none: the stream cannot be believed.
    Unreadable,
    /// It cannot be written.
    Unwritten(io::Error),
}

impl Report {
    /// For a finished deletion, on stdout; nothing is written yet.
    pub(super) fn new(output: Output, only: Option<Vec<Outcome>>, deletion: Deletion) -> Self {
        Self::on(Box::new(BufWriter::with_capacity(64 * 1024, io::stdout())), output, only, deletion)
    }

    fn on(writer: Box<dyn Write>, output: Output, only: Option<Vec<Outcome>>, deletion: Deletion) -> Self {
        let counts = &deletion.counts;
        let wanted = |outcome: Outcome| only.as_ref().is_none_or(|only| only.contains(&outcome));
        let rows: u64 = Outcome::ALL.into_iter().filter(|outcome| wanted(*outcome)).map(|each| counts.of(each)).sum();
        let form = match output {
            Output::Jsonl => Form::Lines,
            Output::Json => Form::Document,
            Output::Table if rows <= MOST_ROWS => Form::Rows(Vec::new()),
            Output::Table => Form::Sums(BTreeMap::new()),
        };
        // Sums take no look at contacts of which nothing but their number is shown.
        let of_interest = |outcome: Outcome| match (&form, outcome) {
            // Only the results say which of them are duplicates of contacts that are absent.
            (_, Outcome::Skipped) => true,
            (Form::Sums(_), Outcome::Deleted | Outcome::NotFound) => false,
            _ => wanted(outcome),
        };
        let present: Vec<_> = Outcome::ALL.into_iter().filter(|outcome| counts.of(*outcome) > 0).collect();
        let asked: Vec<_> = present.iter().copied().filter(|outcome| of_interest(*outcome)).collect();
        let asked = (asked != present).then_some(asked);
        let out = Out { writer, is_open: true };
        Self { form, asked, only, deletion, out, read: 0, next: 0, printed: 0, skipped_absent: 0 }
    }

    /// The outcomes to ask the results of, as a filter of the contract has them; `None` for all.
    pub(super) fn filter(&self) -> Option<String> {
        let asked = self.asked.as_ref()?;
        Some(asked.iter().map(|outcome| outcome.as_str()).collect::<Vec<_>>().join(","))
    }

    /// Writes what stands before the results.
    pub(super) fn begin(&mut self) -> Result<(), ReportError> {
        if let Form::Document = self.form {
            let head = serde_json::to_string(&self.deletion).map_err(|err| ReportError::Unwritten(err.into()))?;
            let head = head.strip_suffix('}').unwrap_or(&head);
            self.out.write(&[head.as_bytes(), b",\"results\":["])?;
        }
        Ok(())
    }

    /// Takes a result as it came. One that was taken before is passed over.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<(), ReportError> {
        let row: Row = serde_json::from_slice(line).map_err(|_| ReportError::Unreadable)?;
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == row.outcome);
        let outcome = outcome.ok_or(ReportError::Unreadable)?;
        if row.index < self.next {
            return Ok(());
        }
        if self.is_complete() || row.index >= self.deletion.counts.requested {
            return Err(ReportError::Unreadable);
        }
        (self.next, self.read) = (row.index + 1, self.read + 1);
        if outcome == Outcome::Skipped && row.absent == Some(true) {
            self.skipped_absent += 1;
        }
        if self.only.as_ref().is_some_and(|only| !only.contains(&outcome)) {
            return Ok(());
        }
        self.printed += 1;
        match &mut self.form {
            Form::Lines => self.out.write(&[line, b"\n"]),
            Form::Document => self.out.write(&[if self.printed > 1 { b",\n" } else { b"\n" }, line]),
            Form::Rows(rows) => {
                rows.push(serde_json::from_slice(line).map_err(|_| ReportError::Unreadable)?);
                Ok(())
            }
            Form::Sums(sums) => {
                *sums.entry((outcome.as_str(), row.error.map_or_else(String::new, |error| error.code))).or_default() +=
                    1;
                Ok(())
            }
        }
    }

    /// How many results were taken.
    pub(super) fn taken(&self) -> u64 {
        self.read
    }

    /// Whether all results that were asked for have come.
    pub(super) fn is_complete(&self) -> bool {
        let counts = &self.deletion.counts;
        self.read
            == match &self.asked {
                Some(asked) => asked.iter().map(|outcome| counts.of(*outcome)).sum(),
                None => counts.requested,
            }
    }

    /// Writes what stands after the results. Whether somebody read all of it.
    pub(super) fn end(&mut self) -> Result<bool, ReportError> {
        let counts = &self.deletion.counts;
        match &mut self.form {
            Form::Lines => {}
            Form::Document => self.out.write(&[b"\n]}\n"])?,
            Form::Rows(rows) => self.out.write(&[results_table(rows).to_string().as_bytes(), b"\n"])?,
            Form::Sums(sums) => {
                for outcome in [Outcome::Deleted, Outcome::NotFound] {
                    let is_wanted = self.only.as_ref().is_none_or(|only| only.contains(&outcome));
                    if is_wanted && counts.of(outcome) > 0 {
                        sums.insert((outcome.as_str(), String::new()), counts.of(outcome));
                    }
                }
                self.out.write(&[sums_table(sums).to_string().as_bytes(), b"\n"])?;
            }
        }
        self.out.flush()
    }

    /// Whether the results themselves are left out, for want of space.
    pub(super) fn is_summary(&self) -> bool {
        matches!(self.form, Form::Sums(_))
    }

    /// How many contacts are known to be absent.
    pub(super) fn absent(&self) -> u64 {
        let counts = &self.deletion.counts;
        counts.of(Outcome::Deleted) + counts.of(Outcome::NotFound) + self.skipped_absent
    }
}

impl Out {
    fn write(&mut self, parts: &[&[u8]]) -> Result<(), ReportError> {
        let written = match self.is_open {
            true => parts.iter().try_for_each(|part| self.writer.write_all(part)),
            false => Ok(()),
        };
        self.settled(written)
    }

    fn flush(&mut self) -> Result<bool, ReportError> {
        let flushed = if self.is_open { self.writer.flush() } else { Ok(()) };
        self.settled(flushed)?;
        Ok(self.is_open)
    }

    fn settled(&mut self, result: io::Result<()>) -> Result<(), ReportError> {
        match result {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {
                self.is_open = false;
                Ok(())
            }
            other => other.map_err(ReportError::Unwritten),
        }
    }
}

/// Prints a dry run, which comes as one document with all its results. Whether every contact would be deleted.
pub(super) fn print_plan(output: Output, only: Option<&[Outcome]>, text: &str) -> bool {
    let whole: Value = serde_json::from_str(text).unwrap_or_default();
    let all = whole["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_wanted = |row: &&Value| only.is_none_or(|only| only.iter().any(|each| row["outcome"] == each.as_str()));
    let wanted: Vec<_> = all.iter().filter(is_wanted).cloned().collect();
    match output {
        Output::Json if only.is_none() => output::data(text),
        Output::Json => {
            let mut some = whole.clone();
            some["results"] = wanted.into();
            output::data(&some.to_string());
        }
        Output::Jsonl => wanted.iter().for_each(|row| output::data(&row.to_string())),
        Output::Table => output::data(&results_table(&wanted).to_string()),
    }
    would_delete(text) == all.len()
}

/// How many contacts a dry run would delete.
pub(super) fn would_delete(text: &str) -> usize {
    let whole: Value = serde_json::from_str(text).unwrap_or_default();
    let all = whole["results"].as_array().into_iter().flatten();
    all.filter(|row| row["outcome"] == Outcome::WouldDelete.as_str()).count()
}

/// Results as people read them.
fn results_table(results: &[Value]) -> comfy_table::Table {
    let mut table =
        output::table(&["#", "ref", "connection", "outcome", "absent", "evidence", "tries", "retry", "error"]);
    for result in results {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let absent = match &result["absent"] {
            Value::Bool(true) => "yes",
            Value::Bool(false) => "no",
            _ => "?",
        };
        let retry = match result["retry_after_s"].as_u64() {
            Some(seconds) => format!("{} {seconds} s", text(&result["retry"])),
            None => text(&result["retry"]),
        };
        table.add_row([
            Cell::new(text(&result["index"])),
            Cell::new(text(&result["ref"])),
            Cell::new(text(&result["connection"])),
            Cell::new(text(&result["outcome"])),
            Cell::new(absent),
            Cell::new(text(&result["evidence"])),
            Cell::new(text(&result["attempts"])),
            Cell::new(retry),
            Cell::new(text(&result["error"]["code"])),
        ]);
    }
    table
}

/// Sums by outcome and code, in the order in which outcomes are always shown.
fn sums_table(sums: &BTreeMap<(&'static str, String), u64>) -> comfy_table::Table {
    let mut table = output::table(&["outcome", "error", "contacts"]);
    for outcome in Outcome::ALL {
        for ((_, code), count) in sums.iter().filter(|((name, _), _)| *name == outcome.as_str()) {
            let count = Cell::new(count).set_alignment(CellAlignment::Right);
            table.add_row([Cell::new(outcome.as_str()), Cell::new(code), count]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Rc<RefCell<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    fn deletion(counts: Value) -> Deletion {
        let whole = json!({"id": "del_1", "state": "finished", "counts": counts, "results_url": "/x"});
        serde_json::from_value(whole).unwrap()
    }

    fn row(index: u64, outcome: &str, absent: Value) -> Vec<u8> {
        json!({"index": index, "outcome": outcome, "absent": absent, "error": {"code": "duplicate"}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_document_is_whole_after_a_stream_that_was_cut() {
        let page = Page::default();
        let counts = json!({"requested": 3, "deleted": 2, "skipped": 1});
        let mut report = Report::on(Box::new(page.clone()), Output::Json, None, deletion(counts));
        assert_eq!(report.filter(), None);
        report.begin().unwrap();
        report.take(&row(0, "deleted", true.into())).unwrap();
        assert!(matches!(report.take(b"{\"index\": 1, \"outco"), Err(ReportError::Unreadable)));
        assert!(!report.is_complete());
        for (index, outcome) in [(0, "deleted"), (1, "skipped"), (2, "deleted")] {
            report.take(&row(index, outcome, true.into())).unwrap();
        }
        assert!(report.is_complete());
        assert!(report.end().unwrap());
        let whole: Value = serde_json::from_str(&page.text()).unwrap();
        let indices: Vec<_> = whole["results"].as_array().unwrap().iter().map(|row| row["index"].clone()).collect();
        assert_eq!(
            (indices, &whole["id"], &whole["counts"]["deleted"]),
            (vec![0.into(), 1.into(), 2.into()], &json!("del_1"), &json!(2))
        );
        assert_eq!(report.absent(), 3);
    }

    #[test]
    fn what_cannot_belong_to_the_deletion_is_not_taken() {
        let counts = json!({"requested": 2, "deleted": 2});
        let mut report = Report::on(Box::new(Page::default()), Output::Jsonl, None, deletion(counts));
        for wrong in [&row(2, "deleted", true.into())[..], &row(0, "vanished", true.into()), b"", b"7", b"{}"] {
            assert!(matches!(report.take(wrong), Err(ReportError::Unreadable)));
        }
        assert_eq!(report.taken(), 0);
    }

    #[test]
    fn a_filter_still_learns_whether_skipped_contacts_are_absent() {
        let page = Page::default();
        let counts = json!({"requested": 4, "deleted": 1, "failed": 1, "skipped": 2});
        let only = Some(vec![Outcome::Failed]);
        let mut report = Report::on(Box::new(page.clone()), Output::Jsonl, only.clone(), deletion(counts));
        assert_eq!(report.filter().as_deref(), Some("failed,skipped"));
        report.begin().unwrap();
        for (index, outcome, absent) in
            [(1, "skipped", json!(true)), (2, "failed", json!(false)), (3, "skipped", json!(null))]
        {
            report.take(&row(index, outcome, absent)).unwrap();
        }
        assert!(report.is_complete() && report.end().unwrap());
        assert_eq!(page.text().lines().count(), 1);
        assert_eq!(report.absent(), 2);
        let none = Report::on(Box::new(page), Output::Jsonl, only, deletion(json!({"requested": 1, "deleted": 1})));
        assert!(none.is_complete(), "there is nothing to ask for");
    }

    #[test]
    fn a_large_table_is_sums() {
        let page = Page::default();
        let counts = json!({"requested": 2_001, "deleted": 1_999, "skipped": 1, "failed": 1});
        let mut report = Report::on(Box::new(page.clone()), Output::Table, None, deletion(counts));
        assert!(report.is_summary());
        assert_eq!(report.filter().as_deref(), Some("failed,skipped"));
        report.begin().unwrap();
        report.take(&row(7, "skipped", true.into())).unwrap();
        report.take(&row(9, "failed", Value::Null)).unwrap();
        assert!(report.is_complete() && report.end().unwrap());
        let text = page.text();
        let rows: Vec<Vec<_>> = text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [vec!["deleted", "1999"], vec!["failed", "duplicate", "1"], vec!["skipped", "duplicate", "1"]]
        );
        // So many that few are wanted of are rows all the same.
        let counts = json!({"requested": 2_001, "deleted": 2_000, "failed": 1});
        let report = Report::on(Box::new(page), Output::Table, Some(vec![Outcome::Failed]), deletion(counts));
        assert!(!report.is_summary());
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_error_and_a_full_disk_is_one() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let counts = json!({"requested": 2, "deleted": 1, "failed": 1});
        let on = |kind| Report::on(Box::new(Broken(kind)), Output::Jsonl, None, deletion(counts.clone()));
        let mut report = on(io::ErrorKind::BrokenPipe);
        report.take(&row(0, "deleted", true.into())).unwrap();
        report.take(&row(1, "failed", Value::Null)).unwrap();
        assert!(!report.end().unwrap() && report.is_complete());
        let full = on(io::ErrorKind::StorageFull).take(&row(0, "deleted", true.into()));
        assert!(matches!(full, Err(ReportError::Unwritten(_))));
    }
}
