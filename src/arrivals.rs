//! Where connections come from, for those who serve them: a listener's socket, or whatever a simulation puts in its place.
//!
//! It accepts nothing by itself, and counts nobody.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// Somewhere that connections arrive at.
pub trait Arrivals: Send + Sync + 'static {
    /// What arrives.
    type Stream: Arrived;

    /// The next connection, and whose it is. Whoever stops waiting has lost none.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// A connection that arrived.
pub trait Arrived: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Lets it end with a reset when it is dropped: what is unsent then is thrown away. Where that cannot be had, it ends in order.
    fn reset_at_the_end(&mut self);
}

impl Arrivals for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // A socket that cannot be set up is one that is gone.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}

impl Arrived for TcpStream {
    fn reset_at_the_end(&mut self) {
        let _ = self.set_zero_linger();
    }
}
