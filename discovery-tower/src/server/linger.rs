//! The end of an HTTP/2 connection: the peer is given the time to read it.
//!
//! The last that a server says on it is which requests it did not see. A request that crosses with that
//! is left unread; and whoever closes a socket that has something unread makes the system reset it. A peer
//! that is writing learns of the reset before it has read the very word that its request may go elsewhere,
//! and takes it for lost. So only our side is closed at first, and what still comes is read until the peer
//! has closed its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connection::First;

/// How long a peer has to close its side, once ours is closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// A connection that is not closed under its peer.
pub(super) struct Linger<I> {
    io: I,
    first: Arc<First>,
    /// From when our side is closed.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<I> Linger<I> {
    pub(super) fn new(io: I, first: Arc<First>) -> Self {
        Self { io, first, patience: None }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Linger<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.patience.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if this.first.known() != Some(Version::HTTP_2) {
                return Poll::Ready(Ok(()));
            }
        }
        let patience = this.patience.get_or_insert_with(|| Box::pin(sleep(CLOSED_WITHIN)));
        let mut unread = [0; 4096];
        while patience.as_mut().poll(cx).is_pending() {
            let mut unread = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut this.io).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    /// A connection on which there was a request, and its peer, who has more to say than there is room for.
    fn connected(version: Version) -> (Linger<DuplexStream>, DuplexStream) {
        let (io, peer) = duplex(64);
        let first = Arc::new(First::default());
        first.is(version);
        (Linger::new(io, first), peer)
    }

    #[tokio::test(start_paused = true)]
    async fn the_peer_of_http_2_has_the_last_word_read_before_the_connection_is_gone() {
        let (mut io, mut peer) = connected(Version::HTTP_2);
        let closing = async {
            io.write_all(b"bye").await.unwrap();
            io.shutdown().await.unwrap();
            drop(io);
        };
        let crossing = async {
            // More than there is room for: it comes to an end because it is read.
            peer.write_all(&[b'x'; 1000]).await.unwrap();
            let mut word = String::new();
            peer.read_to_string(&mut word).await.unwrap();
            drop(peer);
            word
        };
        let begun = Instant::now();
        assert_eq!(tokio::join!(closing, crossing).1, "bye");
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited once it was closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_closes_is_waited_for_a_second() {
        let (mut io, _peer) = connected(Version::HTTP_2);
        let begun = Instant::now();
        io.shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_millis() / 10, CLOSED_WITHIN.as_millis() / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn over_http_1_nobody_is_waited_for() {
        let (mut io, _peer) = connected(Version::HTTP_11);
        let begun = Instant::now();
        io.shutdown().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
