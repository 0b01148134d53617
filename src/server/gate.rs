//! A connection's bytes on their way to hyper: what is not strictly HTTP/1 does not get there.
//!
//! hyper takes lines that end in LF alone, a `Content-Length` beside `Transfer-Encoding` and more that is read
//! differently elsewhere, and some of it does not show any more in what it hands on. So heads and chunks are read here
//! before. In the place of a head that is refused, hyper gets a plain request, which the door answers with the refusal:
//! so it comes after the answers to requests before it. Nothing behind it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::chunks::Chunks;
use super::conversation::Conversation;
use super::head::{Framing, Head, HeadLimits};

/// What is read at once, at least.
const PIECE: usize = 8_192;
/// A body that surely comes in one piece if it is here.
const SHORT: u64 = 4_096;
/// What is read behind the last answer, at most: a body that nobody wanted.
const MOST_THROWN_AWAY: usize = 1 << 20;

pub(super) struct Gate<S> {
    stream: S,
    limits: HeadLimits,
    conversation: Arc<Conversation>,
    place: Place,
    /// Read and not looked at.
    raw: BytesMut,
    /// Looked at, and not yet with hyper.
    sound: BytesMut,
    ended: bool,
    shut: bool,
    /// Whether what was written is still kept on this side.
    kept: bool,
    thrown_away: usize,
}

/// Where in the stream of requests it is.
enum Place {
    Head(Box<Head>),
    Body(u64),
    Chunks(Chunks),
    /// Behind a request that was refused.
    Refused,
}

impl<S> Gate<S> {
    /// Of a stream from which these bytes were read already.
    pub(super) fn new(stream: S, begun: BytesMut, limits: HeadLimits, conversation: Arc<Conversation>) -> Self {
        Self {
            stream,
            limits,
            conversation,
            place: Place::Head(Box::new(Head::new(limits))),
            raw: begun,
            sound: BytesMut::new(),
            ended: false,
            shut: false,
            kept: false,
            thrown_away: 0,
        }
    }

    /// Looks at what was read. Fails in a body that is not sound: hyper then reads nothing more.
    fn look(&mut self) -> io::Result<()> {
        match &mut self.place {
            Place::Head(head) => {
                if self.raw.is_empty() {
                    return Ok(());
                }
                self.conversation.head_begins();
                match head.read(&mut self.raw) {
                    Ok(None) => {}
                    Ok(Some((length, framing))) => {
                        self.conversation.head_ends(None);
                        self.sound.unsplit(self.raw.split_to(length));
                        // hyper reads over a short body that is here, whoever wanted it.
                        let is_here = matches!(framing, Framing::Length(length)
                            if length <= SHORT && length <= self.raw.len() as u64);
                        if !is_here {
                            self.conversation.body_begins();
                        }
                        self.place = match framing {
                            Framing::Length(0) => Place::Head(Box::new(Head::new(self.limits))),
                            Framing::Length(length) => Place::Body(length),
                            Framing::Chunks => Place::Chunks(Chunks::default()),
                        };
                    }
                    Err(flaw) => {
                        self.conversation.head_ends(Some(flaw));
                        let stand_in = format!("{} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", head.method());
                        self.sound.extend_from_slice(stand_in.as_bytes());
                        self.place = Place::Refused;
                    }
                }
            }
            Place::Body(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let data = self.raw.split_to(self.raw.len().min(most));
                self.take_from_body(data.len());
                self.sound.unsplit(data);
            }
            Place::Chunks(chunks) => match chunks.read(&mut self.raw, &mut self.sound) {
                Ok(true) => {
                    self.conversation.body_ends();
                    self.place = Place::Head(Box::new(Head::new(self.limits)));
                }
                Ok(false) => {}
                Err(flaw) => {
                    self.place = Place::Refused;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, flaw.message));
                }
            },
            Place::Refused => {}
        }
        Ok(())
    }

    fn take_from_body(&mut self, bytes: usize) {
        if let Place::Body(left) = &mut self.place {
            *left -= bytes as u64;
            if *left == 0 {
                self.conversation.body_ends();
                self.place = Place::Head(Box::new(Head::new(self.limits)));
            }
        }
    }

    /// Whether the other side may still be sending what nobody will read.
    fn is_in_the_middle(&self) -> bool {
        !self.ended && (!self.raw.is_empty() || !matches!(self.place, Place::Head(_)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        loop {
            if gate.sound.is_empty() {
                gate.look()?;
            }
            if !gate.sound.is_empty() {
                let fits = gate.sound.len().min(to.remaining());
                to.put_slice(&gate.sound[..fits]);
                gate.sound.advance(fits);
                return Poll::Ready(Ok(()));
            }
            match gate.place {
                // An end would be taken for a caller who went away. The connection ends with the refusal.
                Place::Refused => return Poll::Pending,
                // The inside of a body has nothing to be looked at.
                Place::Body(left) if gate.raw.is_empty() => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(to.remaining());
                    let mut part = ReadBuf::new(to.initialize_unfilled_to(most));
                    ready!(Pin::new(&mut gate.stream).poll_read(cx, &mut part))?;
                    let read = part.filled().len();
                    to.advance(read);
                    gate.ended |= read == 0;
                    gate.take_from_body(read);
                    return Poll::Ready(Ok(()));
                }
                _ => {}
            }
            gate.raw.reserve(PIECE);
            let read = ready!(poll_read_buf(Pin::new(&mut gate.stream), cx, &mut gate.raw))?;
            if read == 0 {
                gate.ended = true;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.tell(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.tell(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() {
            self.conversation.blocked();
        } else if self.kept {
            self.conversation.wrote(0);
        }
        self.kept = flushed.is_pending();
        flushed
    }

    /// Reads on for a while after the last byte: a socket that is closed with bytes unread takes the answer back
    /// (RFC 9112, section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        if !gate.shut {
            ready!(Pin::new(&mut gate.stream).poll_shutdown(cx))?;
            gate.shut = true;
        }
        if !gate.is_in_the_middle() {
            return Poll::Ready(Ok(()));
        }
        gate.conversation.closes();
        while gate.thrown_away < MOST_THROWN_AWAY {
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut gate.stream).poll_read(cx, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                break;
            }
            gate.thrown_away += piece.filled().len();
        }
        gate.ended = true;
        Poll::Ready(Ok(()))
    }
}

impl<S> Gate<S> {
    fn tell(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.conversation.blocked(),
            Poll::Ready(Ok(bytes)) => self.conversation.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
        }
    }
}
