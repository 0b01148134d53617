//! A text that a caller wrote: kept in place where it is short, as most identifiers are.

use std::fmt;
use std::ops::Deref;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// A short text. Up to 24 bytes (on machines of 64 bits) need no place of their own in memory, so that many contacts cost no
/// more allocations than one. It can be personal data, so `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(CompactString);

impl Deref for Text {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    #[inline]
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was_however_long_and_is_never_printed() {
        for text in ["", "7", "6960cbe9b155d194e2f00001", "91c615e3-1040-4815-8ecb-00000000000a", "\u{1f40c}é"] {
            let (kept, owned) = (Text::from(text), Text::from(text.to_owned()));
            assert_eq!((&*kept, &*owned), (text, text));
            assert_eq!(format!("{kept:?}"), "…");
            let json = serde_json::to_string(&kept).unwrap();
            assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), owned);
        }
    }
}
