//! Contacts from a CSV file: a header names the columns, or a single column has ids.
//!
//! It takes commas alone, holds one row at a time, and leaves no column out unless told so: a misspelt name would delete
//! other contacts than were meant, or at another connection.

use std::io::{self, Read};

use csv::{ErrorKind, StringRecord};

use super::Mistake;
use super::lines::LONGEST;
use crate::cli::delete::contact::{Contact, External};

/// The names that a header may have, with what stands in their columns.
const NAMES: [(&str, Column); 6] = [
    ("id", Column::Id),
    ("phone", Column::Phone),
    ("external_provider", Column::Provider),
    ("external_id", Column::External),
    ("ref", Column::Ref),
    ("connection", Column::Connection),
];

/// What stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Id,
    Phone,
    Provider,
    External,
    Ref,
    Connection,
    Ignored,
}

/// Which columns have names of their own.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli::delete) struct Columns {
    /// The CSV column with the native ids, if it is not called `id`
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// The CSV column with the phone numbers, if it is not called `phone`
    #[arg(long, value_name = "NAME")]
    phone_column: Option<String>,
    /// The CSV column with your own names for the contacts, if it is not called `ref`
    #[arg(long, value_name = "NAME")]
    ref_column: Option<String>,
    /// Leave out CSV columns with other names; else they are refused
    #[arg(long)]
    ignore_other_columns: bool,
}

/// Reads rows. After a mistake it is not to be asked again.
pub(super) struct Rows<R> {
    reader: csv::Reader<Rectified<R>>,
    named: Columns,
    /// `None` until the first row was read.
    columns: Option<Vec<Column>>,
    record: StringRecord,
}

impl<R: Read> Rows<R> {
    pub(super) fn new(reader: R, named: Columns) -> Self {
        let mut builder = csv::ReaderBuilder::new();
        // All rows have as many cells as the first one, or that is a mistake.
        let reader = builder.has_headers(false).from_reader(Rectified::new(reader));
        Self { reader, named, columns: None, record: StringRecord::new() }
    }

    /// The next contact and the number of the line where its row begins, from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Contact)>, Mistake> {
        loop {
            self.reader.get_mut().left = LONGEST;
            let read = self.reader.read_record(&mut self.record);
            // The reader knows where a row ends: behind a line feed. Blank lines are not taken for its beginning.
            let within: usize = self.record.iter().map(|cell| cell.matches('\n').count()).sum();
            let line = self.reader.position().line().saturating_sub(1 + within as u64);
            if !read.map_err(|err| explain(err, line))? {
                return Ok(None);
            }
            let wrong = |text: &str| Mistake::at(line, text);
            let columns = match &self.columns {
                Some(columns) => columns,
                None => match header(&self.record, &self.named).map_err(|text| wrong(&text))? {
                    Some(columns) => {
                        self.columns = Some(columns);
                        continue;
                    }
                    None => self.columns.insert(vec![Column::Id]),
                },
            };
            return Ok(Some((line, contact(&self.record, columns).map_err(wrong)?)));
        }
    }
}

/// The columns that a first row names; `None` if it is no header but an id.
///
/// A name is repeated in a mistake only where another one is known: else the row may be data.
fn header(record: &StringRecord, named: &Columns) -> Result<Option<Vec<Column>>, String> {
    let mut names = NAMES.map(|(name, column)| (name.to_owned(), column));
    let own = [(Column::Id, &named.id_column), (Column::Phone, &named.phone_column), (Column::Ref, &named.ref_column)];
    for (column, name) in own.iter().filter_map(|(column, name)| Some((*column, name.as_ref()?))) {
        names.iter_mut().filter(|known| known.1 == column).for_each(|known| known.0 = name.trim().to_owned());
    }
    let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    let find = |cell: &str| names.iter().find(|(name, _)| same(name, cell)).map(|(_, column)| *column);
    let columns: Vec<_> = record.iter().map(|cell| find(cell.trim())).collect();
    if columns.iter().all(Option::is_none) {
        let has_own = own.iter().any(|(_, name)| name.is_some());
        let cell = record.get(0).unwrap_or_default();
        return match record.len() {
            1 if cell.contains([';', '\t']) => Err("has columns that are not separated by commas".to_owned()),
            1 if !has_own => Ok(None),
            _ => {
                let known = names.map(|(name, _)| name).join(", ");
                Err(format!("is no header: it names none of {known} (another name: --id-column NAME and the like)"))
            }
        };
    }
    for (column, name) in own.iter().filter_map(|(column, name)| Some((*column, name.as_ref()?))) {
        if !columns.contains(&Some(column)) {
            return Err(format!("names no column {name}"));
        }
    }
    for (n, (column, cell)) in columns.iter().zip(record.iter().map(str::trim)).enumerate() {
        match column {
            Some(column) if columns[..n].contains(&Some(*column)) => return Err(format!("names {cell} twice")),
            None if !named.ignore_other_columns => {
                return Err(format!(
                    "names a column that is not known: {cell:?} (leave such columns out with --ignore-other-columns)"
                ));
            }
            _ => {}
        }
    }
    Ok(Some(columns.into_iter().map(|column| column.unwrap_or(Column::Ignored)).collect()))
}

/// A row as a contact. An empty cell says nothing.
fn contact(record: &StringRecord, columns: &[Column]) -> Result<Contact, &'static str> {
    let mut contact = Contact::default();
    let (mut provider, mut external) = (None, None);
    let cells = record.iter().map(str::trim);
    for (cell, column) in cells.zip(columns).filter(|(cell, _)| !cell.is_empty()) {
        let place = match column {
            Column::Id => &mut contact.id,
            Column::Phone => &mut contact.phone,
            Column::Provider => &mut provider,
            Column::External => &mut external,
            Column::Ref => &mut contact.r#ref,
            Column::Connection => &mut contact.connection,
            Column::Ignored => continue,
        };
        *place = Some(cell.to_owned());
    }
    contact.external = match (provider, external) {
        (Some(provider), Some(id)) => Some(External { provider, id }),
        (None, None) => None,
        _ => return Err("has only one of external_provider and external_id"),
    };
    contact.checked()
}

fn explain(err: csv::Error, line: u64) -> Mistake {
    match err.into_kind() {
        ErrorKind::Io(err) => Mistake::unread(err),
        ErrorKind::Utf8 { .. } => Mistake::at(line, "is not UTF-8"),
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Mistake::at(line, &format!("has {len} cells, the first row has {expected_len}"))
        }
        _ => Mistake::at(line, "cannot be read as CSV"),
    }
}

/// A reader in which every line ends with a line feed, also the last one: else lines could not be counted.
///
/// It ends with an error where a row does not end: a quote that is never closed would take in all the rest.
struct Rectified<R> {
    reader: R,
    /// So many bytes may be read until the next row.
    left: usize,
    /// A carriage return that may belong to a line feed.
    returned: bool,
    last: u8,
}

impl<R> Rectified<R> {
    fn new(reader: R) -> Self {
        Self { reader, left: LONGEST, returned: false, last: b'\n' }
    }
}

impl<R: Read> Read for Rectified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("a row is longer than 64 KiB; is a quote not closed?"));
        }
        // There has to be room for a carriage return that was held back.
        let most = buffer.len().saturating_sub(1).min(self.left);
        let mut raw = vec![0; most];
        loop {
            let read = self.reader.read(&mut raw)?;
            self.left = self.left.saturating_sub(read);
            let mut written = 0;
            let mut write = |byte| {
                buffer[written] = byte;
                written += 1;
            };
            for byte in &raw[..read] {
                if std::mem::replace(&mut self.returned, *byte == b'\r') && *byte != b'\n' {
                    write(b'\r');
                }
                if *byte != b'\r' {
                    write(*byte);
                }
            }
            if read == 0 && self.last != b'\n' {
                write(b'\n');
            }
            self.last = if written > 0 { buffer[written - 1] } else { self.last };
            if written > 0 || read == 0 {
                return Ok(written);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(text: &[u8], named: &Columns) -> Result<Vec<(u64, String)>, String> {
        let mut rows = Rows::new(text, named.clone());
        let mut all = Vec::new();
        while let Some((number, contact)) = rows.next().map_err(|mistake| mistake.to_string())? {
            all.push((number, contact.line()));
        }
        Ok(all)
    }

    fn read(text: &str) -> Result<Vec<(u64, String)>, String> {
        read_with(text.as_bytes(), &Columns::default())
    }

    fn lines(text: &str) -> Vec<String> {
        read(text).unwrap().into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn a_header_names_the_columns_in_any_case_and_order() {
        let text = "\u{feff}Ref, ID ,phone,External_Provider,external_id,CONNECTION\r\n\
                    r-1,17,,,,\r\n\
                    ,,+14155550100,,,lists\r\n\
                    \"a, \"\"b\"\"\",,,salesforce,003D,\r\n";
        let expected = [
            (2, r#"{"id":"17","ref":"r-1"}"#.to_owned()),
            (3, r#"{"phone":"+14155550100","connection":"lists"}"#.to_owned()),
            (4, r#"{"external":{"provider":"salesforce","id":"003D"},"ref":"a, \"b\""}"#.to_owned()),
        ];
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn one_column_without_a_known_name_is_ids() {
        assert_eq!(lines("17\n18\r\n\n19"), [r#"{"id":"17"}"#, r#"{"id":"18"}"#, r#"{"id":"19"}"#]);
        assert_eq!(lines("\u{feff}17\n"), [r#"{"id":"17"}"#]);
        assert_eq!(lines("Id\n17\n"), [r#"{"id":"17"}"#]);
        assert_eq!(lines(""), [""; 0]);
    }

    #[test]
    fn columns_can_have_other_names_and_others_can_be_left_out() {
        let named = Columns {
            id_column: Some("customerid".to_owned()),
            ref_column: Some("Row".to_owned()),
            ignore_other_columns: true,
            ..Columns::default()
        };
        let text = "id,CustomerID,row,city\nx,17,r-1,Rome\n";
        assert_eq!(read_with(text.as_bytes(), &named).unwrap(), [(2, r#"{"id":"17","ref":"r-1"}"#.to_owned())]);
        let strict = Columns { ignore_other_columns: false, ..named.clone() };
        assert!(read_with(text.as_bytes(), &strict).unwrap_err().contains("\"id\""));
        assert!(read_with(b"id,row\n1,2\n", &named).unwrap_err().contains("names no column customerid"));
        assert!(read_with(b"17\n", &named).unwrap_err().contains("line 1 is no header"));
    }

    #[test]
    fn a_mistake_names_its_line_and_no_identifier() {
        for (text, expected) in [
            ("id,phone\n4711,+4711\n", "line 2 names more than one of id, phone, external"),
            ("id,ref\n1,a\n,4711\n", "line 3 names no contact"),
            ("id,ref\n1,a\n4711\n", "line 3 has 1 cells, the first row has 2"),
            ("id,ref\n\n\n4711\n", "line 4 has 1 cells, the first row has 2"),
            ("id,ref\n\"1\n2\",a\n4711\n", "line 4 has 1 cells"),
            ("id,ref\r\n1,a\r\n\r\n4711\r\n", "line 4 has 1 cells"),
            ("id,ref\n1,\"a\r\n\"\n\n,4711", "line 5 names no contact"),
            ("id,ID\n4711,1\n", "line 1 names ID twice"),
            ("id,colour\n4711,red\n", "line 1 names a column that is not known: \"colour\""),
            ("4711,4712\n", "line 1 is no header"),
            ("4711;4712\n", "line 1 has columns that are not separated by commas"),
            ("external_provider,external_id\n4711,\n", "line 2 has only one of"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.starts_with(expected) && !found.contains("4711"), "{text}: {found}");
        }
        assert_eq!(read_with(b"id\n\xff\n", &Columns::default()).unwrap_err(), "line 2 is not UTF-8");
    }

    #[test]
    fn a_quote_that_is_never_closed_is_not_read_into_memory() {
        let text = b"id\n\"".chain(io::repeat(b'x'));
        let mut rows = Rows::new(text, Columns::default());
        assert!(rows.next().unwrap_err().to_string().contains("64 KiB"));
    }
}
