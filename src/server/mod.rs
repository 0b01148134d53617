//! The listeners: accept, count, time out, drain. What a request means is the router's.
//!
//! The accept loop is our own on hyper, because only there connections can be counted before anything is read from
//! them, be read strictly, and slow ones be closed.

mod admin;
mod carried;
mod chunks;
mod connection;
mod conversation;
mod door;
mod frames;
mod gate;
mod head;
mod http2;
mod stack;
pub mod tls;
mod valve;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use admin::{Admin, Configuration, routes as admin_routes};
pub use door::{Answered, Answers, Arrival};
pub use stack::{Guard, guarded};
pub use valve::{Valve, ValveRules};

use crate::api::Peer;
use crate::arrivals::Arrivals;
use connection::Manner;
use conversation::{Conversation, Patience, Watched};
use tls::Tls;

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Open connections.
    pub max_connections: usize,
    /// Of them, from one address.
    pub max_connections_per_address: usize,
    /// Bytes of a request target.
    pub max_uri_bytes: usize,
    /// Header lines in a request.
    pub max_headers: usize,
    /// Bytes of a request's header lines.
    pub max_header_bytes: usize,
    /// For a request's head.
    pub header_timeout_ms: u64,
    /// For the pause between two requests.
    pub idle_timeout_ms: u64,
    /// For a caller who reads nothing of an answer.
    pub write_timeout_ms: u64,
    /// Bytes of an answer that a caller must take in a second, after two seconds of waiting for it; 0 is any pace.
    pub min_answer_bytes_per_s: u64,
    /// How long running requests may take to end once the listener stops.
    pub drain_ms: u64,
    /// Whether HTTP/2 is spoken without TLS. With it, the handshake says.
    pub http2_plain: bool,
    /// Requests at the same time on one HTTP/2 connection.
    pub http2_max_streams: u32,
}

/// Answers with `service` until `stop`, in TLS if there is one, then lets running requests end. Returns when the last connection
/// is gone.
pub async fn serve(
    listener: impl Arrivals,
    service: impl Answers,
    limits: ListenerLimits,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let addresses = Arc::new(Addresses::default());
    let manner = Arc::new(Manner::new(service, &limits, tls, connections.clone(), stop.clone()));
    let patience = Patience {
        header: Duration::from_millis(limits.header_timeout_ms),
        idle: Duration::from_millis(limits.idle_timeout_ms),
        write: Duration::from_millis(limits.write_timeout_ms),
        min_answer_bytes_per_s: limits.min_answer_bytes_per_s,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (place, (stream, peer)) = match accepted {
            Ok(accepted) => accepted,
            Err(err) => {
                // Out of descriptors, or a connection that was gone already: neither ends the loop.
                tracing::warn!(error = %err, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(guest) = addresses.enter(Peer(peer.ip()).network(), limits.max_connections_per_address) else {
            continue;
        };
        let conversation = Conversation::new(patience);
        let manner = Arc::clone(&manner);
        let connection = manner.speak(stream, peer.ip(), graceful.watcher(), Arc::clone(&conversation));
        connections.spawn(async move {
            Watched::new(connection, conversation).await;
            drop((place, guest));
        });
    }
    drop(listener);
    connections.close();
    let drained = async {
        graceful.shutdown().await;
        connections.wait().await;
    };
    if tokio::time::timeout(Duration::from_millis(limits.drain_ms), drained).await.is_err() {
        tracing::warn!("some requests were still running when the time for stopping was over");
    }
}

/// What the kernel keeps of an answer for a caller who does not read. A tenth of a second of it is 10 Mbit/s.
const SEND_BUFFER: u32 = 128 * 1_024;

/// Connections that the kernel keeps for us until there is a place for them.
const BACKLOG: u32 = 1_024;

/// The address that a listener got.
pub fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // What is accepted has it from here.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

type Accepted<S> = (tokio::sync::OwnedSemaphorePermit, (S, SocketAddr));

/// Waits for a place first: what has none stays in the kernel's queue.
async fn accept<A: Arrivals>(listener: &A, places: &Arc<Semaphore>) -> io::Result<Accepted<A::Stream>> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    Ok((place, listener.accept().await?))
}

/// Connections by address.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

struct Guest {
    addresses: Arc<Addresses>,
    ip: IpAddr,
}

impl Addresses {
    fn enter(self: &Arc<Self>, ip: IpAddr, most: usize) -> Option<Guest> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Guest { addresses: Arc::clone(self), ip })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}
