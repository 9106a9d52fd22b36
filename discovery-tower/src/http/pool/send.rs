//! One request on its way, up to the head of the response.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use ::http::request::Parts;
use ::http::{Request, Response};
use http_body::Body;
use tokio::time::timeout;
use tower::BoxError;

use super::body::PooledBody;
use super::failure::Failure;
use super::lease::Lease;
use super::reservation::Reservation;
use super::shared::Pool;
use crate::http::classify;
use crate::http::error::{HttpError, HttpErrorKind, Source};
use crate::http::reclaim::{Claim, Reclaim};
use crate::http::target::{Form, ServedBy, Target};

/// The response to come, up to its head.
///
/// Dropping it cancels the request: over HTTP/2 its stream is reset, over HTTP/1.1 its connection is
/// closed. It does not need the endpoint any more.
#[must_use = "futures do nothing unless polled"]
pub struct PooledFuture<B>(Sending<B>);

type Sending<B> =
    Pin<Box<dyn Future<Output = Result<Response<PooledBody>, HttpError<B>>> + Send + 'static>>;

impl<B> PooledFuture<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(target: Arc<Target>, lease: Option<Lease<B>>, request: Request<B>) -> Self {
        Self(Box::pin(send(target, lease, request)))
    }
}

impl<B> Future for PooledFuture<B> {
    type Output = Result<Response<PooledBody>, HttpError<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<B> fmt::Debug for PooledFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledFuture").finish_non_exhaustive()
    }
}

/// What is needed to give a request back.
struct Unsent<B> {
    target: Arc<Target>,
    head: Parts,
    claim: Claim<B>,
}

impl<B> Unsent<B> {
    fn error(self, kind: HttpErrorKind, cause: &str, source: Option<Source>) -> HttpError<B> {
        let request = self.claim.take().map(|body| Request::from_parts(self.head, body));
        HttpError::new(self.target, kind, cause, source, request)
    }

    /// The error of a request that failed on a connection.
    fn failed(self, error: hyper::Error) -> HttpError<B> {
        let (kind, cause) = match self.claim.failure() {
            Some(failure) => (HttpErrorKind::Other, format!("the request body: {failure}")),
            // Nobody has read the body, so it did not fail: this is how hyper says that the task of
            // the connection is gone.
            None if error.is_user() && self.claim.is_unread() => {
                (HttpErrorKind::Reset, "the connection was closed".to_owned())
            }
            None => classify::of_connection(&error),
        };
        self.error(kind, &cause, Some(Arc::new(error)))
    }
}

async fn send<B>(
    target: Arc<Target>,
    lease: Option<Lease<B>>,
    request: Request<B>,
) -> Result<Response<PooledBody>, HttpError<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let (body, claim) = Reclaim::new(body);
    let mut sent = Request::from_parts(head.clone(), body);
    let unsent = Unsent { target, head, claim };
    let Some(mut lease) = lease else {
        return Err(unsent.error(HttpErrorKind::Returned, NOT_READY, None));
    };
    let form = if lease.is_http2() { Form::Http2 } else { Form::Http1 };
    if let Err(cause) = unsent.target.direct(&mut sent, form) {
        return Err(unsent.error(HttpErrorKind::Unsupported, &cause, None));
    }
    loop {
        let used = lease.has_served();
        let mut error = match lease.send(sent).await {
            Some(Ok(response)) => {
                let mut response = response.map(|body| PooledBody::new(body, lease));
                response.extensions_mut().insert(ServedBy(unsent.target.key.clone()));
                return Ok(response);
            }
            Some(Err(error)) => error,
            None => return Err(unsent.error(HttpErrorKind::Returned, NOT_READY, None)),
        };
        // A connection that was kept and turns out to be closed costs the request nothing, not even
        // its place here. A new one that does not work is for the caller to know.
        let (Some(message), true) = (error.take_message(), used) else {
            return Err(unsent.failed(error.into_error()));
        };
        let pool = lease.pool();
        drop(lease);
        match another(&pool).await {
            Ok(other) => (lease, sent) = (other, message),
            Err(failure) => {
                drop(message);
                let cause = failure.as_ref().map_or(CLOSING, Failure::cause);
                let source = Some(Arc::new(error.into_error()) as _);
                return Err(unsent.error(HttpErrorKind::Returned, cause, source));
            }
        }
    }
}

const NOT_READY: &str = "the endpoint was called before it was ready";
const CLOSING: &str = "the connection was closing";

/// Another connection; that there is none in time is an error without a cause of its own.
async fn another<B>(pool: &Weak<Pool<B>>) -> Result<Lease<B>, Option<Failure>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let pool = pool.upgrade().ok_or(None)?;
    let mut reservation = Reservation::default();
    let reserved = poll_fn(|cx| reservation.poll(&pool, cx));
    timeout(pool.config.connect_timeout, reserved).await.map_err(|_| None)?.map_err(Some)?;
    reservation.take().ok_or(None)
}
