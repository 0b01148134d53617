//! Turns requests and replies into exchanges of the fixture format, in which nobody and nothing secret can be recognised.
//!
//! What it writes is what went over the wire, with parts replaced, and never what a dialect would have sent or read
//! instead. Where the replacements changed what the dialect reads, it says so. It does no I/O.

use adapters::exchange::{Exchange, Exchanges, Expected, Source, WireRequest, WireResponse};
use adapters::judge::{self, GATEWAY_MEMBERS, Made};
use adapters::vocabulary::{Vocabulary, is_name};
use adapters::{Dialect, Identifier, Registration, SettingsError, Slot, Target};
use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use serde_json::{Map, Value};

use super::disguise::{CREDENTIAL, Disguise, TEXT};
use super::text::{Part, rewrite};

/// More exchanges than this are passed on and not put down.
const MOST_EXCHANGES: usize = 10_000;

/// Headers of replies that are put down. Others may say anything.
const REPLY_HEADERS: &[&str] = &["content-type", "content-encoding", "retry-after", "location", "www-authenticate"];

/// What begins the names of others.
const REPLY_HEADERS_BEGIN: &str = "x-ratelimit-";

/// What a request is to the dialect.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A delete of these contacts.
    Delete(Vec<Identifier>),
    /// A sign-in.
    SignIn,
    /// Nothing that a dialect could be judged by.
    Other,
}

/// A recording.
pub(super) struct Scribe {
    registration: &'static Registration,
    own: Box<dyn Dialect>,
    own_base: String,
    own_sign_in: Option<String>,
    example: Map<String, Value>,
    example_dialect: Box<dyn Dialect>,
    example_base: String,
    example_sign_in: Option<String>,
    disguise: Disguise,
    settings: Map<String, Value>,
    sheet: Exchanges,
    seen: usize,
}

impl Scribe {
    /// For a connection with these settings, whose sign-in has this path. Fails if the dialect does not take them.
    pub(super) fn new(
        registration: &'static Registration,
        settings: &Map<String, Value>,
        sign_in: Option<&Uri>,
        example: Map<String, Value>,
        keep_text: bool,
    ) -> Result<Self, SettingsError> {
        let fixtures = registration.fixtures.iter().filter_map(|text| serde_json::from_str::<Exchanges>(text).ok());
        let fixtures: Vec<_> = fixtures.flat_map(|file| file.exchanges).collect();
        // What the example has is whose account it is, and is replaced by the example's; the rest is how to speak to it.
        let whose = |name: &String| example.contains_key(name) || GATEWAY_MEMBERS.contains(&name.as_str());
        let kept: Map<_, _> = settings.iter().filter(|(name, _)| !whose(name)).map(owned).collect();
        let pairs = pairs(settings, &example);
        let own = judge::open(registration, settings, &Map::new())?;
        let example_dialect = judge::open(registration, &example, &kept)?;
        let example_sign_in = judge::sign_in_request(registration, &example, &*example_dialect);
        Ok(Self {
            disguise: Disguise::new(registration.profile, Vocabulary::of(&fixtures), pairs, keep_text),
            own,
            own_base: base_path(settings),
            own_sign_in: sign_in.map(|uri| uri.path().to_owned()),
            example_base: base_path(&example),
            example,
            example_dialect,
            example_sign_in: example_sign_in.map(|request| request.uri().path().to_owned()),
            settings: kept,
            sheet: Exchanges { dialect: registration.profile.id.to_owned(), exchanges: Vec::new() },
            seen: 0,
            registration,
        })
    }

    /// What a request is.
    pub(super) fn kind(&self, request: &Request<Bytes>) -> Kind {
        match self.own.contacts_of(request) {
            Some(contacts) => Kind::Delete(contacts),
            None if self.own_sign_in.as_deref() == Some(request.uri().path()) => Kind::SignIn,
            None => Kind::Other,
        }
    }

    /// All exchanges so far, as a file.
    pub(super) fn file(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(&self.sheet).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Puts an exchange down, and says in a line what it was, without anything of what it said. Whether there is
    /// anything new to be written, too.
    pub(super) fn put_down(
        &mut self,
        kind: &Kind,
        request: &Request<Bytes>,
        reply: &Response<Bytes>,
    ) -> (bool, String) {
        self.seen += 1;
        let (n, status) = (self.seen, reply.status().as_u16());
        let id = self.registration.profile.id;
        if *kind == Kind::Other {
            return (
                false,
                format!("{n}: {status}, passed on and not recorded: neither a delete nor a sign-in of {id}"),
            );
        }
        if self.sheet.exchanges.len() >= MOST_EXCHANGES {
            return (
                false,
                format!("{n}: {status}, passed on and not recorded: the file has {MOST_EXCHANGES} exchanges"),
            );
        }
        self.remember(kind, request);
        let contacts: Vec<_> = match kind {
            Kind::Delete(contacts) => contacts.iter().map(|contact| self.disguise.contact(contact)).collect(),
            _ => Vec::new(),
        };
        let word = if matches!(kind, Kind::Delete(_)) { "delete" } else { "sign_in" };
        let mut exchange = Exchange {
            name: format!("{:04}_{word}_{status}", self.sheet.exchanges.len() + 1),
            source: Source::Recorded,
            why: "As the upstream answered it.".to_owned(),
            contacts,
            request: Some(self.request(kind, request)),
            response: Some(self.response(kind, reply)),
            outcomes: Vec::new(),
            settings: self.settings.clone(),
            retry_after_s: None,
        };
        let line = self.compare(kind, request, reply, &mut exchange);
        self.sheet.exchanges.push(exchange);
        (true, format!("{n}: {line}"))
    }

    /// Learns what must not be seen from now on.
    fn remember(&mut self, kind: &Kind, request: &Request<Bytes>) {
        for name in [self.registration.profile.auth.header, "authorization", "cookie", "proxy-authorization"] {
            for value in request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok()) {
                let bare = value.split_once(' ').map_or(value, |(_, bare)| bare);
                self.disguise.hide(value);
                self.disguise.hide(bare);
                let decoded = base64::engine::general_purpose::STANDARD.decode(bare).ok();
                for part in
                    decoded.and_then(|pair| String::from_utf8(pair).ok()).iter().flat_map(|pair| pair.split(':'))
                {
                    self.disguise.hide(part);
                    self.disguise.hide(&decoded_form(part));
                }
            }
        }
        if *kind != Kind::SignIn {
            return;
        }
        let text = String::from_utf8_lossy(request.body()).into_owned();
        let mut texts = Vec::new();
        let is_json = rewrite(&text, |part| {
            if let Part::Text { text, .. } = part {
                texts.push(text.to_owned());
            }
            None
        });
        let form = if is_json.is_some() { "" } else { text.as_str() };
        let query = request.uri().query().unwrap_or_default();
        for pair in form.split('&').chain(query.split('&')).filter(|pair| !self.disguise.vocabulary().has_text(pair)) {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            texts.extend([value.to_owned(), decoded_form(value)]);
        }
        texts.iter().for_each(|text| self.disguise.hide(text));
    }

    fn request(&mut self, kind: &Kind, request: &Request<Bytes>) -> WireRequest {
        let method = request.method().to_string();
        let path = request.uri().path();
        if *kind == Kind::SignIn {
            let path = self.example_sign_in.clone().unwrap_or_else(|| TEXT.to_owned());
            let query = request.uri().query().map(|query| format!("?{}", self.pairs(query))).unwrap_or_default();
            let planned = judge::sign_in_request(self.registration, &self.example, &*self.example_dialect);
            let planned = planned.map(|request| request.headers().clone()).unwrap_or_default();
            let headers = self.headers(request.headers(), &HeaderMap::new(), &planned);
            return WireRequest { method, path: path + &query, headers, body: self.sign_in_body(request.body()) };
        }
        let rest = path.strip_prefix(&*self.own_base).unwrap_or(path);
        let path = format!("{}{}", self.example_base, self.disguise.path(rest));
        let headers = |dialect: &dyn Dialect, contacts: &[Identifier]| {
            let call = dialect.plan(targets(contacts)).calls.into_iter().next();
            call.map(|call| call.request.headers().clone()).unwrap_or_default()
        };
        let Kind::Delete(contacts) = kind else { return WireRequest { method, path, ..empty() } };
        let own = headers(&*self.own, contacts);
        // The headers of a call are the same for all contacts.
        let planned = headers(&*self.example_dialect, contacts);
        let headers = self.headers(request.headers(), &own, &planned);
        let body = self.disguise.body(request.body());
        let body =
            serde_json::from_str(&body).unwrap_or_else(|_| if body.is_empty() { Value::Null } else { body.into() });
        WireRequest { method, path, headers, body }
    }

    /// Of a request's headers those that the dialect sends, and the credential's scheme. What the connection's settings
    /// put into one is replaced by what the example's do.
    fn headers(
        &self,
        shown: &HeaderMap,
        own: &HeaderMap,
        planned: &HeaderMap,
    ) -> std::collections::BTreeMap<String, String> {
        let auth = &self.registration.profile.auth;
        let mut headers = std::collections::BTreeMap::new();
        for (name, value) in shown {
            let text = value.to_str().unwrap_or(TEXT);
            let value = if name.as_str() == auth.header || name == http::header::AUTHORIZATION {
                let scheme = text.split_once(' ').map_or("", |(scheme, _)| scheme);
                let scheme = if scheme.bytes().all(|b| b.is_ascii_alphabetic()) { scheme } else { "" };
                if scheme.is_empty() { CREDENTIAL.to_owned() } else { format!("{scheme} {CREDENTIAL}") }
            } else if let Some(value) = own.get(name).filter(|own| *own == value).and_then(|_| planned.get(name)) {
                value.to_str().unwrap_or(TEXT).to_owned()
            } else if [http::header::ACCEPT, http::header::CONTENT_TYPE].contains(name) && is_media_type(text) {
                text.to_owned()
            } else if planned.contains_key(name) {
                format!("<{name}>")
            } else {
                continue;
            };
            headers.insert(name.as_str().to_owned(), value);
        }
        headers
    }

    /// A sign-in's body with nothing of an account left: each text is the name of its member.
    fn sign_in_body(&self, body: &[u8]) -> Value {
        let Ok(text) = std::str::from_utf8(body) else { return TEXT.into() };
        let placeholder = |member: &str| if is_name(member) { format!("<{member}>") } else { TEXT.to_owned() };
        let changed = rewrite(text, |part| match part {
            Part::Name(name) => (!is_name(name)).then(|| TEXT.to_owned()),
            Part::Text { member, .. } => Some(placeholder(member)),
            Part::Number { .. } => Some("0".to_owned()),
        });
        match changed.and_then(|json| serde_json::from_str(&json).ok()) {
            Some(json) => json,
            None if text.is_empty() => Value::Null,
            None => self.pairs(text).into(),
        }
    }

    /// A form or a query: only pairs that the fixtures have stay.
    fn pairs(&self, text: &str) -> String {
        let pair = |pair: &str| match pair.split_once('=') {
            _ if self.disguise.vocabulary().has_text(pair) => pair.to_owned(),
            Some((name, _)) if is_name(name) => format!("{name}=<{name}>"),
            _ => TEXT.to_owned(),
        };
        text.split('&').map(pair).collect::<Vec<_>>().join("&")
    }

    fn response(&mut self, kind: &Kind, reply: &Response<Bytes>) -> WireResponse {
        if *kind == Kind::SignIn
            && let Some(sign_in) = self.own.sign_in()
            && let adapters::SignInReading::Token { value, .. } = sign_in.read(reply)
        {
            self.disguise.hide(&value);
        }
        let mut headers = std::collections::BTreeMap::new();
        for (name, value) in reply.headers() {
            let name = name.as_str();
            if !REPLY_HEADERS.contains(&name) && !name.starts_with(REPLY_HEADERS_BEGIN) {
                continue;
            }
            let text = value.to_str().unwrap_or_default();
            let value = match name {
                "location" => "<url>",
                "www-authenticate" => text.split([' ', ',']).next().filter(|word| is_name(word)).unwrap_or(TEXT),
                "content-type" | "content-encoding" if is_media_type(text) => text,
                "content-type" | "content-encoding" => TEXT,
                _ if is_time(text) => text,
                _ => TEXT,
            };
            headers.insert(name.to_owned(), value.to_owned());
        }
        WireResponse { status: reply.status().as_u16(), headers, body: self.disguise.body(reply.body()) }
    }

    /// What came of an exchange, in words. Also whether the file says the same as the wire: replacing a text that the
    /// dialect looks into makes another reply of it.
    fn compare(
        &self,
        kind: &Kind,
        request: &Request<Bytes>,
        reply: &Response<Bytes>,
        exchange: &mut Exchange,
    ) -> String {
        let status = reply.status().as_u16();
        let Ok(verdict) = judge::judge(self.registration, &self.example, exchange) else {
            return format!("{status}, recorded; it cannot be judged with the example's settings");
        };
        let (mut line, was) = match kind {
            Kind::Delete(contacts) => {
                let call = adapters::Call { request: request.clone(), targets: targets(contacts) };
                let findings = self.own.interpret(&call, reply).findings(&call);
                let was: Vec<_> = findings.iter().map(Expected::of).collect();
                (format!("delete, {status}, {}", counted(&was)), Made::Outcomes(was))
            }
            _ => {
                let word = match self.own.sign_in().map(|sign_in| sign_in.read(reply)) {
                    Some(adapters::SignInReading::Token { .. }) => "token",
                    Some(adapters::SignInReading::Refused) => "refused",
                    Some(adapters::SignInReading::Throttled(_)) => "throttled",
                    Some(adapters::SignInReading::Unusable) | None => "unusable",
                };
                (format!("sign-in, {status}, {word}"), Made::SignIn(word))
            }
        };
        if verdict.made != was {
            let what = "replacing its texts changed what the dialect reads";
            exchange.why = format!("As the upstream answered it, but {what}.");
            line.push_str(&format!("; {what}: --keep-text keeps them"));
        }
        if !verdict.differences.is_empty() {
            let fields: Vec<_> = verdict.differences.iter().map(|difference| difference.field.as_str()).collect();
            line.push_str(&format!("; not what the dialect does: {}", fields.join(", ")));
        }
        line
    }
}

/// The texts of a connection that say whose it is, with the example's, which stand for them.
fn pairs(settings: &Map<String, Value>, example: &Map<String, Value>) -> Vec<(String, String)> {
    let members = |own: &Map<String, Value>, example: &Map<String, Value>| -> Vec<(String, String)> {
        let text =
            |name: &String, other: &Value| Some((own.get(name)?.as_str()?.to_owned(), other.as_str()?.to_owned()));
        example.iter().filter_map(|(name, other)| text(name, other)).collect()
    };
    let mut pairs = members(settings, example);
    if let (Some(own), Some(example)) = (settings.get("credentials"), example.get("credentials"))
        && let (Some(own), Some(example)) = (own.as_object(), example.as_object())
    {
        pairs.extend(members(own, example));
    }
    let host = |url: &str| url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default().to_owned());
    let hosts: Vec<_> = pairs.iter().filter_map(|(own, other)| host(own).zip(host(other))).collect();
    pairs.into_iter().chain(hosts).filter(|(own, _)| !own.is_empty()).collect()
}

/// The path of a connection's base URL, without a slash at its end.
fn base_path(settings: &Map<String, Value>) -> String {
    let url = settings.get("base_url").and_then(Value::as_str).unwrap_or_default();
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').map_or("", |slash| &rest[slash..]).trim_end_matches('/').to_owned()
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn targets(contacts: &[Identifier]) -> Vec<Target> {
    let slots = (0..).map(Slot);
    slots.zip(contacts).map(|(slot, identifier)| Target { slot, identifier: identifier.clone() }).collect()
}

fn empty() -> WireRequest {
    WireRequest { method: String::new(), path: String::new(), headers: Default::default(), body: Value::Null }
}

/// How many contacts have which outcome.
fn counted(outcomes: &[Expected]) -> String {
    let counts = adapters::Outcome::ALL.map(|outcome| {
        let count = outcomes.iter().filter(|each| each.outcome == outcome).count();
        (count > 0).then(|| format!("{count} {}", outcome.as_str()))
    });
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A member of a form, decoded.
fn decoded_form(text: &str) -> String {
    form_urlencoded::parse(text.as_bytes()).next().map_or_else(String::new, |(name, _)| name.into_owned())
}

fn is_media_type(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphabetic() || b"/+-.;=, *".contains(&b);
    // `charset=utf-8` and `q=0.9` have digits; nothing that is longer than those may.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    text.len() <= 100 && digits <= 4 && text.bytes().all(|b| allowed(b) || b.is_ascii_digit())
}

/// A number of seconds, or a date as HTTP writes it.
fn is_time(text: &str) -> bool {
    let date = text.len() == 29 && text.ends_with(" GMT") && text.is_ascii();
    date || (text.len() <= 13 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}
