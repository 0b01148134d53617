//! A connection's bytes on their way to hyper: what is not strictly HTTP/1 does not get there.
//!
//! hyper takes lines that end in LF alone, a `Content-Length` beside `Transfer-Encoding` and more that is read
//! differently elsewhere, and some of it does not show any more in what it hands on. So heads and chunks are read here
//! before. In the place of a head that is refused, hyper gets a plain request, which the door answers with the refusal:
//! so it comes after the answers to requests before it. Nothing behind it is read.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::chunks::Chunks;
use super::conversation::Conversation;
use super::head::{Framing, Head, HeadLimits};
use crate::api::{DRIBLET, HELD_BACK};

/// What is read at once, at most.
const PIECE: usize = 8_192;
/// A body that surely comes in one piece if it is here.
const SHORT: u64 = 4_096;
/// What is read behind the last answer, at most: a body that nobody wanted.
const MOST_THROWN_AWAY: usize = 1 << 20;
/// Shorter ones gather nothing.
const SHORTEST_NAP: Duration = Duration::from_millis(20);

pub(super) struct Gate<S> {
    stream: S,
    limits: HeadLimits,
    conversation: Arc<Conversation>,
    place: Place,
    /// Read, and not yet with hyper.
    raw: BytesMut,
    /// So many bytes of it, at its beginning, were looked at and go to hyper as they are.
    passed: usize,
    /// What goes to hyper in the place of what was read, before anything else does.
    sound: BytesMut,
    ended: bool,
    shut: bool,
    /// Since when a body comes in driblets.
    driblets_since: Option<Instant>,
    /// Until when nothing is read of it.
    nap: Option<Pin<Box<Sleep>>>,
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
            passed: 0,
            sound: BytesMut::new(),
            ended: false,
            shut: false,
            driblets_since: None,
            nap: None,
            thrown_away: 0,
        }
    }

    /// Looks at what was read, where nothing of it has passed. Fails in a body that is not sound: hyper then reads nothing more.
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
                        self.passed = length;
                        // hyper reads over a short body that is here, whoever wanted it.
                        let behind = (self.raw.len() - length) as u64;
                        let is_here = matches!(framing, Framing::Length(length) if length <= SHORT && length <= behind);
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
            Place::Body(_) => self.pass_body(),
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

    /// Lets what comes in driblets gather, as each look at it costs as much as at a whole piece: for as long as it has taken
    /// already, so that who is quick is not waited for, and a second at most.
    fn read_of_body(&mut self, bytes: usize) {
        if bytes == 0 || bytes >= DRIBLET || matches!(self.place, Place::Head(_)) {
            self.driblets_since = None;
            return;
        }
        let now = Instant::now();
        let nap = (now - *self.driblets_since.get_or_insert(now)).min(HELD_BACK);
        if nap >= SHORTEST_NAP {
            self.nap = Some(Box::pin(sleep_until(now + nap)));
        }
    }

    /// Lets pass what is there of a body, behind what passed already.
    fn pass_body(&mut self) {
        if let Place::Body(left) = self.place {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let bytes = (self.raw.len() - self.passed).min(most);
            self.passed += bytes;
            self.take_from_body(bytes);
        }
    }

    /// Lets a short body pass together with its head, if it is all here and hyper has room for both: else it makes room twice.
    fn pass_short_body(&mut self, room: usize) {
        if let Place::Body(left @ ..=SHORT) = self.place
            && self.passed > 0
            && self.passed + left as usize <= self.raw.len().min(room)
        {
            self.pass_body();
        }
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
        !self.ended && (self.raw.len() > self.passed || !matches!(self.place, Place::Head(_)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        loop {
            if gate.sound.is_empty() && gate.passed == 0 {
                gate.look()?;
                gate.pass_short_body(to.remaining());
            }
            if !gate.sound.is_empty() {
                let fits = gate.sound.len().min(to.remaining());
                to.put_slice(&gate.sound[..fits]);
                gate.sound.advance(fits);
                return Poll::Ready(Ok(()));
            }
            if gate.passed > 0 {
                let fits = gate.passed.min(to.remaining());
                to.put_slice(&gate.raw[..fits]);
                gate.raw.advance(fits);
                gate.passed -= fits;
                return Poll::Ready(Ok(()));
            }
            if let Some(nap) = &mut gate.nap {
                ready!(nap.as_mut().poll(cx));
                gate.nap = None;
            }
            match gate.place {
                // An end would be taken for a caller who went away. The connection ends with the refusal.
                Place::Refused => return Poll::Pending,
                // The inside of a body has nothing to be looked at.
                Place::Body(left) if gate.raw.is_empty() => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let read = if to.remaining() <= most {
                        let before = to.filled().len();
                        ready!(Pin::new(&mut gate.stream).poll_read(cx, to))?;
                        to.filled().len() - before
                    } else {
                        let mut part = ReadBuf::new(to.initialize_unfilled_to(most));
                        ready!(Pin::new(&mut gate.stream).poll_read(cx, &mut part))?;
                        let read = part.filled().len();
                        to.advance(read);
                        read
                    };
                    gate.ended |= read == 0;
                    gate.take_from_body(read);
                    gate.read_of_body(read);
                    return Poll::Ready(Ok(()));
                }
                _ => {}
            }
            // Not into a place of its own: most connections are idle, and wait for what they read next.
            let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            ready!(Pin::new(&mut gate.stream).poll_read(cx, &mut piece))?;
            let read = piece.filled().len();
            gate.raw.extend_from_slice(piece.filled());
            if read == 0 {
                gate.ended = true;
                return Poll::Ready(Ok(()));
            }
            if let Place::Chunks(_) = gate.place {
                gate.look()?;
                gate.read_of_body(read);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.conversation.written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.conversation.written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.conversation.flushed(&flushed);
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
            let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::conversation::Patience;
    use super::*;

    /// A gate behind this head, which is read already, and the caller's side of it.
    async fn behind(framing: &str) -> (Gate<DuplexStream>, DuplexStream) {
        let (ours, mut theirs) = duplex(1 << 16);
        let limits = HeadLimits { max_uri_bytes: 100, max_header_bytes: 1_000, max_headers: 10 };
        let long = Duration::from_secs(1_000);
        let patience = Patience { header: long, idle: long, write: long, min_answer_bytes_per_s: 0 };
        let mut gate = Gate::new(ours, BytesMut::new(), limits, Conversation::new(patience));
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
        theirs.write_all(head.as_bytes()).await.unwrap();
        let mut read = vec![0; head.len()];
        gate.read_exact(&mut read).await.unwrap();
        assert_eq!(read, head.as_bytes());
        (gate, theirs)
    }

    /// Reads so many bytes of a body: in how many pieces they came, and how late each was at most.
    async fn pieces(
        gate: &mut Gate<DuplexStream>,
        bytes: usize,
        sent: impl Fn(usize) -> Duration,
    ) -> (usize, Duration) {
        let (start, mut read, mut pieces, mut late) = (Instant::now(), 0, 0, Duration::ZERO);
        let mut buffer = [0; 8_192];
        while read < bytes {
            let piece = gate.read(&mut buffer).await.unwrap();
            late = late.max(start.elapsed().saturating_sub(sent(read)));
            (read, pieces) = (read + piece, pieces + 1);
        }
        (pieces, late)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_driblets_gathers_and_is_a_second_late_at_most() {
        let pause = Duration::from_millis(250);
        for (framing, driblet, each) in
            [("Content-Length: 10000", &b"x"[..], 1), ("Transfer-Encoding: chunked", b"1\r\nx\r\n", 6)]
        {
            let (mut gate, mut caller) = behind(framing).await;
            let dripping = async {
                loop {
                    caller.write_all(driblet).await.unwrap();
                    tokio::time::sleep(pause).await;
                }
            };
            let reading = pieces(&mut gate, 100 * each, |byte| pause * (byte / each) as u32);
            let (pieces, late) = tokio::select! {
                read = reading => read,
                () = dripping => (0, Duration::ZERO),
            };
            // Twenty-five seconds, and a look in each; a few more at the start.
            assert!((20..35).contains(&pieces), "{framing}: {pieces}");
            assert!(late <= HELD_BACK + Duration::from_millis(10), "{framing}: {late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_quick_is_not_waited_for() {
        let (mut gate, mut caller) = behind("Content-Length: 100300").await;
        let start = Instant::now();
        let sending = async {
            for _ in 0..3 {
                caller.write_all(&[b'x'; 100]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Large pieces may pause as long as they like.
            for _ in 0..100 {
                caller.write_all(&[b'x'; 1_000]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let mut body = vec![0; 100_300];
        let reading = async {
            gate.read_exact(&mut body).await.unwrap();
            start.elapsed()
        };
        let (took, ()) = tokio::join!(reading, sending);
        assert!(took <= Duration::from_millis(9_930), "{took:?}");
    }
}
