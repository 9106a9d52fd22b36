//! The slow start: who is new among others, or back, has its share little by little, since caches, pools
//! and compilers are cold at first.

use std::time::Duration;

use tokio::time::Instant;

use super::books::Books;
use crate::balance::member::FULL;
use crate::balance::parts::Parts;

/// How an endpoint that is new among others is given its share little by little.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SlowStart {
    /// How long: 30 s. Zero: not at all.
    pub window: Duration,
    /// The part of its weight that it begins with, in percent: 10.
    pub least_percent: u8,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), least_percent: 10 }
    }
}

impl SlowStart {
    /// Sets how long it takes, and the part of its weight in percent that an endpoint begins with.
    #[must_use]
    pub fn over(self, window: Duration, least_percent: u8) -> Self {
        Self { window, least_percent, ..self }
    }

    /// No slow start.
    #[must_use]
    pub fn none() -> Self {
        Self { window: Duration::ZERO, least_percent: 100 }
    }

    pub(super) fn ramp(&self, since: Duration) -> u16 {
        if since >= self.window {
            return FULL;
        }
        let part = since.as_secs_f64() / self.window.as_secs_f64();
        let least = f64::from(self.least_percent.min(100)) / 100.0;
        ((part.max(least) * f64::from(FULL)) as u16).clamp(1, FULL)
    }
}

impl<T: Parts> Books<T> {
    pub(super) fn is_ramping(&self) -> bool {
        !self.ramping.is_empty()
    }

    /// Gives those in their slow start the share they should have by now.
    pub(super) fn ramp(&mut self, now: Instant) {
        for id in self.ramping.clone() {
            let slow_start = self.rules.slow_start;
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let from = entry.trouble.as_ref().and_then(|trouble| trouble.ramp_from);
            let ramp =
                from.map_or(FULL, |from| slow_start.ramp(now.saturating_duration_since(from)));
            entry.member().set_ramp(ramp);
            if ramp == FULL {
                self.ramped(id);
            }
        }
    }

    pub(super) fn ramped(&mut self, id: usize) {
        self.ramping.remove(&id);
        self.changed = true;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.member().set_ramp(FULL);
            if let Some(trouble) = &mut entry.trouble {
                trouble.ramp_from = None;
            }
        }
    }
}
