//! Holds an exchange against its dialect: whether the dialect sends that request, and reads that reply as it should.
//!
//! What does not hold is named by its field, and of a request by nothing else: a value may be an identifier.
//! Files are read elsewhere, and whether a reply is something new is the matter of `vocabulary.rs`.

use std::fmt;

use bytes::Bytes;
use http::{Request, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::contract::{Call, Fault, FaultCode, Finding, Outcome, Plan, Reading, Slot, TurnedAway, Wait};
use crate::dialect::{Account, Dialect, Grant, Registration, SettingsError, SignInReading};
use crate::exchange::{Exchange, Expected, Source, WireRequest, WireResponse};

/// Members of a connection that are not the dialect's own settings.
pub const GATEWAY_MEMBERS: &[&str] =
    &["dialect", "credentials", "allow_http", "allow_private", "limits", "timeouts", "retry"];

const NOT_SENT: &str = "is not what the dialect sends";
const ONLY_HERE: &str = "is not sent by the dialect";
const ONLY_SENT: &str = "is sent by the dialect and missing here";

/// What holds of an exchange, and what the dialect makes of it.
#[derive(Debug)]
pub struct Verdict {
    /// What does not hold; nothing if the exchange holds.
    pub differences: Vec<Remark>,
    /// What the dialect makes of the reply.
    pub made: Made,
}

/// Something to be said of one field of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The field, for example `request.body.ids[1]`.
    pub field: String,
    /// What is the matter with it.
    pub what: String,
}

/// What a dialect makes of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// The outcome of each contact, in their order.
    Outcomes(Vec<Expected>),
    /// It is a sign-in, and this came of it: `token`, `refused`, `throttled` or `unusable`.
    SignIn(&'static str),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

impl Remark {
    /// Says something of a field.
    pub fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }
}

/// Judges one exchange. `connection` is a whole connection of the dialect, as the registration's example is; the
/// exchange's own settings come before its. Fails if the dialect does not take these settings.
pub fn judge(
    registration: &Registration,
    connection: &Map<String, Value>,
    exchange: &Exchange,
) -> Result<Verdict, SettingsError> {
    let dialect = open(registration, connection, &exchange.settings)?;
    let mut bench = Bench { registration, connection, dialect: &*dialect, exchange, differences: Vec::new() };
    let made = bench.run();
    Ok(Verdict { differences: bench.differences, made })
}

/// The dialect of a whole connection, with some of its settings changed.
pub fn open(
    registration: &Registration,
    connection: &Map<String, Value>,
    changes: &Map<String, Value>,
) -> Result<Box<dyn Dialect>, SettingsError> {
    let own = connection.iter().filter(|(name, _)| !GATEWAY_MEMBERS.contains(&name.as_str()));
    let settings = own.chain(changes).map(|(name, value)| (name.clone(), value.clone())).collect();
    (registration.open)(Value::Object(settings))
}

/// The sign-in that a dialect would ask for. What the connection does not say in the clear is its name in `<…>`.
pub fn sign_in_request(
    registration: &Registration,
    connection: &Map<String, Value>,
    dialect: &dyn Dialect,
) -> Option<Request<Bytes>> {
    let form = registration.profile.auth.forms.iter().find(|form| matches!(form.grant, Grant::SignIn))?;
    let given = |name: &str| connection.get("credentials").and_then(|credentials| credentials.get(name)?.as_str());
    let members: Vec<_> = form
        .members
        .iter()
        .map(|member| (member.name, given(member.name).filter(|_| !member.secret)))
        .map(|(name, text)| (name, text.map_or_else(|| format!("<{name}>"), str::to_owned)))
        .collect();
    let members: Vec<_> = members.iter().map(|(name, text)| (*name, text.as_str())).collect();
    dialect.sign_in()?.request(&Account(&members)).ok()
}

/// Whether a text stands for another one that is not to be seen.
pub fn is_placeholder(text: &str) -> bool {
    text.len() > 2 && text.starts_with('<') && text.ends_with('>')
}

/// One exchange under judgement.
struct Bench<'e> {
    registration: &'e Registration,
    connection: &'e Map<String, Value>,
    dialect: &'e dyn Dialect,
    exchange: &'e Exchange,
    differences: Vec<Remark>,
}

impl Bench<'_> {
    fn run(&mut self) -> Made {
        let exchange = self.exchange;
        let plan = self.dialect.plan(exchange.targets());
        let Some(request) = &exchange.request else {
            if !plan.calls.is_empty() {
                self.differs("request", "expected that nothing is sent, is sent");
            }
            self.wait(None);
            return self.outcomes(refusals(exchange, &plan));
        };
        let reply = match exchange.response.as_ref().map(WireResponse::to_http) {
            Some(Ok(reply)) => Some(reply),
            Some(Err(_)) => {
                self.differs("response", "has a status or a header that HTTP does not have");
                None
            }
            None => {
                self.differs("response", "is missing");
                None
            }
        };
        if self.is_sign_in(&plan, request) {
            return self.sign_in(request, reply);
        }
        let mut said = refusals(exchange, &plan);
        match plan.calls.as_slice() {
            [] if exchange.contacts.is_empty() => self.differs("contacts", "are none, and this is no sign-in"),
            [] => self.differs("request", "expected to be sent, is refused"),
            [call] => self.request(call, request),
            calls => {
                let what = format!("expected to be in one call, are in {}", calls.len());
                self.differs("contacts", what);
            }
        }
        if let (Some(call), Some(reply)) = (plan.calls.first(), reply) {
            let reading = self.dialect.interpret(call, &reply);
            let wait = match &reading {
                Reading::TurnedAway(TurnedAway::Throttled(fault)) => fault.wait,
                _ => None,
            };
            self.wait(wait);
            for (target, finding) in call.targets.iter().zip(reading.findings(call)) {
                put(&mut said, target.slot, finding);
            }
        }
        self.outcomes(said)
    }

    /// Whether a request is that of a sign-in: it goes elsewhere than the planned call, and in another way or to where
    /// the dialect signs in. So a delete with a wrong path stays one.
    fn is_sign_in(&self, plan: &Plan, request: &WireRequest) -> bool {
        if self.dialect.sign_in().is_none() {
            return false;
        }
        let path = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
        let elsewhere = |call: &Call| call.request.uri().path() != path(&request.path);
        let in_another_way = |call: &Call| call.request.method() != request.method.as_str();
        let own = sign_in_request(self.registration, self.connection, self.dialect);
        plan.calls.iter().all(elsewhere)
            && (plan.calls.iter().all(in_another_way) || own.is_some_and(|own| own.uri().path() == path(&request.path)))
    }

    /// The reply is that of a sign-in: what it yields is what the contacts get.
    fn sign_in(&mut self, request: &WireRequest, reply: Option<Response<Bytes>>) -> Made {
        let exchange = self.exchange;
        // Where no page shows a sign-in, fixtures have another one than the dialect's; a recorded one is compared.
        if exchange.source == Source::Recorded
            && let Some(own) = sign_in_request(self.registration, self.connection, self.dialect)
        {
            self.sign_in_sent(&own, request);
        }
        let Some((sign_in, reply)) = self.dialect.sign_in().zip(reply) else { return Made::SignIn("unusable") };
        let reading = sign_in.read(&reply);
        if let SignInReading::Throttled(wait) = reading {
            self.wait(wait);
        } else {
            self.wait(None);
        }
        let made = match reading {
            SignInReading::Token { .. } if exchange.outcomes.is_empty() => "token",
            SignInReading::Token { .. } => {
                self.differs("response", "expected to be a sign-in that came to nothing, is a token");
                return Made::SignIn("token");
            }
            SignInReading::Refused => "refused",
            SignInReading::Throttled(_) => "throttled",
            SignInReading::Unusable => "unusable",
        };
        let fault = Finding::Fault(Fault::new(FaultCode::CredentialUnavailable));
        self.outcomes(vec![Some(fault); exchange.contacts.len()]);
        Made::SignIn(made)
    }

    fn request(&mut self, call: &Call, request: &WireRequest) {
        self.method(call.request.method(), request);
        if call.request.uri().path_and_query().is_none_or(|path| path.as_str() != request.path) {
            self.differs("request.path", NOT_SENT);
        }
        self.headers(call.request.headers(), request);
        let body = call.request.body();
        let sent = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap_or_default() };
        self.compare("request.body".to_owned(), &request.body, &sent, false);
    }

    fn sign_in_sent(&mut self, own: &Request<Bytes>, request: &WireRequest) {
        self.method(own.method(), request);
        let sent = own.uri().path_and_query().map_or("", |path| path.as_str());
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let (sent_path, sent_query) = sent.split_once('?').unwrap_or((sent, ""));
        if path != sent_path || !same_pairs(query, sent_query) {
            self.differs("request.path", NOT_SENT);
        }
        self.headers(own.headers(), request);
        let text = std::str::from_utf8(own.body()).unwrap_or_default();
        match (&request.body, serde_json::from_str::<Value>(text)) {
            (Value::String(form), Err(_)) if same_pairs(form, text) => {}
            (Value::Null, Err(_)) if text.is_empty() => {}
            (_, Err(_)) => self.differs("request.body", NOT_SENT),
            (body, Ok(sent)) => self.compare("request.body".to_owned(), body, &sent, true),
        }
    }

    fn method(&mut self, sent: &http::Method, request: &WireRequest) {
        if *sent != *request.method {
            self.differs("request.method", format!("expected {}, is {sent}", request.method));
        }
    }

    /// Every header of the exchange must be sent. Of a credential only what stands before it is known.
    fn headers(&mut self, sent: &http::HeaderMap, request: &WireRequest) {
        let auth = &self.registration.profile.auth;
        for (name, value) in &request.headers {
            let field = format!("request.headers.{name}");
            let sent_value = sent.get(name).map(|value| value.as_bytes());
            if name == auth.header && !sent.contains_key(name) {
                if !value.starts_with(auth.prefix) {
                    self.differs(field, format!("expected to start with {:?}, does not", auth.prefix));
                }
            } else if name == auth.header {
                // The sign-in's own: an account, whose form counts.
                let scheme = |text: &[u8]| text.split(|byte| *byte == b' ').next().map(<[u8]>::to_vec);
                if sent_value.and_then(scheme) != scheme(value.as_bytes()) {
                    self.differs(field, NOT_SENT);
                }
            } else if sent_value.is_none() {
                self.differs(field, ONLY_HERE);
            } else if sent_value != Some(value.as_bytes()) && !is_placeholder(value) {
                self.differs(field, NOT_SENT);
            }
        }
    }

    fn wait(&mut self, read: Option<Wait>) {
        let Some(expected) = self.exchange.retry_after_s else { return };
        let is = match read {
            Some(Wait::For(seconds)) if seconds == expected => return,
            Some(Wait::For(seconds)) => seconds.to_string(),
            Some(Wait::Until(_)) => "a moment".to_owned(),
            None => "none".to_owned(),
        };
        self.differs("retry_after_s", format!("expected {expected}, is {is}"));
    }

    /// Compares the outcomes, unless nobody has written any for a recorded exchange.
    fn outcomes(&mut self, said: Vec<Option<Finding>>) -> Made {
        let exchange = self.exchange;
        let silent = Expected { outcome: Outcome::Unknown, error: None };
        let made: Vec<_> =
            said.iter().map(|finding| finding.as_ref().map_or_else(|| silent.clone(), Expected::of)).collect();
        let unwritten = exchange.outcomes.is_empty() && exchange.source == Source::Recorded;
        if !unwritten && made.len() != exchange.outcomes.len() {
            self.differs("outcomes", format!("expected {}, are {}", made.len(), exchange.outcomes.len()));
        }
        for (n, (expected, is)) in exchange.outcomes.iter().zip(&made).enumerate() {
            if expected.outcome != is.outcome {
                let what = format!("expected {}, is {}", expected.outcome.as_str(), is.outcome.as_str());
                self.differs(format!("outcomes[{n}].outcome"), what);
            }
            if expected.error != is.error {
                let word = |error: Option<FaultCode>| error.map_or("none", FaultCode::as_str);
                let what = format!("expected {}, is {}", word(expected.error), word(is.error));
                self.differs(format!("outcomes[{n}].error"), what);
            }
        }
        Made::Outcomes(made)
    }

    /// Compares what stands in the exchange with what is sent. In a sign-in, a placeholder stands for any text.
    fn compare(&mut self, field: String, here: &Value, sent: &Value, sign_in: bool) {
        match (here, sent) {
            (Value::Object(here), Value::Object(sent)) => {
                for (name, value) in here {
                    let field = format!("{field}.{name}");
                    match sent.get(name) {
                        Some(sent) => self.compare(field, value, sent, sign_in),
                        None => self.differs(field, ONLY_HERE),
                    }
                }
                for name in sent.keys().filter(|name| !here.contains_key(*name)) {
                    self.differs(format!("{field}.{name}"), ONLY_SENT);
                }
            }
            (Value::Array(here), Value::Array(sent)) => {
                for n in 0..here.len().max(sent.len()) {
                    let field = format!("{field}[{n}]");
                    match (here.get(n), sent.get(n)) {
                        (Some(here), Some(sent)) => self.compare(field, here, sent, sign_in),
                        (Some(_), None) => self.differs(field, ONLY_HERE),
                        _ => self.differs(field, ONLY_SENT),
                    }
                }
            }
            (Value::String(text), Value::String(_)) if sign_in && is_placeholder(text) => {}
            _ if here == sent => {}
            _ => self.differs(field, NOT_SENT),
        }
    }

    fn differs(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.differences.push(Remark::new(field, what));
    }
}

fn refusals(exchange: &Exchange, plan: &Plan) -> Vec<Option<Finding>> {
    let mut said = vec![None; exchange.contacts.len()];
    for (slot, fault) in &plan.refused {
        put(&mut said, *slot, Finding::Fault(fault.clone()));
    }
    said
}

fn put(said: &mut [Option<Finding>], slot: Slot, finding: Finding) {
    if let Some(place) = said.get_mut(slot.0 as usize) {
        *place = Some(finding);
    }
}

/// Whether two forms, or queries, have the same members in the same order; a placeholder stands for any value.
fn same_pairs(here: &str, sent: &str) -> bool {
    fn pairs(text: &str) -> Vec<(&str, &str)> {
        text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
    }
    let (here, sent) = (pairs(here), pairs(sent));
    let same =
        |(here, sent): (&(&str, &str), &(&str, &str))| here.0 == sent.0 && (here.1 == sent.1 || is_placeholder(here.1));
    here.len() == sent.len() && here.iter().zip(&sent).all(same)
}
