//! What goes out, what may be connected to, and which replies are read. Sockets on loopback, no mock: what is bad in them must be
//! exact.

mod lines;

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::outbound::dial::{Found, Names};

/// Names that lead where the test wants, and how often they were looked up.
struct Told(Vec<IpAddr>, std::sync::atomic::AtomicUsize);

impl Names for Told {
    fn addresses<'n>(&'n self, _: &'n str) -> Found<'n> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let found = self.0.iter().map(|address| SocketAddr::new(*address, 0)).collect();
        Box::pin(std::future::ready(Ok(found)))
    }
}

fn looking_up(allow_private: bool, names: Arc<dyn Names>) -> Client {
    let sockets = Sockets::looking_up(DialRules { allow_private, https_only: false }, names).unwrap();
    Client::dialled_by(rules(allow_private), Arc::new(sockets))
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
        let client = looking_up(false, names);
        let reply = delete(&client, &format!("http://crm.example:{port}/contacts/1")).await;
        assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{text}: {reply:?}");
    }
    // Not one of several, either.
    let several = ["10.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"].map(|text| text.parse().unwrap()).to_vec();
    let client = looking_up(false, Arc::new(Told(several, Default::default())));
    let reply = delete(&client, &format!("http://crm.example:{port}/contacts/1")).await;
    assert!(is_not_sent(&reply, FaultCode::ConnectFailed), "{reply:?}");
    assert!(!somebody_came(&trap));
}

#[tokio::test]
async fn an_address_as_host_is_connected_to_only_if_it_is_public_or_says_this_machine() {
    let (trap, port) = trap();
    let names = Arc::new(Told(Vec::new(), Default::default()));
    let client = looking_up(false, Arc::clone(&names) as Arc<dyn Names>);
    for text in NOT_PUBLIC {
        let address: IpAddr = text.parse().unwrap();
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
        let client = looking_up(allow_private, Arc::clone(&names) as Arc<dyn Names>);
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

/// A socket that answers one request with these bytes: where it is, and the head that it gets.
fn answering(bytes: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answered = tokio::task::spawn_blocking(move || {
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
        String::from_utf8(head).unwrap()
    });
    (address, answered)
}

#[tokio::test]
async fn only_planned_bytes_go_out() {
    for target in ["/a/42", "/a/../42", "/a/%2e%2e//42", "/p?username=admin&password=0cc1", "/a;b=%20%C3%A9", "/"] {
        let (address, answered) = answering(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
        let request = http::Request::delete(format!("http://{address}{target}")).header("x-company", "7");
        let client = Client::new(rules(false)).unwrap();
        assert_eq!(client.send(request.body(Bytes::new()).unwrap()).await.unwrap().status(), 204);
        let head = answered.await.unwrap();
        let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
        assert_eq!(lines.remove(0), format!("DELETE {target} HTTP/1.1"));
        lines.sort_unstable();
        let host = format!("host: {address}");
        let agent = concat!("user-agent: onedelete/", env!("CARGO_PKG_VERSION"));
        assert_eq!(lines, ["accept-encoding: identity", &host, agent, "x-company: 7"]);
    }
}

/// Asks a socket that answers with these bytes.
async fn told(bytes: Vec<u8>) -> Result<http::Response<Bytes>, Lost> {
    let (address, answered) = answering(bytes);
    let reply = delete(&Client::new(rules(false)).unwrap(), &format!("http://{address}/contacts/1")).await;
    answered.await.unwrap();
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
        let unreadable = matches!(&read, Err(Lost::MaybeSent(fault)) if fault.code == FaultCode::ResponseUnreadable);
        assert!(unreadable, "{what}: {read:?}");
    }
}
