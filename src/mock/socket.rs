//! A connection that can end with a reset or with bytes that are no HTTP, instead of in order.
//!
//! It changes nothing of what is sent before, and writes no bytes of its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::arrivals::Arrived;

/// How a connection is to end. Unless it is told, in order.
#[derive(Default)]
pub(super) struct Ending {
    reset: AtomicBool,
    raw: OnceLock<Bytes>,
}

impl Ending {
    /// With a reset.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    /// With these bytes. Whoever drives the connection writes them.
    pub(super) fn say(&self, bytes: Bytes) {
        // A connection has one last request; a second one would find the first one's bytes.
        let _ = self.raw.set(bytes);
    }

    /// The bytes to end with.
    pub(super) fn raw(&self) -> Option<&Bytes> {
        self.raw.get()
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

pub(super) struct Socket<S: Arrived> {
    stream: S,
    ending: Arc<Ending>,
}

impl<S: Arrived> Socket<S> {
    pub(super) fn new(stream: S, ending: Arc<Ending>) -> Self {
        Self { stream, ending }
    }
}

impl<S: Arrived> Drop for Socket<S> {
    fn drop(&mut self) {
        if self.ending.is_reset() {
            self.stream.reset_at_the_end();
        }
    }
}

impl<S: Arrived> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: Arrived> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        // Shutting down would say in order that nothing more comes.
        if socket.ending.is_reset() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut socket.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
