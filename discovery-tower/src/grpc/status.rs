//! The status for everything that can become of a call.

use std::sync::Arc;

use discovery_core::InstanceKey;
use http::{HeaderMap, Response, StatusCode};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::call::Call;
use super::endpoint::Sent;
use super::error::ChannelError;
use crate::balance::CallError;
use crate::http::{CallFailure, FromEndpoint as _, GRPC_STATUS, HttpError, HttpErrorKind};

fn made(code: Code, message: impl Into<String>, source: ChannelError) -> Status {
    let mut status = Status::new(code, message);
    status.set_source(Arc::new(source));
    status
}

/// Of a call that has no answer.
pub(super) fn of_call(error: CallError<InstanceKey>, call: &Call) -> Status {
    let kind = error.downcast_ref::<HttpError<Sent>>().map(HttpError::kind);
    let fault = call.fault().filter(|_| kind == Some(HttpErrorKind::Request));
    if let Some(fault) = fault {
        let mut status = fault.clone();
        status.set_source(Arc::new(ChannelError::Call(error)));
        return status;
    }
    Status::from(error)
}

/// Of an answer that broke off.
pub(super) fn of_body(error: HttpError<Sent>, call: &Call) -> Status {
    let endpoint = error.key().clone();
    of_call(CallError::Failed { endpoint, error: Arc::new(error) }, call)
}

impl From<ChannelError> for Status {
    fn from(error: ChannelError) -> Self {
        let code = match &error {
            ChannelError::Call(error) => code_of(error),
            ChannelError::Answered { .. } | ChannelError::NoStatus { .. } => Code::Unknown,
        };
        made(code, error.to_string(), error)
    }
}

impl From<CallError<InstanceKey>> for Status {
    fn from(error: CallError<InstanceKey>) -> Self {
        ChannelError::Call(error).into()
    }
}

fn code_of(error: &CallError<InstanceKey>) -> Code {
    if matches!(error, CallError::Deadline { .. }) {
        return Code::DeadlineExceeded;
    }
    if error.is_unsent() {
        return Code::Unavailable;
    }
    match error.downcast_ref::<HttpError<Sent>>().map(HttpError::kind) {
        Some(HttpErrorKind::Timeout | HttpErrorKind::Expired) => Code::DeadlineExceeded,
        Some(HttpErrorKind::Request | HttpErrorKind::Other) | None => Code::Internal,
        // No connection, or none any more.
        Some(_) => Code::Unavailable,
    }
}

/// A [`RetryLayer`](crate::http::RetryLayer) goes around a channel, too. There each attempt has all of
/// the time that the request says it has.
impl CallFailure for Status {
    fn failure(&self) -> Option<&CallError<InstanceKey>> {
        match ChannelError::of(self)? {
            ChannelError::Call(error) => Some(error),
            _ => None,
        }
    }

    fn answered(&self) -> Option<(&InstanceKey, bool)> {
        match ChannelError::of(self)? {
            ChannelError::Answered { endpoint } | ChannelError::NoStatus { endpoint } => {
                Some((endpoint, self.code() == Code::Unavailable))
            }
            _ => None,
        }
    }
}

const DETAILS: &str = "grpc-status-details-bin";

/// The status in a head or in trailers, if it is there. Details that cannot be read are taken out:
/// `tonic` panics over them.
pub(super) fn read(headers: &mut HeaderMap) -> Option<Status> {
    if headers.contains_key(DETAILS) {
        let metadata = MetadataMap::from_headers(std::mem::take(headers));
        let are_readable =
            metadata.get_bin(DETAILS).is_some_and(|details| details.to_bytes().is_ok());
        *headers = metadata.into_headers();
        if !are_readable {
            headers.remove(DETAILS);
        }
    }
    // Of what is well, nothing else is looked at: to read it all copies the headers.
    if headers.get(GRPC_STATUS).is_some_and(|status| status == "0") {
        return Some(Status::new(Code::Ok, ""));
    }
    Status::from_header_map(headers)
}

/// A status that the instance sent.
pub(super) fn answered(mut status: Status, endpoint: Option<&InstanceKey>) -> Status {
    if let Some(endpoint) = endpoint.cloned() {
        status.set_source(Arc::new(ChannelError::Answered { endpoint }));
    }
    status
}

fn without(code: Code, message: String, endpoint: Option<&InstanceKey>) -> Status {
    match endpoint.cloned() {
        Some(endpoint) => made(code, message, ChannelError::NoStatus { endpoint }),
        None => Status::new(code, message),
    }
}

/// Of an answer that ended without a status.
pub(super) fn missing(endpoint: Option<&InstanceKey>) -> Status {
    let by = endpoint.map_or_else(String::new, |endpoint| format!(" of {endpoint}"));
    without(Code::Unknown, format!("the answer{by} ended without a status"), endpoint)
}

/// Of an answer that is not gRPC, as its HTTP status has it. The table is that of gRPC's document
/// "HTTP to gRPC Status Code Mapping".
pub(super) fn of_http<B>(response: &Response<B>) -> Status {
    let code = match response.status() {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    let endpoint = response.endpoint();
    let by = endpoint.map_or_else(|| "an instance".to_owned(), ToString::to_string);
    let message = format!("{by} answered with HTTP status {}, not with gRPC", response.status());
    without(code, message, endpoint)
}
