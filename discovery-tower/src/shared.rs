//! One balancer for many tasks.
//!
//! tower's own answer is a buffer in front of a worker task. It repeats the first error for ever, makes
//! every caller wait behind one that cannot be served, and cannot say why nobody is served. Here there
//! is no worker: the caller takes a lock, polls the balancer, hands over its request and leaves; it
//! awaits the response, or its turn, outside the lock. So a caller that is dropped, or that is not
//! polled for a while, holds up nobody.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use discovery_core::{State, Status, StatusReader};
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::{BoxError, Service};

use crate::balance::Limits;
use crate::{Avoid, BalanceError};

/// A balancer (any [`Service`], such as [`tower::balance::p2c::Balance`]) that many tasks share.
///
/// Clones share the balancer. `poll_ready` is always ready: a call waits by itself, at most as long as
/// the [`Limits`] say, and not at all when the source knows that there is no instance. Also when the
/// last instance goes while a call waits, the wait is over. No error is final.
///
/// A call is cancel safe up to where the request has been handed to an instance: dropped before, it
/// leaves nothing behind.
pub struct SharedBalance<S, Req> {
    shared: Arc<Shared<S>>,
    limits: Limits,
    name: Option<Arc<str>>,
    avoid: fn(&Req) -> Option<&Avoid>,
}

struct Shared<S> {
    balance: Mutex<S>,
    status: StatusReader,
    bell: Arc<Bell>,
    /// The one waker that the balancer knows: it rings the bell for all who wait.
    waker: Waker,
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_waiters();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_waiters();
    }
}

impl<S, Req> SharedBalance<S, Req> {
    /// Shares `balance`; `status` is that of the source of its endpoints, from
    /// [`Changes::status`](discovery_core::Changes::status) of the very stream that feeds it.
    pub fn new(balance: S, status: StatusReader) -> Self {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(bell.clone());
        let shared = Shared { balance: Mutex::new(balance), status, bell, waker };
        let shared = Arc::new(shared);
        Self { shared, limits: Limits::default(), name: None, avoid: |_| None }
    }

    /// Sets how long calls through this handle and its later clones wait.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Sets what the errors of this handle and its later clones call the service: `orders` makes it
    /// "no instances of orders".
    #[must_use]
    pub fn named(self, name: impl fmt::Display) -> Self {
        Self { name: Some(name.to_string().into()), ..self }
    }

    /// Says where a request has its list of instances to [avoid](Avoid).
    ///
    /// The endpoint services must ask [`Avoid::poll_wanted`], as `HttpEndpoint` does. When nobody else
    /// is ready, an instance on the list gets the request after all, at once: it can be refused there.
    #[must_use]
    pub fn steered_by(self, avoid: fn(&Req) -> Option<&Avoid>) -> Self {
        Self { avoid, ..self }
    }

    /// The status of the source of the endpoints.
    pub fn status(&self) -> StatusReader {
        self.shared.status.clone()
    }
}

impl<S, Req> Clone for SharedBalance<S, Req> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            limits: self.limits,
            name: self.name.clone(),
            avoid: self.avoid,
        }
    }
}

impl<S, Req> fmt::Debug for SharedBalance<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBalance")
            .field("name", &self.name)
            .field("status", &self.shared.status)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<S, Req> Service<Req> for SharedBalance<S, Req>
where
    S: Service<Req> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = BalanceError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BalanceError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BalanceError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let response = this.dispatch(request).await?;
            drop(this);
            response.await.map_err(BalanceError::failed)
        })
    }
}

impl<S, Req> SharedBalance<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    /// Hands the request to the balancer as soon as that is ready.
    async fn dispatch(&self, request: Req) -> Result<S::Future, BalanceError> {
        let mut request = Some(request);
        // Nearly always somebody is ready.
        if let Poll::Ready(dispatched) = self.attempt(&mut request) {
            return dispatched;
        }
        let started = Instant::now();
        let mut status = self.shared.status.clone();
        let mut lasting = true;
        loop {
            // Whoever rings from here on is heard below.
            let rung = self.shared.bell.0.notified();
            let before = status.get();
            if let Poll::Ready(dispatched) = self.attempt(&mut request) {
                return dispatched;
            }
            let now = status.get();
            if let Some(error) = self.verdict(&before, &now, started.elapsed(), lasting) {
                return Err(error);
            }
            let limit = if now.loaded { self.limits.ready } else { self.limits.load };
            tokio::select! {
                () = rung => {}
                more = status.changed(), if lasting => lasting = more,
                () = tokio::time::sleep(limit.saturating_sub(started.elapsed())) => {}
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Polls the balancer once, and calls it if it is ready, in one go: no pick is ever left behind.
    fn attempt(&self, request: &mut Option<Req>) -> Poll<Result<S::Future, BalanceError>> {
        let mut cx = Context::from_waker(&self.shared.waker);
        let mut balance = self.shared.balance.lock().unwrap_or_else(PoisonError::into_inner);
        let avoid = request.as_ref().and_then(self.avoid).filter(|avoid| !avoid.is_empty());
        let others = match avoid {
            Some(avoid) => avoid.during(|| balance.poll_ready(&mut cx)),
            None => Poll::Pending,
        };
        let ready = if others.is_ready() { others } else { balance.poll_ready(&mut cx) };
        match (ready, request.take()) {
            (Poll::Ready(Ok(())), Some(request)) => Poll::Ready(Ok(balance.call(request))),
            (Poll::Ready(Err(error)), _) => Poll::Ready(Err(BalanceError::failed(error))),
            (_, pending) => {
                *request = pending;
                Poll::Pending
            }
        }
    }

    /// Whether it is time to give up, the balancer having been polled between `before` and `now`.
    fn verdict(
        &self,
        before: &Status,
        now: &Status,
        waited: Duration,
        lasting: bool,
    ) -> Option<BalanceError> {
        // Of a set that loaded after the balancer was polled, the balancer knows nothing yet.
        if before.loaded && now.endpoints == 0 {
            return Some(BalanceError::NoInstances { service: self.name.clone() });
        }
        if now.loaded {
            return (waited >= self.limits.ready).then(|| BalanceError::NotReady {
                service: self.name.clone(),
                waited,
                endpoints: now.endpoints,
            });
        }
        let hopeless = !lasting || matches!(now.state, State::Closed);
        (hopeless || waited >= self.limits.load).then(|| BalanceError::NotLoaded {
            service: self.name.clone(),
            waited,
            cause: now.last_error.clone(),
        })
    }
}
