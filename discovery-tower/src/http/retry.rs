//! Trying again, at another instance.
//!
//! A balancer itself passes a request on that certainly did not reach an instance. Whatever else went
//! wrong, the instance may have acted on the request, so that it is sent again only where doing it
//! twice is the same as doing it once, within a budget that all requests share: when everything fails,
//! more load is the last thing that helps.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{Method, Request, Response};
use bytes::Bytes;
use discovery_core::InstanceKey;
use http_body::Body;
use tower::{BoxError, Layer, Service};

use super::budget::Budget;
use super::error::{HttpErrorKind, HttpFault};
use super::protocol::is_unavailable;
use super::replay::Replay;
use super::{Deadline, ServedBy};
use crate::Avoid;
use crate::balance::{CallError, guarded, observe};

/// How often, and what, is tried again.
#[derive(Clone)]
pub struct RetryLayer {
    retries: u32,
    limit: usize,
    budget: Arc<Budget>,
    repeating: Option<Repeating>,
    observer: Option<Observer>,
}

type Repeating = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;
type Observer = Arc<dyn Fn(Retried) + Send + Sync>;

/// What became of a request that failed and could be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retried {
    /// Another instance was tried.
    Again,
    /// It could be tried again, and the budget is used up.
    Refused,
}

/// How many instances have had a request: an extension of the request, for who wants to know, that
/// counts all attempts of it.
#[derive(Clone, Debug, Default)]
pub struct Tries(Arc<AtomicU32>);

impl Tries {
    /// How many.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl RetryLayer {
    /// Up to `retries` further instances are tried. Beside what they are for one request, retries may
    /// be a fifth of all requests of the last 10 s, and 10 a second.
    ///
    /// GET, HEAD, OPTIONS, PUT and DELETE are tried again when the connection was lost, or the time of the
    /// attempt was over, before the head of the response, and on 500, 502, 503 and 504, if their body is
    /// empty or not more than 64 kB of it have passed. What else may be repeated is said by
    /// [`repeating`](Self::repeating).
    ///
    /// A time limit of the service that this is put around, such as
    /// [`HttpClientBuilder::timeout`](super::HttpClientBuilder::timeout), is one for each attempt. A
    /// [`Deadline`] of the request is one for all of them, and so is a time limit around this.
    pub fn new(retries: u32) -> Self {
        observe::describe();
        let budget = Budget::new(Duration::from_secs(10), 10, 0.2);
        let budget = Arc::new(budget);
        Self { retries, limit: 64 * 1024, budget, repeating: None, observer: None }
    }

    /// Has requests of other methods tried again, too, of which `may` says by their head that doing them
    /// twice is the same as doing them once: POST to some paths, or with a key in a header that the
    /// instance knows repetitions by.
    ///
    /// All calls of gRPC are POST, so this is how to say which of them may be repeated: by their path,
    /// `/package.Service/Method`. They are tried again on `UNAVAILABLE` in the head of the response, too,
    /// as instances answer that do nothing else; a [`Channel`](crate::grpc::Channel) does more.
    #[must_use]
    pub fn repeating(self, may: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self { repeating: Some(Arc::new(may)), ..self }
    }

    /// Whether a request with this head may be sent twice.
    pub(crate) fn may_repeat(&self, head: &Parts) -> bool {
        let is_repeating = |may: &Repeating| may(head);
        self.retries > 0
            && (is_repeatable(&head.method) || self.repeating.as_ref().is_some_and(is_repeating))
    }

    /// Up to how many bytes of a body are kept.
    #[cfg(feature = "tonic")]
    pub(crate) fn kept(&self) -> usize {
        self.limit
    }

    /// Sets up to how many bytes of a body are kept to be sent again.
    #[must_use]
    pub fn body_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Sets the budget: retries may be this part of the requests over `window`, and `per_second` beside.
    ///
    /// # Panics
    ///
    /// If `window` is not between 1 and 60 s, or `part` not between 0 and 1000.
    #[must_use]
    pub fn budget(self, window: Duration, per_second: u32, part: f32) -> Self {
        Self { budget: Arc::new(Budget::new(window, per_second, part)), ..self }
    }

    /// Has `observer` told of each request that could be tried again, and when another instance was tried,
    /// as soon as that has answered or was given up. When nobody is left to try, there is nothing to tell.
    #[must_use]
    pub fn observed_by(self, observer: impl Fn(Retried) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Arc::new(observer)), ..self }
    }
}

impl RetryLayer {
    fn tell(&self, endpoint: Option<&InstanceKey>, what: Retried) {
        let service = endpoint.map(|key| key.service.as_str());
        observe::retried(service, what == Retried::Again);
        // This may run while another panic unwinds.
        guarded(|| self.observer.as_ref().map(|observer| observer(what)));
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, layer: self.clone() }
    }
}

impl fmt::Debug for RetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("retries", &self.retries)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// An error that may be that of a call through a balancer. [`Retry`] looks for that in the errors of the
/// service that it is put around.
pub trait CallFailure: From<CallError<InstanceKey>> {
    /// What the balancer said, if it was asked.
    fn failure(&self) -> Option<&CallError<InstanceKey>>;

    /// What kind of error the instance's was, if it is one of connections.
    fn kind(&self) -> Option<HttpErrorKind> {
        self.failure()?.downcast_ref::<HttpFault>().map(HttpFault::kind)
    }

    /// Where an answer can be an error, the instance that gave it, and whether another one may do better.
    fn answered(&self) -> Option<(&InstanceKey, bool)> {
        None
    }
}

impl CallFailure for CallError<InstanceKey> {
    fn failure(&self) -> Option<&CallError<InstanceKey>> {
        Some(self)
    }
}

/// Tries requests again at other instances, by the rules of its [`RetryLayer`].
///
/// When nobody is left to try, the last response or error stands. Dropping the future of a call
/// cancels the attempt that is under way.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    layer: RetryLayer,
}

impl<S, B, R> Service<Request<B>> for Retry<S>
where
    S: Service<Request<Replay<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: CallFailure + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RetryFuture<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> RetryFuture<R, S::Error> {
        let (head, body) = request.into_parts();
        let repeatable = self.layer.may_repeat(&head);
        let body =
            if repeatable { Replay::recorded(body, self.layer.limit) } else { Replay::once(body) };
        let request = Request::from_parts(head, body);
        let tries = request.extensions().get::<Tries>().cloned().unwrap_or_default();
        // Whom the caller avoids, further attempts avoid, too.
        let tried = request.extensions().get::<Avoid>().cloned().unwrap_or_default();
        let layer = self.layer.clone();
        let attempts = Attempts { layer, repeatable, tries, made: 0, tried, last: None };
        // The service that was asked for readiness is the one that is called.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        RetryFuture(Box::pin(tower::retry::Retry::new(attempts, inner).call(request)))
    }
}

/// The response to come, up to its head, from whichever attempt. Dropping it cancels the attempt that is
/// under way.
///
/// It is in a box, so that nothing of the service that is tried is in its type: a task that awaits it can
/// be spawned whatever the body is made of.
#[must_use = "futures do nothing unless polled"]
pub struct RetryFuture<R, E>(Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>);

impl<R, E> Future for RetryFuture<R, E> {
    type Output = Result<Response<R>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<R, E> fmt::Debug for RetryFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture").finish_non_exhaustive()
    }
}

/// The attempts at one request.
struct Attempts<R, E> {
    layer: RetryLayer,
    repeatable: bool,
    tries: Tries,
    /// How many of them have reached an instance.
    made: u32,
    tried: Avoid,
    /// What stands if nobody is left to try, and the retry that is under way.
    last: Option<(Result<Response<R>, E>, Again)>,
}

/// A retry, taken from the budget. It is told as such when it is over, unless it came to nobody.
struct Again {
    layer: Option<RetryLayer>,
    /// Who had the request before.
    endpoint: Option<InstanceKey>,
}

impl Again {
    /// Nobody was left to try.
    fn undo(mut self) {
        if let Some(layer) = self.layer.take() {
            layer.budget.give_back();
        }
    }
}

/// Also of a retry that was given up.
impl Drop for Again {
    fn drop(&mut self) {
        if let Some(layer) = self.layer.take() {
            layer.tell(self.endpoint.as_ref(), Retried::Again);
        }
    }
}

/// Whether to do it twice is the same as to do it once. (TRACE is, too, and nobody retries that.)
fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// Whether another instance may do better.
fn is_trouble<R>(response: &Response<R>) -> bool {
    matches!(response.status().as_u16(), 500 | 502 | 503 | 504)
        || is_unavailable(response.headers())
}

impl<B, R, E> tower::retry::Policy<Request<Replay<B>>, Response<R>, E> for Attempts<R, E>
where
    E: CallFailure,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Future = Ready<()>;

    fn retry(
        &mut self,
        request: &mut Request<Replay<B>>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Ready<()>> {
        let failure = result.as_ref().err().and_then(CallFailure::failure);
        let kind = result.as_ref().err().and_then(CallFailure::kind);
        let last = self.last.take();
        if failure.is_some_and(CallError::is_unsent) || kind == Some(HttpErrorKind::Expired) {
            // Nobody is left to try, or no time.
            if let Some((last, again)) = last {
                again.undo();
                *result = last;
            }
            return None;
        }
        self.tries.0.fetch_add(1, Ordering::Relaxed);
        self.made = self.made.saturating_add(1);
        let whole = request.body().is_whole();
        let (endpoint, again) = match &*result {
            Ok(response) => {
                let by = response.extensions().get::<ServedBy>().map(|ServedBy(key)| key);
                (by, is_trouble(response))
            }
            Err(error) => {
                if kind == Some(HttpErrorKind::Request)
                    && let Some((last, _)) = last
                {
                    // Since the last attempt was answered, too much of the body has passed there.
                    *result = last;
                    return None;
                }
                let lost = matches!(kind, Some(HttpErrorKind::Reset | HttpErrorKind::Timeout));
                match error.answered() {
                    Some((endpoint, again)) => (Some(endpoint), again),
                    None => (failure.and_then(CallError::endpoint), lost),
                }
            }
        };
        if !again || !whole || !self.repeatable || self.made > self.layer.retries {
            return None;
        }
        if request.extensions().get::<Deadline>().is_some_and(Deadline::has_passed) {
            return None;
        }
        drop(last);
        if !self.layer.budget.take() {
            self.layer.tell(endpoint, Retried::Refused);
            return None;
        }
        let again = Again { layer: Some(self.layer.clone()), endpoint: endpoint.cloned() };
        if let Some(endpoint) = endpoint {
            self.tried.add(endpoint.clone());
        }
        request.extensions_mut().insert(self.tried.clone());
        let nobody = CallError::NoEndpoints { service: None };
        self.last = Some((std::mem::replace(result, Err(nobody.into())), again));
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Replay<B>>) -> Option<Request<Replay<B>>> {
        if self.last.is_none() {
            self.layer.budget.request();
        }
        // What cannot be had again is not sent again; how the attempt ends is to be seen all the same.
        let mut again = Request::new(request.body().again().unwrap_or_else(Replay::spent));
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        again.headers_mut().clone_from(request.headers());
        again.extensions_mut().clone_from(request.extensions());
        Some(again)
    }
}

impl<R, E> Clone for Attempts<R, E> {
    /// Before the first attempt.
    fn clone(&self) -> Self {
        Self {
            layer: self.layer.clone(),
            repeatable: self.repeatable,
            tries: self.tries.clone(),
            made: self.made,
            tried: self.tried.clone(),
            last: None,
        }
    }
}
