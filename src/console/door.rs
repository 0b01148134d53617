//! Who may look at the console, and what may change something through it.
//!
//! On loopback, whoever can reach it may look. With `server.admin_token`, the token is asked for, and beyond loopback the
//! console is closed without one. What changes something must come from one of its own pages: the browser says so, and the
//! page has a token of its own. Who is in is written down nowhere: a cookie is signed with a key that is forgotten with the process.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::api::{Entry, Peer};
use crate::clock;

/// How long a sign-in lasts, in seconds.
const SIGNED_IN_S: i64 = 8 * 3_600;
/// Wrong tokens from one address in a minute.
const GUESSES_PER_MIN: u32 = 10;
/// The longest form, in bytes, and how long it may take.
const LONGEST_FORM: usize = 4_096;
const FORM_TIMEOUT: Duration = Duration::from_secs(5);
const COOKIE_NAME: &str = "onedelete_console";
/// In the place of a pass, where none is needed.
const NO_PASS: &str = "-";

/// What the door is made of.
pub(super) struct Door {
    /// Whether nobody may look.
    closed: bool,
    /// SHA-256 of the token.
    token: Option<digest::Digest>,
    key: hmac::Key,
    /// Whether browsers reach the console through TLS.
    secure: bool,
    entry: Entry,
}

/// Somebody who may look.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// What the forms of this visitor's pages carry.
    pub(super) form_token: String,
    /// Whether there is a pass to give up.
    pub(super) signed_in: bool,
}

/// The members of a form that was sent from one of our own pages.
#[derive(Debug, Clone)]
pub(super) struct Form(Vec<(String, String)>);

/// Why somebody does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It listens beyond loopback, and there is no token.
    Closed,
    /// A name that is not this machine's own: what another page's script would use to read along.
    ForeignHost,
    /// The token is asked for.
    SignIn,
    /// It does not come from one of our own pages.
    ForeignPage,
    /// Too many wrong tokens came from this address.
    TooManyGuesses,
    /// The token was wrong.
    WrongToken,
}

impl Door {
    /// For a listener at this address.
    pub(super) fn new(listen: SocketAddr, token: Option<&str>, secure: bool) -> Self {
        // 244 bits of the system's chance. The library's own generator would take a quarter of the start to get ready.
        let chance = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        let key = hmac::Key::new(hmac::HMAC_SHA256, chance.as_flattened());
        Self {
            closed: token.is_none() && !listen.ip().is_loopback(),
            token: token.map(sha256),
            key,
            secure,
            entry: Entry::new(GUESSES_PER_MIN),
        }
    }

    /// Lets a request in, or says why not. What is not a look must be a form of our own.
    pub(super) async fn admit(&self, request: Request) -> Result<Request, Refusal> {
        let (mut parts, body) = request.into_parts();
        let visitor = self.look(&parts)?;
        if parts.method == Method::GET || parts.method == Method::HEAD {
            parts.extensions.insert(visitor);
            return Ok(Request::from_parts(parts, body));
        }
        let form = own_form(&parts, body).await?;
        let sent = form.member("token").unwrap_or_default();
        verify_slices_are_equal(sent.as_bytes(), visitor.form_token.as_bytes()).map_err(|_| Refusal::ForeignPage)?;
        parts.extensions.insert(visitor);
        parts.extensions.insert(form);
        Ok(Request::from_parts(parts, Body::empty()))
    }

    /// Whether somebody may look.
    fn look(&self, parts: &Parts) -> Result<Visitor, Refusal> {
        self.is_ours(parts)?;
        let Some(token) = &self.token else { return self.visitor(NO_PASS, false) };
        if let Some(shown) = bearer(&parts.headers) {
            self.compare(parts, shown, token)?;
            return self.visitor(NO_PASS, false);
        }
        let pass = pass(&parts.headers).filter(|pass| self.holds(pass)).ok_or(Refusal::SignIn)?;
        self.visitor(pass, true)
    }

    /// Takes a token from the form of the page that asks for it: a cookie.
    pub(super) async fn sign_in(&self, request: Request) -> Result<String, Refusal> {
        let (parts, body) = request.into_parts();
        self.is_ours(&parts)?;
        let form = own_form(&parts, body).await?;
        let Some(token) = &self.token else { return Err(Refusal::Closed) };
        self.compare(&parts, form.member("admin_token").unwrap_or_default(), token)?;
        let until_s = clock::unix_ms() / 1_000 + SIGNED_IN_S;
        let signature = self.sign("pass", &until_s.to_string());
        Ok(self.cookie(&format!("{until_s}.{signature}"), SIGNED_IN_S))
    }

    /// The cookie that takes a pass away.
    pub(super) fn sign_out(&self) -> String {
        self.cookie("", 0)
    }

    /// Whether the console is asked for as this machine, where nothing else keeps others' pages from reading it.
    pub(super) fn is_ours(&self, parts: &Parts) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        let local = host(parts).is_some_and(is_loopback);
        if self.token.is_some() || local { Ok(()) } else { Err(Refusal::ForeignHost) }
    }

    fn compare(&self, parts: &Parts, shown: &str, token: &digest::Digest) -> Result<(), Refusal> {
        let peer = parts.extensions.get::<Peer>().copied();
        if peer.is_some_and(|peer| self.entry.locked_out(peer, None).is_some()) {
            return Err(Refusal::TooManyGuesses);
        }
        verify_slices_are_equal(sha256(shown).as_ref(), token.as_ref()).map_err(|_| {
            peer.inspect(|peer| self.entry.wrong(*peer));
            Refusal::WrongToken
        })
    }

    fn visitor(&self, pass: &str, signed_in: bool) -> Result<Visitor, Refusal> {
        Ok(Visitor { form_token: self.sign("form", pass), signed_in })
    }

    fn holds(&self, pass: &str) -> bool {
        let Some((until_s, signature)) = pass.split_once('.') else { return false };
        let own = self.sign("pass", until_s);
        let right = verify_slices_are_equal(own.as_bytes(), signature.as_bytes()).is_ok();
        right && until_s.parse::<i64>().is_ok_and(|until_s| clock::unix_ms() / 1_000 < until_s)
    }

    fn sign(&self, what: &str, text: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{what} {text}").as_bytes());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn cookie(&self, value: &str, max_age_s: i64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{COOKIE_NAME}={value}; Path=/console; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}")
    }
}

impl Form {
    /// A member, if it stands there once.
    pub(super) fn member(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(own, _)| own == name);
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| value.as_str())
    }
}

/// Reads a form, if the browser says that it comes from one of our own pages.
async fn own_form(parts: &Parts, body: Body) -> Result<Form, Refusal> {
    if !is_same_origin(parts) {
        return Err(Refusal::ForeignPage);
    }
    let body = tokio::time::timeout(FORM_TIMEOUT, to_bytes(body, LONGEST_FORM)).await;
    let body = body.ok().and_then(Result::ok).ok_or(Refusal::ForeignPage)?;
    Ok(Form(form_urlencoded::parse(&body).into_owned().collect()))
}

/// What says nothing of where it comes from is foreign. Old browsers send `Origin` alone, and so do those that reach the
/// console without TLS.
fn is_same_origin(parts: &Parts) -> bool {
    let site = parts.headers.get("sec-fetch-site");
    let origin = parts.headers.get(ORIGIN);
    let own_site = site.map(|site| site.as_bytes() == b"same-origin");
    let own_origin = origin.map(|origin| {
        let named = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
        named.is_some_and(|named| authority(parts).is_some_and(|own| own.eq_ignore_ascii_case(named)))
    });
    match (own_site, own_origin) {
        (None, None) => false,
        (site, origin) => site.unwrap_or(true) && origin.unwrap_or(true),
    }
}

/// Host and port that were asked for.
fn authority(parts: &Parts) -> Option<&str> {
    let in_uri = parts.uri.authority().map(http::uri::Authority::as_str);
    in_uri.or_else(|| parts.headers.get(HOST)?.to_str().ok())
}

fn host(parts: &Parts) -> Option<&str> {
    let authority = authority(parts)?;
    match authority.strip_prefix('[') {
        Some(rest) => Some(rest.split_once(']')?.0),
        None => authority.split(':').next(),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn pass(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

fn sha256(text: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_our_own_pages_are_of_the_same_origin() {
        let host = ("host", "127.0.0.1:9090");
        for (headers, own) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "same-site")][..], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:9090")][..], false),
            (&[("sec-fetch-site", "none")][..], false),
            (&[("origin", "http://127.0.0.1:9090")][..], true),
            (&[("origin", "http://127.0.0.1:9091")][..], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "http://evil.example")][..], false),
            (&[("origin", "null")][..], false),
        ] {
            let all = [&[host], headers].concat();
            assert_eq!(is_same_origin(&parts(&all)), own, "{headers:?}");
        }
    }

    #[test]
    fn without_a_token_the_name_must_be_this_machines_own() {
        let open = Door::new("127.0.0.1:9090".parse().unwrap(), None, false);
        for (host, ours) in [
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("localhost:9090", true),
            ("LocalHost", true),
            ("evil.example:9090", false),
            ("127.0.0.1.evil.example", false),
            ("192.0.2.1:9090", false),
        ] {
            assert_eq!(open.look(&parts(&[("host", host)])).is_ok(), ours, "{host}");
        }
        let closed = Door::new("0.0.0.0:9090".parse().unwrap(), None, false);
        assert_eq!(closed.look(&parts(&[("host", "localhost")])).err(), Some(Refusal::Closed));
        let guarded = Door::new("0.0.0.0:9090".parse().unwrap(), Some("t"), true);
        assert_eq!(guarded.look(&parts(&[("host", "a.example")])).err(), Some(Refusal::SignIn));
        assert!(guarded.look(&parts(&[("host", "a.example"), ("authorization", "Bearer t")])).is_ok());
        let wrong = guarded.look(&parts(&[("host", "a.example"), ("authorization", "Bearer u")]));
        assert_eq!(wrong.err(), Some(Refusal::WrongToken));
    }

    #[test]
    fn a_pass_is_nobody_elses_and_ends() {
        let (own, other) = (
            Door::new("0.0.0.0:1".parse().unwrap(), Some("t"), true),
            Door::new("0.0.0.0:1".parse().unwrap(), Some("t"), true),
        );
        let later = (clock::unix_ms() / 1_000 + 60).to_string();
        let signed = |door: &Door, until: &str| format!("{until}.{}", door.sign("pass", until));
        assert!(own.holds(&signed(&own, &later)));
        assert!(!own.holds(&signed(&other, &later)) && !own.holds(&signed(&own, "1")) && !own.holds("."));
        let form = format!("{later}.{}", own.sign("form", &later));
        assert!(!own.holds(&form), "a form's token is no pass");
        assert!(own.cookie("x", 1).contains("HttpOnly; SameSite=Strict; Secure"));
    }
}
