//! HTTP for one connection: bounded requests in, whole, slow or cut replies out.
//!
//! What a reply says is not decided here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::time::Sleep;

use super::effect::{Step, empty};
use super::socket::{Ending, Socket};
use super::upstream::{Arrival, Upstream};
use crate::arrivals::Arrived;

/// The largest request body, in bytes. A larger one is answered with 413.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// Where the requests of an address go.
pub(super) enum Door {
    /// All to one upstream.
    One(Arc<Upstream>),
    /// Each to the upstream that the first part of its path names; that part is then taken away.
    Named(BTreeMap<String, Arc<Upstream>>),
}

/// Answers the requests of one connection, one after the other, until either side closes it.
pub(super) async fn serve(stream: impl Arrived, door: Arc<Door>) {
    let ending = Arc::new(Ending::default());
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(&ending)));
    let last = Arc::clone(&ending);
    let service = service_fn(move |request| Box::pin(answer(Arc::clone(&door), Arc::clone(&ending), request)));
    // The timer lets hyper end a connection whose request head does not come.
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(socket, service);
    // A connection that breaks is what faults are for; the journal says what became of its requests.
    let ended = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let mut socket = connection.into_parts().io.into_inner();
    let raw = last.raw();
    if let Some(bytes) = raw {
        let _ = socket.write_all(bytes).await;
    }
    if ended.is_ok() || raw.is_some() {
        let _ = socket.shutdown().await;
    }
}

/// The reply to one request. An error closes the connection without one, in the way that `ending` was told.
async fn answer(door: Arc<Door>, ending: Arc<Ending>, request: Request<Incoming>) -> io::Result<Response<Reply>> {
    let (mut head, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => Some(body),
        Err(err) if err.is::<LengthLimitError>() => None,
        Err(_) => return Err(hung_up()),
    };
    let Some(upstream) = door.lead(&mut head) else { return Ok(empty(StatusCode::NOT_FOUND).map(Reply::whole)) };
    let _in_flight = upstream.begin();
    let taken = match upstream.take(head, body) {
        Arrival::Taken(taken) => taken,
        Arrival::Held(freed) => freed.await.map_err(|_| hung_up())?,
    };
    if !taken.wait.is_zero() {
        tokio::time::sleep(taken.wait).await;
        upstream.answered(&taken);
    }
    match taken.step {
        Step::Answer(reply) => Ok(reply.map(Reply::whole)),
        Step::Drip(time, reply) => Ok(reply.map(|data| Reply::drip(time, data))),
        Step::Cut(reply) => Ok(cut(reply)),
        Step::Raw(bytes) => {
            ending.say(bytes);
            Err(hung_up())
        }
        Step::HangUp => Err(hung_up()),
        Step::Reset => {
            ending.reset();
            Err(hung_up())
        }
        Step::Never => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    }
}

impl Door {
    /// Whom a request is for; `None` if its path names nobody.
    fn lead(&self, head: &mut Parts) -> Option<&Upstream> {
        match self {
            Self::One(upstream) => Some(upstream),
            Self::Named(upstreams) => {
                let whole = head.uri.path_and_query()?.as_str().strip_prefix('/')?;
                let end = whole.find(['/', '?']).unwrap_or(whole.len());
                let (name, rest) = whole.split_at(end);
                let upstream = upstreams.get(name)?;
                let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
                let mut parts = head.uri.clone().into_parts();
                parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
                head.uri = http::Uri::from_parts(parts).ok()?;
                Some(upstream)
            }
        }
    }
}

async fn read(body: Incoming) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let mut body = Limited::new(body, MAX_BODY_BYTES);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// The head as if all of it followed, and half of the body.
fn cut(reply: Response<Bytes>) -> Response<Reply> {
    let promised = reply.body().len().max(1);
    let mut reply = reply.map(|body| Reply { data: body.slice(..body.len() / 2), end: End::CutOff { flushed: false } });
    reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(promised));
    reply
}

fn hung_up() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// A reply's body.
struct Reply {
    data: Bytes,
    end: End,
}

enum End {
    Proper,
    CutOff {
        flushed: bool,
    },
    /// With this time before each byte.
    Dripping {
        time: Duration,
        pause: Pin<Box<Sleep>>,
    },
}

impl Reply {
    fn whole(data: Bytes) -> Self {
        Self { data, end: End::Proper }
    }

    fn drip(time: Duration, data: Bytes) -> Self {
        Self { data, end: End::Dripping { time, pause: Box::pin(tokio::time::sleep(time)) } }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self { data, end } = self.get_mut();
        if !data.is_empty() {
            let some = match end {
                End::Dripping { time, pause } => {
                    if pause.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let next = pause.deadline().checked_add(*time).unwrap_or(pause.deadline());
                    pause.as_mut().reset(next);
                    data.split_to(1)
                }
                End::Proper | End::CutOff { .. } => std::mem::take(data),
            };
            return Poll::Ready(Some(Ok(Frame::data(some))));
        }
        match end {
            End::Proper | End::Dripping { .. } => Poll::Ready(None),
            // hyper sends what it has when a body has to wait. An error right away would take that along.
            End::CutOff { flushed } if !*flushed => {
                *flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            End::CutOff { .. } => Poll::Ready(Some(Err(hung_up()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        !matches!(self.end, End::CutOff { .. }) && self.data.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Proper | End::Dripping { .. } => SizeHint::with_exact(self.data.len() as u64),
            End::CutOff { .. } => SizeHint::default(),
        }
    }
}
