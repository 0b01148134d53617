//! Reads and writes JSON that is plain, as nearly all is that programs send each other: flat, and with no escape in a text.
//!
//! Long lists are read with it, since it costs a fraction of what serde does. It judges nothing: whatever it does not
//! know, be it right or wrong JSON, ends it with `None`, and who asked then has all of it read by serde. So what it does
//! read must mean to serde what it means here.

use crate::contract::Target;

/// `{"…":["…",…]}`: the ids of some contacts under a name that needs no escape. Ids of this size cost the least.
pub(crate) fn list_of_ids<const SIZE: usize>(name: &str, targets: &[Target]) -> Vec<u8> {
    let mut body = Vec::with_capacity(name.len() + 8 + (SIZE + 3) * targets.len());
    body.extend_from_slice(b"{\"");
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(b"\":[");
    for (target, n) in targets.iter().zip(0..) {
        if n > 0 {
            body.push(b',');
        }
        let id = target.identifier.text();
        match <&[u8; SIZE]>::try_from(id.as_bytes()) {
            // With no way out in between, so that a processor looks at many at once.
            Ok(bytes) if !bytes.iter().fold(false, |any, b| any | is_special(*b)) => {
                body.push(b'"');
                body.extend_from_slice(bytes);
                body.push(b'"');
            }
            _ => {
                if serde_json::to_writer(&mut body, id).is_err() {
                    // Writing texts into memory has no way to fail; an empty body would be refused by the upstream.
                    return Vec::new();
                }
            }
        }
    }
    body.extend_from_slice(b"]}");
    body
}

/// What ends a text, and what must be escaped in one (RFC 8259, section 7).
#[inline]
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < b' ')
}

/// The place in a text up to which it was read.
pub struct Plain<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Plain<'t> {
    /// At the start.
    pub fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// An object. `each` is given the name of every member and must read its value.
    #[inline]
    pub fn members(&mut self, mut each: impl FnMut(&mut Self, &'t str) -> Option<()>) -> Option<()> {
        self.list(b'{', b'}', |json| {
            let name = json.text()?;
            json.sign(b':')?;
            each(json, name)
        })
    }

    /// An array. `each` must read an item; returned is how many there were.
    #[inline]
    pub fn items(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<u64> {
        let mut count = 0;
        self.list(b'[', b']', |json| {
            count += 1;
            each(json)
        })?;
        Some(count)
    }

    /// A text.
    #[inline]
    pub fn text(&mut self) -> Option<&'t str> {
        self.sign(b'"')?;
        let left = self.text.as_bytes().get(self.at..)?;
        let length = ordinary(left).filter(|length| left.get(*length) == Some(&b'"'))?;
        let text = self.text.get(self.at..self.at + length)?;
        self.at += length + 1;
        Some(text)
    }

    /// A whole number that is not negative and has 18 digits at most.
    pub fn number(&mut self) -> Option<u64> {
        self.peek()?;
        let start = self.at;
        while self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let digits = self.text.get(start..self.at)?;
        // No number starts with a zero but zero itself.
        let whole = (digits == "0" || !digits.starts_with('0')) && digits.len() <= 18;
        whole.then(|| digits.parse().ok())?
    }

    /// A text, a number or one of the three words, whatever it is.
    pub fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => drop(self.text()?),
            b'0'..=b'9' => drop(self.number()?),
            _ => {
                let left = self.text.get(self.at..)?;
                self.at += ["true", "false", "null"].into_iter().find(|word| left.starts_with(word))?.len();
            }
        }
        Some(())
    }

    /// Nothing comes any more.
    pub fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    #[inline]
    fn list(&mut self, open: u8, close: u8, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.sign(open)?;
        if self.peek()? == close {
            return self.sign(close);
        }
        loop {
            each(self)?;
            match self.next()? {
                b',' => {}
                next if next == close => return Some(()),
                _ => return None,
            }
        }
    }

    /// This sign comes next.
    #[inline]
    fn sign(&mut self, sign: u8) -> Option<()> {
        (self.next()? == sign).then_some(())
    }

    /// Reads what comes next and is no blank.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    /// What comes next and is no blank.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        match *self.text.as_bytes().get(self.at)? {
            next if next > b' ' => Some(next),
            _ => self.peek_behind_blanks(),
        }
    }

    /// Blanks (RFC 8259, section 2) are rare between what programs write for each other.
    #[cold]
    #[inline(never)]
    fn peek_behind_blanks(&mut self) -> Option<u8> {
        let blanks = self.text.as_bytes().get(self.at..)?.iter();
        self.at += blanks.take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.text.as_bytes().get(self.at).copied()
    }
}

/// How many bytes come before the first one that ends a text or that no plain text has; `None` if there is none.
#[inline]
fn ordinary(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (eights, last) = bytes.as_chunks::<8>();
    for (eight, n) in eights.iter().zip(0..) {
        // Eight at a time, as one number: what is taken from a byte that is too small for it shows in that byte's highest bit.
        // It may also show in bytes behind it, so only the first counts.
        let eight = u64::from_le_bytes(*eight);
        let quotes = (eight ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
        let escapes = (eight ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        let controls = eight.wrapping_sub(ONES * u64::from(b' '));
        let found = (quotes | escapes | controls) & !eight & (ONES << 7);
        if found != 0 {
            return Some(8 * n + (found.trailing_zeros() / 8) as usize);
        }
    }
    last_ordinary(last).map(|more| 8 * eights.len() + more)
}

#[cold]
#[inline(never)]
fn last_ordinary(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| is_special(*b))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Number, Value};

    use super::*;

    fn value(json: &mut Plain<'_>) -> Option<Value> {
        let before = json.at;
        Some(match json.peek()? {
            b'{' => {
                let mut members = Map::new();
                json.members(|json, name| value(json).map(|value| drop(members.insert(name.to_owned(), value))))?;
                Value::Object(members)
            }
            b'[' => {
                let mut items = Vec::new();
                let count = json.items(|json| value(json).map(|value| items.push(value)))?;
                assert_eq!(count, items.len() as u64);
                Value::Array(items)
            }
            b'"' => json.text()?.into(),
            b'0'..=b'9' => Number::from(json.number()?).into(),
            _ => {
                json.skip()?;
                serde_json::from_str(json.text[before..json.at].trim_start()).unwrap()
            }
        })
    }

    fn read(text: &str) -> Option<Value> {
        let mut json = Plain::new(text);
        let value = value(&mut json)?;
        json.end().map(|()| value)
    }

    #[test]
    fn plain_json_is_read() {
        let long = format!("[{}]", (0..40).map(|n| format!("\"{}\"", "é".repeat(n))).collect::<Vec<_>>().join(","));
        for text in [
            "{}",
            "[]",
            "[[],{}]",
            r#"{"a":[{"id":"6960cbe9b155d194e2f00001"},"",0,7,123456789012345678],"b":true,"c":null,"d":false}"#,
            " {\t\"a\" :\r\n[ 1 , 2 ] , \"a\": \"b\" } \n",
            "\"\u{7f}\u{80}\u{1f40c}\"",
            &long,
        ] {
            assert_eq!(read(text), Some(serde_json::from_str(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_what_serde_reads() {
        let parts = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\n",
            "\u{b}",
            "\u{a0}",
            "\"",
            "\\",
            "\"id\"",
            "\"\\n\"",
            "\"a\":",
            "\"\u{1}\"",
            "0",
            "01",
            "1.5",
            "1e3",
            "-1",
            "12",
            "1234567890123456789012",
            "true",
            "null",
            "nul",
            "é",
            "{\"a\":1}",
            "[\"é\",\"ab\"]",
            "\"6960cbe9\u{1f}55d194e2f00001\"",
            "\"6960cbe9b155d194e2f0\\u00e9\"",
            "\"6960cbe9b155d194e2f00001\"",
        ];
        let good = r#"{"a":[{"id":"6960cbe9b155d194e2f00001","n":12},["x"],"y",0],"b":true,"c":null}"#;
        let mut rng = fastrand::Rng::with_seed(7);
        let mut some = 0;
        for _ in 0..200_000 {
            let mut text = good.to_owned();
            for _ in 0..rng.usize(1..4) {
                let (from, to) = (rng.usize(..=text.len()), rng.usize(..8));
                if let Some(cut) = text.get(from..(from + to).min(text.len())) {
                    let end = from + cut.len();
                    text.replace_range(from..end, rng.choice(&parts).unwrap());
                }
            }
            if let Some(value) = read(&text) {
                some += 1;
                assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value), "{text}");
            }
        }
        assert!(some > 10_000, "{some}");
    }
}
