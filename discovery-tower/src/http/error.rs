//! What went wrong with a request to one instance, and whether it can have got there.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::Request;
use discovery_core::{Address, InstanceKey};

use super::target::Target;
use crate::balance::find;

/// A request that has no response, the instance, and the cause.
///
/// Cloneable; clones share the request that is given back, so that the first to
/// [take](Self::take_request) it has it.
pub struct HttpError<B>(Arc<Inner<B>>);

struct Inner<B> {
    target: Arc<Target>,
    fault: HttpFault,
    request: Mutex<Option<Request<B>>>,
}

/// What went wrong, whatever the request was made of: the [source](Error::source) of an [`HttpError`], by
/// which its kind is found in any error that it is a cause of; see [`HttpErrorKind::of`].
#[derive(Debug)]
pub struct HttpFault {
    kind: HttpErrorKind,
    /// Plain words.
    cause: String,
    source: Option<Source>,
}

/// The error of a layer below; one failure may be told to several requests.
pub(crate) type Source = Arc<dyn Error + Send + Sync>;

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// No connection could be made.
    Connect,
    /// No connection was made in time.
    ConnectTimeout,
    /// The connection was closing, and gave the request back before sending any of it; or, over
    /// HTTP/2, the instance told that it did not act on the request.
    Returned,
    /// The request says that this instance is to be [avoided](crate::Avoid).
    Avoided,
    /// The address is of a kind that this endpoint does not do.
    Unsupported,
    /// The connection was reset or closed before the head of the response. The instance may have
    /// acted on the request.
    Reset,
    /// The [deadline](super::Deadline) of the request passed while the instance had it. The instance may
    /// have acted on it.
    Timeout,
    /// The [deadline](super::Deadline) of the request had passed before it was sent.
    Expired,
    /// The request's own fault: its body failed, or it asks for what no instance can do, such as
    /// CONNECT. The instance may have acted on what came of it.
    Request,
    /// Anything else, such as a response that is not HTTP. The instance may have acted on the request.
    Other,
}

impl HttpErrorKind {
    /// The kind of the [`HttpError`] that this error is, or that is among its causes, whatever its
    /// request was made of.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        find::<HttpFault>(error).map(HttpFault::kind)
    }

    /// Whether an instance certainly did not act on a request that failed so.
    pub fn is_unsent(self) -> bool {
        match self {
            Self::Connect
            | Self::ConnectTimeout
            | Self::Returned
            | Self::Avoided
            | Self::Unsupported
            | Self::Expired => true,
            Self::Reset | Self::Timeout | Self::Request | Self::Other => false,
        }
    }
}

impl HttpFault {
    /// What kind of error it is.
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }
}

impl fmt::Display for HttpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Error for HttpFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl<B> HttpError<B> {
    pub(crate) fn new(
        target: Arc<Target>,
        kind: HttpErrorKind,
        cause: impl Into<String>,
        source: Option<Source>,
        request: Option<Request<B>>,
    ) -> Self {
        let fault = HttpFault { kind, cause: cause.into(), source };
        Self(Arc::new(Inner { target, fault, request: Mutex::new(request) }))
    }

    /// The instance.
    pub fn key(&self) -> &InstanceKey {
        &self.0.target.key
    }

    /// Where it was to be reached.
    pub fn address(&self) -> &Address {
        &self.0.target.address
    }

    /// What kind of error it is.
    pub fn kind(&self) -> HttpErrorKind {
        self.0.fault.kind
    }

    /// Whether the instance certainly did not act on the request, so that it can go to another one
    /// whatever its method.
    pub fn is_unsent(&self) -> bool {
        self.kind().is_unsent()
    }

    /// Whether the instance refused the request because it is to be avoided: nobody else was ready.
    pub fn is_avoided(&self) -> bool {
        self.kind() == HttpErrorKind::Avoided
    }

    /// Whether the connection was reset or closed before the head of the response.
    pub fn is_reset(&self) -> bool {
        self.kind() == HttpErrorKind::Reset
    }

    /// The cause in plain words, without the instance: `connection refused`.
    pub fn cause(&self) -> &str {
        &self.0.fault.cause
    }

    /// The request as it was given to the endpoint, if its body was not begun to be read: always when
    /// [unsent](Self::is_unsent) over HTTP/1.1, and also otherwise when the body is empty. Over HTTP/2
    /// a request can be refused when a part of its body is on its way. `None` the second time, and
    /// where the endpoint failed before it had the request.
    pub fn take_request(&self) -> Option<Request<B>> {
        self.0.request.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives this request back, if it is certainly unsent and there is none to be given back.
    #[cfg(feature = "tonic")]
    pub(crate) fn or_with(self, spare: Option<Request<B>>) -> Self {
        if self.is_unsent() {
            let mut request = self.0.request.lock().unwrap_or_else(PoisonError::into_inner);
            *request = request.take().or(spare);
        }
        self
    }
}

impl<B> Clone for HttpError<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for HttpError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpError")
            .field("key", self.key())
            .field("address", self.address())
            .field("kind", &self.0.fault.kind)
            .field("cause", &self.0.fault.cause)
            .field("source", &self.0.fault.source)
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Display for HttpError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind() {
            HttpErrorKind::Connect | HttpErrorKind::ConnectTimeout => "cannot connect",
            HttpErrorKind::Returned | HttpErrorKind::Expired => "the request was not sent",
            HttpErrorKind::Avoided | HttpErrorKind::Unsupported => "refused",
            HttpErrorKind::Reset | HttpErrorKind::Timeout => "no response",
            HttpErrorKind::Request | HttpErrorKind::Other => "failed",
        };
        write!(f, "{} at {}: {what}: {}", self.key(), self.address(), self.cause())
    }
}

impl<B> Error for HttpError<B> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0.fault)
    }
}
