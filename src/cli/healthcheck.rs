//! `onedelete healthcheck`: asks a running gateway how it is, for images that have no other client.
//!
//! It speaks plain HTTP to the admin listener and to nobody else, follows nothing and asks once. Of an admin listener behind
//! TLS it says so.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use http::Uri;

use super::{ConfigFile, Failure, Outcome, mistakes, output};
use crate::settings;

#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask this address; without it, /readyz of the configured admin listener
    #[arg(long, value_name = "URL")]
    url: Option<Uri>,
    /// Ask whether the process is alive, not whether it can take deletions: /livez
    #[arg(long, conflicts_with = "url")]
    live: bool,
    /// How long all of it may take
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
}

/// A page that is longer is not read to its end.
const LONGEST: usize = 4_096;

impl Healthcheck {
    /// Exit code 0 if the answer is 200, 1 if it is not or does not come, 2 if the command line or the configuration are
    /// wrong.
    pub(super) fn run(self) -> Outcome {
        let until = Instant::now() + Duration::from_millis(self.timeout_ms);
        let (address, path) = match &self.url {
            Some(url) => of_url(url)?,
            None => {
                let settings = settings::load(&self.file.config).map_err(|errors| mistakes(&errors))?;
                if settings.server.tls.admin {
                    let why = "server.tls.admin is true, and this command speaks plain HTTP: ask with a client that has TLS, \
                               such as `curl --cacert CA.pem https://HOST:PORT/readyz`";
                    return Err(Failure::Usage(why.to_owned()));
                }
                let path = if self.live { "/livez" } else { "/readyz" };
                (reachable(settings.server.admin_listen)?, path.to_owned())
            }
        };
        let (status, text) = ask(address, &path, until)
            .map_err(|err| Failure::Failed(format!("{address} does not answer: {}", err.kind())))?;
        let line = text.lines().next().unwrap_or_default();
        // Of what `/readyz` says, one word.
        let told: Option<serde_json::Value> = serde_json::from_str(line).ok();
        let line = told.as_ref().and_then(|told| told["status"].as_str()).unwrap_or(line);
        if status == "200" {
            output::data(line);
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::Failed(format!("{address} answers {status}: {line}")))
    }
}

/// The address of a URL and what to ask for there.
fn of_url(url: &Uri) -> Result<(SocketAddr, String), Failure> {
    let wrong = || Failure::Usage("--url must be like http://127.0.0.1:9090/readyz".to_owned());
    let host = url.host().filter(|_| url.scheme_str() == Some("http")).ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let path = if url.path() == "/" { "/readyz" } else { url.path() };
    let found = (host, url.port_u16().unwrap_or(80)).to_socket_addrs();
    let address = found.ok().and_then(|mut all| all.next());
    address.map(|address| (address, path.to_owned())).ok_or_else(|| Failure::Failed(format!("{host} has no address")))
}

/// Where a listener is reached from the same machine: what listens everywhere does so on loopback too.
fn reachable(listener: SocketAddr) -> Result<SocketAddr, Failure> {
    if listener.port() == 0 {
        return Err(Failure::Usage("server.admin_listen has port 0: name the address with --url".to_owned()));
    }
    let address = match listener.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    Ok(SocketAddr::new(address, listener.port()))
}

/// The status of the answer, and its body.
fn ask(address: SocketAddr, path: &str, until: Instant) -> std::io::Result<(String, String)> {
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(std::io::Error::from(std::io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 1_024];
    // Whoever drips has no more time for it.
    while answer.len() < LONGEST {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut part)? {
            0 => break,
            length => answer.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let unreadable = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(unreadable)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or_else(unreadable)?;
    Ok((status.to_owned(), body.to_owned()))
}
