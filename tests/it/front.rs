//! A relay in front of a mock, for what a mock does not do: replies as raw bytes, and requests held back until a test
//! lets them go. What it passes on, it passes on unchanged but for `Connection: close`; it judges nothing.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use onedelete::mock::Mock;
use tokio::sync::watch;

/// Longer than any test waits.
const READ: Duration = Duration::from_secs(60);

/// A running relay. Its threads end with the test process.
pub(crate) struct Front {
    addr: SocketAddr,
    gate: Arc<Gate>,
}

struct Gate {
    mock: SocketAddr,
    rules: Mutex<Rules>,
    opened: Condvar,
    arrived: watch::Sender<usize>,
    most_at_once: Mutex<(usize, usize)>,
}

#[derive(Default)]
struct Rules {
    queued: VecDeque<Vec<u8>>,
    held: bool,
}

impl Front {
    pub(crate) fn of(mock: &Mock) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let gate = Arc::new(Gate {
            mock: mock.addr(),
            rules: Mutex::default(),
            opened: Condvar::new(),
            arrived: watch::Sender::new(0),
            most_at_once: Mutex::default(),
        });
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let gate = Arc::clone(&shared);
                // A connection that breaks is what the test asked for; the mock's journal says what came through.
                std::thread::spawn(move || drop(gate.serve(client)));
            }
        });
        Self { addr, gate }
    }

    /// Leads a connection here instead of to the mock.
    pub(crate) fn lead(&self, connection: &mut toml::Table) {
        let text = toml::to_string(connection).unwrap();
        *connection = text.replace(&self.gate.mock.to_string(), &self.addr.to_string()).parse().unwrap();
    }

    /// The next request gets these bytes and does not reach the mock.
    pub(crate) fn reply_once(&self, bytes: impl Into<Vec<u8>>) {
        self.gate.rules.lock().unwrap().queued.push_back(bytes.into());
    }

    /// Holds requests back before they reach the mock, until they are released.
    pub(crate) fn hold(&self) {
        self.gate.rules.lock().unwrap().held = true;
    }

    pub(crate) fn release(&self) {
        self.gate.rules.lock().unwrap().held = false;
        self.gate.opened.notify_all();
    }

    /// Requests that came so far, those included that are held.
    pub(crate) fn count(&self) -> usize {
        *self.gate.arrived.borrow()
    }

    /// The most requests that were under way at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.gate.most_at_once.lock().unwrap().1
    }

    /// Waits until so many requests have come.
    pub(crate) async fn arrived(&self, n: usize) {
        let mut count = self.gate.arrived.subscribe();
        super::support::within("requests at the relay", count.wait_for(|count| *count >= n)).await.unwrap();
    }
}

impl Gate {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(READ))?;
        let request = read_request(&mut client)?;
        let canned = {
            let mut rules = self.rules.lock().unwrap();
            rules.queued.pop_front()
        };
        {
            let mut counts = self.most_at_once.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        self.arrived.send_modify(|count| *count += 1);
        {
            let rules = self.rules.lock().unwrap();
            drop(self.opened.wait_while(rules, |rules| rules.held).unwrap());
        }
        let reply = match canned {
            Some(reply) => Ok(reply),
            None => self.forward(&request),
        };
        self.most_at_once.lock().unwrap().0 -= 1;
        client.write_all(&reply?)?;
        client.shutdown(std::net::Shutdown::Write)?;
        // Until the client closes as well, or the reply could be lost with the connection.
        let _ = io::copy(&mut client, &mut io::sink());
        Ok(())
    }

    fn forward(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut mock = TcpStream::connect(self.mock)?;
        mock.set_read_timeout(Some(READ))?;
        let line = request.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        mock.write_all(&request[..line])?;
        mock.write_all(b"connection: close\r\n")?;
        mock.write_all(&request[line..])?;
        let mut reply = Vec::new();
        mock.read_to_end(&mut reply)?;
        Ok(reply)
    }
}

/// A request's head, and as much body as it announces.
fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let read = client.read(&mut chunk)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let announced = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if bytes.len() >= end + 4 + announced.unwrap_or(0usize) {
            return Ok(bytes);
        }
    }
}
