//! The body of a request on its way to an instance.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::call::Call;

/// The messages of a call, as they are sent: with a policy of your own, what it sees of a request is a
/// [`Replay`](crate::http::Replay) of this.
///
/// It breaks off when nobody waits for the answer any more. Otherwise a stream of requests would be sent
/// on after the caller has dropped the stream of answers.
#[derive(Debug)]
pub struct RequestBody {
    body: tonic::body::Body,
    call: Arc<Call>,
}

impl RequestBody {
    pub(super) fn new(body: tonic::body::Body, call: Arc<Call>) -> Self {
        Self { body, call }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.call.poll_over(cx) {
            return Poll::Ready(Some(Err(cancelled())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|fault| {
                self.call.fail(&fault);
                if fault.code() == tonic::Code::Cancelled { cancelled() } else { fault.into() }
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// With this the stream is reset as one that is cancelled; as an end, it would seem to be whole.
fn cancelled() -> BoxError {
    h2::Error::from(h2::Reason::CANCEL).into()
}
