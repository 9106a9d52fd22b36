//! What is behind a status that a channel gives.

use std::error::Error;
use std::fmt;

use discovery_core::InstanceKey;
use tonic::Status;

use crate::balance::CallError;
use crate::http::{FromEndpoint, ServedBy};

/// What is behind a [`Status`] that a [`Channel`](super::Channel) gives: its
/// [source](std::error::Error::source). [`of`](Self::of) finds it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ChannelError {
    /// There is no answer, or not all of it; this is why.
    Call(CallError<InstanceKey>),
    /// The instance answered with this status.
    Answered {
        /// The instance.
        endpoint: InstanceKey,
    },
    /// The instance answered with something that is not gRPC.
    NoStatus {
        /// The instance.
        endpoint: InstanceKey,
    },
}

impl ChannelError {
    /// What is behind this status, if it is from a channel.
    pub fn of(status: &Status) -> Option<&Self> {
        status.source()?.downcast_ref()
    }

    /// The instance that had the call, if one had it.
    pub fn endpoint(&self) -> Option<&InstanceKey> {
        match self {
            Self::Call(error) => error.endpoint(),
            Self::Answered { endpoint } | Self::NoStatus { endpoint } => Some(endpoint),
        }
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Answered { endpoint } => write!(f, "so answered {endpoint}"),
            Self::NoStatus { endpoint } => write!(f, "{endpoint} answered without a status"),
        }
    }
}

impl Error for ChannelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Call(error) => error.source(),
            _ => None,
        }
    }
}

impl<T> FromEndpoint for tonic::Response<T> {
    fn endpoint(&self) -> Option<&InstanceKey> {
        self.extensions().get::<ServedBy>().map(|ServedBy(key)| key)
    }
}

/// Also where the instance sent the status itself.
impl FromEndpoint for Status {
    fn endpoint(&self) -> Option<&InstanceKey> {
        ChannelError::of(self)?.endpoint()
    }
}
