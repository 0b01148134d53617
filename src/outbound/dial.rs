//! Connections to upstreams: which address a host has, whether it may be connected to, and TLS.
//!
//! What was checked is what is connected to: nothing looks a name up a second time. It keeps no connection, sends nothing and
//! does not log.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower::Service as _;

use crate::address::is_public;

/// A connection: bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to come.
pub type Dialling<'d> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'd>>;

/// Makes connections. What fails has sent nothing of a request; `PermissionDenied` without a number of the system's says that
/// it must not be tried again.
pub trait Dial: Send + Sync {
    /// A new connection to an origin: scheme, host and port of a URI.
    fn dial<'d>(&'d self, origin: &'d Uri) -> Dialling<'d>;
}

/// What one connection may be connected to.
#[derive(Debug, Clone, Copy)]
pub(super) struct DialRules {
    /// Whether addresses that are not public may be connected to.
    pub(super) allow_private: bool,
    /// Whether plain http is refused.
    pub(super) https_only: bool,
}

/// The system's sockets.
pub(super) struct Sockets {
    rules: DialRules,
    tcp: HttpConnector<Guarded>,
    /// Made when it is first needed where plain http is allowed.
    tls: OnceLock<TlsConnector>,
}

impl Sockets {
    /// Fails only where the machine has no usable TLS set-up.
    pub(super) fn new(rules: DialRules) -> Result<Self, String> {
        Self::looking_up(rules, Arc::new(SystemNames))
    }

    /// The same, with names looked up elsewhere than in the system.
    pub(super) fn looking_up(rules: DialRules, names: Arc<dyn Names>) -> Result<Self, String> {
        let mut tcp = HttpConnector::new_with_resolver(Guarded { names, allow_private: rules.allow_private });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Plain http never needs it, and a machine may have no authorities to trust.
        let sockets = Self { rules, tcp, tls: OnceLock::new() };
        if rules.https_only {
            sockets.tls()?;
        }
        Ok(sockets)
    }

    fn tls(&self) -> Result<&TlsConnector, String> {
        if let Some(made) = self.tls.get() {
            return Ok(made);
        }
        let made = TlsConnector::from(Arc::new(tls()?));
        Ok(self.tls.get_or_init(|| made))
    }

    async fn connect(&self, origin: &Uri) -> io::Result<Box<dyn Stream>> {
        let secure = origin.scheme() == Some(&http::uri::Scheme::HTTPS);
        let host = origin.host().unwrap_or_default();
        if (self.rules.https_only && !secure) || !self.may_reach(host) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "this connection may not go there"));
        }
        let mut tcp = self.tcp.clone();
        let stream = tcp.call(origin.clone()).await.map_err(io::Error::other)?.into_inner();
        if !secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(bare(host).to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.tls().map_err(io::Error::other)?.connect(name, stream).await?))
    }

    /// Whether a host may be connected to as far as its text tells: nothing looks an address up, so nothing else asks. A
    /// loopback literal can only come from the configuration, and is its own leave. Other ways to write an address (`127.1`,
    /// `0x7f000001`) are not taken for names, though the system's look-up would.
    fn may_reach(&self, host: &str) -> bool {
        match bare(host).parse::<IpAddr>() {
            Ok(address) => self.rules.allow_private || address.is_loopback() || is_public(address),
            Err(_) => !ends_in_a_number(host),
        }
    }
}

impl Dial for Sockets {
    fn dial<'d>(&'d self, origin: &'d Uri) -> Dialling<'d> {
        Box::pin(self.connect(origin))
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// What makes a host an IPv4 address, in whatever way it is written (WHATWG URL, "ends in a number").
fn ends_in_a_number(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default();
    let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match digits {
        Some(hexadecimal) => hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// TLS to upstreams, believing whom the system believes. What is learnt of a server is kept for one connection alone.
fn tls() -> Result<ClientConfig, String> {
    static SHARED: OnceLock<Result<ClientConfig, String>> = OnceLock::new();
    let mut config = SHARED.get_or_init(make_tls).clone()?;
    config.resumption = Resumption::in_memory_sessions(KEPT_SESSIONS);
    Ok(config)
}

/// TLS sessions that are kept to be taken up again.
const KEPT_SESSIONS: usize = 8;

fn make_tls() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider));
    let verifier = verifier.map_err(|_| "the system has no certificate authorities to trust".to_owned())?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|_| "TLS is not available".to_owned())?;
    let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Where names are looked up.
pub(super) trait Names: Send + Sync {
    /// The addresses of a name, with any port.
    fn addresses<'n>(&'n self, name: &'n str) -> Found<'n>;
}

/// Addresses to come.
pub(super) type Found<'n> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'n>>;

/// The system's own look-up.
struct SystemNames;

impl Names for SystemNames {
    fn addresses<'n>(&'n self, name: &'n str) -> Found<'n> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// Looks names up, and drops every address that a connection may not reach.
#[derive(Clone)]
struct Guarded {
    names: Arc<dyn Names>,
    allow_private: bool,
}

impl tower::Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { names, allow_private } = self.clone();
        Box::pin(async move {
            let found = names.addresses(name.as_str()).await?;
            let allowed: Vec<_> = found.into_iter().filter(|at| allow_private || is_public(at.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::other("the name has no address that this connection may reach"));
            }
            Ok(allowed.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_however_it_is_written() {
        for text in ["2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.1", "127.0.0.1.", "a.0x", "1."] {
            assert!(ends_in_a_number(text), "{text}");
        }
        for text in ["crm.example", "x0x7", "1.example", "1-1", "0xg.com", "0xg"] {
            assert!(!ends_in_a_number(text), "{text}");
        }
    }

    #[tokio::test]
    async fn a_connection_for_https_goes_nowhere_without_it() {
        let sockets = Sockets::new(DialRules { allow_private: true, https_only: true }).unwrap();
        let dialled = sockets.dial(&Uri::from_static("http://127.0.0.1:1/")).await;
        assert_eq!(dialled.err().map(|err| err.kind()), Some(io::ErrorKind::PermissionDenied));
    }
}
