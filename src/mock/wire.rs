//! HTTP for one connection: bounded requests in, whole or cut replies out.
//!
//! What a reply says is not decided here.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::fault::Step;
use super::upstream::Upstream;

/// The largest request body, in bytes. A larger one is answered with 413.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// Answers the requests of one connection, one after the other, until either side closes it.
pub(super) async fn serve(stream: TcpStream, upstream: Arc<Upstream>) {
    // Without it a small reply may wait for the client's acknowledgement. It only costs time, so failing is no matter.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(Arc::clone(&upstream), request));
    // The timer lets hyper end a connection whose request head does not come.
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // A connection that breaks is what faults are for; the journal says what became of its requests.
    let _ = connection.await;
}

/// The reply to one request. An error closes the connection without one.
async fn answer(upstream: Arc<Upstream>, request: Request<Incoming>) -> io::Result<Response<Reply>> {
    let (head, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => Some(body),
        Err(err) if err.is::<LengthLimitError>() => None,
        Err(_) => return Err(hung_up()),
    };
    let taken = upstream.take(head, body);
    match taken.step {
        Step::Answer(reply) => Ok(reply.map(Reply::whole)),
        Step::Cut(reply) => Ok(cut(reply)),
        Step::Late(time, reply) => {
            tokio::time::sleep(time).await;
            upstream.answered(taken.n, reply.status().as_u16());
            Ok(reply.map(Reply::whole))
        }
        Step::HangUp => Err(hung_up()),
        Step::Never => {
            let never: Infallible = std::future::pending().await;
            match never {}
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
    CutOff { flushed: bool },
}

impl Reply {
    fn whole(data: Bytes) -> Self {
        Self { data, end: End::Proper }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let data = std::mem::take(&mut self.data);
        if !data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.end {
            End::Proper => Poll::Ready(None),
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
        matches!(self.end, End::Proper) && self.data.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Proper => SizeHint::with_exact(self.data.len() as u64),
            End::CutOff { .. } => SizeHint::default(),
        }
    }
}
