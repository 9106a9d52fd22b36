//! Why a request has no response.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ClientError;

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

    /// Whether the time was over that the request had.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
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
