//! Why a request has no response.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower::BoxError;

use crate::ClientError;
use crate::balance::find;

/// Why a request that was sent [through](super::SendThrough) a client has no response.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError<E = ClientError> {
    /// The request could not be made, for a bad header, say. Nothing was sent.
    Request(::reqwest::Error),
    /// What the client says.
    Call(E),
    /// The head of a response was not there in the time that the request had. An instance may have
    /// acted on it.
    TimedOut {
        /// The host of the URL.
        host: Arc<str>,
        /// How long the request had.
        limit: Duration,
    },
}

impl<E> SendError<E> {
    /// What the client says, if it was asked and answered in time.
    pub fn call(&self) -> Option<&E> {
        match self {
            Self::Call(error) => Some(error),
            Self::Request(_) | Self::TimedOut { .. } => None,
        }
    }

    /// Whether the time was over that the request had, or that a [`ClientError`] says that it had.
    pub fn is_timeout(&self) -> bool
    where
        E: 'static,
    {
        match self {
            Self::Request(_) => false,
            Self::TimedOut { .. } => true,
            Self::Call(error) => {
                let error: &dyn Any = error;
                // Layers around the client may have put it into a box.
                let boxed = || find(&**error.downcast_ref::<BoxError>()?);
                error.downcast_ref().or_else(boxed).is_some_and(ClientError::is_timeout)
            }
        }
    }
}

impl<E: fmt::Display> fmt::Display for SendError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => {
                write!(f, "the request could not be made: {error}")?;
                error.source().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::Call(error) => error.fmt(f),
            Self::TimedOut { host, limit } => {
                write!(f, "no response from {host} within {limit:?}")
            }
        }
    }
}

impl<E: Error + 'static> Error for SendError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Request(error) => error.source(),
            Self::Call(error) => error.source(),
            Self::TimedOut { .. } => None,
        }
    }
}
