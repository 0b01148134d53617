//! An HTTP/2 connection's bytes on their way to hyper and back: frames are told apart by their heads, and counted.
//!
//! It understands no frame. Floods of requests, resets of requests, header parts and small pieces of a body are stopped
//! by hyper; here are those of frames that ask for nothing, and that hyper answers as long as they come.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::conversation::Conversation;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) struct Frames<S> {
    stream: S,
    conversation: Arc<Conversation>,
    /// Read before, for hyper to read.
    begun: BytesMut,
    inward: Walk,
    outward: Walk,
    notices: Allowance,
    windows: Allowance,
}

/// Frames that ask for nothing: at once, and then in a second.
const NOTICES: (u32, u32) = (300, 100);
/// Frames that let more of an answer come: at once, and then in a second.
const WINDOWS: (u32, u32) = (2_000, 200);
/// One more of them for so many bytes of answers.
const BYTES_A_WINDOW: u64 = 256;

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

impl<S> Frames<S> {
    pub(super) fn new(stream: S, begun: BytesMut, conversation: Arc<Conversation>) -> Self {
        Self {
            stream,
            conversation,
            begun,
            inward: Walk::behind(PREFACE.len()),
            outward: Walk::behind(0),
            notices: Allowance::new(NOTICES),
            windows: Allowance::new(WINDOWS),
        }
    }

    /// Looks at what came. Fails where there is too much of what nobody needs.
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { conversation, inward, notices, windows, .. } = self;
        let mut enough = true;
        inward.on(bytes, |step| {
            let Step::Head(Frame { kind, flags, length }) = step else { return };
            enough &= match kind {
                HEADERS | CONTINUATION if flags & END_HEADERS == 0 => {
                    conversation.head_begins();
                    true
                }
                HEADERS | CONTINUATION => {
                    conversation.head_is_whole();
                    true
                }
                DATA if length > 0 || flags & END_STREAM != 0 => true,
                WINDOW_UPDATE => windows.take(),
                // Settings, pings, priorities, resets, what is not known, and pieces of a body with nothing in them.
                _ => notices.take(),
            };
        });
        if enough { Ok(()) } else { Err(io::Error::other("too many frames that ask for nothing")) }
    }

    fn went(&mut self, bytes: &[u8]) {
        let mut data = 0;
        self.outward.on(bytes, |step| {
            if let Step::Inside { kind: DATA, bytes } = step {
                data += bytes as u64;
            }
        });
        self.conversation.answered(data);
        self.windows.give(data, BYTES_A_WINDOW);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let frames = &mut *self;
        let before = to.filled().len();
        if frames.begun.is_empty() {
            ready!(Pin::new(&mut frames.stream).poll_read(cx, to))?;
        } else {
            let fits = frames.begun.len().min(to.remaining());
            to.put_slice(&frames.begun[..fits]);
            frames.begun.advance(fits);
        }
        Poll::Ready(frames.came(&to.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.conversation.written(&written);
        if let Poll::Ready(Ok(written)) = written {
            self.went(&bytes[..written]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.conversation.flushed(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    length: usize,
}

/// Something that a walk came by.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Head(Frame),
    Inside { kind: u8, bytes: usize },
}

/// Bytes of a head, of which the last four name the stream.
const HEAD: usize = 9;

/// How far in its frames a stream of bytes is.
#[derive(Debug)]
struct Walk {
    head: [u8; HEAD],
    /// How much of a head is there.
    have: usize,
    /// What is still to come of what a frame has in it.
    left: usize,
    kind: u8,
}

impl Walk {
    /// Behind so many bytes that are no frame.
    fn behind(bytes: usize) -> Self {
        Self { head: [0; HEAD], have: 0, left: bytes, kind: u8::MAX }
    }

    fn on(&mut self, mut bytes: &[u8], mut told: impl FnMut(Step)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let inside = self.left.min(bytes.len());
                told(Step::Inside { kind: self.kind, bytes: inside });
                self.left -= inside;
                bytes = &bytes[inside..];
                continue;
            }
            self.head[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                (self.have, self.kind) = (0, kind);
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                told(Step::Head(Frame { kind, flags, length: self.left }));
            }
        }
    }
}

/// So many at once, and then so many in a second.
#[derive(Debug)]
struct Allowance {
    most: f64,
    per_s: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new((most, per_s): (u32, u32)) -> Self {
        let (most, per_s) = (f64::from(most), f64::from(per_s));
        Self { most, per_s, left: most, at: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = self.per_s * now.duration_since(self.at).as_secs_f64();
        self.at = now;
        // What was given on top stays until it is used.
        self.left = if self.left < self.most { (self.left + earned).min(self.most) } else { self.left };
        self.left -= 1.0;
        self.left >= 0.0
    }

    /// One more for so many bytes.
    fn give(&mut self, bytes: u64, each: u64) {
        self.left += bytes as f64 / each as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(length: usize, kind: u8, flags: u8) -> Vec<u8> {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![7; usize::try_from(u32::from_be_bytes(length)).unwrap()]]
            .concat()
    }

    #[test]
    fn frames_are_told_apart_wherever_the_bytes_are_cut() {
        let bytes =
            [PREFACE.to_vec(), frame(0, 4, 0), frame(300, DATA, 1), frame(8, 6, 0), frame(70_000, DATA, 0)].concat();
        for cut in [1, 2, 5, 9, 24, 100, bytes.len()] {
            let (mut walk, mut heads, mut inside) = (Walk::behind(PREFACE.len()), Vec::new(), 0);
            for piece in bytes.chunks(cut) {
                walk.on(piece, |step| match step {
                    Step::Head(frame) => heads.push((frame.length, frame.kind, frame.flags)),
                    Step::Inside { kind: DATA, bytes } => inside += bytes,
                    Step::Inside { .. } => {}
                });
            }
            assert_eq!(heads, [(0, 4, 0), (300, DATA, 1), (8, 6, 0), (70_000, DATA, 0)], "{cut}");
            assert_eq!(inside, 70_300, "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_is_used_up_and_comes_back() {
        let mut allowance = Allowance::new((10, 5));
        assert_eq!((0..100).filter(|_| allowance.take()).count(), 10);
        let mut allowance = Allowance::new((10, 5));
        (0..10).for_each(|_| assert!(allowance.take()));
        tokio::time::advance(Duration::from_secs(1)).await;
        (0..5).for_each(|n| assert!(allowance.take(), "{n}"));
        assert!(!allowance.take());
        let mut allowance = Allowance::new((10, 0));
        allowance.give(256 * 90, 256);
        assert_eq!((0..200).filter(|_| allowance.take()).count(), 100);
    }
}
