//! Why there is no connection. One failure is told to all who waited for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tower::BoxError;

use crate::balance::find;
use crate::http::classify;
use crate::http::error::{HttpError, HttpErrorKind, Source};
use crate::http::target::Target;

#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: HttpErrorKind,
    cause: Arc<str>,
    source: Option<Source>,
}

impl Failure {
    pub(super) fn unsupported(cause: String) -> Self {
        Self { kind: HttpErrorKind::Unsupported, cause: cause.into(), source: None }
    }

    pub(super) fn connect(cause: &str) -> Self {
        Self { kind: HttpErrorKind::Connect, cause: cause.into(), source: None }
    }

    pub(super) fn too_slow(limit: Duration) -> Self {
        let cause = format!("no connection within {limit:?}");
        Self { kind: HttpErrorKind::ConnectTimeout, cause: cause.into(), source: None }
    }

    /// Of an error of the step that connects, of which `limit` is the time.
    pub(super) fn of(error: BoxError, limit: Duration) -> Self {
        let io = find::<io::Error>(&*error);
        if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
            return Self { source: Some(error.into()), ..Self::too_slow(limit) };
        }
        let cause = classify::connecting(&*error);
        Self { kind: HttpErrorKind::Connect, cause: cause.into(), source: Some(error.into()) }
    }

    /// As the error of a service that has no request yet.
    pub(super) fn error<B>(&self, target: &Arc<Target>) -> HttpError<B> {
        HttpError::new(target.clone(), self.kind, &*self.cause, self.source.clone(), None)
    }

    /// The cause in plain words.
    pub(super) fn cause(&self) -> &str {
        &self.cause
    }
}
