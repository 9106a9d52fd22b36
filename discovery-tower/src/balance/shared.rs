//! What all handles of a balancer share.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::StatusReader;

use super::hub::Hub;
use super::parts::Parts;
use super::snapshot::Snapshot;
use crate::sync::{ArcSwap, Notify};

/// How long a call waits for an endpoint to be sent to. All count from the start of the call.
///
/// ```
/// # use std::time::Duration;
/// use discovery_tower::Limits;
///
/// let limits = Limits::default().ready(Duration::from_millis(500));
/// assert_eq!(limits.load, Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// While the source has not loaded: 5 s.
    pub load: Duration,
    /// While some endpoints are connecting, or all are busy: 5 s.
    pub ready: Duration,
    /// While all have failed and are tried again now and then: 1 s.
    pub failed: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (load, ready) = (Duration::from_secs(5), Duration::from_secs(5));
        Self { load, ready, failed: Duration::from_secs(1) }
    }
}

impl Limits {
    /// Sets how long a call waits while the source has not loaded.
    #[must_use]
    pub fn load(self, load: Duration) -> Self {
        Self { load, ..self }
    }

    /// Sets how long a call waits while endpoints are connecting or busy.
    #[must_use]
    pub fn ready(self, ready: Duration) -> Self {
        Self { ready, ..self }
    }

    /// Sets how long a call waits while all have failed.
    #[must_use]
    pub fn failed(self, failed: Duration) -> Self {
        Self { failed, ..self }
    }
}

/// What all handles of a balancer share.
pub(crate) struct Shared<T: Parts> {
    pub(crate) hub: Arc<Hub<T>>,
    pub(crate) snapshot: ArcSwap<Snapshot<T>>,
    /// Told of each publication.
    pub(crate) published: Notify,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) status: Option<StatusReader>,
}

impl<T: Parts> Drop for Shared<T> {
    fn drop(&mut self) {
        self.hub.close();
    }
}
