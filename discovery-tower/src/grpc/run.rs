//! One call, from the request to the head of the answer.

use std::pin::Pin;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};
use tonic::Status;
use tower::{Layer as _, Service as _};

use super::call::{Call, Waiting};
use super::calls::{Answering, Attempt};
use super::channel::Shared;
use super::deadline::Limit;
use super::held::{Begun, Held};
use super::request::RequestBody;
use super::response::ResponseBody;
use super::status;
use crate::http::{Deadline, FromEndpoint as _, Replay};

/// The answer to come, up to its head.
pub(super) type Running =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send + 'static>>;

/// Begins a call. Its time runs from now on.
pub(super) fn run(shared: &Shared, request: Request<tonic::body::Body>) -> Running {
    let (mut head, body) = request.into_parts();
    let limit = Limit::of(&head, shared.deadline);
    if let Some(Limit { deadline, .. }) = limit {
        head.extensions.insert(Deadline::at(deadline));
    }
    let call = Call::new(limit);
    let waiting = Waiting(call.clone());
    let answering = begin(shared, head, body, &call);
    Box::pin(async move {
        let response = answering.await.map_err(|error| status::of_call(error, &call))?;
        respond(response, waiting)
    })
}

fn begin(
    shared: &Shared,
    mut head: Parts,
    body: tonic::body::Body,
    call: &Arc<Call>,
) -> Answering<Held> {
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

fn respond(
    mut response: Response<Held>,
    waiting: Waiting,
) -> Result<Response<ResponseBody>, Status> {
    if let Some(Begun(headers)) = response.extensions_mut().remove() {
        // This answer stands: its messages come before its status.
        *response.headers_mut() = headers;
    }
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
