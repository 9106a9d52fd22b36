//! Responses that are held back until it is certain that they are good.
//!
//! Once a caller has a part of a response, the call cannot be sent to another instance. So where a call
//! may be repeated, the caller gets nothing before all of the response is there. A stream would be held
//! up by that for ever: what is long, or comes slowly, is passed on as it is.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::InstanceKey;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::endpoint::Sent;
use super::incoming::IncomingBody;
use crate::balance::CallError;
use crate::http::{GRPC_STATUS, HttpError, Tracked};

/// How long a response is held back after its head has come. Whoever answers a call with one message
/// sends all of it at once.
const HELD: Duration = Duration::from_millis(100);

pub(super) type Followed = Tracked<IncomingBody, InstanceKey>;

/// The body of a response, the beginning of which may be here.
#[derive(Debug)]
pub(super) struct Held {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// What is still to come.
    rest: Option<Followed>,
}

impl Held {
    /// Nothing is here yet.
    pub(super) fn none(body: Followed) -> Self {
        Self { pieces: VecDeque::new(), trailers: None, rest: Some(body) }
    }
}

fn frame(
    body: &mut Followed,
) -> impl Future<Output = Option<Result<Frame<Bytes>, HttpError<Sent>>>> + '_ {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))
}

/// The head of a response as it came, where [`hold`] has put a status into it though there are messages.
#[derive(Clone, Debug)]
pub(super) struct Begun(pub(super) HeaderMap);

/// Waits for all of a response, if that is not more than `limit` bytes and does not take long. If it
/// breaks off meanwhile, that is an error of the call; a status in its trailers that is an error is put
/// into the head, as if there had been nothing else, for who decides whether to try again.
pub(super) async fn hold(
    response: Response<Followed>,
    limit: usize,
) -> Result<Response<Held>, CallError<InstanceKey>> {
    let until = Instant::now() + HELD;
    let (mut head, body) = response.into_parts();
    let mut held = Held::none(body);
    let mut length = 0;
    // A timer alone does not stop who always has something, even if it is nothing.
    while length <= limit
        && Instant::now() < until
        && let Some(rest) = &mut held.rest
        && let Ok(frame) = timeout_at(until, frame(rest)).await
    {
        match frame {
            None => held.rest = None,
            Some(Err(error)) => {
                let endpoint = error.key().clone();
                return Err(CallError::Failed { endpoint, error: Arc::new(error) });
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    length = length.saturating_add(piece.len());
                    held.pieces.push_back(piece);
                }
                Err(frame) => held.trailers = frame.into_trailers().ok(),
            },
        }
    }
    if held.rest.is_none()
        && let Some(trailers) = &held.trailers
        && trailers.get(GRPC_STATUS).is_some_and(|status| status != "0")
    {
        if !held.pieces.is_empty() {
            head.extensions.insert(Begun(head.headers.clone()));
        }
        head.headers.extend(trailers.clone());
    }
    Ok(Response::from_parts(head, held))
}

impl Body for Held {
    type Data = Bytes;
    type Error = HttpError<Sent>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError<Sent>>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let here = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(here));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(here)) {
            hint.set_upper(upper);
        }
        hint
    }
}
