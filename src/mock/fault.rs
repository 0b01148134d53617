//! What can go wrong between a gateway and an upstream, on demand.
//!
//! A fault says what happens to one request. Which request that is, is [`Mock`](super::Mock)'s part.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

/// What becomes of a request instead of the plain answer.
///
/// In the first four the upstream carries the request out: what it deletes then is gone, whatever the client gets to
/// know of it. In the others the request does not reach the upstream, and nothing is deleted.
///
/// A number that is no final HTTP status (200 to 999) is answered as 500.
#[derive(Clone, PartialEq, Eq)]
pub enum Fault {
    /// Carries it out, then closes the connection without an answer.
    CommitThenDrop,
    /// Carries it out, sends the head and half of the body, then closes the connection. Where the vendor's reply has
    /// no body, the head promises one byte that never comes.
    CutBody,
    /// Carries it out and sends the vendor's reply under another status.
    Status(u16),
    /// Carries it out at once and answers so much later.
    Delay(Duration),
    /// Closes the connection without an answer.
    DropBeforeCommit,
    /// Never answers; it ends when the client goes away or the mock stops.
    Stall,
    /// A page with this status, as from a proxy or a portal in between.
    Html(u16),
    /// This status without a body.
    Empty(u16),
    /// 429 without a body, and `Retry-After` with so many seconds.
    Busy(u64),
    /// This status with a `Location`.
    Redirect(u16, String),
}

// A redirect may lead to a place that is named after a contact.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommitThenDrop => f.write_str("CommitThenDrop"),
            Self::CutBody => f.write_str("CutBody"),
            Self::Status(status) => write!(f, "Status({status})"),
            Self::Delay(time) => write!(f, "Delay({time:?})"),
            Self::DropBeforeCommit => f.write_str("DropBeforeCommit"),
            Self::Stall => f.write_str("Stall"),
            Self::Html(status) => write!(f, "Html({status})"),
            Self::Empty(status) => write!(f, "Empty({status})"),
            Self::Busy(wait_s) => write!(f, "Busy({wait_s})"),
            Self::Redirect(status, _) => write!(f, "Redirect({status}, …)"),
        }
    }
}

/// How a request is answered once it was carried out, or was not.
pub(super) enum Step {
    /// At once.
    Answer(Response<Bytes>),
    /// At once, but not all of it.
    Cut(Response<Bytes>),
    /// After this time.
    Late(Duration, Response<Bytes>),
    /// By closing the connection.
    HangUp,
    /// Not at all.
    Never,
}

impl Step {
    /// What `fault` makes of a request; `carry_out` is called if the upstream gets to see it.
    pub(super) fn of(fault: Option<Fault>, carry_out: impl FnOnce() -> Response<Bytes>) -> Self {
        match fault {
            None => Self::Answer(carry_out()),
            Some(Fault::CommitThenDrop) => {
                carry_out();
                Self::HangUp
            }
            Some(Fault::CutBody) => Self::Cut(carry_out()),
            Some(Fault::Status(status)) => {
                let mut reply = carry_out();
                *reply.status_mut() = final_status(status);
                Self::Answer(reply)
            }
            Some(Fault::Delay(time)) => Self::Late(time, carry_out()),
            Some(Fault::DropBeforeCommit) => Self::HangUp,
            Some(Fault::Stall) => Self::Never,
            Some(Fault::Html(status)) => Self::Answer(page(status)),
            Some(Fault::Empty(status)) => Self::Answer(empty(final_status(status))),
            Some(Fault::Busy(wait_s)) => {
                let mut reply = empty(StatusCode::TOO_MANY_REQUESTS);
                reply.headers_mut().insert(RETRY_AFTER, wait_s.into());
                Self::Answer(reply)
            }
            Some(Fault::Redirect(status, to)) => {
                let mut reply = empty(final_status(status));
                if let Ok(to) = HeaderValue::try_from(to) {
                    reply.headers_mut().insert(LOCATION, to);
                }
                Self::Answer(reply)
            }
        }
    }

    /// The status that goes out now, if one does.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(reply) | Self::Cut(reply) => Some(reply.status().as_u16()),
            Self::Late(..) | Self::HangUp | Self::Never => None,
        }
    }
}

/// A reply without a body.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = status;
    reply
}

fn page(status: u16) -> Response<Bytes> {
    let status = final_status(status);
    let mut reply = empty(status);
    *reply.body_mut() = Bytes::from(format!("<!DOCTYPE html><html><body><h1>{status}</h1></body></html>"));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    reply
}

/// A status below 200 only announces another one, and HTTP/1 servers do not send it as an answer.
fn final_status(status: u16) -> StatusCode {
    let known = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
    known.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
