//! The layer that asks clients of HTTP/1 to go elsewhere while the server drains.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::stage::Draining;

/// Adds `connection: close` to HTTP/1 answers while the server drains, so that clients with a pool of
/// connections come to have none to it before the last one is taken from them. HTTP/2 has no such
/// header and needs none: its shutdown says which requests were not seen.
///
/// [`Server::serve`](super::Server::serve) has it built in; for another server it comes from
/// [`Member::layer`](super::Member::layer).
#[derive(Clone, Debug)]
pub struct DrainLayer {
    draining: Draining,
}

impl DrainLayer {
    pub(super) fn new(draining: &Draining) -> Self {
        Self { draining: draining.clone() }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Drain<S> {
        Drain { inner, draining: self.draining.clone() }
    }
}

/// The service of [`DrainLayer`].
#[derive(Clone, Debug)]
pub struct Drain<S> {
    inner: S,
    draining: Draining,
}

impl<S, A, B> Service<Request<A>> for Drain<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = DrainFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> DrainFuture<S::Future> {
        let http1 = request.version() <= Version::HTTP_11;
        let draining = http1.then(|| self.draining.clone());
        DrainFuture { answer: self.inner.call(request), draining }
    }
}

pin_project! {
    /// The future of [`Drain`].
    #[derive(Debug)]
    pub struct DrainFuture<F> {
        #[pin]
        answer: F,
        // Of requests that came over HTTP/1.
        draining: Option<Draining>,
    }
}

impl<F, B, E> Future for DrainFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(cx));
        // Asked when the answer is there: it may have taken long.
        if let (Ok(answer), Some(draining)) = (&mut answer, this.draining)
            && draining.began()
            // A connection that becomes something else is no longer one of HTTP.
            && answer.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
