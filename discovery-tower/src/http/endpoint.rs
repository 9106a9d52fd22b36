//! The service that sends requests to one instance.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::request::Parts;
use ::http::{Request, Response};
use discovery_core::{Address, InstanceKey};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, ResponseFuture};
use tower::{BoxError, Service};

use super::classify;
use super::connect::Connector;
use super::error::{HttpError, HttpErrorKind};
use super::reclaim::{Claim, Reclaim};
use super::target::{Form, ServedBy, Target};
use crate::Avoid;

/// Sends requests to one instance, over HTTP/1.1. Made by an [`HttpMaker`](super::HttpMaker); cheap to
/// clone.
///
/// Of a request's URI only path and query matter. `Host` becomes the authority of the instance, and
/// the version HTTP/1.1; all else is sent as it is. The response has the extension [`ServedBy`].
///
/// It is always ready, except while a balancer is polled for a request that [avoids](Avoid) its
/// instance; a request that avoids it is given back in an error. `https`, `grpc` and Unix addresses
/// are refused with [`HttpErrorKind::Unsupported`] when a request comes.
///
/// Dropping the future of a call cancels the request; dropping the endpoint does not.
pub struct HttpEndpoint<B> {
    client: Client<Connector, Reclaim<B>>,
    target: Arc<Target>,
}

impl<B> HttpEndpoint<B> {
    pub(super) fn new(client: Client<Connector, Reclaim<B>>, target: Arc<Target>) -> Self {
        Self { client, target }
    }

    /// The instance.
    pub fn key(&self) -> &InstanceKey {
        &self.target.key
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        &self.target.address
    }
}

impl<B> Service<Request<B>> for HttpEndpoint<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Incoming>;
    type Error = HttpError<B>;
    type Future = HttpFuture<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError<B>>> {
        Avoid::poll_wanted(&self.target.key, cx).map(Ok)
    }

    fn call(&mut self, request: Request<B>) -> HttpFuture<B> {
        let refuse = |kind, cause: String, request| {
            let error = HttpError::new(self.target.clone(), kind, cause, None, Some(request));
            HttpFuture(State::Refused(Some(error)))
        };
        let avoided = request.extensions().get::<Avoid>();
        if avoided.is_some_and(|avoid| avoid.contains(&self.target.key)) {
            let cause = "the request is to avoid this instance".to_owned();
            return refuse(HttpErrorKind::Avoided, cause, request);
        }
        if self.target.address.scheme() != "http" {
            let cause = self.target.unsupported();
            return refuse(HttpErrorKind::Unsupported, cause, request);
        }
        let (head, body) = request.into_parts();
        let (body, claim) = Reclaim::new(body);
        let mut sent = Request::from_parts(head.clone(), body);
        let unsent = Unsent { target: self.target.clone(), head, claim };
        if let Err((kind, cause)) = unsent.target.direct(&mut sent, Form::Client) {
            let error = unsent.error(kind, cause, None);
            return HttpFuture(State::Refused(Some(error)));
        }
        HttpFuture(State::Sent { response: self.client.request(sent), unsent: Some(unsent) })
    }
}

impl<B> Clone for HttpEndpoint<B> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), target: self.target.clone() }
    }
}

impl<B> fmt::Debug for HttpEndpoint<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoint")
            .field("key", self.key())
            .field("address", self.address())
            .finish_non_exhaustive()
    }
}

/// What is needed to give a request back.
#[derive(Debug)]
struct Unsent<B> {
    target: Arc<Target>,
    head: Parts,
    claim: Claim<B>,
}

impl<B> Unsent<B> {
    fn error(
        self,
        kind: HttpErrorKind,
        cause: String,
        source: Option<hyper_util::client::legacy::Error>,
    ) -> HttpError<B> {
        let source = source.map(|source| Arc::new(source) as _);
        let request = self.claim.take().map(|body| Request::from_parts(self.head, body));
        HttpError::new(self.target, kind, cause, source, request)
    }
}

/// The response to come, up to its head.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct HttpFuture<B>(State<B>);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the small one is the rare one")]
enum State<B> {
    Refused(Option<HttpError<B>>),
    Sent { response: ResponseFuture, unsent: Option<Unsent<B>> },
}

impl<B> Unpin for HttpFuture<B> {}

impl<B> Future for HttpFuture<B> {
    type Output = Result<Response<Incoming>, HttpError<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Refused(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            State::Sent { response, unsent } => {
                if unsent.is_none() {
                    return Poll::Pending;
                }
                let result = ready!(Pin::new(response).poll(cx));
                let Some(unsent) = unsent.take() else { return Poll::Pending };
                Poll::Ready(match result {
                    Ok(mut response) => {
                        response.extensions_mut().insert(ServedBy(unsent.target.key.clone()));
                        Ok(response)
                    }
                    Err(error) => {
                        let (kind, cause) = classify::of_client(&error);
                        Err(unsent.error(kind, cause, Some(error)))
                    }
                })
            }
        }
    }
}
