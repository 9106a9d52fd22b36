//! The body of a response as it comes from an instance, up to the deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::endpoint::{AtInstance, Sent};
use crate::http::{HttpError, HttpErrorKind, PooledBody, of_connection};

/// Its errors name the instance, as those before the head do.
#[derive(Debug)]
pub(super) struct IncomingBody {
    /// Until it has failed.
    body: Option<PooledBody>,
    instance: AtInstance,
}

impl IncomingBody {
    pub(super) fn new(body: PooledBody, instance: AtInstance) -> Self {
        Self { body: Some(body), instance }
    }

    fn broken(&self, error: hyper::Error) -> HttpError<Sent> {
        let (kind, cause) = match of_connection(&error) {
            // It was acted on, whatever is said now.
            (HttpErrorKind::Returned, cause) => (HttpErrorKind::Reset, cause),
            other => other,
        };
        HttpError::new(self.instance.target.clone(), kind, cause, Some(Arc::new(error)), None)
    }

    /// The stream was reset because not all of the request could be had, if that is so.
    fn spoilt(&self) -> Option<HttpError<Sent>> {
        let cause = self.instance.call.fault()?.message();
        let target = self.instance.target.clone();
        Some(HttpError::new(target, HttpErrorKind::Request, cause, None, None))
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = HttpError<Sent>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError<Sent>>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if self.instance.poll_late(cx) => {
                self.body = None;
                return Poll::Ready(Some(Err(self.instance.too_slow())));
            }
            Poll::Pending => return Poll::Pending,
        };
        let error = match frame {
            // Who always has more to say is not to go on for ever.
            Some(Ok(frame)) if frame.is_data() && self.instance.is_late() => {
                self.instance.too_slow()
            }
            Some(Err(error)) => self.spoilt().unwrap_or_else(|| self.broken(error)),
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            None => return Poll::Ready(None),
        };
        // What is left of it is not read by anybody.
        self.body = None;
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
