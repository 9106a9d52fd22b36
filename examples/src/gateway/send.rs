//! Sending a request to the instances of a service, and what is said when none answers.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::InstanceKey;
use discovery_tower::balance::{CallError, Unavailable};
use discovery_tower::http::{HttpError, HttpErrorKind, Replay, ServedBy, Tries};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::headers;
use super::service::{Answered, SendBody, Service};

/// Names the instance that answered.
pub(super) const X_SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// A request, as it is to be forwarded.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: SendBody,
}

/// Why there is no answer of an instance to give.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) error: String,
}

/// Sends the request until an instance has answered it for good, for as long as `limit`. The answer
/// has its headers in order.
pub(super) async fn send(
    service: &Arc<Service>,
    order: Order,
    limit: Duration,
) -> Result<Response<Answered>, Failure> {
    let tries = Tries::default();
    let mut request = Request::new(order.body);
    *request.method_mut() = order.method;
    *request.uri_mut() = Uri::from(order.path);
    *request.headers_mut() = order.headers;
    request.extensions_mut().insert(tries.clone());
    match timeout(limit, service.sender().oneshot(request)).await {
        Ok(Ok(answer)) => Ok(finish(answer)),
        Ok(Err(error)) => Err(failure(&error, tries.get())),
        Err(_) => {
            let limit = limit.as_millis();
            let error = format!("no answer of {} within {limit} ms", service.name);
            Err(Failure { status: StatusCode::GATEWAY_TIMEOUT, error })
        }
    }
}

fn failure(error: &CallError<InstanceKey>, tries: u32) -> Failure {
    let status = match error {
        // What came from the client broke off.
        CallError::Failed { .. } if is_of_the_request(error) => StatusCode::BAD_REQUEST,
        CallError::Failed { .. } | CallError::Unavailable { reason: Unavailable::Failed, .. } => {
            StatusCode::BAD_GATEWAY
        }
        CallError::Panicked { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let error = match (error, tries) {
        (CallError::Failed { .. }, 2..) => format!("{tries} attempts, the last: {error}"),
        _ => error.to_string(),
    };
    Failure { status, error }
}

fn is_of_the_request(error: &CallError<InstanceKey>) -> bool {
    let error = error.downcast_ref::<HttpError<Replay<SendBody>>>();
    error.is_some_and(|error| error.kind() == HttpErrorKind::Request)
}

/// What is said of a service that is not known, as of one without instances.
pub(super) fn no_instances(service: &str) -> Failure {
    failure(&CallError::NoEndpoints { service: Some(service.into()) }, 0)
}

fn finish(mut answer: Response<Answered>) -> Response<Answered> {
    let served_by = served_by(&answer);
    let headers = answer.headers_mut();
    headers::drop_hop_by_hop(headers);
    match served_by.map(|id| HeaderValue::from_bytes(id.as_bytes())) {
        Some(Ok(id)) => headers.insert(X_SERVED_BY, id),
        // What the instance says of itself there is not ours.
        _ => headers.remove(X_SERVED_BY),
    };
    answer
}

/// The id of the instance that answered.
pub(super) fn served_by(answer: &Response<Answered>) -> Option<String> {
    answer.extensions().get::<ServedBy>().map(|ServedBy(key)| key.id.to_string())
}
