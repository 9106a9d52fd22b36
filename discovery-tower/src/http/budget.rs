//! How many requests may be tried again: a part of those that there were, so that retries do not add to
//! the load when everything fails. Unlike tower's budget it takes back what was not used.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// In so many parts a window passes.
const SLOTS: u32 = 10;

/// See the module. All who share it count together.
#[derive(Debug)]
pub(super) struct Budget {
    part: f64,
    /// So many retries there may be in a window whatever the requests.
    least: f64,
    slot: Duration,
    recent: Mutex<Recent>,
}

/// What there was in the window, in slots.
#[derive(Debug)]
struct Recent {
    slots: [Slot; SLOTS as usize],
    /// The present one, and since when it is that.
    at: usize,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// Retries may be this part of the requests over `window`, and `per_second` beside.
    ///
    /// # Panics
    ///
    /// If `window` is not between 1 and 60 s, or `part` not between 0 and 1000.
    pub(super) fn new(window: Duration, per_second: u32, part: f32) -> Self {
        let seconds = window.as_secs_f64();
        assert!((1.0..=60.0).contains(&seconds), "a window of {window:?}");
        assert!((0.0..=1_000.0).contains(&part), "{part} retries for a request");
        let recent =
            Recent { slots: [Slot::default(); SLOTS as usize], at: 0, since: Instant::now() };
        Self {
            part: part.into(),
            least: f64::from(per_second) * seconds,
            slot: window / SLOTS,
            recent: Mutex::new(recent),
        }
    }

    /// There is a request.
    pub(super) fn request(&self) {
        let mut recent = self.recent();
        let at = recent.at;
        if let Some(slot) = recent.slots.get_mut(at) {
            slot.requests = slot.requests.saturating_add(1);
        }
    }

    /// Takes a retry; whether there is one.
    pub(super) fn take(&self) -> bool {
        let mut recent = self.recent();
        let sum = |of: fn(&Slot) -> u32| -> f64 {
            recent.slots.iter().map(|slot| f64::from(of(slot))).sum()
        };
        let most = sum(|slot| slot.requests) * self.part + self.least;
        // A part such as a tenth is none that floating point has: ten requests have one retry.
        let may = sum(|slot| slot.retries) + 1.0 <= most + 1e-3;
        let at = recent.at;
        if let Some(slot) = recent.slots.get_mut(at).filter(|_| may) {
            slot.retries = slot.retries.saturating_add(1);
        }
        may
    }

    /// One that was taken came to nothing.
    pub(super) fn give_back(&self) {
        let mut recent = self.recent();
        let at = recent.at;
        // The latest there is; if there is none, its time is over anyway.
        let (later, earlier) = recent.slots.split_at_mut(at + 1);
        let mut backwards = later.iter_mut().rev().chain(earlier.iter_mut().rev());
        if let Some(slot) = backwards.find(|slot| slot.retries > 0) {
            slot.retries -= 1;
        }
    }

    /// What there was until now.
    fn recent(&self) -> MutexGuard<'_, Recent> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = recent.since.elapsed().as_nanos() / self.slot.as_nanos().max(1);
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        for _ in 0..passed.min(SLOTS) {
            recent.at = (recent.at + 1) % recent.slots.len();
            let at = recent.at;
            if let Some(slot) = recent.slots.get_mut(at) {
                *slot = Slot::default();
            }
        }
        if passed >= SLOTS {
            recent.since = Instant::now();
        } else {
            recent.since += self.slot * passed;
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn taken(budget: &Budget) -> usize {
        (0..10_000).take_while(|_| budget.take()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_part_of_the_requests_in_the_window_and_some_a_second() {
        let budget = Budget::new(WINDOW, 2, 0.1);
        assert_eq!(taken(&budget), 20);
        for _ in 0..50 {
            budget.request();
        }
        assert_eq!((taken(&budget), taken(&budget)), (5, 0));
        tokio::time::advance(WINDOW / 2).await;
        assert_eq!(taken(&budget), 0);
        for _ in 0..9 {
            budget.request();
        }
        assert_eq!(taken(&budget), 0);
        budget.request();
        assert_eq!(taken(&budget), 1);
        // Of the first half nothing is left; of the second, a request's worth.
        tokio::time::advance(WINDOW / 2).await;
        assert_eq!(taken(&budget), 20);
        tokio::time::advance(WINDOW * 1_000).await;
        assert_eq!(taken(&budget), 20);
        assert_eq!(taken(&Budget::new(WINDOW, 0, 0.0)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again_while_it_would_count() {
        let budget = Budget::new(WINDOW, 1, 0.0);
        assert_eq!(taken(&budget), 10);
        budget.give_back();
        assert_eq!(taken(&budget), 1);
        tokio::time::advance(WINDOW / 2).await;
        budget.give_back();
        assert_eq!(taken(&budget), 1);
        tokio::time::advance(WINDOW * 2).await;
        budget.give_back();
        assert_eq!(taken(&budget), 10, "what was over is not given back");
    }
}
