//! What can go wrong when etcd is asked directly.

use std::{error::Error, fmt, io, time::Duration};

/// Why etcd did not do what it was asked.
#[derive(Debug)]
pub enum TruthError {
    /// No answer in time. Whether a write took place is unknown.
    Timeout {
        /// What was asked.
        call: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection could not be made, or broke. Whether a write took place is unknown.
    Connection {
        /// What was asked.
        call: String,
        /// What happened.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// etcd refused.
    Refused {
        /// What was asked.
        call: String,
        /// The gRPC code, 2 (unknown) if there was none.
        code: i64,
        /// etcd's own words.
        message: String,
    },
}

impl TruthError {
    /// The gRPC code of a refusal.
    pub const fn code(&self) -> Option<i64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Timeout { .. } | Self::Connection { .. } => None,
        }
    }

    /// Whether nobody listens there.
    pub fn is_connection_refused(&self) -> bool {
        match self {
            Self::Connection { cause, .. } => cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused),
            Self::Timeout { .. } | Self::Refused { .. } => false,
        }
    }
}

impl fmt::Display for TruthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { call, limit } => write!(f, "{call}: no answer in {limit:?}"),
            Self::Connection { call, cause } => write!(f, "{call}: {cause}"),
            Self::Refused { call, code, message } => write!(f, "{call}: {message} (code {code})"),
        }
    }
}

impl Error for TruthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connection { cause, .. } => Some(&**cause),
            Self::Timeout { .. } | Self::Refused { .. } => None,
        }
    }
}
