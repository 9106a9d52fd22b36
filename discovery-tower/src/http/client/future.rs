//! One request on its way.

use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Response;
use discovery_core::InstanceKey;

use super::body::ClientBody;
use super::error::ClientError;
use super::secure::LeftOut;
use super::usage::InUse;
use crate::balance::CallError;
use crate::http::{FromEndpoint as _, PooledBody, Tracked};

/// The response to come, up to its head. Dropping it cancels the request.
///
/// It is in a box, so that nothing of what the client is made of is in its type: that costs nothing
/// beside a request.
#[must_use = "futures do nothing unless polled"]
pub struct ClientFuture(Pin<Box<dyn Future<Output = Ended> + Send>>);

type Ended = Result<Response<ClientBody>, ClientError>;

/// What the call through the balancer ends with.
type Called = Result<Response<Tracked<PooledBody, InstanceKey>>, CallError<InstanceKey>>;

impl ClientFuture {
    pub(super) fn called(
        call: impl Future<Output = Called> + Send + 'static,
        left_out: LeftOut,
        body_idle: Option<Duration>,
        in_use: InUse,
    ) -> Self {
        Self(Box::pin(async move {
            let response = call.await.map_err(|error| left_out.explain(error))?;
            let endpoint = response.endpoint().cloned();
            Ok(response.map(|body| ClientBody::new(body, endpoint, body_idle, in_use)))
        }))
    }

    pub(super) fn refused(error: ClientError) -> Self {
        Self(Box::pin(ready(Err(error))))
    }
}

impl Future for ClientFuture {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ClientFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFuture").finish_non_exhaustive()
    }
}
