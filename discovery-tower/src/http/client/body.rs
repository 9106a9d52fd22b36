//! The body of a response: as long as it is read, the balancer it came through is kept.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use discovery_core::InstanceKey;
use http_body::{Body, Frame, SizeHint};

use super::usage::InUse;
use crate::http::{PooledBody, Tracked};

/// The body of a response, as it comes in.
///
/// Until it has been read to its end or dropped, the call counts as pending, and its service as in use.
#[derive(Debug)]
pub struct ClientBody {
    body: Tracked<PooledBody, InstanceKey>,
    /// Until the end.
    in_use: Option<InUse>,
}

impl ClientBody {
    pub(super) fn new(body: Tracked<PooledBody, InstanceKey>, in_use: InUse) -> Self {
        let in_use = (!body.is_end_stream()).then_some(in_use);
        Self { body, in_use }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.in_use = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
