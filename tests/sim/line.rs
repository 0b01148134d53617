//! One end of a simulated connection, and what is on its way.
//!
//! It decides nothing about when something arrives: the network does.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use fastrand::Rng;
use onedelete::arrivals::Arrived;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::life::Life;
use crate::net::Net;
use crate::world::COPY;

/// One direction of a connection.
pub(crate) struct Pipe {
    queue: VecDeque<(Instant, Piece)>,
    /// Nothing that is sent later arrives before.
    last: Instant,
    reader: Option<Waker>,
    /// Nobody reads any more.
    deaf: bool,
    /// Nothing more is taken.
    over: bool,
}

enum Piece {
    Bytes(VecDeque<u8>),
    End,
    Reset,
}

impl Pipe {
    pub(crate) fn new() -> Self {
        Self { queue: VecDeque::new(), last: Instant::now(), reader: None, deaf: false, over: false }
    }

    fn put(&mut self, at: Instant, piece: Piece) {
        if self.over {
            return;
        }
        self.over = !matches!(piece, Piece::Bytes(_));
        self.last = self.last.max(at);
        self.queue.push_back((self.last, piece));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Ends it with a reset, with what is on its way or without.
    fn cut(&mut self, with_all: bool, at: Instant) {
        if !with_all {
            let now = Instant::now();
            self.queue.retain(|(due, piece)| *due <= now && matches!(piece, Piece::Bytes(_)));
            self.last = now;
            self.over = false;
        }
        self.put(at, Piece::Reset);
    }
}

/// One end of a connection.
pub(crate) struct Line {
    net: Net,
    number: u64,
    /// Whose listener it leads to: the link's name.
    to: SocketAddr,
    /// The chances of what is written here.
    rng: Arc<Mutex<Rng>>,
    life: Arc<Life>,
    reads: Arc<Mutex<Pipe>>,
    writes: Arc<Mutex<Pipe>>,
    alarm: Pin<Box<Sleep>>,
    resets: bool,
    /// What was written of a request, if requests may be repeated.
    request: Option<Vec<u8>>,
}

impl Line {
    pub(crate) fn new(
        net: &Net,
        number: u64,
        to: SocketAddr,
        rng: &Arc<Mutex<Rng>>,
        life: &Arc<Life>,
        [reads, writes]: [&Arc<Mutex<Pipe>>; 2],
        request: Option<Vec<u8>>,
    ) -> Self {
        let (reads, writes) = (Arc::clone(reads), Arc::clone(writes));
        let (heard, said, its, chances) = (Arc::clone(&reads), Arc::clone(&writes), net.clone(), Arc::clone(rng));
        // A process that is killed: its connections end, with what it had handed over or without.
        life.at_the_end(move || {
            let (_, at) = its.passage(to, &chances);
            let with_all = chances.lock().unwrap().bool();
            heard.lock().unwrap().deaf = true;
            let mut said = said.lock().unwrap();
            if !said.over {
                said.cut(with_all, at);
            }
        });
        let alarm = Box::pin(sleep(Duration::ZERO));
        let (net, rng) = (net.clone(), Arc::clone(rng));
        Self { net, number, to, rng, life: Arc::clone(life), reads, writes, alarm, resets: false, request }
    }

    /// Cuts both directions.
    fn cut(&self, with_all: bool, at: Instant) {
        self.writes.lock().unwrap().cut(with_all, at);
        self.reads.lock().unwrap().cut(false, at);
    }

    /// Looks whether a whole request was written by now.
    fn look(&mut self, bytes: &[u8]) {
        let Some(request) = &mut self.request else { return };
        request.extend_from_slice(bytes);
        let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return };
        let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let whole = head + 4 + length.unwrap_or(0);
        if request.len() < whole {
            return;
        }
        let first: Vec<u8> = request.drain(..whole).collect();
        // Without a key, a repeated order is another order. A proxy does not repeat what is not idempotent by itself.
        let is_order = text.contains("/v1/deletions");
        if is_order && !text.contains("\nidempotency-key:") {
            return;
        }
        let mark = format!("\r\n{COPY}: 1\r\nconnection: close");
        let copy = [&first[..head], mark.as_bytes(), &first[head..]].concat();
        self.net.may_copy(self.to, &self.rng, copy);
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self;
        loop {
            if !line.life.is_on() {
                return Poll::Pending;
            }
            let due = {
                let mut pipe = line.reads.lock().unwrap();
                pipe.reader = Some(cx.waker().clone());
                let Some((due, piece)) = pipe.queue.front_mut() else { return Poll::Pending };
                if *due <= Instant::now() {
                    match piece {
                        Piece::Bytes(bytes) => {
                            let count = bytes.len().min(to.remaining());
                            bytes.drain(..count).for_each(|byte| to.put_slice(&[byte]));
                            if bytes.is_empty() {
                                pipe.queue.pop_front();
                            }
                            return Poll::Ready(Ok(()));
                        }
                        Piece::End => return Poll::Ready(Ok(())),
                        Piece::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    }
                }
                *due
            };
            line.alarm.as_mut().reset(due);
            ready!(line.alarm.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let line = &mut *self;
        if !line.life.is_on() {
            return Poll::Pending;
        }
        let (is_over, is_deaf) = {
            let pipe = line.writes.lock().unwrap();
            (pipe.over, pipe.deaf)
        };
        if is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let (is_cut, at) = line.net.passage(line.to, &line.rng);
        line.net.trace().put("bytes", line.number, bytes.len() as u64);
        if is_deaf {
            line.cut(false, at);
            return Poll::Ready(Ok(bytes.len()));
        }
        line.look(bytes);
        line.writes.lock().unwrap().put(at, Piece::Bytes(bytes.iter().copied().collect()));
        if is_cut {
            let with_all = line.rng.lock().unwrap().bool();
            line.net.trace().fault("cut", line.number, u64::from(with_all));
            line.cut(with_all, at);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.life.is_on() {
            return Poll::Pending;
        }
        let (_, at) = self.net.passage(self.to, &self.rng);
        self.writes.lock().unwrap().put(at, Piece::End);
        Poll::Ready(Ok(()))
    }
}

impl Arrived for Line {
    fn reset_at_the_end(&mut self) {
        self.resets = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Who died has left its connections already.
        if self.life.is_on() {
            let (_, at) = self.net.passage(self.to, &self.rng);
            self.reads.lock().unwrap().deaf = true;
            self.writes.lock().unwrap().put(at, if self.resets { Piece::Reset } else { Piece::End });
        }
    }
}
