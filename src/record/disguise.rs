//! What must not be seen, and what stands for it: the same thing for the same text over a whole recording.
//!
//! Whatever is not known to be harmless is replaced. Identifiers keep their shape, so that a dialect admits them; of
//! texts nothing is left, unless somebody asked for them.

use std::collections::{HashMap, HashSet};

use adapters::vocabulary::{Vocabulary, is_name, is_word};
use adapters::{Identifier, Profile, grammar};

use super::text::{Part, rewrite};

/// What stands for a text of which nothing may be seen.
pub(super) const TEXT: &str = "<text>";

/// What stands for a credential.
pub(super) const CREDENTIAL: &str = "<credential>";

/// Parts of the names of members that hold what people are called and where they are to be found.
const PERSONAL: &[&str] =
    &["name", "mail", "phone", "mobile", "address", "street", "city", "birth", "title", "note", "comment", "company"];

/// Hexadecimal digits from this number on are taken for an identifier.
const HEX_FROM: usize = 12;

/// Decimal digits from this number on are.
const DIGITS_FROM: usize = 5;

/// Settings of a connection and the example's, known secrets, and identifiers with their pseudonyms.
pub(super) struct Disguise {
    profile: &'static Profile,
    vocabulary: Vocabulary,
    keep_text: bool,
    settings: HashMap<String, String>,
    secrets: HashSet<String>,
    /// Identifier → pseudonym. Hexadecimal ones are here in lower case.
    pseudonyms: HashMap<String, String>,
    /// The same by lower case, for replies that write an identifier in another one.
    folded: HashMap<String, String>,
    made: HashMap<Shape, u64>,
}

/// What an identifier looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    Uuid,
    Phone,
    /// So many digits.
    Number(usize),
    /// So many hexadecimal digits.
    Hex(usize),
    Other,
}

impl Disguise {
    /// `settings` are pairs of a connection's own text and the example's.
    pub(super) fn new(
        profile: &'static Profile,
        vocabulary: Vocabulary,
        settings: impl IntoIterator<Item = (String, String)>,
        keep_text: bool,
    ) -> Self {
        Self {
            profile,
            vocabulary,
            keep_text,
            settings: settings.into_iter().collect(),
            secrets: HashSet::new(),
            pseudonyms: HashMap::new(),
            folded: HashMap::new(),
            made: HashMap::new(),
        }
    }

    /// Takes a text for a secret from now on, unless the fixtures have it.
    pub(super) fn hide(&mut self, text: &str) {
        if !text.is_empty() && !self.vocabulary.has_text(text) {
            self.secrets.insert(text.to_owned());
        }
    }

    /// What the fixtures have.
    pub(super) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The contact that stands for another one; the dialect takes it.
    pub(super) fn contact(&mut self, identifier: &Identifier) -> Identifier {
        match identifier {
            Identifier::Id(id) => Identifier::Id(self.pseudonym(id, shape(id)).into()),
            Identifier::Phone(phone) => Identifier::Phone(self.pseudonym(phone, Shape::Phone).into()),
            Identifier::External { provider, id } => {
                // A system's name is nobody's; one that could be more than a word is not taken for one.
                let named = is_word(provider);
                let provider = if named { provider.to_string() } else { self.pseudonym(provider, Shape::Other) };
                Identifier::External { provider: provider.into(), id: self.pseudonym(id, Shape::Other).into() }
            }
        }
    }

    /// A path whose segments are settings, contacts, or the dialect's own words.
    pub(super) fn path(&self, path: &str) -> String {
        let segment = |segment: &str| {
            let known = self.settings.get(segment).cloned().or_else(|| self.known(segment));
            known.unwrap_or_else(|| segment.to_owned())
        };
        path.split('/').map(segment).collect::<Vec<_>>().join("/")
    }

    /// A body. JSON keeps its form; of anything else nothing is left but that it was there.
    pub(super) fn body(&mut self, body: &[u8]) -> String {
        let Ok(text) = std::str::from_utf8(body) else { return TEXT.to_owned() };
        let (mark, json) = text.strip_prefix('\u{feff}').map_or(("", text), |json| ("\u{feff}", json));
        let changed = rewrite(json, |part| {
            Some(match part {
                Part::Name(name) => self.name(name),
                Part::Text { member, text } => self.text(member, text),
                Part::Number { member, number } => self.number(member, number),
            })
        });
        match changed {
            Some(json) => format!("{mark}{json}"),
            None if text.is_empty() || self.vocabulary.has_text(text) => text.to_owned(),
            None if self.keep_text => self.scrubbed(text),
            None => TEXT.to_owned(),
        }
    }

    fn text(&mut self, member: &str, text: &str) -> String {
        if let Some(stand_in) = self.stand_in(text) {
            return stand_in;
        }
        let in_fixtures = self.vocabulary.has_text(text);
        let may_stay = if is_personal(member) { in_fixtures && is_word(text) } else { in_fixtures };
        match shape(text) {
            _ if may_stay || text.is_empty() => text.to_owned(),
            shape if shape != Shape::Other => self.pseudonym(text, shape),
            _ if is_word(text) && !is_personal(member) => text.to_owned(),
            _ if self.keep_text => self.scrubbed(text),
            _ => TEXT.to_owned(),
        }
    }

    fn name(&mut self, name: &str) -> String {
        match self.stand_in(name) {
            Some(stand_in) => stand_in,
            None if is_name(name) || self.vocabulary.has_text(name) => name.to_owned(),
            // Two names must stay two: a member that stands twice is another matter.
            None => match shape(name) {
                Shape::Other => format!("<{}>", self.pseudonym(name, Shape::Other)),
                shape => self.pseudonym(name, shape),
            },
        }
    }

    /// A small number is an identifier only where its member says so: elsewhere it counts something.
    fn number(&mut self, member: &str, number: &str) -> String {
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        let sign = if number.starts_with('-') { "-" } else { "" };
        let whole = &number[sign.len()..];
        let is_id = is_id(member);
        if (is_id || digits >= DIGITS_FROM)
            && let Some(pseudonym) = self.known(number)
            && pseudonym.bytes().all(|b| b.is_ascii_digit())
        {
            return pseudonym;
        }
        if self.vocabulary.has_number(number) && !is_id {
            return number.to_owned();
        }
        match shape_of_number(whole) {
            Some(shape) if is_id || digits >= 7 => format!("{sign}{}", self.pseudonym(whole, shape)),
            None if digits >= 7 => "0.5".to_owned(),
            _ => number.to_owned(),
        }
    }

    /// What stands for a text that is known: a secret, a setting, an identifier.
    fn stand_in(&self, text: &str) -> Option<String> {
        if self.secrets.contains(text) {
            return Some(CREDENTIAL.to_owned());
        }
        self.settings.get(text).cloned().or_else(|| self.known(text))
    }

    /// The pseudonym of an identifier that was met before, in whatever case.
    fn known(&self, text: &str) -> Option<String> {
        let found = self.pseudonyms.get(text).or_else(|| self.folded.get(&text.to_ascii_lowercase()))?;
        Some(in_case_of(text, found))
    }

    /// The pseudonym of an identifier, made if it is new.
    fn pseudonym(&mut self, text: &str, shape: Shape) -> String {
        let key = match shape {
            Shape::Uuid | Shape::Hex(_) => text.to_ascii_lowercase(),
            _ => text.to_owned(),
        };
        if let Some(pseudonym) = self.pseudonyms.get(&key) {
            return in_case_of(text, pseudonym);
        }
        let mut pseudonym = self.next(shape);
        // One that is an identifier itself would show it.
        while pseudonym == key || self.pseudonyms.contains_key(&pseudonym) {
            pseudonym = self.next(shape);
        }
        let admitted = |id: &str| self.profile.admit(&Identifier::Id(id.into())).is_ok();
        debug_assert!(shape == Shape::Other || !admitted(text) || admitted(&pseudonym));
        self.folded.entry(text.to_ascii_lowercase()).or_insert_with(|| pseudonym.clone());
        self.pseudonyms.insert(key, pseudonym.clone());
        in_case_of(text, &pseudonym)
    }

    fn next(&mut self, shape: Shape) -> String {
        let count = self.made.entry(shape).or_default();
        *count += 1;
        let n = *count;
        match shape {
            Shape::Uuid => format!("00000000-0000-4000-8000-{n:012x}"),
            Shape::Phone => format!("+1555{n:07}"),
            // As many digits, the first of which is no zero.
            Shape::Number(digits) => format!("{}", 10u128.pow(digits.min(38) as u32 - 1) + u128::from(n) - 1),
            Shape::Hex(digits) => format!("{n:0digits$x}"),
            Shape::Other => format!("ext-{n}"),
        }
    }

    /// A text that stays, without what is known to be in it and what looks like an identifier.
    fn scrubbed(&mut self, text: &str) -> String {
        let mut out = text.to_owned();
        let hidden = self.secrets.iter().map(|secret| (secret.clone(), CREDENTIAL.to_owned()));
        let known = self.settings.iter().chain(&self.pseudonyms).map(|(text, other)| (text.clone(), other.clone()));
        let mut all: Vec<_> = hidden.chain(known).filter(|(text, _)| !text.is_empty()).collect();
        // The longest first: one may be part of another.
        all.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        for (text, other) in all {
            out = replaced(&out, &text, &other);
        }
        let parts = out.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '+'));
        let parts: Vec<_> = parts.map(str::to_owned).collect();
        parts.iter().map(|part| self.scrubbed_part(part)).collect()
    }

    /// A run of letters and digits, with what ends it.
    fn scrubbed_part(&mut self, part: &str) -> String {
        let run = part.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '+'));
        let ours = self.pseudonyms.values().any(|pseudonym| pseudonym.eq_ignore_ascii_case(run));
        match shape(run) {
            Shape::Other => part.to_owned(),
            _ if ours => part.to_owned(),
            shape => format!("{}{}", self.pseudonym(run, shape), &part[run.len()..]),
        }
    }
}

/// Text with every occurrence of another one replaced, whatever its case. A short one must stand by itself.
fn replaced(text: &str, old: &str, new: &str) -> String {
    let (low, old) = (text.to_ascii_lowercase(), old.to_ascii_lowercase());
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (at, _) in low.match_indices(&old) {
        let by_itself = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_alphanumeric());
        let alone = by_itself(text[..at].chars().last()) && by_itself(text[at + old.len()..].chars().next());
        if at >= from && (alone || old.len() >= 6) {
            out.push_str(&text[from..at]);
            out.push_str(new);
            from = at + old.len();
        }
    }
    out.push_str(&text[from..]);
    out
}

/// Capital letters where the original has them alone.
fn in_case_of(text: &str, pseudonym: &str) -> String {
    let capital = text.bytes().any(|b| b.is_ascii_uppercase()) && !text.bytes().any(|b| b.is_ascii_lowercase());
    if capital && shape(pseudonym) != Shape::Other { pseudonym.to_ascii_uppercase() } else { pseudonym.to_owned() }
}

fn shape(text: &str) -> Shape {
    match shape_of_number(text) {
        _ if grammar::is_uuid(text) => Shape::Uuid,
        _ if grammar::is_phone(text) => Shape::Phone,
        Some(shape) => shape,
        None if text.len() >= HEX_FROM && grammar::is_hex(text, text.len()) => Shape::Hex(text.len()),
        None => Shape::Other,
    }
}

fn shape_of_number(text: &str) -> Option<Shape> {
    let digits = !text.is_empty() && text.len() < 38 && text.bytes().all(|b| b.is_ascii_digit());
    // Twenty-four digits are an id in hexadecimal more likely than a number.
    let hex = text.len() >= 24 || (text.starts_with('0') && text.len() >= HEX_FROM);
    digits.then_some(if hex { Shape::Hex(text.len()) } else { Shape::Number(text.len()) })
}

fn is_personal(member: &str) -> bool {
    let member = member.to_ascii_lowercase();
    PERSONAL.iter().any(|part| member.contains(part))
}

fn is_id(member: &str) -> bool {
    let member = member.to_ascii_lowercase();
    member.ends_with("id") || member.ends_with("ids")
}
