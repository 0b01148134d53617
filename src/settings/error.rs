//! One mistake in the configuration: where it is, what is wrong, what would be right.
//!
//! It never holds a secret. Its source line is kept only if no secret can stand in it; `document` decides that.

use std::fmt;
use std::path::PathBuf;

/// One mistake in a file or in an environment variable. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or the name of the variable.
    pub file: PathBuf,
    /// The line, from 1; `None` for a variable, and for what stands nowhere.
    pub line: Option<usize>,
    /// The setting, as in `connections.support.stream_id`; empty if the mistake is about the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
    /// The line's text with the place in it.
    pub(super) snippet: Option<Snippet>,
}

/// Part of a source line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snippet {
    /// From the start of the line to the end of what is wrong.
    pub(super) text: String,
    /// Where in it that begins, in characters.
    pub(super) column: usize,
}

impl ConfigError {
    /// A mistake that stands in no line.
    pub(crate) fn new(file: impl Into<PathBuf>, key: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { file: file.into(), line: None, key: key.to_owned(), message: message.into(), hint, snippet: None }
    }

    /// The mistake, with its source line and a caret below where that can be shown. Several lines; no line end.
    pub fn render(&self) -> String {
        let Some(Snippet { text, column }) = &self.snippet else { return self.to_string() };
        let number = self.line.map_or_else(String::new, |line| line.to_string());
        let margin = " ".repeat(number.len());
        let carets = "^".repeat(text.chars().count().saturating_sub(*column).max(1));
        let before = " ".repeat(*column);
        format!("{self}\n  {number} | {text}\n  {margin} | {before}{carets}")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// In the order in which a person would mend them.
pub(crate) fn sort(errors: &mut [ConfigError]) {
    errors.sort_by(|a, b| (&a.file, a.line, &a.key).cmp(&(&b.file, b.line, &b.key)));
}
