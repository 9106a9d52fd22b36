//! The limit of time that a request has, for head and body together.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::BoxError;

/// When a response is to be there as a whole.
pub(super) struct Deadline {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

pin_project! {
    /// A body that ends with an error when its time is over.
    pub(super) struct Limited<B> {
        // Dropped when its time is over: then nobody reads it any more.
        #[pin]
        body: Option<B>,
        deadline: Deadline,
    }
}

impl Deadline {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, sleep: Box::pin(sleep(limit)) }
    }

    /// Waits for it.
    pub(super) async fn passed(&mut self) {
        self.sleep.as_mut().await;
    }

    /// Holds the body to it, too.
    pub(super) fn over<B>(self, body: B) -> Limited<B> {
        Limited { body: Some(body), deadline: self }
    }
}

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        // First of all: a body that always has more would never come to it.
        if this.deadline.sleep.as_mut().poll(cx).is_ready() {
            this.body.set(None);
            let text = format!("the response did not end within {:?}", this.deadline.limit);
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, text).into())));
        }
        Poll::Ready(ready!(body.poll_frame(cx)).map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
