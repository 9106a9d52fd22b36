//! One request on its way, up to the head of the response.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use ::http::{Request, Response};
use http_body::Body;
use tokio::time::{Instant, timeout, timeout_at};
use tower::BoxError;

use super::body::PooledBody;
use super::failure::Failure;
use super::lease::Lease;
use super::reservation::Reservation;
use super::shared::Pool;
use crate::http::Deadline;
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
        let deadline = request.extensions().get::<Deadline>().copied();
        Self(match deadline {
            None => Box::pin(send(target, lease, request)),
            Some(deadline) => Box::pin(send_by(deadline, target, lease, request)),
        })
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

/// How often a request goes to another connection at most. When that happens to one request again and
/// again, it is the instance that does not want it.
const RESENT: usize = 3;

/// Sends a request that has time until then.
async fn send_by<B>(
    deadline: Deadline,
    target: Arc<Target>,
    lease: Option<Lease<B>>,
    request: Request<B>,
) -> Result<Response<PooledBody>, HttpError<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    if deadline.has_passed() {
        let cause = "its deadline has passed";
        return Err(HttpError::new(target, HttpErrorKind::Expired, cause, None, Some(request)));
    }
    let begun = Instant::now();
    // That it is cancelled when the time is over is not the connection's fault.
    let sent = timeout_at(deadline.instant(), send(target.clone(), lease, request)).await;
    sent.unwrap_or_else(|_| {
        let cause = format!("not within {:.1?}, when its deadline passed", begun.elapsed());
        Err(HttpError::new(target, HttpErrorKind::Timeout, cause, None, None))
    })
}

async fn send<B>(
    target: Arc<Target>,
    lease: Option<Lease<B>>,
    mut request: Request<B>,
) -> Result<Response<PooledBody>, HttpError<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Some(mut lease) = lease else {
        let cause = "the endpoint was called before it was ready";
        return Err(HttpError::new(target, HttpErrorKind::Returned, cause, None, Some(request)));
    };
    let mut resent = 0;
    loop {
        let pool = lease.pool();
        let unsent = match send_on(lease, &target, request).await {
            Ok(response) => return Ok(response),
            Err(unsent) => unsent,
        };
        // A connection that turns out to be closed costs the request nothing, not even its turn.
        if !unsent.is_closing || resent == RESENT {
            return Err(unsent.error);
        }
        let Some(back) = unsent.error.take_request() else { return Err(unsent.error) };
        (lease, request) = match another(&pool).await {
            Ok(lease) => (lease, back),
            Err(failure) => {
                let cause = failure.as_ref().map_or(unsent.error.cause(), Failure::cause);
                let kind = HttpErrorKind::Returned;
                return Err(HttpError::new(target, kind, cause, None, Some(back)));
            }
        };
        resent += 1;
    }
}

struct Unsent<B> {
    error: HttpError<B>,
    /// It is the connection that closes.
    is_closing: bool,
}

/// Sends a request on this connection.
async fn send_on<B>(
    mut lease: Lease<B>,
    target: &Arc<Target>,
    request: Request<B>,
) -> Result<Response<PooledBody>, Unsent<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let (body, claim) = Reclaim::new(body);
    let empty = body.is_end_stream();
    let mut sent = Request::from_parts(head.clone(), body);
    let form = if lease.is_http2() { Form::Http2 } else { Form::Http1 };
    let (kind, cause, source, is_closing) = match target.direct(&mut sent, form) {
        Err((kind, cause)) => (kind, cause, None, false),
        Ok(()) => match lease.send(sent).await {
            Some(Ok(response)) => {
                let mut response = response.map(|body| PooledBody::new(body, lease));
                response.extensions_mut().insert(ServedBy(target.key.clone()));
                if !empty {
                    response.extensions_mut().insert(claim.own_fault());
                }
                return Ok(response);
            }
            Some(Err(error)) => {
                // What hyper gives back is not needed: the claim has it, too.
                let error = error.into_error();
                let (kind, cause) = meaning(&error, &claim);
                if kind == HttpErrorKind::Request {
                    lease.excuse();
                }
                let is_closing = classify::is_closing(&error);
                (kind, cause, Some(Arc::new(error) as Source), is_closing)
            }
            None => (HttpErrorKind::Returned, "the connection was closing".to_owned(), None, true),
        },
    };
    let back = claim.take().map(|body| Request::from_parts(head, body));
    Err(Unsent { error: HttpError::new(target.clone(), kind, cause, source, back), is_closing })
}

fn meaning<B>(error: &hyper::Error, claim: &Claim<B>) -> (HttpErrorKind, String) {
    match claim.failure() {
        Some(failure) => (HttpErrorKind::Request, format!("the request body: {failure}")),
        // Nobody has read the body, so it did not fail: this is how hyper says that the task of the
        // connection is gone.
        None if error.is_user() && claim.is_unread() => {
            (HttpErrorKind::Reset, "the connection was closed".to_owned())
        }
        None => classify::of_connection(error),
    }
}

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
