//! What can go wrong between a gateway and an upstream, on demand.
//!
//! A fault says what happens to one request. Which request that is, is `rule`'s and `scenario`'s part; how it is done is
//! `effect`'s.

use std::fmt;
use std::time::Duration;

use adapters::Identifier;
use bytes::Bytes;
use http::HeaderMap;

/// What becomes of a request instead of the plain answer.
///
/// Where the upstream *carries it out*, what the request deletes is gone, whatever the client gets to know of it.
/// Otherwise the request does not reach the upstream, and nothing is deleted.
///
/// A number that is no final HTTP status (200 to 999) is answered as 500. In JSON a fault is an object whose member
/// `fault` has its name, with its parameters beside it, as in `{"fault": "html", "status": 502}`.
#[derive(Clone, PartialEq, Eq)]
pub enum Fault {
    /// `commit_then_drop`: carries it out, then closes the connection without an answer.
    CommitThenDrop,
    /// `drop_before_commit`: closes the connection without an answer.
    DropBeforeCommit,
    /// `reset`: a TCP reset instead of an answer.
    Reset {
        /// Whether it is carried out before.
        commit: bool,
    },
    /// `cut_body`: carries it out, sends the head and half of the body, then closes the connection. Where the vendor's
    /// reply has no body, the head promises one byte that never comes.
    CutBody,
    /// `html`: a page with this status, as from a proxy or a portal in between.
    Html(u16),
    /// `empty`: this status without a body.
    Empty(u16),
    /// `status`: carries it out and sends the vendor's reply under another status.
    Status(u16),
    /// `slow_drip`: carries it out and sends the body byte by byte, with this time before each (`ms`).
    SlowDrip(Duration),
    /// `stall`: never answers; it ends when the client goes away or the mock stops.
    Stall,
    /// `hold`: waits. It has arrived and is not carried out until [`Mock::release`](super::Mock::release) lets it go; then
    /// it is carried out and gets its plain answer. It is carried out then even if its client has gone.
    /// While 4,096 are held, one more is carried out at once.
    Hold,
    /// `throttle`: the vendor's own reply to too many requests, which asks for so many seconds of rest (`wait_s`) as far
    /// as that vendor says how long.
    Throttle(u64),
    /// `busy`: 429 without a body, and `Retry-After` with so many seconds (`wait_s`).
    Busy(u64),
    /// `wrong_ids`: carries it out, and the reply names other contacts.
    WrongIds,
    /// `missing_ids`: carries it out, and the reply leaves contacts out.
    MissingIds,
    /// `contradict`: carries it out, and the reply says two things that cannot both be true.
    Contradict,
    /// `accept_202`: carries it out and sends the vendor's reply under 202.
    Accept202,
    /// `redirect`: this status with a `Location` (`to`).
    Redirect(u16, String),
    /// `reply`: this reply, whatever was asked for. The body's length is always told as it is: `Content-Length` and
    /// `Transfer-Encoding` are left out, for what is wrong in them takes `raw`.
    Reply {
        /// Its status.
        status: u16,
        /// Its headers. In JSON an object of texts; none, unless given.
        headers: HeaderMap,
        /// Its body. Empty in JSON, unless given.
        body: String,
    },
    /// `raw`: these bytes as they are instead of an HTTP reply, then the connection closes. In JSON they are a text (`bytes`)
    /// in which each character stands for one byte: U+0000 to U+00FF.
    Raw(Bytes),
    /// `lie`: the vendor's success, and the store keeps the contacts.
    Lie,
    /// `partial`: carries it out, with these contacts held for this one request (`failing`). Others of the call are
    /// deleted.
    Partial(Vec<Identifier>),
    /// `delay`: carries it out at once and answers so much later (`ms`).
    Delay(Duration),
    /// `none`: the plain answer. It holds a place in a scenario, or spares a request from the faults behind it.
    Plain,
}

impl Fault {
    /// The name in JSON and in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CommitThenDrop => "commit_then_drop",
            Self::DropBeforeCommit => "drop_before_commit",
            Self::Reset { .. } => "reset",
            Self::CutBody => "cut_body",
            Self::Html(_) => "html",
            Self::Empty(_) => "empty",
            Self::Status(_) => "status",
            Self::SlowDrip(_) => "slow_drip",
            Self::Stall => "stall",
            Self::Hold => "hold",
            Self::Throttle(_) => "throttle",
            Self::Busy(_) => "busy",
            Self::WrongIds => "wrong_ids",
            Self::MissingIds => "missing_ids",
            Self::Contradict => "contradict",
            Self::Accept202 => "accept_202",
            Self::Redirect(..) => "redirect",
            Self::Reply { .. } => "reply",
            Self::Raw(_) => "raw",
            Self::Lie => "lie",
            Self::Partial(_) => "partial",
            Self::Delay(_) => "delay",
            Self::Plain => "none",
        }
    }
}

// A redirect may lead to a place that is named after a contact, and a reply may name one.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommitThenDrop => f.write_str("CommitThenDrop"),
            Self::DropBeforeCommit => f.write_str("DropBeforeCommit"),
            Self::Reset { commit } => write!(f, "Reset(commit: {commit})"),
            Self::CutBody => f.write_str("CutBody"),
            Self::Html(status) => write!(f, "Html({status})"),
            Self::Empty(status) => write!(f, "Empty({status})"),
            Self::Status(status) => write!(f, "Status({status})"),
            Self::SlowDrip(time) => write!(f, "SlowDrip({time:?})"),
            Self::Stall => f.write_str("Stall"),
            Self::Hold => f.write_str("Hold"),
            Self::Throttle(wait_s) => write!(f, "Throttle({wait_s})"),
            Self::Busy(wait_s) => write!(f, "Busy({wait_s})"),
            Self::WrongIds => f.write_str("WrongIds"),
            Self::MissingIds => f.write_str("MissingIds"),
            Self::Contradict => f.write_str("Contradict"),
            Self::Accept202 => f.write_str("Accept202"),
            Self::Redirect(status, _) => write!(f, "Redirect({status}, …)"),
            Self::Reply { status, .. } => write!(f, "Reply({status}, …)"),
            Self::Raw(bytes) => write!(f, "Raw({} bytes)", bytes.len()),
            Self::Lie => f.write_str("Lie"),
            Self::Partial(failing) => write!(f, "Partial({} failing)", failing.len()),
            Self::Delay(time) => write!(f, "Delay({time:?})"),
            Self::Plain => f.write_str("Plain"),
        }
    }
}
