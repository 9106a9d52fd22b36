//! Why a call has no response.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::SourceError;
use tower::BoxError;

/// An error that all who are told of it share.
pub(crate) type SharedError = Arc<dyn Error + Send + Sync>;

/// Why a call through a [`Balance`](super::Balance) has no response. Cloneable, and none is final: the
/// next call may succeed.
///
/// `service` is the name from [`Builder::named`](super::Builder::named), if there is one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError<K> {
    /// The source has not loaded in time, so that nothing is known of the endpoints.
    NotLoaded {
        /// Whose endpoints are not known.
        service: Option<Arc<str>>,
        /// How long the call waited.
        waited: Duration,
        /// What stands in the source's way, as far as it is known.
        cause: Option<SourceError>,
    },
    /// The source knows that there is no endpoint.
    NoEndpoints {
        /// What has no endpoint.
        service: Option<Arc<str>>,
    },
    /// There are endpoints, and none could be used in time.
    Unavailable {
        /// Whose endpoints cannot be used.
        service: Option<Arc<str>>,
        /// How long the call waited.
        waited: Duration,
        /// How many there are.
        endpoints: usize,
        /// Why, in a word.
        reason: Unavailable,
        /// What a few of them failed with.
        causes: Arc<[Cause<K>]>,
    },
    /// The [deadline](super::Protocol::deadline) of the request passed before an endpoint could have it.
    Deadline {
        /// What it waited for: [`NotLoaded`](Self::NotLoaded) or [`Unavailable`](Self::Unavailable), as
        /// it was then.
        waiting: Box<CallError<K>>,
    },
    /// As many calls wait for an endpoint as may.
    TooManyWaiting {
        /// Whose endpoints they wait for.
        service: Option<Arc<str>>,
        /// How many may; see [`Limits`](super::Limits).
        limit: usize,
    },
    /// An endpoint was called, and this is its error; see [`downcast_ref`](Self::downcast_ref).
    Failed {
        /// The endpoint.
        endpoint: K,
        /// Its error.
        error: Arc<dyn Error + Send + Sync>,
    },
    /// The policy or the protocol given to the balancer panicked over this call.
    Panicked {
        /// Which of them.
        what: &'static str,
    },
}

/// What an endpoint failed with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cause<K> {
    /// The endpoint.
    pub endpoint: K,
    /// Its error.
    pub error: Arc<dyn Error + Send + Sync>,
}

/// Why no endpoint can be used, though there are some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// None of them is ready.
    NotReady,
    /// All have failed.
    Failed,
    /// All have a weight of 0.
    Weightless,
    /// All are out of service, or starting.
    OutOfService,
    /// The request has to avoid all that could be used.
    Avoided,
}

impl<K> CallError<K> {
    /// The endpoint that failed, if one was called.
    pub fn endpoint(&self) -> Option<&K> {
        match self {
            Self::Failed { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }

    /// The error of the endpoint that was called, if it is of this type, or the first of its
    /// [causes](Error::source) that is.
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        match self {
            Self::Failed { error, .. } => find(&**error),
            _ => None,
        }
    }

    /// Whether the request certainly reached no endpoint.
    pub fn is_unsent(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::Panicked { .. })
    }
}

/// The error if it is of this type, or the first of its causes that is.
pub(crate) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Shares an error.
pub(crate) fn share(error: impl Into<BoxError>) -> SharedError {
    Arc::from(error.into())
}

impl<K: fmt::Debug> fmt::Display for CallError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded { service, waited, cause } => {
                let of = Of(service.as_deref());
                write!(f, "the endpoints{of} are not known yet after {waited:.1?}")?;
                match cause {
                    Some(cause) => write!(f, ": {cause}"),
                    None => Ok(()),
                }
            }
            Self::NoEndpoints { service: Some(service) } => write!(f, "no instances of {service}"),
            Self::NoEndpoints { service: None } => f.write_str("there are no endpoints"),
            Self::Unavailable { service, waited, endpoints, reason, causes } => {
                let of = Of(service.as_deref());
                write!(f, "none of {endpoints} endpoints{of} can be used ({reason})")?;
                if !waited.is_zero() {
                    write!(f, " within {waited:.1?}")?;
                }
                for (i, cause) in causes.iter().enumerate() {
                    let sign = if i == 0 { ':' } else { ';' };
                    write!(f, "{sign} {:?}: {}", cause.endpoint, cause.error)?;
                }
                Ok(())
            }
            Self::Deadline { waiting } => write!(f, "the deadline has passed: {waiting}"),
            Self::TooManyWaiting { service, limit } => {
                let of = Of(service.as_deref());
                write!(f, "{limit} calls wait for the endpoints{of}, and no more may")
            }
            Self::Failed { error, .. } => error.fmt(f),
            Self::Panicked { what } => write!(f, "the balancer's {what} panicked over this call"),
        }
    }
}

impl<K: fmt::Debug> Error for CallError<K> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotLoaded { cause, .. } => cause.as_ref().map(|cause| cause as _),
            Self::Failed { error, .. } => error.source(),
            Self::Unavailable { causes, .. } => causes.first().map(|cause| &*cause.error as _),
            Self::Deadline { waiting } => waiting.source(),
            Self::NoEndpoints { .. } | Self::TooManyWaiting { .. } | Self::Panicked { .. } => None,
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "none is ready",
            Self::Failed => "all have failed",
            Self::Weightless => "all have a weight of 0",
            Self::OutOfService => "all are out of service",
            Self::Avoided => "all that are ready are to be avoided",
        })
    }
}

/// ` of orders`, or nothing.
pub(crate) struct Of<'a>(pub(crate) Option<&'a str>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(service) => write!(f, " of {service}"),
            None => Ok(()),
        }
    }
}
