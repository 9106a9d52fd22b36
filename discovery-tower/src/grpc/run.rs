//! One call, from the request to the head of the answer.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use discovery_core::InstanceKey;
use http::{Request, Response};
use tokio::time::sleep_until;
use tonic::Status;
use tower::{Layer as _, Service as _};

use super::call::{Call, Waiting};
use super::calls::{Answering, Attempt};
use super::channel::Shared;
use super::deadline::{self, Limit};
use super::error::ChannelError;
use super::held::Held;
use super::request::RequestBody;
use super::response::ResponseBody;
use super::status;
use crate::balance::CallError;
use crate::http::{FromEndpoint as _, Replay};

/// The answer to come, up to its head.
pub(super) type Running =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send + 'static>>;

/// Begins a call. Its time runs from now on.
pub(super) fn run(shared: &Arc<Shared>, request: Request<tonic::body::Body>) -> Running {
    let time = deadline::read(request.headers()).or(shared.deadline);
    let call = Call::new(time.and_then(Limit::of));
    let waiting = Waiting(call.clone());
    let answering = begin(shared, request, &call);
    let shared = shared.clone();
    Box::pin(async move {
        let response = within(answering, &call, &shared).await?;
        respond(response, waiting)
    })
}

fn begin(
    shared: &Shared,
    request: Request<tonic::body::Body>,
    call: &Arc<Call>,
) -> Answering<Held> {
    let (mut head, body) = request.into_parts();
    head.extensions.insert(call.clone());
    let may_repeat = shared.retry.may_repeat(&head);
    let request = Request::from_parts(head, RequestBody::new(body, call.clone()));
    if may_repeat {
        let attempt = Attempt { calls: shared.calls.clone(), limit: shared.retry.kept() };
        return Box::pin(shared.retry.layer(attempt).call(request));
    }
    // What an instance did not act on is sent to another one, whatever it is.
    let kept = shared.retry.kept();
    let sending = shared.calls.send(request.map(|body| Replay::recorded(body, kept)));
    Box::pin(async move { Ok(sending.await?.map(Held::none)) })
}

/// Waits for an answer up to the deadline. Whether an instance that has the call keeps to it is seen
/// where the instance is called.
async fn within(
    answering: Answering<Held>,
    call: &Call,
    shared: &Shared,
) -> Result<Response<Held>, Status> {
    let of_call = |result: Result<_, CallError<InstanceKey>>| {
        result.map_err(|error| status::of_call(error, call))
    };
    let Some(Limit { time, deadline }) = call.limit() else { return of_call(answering.await) };
    let mut answering = answering;
    let mut timer = pin!(sleep_until(deadline));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = answering.as_mut().poll(cx) {
            return Poll::Ready(of_call(result));
        }
        let is_late = timer.is_elapsed() || timer.as_mut().poll(cx).is_ready();
        if is_late && !call.is_sent() {
            let service = shared.service.clone();
            return Poll::Ready(Err(ChannelError::Deadline { service, time }.into()));
        }
        Poll::Pending
    })
    .await
}

fn respond(
    mut response: Response<Held>,
    waiting: Waiting,
) -> Result<Response<ResponseBody>, Status> {
    let status = status::read(response.headers_mut());
    let endpoint = response.endpoint().cloned();
    let is_told = match status {
        Some(status) if status.code() != tonic::Code::Ok => {
            return Err(status::answered(status, endpoint.as_ref()));
        }
        Some(_) => true,
        None if !response.status().is_success() => return Err(status::of_http(&response)),
        None => false,
    };
    Ok(response.map(|body| ResponseBody::new(body, endpoint, is_told, waiting)))
}
