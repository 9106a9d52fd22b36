//! What responses and errors of HTTP and gRPC say of an instance.
//!
//! The outcome of a call is in the head of the response (HTTP), or in the head or the trailers (gRPC).
//! The call counts as pending until the body has been read to its end or dropped; how long it took is
//! how long the head took, since a body is as slow as its reader.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::{HeaderMap, HeaderName, RETRY_AFTER};
use ::http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::BoxError;

use super::error::{HttpError, HttpErrorKind};
use super::reclaim::OwnFault;
use super::{Deadline, ServedBy};
use crate::Avoid;
use crate::balance::{Completion, Judge, Origin, Outcome, Protocol, find};

/// Calls over HTTP, judged by status code: 500, 502, 503 and 504 are failures, 429 and 503 with
/// `retry-after` say that the instance is overloaded, and all else is a success. An error is a failure,
/// unless it is the request's own fault.
///
/// A call is over when its body has been read or dropped; one that breaks off makes it a failure, unless
/// it is the request's body that failed. A connection that was upgraded (101) is none of its calls any more.
///
/// A request that certainly was not sent goes to another instance. One with the extension [`Avoid`]
/// keeps away from the instances in it, one with a [`Deadline`] waits no longer than that, and a response
/// has the extension [`ServedBy`]. With keys of another type than those of instances, they are of such
/// keys: `Avoid<K>` and `ServedBy<K>`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Http<J = ByStatus> {
    judge: J,
}

/// Judges by the status code, as [`Http`] says.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ByStatus;

/// Calls over gRPC, judged by the status in the head or the trailers: `UNAVAILABLE`, `UNKNOWN`,
/// `INTERNAL`, `DATA_LOSS` and `DEADLINE_EXCEEDED` are failures, `RESOURCE_EXHAUSTED` says that the
/// instance is overloaded if it tells for how long (`retry-after`), and all else says nothing against
/// it. A response without a status is judged by its HTTP status, of which 200 is a failure then: what
/// breaks off in good order has no other sign.
///
/// Else like [`Http`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Grpc;

impl Http {
    /// Judged by the status code.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judged by this function, which has the head of the response, or the error.
    pub fn judged_by<J>(judge: J) -> Http<J> {
        Http { judge }
    }
}

impl Grpc {
    /// Judged by the status.
    pub fn new() -> Self {
        Self
    }
}

impl<B, E> Judge<Response<B>, E> for ByStatus {
    fn judge(&self, result: Result<&Response<B>, &E>) -> Outcome {
        match result {
            Ok(response) => by_status(response),
            Err(_) => Outcome::Failure,
        }
    }
}

fn by_status<B>(response: &Response<B>) -> Outcome {
    let retry_after = || retry_after(response.headers());
    match response.status().as_u16() {
        429 | 503 if response.headers().contains_key(RETRY_AFTER) => {
            Outcome::Overloaded { retry_after: retry_after() }
        }
        500 | 502 | 503 | 504 => Outcome::Failure,
        _ => Outcome::Success,
    }
}

/// How long the instance asks to be left alone, if it says so in seconds. A date is not worth reading:
/// whose clock would it be?
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the request has to keep away from the instance.
fn avoids<B, K>(request: &Request<B>, key: &K) -> bool
where
    K: PartialEq + Send + Sync + 'static,
{
    request.extensions().get::<Avoid<K>>().is_some_and(|avoid| avoid.contains(key))
}

/// The error of our own endpoints, if it is that or a cause of it: layers between them and the balancer
/// make it a boxed one.
fn ours<B: 'static, E: 'static>(error: &E) -> Option<&HttpError<B>> {
    let error = error as &dyn Any;
    if let Some(error) = error.downcast_ref::<HttpError<B>>() {
        return Some(error);
    }
    find(&**error.downcast_ref::<BoxError>()?)
}

fn kind_of<B: 'static, E: 'static>(error: &E) -> Option<HttpErrorKind> {
    ours::<B, E>(error).map(HttpError::kind)
}

/// Until when the request has time.
fn deadline<B>(request: &Request<B>) -> Option<Instant> {
    request.extensions().get::<Deadline>().map(Deadline::instant)
}

/// Whether an error of this kind says nothing of the instance.
fn is_blameless(kind: HttpErrorKind) -> bool {
    use HttpErrorKind as Kind;
    matches!(kind, Kind::Returned | Kind::Avoided | Kind::Expired | Kind::Request)
}

/// The request that an error of our own endpoints gives back.
fn take_back<B: 'static, E: 'static>(error: &E) -> Option<Request<B>> {
    let error = ours::<B, E>(error)?;
    // What is too late here is too late elsewhere.
    let goes_on = error.is_unsent() && error.kind() != HttpErrorKind::Expired;
    goes_on.then(|| error.take_request()).flatten()
}

/// Says who served.
fn mark<B, K>(response: &mut Response<B>, key: &K)
where
    K: Clone + Send + Sync + 'static,
{
    // Our own endpoints have said it already, and so has a balancer further down, which knows better.
    if response.extensions().get::<ServedBy<K>>().is_none() {
        response.extensions_mut().insert(ServedBy(key.clone()));
    }
}

impl<B, R, E, K, J> Protocol<Request<B>, Response<R>, E, K> for Http<J>
where
    B: 'static,
    R: Body,
    E: 'static,
    K: Clone + PartialEq + Send + Sync + 'static,
    J: Judge<Response<R>, E>,
{
    type Response = Response<Tracked<R, K>>;

    fn avoids(&self, request: &Request<B>, key: &K) -> bool {
        avoids(request, key)
    }

    fn deadline(&self, request: &Request<B>) -> Option<Instant> {
        deadline(request)
    }

    fn outcome(&self, _: &Response<R>) -> Option<Outcome> {
        None
    }

    fn respond(mut response: Response<R>, origin: Origin<K>) -> Self::Response {
        mark(&mut response, origin.endpoint());
        response.map(Tracked::over)
    }

    fn follow(&self, mut response: Response<R>, mut call: Completion<K>) -> Self::Response {
        mark(&mut response, call.endpoint());
        call.tell(self.judge.judge(Ok(&response)));
        let fault = response.extensions_mut().remove();
        response.map(|body| Tracked::new(body, call, None, fault))
    }

    fn failed(&self, error: &E) -> Outcome {
        match kind_of::<B, E>(error) {
            Some(kind) if is_blameless(kind) => Outcome::Ignore,
            _ => self.judge.judge(Err(error)),
        }
    }

    fn take_back(&self, error: &mut E) -> Option<Request<B>> {
        take_back(error)
    }
}

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether the head says `UNAVAILABLE`, so that there is nothing else in the response.
pub(super) fn is_unavailable(headers: &HeaderMap) -> bool {
    headers.get(GRPC_STATUS).is_some_and(|status| status == "14")
}

/// What the status in the head or the trailers says, if it is there.
fn by_grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    let status = headers.get(GRPC_STATUS)?.to_str().ok()?.trim().parse::<u32>().ok()?;
    Some(match status {
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS
        2 | 4 | 13 | 14 | 15 => Outcome::Failure,
        // RESOURCE_EXHAUSTED
        8 => match retry_after(headers) {
            None => Outcome::Ignore,
            retry_after => Outcome::Overloaded { retry_after },
        },
        _ => Outcome::Success,
    })
}

impl<B, R, E, K> Protocol<Request<B>, Response<R>, E, K> for Grpc
where
    B: 'static,
    R: Body,
    R::Error: 'static,
    E: 'static,
    K: Clone + PartialEq + Send + Sync + 'static,
{
    type Response = Response<Tracked<R, K>>;

    fn avoids(&self, request: &Request<B>, key: &K) -> bool {
        avoids(request, key)
    }

    fn deadline(&self, request: &Request<B>) -> Option<Instant> {
        deadline(request)
    }

    fn outcome(&self, _: &Response<R>) -> Option<Outcome> {
        None
    }

    fn respond(mut response: Response<R>, origin: Origin<K>) -> Self::Response {
        mark(&mut response, origin.endpoint());
        response.map(Tracked::over)
    }

    fn follow(&self, mut response: Response<R>, mut call: Completion<K>) -> Self::Response {
        mark(&mut response, call.endpoint());
        call.responded();
        let outcome = by_grpc_status(response.headers());
        let failed = !response.status().is_success();
        let outcome = outcome.or_else(|| failed.then(|| by_status(&response)));
        if let Some(outcome) = outcome {
            call.tell(outcome);
        }
        let grpc = InTrailers {
            expected: outcome.is_none(),
            is_blameless: |error| kind_of::<B, R::Error>(error).is_some_and(is_blameless),
        };
        let fault = response.extensions_mut().remove();
        response.map(|body| Tracked::new(body, call, Some(grpc), fault))
    }

    fn failed(&self, error: &E) -> Outcome {
        match kind_of::<B, E>(error) {
            Some(kind) if is_blameless(kind) => Outcome::Ignore,
            _ => Outcome::Failure,
        }
    }

    fn take_back(&self, error: &mut E) -> Option<Request<B>> {
        take_back(error)
    }
}

pin_project! {
    /// The body of a response, by which its call counts as pending until it ends or is dropped.
    pub struct Tracked<B: Body, K> {
        #[pin]
        body: B,
        // Until the end.
        call: Option<Completion<K>>,
        grpc: Option<InTrailers<B::Error>>,
        // Whether it is the request that fails it.
        fault: Option<OwnFault>,
    }
}

/// A body whose trailers have the outcome.
struct InTrailers<E> {
    /// It is not known yet.
    expected: bool,
    /// Whether this error of the body is none of the endpoint.
    is_blameless: fn(&E) -> bool,
}

impl<B: Body, K: 'static> Tracked<B, K> {
    fn new(
        body: B,
        call: Completion<K>,
        grpc: Option<InTrailers<B::Error>>,
        fault: Option<OwnFault>,
    ) -> Self {
        let mut tracked = Self { body, call: Some(call), grpc, fault };
        // Nobody reads a body that is none.
        if tracked.body.is_end_stream() {
            tracked.end();
        }
        tracked
    }

    fn over(body: B) -> Self {
        Self { body, call: None, grpc: None, fault: None }
    }

    fn end(&mut self) {
        end(&mut self.call, self.grpc.as_ref());
    }

    /// The instance does not go on with it.
    pub(super) fn fail(&mut self) {
        if let Some(mut call) = self.call.take() {
            call.tell(Outcome::Failure);
        }
    }
}

/// The body is over.
fn end<K: 'static, E>(call: &mut Option<Completion<K>>, grpc: Option<&InTrailers<E>>) {
    if let Some(mut call) = call.take()
        && grpc.is_some_and(|grpc| grpc.expected)
    {
        // Without a status it was cut off.
        call.tell(Outcome::Failure);
    }
}

impl<B: Body, K: 'static> Body for Tracked<B, K> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let Some(call) = this.call else { return Poll::Ready(frame) };
        match &frame {
            None => end(this.call, this.grpc.as_ref()),
            Some(Err(error)) => {
                // Told before, it stays what it was if it is to be ignored.
                let own = this.fault.as_ref().is_some_and(OwnFault::is_so)
                    || this.grpc.as_ref().is_some_and(|grpc| (grpc.is_blameless)(error));
                call.tell(if own { Outcome::Ignore } else { Outcome::Failure });
                *this.call = None;
            }
            Some(Ok(frame)) => {
                if let Some(grpc) = this.grpc
                    && let Some(outcome) = frame.trailers_ref().and_then(by_grpc_status)
                {
                    call.tell(outcome);
                    grpc.expected = false;
                }
                // Who knows the length does not ask again after the last piece.
                if this.body.is_end_stream() {
                    end(this.call, this.grpc.as_ref());
                }
            }
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

impl<B: Body + fmt::Debug, K> fmt::Debug for Tracked<B, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("body", &self.body).finish_non_exhaustive()
    }
}
