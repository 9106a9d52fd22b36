//! The channel that people hold.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Instance, InstanceKey, ServiceName, Source};
use http::{Request, Response};
use http_body::Body;
use tonic::Status;
use tower::{BoxError, Service};

use super::builder::ChannelBuilder;
use super::calls::Calls;
use super::response::ResponseBody;
use super::run::{Running, run};
use crate::balance::EndpointView;
use crate::http::RetryLayer;

/// Calls of gRPC to the instances of a service, for the clients that tonic generates: give it to
/// `new` of such a client. Cheap to clone; clones share the balancer and its connections. See the
/// [module](super) for what holds.
///
/// It is a [`Service`] that is always ready: a call waits by itself, as long as its deadline and the
/// [`Limits`](crate::Limits) say.
#[derive(Clone)]
pub struct Channel(Arc<Shared>);

pub(super) struct Shared {
    pub(super) calls: Arc<dyn Calls>,
    pub(super) service: ServiceName,
    pub(super) retry: RetryLayer,
    /// Of calls that have none of their own.
    pub(super) deadline: Option<Duration>,
}

impl Channel {
    /// A channel to the service as `source` knows it, with the defaults of a [`ChannelBuilder`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(source: &(impl Source + ?Sized), service: &ServiceName) -> Self {
        Self::builder(source, service).build()
    }

    /// Begins a channel to the service as `source` knows it.
    pub fn builder(source: &(impl Source + ?Sized), service: &ServiceName) -> ChannelBuilder {
        ChannelBuilder::new(source, service)
    }

    pub(super) fn made(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// All instances as they are now, for pages and metrics: cheap, and not in any order.
    pub fn endpoints(&self) -> Vec<EndpointView<InstanceKey, Instance>> {
        self.0.calls.endpoints()
    }
}

impl<B> Service<Request<B>> for Channel
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ChannelFuture;

    /// Always ready: a call waits by itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ChannelFuture {
        ChannelFuture(run(&self.0, request.map(tonic::body::Body::new)))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("service", &self.0.service)
            .field("retry", &self.0.retry)
            .field("deadline", &self.0.deadline)
            .finish_non_exhaustive()
    }
}

/// The answer to come, up to its head. Dropping it cancels the call.
#[must_use = "futures do nothing unless polled"]
pub struct ChannelFuture(Running);

impl Future for ChannelFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ChannelFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelFuture").finish_non_exhaustive()
    }
}
