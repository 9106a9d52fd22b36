//! The service that sends requests to one instance.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::{Request, Response};
use discovery_core::{Address, InstanceKey};
use http_body::Body;
use tower::{BoxError, Service};

use super::body::PooledBody;
use super::config::{HttpVersion, PoolConfig};
use super::reservation::Reservation;
use super::send::PooledFuture;
use super::shared::Pool;
use crate::http::error::HttpError;
#[cfg(feature = "tonic")]
use crate::http::target::Target;

/// Sends requests to one instance, over connections of its own. Cheap to clone; clones share the
/// connections.
///
/// # Readiness
/// `poll_ready` reserves a connection, or a place on one, for this clone: one that is idle, or a new
/// one if there are fewer than the maximum. Otherwise it is `Pending`, and callers have their turn in
/// the order in which they came. The reservation is used up by `call`, and given back when the clone
/// is dropped; a clone of the clone does not have it.
///
/// It fails when no connection can be made, with [`Connect`](crate::HttpErrorKind::Connect) or
/// [`ConnectTimeout`](crate::HttpErrorKind::ConnectTimeout), and then at once until the instance has been
/// left alone for a while: up to 50 ms after the first failure, up to 5 s after many, until a new
/// connection has served. Nothing is lost by that: there is no request yet, and the endpoint can be
/// polled again. tower's own balancers drop a service that fails so; see
/// [`MakeEndpoint`](crate::MakeEndpoint). An address that cannot be used is
/// [`Unsupported`](crate::HttpErrorKind::Unsupported).
///
/// Connections are made by tasks of their own: one that nobody waits for any more is used by the next.
/// The endpoint is used within a tokio runtime.
///
/// # Requests
/// Of a request's URI only path and query matter. Host, or over HTTP/2 the authority, becomes that of
/// the instance, and the version that of the protocol; all else is sent as it is. The response has the
/// extension [`ServedBy`](crate::ServedBy). Upgrades work over HTTP/1.1.
///
/// A request that was not sent, because its connection was closing, goes to another connection; if
/// that fails, and if the instance refused it before acting on it, it is
/// [`Returned`](crate::HttpErrorKind::Returned).
///
/// One with a [`Deadline`](crate::http::Deadline) is cancelled when that passes, with
/// [`Timeout`](crate::HttpErrorKind::Timeout); if it had passed before, the request is not sent.
///
/// A connection of HTTP/2 on which requests were given up for 2 s while none was answered is left to those
/// that are on it, since the network may have forgotten it; further ones have another connection.
///
/// # The end
/// When the last clone is dropped, connections that are not used close, and requests in flight finish.
/// Dropping the future of a call cancels the request.
pub struct PooledEndpoint<B> {
    pool: Arc<Pool<B>>,
    reservation: Reservation<B>,
}

impl<B> PooledEndpoint<B> {
    /// An endpoint with no connections yet. `key` is who is to be reached at `address`, as responses
    /// and errors name it.
    pub fn new(key: InstanceKey, address: Address, config: PoolConfig) -> Self {
        Self { pool: Pool::new(key, address, config), reservation: Reservation::None }
    }

    /// The instance.
    pub fn key(&self) -> &InstanceKey {
        &self.pool.target.key
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        &self.pool.target.address
    }

    /// The same, as errors tell it.
    #[cfg(feature = "tonic")]
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.pool.target
    }

    /// What is spoken to it.
    pub fn protocol(&self) -> HttpVersion {
        self.pool.protocol
    }
}

impl<B> Service<Request<B>> for PooledEndpoint<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<PooledBody>;
    type Error = HttpError<B>;
    type Future = PooledFuture<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError<B>>> {
        let target = &self.pool.target;
        self.reservation.poll(&self.pool, cx).map_err(|failure| failure.error(target))
    }

    /// Without a reservation, the request is given back in an error.
    fn call(&mut self, request: Request<B>) -> PooledFuture<B> {
        PooledFuture::new(self.pool.target.clone(), self.reservation.take(), request)
    }
}

impl<B> Clone for PooledEndpoint<B> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), reservation: Reservation::None }
    }
}

impl<B> fmt::Debug for PooledEndpoint<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledEndpoint").field("pool", &self.pool).finish_non_exhaustive()
    }
}
