//! HTTP/1.1 over sockets that do not block, for the mock and the load generator: messages with a length or in chunks, one
//! thread, one epoll. So little is done for a message that the gateway in the middle is what is measured.
//!
//! It believes what it reads: loopback and these programs are all that it is made for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use memchr::{memchr, memmem};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

/// A set of sockets, each with a number, and what is ready of them.
pub struct Sockets {
    epoll: OwnedFd,
    ready: Vec<Event>,
}

impl Sockets {
    /// An empty set. Timers of this thread come as soon as they can.
    pub fn new() -> io::Result<Self> {
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, ready: Vec::with_capacity(1_024) })
    }

    /// Watches a socket for something to read.
    pub fn add(&self, socket: impl std::os::fd::AsFd, number: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(number as u64), EventFlags::IN)?)
    }

    /// Watches a socket for room to write too, or no more.
    pub fn also_writable(&self, socket: impl std::os::fd::AsFd, number: usize, yes: bool) -> io::Result<()> {
        let flags = if yes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(number as u64), flags)?)
    }

    /// Waits, and says of each socket that is ready whether it can be read and whether it can be written.
    pub fn wait(&mut self, longest: Option<Duration>) -> io::Result<Vec<(usize, bool, bool)>> {
        let longest =
            longest.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), longest.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
        let of = |event: &Event| {
            let flags = event.flags;
            (event.data.u64() as usize, flags != EventFlags::OUT, flags.contains(EventFlags::OUT))
        };
        Ok(self.ready.iter().map(of).collect())
    }
}

/// What a connection received and nobody has read yet.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
    /// Of the message that is coming: the length of its head, and of it all where it says so.
    coming: Option<(usize, Option<usize>)>,
    /// Where the next chunk begins.
    chunk_at: usize,
    whole: Vec<u8>,
}

/// A whole message: its head, and its body.
#[derive(Debug)]
pub struct Message<'i> {
    /// From the first line to the blank one.
    pub head: &'i [u8],
    /// Without framing.
    pub body: &'i [u8],
}

impl Inbox {
    /// Reads what is there. False: the other side is gone.
    pub fn fill(&mut self, stream: &mut TcpStream) -> bool {
        loop {
            if self.bytes.len() - self.filled < 16 * 1_024 {
                self.bytes.resize((self.bytes.len() * 2).max(64 * 1_024), 0);
            }
            let room = self.bytes.len() - self.filled;
            match stream.read(&mut self.bytes[self.filled..]) {
                Ok(0) => return false,
                Ok(read) => {
                    self.filled += read;
                    if read < room {
                        return true;
                    }
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => return true,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Hands the next message to `read`, if it is there in full, and forgets it.
    pub fn next<T>(&mut self, read: impl FnOnce(Message<'_>) -> T) -> Option<T> {
        let bytes = &self.bytes[..self.filled];
        let (head, length) = match self.coming {
            Some(coming) => coming,
            None => {
                let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
                let length = body_length(&bytes[..head]);
                self.coming = Some((head, length.map(|length| head + length)));
                self.chunk_at = head;
                self.whole.clear();
                self.coming?
            }
        };
        let (end, told) = match length {
            Some(end) if end <= bytes.len() => (end, read(Message { head: &bytes[..head], body: &bytes[head..end] })),
            Some(_) => return None,
            None => loop {
                let at = self.chunk_at;
                let line = memmem::find(&bytes[at..], b"\r\n")?;
                let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?.trim(), 16).ok()?;
                let (begin, end) = (at + line + 2, at + line + 2 + size);
                if end + 2 > bytes.len() {
                    return None;
                }
                self.whole.extend_from_slice(&bytes[begin..end]);
                self.chunk_at = end + 2;
                if size == 0 {
                    break (end + 2, read(Message { head: &bytes[..head], body: &self.whole }));
                }
            },
        };
        self.bytes.copy_within(end..self.filled, 0);
        self.filled -= end;
        self.coming = None;
        Some(told)
    }
}

/// What a head says of the body's length; `None` if it comes in chunks.
fn body_length(head: &[u8]) -> Option<usize> {
    let mut length = 0;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = value.iter().filter(|byte| byte.is_ascii_digit());
            length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return None;
        }
    }
    Some(length)
}

/// Writes on from `at`. True: all of it is written.
pub fn write_on(stream: &mut TcpStream, bytes: &[u8], at: &mut usize) -> io::Result<bool> {
    while *at < bytes.len() {
        match stream.write(&bytes[*at..]) {
            Ok(written) => *at += written,
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(true)
}
