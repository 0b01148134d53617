//! The contacts of a deletion: from arguments, then from a file or from standard input.
//!
//! A file is read as a stream, as often as it is needed, and never held; what can be read only once is held. Contacts come
//! out as the lines that are sent. It does not send them.

mod lines;
mod rows;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use self::lines::Lines;
pub(super) use self::rows::Columns;
use self::rows::Rows;
use super::contact::Contact;

/// Where contacts come from.
#[derive(Clone)]
pub(super) struct Source {
    /// Those of the arguments, as lines.
    given: Vec<String>,
    rest: Rest,
    /// What the digest covers besides the contacts.
    options: String,
}

#[derive(Clone)]
enum Rest {
    Nothing,
    /// A regular file, which can be read again.
    File(PathBuf, Columns),
    /// Lines of something that can be read only once, with its name.
    Held(String, Bytes),
}

/// What a first look at all contacts found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) count: u64,
    /// The length of all lines together.
    pub(super) bytes: u64,
    /// SHA-256 over all lines and the options, in hex: the same for the same deletion.
    pub(super) digest: String,
}

/// What is wrong in a file. It repeats no identifier.
#[derive(Debug)]
pub(super) struct Mistake(String);

/// Counts lines and hashes them.
pub(super) struct Tally {
    context: Context,
    count: u64,
    bytes: u64,
}

/// All contacts of a source as lines, one after the other; ends with the first mistake.
pub(super) struct Contacts {
    given: std::vec::IntoIter<String>,
    reader: Reader,
    /// What mistakes name.
    file: String,
    /// The line of the contact that came last; `None` for those of the arguments.
    line: Option<u64>,
}

enum Reader {
    Nothing,
    Lines(Box<Lines<BufReader<Plain>>>),
    Rows(Box<Rows<Plain>>),
}

/// A file or memory. `Sync`, because a request's body has to be.
type Plain = Box<dyn Read + Send + Sync>;

impl Source {
    /// Contacts of the arguments and of a file; `-` is standard input, of which no more than `max` contacts are held.
    pub(super) fn new(
        given: impl IntoIterator<Item = Contact>,
        file: Option<&Path>,
        columns: &Columns,
        options: String,
        max: u64,
    ) -> Result<Self, Mistake> {
        let given: Vec<_> = given.into_iter().map(|contact| contact.line()).collect();
        let left = max.saturating_sub(given.len() as u64);
        let rest = match file {
            None => Rest::Nothing,
            Some(file) if file.as_os_str() == "-" => {
                let name = "standard input".to_owned();
                let held = hold(reader(Box::new(io::stdin()), false, columns), &name, left, max)?;
                Rest::Held(name, held)
            }
            Some(path) => {
                let name = path.display().to_string();
                let unread = |err| Mistake(format!("{name}: {err}"));
                let file = File::open(path).map_err(unread)?;
                if file.metadata().map_err(unread)?.is_file() {
                    Rest::File(path.to_owned(), columns.clone())
                } else {
                    Rest::Held(name.clone(), hold(reader(Box::new(file), is_csv(path), columns), &name, left, max)?)
                }
            }
        };
        Ok(Self { given, rest, options })
    }

    /// The file, if it can be read again.
    pub(super) fn file(&self) -> Option<&Path> {
        match &self.rest {
            Rest::File(path, _) => Some(path),
            _ => None,
        }
    }

    /// All contacts, from the first one on.
    pub(super) fn read(&self) -> Result<Contacts, Mistake> {
        let (reader, file) = match &self.rest {
            Rest::Nothing => (Reader::Nothing, String::new()),
            Rest::Held(name, lines) => {
                (reader(Box::new(Cursor::new(lines.clone())), false, &Columns::default()), name.clone())
            }
            Rest::File(path, columns) => {
                let name = path.display().to_string();
                let file = File::open(path).map_err(|err| Mistake(format!("{name}: {err}")))?;
                (reader(Box::new(file), is_csv(path), columns), name)
            }
        };
        Ok(Contacts { given: self.given.clone().into_iter(), reader, file, line: None })
    }

    /// Reads all contacts once: whether they are sound, how many, and their digest.
    pub(super) fn survey(&self) -> Result<Survey, Mistake> {
        let mut tally = self.tally();
        for line in self.read()? {
            tally.add(&line?);
        }
        Ok(tally.survey())
    }

    /// A tally of this source's contacts, before the first of them.
    pub(super) fn tally(&self) -> Tally {
        let mut context = Context::new(&SHA256);
        context.update(self.options.as_bytes());
        context.update(b"\n");
        Tally { context, count: 0, bytes: 0 }
    }

    /// Where a contact stands, for mistakes that the gateway finds; `index` counts from 0.
    pub(super) fn place(&self, index: u64) -> Option<String> {
        if !matches!(self.rest, Rest::File(..)) {
            return None;
        }
        let mut contacts = self.read().ok()?;
        contacts.nth(usize::try_from(index).ok()?)?.ok()?;
        Some(format!("{}, line {}", contacts.file, contacts.line?))
    }
}

impl Tally {
    /// Takes in the next line.
    pub(super) fn add(&mut self, line: &str) {
        self.context.update(line.as_bytes());
        self.context.update(b"\n");
        self.count += 1;
        self.bytes += line.len() as u64 + 1;
    }

    /// So many lines.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What it comes to.
    pub(super) fn survey(self) -> Survey {
        let digest = self.context.finish();
        let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Survey { count: self.count, bytes: self.bytes, digest }
    }
}

impl Iterator for Contacts {
    type Item = Result<String, Mistake>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(line) = self.given.next() {
            return Some(Ok(line));
        }
        match self.reader.next() {
            Ok(Some((line, contact))) => {
                self.line = Some(line);
                Some(Ok(contact.line()))
            }
            Ok(None) => None,
            Err(mistake) => {
                self.reader = Reader::Nothing;
                Some(Err(mistake.of(&self.file)))
            }
        }
    }
}

impl Reader {
    fn next(&mut self) -> Result<Option<(u64, Contact)>, Mistake> {
        match self {
            Self::Nothing => Ok(None),
            Self::Lines(lines) => lines.next(),
            Self::Rows(rows) => rows.next(),
        }
    }
}

impl Mistake {
    fn at(line: u64, text: &str) -> Self {
        Self(format!("line {line} {text}"))
    }

    fn unread(err: io::Error) -> Self {
        Self(err.to_string())
    }

    fn of(self, file: &str) -> Self {
        Self(format!("{file}: {}", self.0))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn reader(from: Plain, csv: bool, columns: &Columns) -> Reader {
    if csv {
        return Reader::Rows(Box::new(Rows::new(from, columns.clone())));
    }
    Reader::Lines(Box::new(Lines::new(BufReader::with_capacity(64 * 1024, from))))
}

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// Takes contacts into memory, and gives up as soon as there are more than may be sent anyway.
fn hold(mut reader: Reader, name: &str, left: u64, max: u64) -> Result<Bytes, Mistake> {
    let (mut held, mut count) = (Vec::new(), 0);
    while let Some((_, contact)) = reader.next().map_err(|mistake| mistake.of(name))? {
        count += 1;
        if count > left {
            return Err(Mistake(format!("more contacts than --max {max}; nothing was sent")));
        }
        held.extend_from_slice(contact.line().as_bytes());
        held.push(b'\n');
    }
    Ok(held.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str, options: &str) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let given = [Contact::by_id("0")];
        let source = Source::new(given, Some(&path), &Columns::default(), options.to_owned(), 10).unwrap();
        (folder, source)
    }

    #[test]
    fn the_same_contacts_in_another_form_have_the_same_digest() {
        let (_a, text) = source("ids.txt", "1\n\n2\n", "{}");
        let (_b, json) = source("contacts.jsonl", "{\"id\": 1}\r\n\"2\"", "{}");
        let (_c, csv) = source("ids.CSV", "id\n1\n2\n", "{}");
        let survey = text.survey().unwrap();
        assert_eq!((survey.count, survey.digest.len()), (3, 64));
        assert_eq!(survey.bytes, (3 * "{\"id\":\"0\"}\n".len()) as u64);
        assert_eq!([json.survey().unwrap(), csv.survey().unwrap()], [survey.clone(), survey.clone()]);
        assert_eq!(text.survey().unwrap(), survey, "it cannot be read again");
        let (_d, others) = source("ids.txt", "2\n1\n", "{}");
        let (_e, options) = source("ids.txt", "1\n2\n", "{\"reason\":\"x\"}");
        assert_ne!(others.survey().unwrap().digest, survey.digest);
        assert_ne!(options.survey().unwrap().digest, survey.digest);
    }

    #[test]
    fn mistakes_and_places_name_file_and_line() {
        let (_folder, source) = source("contacts.jsonl", "1\n\n{\"id\": 2}\n{\"ref\": 3}\n", "{}");
        assert_eq!(source.place(0), None, "it is an argument");
        assert!(source.place(2).unwrap().ends_with("contacts.jsonl, line 3"));
        assert_eq!(source.place(3), None);
        let text = source.survey().unwrap_err().to_string();
        assert!(text.contains("contacts.jsonl: line 4 is not a contact"), "{text}");
    }

    #[test]
    fn no_more_is_held_than_may_be_sent() {
        let endless =
            || reader(Box::new(io::repeat(b'\n').take(9).chain(Repeated(b"7\n"))), false, &Columns::default());
        let text = hold(endless(), "standard input", 1000, 2000).unwrap_err().to_string();
        assert!(text.contains("--max 2000"), "{text}");
    }

    /// The same bytes for ever.
    struct Repeated(&'static [u8]);

    impl Read for Repeated {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            Ok(n)
        }
    }
}
