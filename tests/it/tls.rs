//! TLS on the listeners, by real handshakes over loopback: who gets in, what has to go, and certificates that change while
//! connections are open.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use onedelete::mock::Mock;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cli::{self, JSON_LOG, lines_until, run};
use crate::support::{self, Running, Setup, ids, key, mock, send, within};

/// Somebody who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, purpose: ExtendedKeyUsagePurpose) -> Issued {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> Issued {
        self.issue(ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn caller(&self) -> Issued {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth)
    }
}

impl Issued {
    /// Writes both where [`with_tls`] expects them.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("k.pem"), &self.key).unwrap();
        std::fs::write(folder.join("c.pem"), &self.certificate).unwrap();
    }
}

/// A gateway that does TLS with this certificate.
pub(crate) fn with_tls(issued: &Issued) -> Setup {
    let setup = Setup::new()
        .set("server.tls.certificate", "c.pem")
        .set("server.tls.key", "k.pem")
        .set("server.tls.poll_ms", 10);
    issued.write(&setup.write());
    setup
}

/// A caller who trusts an authority, and may have a certificate.
pub(crate) fn caller(
    authority: &Authority,
    identity: Option<&Issued>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(Issued { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

pub(crate) async fn connect(gateway: &Running, caller: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(gateway.public).await?;
    within("a handshake", caller.connect(ServerName::try_from("127.0.0.1").unwrap(), stream)).await
}

/// One request on an open connection: the first line of the answer. Both sides have to want it.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /docs/problems/overloaded HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    // What was taken may not be on the socket yet: a task that has used up its turn writes nothing there.
    stream.flush().await?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1_024]);
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
        let read = within("an answer", stream.read(&mut piece)).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
    }
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

async fn start(issued: &Issued, change: impl FnOnce(Setup) -> Setup) -> (Running, Mock) {
    let mock = mock("wethod").await;
    let gateway = change(with_tls(issued)).mock("acme", "c", &mock, |_| {}).start().await;
    (gateway, mock)
}

/// The certificate that a caller was shown.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
}

#[tokio::test]
async fn contacts_are_deleted_over_tls_and_nothing_is_said_without_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (gateway, mock) = start(&authority.server(), |setup| setup).await;
    for versions in [&BOTH[..1], &BOTH[1..], BOTH] {
        let mut stream = connect(&gateway, &caller(&authority, None, versions, &[])).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
        assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK", "on the same connection");
    }
    // HTTP/2 is off, and nobody is told otherwise.
    let stream = connect(&gateway, &caller(&authority, None, BOTH, &["h2", "http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(connect(&gateway, &caller(&authority, None, BOTH, &["h2"])).await.is_err());
    assert!(connect(&gateway, &caller(&other, None, BOTH, &[])).await.is_err(), "who trusts somebody else");

    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let id = ids("wethod", 1).remove(0);
    let url = |scheme| format!("{scheme}://{}/v1/connections/c/contacts/{id}", gateway.public);
    let answer = send(client.delete(url("https")).bearer_auth(key("acme"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // Not a byte is answered in the clear.
    assert!(client.delete(url("http")).bearer_auth(key("acme")).send().await.is_err());
    for garbage in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0; 5_000], b"\x16\x03\x01\xff\xff", &[0x16; 40_000]] {
        let mut stream = TcpStream::connect(gateway.public).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    }
    // The admin listener does none unless it is told to.
    let metrics = gateway.metrics().await;
    for line in ["onedelete_tls_certificate_expires_seconds ", "onedelete_tls_handshakes_total{result=\"failed\"} "] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    gateway.stop().await;
    assert_eq!(mock.journal().iter().filter(|entry| entry.asked.contains(&support::id(&id))).count(), 1);
}

#[tokio::test]
async fn a_new_certificate_is_used_and_open_connections_go_on() {
    let authority = Authority::new();
    let (old, new) = (authority.server(), authority.server());
    let (gateway, _mock) = start(&old, |setup| setup).await;
    let caller = caller(&authority, None, BOTH, &[]);
    let mut open = connect(&gateway, &caller).await.unwrap();
    assert_eq!(ask(&mut open).await.unwrap(), "HTTP/1.1 200 OK");
    assert_eq!(shown(&open), der(&old));
    new.write(gateway.folder());
    let turn = async {
        loop {
            let mut stream = connect(&gateway, &caller).await.unwrap();
            assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
            if shown(&stream) == der(&new) {
                return;
            }
        }
    };
    within("the new certificate", turn).await;
    assert_eq!(ask(&mut open).await.unwrap(), "HTTP/1.1 200 OK", "a connection from before");

    // A certificate without its key, and files that are none: what was there stays.
    for (certificate, key) in [(&old.certificate, &new.key), (&String::new(), &new.key), (&new.certificate, &old.key)] {
        std::fs::write(gateway.folder().join("c.pem"), certificate).unwrap();
        std::fs::write(gateway.folder().join("k.pem"), key).unwrap();
        gateway.reload().await;
        let mut stream = connect(&gateway, &caller).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
        assert_eq!(shown(&stream), der(&new));
    }
    old.write(gateway.folder());
    gateway.reload().await;
    assert_eq!(shown(&connect(&gateway, &caller).await.unwrap()), der(&old));
    gateway.stop().await;
}

#[tokio::test]
async fn who_must_show_a_certificate_and_has_none_that_counts_is_turned_away() {
    let (authority, callers, other) = (Authority::new(), Authority::new(), Authority::new());
    let mock = mock("wethod").await;
    let setup = with_tls(&authority.server())
        .set("server.tls.client_ca", "ca.pem")
        .set("server.tls.client_certificates", "required")
        .mock("acme", "c", &mock, |_| {});
    std::fs::write(setup.write().join("ca.pem"), callers.pem()).unwrap();
    let gateway = setup.start().await;
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let good = callers.caller();
        let mut stream = connect(&gateway, &caller(&authority, Some(&good), versions, &[])).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
        // Another's key, another's authority, a certificate for servers.
        let (foreign, server) = (other.caller(), callers.server());
        for wrong in [None, Some(&foreign), Some(&server)] {
            let caller = caller(&authority, wrong, versions, &[]);
            // With TLS 1.3 the caller learns of it when it first reads.
            let refused = match connect(&gateway, &caller).await {
                Err(_) => true,
                Ok(mut stream) => ask(&mut stream).await.is_err(),
            };
            assert!(refused, "{}", wrong.is_some());
        }
    }
    // Whoever is trusted no more is not let in by what was agreed on before.
    let (connector, mut stream) = {
        let connector = caller(&authority, Some(&callers.caller()), BOTH, &[]);
        let stream = connect(&gateway, &connector).await.unwrap();
        (connector, stream)
    };
    assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
    std::fs::write(gateway.folder().join("ca.pem"), other.pem()).unwrap();
    gateway.reload().await;
    let refused = match connect(&gateway, &connector).await {
        Err(_) => true,
        Ok(mut stream) => ask(&mut stream).await.is_err(),
    };
    assert!(refused);
    gateway.stop().await;
}

/// Handshakes that do not come to an end: as many as one address has places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_handshakes_are_hung_up_and_their_places_freed() {
    const CALLERS: usize = 200;
    let authority = Authority::new();
    let (gateway, _mock) = start(&authority.server(), |setup| {
        setup
            .set("server.header_timeout_ms", 4_000)
            .set("server.max_connections_per_address", i64::try_from(CALLERS + 5).unwrap())
    })
    .await;
    let caller = caller(&authority, None, BOTH, &[]);
    // A good beginning of a handshake, a byte of it at a time, or nothing at all.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 400]].concat();
    for round in 0..2 {
        let slow = |n: usize| {
            let (hello, gateway) = (hello.clone(), &gateway);
            async move {
                let mut stream = TcpStream::connect(gateway.public).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                let dripping = async {
                    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
                    for byte in hello.iter().take(if n.is_multiple_of(2) { 400 } else { 0 }) {
                        ticks.tick().await;
                        if writer.write_all(&[*byte]).await.is_err() {
                            break;
                        }
                    }
                    std::future::pending::<()>().await;
                };
                let mut answer = Vec::new();
                tokio::select! {
                    _ = reader.read_to_end(&mut answer) => {}
                    () = dripping => {}
                }
                assert_eq!(answer, b"", "nothing is said to {n}");
            }
        };
        let mut slow = std::pin::pin!(within("slow handshakes", join_all((0..CALLERS).map(slow))));
        loop {
            let bystander = async {
                let mut stream = connect(&gateway, &caller).await.unwrap();
                assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK", "{round}");
            };
            let mut bystander = std::pin::pin!(within("a bystander", bystander));
            tokio::select! {
                () = &mut bystander => {}
                _ = &mut slow => {
                    bystander.await;
                    break;
                }
            }
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_stops_in_the_middle_of_a_handshake() {
    let authority = Authority::new();
    let (gateway, _mock) = start(&authority.server(), |setup| {
        setup.set("server.header_timeout_ms", 60_000).set("server.drain_ms", 60_000)
    })
    .await;
    let mut stream = TcpStream::connect(gateway.public).await.unwrap();
    stream.write_all(&[0x16, 3, 1]).await.unwrap();
    // It was taken: another one, behind it, is served.
    let mut other = connect(&gateway, &caller(&authority, None, BOTH, &[])).await.unwrap();
    assert_eq!(ask(&mut other).await.unwrap(), "HTTP/1.1 200 OK");
    within("the end", gateway.stop()).await;
}

#[tokio::test]
async fn the_admin_listener_does_tls_if_it_is_told_to() {
    let authority = Authority::new();
    let (gateway, _mock) = start(&authority.server(), |setup| setup.set("server.tls.admin", true)).await;
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let url = |scheme| format!("{scheme}://{}/livez", gateway.admin);
    assert_eq!(send(client.get(url("https"))).await.status, 200);
    assert!(client.get(url("http")).send().await.is_err());
    gateway.stop().await;
}

/// A gateway's configuration in a folder, with TLS whose files nobody looks at unasked.
fn configured(authority: &Authority, mock: &Mock) -> Setup {
    with_tls(&authority.server()).set("server.tls.poll_ms", 0).mock("acme", "c", mock, |_| {})
}

#[tokio::test]
async fn the_program_serves_tls_and_reads_its_files_again_when_it_is_told_to() {
    let (authority, mock) = (Authority::new(), mock("wethod").await);
    let setup = configured(&authority, &mock);
    let folder = setup.write();
    std::fs::write(folder.join("authority.pem"), authority.pem()).unwrap();
    let mut served = cli::serve(&folder, &JSON_LOG);
    let (url, key, id) = (format!("https://{}", served.public), key("acme"), ids("wethod", 1).remove(0));
    mock.seed(&support::id(&id), false);
    let file = folder.join("authority.pem").display().to_string();
    let variables = cli::caller(&url, &key);
    let stranger = run(&["delete", "--yes", &id], &variables).await;
    assert_eq!(stranger.code, Some(3), "{}", stranger.err);
    let done = run(&["delete", "--yes", "--ca", &file, &id], &variables).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    let [url, key] = variables;
    let done = run(&["delete", "--yes", &id], &[url, key, ("ONEDELETE_CA", &file)]).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    for wrong in ["/no/such/file", &folder.join("onedelete.toml").display().to_string()] {
        let refused = run(&["delete", "--yes", "--ca", wrong, &id], &[url, key]).await;
        assert_eq!((refused.code, refused.err.contains(wrong)), (Some(2), true), "{}", refused.err);
    }

    authority.server().write(&folder);
    cli::signal(&served.child, "-HUP").await;
    lines_until(&mut served.log, "the TLS files were read again");
    std::fs::write(folder.join("k.pem"), "no key").unwrap();
    cli::signal(&served.child, "-HUP").await;
    let said = lines_until(&mut served.log, "the last good ones stay");
    assert!(said.lines().last().unwrap().contains("k.pem: server.tls.key: there is no private key"), "{said}");
    let done = run(&["delete", "--yes", "--ca", &file, &id], &[url, key]).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    cli::terminate(&served.child).await;
    lines_until(&mut served.log, "stopped");
}

#[tokio::test]
async fn check_says_what_is_wrong_with_the_files() {
    let (authority, mock) = (Authority::new(), mock("wethod").await);
    let setup = configured(&authority, &mock);
    let folder = setup.write();
    let config = folder.join("onedelete.toml").display().to_string();
    let check = run(&["check", "--config", &config], &[]).await;
    assert_eq!(check.code, Some(0), "{}", check.err);
    std::fs::write(folder.join("k.pem"), authority.server().key).unwrap();
    for command in ["check", "serve"] {
        let wrong = run(&[command, "--config", &config], &[]).await;
        assert_eq!(wrong.code, Some(2), "{command}: {}", wrong.err);
        let line = "k.pem: server.tls.key: the private key is not that of the first certificate";
        assert!(wrong.err.contains(line), "{command}: {}", wrong.err);
    }
    std::fs::remove_file(folder.join("c.pem")).unwrap();
    let wrong = run(&["check", "--config", &config], &[]).await;
    assert!(wrong.err.contains("c.pem: server.tls.certificate: cannot be read: entity not found"), "{}", wrong.err);
    let offline = run(&["check", "--offline", "--config", &config], &[]).await;
    assert_eq!(offline.code, Some(0), "{}", offline.err);
}
