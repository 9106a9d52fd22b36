//! When a set is saved: soon after it changed, not for each change, and only one write at a time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::file::Place;
use super::options::LastGoodOptions;
use crate::Instance;

/// A set that does not change is saved again after this part of the time for which it is good.
const REFRESHES: u32 = 24;

/// What failed is not tried again before this, however often sets may be saved.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Saver {
    place: Arc<Place>,
    every: Duration,
    refresh_every: Duration,
    /// Whether the set differs from what is saved.
    dirty: bool,
    /// When the next write may begin.
    next: Instant,
    /// When the set is saved again though it has not changed.
    refresh: Instant,
    running: Option<JoinHandle<io::Result<()>>>,
    failing: bool,
}

impl Saver {
    pub(super) fn new(place: Arc<Place>, options: &LastGoodOptions) -> Self {
        let now = Instant::now();
        let every = options.save_every;
        let refresh_every = (options.max_age / REFRESHES).max(every);
        let refresh = later(now, refresh_every);
        Self {
            place,
            every,
            refresh_every,
            dirty: false,
            next: now,
            refresh,
            running: None,
            failing: false,
        }
    }

    /// The set has changed.
    pub(super) fn changed(&mut self) {
        self.dirty = true;
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When there is something to be written; `None` while something is being written.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = if self.dirty { self.next } else { self.refresh };
        (!self.is_running()).then_some(due)
    }

    /// Begins to write the set as it is now. Not while another one is being written.
    pub(super) fn start(&mut self, set: Vec<Arc<Instance>>, now: Instant) {
        let (place, at) = (self.place.clone(), SystemTime::now());
        self.running = Some(spawn_blocking(move || place.write(&set, at)));
        self.dirty = false;
        self.next = later(now, self.every);
        self.refresh = later(now, self.refresh_every);
    }

    /// Waits until what is being written has been written; for ever if nothing is. Cancel safe.
    pub(super) async fn written(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let result = running.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        self.running = None;
        let path = self.place.path();
        match result {
            Ok(()) if self.failing => tracing::info!(?path, "the last good set is saved again"),
            Ok(()) => tracing::debug!(?path, "the last good set is saved"),
            Err(error) => {
                if self.failing {
                    tracing::debug!(?path, %error, "the last good set is still not saved");
                } else {
                    tracing::warn!(?path, %error, "the last good set cannot be saved");
                }
                self.failing = true;
                self.dirty = true;
                self.next = self.next.max(Instant::now() + RETRY_AFTER);
                return;
            }
        }
        self.failing = false;
    }
}

/// Options can be as large as they like.
pub(super) fn later(now: Instant, time: Duration) -> Instant {
    /// What tokio's timers take in any case.
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + time.min(FAR)
}
