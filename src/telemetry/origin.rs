//! What a request is called: its own id, and its place in its caller's trace (W3C Trace Context).
//!
//! What is not exactly as the specification has it counts as absent: a wrong id would tie lines together that have nothing to do
//! with each other. It records nothing, and decides nothing about what is recorded.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock;
use crate::store::DeletionId;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `tracestate` that is passed on, in bytes: what the specification asks of everybody.
const LONGEST_STATE: usize = 512;
/// The most vendors in it.
const MOST_VENDORS: usize = 32;
/// The bits of the flags that are known: recorded, and an id that is random.
const KNOWN_FLAGS: u8 = 3;

/// What a request is called.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    id: Option<HeaderValue>,
    /// Whether the caller chose the id.
    is_own: bool,
    /// The caller's place in its trace.
    pub(super) parent: Option<Arc<Parent>>,
}

/// A place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) flags: u8,
    pub(super) state: Option<HeaderValue>,
    /// As it came.
    text: HeaderValue,
}

impl Origin {
    /// The caller's own id, if it is harmless in a log line; else the id of its trace; else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let parent = Parent::read(headers).map(Arc::new);
        let own = headers.get(REQUEST_ID).filter(|id| is_request_id(id)).cloned();
        let is_own = own.is_some();
        let new = || match &parent {
            Some(parent) => hex(parent.trace),
            None => new_request_id(),
        };
        Self { id: own.or_else(|| HeaderValue::try_from(new()).ok()), is_own, parent }
    }

    /// The id, for a log line.
    pub(crate) fn id(&self) -> &str {
        self.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default()
    }

    /// The id, if it is the caller's own.
    pub(super) fn own_id(&self) -> Option<&HeaderValue> {
        self.id.as_ref().filter(|_| self.is_own)
    }

    /// The id of the caller's trace, for a log line.
    pub(crate) fn trace(&self) -> Option<String> {
        self.parent.as_ref().map(|parent| hex(parent.trace))
    }

    /// Tells the caller what its request is called.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        if let Some(parent) = self.parent {
            headers.insert(TRACEPARENT, parent.text.clone());
        }
        if let Some(id) = self.id {
            headers.insert(REQUEST_ID, id);
        }
    }
}

/// By its time, so that those of an hour stand together. Nobody gains anything by guessing one, so no secret chance is needed.
fn new_request_id() -> String {
    let mut chance = [0; 10];
    fastrand::fill(&mut chance);
    let id = uuid::Builder::from_unix_timestamp_millis(clock::unix_ms().unsigned_abs(), &chance).into_uuid();
    id.simple().to_string()
}

/// A caller's own request id is kept if it is harmless in a log line.
fn is_request_id(value: &HeaderValue) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
}

/// A trace's id as it is written.
pub(super) fn hex(trace: u128) -> String {
    format!("{trace:032x}")
}

impl Parent {
    /// The only `traceparent`, with what `tracestate` adds to it.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let text = all.next()?;
        if all.next().is_some() {
            return None;
        }
        let (trace, span, flags) = parse(text.as_bytes())?;
        Some(Self { trace, span, flags, state: state(headers), text: text.clone() })
    }
}

/// Trace, span and flags of a `traceparent`. A later version may have more at its end; what is known of it stays where it is.
fn parse(text: &[u8]) -> Option<(u128, u64, u8)> {
    let version = number(text.get(..2)?)? as u8;
    let ends = match version {
        0 => text.len() == 55,
        0xff => false,
        _ => text.len() == 55 || text.get(55) == Some(&b'-'),
    };
    if !ends || [2, 35, 52].iter().any(|at| text.get(*at) != Some(&b'-')) {
        return None;
    }
    let trace = number(text.get(3..35)?)?;
    let span = number(text.get(36..52)?)? as u64;
    let flags = number(text.get(53..55)?)? as u8;
    (trace != 0 && span != 0).then_some((trace, span, flags & KNOWN_FLAGS))
}

/// Lowercase hexadecimal digits and nothing else; 32 at most.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

/// All `tracestate` headers as one; `None` where there is none that may be passed on.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut all = headers.get_all(TRACESTATE).iter();
    let first = all.next()?;
    let whole = match all.next() {
        None => first.clone(),
        Some(second) => {
            let parts: Vec<_> = [first, second].into_iter().chain(all).map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&parts.join(&b',')).ok()?
        }
    };
    let text = whole.to_str().ok()?;
    let members: Vec<_> = text.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let members: Vec<_> = members.into_iter().filter(|member| !member.is_empty()).collect();
    let keys: std::collections::BTreeSet<_> = members.iter().filter_map(|member| member_key(member)).collect();
    // As many keys as members: each is well formed, and none stands twice.
    let good = !members.is_empty() && members.len() <= MOST_VENDORS && keys.len() == members.len();
    (good && text.len() <= LONGEST_STATE).then_some(whole)
}

/// The key of a well-formed member of `tracestate`.
fn member_key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(&b);
    let starts = key.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let visible = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
    let good = starts && key.len() <= 256 && key.bytes().all(plain) && key.matches('@').count() <= 1;
    (good && (1..=256).contains(&value.len()) && value.bytes().all(visible)).then_some(key)
}

tokio::task_local! {
    static REQUEST: Request;
}

/// The request that is being worked on here.
struct Request {
    origin: Origin,
    /// The deletion that it turned out to be about.
    deletion: Cell<Option<DeletionId>>,
}

/// Works on a request under its name: log lines can ask for it. With what came of it, the deletion that it was about.
pub(crate) async fn under<F: Future + Unpin>(origin: Origin, work: F) -> (F::Output, Option<DeletionId>) {
    let mut scope = pin!(REQUEST.scope(Request { origin, deletion: Cell::new(None) }, work));
    let out = scope.as_mut().await;
    (out, scope.take_value().and_then(|request| request.deletion.get()))
}

/// The request that is worked on here is about this deletion.
pub(crate) fn about(deletion: DeletionId) {
    let _ = REQUEST.try_with(|request| request.deletion.set(Some(deletion)));
}

/// What the request is called that is worked on here, if there is anything in it that the caller chose.
pub(super) fn chosen() -> Option<Origin> {
    let chosen = |request: &Request| request.origin.is_own || request.origin.parent.is_some();
    REQUEST.try_with(|request| chosen(request).then(|| request.origin.clone())).ok().flatten()
}

/// The id of the request that is being worked on here.
pub(crate) fn request_id() -> Option<String> {
    REQUEST.try_with(|request| request.origin.id().to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            })
    }

    #[test]
    fn a_traceparent_counts_only_as_it_is_specified() {
        let read = |text: &str| Origin::of(&headers(&[(TRACEPARENT, text)])).parent.map(|parent| parent.flags);
        for (text, flags) in [
            (GOOD.to_owned(), 1),
            (GOOD.replace("-01", "-00"), 0),
            (GOOD.replace("-01", "-ff"), 3),
            (GOOD.replacen("00-", "cc-", 1), 1),
            (GOOD.replacen("00-", "cc-", 1) + "-what-will-be", 1),
        ] {
            assert_eq!(read(&text), Some(flags), "{text}");
        }
        for text in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replace("0af", "0AF"),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replacen("00-", "0g-", 1),
            &(GOOD.to_owned() + "-more"),
            &(GOOD.replacen("00-", "cc-", 1) + "."),
            &(GOOD.to_owned() + "0"),
            &GOOD[1..],
            &GOOD[..54],
            &GOOD.replace('-', "_"),
            &GOOD.replace(TRACE, &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("0af", "+af"),
            &format!("{GOOD},{GOOD}"),
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(Origin::of(&headers(&[(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)])).parent.is_none());
    }

    #[test]
    fn a_tracestate_is_passed_on_whole_or_not_at_all() {
        let read = |states: &[&str]| {
            let mut all = vec![(TRACEPARENT, GOOD)];
            all.extend(states.iter().map(|state| (TRACESTATE, *state)));
            let parent = Origin::of(&headers(&all)).parent.unwrap();
            parent.state.as_ref().map(|state| state.to_str().unwrap().to_owned())
        };
        for (states, whole) in [
            (&["a=1"][..], "a=1"),
            (
                &["rojo=00f067aa0ba902b7, congo=t61rcWkgMzE ,", "x@y=ok"],
                "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE ,,x@y=ok",
            ),
        ] {
            assert_eq!(read(states).as_deref(), Some(whole));
        }
        let many: Vec<_> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert!(read(&[&many[..32].join(",")]).is_some());
        let long = format!("a={0},b={0}", "x".repeat(255));
        for bad in [&many.join(","), "", ",", "a", "a=", "A=1", "a=1,a=2", "a=1=2", "a@b@c=1", "a=1,b", &long] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
        // Without a parent there is no trace that it could belong to.
        assert!(Origin::of(&headers(&[(TRACESTATE, "a=1")])).parent.is_none());
    }

    #[test]
    fn a_request_is_called_what_its_caller_calls_it() {
        let own = Origin::of(&headers(&[(REQUEST_ID, "row-7"), (TRACEPARENT, GOOD)]));
        assert_eq!((own.id(), own.own_id().is_some(), own.trace().as_deref()), ("row-7", true, Some(TRACE)));
        let traced = Origin::of(&headers(&[(TRACEPARENT, GOOD)]));
        assert_eq!((traced.id(), traced.own_id()), (TRACE, None));
        for nothing in ["", " ", "a b", "a\tb", "ä", &"x".repeat(129)] {
            let new = Origin::of(&headers(&[(REQUEST_ID, nothing)]));
            assert_eq!((new.id().len(), new.own_id(), new.trace()), (32, None, None), "{nothing}");
        }
        let mut told = HeaderMap::new();
        own.tell(&mut told);
        assert_eq!(told, headers(&[(TRACEPARENT, GOOD), (REQUEST_ID, "row-7")]));
    }
}
