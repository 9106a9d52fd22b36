//! What all handles of a balancer share.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::StatusReader;

use super::hub::Hub;
use super::parts::Parts;
use super::snapshot::Snapshot;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{ArcSwap, Notify};

/// How long a call waits for an endpoint to be sent to, and how many do. All times count from the start
/// of the call.
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
    /// How many calls wait at a time at most; one more is refused with
    /// [`TooManyWaiting`](super::CallError::TooManyWaiting). No limit of its own.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (load, ready) = (Duration::from_secs(5), Duration::from_secs(5));
        Self { load, ready, failed: Duration::from_secs(1), waiting: usize::MAX }
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

    /// Sets how many calls wait at a time at most. With 0, none does.
    #[must_use]
    pub fn waiting(self, waiting: usize) -> Self {
        Self { waiting, ..self }
    }
}

/// What all handles of a balancer share.
pub(crate) struct Shared<T: Parts> {
    pub(crate) hub: Arc<Hub<T>>,
    pub(crate) snapshot: ArcSwap<Snapshot<T>>,
    /// Told of each publication.
    pub(crate) published: Notify,
    /// How many calls wait.
    pub(crate) waiting: AtomicUsize,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) status: Option<StatusReader>,
}

impl<T: Parts> Shared<T> {
    /// A place among the calls that wait, if there is one.
    pub(crate) fn queue(&self) -> Option<Queued<'_>> {
        let queued = Queued(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < self.hub.limits.waiting).then_some(queued)
    }
}

/// A call that waits. Dropped, it waits no longer.
pub(crate) struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Parts> Drop for Shared<T> {
    fn drop(&mut self) {
        self.hub.close();
    }
}
