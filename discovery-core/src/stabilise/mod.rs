//! Protection from mass removal.
//!
//! Removal is the dangerous event: an etcd that was paused for longer than the leases live deletes
//! every instance at the moment of its return, healthy and renewing ones included. So additions pass
//! at once, and so does the removal of an instance that said before that it would go
//! ([`Draining`](crate::InstanceStatus::Draining)). Any other removal waits a moment for company.
//! Alone, it passes; where many vanish at a time, all of them are kept as *suspects* for a while:
//! marked by [`Instance::suspect`](crate::Instance::suspect), so that a balancer takes a suspect out
//! at its first failure. A suspect that comes back is simply an instance again, and one that does not
//! is dropped when its time is over. Bounded and aware of health: protection without an end serves
//! the dead.

mod crowd;
mod machine;

use std::time::Duration;

pub use crowd::Crowd;
pub use machine::Stabiliser;

/// How removals are judged; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stabilise {
    pub(crate) company: Duration,
    pub(crate) suspect: Duration,
    pub(crate) percent: u8,
    pub(crate) least: usize,
}

impl Default for Stabilise {
    fn default() -> Self {
        Self {
            company: Duration::from_millis(500),
            suspect: Duration::from_secs(10),
            percent: 15,
            least: 2,
        }
    }
}

impl Stabilise {
    /// The defaults: a removal waits 500 ms; where more than 15 % and at least 2 vanish in that time,
    /// they are suspects for 10 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// For how long a removal waits for company.
    #[must_use]
    pub fn company_within(mut self, time: Duration) -> Self {
        self.company = time;
        self
    }

    /// For how long suspects are kept. Zero turns the protection off.
    #[must_use]
    pub fn suspects_for(mut self, time: Duration) -> Self {
        self.suspect = time;
        self
    }

    /// More than this share of a service, or of all that is watched, has to vanish, in percent.
    #[must_use]
    pub fn more_than_percent(mut self, percent: u8) -> Self {
        self.percent = percent.min(100);
        self
    }

    /// At least so many have to vanish.
    #[must_use]
    pub fn at_least(mut self, instances: usize) -> Self {
        self.least = instances;
        self
    }

    /// Whether removals simply pass.
    pub fn is_off(&self) -> bool {
        self.suspect.is_zero()
    }
}
