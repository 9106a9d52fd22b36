//! What the status says of a set that was read from disk.

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{SourceError, State, Status};

/// Why a set is stale that was read from disk: how old it is, and what the source's own trouble is.
///
/// It is what [`SourceError::get_ref`] gives of the status of a [`LastGood`](super::LastGood) that has
/// not loaded yet.
#[derive(Clone, Debug)]
pub struct FromDisk {
    saved: SystemTime,
    /// By the monotonic clock, so that the age grows evenly whatever the wall clock does.
    saved_instant: Instant,
    cause: Option<SourceError>,
}

impl FromDisk {
    /// `age` is how old the set is now.
    pub(super) fn new(saved: SystemTime, age: Duration) -> Self {
        let now = Instant::now();
        Self { saved, saved_instant: now.checked_sub(age).unwrap_or(now), cause: None }
    }

    /// When the set was saved, by the wall clock of that time.
    pub fn saved(&self) -> SystemTime {
        self.saved
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        Instant::now().saturating_duration_since(self.saved_instant)
    }

    /// What stands in the way of the source, if anything does.
    pub fn cause(&self) -> Option<&SourceError> {
        self.cause.as_ref()
    }

    /// The status of the set while the source's own is this.
    pub(super) fn status(&self, of_source: &Status) -> Status {
        let from = Self { cause: of_source.state.error().cloned(), ..self.clone() };
        let error = SourceError::new(from);
        Status {
            state: State::Stale(error.clone()),
            since: self.saved,
            since_instant: self.saved_instant,
            loaded: true,
            last_error: Some(error),
            revision: None,
            endpoints: 0,
        }
    }
}

impl fmt::Display for FromDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from disk, saved {} s ago: ", self.age().as_secs())?;
        match &self.cause {
            Some(cause) => cause.fmt(f),
            None => f.write_str("the source has not loaded yet"),
        }
    }
}

impl std::error::Error for FromDisk {
    /// What caused the source's trouble; that itself is part of the message.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().and_then(std::error::Error::source)
    }
}
