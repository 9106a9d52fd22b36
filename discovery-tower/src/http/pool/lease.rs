//! The right to send one request on a connection. However it ends, the connection goes back.

use std::fmt;
use std::future::poll_fn;
use std::sync::Weak;

use ::http::Request;
use http_body::Body;
use tower::BoxError;

use super::connection::{Connection, Sent};
use super::shared::Pool;
use super::state::Link as _;
use crate::http::reclaim::Reclaim;

/// A connection, or a place on one, until this is dropped. It does not keep the pool alive.
pub(super) struct Lease<B> {
    pool: Weak<Pool<B>>,
    connection: Option<Connection<B>>,
    exchange: Exchange,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    None,
    Sent,
    Answered,
    Failed,
    /// It is waited for that it is over; nobody else would wait for it.
    Ending,
}

impl<B> Lease<B> {
    pub(super) fn new(pool: Weak<Pool<B>>, connection: Connection<B>) -> Self {
        Self { pool, connection: Some(connection), exchange: Exchange::None }
    }

    /// Takes the connection out again, of a lease that nobody wanted.
    pub(super) fn into_connection(mut self) -> Option<Connection<B>> {
        self.connection.take()
    }

    pub(super) fn pool(&self) -> Weak<Pool<B>> {
        self.pool.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_open)
    }

    pub(super) fn is_http2(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_http2)
    }

    /// The connection is not to blame for what became of its request.
    pub(super) fn excuse(&self) {
        if let Some(connection) = &self.connection {
            connection.note_cancelled();
        }
    }

    /// Waits until the exchange on the connection is over, or the connection is.
    pub(super) async fn ended(mut self) {
        self.exchange = Exchange::Ending;
        if let Some(connection) = &mut self.connection {
            // Closed or not is seen when the lease is dropped.
            let _ = poll_fn(|cx| connection.poll_ready(cx)).await;
        }
    }
}

impl<B> Lease<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Sends a request and waits for the head of the response. A lease is for one request.
    ///
    /// Dropping the future cancels the request: over HTTP/1.1 that closes the connection.
    pub(super) async fn send(&mut self, request: Request<Reclaim<B>>) -> Option<Sent<B>> {
        let connection = self.connection.as_mut()?;
        self.exchange = Exchange::Sent;
        let sent = connection.send(request).await?;
        if sent.is_err() {
            self.exchange = Exchange::Failed;
            connection.note_broken();
        } else {
            self.exchange = Exchange::Answered;
            if connection.note_served()
                && let Some(pool) = self.pool.upgrade()
            {
                pool.served();
            }
        }
        Some(sent)
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // Without the pool nobody needs the connection; it ends when its exchange does.
        let Some(pool) = self.pool.upgrade() else { return };
        let http1 = !connection.is_http2();
        match self.exchange {
            Exchange::Sent => connection.note_given_up(),
            // An exchange of HTTP/1.1 that failed leaves nothing to go on with.
            Exchange::Failed if http1 => return pool.discard(connection),
            Exchange::Ending if connection.is_busy() => return pool.discard(connection),
            _ => {}
        }
        if self.exchange == Exchange::None || !connection.is_busy() {
            return pool.put(connection);
        }
        pool.await_end(Self {
            pool: self.pool.clone(),
            connection: Some(connection),
            exchange: Exchange::Ending,
        });
    }
}

impl<B> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
