//! What a caller is told when its request was not answered.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::SourceError;
use tower::BoxError;

use crate::balance::Of;

/// Why a call through a [`SharedBalance`](crate::SharedBalance) has no response.
///
/// `service` is the name from [`SharedBalance::named`](crate::SharedBalance::named), if it has one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BalanceError {
    /// The source has not loaded in time, so that nothing is known of the instances.
    NotLoaded {
        /// Whose instances are not known.
        service: Option<Arc<str>>,
        /// How long the call waited.
        waited: Duration,
        /// What stands in the source's way, as far as it knows.
        cause: Option<SourceError>,
    },
    /// The source knows that there is no instance.
    NoInstances {
        /// What has no instance.
        service: Option<Arc<str>>,
    },
    /// There are instances, and none became ready in time.
    NotReady {
        /// Whose instances were not ready.
        service: Option<Arc<str>>,
        /// How long the call waited.
        waited: Duration,
        /// How many instances there are.
        endpoints: usize,
    },
    /// An instance was called, and this is its error; see [`downcast_ref`](Self::downcast_ref).
    Failed(Arc<dyn Error + Send + Sync>),
}

impl BalanceError {
    pub(crate) fn failed(error: impl Into<BoxError>) -> Self {
        Self::Failed(Arc::from(error.into()))
    }

    /// The error of the instance that was called, if it is of this type.
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        match self {
            Self::Failed(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// The error of the [`HttpEndpoint`](crate::HttpEndpoint) that was called.
    #[cfg(feature = "http")]
    pub fn http<B: Send + 'static>(&self) -> Option<&crate::HttpError<B>> {
        self.downcast_ref()
    }
}

impl fmt::Display for BalanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded { service, waited, cause } => {
                let of = Of(service.as_deref());
                write!(f, "the instances{of} are not known yet after {waited:.1?}")?;
                match cause {
                    Some(cause) => write!(f, ": {cause}"),
                    None => Ok(()),
                }
            }
            Self::NoInstances { service: Some(service) } => {
                write!(f, "no instances of {service}")
            }
            Self::NoInstances { service: None } => f.write_str("there are no instances"),
            Self::NotReady { service, waited, endpoints } => {
                let of = Of(service.as_deref());
                write!(f, "none of {endpoints} instances{of} was ready within {waited:.1?}")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Error for BalanceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotLoaded { cause, .. } => cause.as_ref().map(|cause| cause as _),
            Self::Failed(error) => error.source(),
            Self::NoInstances { .. } | Self::NotReady { .. } => None,
        }
    }
}
