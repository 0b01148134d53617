//! A TOML file with its spans, read table by table; whatever is wrong is put down with its line.
//!
//! It knows no setting. It keeps secrets out of what is shown: a source line with one is never quoted.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Snippet};
use super::nearest::did_you_mean;

/// A file and the mistakes found in it so far.
#[derive(Debug)]
pub(crate) struct Document<'d> {
    file: &'d Path,
    text: &'d str,
    /// Values that may be secrets: no line that shows a part of one is quoted.
    hidden: Vec<Range<usize>>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'d> Document<'d> {
    /// Reads a file's text. Without a table if it is no TOML, which is then already put down; `quotable` are the keys
    /// whose line may be quoted even so, when nobody knows which table they are in.
    pub(crate) fn parse(file: &'d Path, text: &'d str, quotable: &[&str]) -> (Self, Option<DeTable<'d>>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self { file, text, hidden: Vec::new(), errors: RefCell::default() };
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let mut error =
                document.error(Some(span.clone()), "", error.message().trim_end_matches(", expected nothing"), None);
            if !document.is_quotable(span.start, quotable) {
                error.snippet = None;
            }
            document.push(error);
        }
        if !errors.is_empty() {
            // One slip often has several consequences in its line; the first is it.
            let mut errors = document.errors.borrow_mut();
            errors.sort_by_key(|error| error.line);
            errors.dedup_by_key(|error| error.line);
            drop(errors);
            return (document, None);
        }
        let root = root.into_inner();
        hide(&root, false, &mut document.hidden);
        (document, Some(root))
    }

    /// Puts a mistake down.
    pub(crate) fn push(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
    }

    /// Every mistake found.
    pub(crate) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    /// The file.
    pub(crate) fn file(&self) -> &'d Path {
        self.file
    }

    fn error(&self, span: Option<Range<usize>>, key: &str, message: &str, hint: Option<String>) -> ConfigError {
        let mut error = ConfigError::new(self.file, key, message, hint);
        if let Some(span) = span {
            let before = self.text.get(..span.start).unwrap_or(self.text);
            error.line = Some(before.matches('\n').count() + 1);
            error.snippet = self.snippet(key, &span);
        }
        error
    }

    /// The line in which a span starts, up to the span's end: what follows is not at fault.
    fn snippet(&self, key: &str, span: &Range<usize>) -> Option<Snippet> {
        let start = self.line_start(span.start);
        let line_end = self.text.get(start..)?.find('\n').map_or(self.text.len(), |length| start + length);
        let end = span.end.clamp(span.start, line_end.max(span.start));
        let secret = self.hidden.iter().any(|hidden| hidden.start < end && hidden.end > start);
        if secret || key.split('.').any(|part| part == "credentials") {
            return None;
        }
        let column = self.text.get(start..span.start)?.chars().count();
        let text = self.text.get(start..end)?.trim_end_matches('\r');
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(Snippet { text, column })
    }

    fn line_start(&self, position: usize) -> usize {
        self.text.get(..position).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1)
    }

    /// Whether a line of a file that is no TOML may be quoted: it is a header, or sets one of these keys.
    fn is_quotable(&self, position: usize, quotable: &[&str]) -> bool {
        let line = self.text.get(self.line_start(position)..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let key = line.split('=').next().unwrap_or_default().trim();
        let key = key.rsplit('.').next().unwrap_or_default();
        let suspicious = ["credentials", "plain:", "@"].iter().any(|word| line.contains(word));
        !suspicious && (key.starts_with('[') || quotable.contains(&key))
    }
}

/// Notes the places of values that may be secrets, by their key or their looks.
fn hide(table: &DeTable<'_>, inside: bool, hidden: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let key = key.get_ref().to_ascii_lowercase();
        let secret = ["credential", "secret", "password", "token", "jwt", "sha256"].iter().any(|w| key.contains(w));
        // A store's URL may have a password in it.
        hide_value(value, inside || secret || key == "url", hidden);
    }
}

fn hide_value(value: &Spanned<DeValue<'_>>, inside: bool, hidden: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => hide(table, inside, hidden),
        DeValue::Array(items) => items.iter().for_each(|item| hide_value(item, inside, hidden)),
        // A URL may have a password, or a query with a token.
        DeValue::String(text) if ["plain:", "@", "?"].iter().any(|mark| text.contains(mark)) => {
            hidden.push(value.span());
        }
        _ if inside => hidden.push(value.span()),
        _ => {}
    }
}

/// A table of a file.
#[derive(Debug, Clone)]
pub(crate) struct Table<'d> {
    document: &'d Document<'d>,
    entries: &'d DeTable<'d>,
    /// Its name from the root, empty for the root.
    path: String,
    /// Where it is named; the root is nowhere.
    place: Option<Range<usize>>,
}

impl<'d> Table<'d> {
    /// The whole file.
    pub(crate) fn root(document: &'d Document<'d>, entries: &'d DeTable<'d>) -> Self {
        Self { document, entries, path: String::new(), place: None }
    }

    /// Its fields, by name.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field<'d>> {
        self.entries.iter().map(|(key, value)| self.of(key, value))
    }

    fn of(&self, key: &'d Spanned<Cow<'d, str>>, value: &'d Spanned<DeValue<'d>>) -> Field<'d> {
        Field {
            document: self.document,
            name: key.get_ref(),
            key: self.key(key.get_ref()),
            place: key.span(),
            value: value.get_ref(),
            span: value.span(),
        }
    }

    /// The field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<Field<'d>> {
        self.entries.get_key_value(name).map(|(key, value)| self.of(key, value))
    }

    /// The field with this name; that it is missing is put down.
    pub(crate) fn demand(&self, name: &str) -> Option<Field<'d>> {
        let field = self.field(name);
        if field.is_none() {
            self.refuse(name, "is missing", None);
        }
        field
    }

    /// The file that it is in.
    pub(crate) fn file(&self) -> &'d Path {
        self.document.file()
    }

    /// Puts down a mistake about a field that is not there; about the table itself, if `name` is empty.
    pub(crate) fn refuse(&self, name: &str, message: &str, hint: Option<String>) {
        let key = if name.is_empty() { self.path.clone() } else { self.key(name) };
        self.document.push(self.document.error(self.place.clone(), &key, message, hint));
    }

    /// Puts down every field that is none of those known.
    pub(crate) fn refuse_unknown(&self, known: &[&str]) {
        for field in self.fields().filter(|field| !known.contains(&field.name)) {
            field.refuse_name(known.iter().copied());
        }
    }

    fn key(&self, name: &str) -> String {
        let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let name = if bare { Cow::Borrowed(name) } else { Cow::Owned(format!("{name:?}")) };
        if self.path.is_empty() { name.into_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// A field of a table.
#[derive(Debug, Clone)]
pub(crate) struct Field<'d> {
    document: &'d Document<'d>,
    /// Its name in its table.
    pub(crate) name: &'d str,
    /// Its name from the root.
    key: String,
    place: Range<usize>,
    /// Its value.
    pub(crate) value: &'d DeValue<'d>,
    span: Range<usize>,
}

impl<'d> Field<'d> {
    /// Puts down that the value is wrong. Neither text may repeat a value that can be secret.
    pub(crate) fn refuse(&self, message: &str, hint: Option<String>) {
        // A table's own span is its header, or all of it in braces: its name says enough.
        let span = if self.value.is_table() { &self.place } else { &self.span };
        self.document.push(self.document.error(Some(span.clone()), &self.key, message, hint));
    }

    /// Puts down that the name is wrong, and how.
    pub(crate) fn refuse_key(&self, message: &str, hint: Option<String>) {
        self.document.push(self.document.error(Some(self.place.clone()), &self.key, message, hint));
    }

    /// Puts down that the name is not known.
    pub(crate) fn refuse_name<'k>(&self, known: impl IntoIterator<Item = &'k str>) {
        self.refuse_key("is not known", did_you_mean(self.name, known));
    }

    /// The value as text.
    pub(crate) fn text(&self) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.refuse("must be text, in quotes", None);
        }
        text
    }

    /// The value as true or false.
    pub(crate) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.refuse("must be true or false, without quotes", None);
        }
        flag
    }

    /// The value as a whole number within limits.
    pub(crate) fn whole(&self, least: u64, most: u64) -> Option<u64> {
        let Some(digits) = self.value.as_integer() else {
            self.refuse("must be a whole number, without quotes", None);
            return None;
        };
        let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.refuse(&range(least, most), None);
        }
        number
    }

    /// The value as a table.
    pub(crate) fn table(&self) -> Option<Table<'d>> {
        let Some(entries) = self.value.as_table() else {
            self.refuse("must be a table", None);
            return None;
        };
        Some(Table { document: self.document, entries, path: self.key.clone(), place: Some(self.place.clone()) })
    }

    /// The value as a list, each with its number from 1 in its name.
    pub(crate) fn items(&self) -> Option<Vec<Field<'d>>> {
        let Some(items) = self.value.as_array() else {
            self.refuse("must be a list, in square brackets", None);
            return None;
        };
        let items = items.iter().zip(1..).map(|(value, number)| Field {
            key: format!("{}[{number}]", self.key),
            place: value.span(),
            value: value.get_ref(),
            span: value.span(),
            ..self.clone()
        });
        Some(items.collect())
    }
}

/// The rule for a number, in words.
pub(crate) fn range(least: u64, most: u64) -> String {
    if most == i64::MAX as u64 { format!("must be {least} or more") } else { format!("must be from {least} to {most}") }
}
