//! One connection to an origin: one request at a time, and what comes back.
//!
//! Nothing drives it but whoever waits for a reply: while nobody does, it does not move, and what the server said or did
//! meanwhile is seen before the next request's first byte is written. It knows no time, and decides about no connection's end.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::unconstrained;

use crate::outbound::dial::Stream;

/// The longest head of a reply, in bytes, that is kept while its end is still to come.
const MAX_HEAD_BYTES: usize = 64 * 1_024;

/// Where a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: Scheme,
    authority: Authority,
}

/// A connection.
pub(super) struct Line {
    origin: Origin,
    /// What requests are told as their `Host`.
    host: HeaderValue,
    sender: http1::SendRequest<Full<Bytes>>,
    /// Until it is over.
    connection: Option<http1::Connection<Io, Full<Bytes>>>,
}

type Io = TokioIo<Box<dyn Stream>>;

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum NoReply {
    /// The connection was over before the request's first byte was written. It is where it was before.
    TakenBack,
    /// Some of it may have been written.
    Lost,
}

impl Origin {
    /// Takes it out of a URI, which is in origin form after that. `None` if there is none in it.
    pub(super) fn taken_from(uri: &mut Uri) -> Option<Self> {
        let parts = std::mem::take(uri).into_parts();
        *uri = parts.path_and_query.map(Uri::from).unwrap_or_default();
        Some(Self { scheme: parts.scheme?, authority: parts.authority? })
    }

    /// The URI of its root.
    pub(super) fn uri(&self) -> Uri {
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query("/");
        uri.build().unwrap_or_default()
    }

    /// With the port only where it is not the scheme's.
    fn host(&self) -> Option<HeaderValue> {
        let host = self.authority.host();
        let usual = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        match self.authority.port().filter(|port| port.as_u16() != usual) {
            Some(port) => HeaderValue::from_maybe_shared(Bytes::from(format!("{host}:{port}"))).ok(),
            None => HeaderValue::from_str(host).ok(),
        }
    }
}

impl Line {
    /// Over a stream that leads there.
    pub(super) async fn over(stream: Box<dyn Stream>, origin: &Origin) -> io::Result<Box<Self>> {
        let host = origin.host().ok_or(io::ErrorKind::InvalidInput)?;
        let opening = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream));
        let (sender, connection) = opening.await.map_err(io::Error::other)?;
        Ok(Box::new(Self { origin: origin.clone(), host, sender, connection: Some(connection) }))
    }

    pub(super) fn leads_to(&self, origin: &Origin) -> bool {
        self.origin == *origin
    }

    /// Sends a request, and reads the head of its reply. A request that cannot be taken back is gone.
    pub(super) async fn ask(&mut self, request: &mut Request<Full<Bytes>>) -> Result<Response<Incoming>, NoReply> {
        request.headers_mut().entry(HOST).or_insert_with(|| self.host.clone());
        // Without a limit of its own: it is told at once what the connection, which has one, has come to.
        let mut reply = pin!(unconstrained(self.sender.try_send_request(std::mem::take(request))));
        self.until(|context| reply.as_mut().poll(context)).await.map_err(|mut err| match err.take_message() {
            Some(taken_back) => {
                *request = taken_back;
                NoReply::TakenBack
            }
            None => NoReply::Lost,
        })
    }

    /// The next part of a reply's body.
    pub(super) async fn frame(&mut self, body: &mut Incoming) -> Option<hyper::Result<Frame<Bytes>>> {
        self.until(|context| Pin::new(&mut *body).poll_frame(context)).await
    }

    /// Whether another request may follow: the reply has come to its end, nothing behind it, and the server wants to go on.
    pub(super) fn is_free(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Ends it in order, as far as that needs no waiting.
    pub(super) fn close(self: Box<Self>) {
        let Self { sender, connection, .. } = *self;
        drop(sender);
        if let Some(mut connection) = connection {
            let _ = Pin::new(&mut connection).poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Lets the connection go on until something has come of it. That is asked for without a waker: nothing comes but by this.
    async fn until<T>(&mut self, mut come: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|context| {
            let unheard = &mut Context::from_waker(Waker::noop());
            if let Poll::Ready(come) = come(unheard) {
                return Poll::Ready(come);
            }
            self.go_on(context);
            come(unheard)
        })
        .await
    }

    fn go_on(&mut self, context: &mut Context<'_>) {
        // Once it is dropped, whoever waits for something of it is told that nothing comes.
        self.connection.take_if(|connection| Pin::new(connection).poll(context).is_ready());
    }
}
