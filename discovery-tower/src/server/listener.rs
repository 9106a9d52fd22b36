//! Where the connections of a server come from.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// Gives a server its connections: tokio's `TcpListener`, or what a program puts around one (TLS, the
/// PROXY protocol, a limit).
pub trait Listener: Send {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Who is at its other end; each request has it among its extensions, as [`Peer`].
    type Peer: Clone + fmt::Debug + Send + Sync + 'static;

    /// The next connection. An error ends nothing: the server asks again, after a pause unless the
    /// error is the fault of that one peer. What takes long, such as a TLS handshake, belongs in the
    /// connection's first read or on a task of its own: the next peer waits for it here.
    ///
    /// Must be cancel safe: no connection may be lost when the future is dropped.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Self::Peer)>> + Send;

    /// The address that it is bound to.
    ///
    /// # Errors
    /// If it has none.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listener for TcpListener {
    type Io = TcpStream;
    type Peer = SocketAddr;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Small answers must not wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// Who sent a request: among the extensions of each request that [`Server::serve`](super::Server::serve)
/// was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer<P = SocketAddr>(pub P);
