//! What a dialect is: a profile, two pure functions, and a double of its upstream.
//!
//! A dialect has no I/O, no clock and no credential. What waits, retries or remembers lives in the gateway.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::contract::{Call, Fault, FaultCode, Identifier, IdentifierKind, Plan, Reading, Target, Wait};

/// The longest identifier that any dialect may accept, in bytes.
pub const MAX_IDENTIFIER_BYTES: usize = 128;

/// One upstream's way of asking for a delete and of answering, bound to one connection's settings.
pub trait Dialect: fmt::Debug + Send + Sync {
    /// What this dialect can do and how it wants to be treated.
    fn profile(&self) -> &'static Profile;

    /// The calls for these contacts. Every slot lands in exactly one call or in `refused`. Deterministic;
    /// no credential in it.
    fn plan(&self, targets: Vec<Target>) -> Plan;

    /// What a complete reply means for the contacts that the call covers. Never panics, whatever the bytes.
    fn interpret(&self, call: &Call, reply: &http::Response<Bytes>) -> Reading;

    /// The contacts that a request asks to delete, in its order: the inverse of [`plan`](Self::plan). `None` if it is no
    /// delete that this dialect could have planned. Only method, path and body count; the URI may be the path alone.
    fn contacts_of(&self, request: &http::Request<Bytes>) -> Option<Vec<Identifier>>;

    /// How many contacts one call of this connection covers at most.
    fn max_contacts_per_call(&self) -> usize;

    /// The upstream's own way to obtain a credential, where it has one.
    fn sign_in(&self) -> Option<&dyn SignIn>;
}

/// How a connection's account is turned into a short-lived token. Pure: the gateway does the waiting.
pub trait SignIn: Send + Sync {
    /// The request that asks for a token. It carries the account's secret: never log it.
    fn request(&self, account: &Account<'_>) -> Result<http::Request<Bytes>, SettingsError>;

    /// What the reply to that request means. Never panics, whatever the bytes.
    fn read(&self, reply: &http::Response<Bytes>) -> SignInReading;

    /// Whether the upstream is one device, which takes sign-ins one by one and, when it locks somebody out, locks out
    /// everybody. Otherwise accounts have nothing to do with each other.
    fn is_a_device(&self) -> bool {
        false
    }
}

/// The members of a connection's `credentials`, with their secrets in the clear, for one sign-in.
#[derive(Clone, Copy)]
pub struct Account<'a>(pub &'a [(&'a str, &'a str)]);

impl Account<'_> {
    /// A member's text; empty if it is not there, which `CredentialForm` rules out.
    pub fn text(&self, member: &str) -> &str {
        self.0.iter().find(|(name, _)| *name == member).map_or("", |(_, text)| text)
    }
}

/// What a reply to a sign-in means.
#[derive(Clone, PartialEq, Eq)]
pub enum SignInReading {
    /// A token, and for how many seconds it holds if the upstream or its documentation says so.
    Token {
        /// The token itself: a secret.
        value: String,
        /// Its life in seconds.
        lifetime_s: Option<u64>,
    },
    /// The account is refused. Trying again with the same secret is of no use and may lock it out.
    Refused,
    /// No more sign-ins for now.
    Throttled(Option<Wait>),
    /// Nothing usable: an error of the upstream, or an answer that cannot be read.
    Unusable,
}

impl fmt::Debug for SignInReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token { .. } => "Token(…)",
            Self::Refused => "Refused",
            Self::Throttled(_) => "Throttled",
            Self::Unusable => "Unusable",
        })
    }
}

/// What is the same for every connection of a dialect.
#[derive(Debug)]
pub struct Profile {
    /// The name in configuration, metrics and answers; also the name of the dialect's folder.
    pub id: &'static str,
    /// The product's name, for people.
    pub title: &'static str,
    /// The vendor's pages that the dialect was written from.
    pub docs: &'static [&'static str],
    /// One line on how a delete is asked for.
    pub style: &'static str,
    /// Contacts in one call, unless the connection says otherwise.
    pub max_contacts_per_call: usize,
    /// What a connection may raise that to; 1 where the upstream takes one contact a call.
    pub contacts_per_call_ceiling: usize,
    /// Which identifiers it takes.
    pub identifiers: &'static [IdentifierRule],
    /// How many calls the vendor allows, where it says so.
    pub pace: Option<Pace>,
    /// How it wants to be shown a credential.
    pub auth: AuthScheme,
    /// What can prove a deletion here, strongest first.
    pub evidence: &'static [crate::Evidence],
    /// What no vendor page says, and this dialect assumes; each is a setting or errs towards `unknown`.
    pub assumptions: &'static [&'static str],
}

impl Profile {
    /// The rule for an identifier, or the reason why it cannot be sent.
    #[inline]
    pub fn admit(&self, identifier: &Identifier) -> Result<&'static IdentifierRule, Fault> {
        let rule = self.identifiers.iter().find(|rule| rule.kind == identifier.kind());
        let rule = rule.ok_or_else(|| Fault::new(FaultCode::UnsupportedIdentifier))?;
        let size = match identifier {
            Identifier::External { provider, id } => provider.len().max(id.len()),
            other => other.text().len(),
        };
        if size <= MAX_IDENTIFIER_BYTES && (rule.accepts)(identifier) {
            Ok(rule)
        } else {
            Err(Fault::new(FaultCode::InvalidIdentifier))
        }
    }

    /// These native ids as identifiers, if there is one at least and each of them can be sent.
    pub fn ids<T: AsRef<str>>(&self, texts: impl IntoIterator<Item = T>) -> Option<Vec<Identifier>> {
        let ids = texts.into_iter().map(|text| Identifier::Id(text.as_ref().into()));
        self.all_admitted(ids.collect())
    }

    /// The identifiers, if there is one at least and each of them can be sent.
    pub fn all_admitted(&self, identifiers: Vec<Identifier>) -> Option<Vec<Identifier>> {
        let good = !identifiers.is_empty() && identifiers.iter().all(|identifier| self.admit(identifier).is_ok());
        good.then_some(identifiers)
    }

    /// Parts contacts into those that can be sent and the reasons for the others.
    pub fn sift(&self, mut targets: Vec<Target>) -> (Vec<Target>, Vec<(crate::Slot, Fault)>) {
        let mut refused = Vec::new();
        targets.retain(|target| match self.admit(&target.identifier) {
            Ok(_) => true,
            Err(fault) => {
                refused.push((target.slot, fault));
                false
            }
        });
        (targets, refused)
    }
}

/// Contacts in groups of so many, in their order; the last one may be smaller.
pub fn groups(targets: Vec<Target>, most: usize) -> impl Iterator<Item = Vec<Target>> {
    let mut left = targets.into_iter();
    std::iter::from_fn(move || {
        let size = left.len().min(most.max(1));
        let group = if size == left.len() {
            // The last one is taken as it stands, which is all where one call has room for all.
            std::mem::take(&mut left).collect()
        } else {
            let mut group = Vec::with_capacity(size);
            group.extend(left.by_ref().take(size));
            group
        };
        (size > 0).then_some(group)
    })
}

/// One kind of identifier that a dialect takes.
#[derive(Debug)]
pub struct IdentifierRule {
    /// The kind.
    pub kind: IdentifierKind,
    /// Its form, in words for people, as the end of "must be …".
    pub syntax: &'static str,
    /// Whether a delete by it may be repeated: not where the identifier may by then name another contact.
    pub replay_safe: bool,
    /// The allow-list grammar. What it refuses is never sent.
    pub accepts: fn(&Identifier) -> bool,
    /// Whether upper and lower case name the same contact, as in hexadecimal digits.
    pub case_blind: bool,
}

impl IdentifierRule {
    /// The text by which two identifiers of this rule are the same contact. Only for comparing: what is
    /// sent is always what the caller wrote.
    pub fn key<'i>(&self, identifier: &'i Identifier) -> Cow<'i, str> {
        match identifier {
            Identifier::External { provider, id } => Cow::Owned(format!("{provider}\u{0}{}", &**id)),
            // Without a way out in between, a processor looks at many bytes at once.
            other if self.case_blind && other.text().bytes().fold(false, |any, b| any | b.is_ascii_uppercase()) => {
                Cow::Owned(other.text().to_ascii_lowercase())
            }
            other => Cow::Borrowed(other.text()),
        }
    }
}

/// A vendor's limit: so many calls in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Calls.
    pub calls: u32,
    /// Seconds.
    pub per_s: u32,
}

/// How an upstream wants to be shown a credential, and what a connection may be given for it.
#[derive(Debug)]
pub struct AuthScheme {
    /// The header that carries it, in lower case.
    pub header: &'static str,
    /// What stands before it in that header, for example `Bearer ` with its space.
    pub prefix: &'static str,
    /// The sets of members that `credentials` may have; exactly one must fit.
    pub forms: &'static [CredentialForm],
}

/// One set of members that a connection's `credentials` may have.
#[derive(Debug)]
pub struct CredentialForm {
    /// The members, all required.
    pub members: &'static [Member],
    /// What becomes of them.
    pub grant: Grant,
}

/// One member of a connection's `credentials`.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a secret, which configuration may only refer to.
    pub secret: bool,
}

/// How the members of `credentials` become a header.
#[derive(Debug)]
pub enum Grant {
    /// The one secret member is the credential.
    Fixed,
    /// A JSON Web Token that the gateway signs with HS256 (RFC 7519): `client_id` under `id_claim`, `client_secret` as key.
    SignedJwt {
        /// The claim that carries the client id.
        id_claim: &'static str,
        /// The `sub` claim.
        subject: &'static str,
    },
    /// A token from the dialect's `sign_in`.
    SignIn,
}

/// A setting of a connection that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SettingsError {
    /// The setting, as it stands in the file; empty where none can be named.
    pub key: String,
    /// What is wrong, without its value.
    pub message: String,
}

impl SettingsError {
    /// Says what is wrong with a setting.
    pub fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into() }
    }
}

/// One line of `DIALECTS`.
#[derive(Debug)]
pub struct Registration {
    /// The dialect's profile.
    pub profile: &'static Profile,
    /// Binds the dialect to a connection's settings: `base_url`, the dialect's own keys and, for dialects that
    /// take several contacts a call, `max_contacts_per_call`. Bad settings fail here and nowhere later.
    pub open: fn(Value) -> Result<Box<dyn Dialect>, SettingsError>,
    /// A whole connection in TOML that `double` accepts, credentials included.
    pub example: &'static str,
    /// A fresh double of the upstream, that knows the example's account and holds no contact.
    pub double: fn() -> Box<dyn Double>,
    /// The files of the dialect's `fixtures/`, so that they can be run where the source is not.
    pub fixtures: &'static [&'static str],
}

/// The upstream's side of a dialect: a stateful fake, pure too. Its log is the truth that tests compare with.
///
/// It knows the account of the registration's example and nobody else. A deleted contact is gone for `held`, `holds` and
/// `contacts`, also where the vendor only marks it.
pub trait Double: Send {
    /// Lets the upstream hold a contact. A `held` one is there and the upstream refuses to delete it, in the vendor's own
    /// way. An identifier that can name nothing there changes nothing.
    fn seed(&mut self, identifier: &Identifier, held: bool);

    /// Whether the upstream refuses to delete the contact; `None` if it has no such contact.
    fn held(&self, identifier: &Identifier) -> Option<bool>;

    /// Whether the upstream has the contact now.
    fn holds(&self, identifier: &Identifier) -> bool {
        self.held(identifier).is_some()
    }

    /// Takes a contact away, as if it had never been there. One that is not there changes nothing.
    fn forget(&mut self, identifier: &Identifier);

    /// Every contact that the upstream has, and whether it refuses to delete it. Always in the same order, and with each
    /// identifier as the upstream keeps it, for example in lower case.
    fn contacts(&self) -> Vec<(Identifier, bool)>;

    /// What a request asks for, whether or not it will be answered well. It goes by route and method alone, and never fails.
    fn asked(&self, request: &http::Request<Bytes>) -> Asked;

    /// Carries out one request. `now_s` is the time in seconds since 1970-01-01 UTC.
    fn answer(&mut self, request: &http::Request<Bytes>, now_s: u64) -> Answer;

    /// The vendor's own reply to too many requests, which asks for so many seconds of rest as far as the vendor says that.
    fn throttled(&self, wait_s: u64) -> http::Response<Bytes>;

    /// How many requests the vendor takes in which time; `None` where it is documented nowhere.
    fn limit(&self) -> Option<Limit>;

    /// Breaks the vendor's contract in a reply of `answer` to a delete; `None` where this vendor's replies have nothing that
    /// could be broken so, or this one does not say that anything was deleted.
    ///
    /// No reply is broken into one that is false and looks right: after each twist, what was deleted can be told from the
    /// reply or it cannot, and a dialect that goes by its rules says nothing that is not true.
    fn twist(&self, twist: Twist, reply: &http::Response<Bytes>) -> Option<http::Response<Bytes>>;
}

/// What a double did with a request.
#[derive(Debug)]
pub struct Answer {
    /// The reply, in the vendor's form.
    pub response: http::Response<Bytes>,
    /// The contacts that this request deleted, each as [`Double::asked`] names it. A route that names no contacts
    /// and deletes them all names them here.
    pub deleted: Vec<Identifier>,
}

/// What a request to an upstream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To delete these contacts, as far as they can be read from it.
    Delete(Vec<Identifier>),
    /// A token.
    SignIn,
    /// Contacts, which stay as they are.
    Read,
    /// Anything else: no such route, or another method.
    Other,
}

/// How many requests an upstream takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// So many.
    pub requests: u32,
    /// In so many seconds.
    pub window_s: u64,
}

/// A breach of a vendor's contract that no fault of the network could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Twist {
    /// It names other contacts than those asked for.
    WrongIds,
    /// It leaves contacts out.
    MissingIds,
    /// It says two things that cannot both be true.
    Contradict,
}

/// Finds contacts of a call by the identifiers that a reply names. Hexadecimal case does not matter; position never decides.
///
/// Most upstreams answer in the order of the request, so the next contact is tried first and a map is only made
/// for those that do not. Clones share it, so that each list of a reply can have an order of its own.
#[derive(Debug, Clone)]
pub struct Roster<'c> {
    targets: &'c [Target],
    next: usize,
    by_text: Rc<OnceCell<HashMap<CaseBlind<'c>, usize>>>,
}

impl<'c> Roster<'c> {
    /// Over the contacts of a call.
    pub fn new(call: &'c Call) -> Self {
        Self { targets: &call.targets, next: 0, by_text: Rc::default() }
    }

    /// The position in `call.targets` of the contact with this identifier text, or `None` if the call did not name it.
    pub fn find(&mut self, text: &str) -> Option<usize> {
        if let Some(target) = self.targets.get(self.next)
            && target.identifier.text().eq_ignore_ascii_case(text)
        {
            self.next += 1;
            return Some(self.next - 1);
        }
        let texts = self.targets.iter().map(|target| CaseBlind(target.identifier.text()));
        let map: &HashMap<_, _> = self.by_text.get_or_init(|| texts.zip(0..).collect());
        let found = map.get(&CaseBlind(text)).copied();
        if let Some(position) = found {
            self.next = position + 1;
        }
        found
    }
}

/// A text, whatever the case of its ASCII letters.
#[derive(Debug)]
struct CaseBlind<'t>(&'t str);

impl PartialEq for CaseBlind<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}
impl Eq for CaseBlind<'_> {}

impl Hash for CaseBlind<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut lower = [0; 32];
        for part in self.0.as_bytes().chunks(lower.len()) {
            let lower = &mut lower[..part.len()];
            lower.copy_from_slice(part);
            lower.make_ascii_lowercase();
            state.write(lower);
        }
    }
}

/// The JSON object in a request's body, if the request has this method and the path of this URI.
pub fn body_of_route<'r, T: serde::Deserialize<'r>>(
    request: &'r http::Request<Bytes>,
    method: &http::Method,
    uri: &http::Uri,
) -> Option<T> {
    let same = request.method() == method && request.uri().path() == uri.path() && request.uri().query().is_none();
    same.then(|| serde_json::from_slice(request.body()).ok()).flatten()
}

/// Reads a connection's settings into the dialect's own type. The error names the key and never repeats a value.
pub fn read_settings<T: DeserializeOwned>(settings: Value) -> Result<T, SettingsError> {
    serde_path_to_error::deserialize(settings).map_err(|err| {
        let path = err.path().to_string();
        let key = if path == "." { String::new() } else { path };
        SettingsError { key, message: without_values(&err.into_inner().to_string()) }
    })
}

/// Takes values out of serde's messages, as in `invalid type: string "…", expected u32` or ``unknown variant `…` ``.
fn without_values(message: &str) -> String {
    let without = |message: &str, open: &str, close: char| -> Option<String> {
        let start = message.find(open)? + open.len();
        let end = start + message[start..].rfind(close)?;
        Some(format!("{}…{}", &message[..start], &message[end..]))
    };
    if message.starts_with("unknown variant") {
        return "is none of the words that are possible here".to_owned();
    }
    without(message, "string \"", '"').unwrap_or_else(|| message.to_owned())
}

/// Checks `max_contacts_per_call` against the profile's ceiling.
pub fn batch_size(asked: Option<usize>, profile: &Profile) -> Result<usize, SettingsError> {
    let size = asked.unwrap_or(profile.max_contacts_per_call);
    if (1..=profile.contacts_per_call_ceiling).contains(&size) {
        return Ok(size);
    }
    let message = format!("must be from 1 to {}", profile.contacts_per_call_ceiling);
    Err(SettingsError::new("max_contacts_per_call", message))
}
