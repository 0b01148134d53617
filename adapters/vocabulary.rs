//! What a dialect has been told of its upstream's replies, by its fixtures: statuses, members, words, texts.
//!
//! A reply that has more is not wrong; it shows what nobody has looked at yet. What it means stays the dialect's matter.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use crate::contract::Outcome;
use crate::exchange::Exchange;
use crate::grammar;
use crate::judge::{Made, Remark};

/// The longest text that counts as a word, in bytes.
const MAX_WORD_BYTES: usize = 40;

/// What stands in the replies, and in the requests, of some exchanges.
#[derive(Debug, Default)]
pub struct Vocabulary {
    /// Status → the members of the JSON replies under it, by their places.
    members: BTreeMap<u16, BTreeSet<String>>,
    /// Place → the words that stand there. A place with any other text is not in it.
    words: BTreeMap<String, BTreeSet<String>>,
    texts: HashSet<String>,
    numbers: HashSet<String>,
}

impl Vocabulary {
    /// Of a dialect's fixtures.
    pub fn of(exchanges: &[Exchange]) -> Self {
        let mut vocabulary = Self::default();
        let mut other = BTreeSet::new();
        for exchange in exchanges {
            if let Some(request) = &exchange.request {
                match &request.body {
                    Value::String(form) => vocabulary.texts.extend(form.split('&').map(str::to_owned)),
                    body => vocabulary.learn_texts(body),
                }
            }
            let Some(response) = &exchange.response else { continue };
            let members = vocabulary.members.entry(response.status).or_default();
            let Ok(body) = serde_json::from_str::<Value>(&response.body) else {
                vocabulary.texts.insert(response.body.clone());
                continue;
            };
            visit("response.body", &body, &mut |place, value| {
                members.insert(place.to_owned());
                match value {
                    Value::String(text) if is_word(text) => {
                        vocabulary.words.entry(place.to_owned()).or_default().insert(text.clone());
                    }
                    Value::String(_) => drop(other.insert(place.to_owned())),
                    _ => {}
                }
            });
            vocabulary.learn_texts(&body);
        }
        vocabulary.words.retain(|place, _| !other.contains(place));
        vocabulary
    }

    fn learn_texts(&mut self, body: &Value) {
        visit("", body, &mut |_, value| match value {
            // An identifier is nobody's vocabulary.
            Value::String(text)
                if grammar::is_uuid(text) || (text.len() >= 16 && grammar::is_hex(text, text.len())) => {}
            Value::String(text) => drop(self.texts.insert(text.clone())),
            Value::Number(number) => drop(self.numbers.insert(number.to_string())),
            _ => {}
        });
    }

    /// Whether a text stands in the fixtures as it is: a member's, a form's pair, or a whole body that is no JSON.
    pub fn has_text(&self, text: &str) -> bool {
        self.texts.contains(text)
    }

    /// Whether a number stands in the fixtures, as it is written.
    pub fn has_number(&self, number: &str) -> bool {
        self.numbers.contains(number)
    }

    /// What is new in an exchange, of which the dialect makes this. Names of members and words are told, no other text.
    pub fn news(&self, exchange: &Exchange, made: &Made) -> Vec<Remark> {
        let mut news = Vec::new();
        let outcomes = match made {
            Made::SignIn("unusable") => {
                news.push(Remark::new("response", "no token can be read from it"));
                return news;
            }
            // What a token comes with is of no consequence.
            Made::SignIn(_) => return news,
            Made::Outcomes(outcomes) => outcomes,
        };
        for (n, is) in outcomes.iter().enumerate().filter(|(_, is)| is.outcome == Outcome::Unknown) {
            let why = is.error.map_or("response_incomplete", |code| code.as_str());
            news.push(Remark::new(format!("outcomes[{n}]"), format!("unknown, {why}")));
        }
        let Some(response) = &exchange.response else { return news };
        let known = self.members.get(&response.status);
        if known.is_none() {
            news.push(Remark::new("response.status", format!("{} is in no fixture", response.status)));
        }
        let Ok(body) = serde_json::from_str::<Value>(&response.body) else { return news };
        let mut seen = BTreeSet::new();
        visit("response.body", &body, &mut |place, value| {
            if known.is_some_and(|known| !known.contains(place)) && seen.insert(place.to_owned()) {
                let what = format!("is in no fixture with status {}", response.status);
                news.push(Remark::new(place, what));
            }
            if let Value::String(text) = value
                && is_word(text)
                && self.words.get(place).is_some_and(|words| !words.contains(text))
                && seen.insert(format!("{place} {text}"))
            {
                news.push(Remark::new(place, format!("the word {text} is in no fixture")));
            }
        });
        news
    }
}

/// Whether a text can only be a word: small letters and underscores, and not many.
pub fn is_word(text: &str) -> bool {
    text.len() <= MAX_WORD_BYTES
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// Whether a text can be the name of a member, and no value that somebody used as one.
pub fn is_name(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    text.len() <= MAX_WORD_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-$".contains(&b))
        && digits <= 3
}

/// Every value below one, with its place; all items of an array have the same.
fn visit<'v>(place: &str, value: &'v Value, see: &mut impl FnMut(&str, &'v Value)) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let place = format!("{place}.{}", if is_name(name) { name } else { "<key>" });
                see(&place, value);
                visit(&place, value, see);
            }
        }
        Value::Array(items) => {
            let place = format!("{place}[]");
            for value in items {
                see(&place, value);
                visit(&place, value, see);
            }
        }
        _ => {}
    }
}
