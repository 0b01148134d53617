//! One connection from its first byte to its last: the handshake if there is TLS, then HTTP/1 or HTTP/2.
//!
//! Who may come in, and until when a connection may stay where it is, is said elsewhere: all of this is watched by its
//! conversation, the handshake included.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ListenerLimits;
use super::carried::Carried;
use super::conversation::Conversation;
use super::door::{Answers, Door};
use super::frames::{Frames, PREFACE};
use super::gate::Gate;
use super::head::HeadLimits;
use super::tls::Tls;
use crate::telemetry;

/// How a listener speaks with whoever connects.
pub(super) struct Manner<A> {
    service: A,
    heads: HeadLimits,
    http1: http1::Builder,
    http2: http2::Builder<Tasks>,
    http2_plain: bool,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
}

/// What a request line has besides its target, and an end.
const ROOM: usize = 1_024;
/// What may come of a request body before it is asked for, in bytes: of one, and of all of a connection.
const WINDOW: u32 = 64 * 1_024;
/// What is kept of an answer for a caller who takes none of it, in bytes.
const UNSENT: usize = 64 * 1_024;
/// Requests that a caller may take back before they were looked at, and that may be malformed, before it has to go.
const MOST_TAKEN_BACK: usize = 20;
const MOST_MALFORMED: usize = 100;

impl<A: Answers> Manner<A> {
    pub(super) fn new(
        service: A,
        limits: &ListenerLimits,
        tls: Option<Arc<Tls>>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let heads = HeadLimits {
            max_uri_bytes: limits.max_uri_bytes,
            max_header_bytes: limits.max_header_bytes,
            max_headers: limits.max_headers,
        };
        let mut http1 = http1::Builder::new();
        // The gate has refused what is longer, and the conversation who is slower.
        http1
            .header_read_timeout(None)
            .max_headers(limits.max_headers)
            .max_buf_size((limits.max_header_bytes + limits.max_uri_bytes + ROOM).max(8_192));
        let mut http2 = http2::Builder::new(Tasks(tasks));
        // Each header counts 32 bytes more there than its own.
        let most = limits.max_header_bytes + limits.max_uri_bytes + ROOM + 32 * limits.max_headers;
        http2
            .max_concurrent_streams(limits.http2_max_streams)
            .max_header_list_size(u32::try_from(most).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(UNSENT)
            .max_pending_accept_reset_streams(MOST_TAKEN_BACK)
            .max_local_error_reset_streams(MOST_MALFORMED);
        Self { service, heads, http1, http2, http2_plain: limits.http2_plain, tls, stop }
    }

    /// Speaks with whoever connected until one of both ends it.
    pub(super) async fn speak<S>(
        self: Arc<Self>,
        stream: S,
        peer: IpAddr,
        watcher: Watcher,
        conversation: Arc<Conversation>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some((stream, is_http2, begun)) = self.begin(stream).await else { return };
        // How a connection ends is the peer's affair: a reset, a timeout, or in order.
        if is_http2 {
            conversation.multiplexes();
            let door = Door::new(self.service.clone(), peer, Arc::clone(&conversation)).checking(self.heads);
            let frames = Frames::new(stream, begun, conversation);
            let _ = watcher.watch(self.http2.serve_connection(TokioIo::new(frames), door)).await;
        } else {
            let door = Door::new(self.service.clone(), peer, Arc::clone(&conversation));
            let gate = Gate::new(stream, begun, self.heads, conversation);
            let _ = watcher.watch(self.http1.serve_connection(TokioIo::new(gate), door)).await;
        }
    }

    /// The bytes inside the TLS, whether they are HTTP/2, and those that were read to learn that.
    async fn begin<S>(&self, mut stream: S) -> Option<(Carried<S>, bool, BytesMut)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(tls) = &self.tls {
            // Boxed, as it is large and soon over: whoever speaks without TLS, or for long, need not carry it along.
            let stream = Box::pin(self.stop.run_until_cancelled(tls.accept(stream))).await?;
            telemetry::handshake(stream.is_ok());
            let stream = stream.ok()?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            return Some((Carried::Tls(Box::new(stream)), is_http2, BytesMut::new()));
        }
        let mut begun = BytesMut::new();
        if self.http2_plain {
            // No request of HTTP/1 begins like this.
            while begun.len() < PREFACE.len() && PREFACE.starts_with(&begun) {
                if self.stop.run_until_cancelled(stream.read_buf(&mut begun)).await?.ok()? == 0 {
                    return None;
                }
            }
        }
        let is_http2 = self.http2_plain && begun.starts_with(PREFACE);
        Some((Carried::Plain(stream), is_http2, begun))
    }
}

/// The requests of HTTP/2 connections are tasks of their own; the listener waits for them too.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
