//! The HTTP client of one connection, with nothing in it that could act by itself.
//!
//! No redirects, no proxies, no referer, no cookies, no decompression: each was seen to send a delete, or a credential, where
//! nobody asked for it. What goes out is byte for byte what was planned. A request that was taken back before its first byte,
//! because the kept connection had just been closed, goes out on another; nothing else is sent twice. It does not log.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adapters::{Fault, FaultCode, UpstreamWord};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, USER_AGENT};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::dial::{Dial, DialRules, Sockets, Stream};
use crate::engine::Lost;

/// More header lines than this in a reply make it unreadable.
const MAX_HEADERS: usize = 64;

/// The longest head of a reply, in bytes, that is kept while its end is still to come.
const MAX_HEAD_BYTES: usize = 64 * 1_024;

/// What a client may do.
#[derive(Debug, Clone, Copy)]
pub struct ClientRules {
    /// How long to wait for a connection.
    pub connect_ms: u64,
    /// How long to wait for a whole reply.
    pub response_ms: u64,
    /// How long an idle connection is kept.
    pub pool_idle_ms: u64,
    /// Idle connections that are kept.
    pub max_idle: usize,
    /// The longest body of a reply.
    pub max_response_bytes: usize,
    /// Whether names may lead to addresses that are not public.
    pub allow_private: bool,
    /// Whether plain http is refused.
    pub https_only: bool,
}

/// The HTTP client of one connection.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<Connector, Full<Bytes>>,
    response: Duration,
    max_response_bytes: usize,
    #[cfg(test)]
    stand_in: Option<StandIn>,
}

/// What answers instead of the network in tests that run in virtual time, where sockets have no place.
#[cfg(test)]
pub(crate) type StandIn = Arc<dyn Fn(http::Request<Bytes>) -> Standing + Send + Sync>;

/// An answer to come.
#[cfg(test)]
pub(crate) type Standing = Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, Lost>> + Send>>;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client(…)")
    }
}

impl Client {
    /// Fails only where the machine has no usable TLS set-up.
    pub fn new(rules: ClientRules) -> Result<Self, String> {
        let ClientRules { allow_private, https_only, .. } = rules;
        Ok(Self::dialled_by(rules, Arc::new(Sockets::new(DialRules { allow_private, https_only })?)))
    }

    /// The same, with connections that something else makes.
    pub fn dialled_by(rules: ClientRules, dial: Arc<dyn Dial>) -> Self {
        let inner = legacy::Client::builder(TokioExecutor::new())
            // Below the server's own idle timeout, or a delete meets a connection that is just being closed.
            .pool_idle_timeout(Duration::from_millis(rules.pool_idle_ms))
            .pool_max_idle_per_host(rules.max_idle)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // Only what was handed back whole, none of it written.
            .retry_canceled_requests(true)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(Connector { dial, patience: Duration::from_millis(rules.connect_ms) });
        Self {
            inner,
            response: Duration::from_millis(rules.response_ms),
            max_response_bytes: rules.max_response_bytes,
            #[cfg(test)]
            stand_in: None,
        }
    }

    #[cfg(test)]
    pub(super) fn standing_in(&mut self, stand_in: StandIn) {
        self.stand_in = Some(stand_in);
    }

    /// Sends one request once, and reads its reply whole. Only a failure to connect proves that nothing was sent.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Lost> {
        #[cfg(test)]
        if let Some(stand_in) = &self.stand_in {
            return stand_in(request).await;
        }
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("onedelete/", env!("CARGO_PKG_VERSION"))));
        let mut status = None;
        let ended = tokio::time::timeout(self.response, self.exchange(request, &mut status)).await;
        ended.unwrap_or_else(|_| Err(maybe_sent(FaultCode::ResponseTimeout, status)))
    }

    /// The status is told as soon as it is known.
    async fn exchange(
        &self,
        request: http::Request<Full<Bytes>>,
        status: &mut Option<StatusCode>,
    ) -> Result<http::Response<Bytes>, Lost> {
        let reply = self.inner.request(request).await.map_err(|err| lost(&err))?;
        let (head, mut body) = reply.into_parts();
        *status = Some(head.status);
        let unreadable = || maybe_sent(FaultCode::ResponseUnreadable, Some(head.status));
        if head.headers.len() > MAX_HEADERS || is_encoded(&head.headers) {
            return Err(unreadable());
        }
        let mut whole = Gathered::default();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| unreadable())?.into_data() else { continue };
            if whole.len() + data.len() > self.max_response_bytes {
                return Err(unreadable());
            }
            whole.add(data);
        }
        Ok(http::Response::from_parts(head, whole.into()))
    }
}

/// A body in parts. One that came in one part is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    fn len(&self) -> usize {
        if self.more.is_empty() { self.first.len() } else { self.more.len() }
    }

    fn add(&mut self, data: Bytes) {
        if self.first.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&data);
    }
}

impl From<Gathered> for Bytes {
    fn from(body: Gathered) -> Self {
        if body.more.is_empty() { body.first } else { body.more.freeze() }
    }
}

/// Whether a reply says that its body is packed. The gateway asks for none that is, and unpacks nothing.
fn is_encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(CONTENT_ENCODING);
    encodings.iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn lost(err: &legacy::Error) -> Lost {
    if !err.is_connect() {
        return maybe_sent(FaultCode::ConnectionLost, None);
    }
    let forbidden = std::iter::successors(std::error::Error::source(err), |err| err.source())
        .filter_map(|err| err.downcast_ref::<io::Error>())
        .any(|err| err.kind() == io::ErrorKind::PermissionDenied && err.raw_os_error().is_none());
    let (code, again) =
        if forbidden { (FaultCode::UpstreamMisconfigured, false) } else { (FaultCode::ConnectFailed, true) };
    Lost::NotSent { fault: Fault::new(code), again }
}

fn maybe_sent(code: FaultCode, status: Option<StatusCode>) -> Lost {
    let upstream = status.map(|status| UpstreamWord { status: status.as_u16(), code: None });
    Lost::MaybeSent(Fault { upstream, ..Fault::new(code) })
}

/// Makes connections for hyper, each within the time for it.
#[derive(Clone)]
struct Connector {
    dial: Arc<dyn Dial>,
    patience: Duration,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { dial, patience } = self.clone();
        Box::pin(async move {
            let dialled = tokio::time::timeout(patience, dial.dial(&uri)).await;
            dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        })
    }
}

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests;
