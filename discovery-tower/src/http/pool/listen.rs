//! A stream that tells when what was read from it has been worked on.
//!
//! hyper calls a connection of HTTP/2 made when it has spoken, not when it was answered. An instance
//! that accepts connections and never says a word would get requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::open::ByteStream;

/// The stream.
pub(super) struct Listening {
    stream: ByteStream,
    heard: Heard,
}

/// Wakes whenever the reader comes for more: what it had is done with.
pub(super) struct Heard(Arc<AtomicWaker>);

impl Listening {
    pub(super) fn new(stream: ByteStream) -> (Self, Heard) {
        let waker = Arc::new(AtomicWaker::new());
        (Self { stream, heard: Heard(waker.clone()) }, Heard(waker))
    }
}

impl Heard {
    pub(super) fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.heard.0.wake();
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
