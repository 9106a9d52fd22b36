//! What one clone of an endpoint has or waits for.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use http_body::Body;
use tokio::sync::oneshot;
use tower::BoxError;

use super::failure::Failure;
use super::lease::Lease;
use super::shared::{Answer, Pool, Reserved};

/// Dropping it gives back what it has, and leaves the queue.
#[derive(Default)]
pub(super) enum Reservation<B> {
    #[default]
    None,
    Waiting(Waiter<B>),
    Held(Lease<B>),
}

pub(super) struct Waiter<B> {
    pool: Weak<Pool<B>>,
    number: u64,
    receiver: oneshot::Receiver<Answer<B>>,
}

impl<B> Drop for Waiter<B> {
    fn drop(&mut self) {
        // A lease that came meanwhile is dropped with the receiver.
        if let Some(pool) = self.pool.upgrade() {
            pool.leave(self.number);
        }
    }
}

impl<B> Reservation<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Waits for a connection that is open.
    pub(super) fn poll(
        &mut self,
        pool: &Arc<Pool<B>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            *self = match self {
                Self::Held(lease) if lease.is_open() => return Poll::Ready(Ok(())),
                Self::Held(_) => Self::None,
                Self::Waiting(waiter) => match ready!(Pin::new(&mut waiter.receiver).poll(cx)) {
                    Ok(Ok(lease)) => Self::Held(lease),
                    Ok(Err(failure)) => {
                        *self = Self::None;
                        return Poll::Ready(Err(failure));
                    }
                    Err(_) => Self::None,
                },
                Self::None => match pool.reserve() {
                    Reserved::Have(lease) => Self::Held(lease),
                    Reserved::Failed(failure) => return Poll::Ready(Err(failure)),
                    Reserved::Wait(number, receiver) => {
                        Self::Waiting(Waiter { pool: Arc::downgrade(pool), number, receiver })
                    }
                },
            };
        }
    }
}

impl<B> Reservation<B> {
    /// Hands out what it has.
    pub(super) fn take(&mut self) -> Option<Lease<B>> {
        match std::mem::take(self) {
            Self::Held(lease) => Some(lease),
            Self::None | Self::Waiting(_) => None,
        }
    }
}
