//! One request on its way.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::Response;
use discovery_core::InstanceKey;
use pin_project_lite::pin_project;

use super::body::ClientBody;
use super::error::ClientError;
use super::usage::InUse;
use crate::balance::CallError;
use crate::http::{PooledBody, Tracked};

pin_project! {
    /// The response to come, up to its head; `F` is the call through the balancer. Dropping it cancels
    /// the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ClientFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused { error: Option<ClientError> },
        Called { #[pin] call: F, in_use: Option<InUse> },
    }
}

impl<F> ClientFuture<F> {
    pub(super) fn called(call: F, in_use: InUse) -> Self {
        Self { state: State::Called { call, in_use: Some(in_use) } }
    }

    pub(super) fn refused(error: ClientError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

/// What the call through the balancer ends with.
type Called = Result<Response<Tracked<PooledBody, InstanceKey>>, CallError<InstanceKey>>;

impl<F: Future<Output = Called>> Future for ClientFuture<F> {
    type Output = Result<Response<ClientBody>, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { error } => {
                error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
            }
            StateProj::Called { call, in_use } => {
                if in_use.is_none() {
                    return Poll::Pending;
                }
                let result = ready!(call.poll(cx));
                let Some(in_use) = in_use.take() else { return Poll::Pending };
                Poll::Ready(match result {
                    Ok(response) => Ok(response.map(|body| ClientBody::new(body, in_use))),
                    Err(error) => Err(ClientError::Call(error)),
                })
            }
        }
    }
}

impl<F> fmt::Debug for ClientFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Refused { .. } => "ClientFuture::Refused",
            State::Called { .. } => "ClientFuture::Called",
        })
    }
}
