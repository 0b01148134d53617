//! The HTTP client of one connection: the only user of reqwest on the delete path, with everything off that could act by itself.
//!
//! No redirects, no retries, no proxies, no referer, no cookies, no decompression: each was seen to send a delete, or
//! a credential, where nobody asked for it. What goes out is byte for byte what was planned. It does not log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adapters::{Fault, FaultCode, UpstreamWord};
use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::is_public;
use crate::engine::Lost;

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
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    max_response_bytes: usize,
}

impl Client {
    /// Fails only where the machine has no usable TLS set-up.
    pub fn new(rules: ClientRules) -> Result<Self, String> {
        let inner = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .https_only(rules.https_only)
            .connect_timeout(Duration::from_millis(rules.connect_ms))
            .timeout(Duration::from_millis(rules.response_ms))
            // Below the server's own idle timeout, or a delete meets a connection that is just being closed.
            .pool_idle_timeout(Duration::from_millis(rules.pool_idle_ms))
            .pool_max_idle_per_host(rules.max_idle)
            .tcp_nodelay(true)
            .dns_resolver(Guarded { allow_private: rules.allow_private })
            .user_agent(concat!("onedelete/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|err| err.without_url().to_string())?;
        Ok(Self { inner, max_response_bytes: rules.max_response_bytes })
    }

    /// Sends one request once, and reads its reply whole. Only a failure to connect proves that nothing was sent.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Lost> {
        let request = exactly(request).ok_or_else(|| not_sent(FaultCode::UpstreamMisconfigured, false))?;
        let mut reply = self.inner.execute(request).await.map_err(|err| lost(&err, None))?;
        let status = reply.status();
        if reply.headers().len() > MAX_HEADERS {
            return Err(unreadable(status));
        }
        let mut body = BytesMut::new();
        loop {
            match reply.chunk().await {
                Ok(None) => break,
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.max_response_bytes => {
                    body.extend_from_slice(&chunk)
                }
                Ok(Some(_)) => return Err(unreadable(status)),
                Err(err) => return Err(lost(&err, Some(status))),
            }
        }
        let mut whole = http::Response::new(body.freeze());
        *whole.status_mut() = status;
        *whole.headers_mut() = std::mem::take(reply.headers_mut());
        Ok(whole)
    }
}

/// The request as reqwest takes it, unless its URL parser would send other bytes than were planned.
fn exactly(request: http::Request<Bytes>) -> Option<reqwest::Request> {
    let (parts, body) = request.into_parts();
    let planned = parts.uri.to_string();
    let url = reqwest::Url::parse(&planned).ok()?;
    // A bare origin gains a slash, nothing else may change.
    if url.as_str() != planned && url.as_str().strip_suffix('/') != Some(&planned) {
        return None;
    }
    let mut out = reqwest::Request::new(parts.method, url);
    *out.headers_mut() = parts.headers;
    out.headers_mut().insert(http::header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
    if !body.is_empty() {
        *out.body_mut() = Some(body.into());
    }
    Some(out)
}

fn lost(err: &reqwest::Error, status: Option<http::StatusCode>) -> Lost {
    if err.is_connect() {
        return not_sent(FaultCode::ConnectFailed, true);
    }
    let code = if err.is_timeout() {
        FaultCode::ResponseTimeout
    } else if status.is_some() {
        FaultCode::ResponseUnreadable
    } else {
        FaultCode::ConnectionLost
    };
    Lost::MaybeSent(Fault { upstream: status.map(word), ..Fault::new(code) })
}

fn not_sent(code: FaultCode, again: bool) -> Lost {
    Lost::NotSent { fault: Fault::new(code), again }
}

fn unreadable(status: http::StatusCode) -> Lost {
    Lost::MaybeSent(Fault { upstream: Some(word(status)), ..Fault::new(FaultCode::ResponseUnreadable) })
}

fn word(status: http::StatusCode) -> UpstreamWord {
    UpstreamWord { status: status.as_u16(), code: None }
}

/// Resolves names by the system, and drops every address that a connection may not reach. The client connects to
/// what this returns and looks nothing up again.
#[derive(Debug, Clone, Copy)]
struct Guarded {
    allow_private: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|at| allow_private || is_public(at.ip())).collect();
            if allowed.is_empty() {
                return Err("the name has no address that this connection may reach".into());
            }
            let addrs: Addrs = Box::new(allowed.into_iter());
            Ok(addrs)
        })
    }
}

impl From<Guarded> for Arc<dyn Resolve> {
    fn from(guarded: Guarded) -> Self {
        Arc::new(guarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_planned_bytes_go_out() {
        let with = |uri: &str| exactly(http::Request::delete(uri).body(Bytes::new()).unwrap());
        for uri in [
            "https://x.example/a/42",
            "http://127.0.0.1:8080/p/login?username=admin&password=0cc1",
            "https://x.example",
        ] {
            assert!(with(uri).is_some(), "{uri}");
        }
        for uri in [
            "https://x.example/a/../42",
            "https://x.example/a/%2e%2e/42",
            "https://X.example/a",
            "http://2130706433/a",
            "https://x.example:443/",
        ] {
            assert!(with(uri).is_none(), "{uri}");
        }
    }
}
