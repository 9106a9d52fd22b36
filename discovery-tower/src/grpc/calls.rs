//! The balancer of a channel, whatever its policy is: the types of a channel do not tell.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use discovery_core::{Instance, InstanceKey};
use http::{Request, Response};
use tower::Service;

use super::endpoint::{Endpoint, Sent};
use super::held::{Followed, Held, hold};
use crate::balance::{Balance, CallError, EndpointView, Policy};
use crate::http::Grpc;

pub(super) type Balanced<P> = Balance<InstanceKey, Instance, Endpoint, Request<Sent>, P, Grpc>;

pub(super) type Answering<B> =
    Pin<Box<dyn Future<Output = Result<Response<B>, CallError<InstanceKey>>> + Send + 'static>>;

/// A balancer.
pub(super) trait Calls: Send + Sync + 'static {
    fn send(&self, request: Request<Sent>) -> Answering<Followed>;
    fn endpoints(&self) -> Vec<EndpointView<InstanceKey, Instance>>;
}

impl<P: Policy<Request<Sent>, InstanceKey, Instance>> Calls for Balanced<P> {
    fn send(&self, request: Request<Sent>) -> Answering<Followed> {
        Box::pin(self.clone().call(request))
    }

    fn endpoints(&self) -> Vec<EndpointView<InstanceKey, Instance>> {
        Self::endpoints(self)
    }
}

/// One attempt at a call that may be repeated: nothing of its response is passed on before it is whole.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) calls: Arc<dyn Calls>,
    /// How many bytes of a response are held back at most.
    pub(super) limit: usize,
}

impl Service<Request<Sent>> for Attempt {
    type Response = Response<Held>;
    type Error = CallError<InstanceKey>;
    type Future = Answering<Held>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Sent>) -> Answering<Held> {
        let (sending, limit) = (self.calls.send(request), self.limit);
        Box::pin(async move { hold(sending.await?, limit).await })
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("limit", &self.limit).finish_non_exhaustive()
    }
}
