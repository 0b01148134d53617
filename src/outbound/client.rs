//! The HTTP client of one connection: the only user of reqwest on the delete path, with everything off that could act by itself.
//!
//! No redirects, no retries, no proxies, no referer, no cookies, no decompression: each was seen to send a delete, or
//! a credential, where nobody asked for it. What goes out is byte for byte what was planned. It does not log.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
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
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
    max_response_bytes: usize,
    allow_private: bool,
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
        Self::looking_up(rules, Arc::new(SystemNames))
    }

    /// The same, with names looked up elsewhere than in the system.
    fn looking_up(rules: ClientRules, names: Arc<dyn Names>) -> Result<Self, String> {
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
            .dns_resolver(Guarded { names, allow_private: rules.allow_private })
            .user_agent(concat!("onedelete/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|err| err.without_url().to_string())?;
        Ok(Self {
            inner,
            max_response_bytes: rules.max_response_bytes,
            allow_private: rules.allow_private,
            #[cfg(test)]
            stand_in: None,
        })
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
        let request = exactly(request).filter(|request| self.may_reach(request.url()));
        let request = request.ok_or_else(|| not_sent(FaultCode::UpstreamMisconfigured, false))?;
        let mut reply = self.inner.execute(request).await.map_err(|err| lost(&err, None))?;
        let status = reply.status();
        if reply.headers().len() > MAX_HEADERS || is_encoded(reply.headers()) {
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

    /// Whether a host that is an address may be connected to: nothing looks such a host up, so nothing else asks. A
    /// loopback literal can only come from the configuration, and is its own leave.
    fn may_reach(&self, url: &reqwest::Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => self.allow_private || address.is_loopback() || is_public(address),
            Err(_) => true,
        }
    }
}

/// Whether a reply says that its body is packed. The gateway asks for none that is, and unpacks nothing.
fn is_encoded(headers: &http::HeaderMap) -> bool {
    let encodings = headers.get_all(http::header::CONTENT_ENCODING);
    encodings.iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
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

/// Where names are looked up.
trait Names: Send + Sync {
    /// The addresses of a name, with any port.
    fn addresses<'n>(&'n self, name: &'n str) -> Found<'n>;
}

/// Addresses to come.
type Found<'n> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'n>>;

/// The system's own look-up.
struct SystemNames;

impl Names for SystemNames {
    fn addresses<'n>(&'n self, name: &'n str) -> Found<'n> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// Looks names up, and drops every address that a connection may not reach. The client connects to what this returns
/// and looks nothing up again.
struct Guarded {
    names: Arc<dyn Names>,
    allow_private: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, allow_private) = (Arc::clone(&self.names), self.allow_private);
        Box::pin(async move {
            let found = names.addresses(name.as_str()).await?;
            let allowed: Vec<_> = found.into_iter().filter(|at| allow_private || is_public(at.ip())).collect();
            if allowed.is_empty() {
                return Err("the name has no address that this connection may reach".into());
            }
            let addrs: Addrs = Box::new(allowed.into_iter());
            Ok(addrs)
        })
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

    /// Names that lead where the test wants, and how often they were looked up.
    struct Told(Vec<IpAddr>, std::sync::atomic::AtomicUsize);

    impl Names for Told {
        fn addresses<'n>(&'n self, _: &'n str) -> Found<'n> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let found = self.0.iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Box::pin(std::future::ready(Ok(found)))
        }
    }

    fn rules(allow_private: bool) -> ClientRules {
        ClientRules {
            connect_ms: 2_000,
            response_ms: 10_000,
            pool_idle_ms: 4_000,
            max_idle: 1,
            max_response_bytes: 1_000,
            allow_private,
            https_only: false,
        }
    }

    /// A listener that nobody should come to.
    fn trap() -> (std::net::TcpListener, u16) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn somebody_came(trap: &std::net::TcpListener) -> bool {
        trap.accept().is_ok()
    }

    async fn delete(client: &Client, url: &str) -> Result<http::Response<Bytes>, Lost> {
        client.send(http::Request::delete(url).body(Bytes::new()).unwrap()).await
    }

    fn is_not_sent(reply: &Result<http::Response<Bytes>, Lost>, code: FaultCode) -> bool {
        matches!(reply, Err(Lost::NotSent { fault, .. }) if fault.code == code)
    }

    const NOT_PUBLIC: &[&str] = &[
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.9.9.9",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
    ];

    #[tokio::test]
    async fn a_name_that_leads_to_an_address_that_is_not_public_is_not_connected_to() {
        let (trap, port) = trap();
        for text in NOT_PUBLIC {
            let names = Arc::new(Told(vec![text.parse().unwrap()], Default::default()));
            let client = Client::looking_up(rules(false), names).unwrap();
            let reply = delete(&client, &format!("http://crm.example:{port}/contacts/1")).await;
            assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{text}: {reply:?}");
        }
        // Not one of several, either.
        let several = ["10.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"].map(|text| text.parse().unwrap()).to_vec();
        let client = Client::looking_up(rules(false), Arc::new(Told(several, Default::default()))).unwrap();
        let reply = delete(&client, &format!("http://crm.example:{port}/contacts/1")).await;
        assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{reply:?}");
        assert!(!somebody_came(&trap));
    }

    #[tokio::test]
    async fn an_address_as_host_is_connected_to_only_if_it_is_public_or_says_this_machine() {
        let (trap, port) = trap();
        let names = Arc::new(Told(Vec::new(), Default::default()));
        let client = Client::looking_up(rules(false), Arc::clone(&names) as Arc<dyn Names>).unwrap();
        for text in NOT_PUBLIC {
            let address: IpAddr = text.parse().unwrap();
            let url = reqwest::Url::parse(&format!("http://{}/", SocketAddr::new(address, port))).unwrap();
            assert_eq!(client.may_reach(&url), address.is_loopback(), "{text}");
            if !address.is_loopback() {
                let reply = delete(&client, &format!("http://{}/contacts/1", SocketAddr::new(address, port))).await;
                assert!(is_not_sent(&reply, FaultCode::UpstreamMisconfigured), "{text}: {reply:?}");
            }
        }
        // Other ways to write 127.0.0.1 are not the bytes that were planned, or are no URL at all.
        for text in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1"] {
            let reply = delete(&client, &format!("http://{text}:{port}/contacts/1")).await;
            assert!(is_not_sent(&reply, FaultCode::UpstreamMisconfigured), "{text}: {reply:?}");
        }
        let circled = "\u{2460}\u{2461}\u{2466}.0.0.1";
        assert!(http::Request::delete(format!("http://{circled}:{port}/")).body(Bytes::new()).is_err());
        assert!(!somebody_came(&trap));
        assert_eq!(names.1.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn leave_for_private_addresses_is_leave_for_names_too() {
        for (allow_private, comes) in [(false, false), (true, true)] {
            let (trap, port) = trap();
            let names = Arc::new(Told(vec!["127.0.0.1".parse().unwrap()], Default::default()));
            let client = Client::looking_up(rules(allow_private), Arc::clone(&names) as Arc<dyn Names>).unwrap();
            let url = format!("http://crm.example:{port}/contacts/1");
            let mut asking = std::pin::pin!(delete(&client, &url));
            let came = async {
                loop {
                    if somebody_came(&trap) {
                        return true;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let came = tokio::select! {
                came = came => came,
                reply = &mut asking => {
                    assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{reply:?}");
                    false
                }
            };
            assert_eq!(came, comes);
            // What was checked is what was connected to: nothing looks the name up a second time.
            assert_eq!(names.1.load(std::sync::atomic::Ordering::Relaxed), 1);
        }
    }

    /// Asks a socket that answers with these bytes.
    async fn told(bytes: Vec<u8>) -> Result<http::Response<Bytes>, Lost> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/contacts/1", listener.local_addr().unwrap());
        let answering = tokio::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend_from_slice(&byte);
            }
            // The client may hang up in the middle of it.
            let _ = stream.write_all(&bytes);
        });
        let reply = delete(&Client::new(rules(false)).unwrap(), &url).await;
        answering.await.unwrap();
        reply
    }

    #[tokio::test]
    async fn a_reply_is_whole_and_within_its_bounds_or_it_is_not_read() {
        let reply = |lines: &str, body: usize| {
            let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {body}\r\nConnection: close\r\n\r\n");
            [head.into_bytes(), vec![b'x'; body]].concat()
        };
        let headers = |n: usize| (2..n).map(|n| format!("X-{n}: x\r\n")).collect::<String>();
        let chunked = |body: usize| {
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body:x}\r\n");
            [head.into_bytes(), vec![b'x'; body], b"\r\n0\r\n\r\n".to_vec()].concat()
        };
        for (what, bytes) in [
            ("of the longest length", reply("", 1_000)),
            ("the same in chunks", chunked(1_000)),
            ("with 64 headers", reply(&headers(64), 2)),
            ("said not to be packed", reply("Content-Encoding: identity\r\n", 2)),
        ] {
            assert!(told(bytes).await.is_ok(), "{what}");
        }
        for (what, bytes) in [
            ("too long", reply("", 1_001)),
            ("too long, in chunks", chunked(1_001)),
            ("with 65 headers", reply(&headers(65), 2)),
            ("packed", reply("Content-Encoding: gzip\r\n", 2)),
            ("packed, without a body", reply("Content-Encoding: br\r\n", 0)),
            ("packed in two ways", reply("Content-Encoding: identity\r\nContent-Encoding: deflate\r\n", 2)),
            ("cut", reply("", 1_000)[..900].to_vec()),
        ] {
            let read = told(bytes).await;
            let unreadable =
                matches!(&read, Err(Lost::MaybeSent(fault)) if fault.code == FaultCode::ResponseUnreadable);
            assert!(unreadable, "{what}: {read:?}");
        }
    }
}
