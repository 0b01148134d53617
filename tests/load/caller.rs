//! One caller's kept connection: a request's bytes out, an answer's head and body in. It follows nothing and repeats nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A connection that is kept.
pub(crate) struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A whole answer.
pub(crate) struct Answer<'b> {
    pub(crate) status: u16,
    /// Its head, in lower case.
    pub(crate) head: String,
    pub(crate) body: &'b [u8],
}

impl Answer<'_> {
    /// A header's value, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Whether the caller is turned away as it must be: a problem with a time to wait, for which nothing was sent.
    pub(crate) fn is_proper_refusal(&self) -> bool {
        let is_problem = self.header("content-type") == Some("application/problem+json");
        let waits = self.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait > 0));
        let unsent = self.body.windows(17).any(|part| part == b"\"attempted\":false");
        [429, 503].contains(&self.status) && is_problem && waits && unsent
    }
}

/// The `n`-th caller's address: as many as the gateway takes from one share one.
pub(crate) fn address(n: usize, each: usize) -> IpAddr {
    IpAddr::from([127, 0, 1, u8::try_from(1 + n / each).unwrap()])
}

impl Caller {
    /// Connects from this address.
    pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4_096) })
    }

    /// Whether the other side has closed it, for example as idle.
    pub(crate) fn has_ended(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0]), Err(err) if err.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (mut seen, mut whole) = (0, None);
        loop {
            if let Some((head, length)) = whole
                && self.buffer.len() >= head + length
            {
                let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
                let status = text.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
                return Ok(Answer { status, head: text, body: &self.buffer[head..head + length] });
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if whole.is_none() {
                let end = self.buffer[seen..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| seen + at + 4);
                whole = end.map(|head| (head, length(&self.buffer[..head])));
                seen = self.buffer.len().saturating_sub(3);
            }
        }
    }
}

fn length(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
