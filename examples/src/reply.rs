//! Answers that our programs make themselves: JSON, also for errors.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// The answer of a program that makes its bodies itself.
pub type Reply = Response<Full<Bytes>>;

/// `body` as JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    match serde_json::to_vec(body) {
        Ok(body) => with_type(status, "application/json", body),
        Err(cause) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot write the answer: {cause}"))
        }
    }
}

/// `{"error":"…"}`.
pub fn error(status: StatusCode, text: &str) -> Reply {
    let body = serde_json::json!({ "error": text }).to_string();
    with_type(status, "application/json", body)
}

/// A body of another type.
pub fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}
