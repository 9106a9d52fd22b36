//! The body of a response. When it ends, the connection is free.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a response, as it comes in.
///
/// It holds the connection, or over HTTP/2 a place on it, until it has been read to its end or
/// dropped. One of HTTP/1.1 that is dropped before its end may cost the connection.
pub struct PooledBody {
    incoming: Incoming,
    lease: Option<Box<dyn Any + Send + Sync>>,
}

impl PooledBody {
    pub(super) fn new(incoming: Incoming, lease: impl Any + Send + Sync) -> Self {
        let lease = (!incoming.is_end_stream()).then(|| Box::new(lease) as _);
        Self { incoming, lease }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.incoming.is_end_stream() {
            self.lease = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for PooledBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBody").field("ended", &self.lease.is_none()).finish_non_exhaustive()
    }
}
