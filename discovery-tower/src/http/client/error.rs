//! Why a request by the name of a service has no response.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use discovery_core::{InstanceKey, Invalid};

use crate::balance::CallError;
use crate::http::{CallFailure, HttpErrorKind, HttpFault};

/// Why a request through an [`HttpClient`](super::HttpClient) has no response. Cloneable, and none is
/// final.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// What the balancer of the service says: nobody to send to, in time, or the error of the instance
    /// that had the request. An unknown service is
    /// [`NoEndpoints`](CallError::NoEndpoints) or [`NotLoaded`](CallError::NotLoaded).
    Call(CallError<InstanceKey>),
    /// The URI has no host, so that no service is named.
    NoHost {
        /// The URI.
        uri: Arc<str>,
    },
    /// The URI has another scheme than `http`, or `https` where the client has TLS.
    Scheme {
        /// The scheme; empty if there is none.
        scheme: Arc<str>,
        /// The host of the URI.
        host: Arc<str>,
    },
    /// The URI says `https`, and the service has no instance that is reached over TLS.
    Insecure {
        /// The service.
        service: Arc<str>,
        /// One of its instances.
        endpoint: InstanceKey,
        /// The scheme of its address.
        scheme: Arc<str>,
    },
    /// There is a port after the name: which ports the instances have is known to the registry.
    Port {
        /// The host of the URI.
        host: Arc<str>,
        /// What stands after the colon.
        port: Arc<str>,
    },
    /// There is a user or a password before the name.
    UserInfo {
        /// The host of the URI.
        host: Arc<str>,
    },
    /// The host is no name of a service; or one that is passed through has no valid address.
    Invalid(Invalid),
    /// As many services, or hosts, are in use at once as there may be.
    TooMany {
        /// The service or host for which there is no place.
        host: Arc<str>,
        /// How many there may be.
        limit: usize,
    },
}

impl ClientError {
    /// The instance that failed, if one was called.
    pub fn endpoint(&self) -> Option<&InstanceKey> {
        self.failure()?.endpoint()
    }

    /// The error of the instance that was called, if it is of this type, such as
    /// [`HttpError<B>`](crate::HttpError).
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        self.failure()?.downcast_ref()
    }

    /// What kind of error that of the instance is that was called, whatever the request was made of and
    /// whatever layers it came through.
    pub fn kind(&self) -> Option<HttpErrorKind> {
        self.downcast_ref::<HttpFault>().map(HttpFault::kind)
    }

    /// Whether the deadline of the request passed, or the time that the client gives to a call: before an
    /// instance could have it, or while the [one named](Self::endpoint) had it.
    pub fn is_timeout(&self) -> bool {
        use HttpErrorKind::{Expired, Timeout};
        let waited = matches!(self.failure(), Some(CallError::Deadline { .. }));
        waited || matches!(self.kind(), Some(Timeout | Expired))
    }

    /// Whether the request certainly reached no instance that acted on it.
    pub fn is_unsent(&self) -> bool {
        self.failure().is_none_or(CallError::is_unsent)
            || self.kind().is_some_and(HttpErrorKind::is_unsent)
    }
}

impl CallFailure for ClientError {
    fn failure(&self) -> Option<&CallError<InstanceKey>> {
        match self {
            Self::Call(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CallError<InstanceKey>> for ClientError {
    fn from(error: CallError<InstanceKey>) -> Self {
        Self::Call(error)
    }
}

impl From<Invalid> for ClientError {
    fn from(error: Invalid) -> Self {
        Self::Invalid(error)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::NoHost { uri } => write!(f, "no service is named: the URI {uri} has no host"),
            Self::Scheme { scheme, host } if scheme.is_empty() => {
                write!(f, "without http:// before it, {host} names no service")
            }
            Self::Scheme { scheme, host } if &**scheme == "https" => {
                write!(f, "https:// needs TLS, which this client does not have, for {host}")
            }
            Self::Scheme { scheme, host } => {
                write!(f, "{scheme}:// is not supported, only http:// and https://, for {host}")
            }
            Self::Insecure { service, endpoint, scheme } => {
                write!(f, "no instance of {service} is reached over TLS: {endpoint} is {scheme}://")
            }
            Self::Port { host, port } => {
                write!(f, "a service has no port: {port}")?;
                let space = if port.is_empty() { "" } else { " " };
                write!(f, "{space}after {host}")
            }
            Self::UserInfo { host } => write!(f, "no user or password is sent to {host}"),
            Self::Invalid(error) => error.fmt(f),
            Self::TooMany { host, limit } => {
                write!(f, "no place for {host}: {limit} others are in use")
            }
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Call(error) => error.source(),
            Self::Invalid(error) => error.source(),
            _ => None,
        }
    }
}
