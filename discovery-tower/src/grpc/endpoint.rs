//! The service of one instance, which is told how much time a call has left.
//!
//! It is the instance that is too slow when a deadline passes while it has the call. Up to the head of the
//! answer, that is seen by the connection, as with any request; from there on by the
//! [body](super::incoming), whose error names the instance, too.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use discovery_core::{Instance, InstanceKey};
use http::{Request, Response};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use super::call::Call;
use super::deadline::{self, Limit};
use super::incoming::IncomingBody;
use super::request::RequestBody;
use crate::MakeEndpoint;
use crate::http::pool::PooledFuture;
use crate::http::{HttpError, HttpErrorKind, PooledEndpoint, PooledMaker, Replay, Target};

/// What is sent.
pub(super) type Sent = Replay<RequestBody>;

/// Makes an [`Endpoint`] for an instance.
pub(super) struct Maker(pub(super) PooledMaker<Sent>);

impl MakeEndpoint<InstanceKey, Instance> for Maker {
    type Service = Endpoint;

    fn make(&mut self, key: &InstanceKey, endpoint: &Arc<Instance>) -> Endpoint {
        Endpoint(self.0.make(key, endpoint))
    }

    fn still_serves(
        &mut self,
        key: &InstanceKey,
        old: &Arc<Instance>,
        new: &Arc<Instance>,
    ) -> bool {
        self.0.still_serves(key, old, new)
    }
}

/// Sends requests to one instance. One that the instance certainly did not act on is given back, though
/// its body has been read.
#[derive(Clone, Debug)]
pub(super) struct Endpoint(PooledEndpoint<Sent>);

impl Service<Request<Sent>> for Endpoint {
    type Response = Response<IncomingBody>;
    type Error = HttpError<Sent>;
    type Future = Sending;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Sent>) -> Sending {
        let call = request.extensions().get().cloned().unwrap_or_else(|| Call::new(None));
        if let Some(Limit { deadline, .. }) = call.limit() {
            // When there is nothing left, it is not sent.
            let left = deadline.saturating_duration_since(Instant::now());
            deadline::write(request.headers_mut(), left);
        }
        let (head, body) = request.into_parts();
        let spare = body.resend().map(|body| Request::from_parts(head.clone(), body));
        let target = self.0.target().clone();
        let future = self.0.call(Request::from_parts(head, body));
        Sending(Some(AtWork { future, spare, instance: AtInstance { call, target, timer: None } }))
    }
}

/// The response to come, up to its head. `None` when it has come.
pub(super) struct Sending(Option<AtWork>);

struct AtWork {
    future: PooledFuture<Sent>,
    /// Calls have a body, of which most has been read when the instance says that it did not act on it:
    /// this goes to another one then.
    spare: Option<Request<Sent>>,
    instance: AtInstance,
}

impl Future for Sending {
    type Output = Result<Response<IncomingBody>, HttpError<Sent>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let result = ready!(Pin::new(&mut work.future).poll(cx));
        let Some(AtWork { spare, instance, .. }) = self.0.take() else { return Poll::Pending };
        Poll::Ready(match result {
            Ok(response) => Ok(response.map(|body| IncomingBody::new(body, instance))),
            Err(error) => Err(error.or_with(spare.filter(|spare| spare.body().is_whole()))),
        })
    }
}

/// An instance that has a call.
pub(super) struct AtInstance {
    pub(super) call: Arc<Call>,
    pub(super) target: Arc<Target>,
    /// Made at the first wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl AtInstance {
    /// Whether the deadline has passed; if not, `cx` is woken when it does.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Limit { deadline, .. }) = self.call.limit() else { return false };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).is_ready()
    }

    pub(super) fn is_late(&self) -> bool {
        self.call.limit().is_some_and(|limit| limit.deadline <= Instant::now())
    }

    pub(super) fn too_slow(&self) -> HttpError<Sent> {
        let time = self.call.limit().map(|limit| limit.time).unwrap_or_default();
        let cause = format!("the deadline of {time:?} has passed");
        HttpError::new(self.target.clone(), HttpErrorKind::Timeout, cause, None, None)
    }
}

impl fmt::Debug for AtInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtInstance").field("key", &self.target.key).finish_non_exhaustive()
    }
}
