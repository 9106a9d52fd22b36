//! The body of a response as the caller gets it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use discovery_core::InstanceKey;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::call::Waiting;
use super::held::Held;
use super::status;

/// The messages of an answer, as they come.
///
/// A status that is an error comes as an error here, not as trailers, so that it tells which instance it
/// is from. Dropping the body cancels the call.
pub struct ResponseBody {
    /// Until the end.
    open: Option<Open>,
}

struct Open {
    body: Held,
    endpoint: Option<InstanceKey>,
    /// Whether the status was in the head.
    is_told: bool,
    waiting: Waiting,
}

impl ResponseBody {
    pub(super) fn new(
        body: Held,
        endpoint: Option<InstanceKey>,
        is_told: bool,
        waiting: Waiting,
    ) -> Self {
        let is_over = body.is_end_stream() && is_told;
        Self { open: (!is_over).then_some(Open { body, endpoint, is_told, waiting }) }
    }
}

impl Open {
    /// What a frame is to the caller: `None` if it is the end.
    fn read(
        &mut self,
        frame: Option<Result<Frame<Bytes>, <Held as Body>::Error>>,
    ) -> Option<Result<Frame<Bytes>, Status>> {
        let frame = match frame {
            None if self.is_told => return None,
            None => return Some(Err(status::missing(self.endpoint.as_ref()))),
            Some(Err(error)) => return Some(Err(status::of_body(error, &self.waiting.0))),
            Some(Ok(frame)) => frame,
        };
        let mut trailers = match frame.into_trailers() {
            Ok(trailers) => trailers,
            Err(frame) => return Some(Ok(frame)),
        };
        match status::read(&mut trailers) {
            Some(status) if status.code() != tonic::Code::Ok => {
                Some(Err(status::answered(status, self.endpoint.as_ref())))
            }
            None if !self.is_told => Some(Err(status::missing(self.endpoint.as_ref()))),
            _ => {
                self.is_told = true;
                Some(Ok(Frame::trailers(trailers)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut open.body).poll_frame(cx));
        let frame = open.read(frame);
        let is_data = matches!(&frame, Some(Ok(frame)) if frame.is_data());
        if !is_data {
            // Nothing is sent after the answer, and nothing of the answer is kept.
            self.open = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.open.as_ref().map_or_else(|| SizeHint::with_exact(0), |open| open.body.size_hint())
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.open.as_ref().and_then(|open| open.endpoint.as_ref());
        f.debug_struct("ResponseBody").field("from", &from).finish_non_exhaustive()
    }
}
