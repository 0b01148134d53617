//! What the benchmarks of the running gateway share: a gateway as a process of its own, on a store in a new folder, with
//! one connection to a mock in this process; and the little HTTP that they speak.

#![allow(dead_code, reason = "no benchmark uses all of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adapters::{DIALECTS, Identifier};
use onedelete::api;
use onedelete::mock::Mock;

pub(crate) const KEY: &str = "odk_a-key-of-the-benchmark-0123456789";

/// A gateway that is killed when it is dropped.
pub(crate) struct Gateway {
    pub(crate) public: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

/// A mock of a bulk dialect that holds so many contacts, and their ids.
pub(crate) async fn mock(dialect: &str, contacts: usize) -> (Mock, Vec<String>) {
    let registration = DIALECTS.iter().find(|registration| registration.profile.id == dialect).unwrap();
    let mock = Mock::start(registration, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let ids: Vec<_> = (0..contacts).map(|n| format!("6960cbe9b155d194{n:08x}")).collect();
    ids.iter().for_each(|id| mock.seed(&Identifier::Id(id.as_str().into()), false));
    (mock, ids)
}

impl Gateway {
    /// Starts `onedelete serve` with this store, and waits until it listens. It refuses nobody for being late: what a
    /// benchmark asks for is all that the machine can do.
    pub(crate) fn start(store: &str, mock: &Mock, max_in_flight: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tenants = folder.path().join("tenants");
        std::fs::create_dir(&tenants).unwrap();
        let mut connection = mock.connection_toml();
        let limits = connection.entry("limits").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
        limits.insert("rate".to_owned(), "off".into());
        limits.insert("max_in_flight".to_owned(), max_in_flight.into());
        let sha256 = api::sha256_hex(KEY);
        let text = format!("id = \"t\"\ndefault_connection = \"c\"\n[[api_keys]]\nname = \"k\"\nsha256 = {sha256:?}\n");
        let mut tenant: toml::Table = text.parse().unwrap();
        let connections = toml::Table::from_iter([("c".to_owned(), connection.into())]);
        tenant.insert("connections".to_owned(), connections.into());
        std::fs::write(tenants.join("t.toml"), toml::to_string(&tenant).unwrap()).unwrap();
        let settings = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmax_lag_ms = 0\n[store]\nurl = {store:?}\n\
             [upstream]\nmax_in_flight_per_tenant = 64\n[log]\nformat = \"json\"\n"
        );
        let file = folder.path().join("onedelete.toml");
        std::fs::write(&file, settings).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_onedelete"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed whatever fails from here on.
        let mut gateway = Self { public: SocketAddr::from(([0, 0, 0, 0], 0)), child, _folder: folder };
        let mut log = BufReader::new(gateway.child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"listening\"") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the gateway did not start");
        }
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        gateway.public = entry["public"].as_str().unwrap().parse().unwrap();
        // Its log is read on, so that it never waits for us.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        gateway
    }

    /// Resident memory now and at its peak, in KiB (Linux, `proc(5)`).
    pub(crate) fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection that is kept.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// The head of an answer, and its body where it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a request with a body that is at hand.
    pub(crate) fn ask(&mut self, line: &str, kind: &str, body: &[u8]) -> Answer {
        let mut bytes = head(line, kind, &format!("content-length: {}", body.len())).into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes).unwrap();
        self.answer(|_| {})
    }

    /// Sends a request whose body comes in pieces.
    pub(crate) fn send(&mut self, line: &str, kind: &str, pieces: impl Iterator<Item = Vec<u8>>) -> Answer {
        let stream = self.stream.get_mut();
        stream.write_all(head(line, kind, "transfer-encoding: chunked").as_bytes()).unwrap();
        for piece in pieces {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(&piece);
            chunk.extend_from_slice(b"\r\n");
            stream.write_all(&chunk).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        self.answer(|_| {})
    }

    /// Asks for something that is read in pieces.
    pub(crate) fn read(&mut self, line: &str, each: impl FnMut(&[u8])) -> u16 {
        self.stream.get_mut().write_all(head(line, "text/plain", "content-length: 0").as_bytes()).unwrap();
        self.answer(each).status
    }

    fn answer(&mut self, mut each: impl FnMut(&[u8])) -> Answer {
        let (mut status, mut length, mut chunked) = (0, 0, false);
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(code) = line.strip_prefix("http/1.1 ") {
                status = code[..3].parse().unwrap();
            } else if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.parse().unwrap();
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        if chunked {
            loop {
                let mut piece = vec![0; usize::from_str_radix(&self.line(), 16).unwrap() + 2];
                self.stream.read_exact(&mut piece).unwrap();
                piece.truncate(piece.len() - 2);
                if piece.is_empty() {
                    break;
                }
                each(&piece);
            }
        }
        Answer { status, body }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

fn head(line: &str, kind: &str, length: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\ncontent-type: {kind}\r\n{length}\r\n\r\n"
    )
}

/// How many a second.
pub(crate) fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}
