//! Writing to the terminal. A reader that has gone away is no error.

use std::io::{self, Write};

use comfy_table::{LineStyle, Table, TableStyle};

/// Data, to stdout.
pub(super) fn data(text: &str) {
    // A closed pipe means that nobody wants more.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Anything else, to stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A line below the header, and no other: rows are easier to read and to search without.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// An empty table with these columns. Plain text: it is as readable in a log or a mail as on a terminal.
pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(columns.iter().copied());
    table
}
