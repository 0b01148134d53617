//! How a fault is done: what the upstream gets to see of a request, and what the client gets to see of the upstream.
//!
//! It changes the double and makes replies; the socket is `wire`'s.

use std::time::Duration;

use adapters::{Double, Identifier, Profile, Twist};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use super::contact::Key;
use super::fault::Fault;

/// What became of one request.
pub(super) struct Effect {
    pub(super) step: Step,
    pub(super) deleted: Vec<Identifier>,
    /// Whether the fault, if there was one, did what its name says.
    pub(super) applied: bool,
    /// The time before the answer.
    pub(super) wait: Duration,
}

/// How a request is answered once it was carried out, or was not.
pub(super) enum Step {
    /// In one go.
    Answer(Response<Bytes>),
    /// Byte by byte, with this time before each.
    Drip(Duration, Response<Bytes>),
    /// Not all of it.
    Cut(Response<Bytes>),
    /// By these bytes, and the end of the connection.
    Raw(Bytes),
    /// By closing the connection.
    HangUp,
    /// By resetting it.
    Reset,
    /// Not at all.
    Never,
}

impl Step {
    /// The status that goes out, if one does. Raw bytes are not looked at.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(reply) | Self::Cut(reply) | Self::Drip(_, reply) => Some(reply.status().as_u16()),
            Self::Raw(_) | Self::HangUp | Self::Reset | Self::Never => None,
        }
    }
}

impl Effect {
    /// An answer that has nothing to do with the upstream's contacts.
    pub(super) fn answer(reply: Response<Bytes>) -> Self {
        Self::of(Step::Answer(reply))
    }

    fn of(step: Step) -> Self {
        Self { step, deleted: Vec::new(), applied: true, wait: Duration::ZERO }
    }
}

/// The upstream that a request comes to.
pub(super) struct Stage<'s> {
    pub(super) double: &'s mut dyn Double,
    pub(super) profile: &'static Profile,
    pub(super) request: &'s Request<Bytes>,
    /// Whom the request asks to delete.
    pub(super) asked: &'s [Identifier],
    pub(super) now_s: u64,
}

impl Stage<'_> {
    /// Does what the fault says, or carries the request out if there is none.
    pub(super) fn play(mut self, fault: Option<&Fault>) -> Effect {
        match fault {
            None | Some(Fault::Plain) => self.carry_out(Step::Answer),
            Some(Fault::CommitThenDrop) => self.carry_out(|_| Step::HangUp),
            Some(Fault::DropBeforeCommit) => Effect::of(Step::HangUp),
            Some(Fault::Reset { commit: true }) => self.carry_out(|_| Step::Reset),
            Some(Fault::Reset { commit: false }) => Effect::of(Step::Reset),
            Some(Fault::CutBody) => self.carry_out(Step::Cut),
            Some(Fault::Html(status)) => Effect::answer(page(*status)),
            Some(Fault::Empty(status)) => Effect::answer(empty(final_status(*status))),
            Some(Fault::Status(status)) => self.carry_out(|reply| Step::Answer(under(final_status(*status), reply))),
            Some(Fault::Accept202) => self.carry_out(|reply| Step::Answer(under(StatusCode::ACCEPTED, reply))),
            Some(Fault::SlowDrip(time)) => self.carry_out(|reply| Step::Drip(*time, reply)),
            // Whoever holds it plays it again, without the fault.
            Some(Fault::Stall | Fault::Hold) => Effect::of(Step::Never),
            Some(Fault::Throttle(wait_s)) => Effect::answer(self.double.throttled(*wait_s)),
            Some(Fault::Busy(wait_s)) => Effect::answer(busy(*wait_s)),
            Some(Fault::Redirect(status, to)) => Effect::answer(redirect(*status, to)),
            Some(Fault::Reply { status, headers, body }) => {
                Effect::answer(reply(final_status(*status), headers.clone(), Bytes::from(body.clone())))
            }
            Some(Fault::Raw(bytes)) => Effect::of(Step::Raw(bytes.clone())),
            Some(Fault::WrongIds) => self.twist(Twist::WrongIds),
            Some(Fault::MissingIds) => self.twist(Twist::MissingIds),
            Some(Fault::Contradict) => self.twist(Twist::Contradict),
            Some(Fault::Lie) => self.lie(),
            Some(Fault::Partial(failing)) => self.partial(failing),
            Some(Fault::Delay(time)) => Effect { wait: *time, ..self.carry_out(Step::Answer) },
        }
    }

    fn carry_out(&mut self, step: impl FnOnce(Response<Bytes>) -> Step) -> Effect {
        let answer = self.double.answer(self.request, self.now_s);
        Effect { deleted: answer.deleted, ..Effect::of(step(answer.response)) }
    }

    fn twist(&mut self, twist: Twist) -> Effect {
        let answer = self.double.answer(self.request, self.now_s);
        let twisted = self.double.twist(twist, &answer.response);
        let applied = twisted.is_some();
        Effect { deleted: answer.deleted, applied, ..Effect::answer(twisted.unwrap_or(answer.response)) }
    }

    /// There is no lie where the upstream had nothing to delete.
    fn lie(&mut self) -> Effect {
        let answer = self.double.answer(self.request, self.now_s);
        answer.deleted.iter().for_each(|identifier| self.double.seed(identifier, false));
        Effect { applied: !answer.deleted.is_empty(), ..Effect::answer(answer.response) }
    }

    fn partial(&mut self, failing: &[Identifier]) -> Effect {
        let free: Vec<_> = failing.iter().filter(|identifier| self.double.held(identifier) == Some(false)).collect();
        free.iter().for_each(|identifier| self.double.seed(identifier, true));
        let effect = self.carry_out(Step::Answer);
        free.iter().for_each(|identifier| self.double.seed(identifier, false));
        let asked: Vec<_> = self.asked.iter().map(|identifier| Key::of(self.profile, identifier)).collect();
        let applied = free.iter().any(|identifier| asked.contains(&Key::of(self.profile, identifier)));
        Effect { applied, ..effect }
    }
}

/// A reply without a body.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    under(status, Response::new(Bytes::new()))
}

/// A reply that somebody else made, as it can be sent.
pub(super) fn sendable(made: Response<Bytes>) -> Response<Bytes> {
    let (head, body) = made.into_parts();
    reply(final_status(head.status.as_u16()), head.headers, body)
}

fn reply(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Bytes> {
    let mut reply = under(status, Response::new(body));
    *reply.headers_mut() = headers;
    // The length that goes out is the body's own: a server that is told another one breaks off.
    for framing in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        reply.headers_mut().remove(framing);
    }
    reply
}

fn under(status: StatusCode, mut reply: Response<Bytes>) -> Response<Bytes> {
    *reply.status_mut() = status;
    reply
}

fn busy(wait_s: u64) -> Response<Bytes> {
    let mut reply = empty(StatusCode::TOO_MANY_REQUESTS);
    reply.headers_mut().insert(RETRY_AFTER, wait_s.into());
    reply
}

fn redirect(status: u16, to: &str) -> Response<Bytes> {
    let mut reply = empty(final_status(status));
    if let Ok(to) = HeaderValue::try_from(to) {
        reply.headers_mut().insert(LOCATION, to);
    }
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
