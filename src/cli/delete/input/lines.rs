//! Contacts from lines: JSON Lines, or one id a line, or both mixed.
//!
//! It holds one line at a time and does not read beyond [`LONGEST`].

use std::io::{BufRead, Read};

use super::Mistake;
use crate::cli::delete::contact::Contact;

/// The longest line or row, in bytes. A file without line ends must not be read into memory.
pub(super) const LONGEST: usize = 64 * 1024;

/// What stands before the first line of some files.
pub(super) const BOM: &str = "\u{feff}";

/// Reads lines. After a mistake it is not to be asked again.
pub(super) struct Lines<R> {
    reader: R,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, number: 0, buffer: Vec::new() }
    }

    /// The next contact and the number of its line, from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Contact)>, Mistake> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let mut part = self.reader.by_ref().take(LONGEST as u64 + 1);
            if part.read_until(b'\n', &mut self.buffer).map_err(Mistake::unread)? == 0 {
                return Ok(None);
            }
            let wrong = |text: &str| Mistake::at(self.number, text);
            if self.buffer.len() > LONGEST {
                return Err(wrong("is longer than 64 KiB"));
            }
            let text = str::from_utf8(&self.buffer).map_err(|_| wrong("is not UTF-8"))?;
            let text = if self.number == 1 { text.strip_prefix(BOM).unwrap_or(text) } else { text };
            let contact = match text.trim() {
                "" => continue,
                json if json.starts_with(['{', '"']) => Contact::parse(json).map_err(wrong)?,
                list if list.starts_with('[') => return Err(wrong("begins a list: give one contact a line")),
                id => Contact::by_id(id),
            };
            return Ok(Some((self.number, contact)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<(u64, String)>, String> {
        let mut lines = Lines::new(text);
        let mut all = Vec::new();
        while let Some((number, contact)) = lines.next().map_err(|mistake| mistake.to_string())? {
            all.push((number, contact.line()));
        }
        Ok(all)
    }

    #[test]
    fn json_and_ids_are_read_with_any_line_ends() {
        let text = "\u{feff}a1\r\n\r\n  {\"id\": 7, \"ref\": \"r\"} \n\t\n\"b 2\"\n42";
        let expected = [
            (1, r#"{"id":"a1"}"#.to_owned()),
            (3, r#"{"id":"7","ref":"r"}"#.to_owned()),
            (5, r#"{"id":"b 2"}"#.to_owned()),
            (6, r#"{"id":"42"}"#.to_owned()),
        ];
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(read("\u{feff}\n \n".as_bytes()).unwrap(), []);
    }

    #[test]
    fn a_mistake_names_its_line() {
        for (text, expected) in [
            (b"1\n\n{\"id\": 1\n".to_vec(), "line 3 is not JSON"),
            (b"1\n\xff\xfe\n".to_vec(), "line 2 is not UTF-8"),
            (b"[\n1\n]".to_vec(), "line 1 begins a list: give one contact a line"),
            ([&b"1\n"[..], &vec![b'x'; LONGEST + 1]].concat(), "line 2 is longer than 64 KiB"),
        ] {
            assert_eq!(read(&text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_file_without_line_ends_is_not_read_into_memory() {
        let mut lines = Lines::new(std::io::BufReader::new(std::io::repeat(b'x')));
        assert!(lines.next().is_err());
        assert!(lines.buffer.capacity() <= 4 * LONGEST);
    }
}
