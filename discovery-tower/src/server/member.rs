//! For a server that somebody else runs: all but the accept loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use discovery_core::{Instance, InstanceKey, RegistrationError};
use tokio::sync::oneshot;

use super::drain::DrainLayer;
use super::error::{ServerError, Stopped};
use super::lifecycle::Lifecycle;
use super::patience::Patience;

/// A server that is registered while another stack serves it, such as `axum::serve` or tonic's own: from
/// [`Server::register`](super::Server::register).
///
/// Dropped, it takes the registration away without waiting and without certainty.
#[derive(Debug)]
#[must_use = "dropped, it is registered no longer"]
pub struct Member {
    lifecycle: Lifecycle,
    patience: Patience,
}

impl Member {
    pub(super) fn new(lifecycle: Lifecycle, patience: Patience) -> Self {
        Self { lifecycle, patience }
    }

    /// The instance as it is to be registered.
    pub fn instance(&self) -> Arc<Instance> {
        self.lifecycle.instance()
    }

    /// A layer for the outside of what is served: HTTP/1 answers ask clients to go elsewhere while the
    /// server drains.
    pub fn layer(&self) -> DrainLayer {
        DrainLayer::new(&self.lifecycle.progress.draining)
    }

    /// Two futures. The first is for the server, as in `with_graceful_shutdown`: polled, it keeps the
    /// registration true; when `shutdown` resolves, or the registration ends, it drains, deregisters, and
    /// resolves. The second says how that ended; await it after the server.
    pub fn leave_on<F>(self, shutdown: F) -> (impl Future<Output = ()> + Send + use<F>, Left)
    where
        F: Future<Output = ()> + Send,
    {
        let Self { lifecycle, mut patience } = self;
        let key = lifecycle.registration.key().clone();
        let (tell, told) = oneshot::channel();
        let leave = async move {
            let left = lifecycle.run(shutdown, &mut patience).await;
            // Nobody has to want to know.
            let _ = tell.send(left.map(|unconfirmed| Stopped { unconfirmed, cut_off: 0 }));
        };
        (leave, Left { key, told })
    }
}

/// How a [`Member`] left.
///
/// # Errors
/// [`ServerError::Registration`] if its registration ended by itself, or its first future was dropped.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Left {
    key: InstanceKey,
    told: oneshot::Receiver<Result<Stopped, ServerError>>,
}

impl Future for Left {
    type Output = Result<Stopped, ServerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.told).poll(cx).map(|told| {
            told.unwrap_or_else(|_| Err(RegistrationError::Ended(self.key.clone()).into()))
        })
    }
}
