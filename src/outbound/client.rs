//! The HTTP client of one connection, with nothing in it that could act by itself.
//!
//! No redirects, no proxies, no referer, no cookies, no decompression: each was seen to send a delete, or a credential, where
//! nobody asked for it. What goes out is byte for byte what was planned. A request that was taken back before its first byte,
//! because the kept connection had been closed, goes out on another; nothing else is sent twice. A connection has no task of its
//! own: whoever waits for a reply drives it, and closes it by waiting no longer. It does not log.

use std::future::Future;
use std::io;
#[cfg(test)]
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adapters::{Fault, FaultCode, UpstreamWord};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use self::kept::Kept;
use self::line::{Line, NoReply, Origin};
use super::dial::{Dial, DialRules, Sockets};
use crate::engine::Lost;

mod kept;
mod line;

/// More header lines than this in a reply make it unreadable.
const MAX_HEADERS: usize = 64;

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
pub struct Client {
    dial: Arc<dyn Dial>,
    kept: Kept,
    connect: Duration,
    response: Duration,
    max_response_bytes: usize,
    #[cfg(test)]
    stand_in: Option<StandIn>,
}

/// What answers instead of the network in tests that run in virtual time, where sockets have no place.
#[cfg(test)]
pub(crate) type StandIn = Arc<dyn Fn(Request<Bytes>) -> Standing + Send + Sync>;

/// An answer to come.
#[cfg(test)]
pub(crate) type Standing = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Lost>> + Send>>;

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
        Self {
            dial,
            // Below the server's own idle timeout, or a delete meets a connection that is just being closed.
            kept: Kept::new(rules.max_idle, Duration::from_millis(rules.pool_idle_ms)),
            connect: Duration::from_millis(rules.connect_ms),
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

    /// Sends one request once, and reads its reply whole. Nothing was sent where no connection could be had.
    pub fn send(&self, request: Request<Bytes>) -> impl Future<Output = Result<Response<Bytes>, Lost>> + Send {
        #[cfg(test)]
        let standing = self.stand_in.as_ref().map(|stand_in| stand_in(request.clone()));
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("onedelete/", env!("CARGO_PKG_VERSION"))));
        async move {
            #[cfg(test)]
            if let Some(standing) = standing {
                return standing.await;
            }
            let mut status = None;
            let ended = tokio::time::timeout(self.response, self.exchange(&mut request, &mut status)).await;
            ended.unwrap_or_else(|_| Err(maybe_sent(FaultCode::ResponseTimeout, status)))
        }
    }

    /// Closes connections that nobody used for their time. Until it is called, they stay open, and are not used.
    pub fn close_idle(&self) {
        self.kept.close_idle();
    }

    /// Whether there is an idle connection.
    pub fn has_idle(&self) -> bool {
        self.kept.has_any()
    }

    /// Closes idle connections, and keeps none from now on.
    pub fn keep_none(&self) {
        self.kept.close();
    }

    /// The status is told as soon as it is known.
    async fn exchange(
        &self,
        request: &mut Request<Full<Bytes>>,
        status: &mut Option<StatusCode>,
    ) -> Result<Response<Bytes>, Lost> {
        let (mut line, reply) = self.ask(request).await?;
        let (head, mut body) = reply.into_parts();
        *status = Some(head.status);
        let unreadable = || maybe_sent(FaultCode::ResponseUnreadable, Some(head.status));
        if head.headers.len() > MAX_HEADERS || is_encoded(&head.headers) {
            return Err(unreadable());
        }
        let mut whole = Gathered::default();
        while let Some(frame) = line.frame(&mut body).await {
            let Ok(data) = frame.map_err(|_| unreadable())?.into_data() else { continue };
            if whole.len() + data.len() > self.max_response_bytes {
                return Err(unreadable());
            }
            whole.add(data);
        }
        if line.is_free() {
            self.kept.keep(line);
        }
        Ok(Response::from_parts(head, whole.into()))
    }

    /// Sends a request on a kept connection that is still good, or else on a new one.
    async fn ask(&self, request: &mut Request<Full<Bytes>>) -> Result<(Box<Line>, Response<Incoming>), Lost> {
        let origin = Origin::taken_from(request.uri_mut());
        let origin = origin.ok_or_else(|| not_sent(FaultCode::UpstreamMisconfigured))?;
        while let Some(mut line) = self.kept.take(&origin) {
            match line.ask(request).await {
                Ok(reply) => return Ok((line, reply)),
                Err(NoReply::TakenBack) => {}
                Err(NoReply::Lost) => return Err(maybe_sent(FaultCode::ConnectionLost, None)),
            }
        }
        let mut line = Box::pin(self.dial(&origin)).await.map_err(|err| not_connected(&err))?;
        match line.ask(request).await {
            Ok(reply) => Ok((line, reply)),
            // Closed as soon as it was there.
            Err(NoReply::TakenBack) => Err(not_sent(FaultCode::ConnectFailed)),
            Err(NoReply::Lost) => Err(maybe_sent(FaultCode::ConnectionLost, None)),
        }
    }

    async fn dial(&self, origin: &Origin) -> io::Result<Box<Line>> {
        let uri = origin.uri();
        let dialled = tokio::time::timeout(self.connect, self.dial.dial(&uri)).await;
        Line::over(dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?, origin).await
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

fn not_connected(err: &io::Error) -> Lost {
    let forbidden = std::iter::successors(Some(err as &(dyn std::error::Error + 'static)), |err| err.source())
        .filter_map(|err| err.downcast_ref::<io::Error>())
        .any(|err| err.kind() == io::ErrorKind::PermissionDenied && err.raw_os_error().is_none());
    not_sent(if forbidden { FaultCode::UpstreamMisconfigured } else { FaultCode::ConnectFailed })
}

fn not_sent(code: FaultCode) -> Lost {
    Lost::NotSent { fault: Fault::new(code), again: code == FaultCode::ConnectFailed }
}

fn maybe_sent(code: FaultCode, status: Option<StatusCode>) -> Lost {
    let upstream = status.map(|status| UpstreamWord { status: status.as_u16(), code: None });
    Lost::MaybeSent(Fault { upstream, ..Fault::new(code) })
}

#[cfg(test)]
mod tests;
