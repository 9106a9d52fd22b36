//! What one balancer has counted, and what of it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::facade::count;
use super::figures::{
    CALLS, CONNECTION_FAILURES, EJECTIONS, Figure, PASSED_ON, REFUSED, SERVICE, WAITED, WAITS,
};

/// What is counted, by its place in [`SERIES`].
#[derive(Clone, Copy)]
pub(super) enum Count {
    Success,
    Failure,
    Ignored,
    Overloaded,
    Cancelled,
    OutConsecutive,
    OutSuccessRate,
    OutProbation,
    OutSuspect,
    OutOverloaded,
    ConnectionFailures,
    PassedOn,
    Waits,
    /// In microseconds, and told in milliseconds.
    Waited,
    NotLoaded,
    NoEndpoints,
    NotReady,
    Failed,
    Weightless,
    OutOfService,
    Avoided,
    Deadline,
    TooManyWaiting,
    Panicked,
}

type Series = (&'static Figure, &'static str);

/// What it is told as: a figure, and the value of its label.
const SERIES: [Series; 24] = [
    (&CALLS, "success"),
    (&CALLS, "failure"),
    (&CALLS, "ignored"),
    (&CALLS, "overloaded"),
    (&CALLS, "cancelled"),
    (&EJECTIONS, "consecutive"),
    (&EJECTIONS, "success_rate"),
    (&EJECTIONS, "probation"),
    (&EJECTIONS, "suspect"),
    (&EJECTIONS, "overloaded"),
    (&CONNECTION_FAILURES, ""),
    (&PASSED_ON, ""),
    (&WAITS, ""),
    (&WAITED, ""),
    (&REFUSED, "not_loaded"),
    (&REFUSED, "no_endpoints"),
    (&REFUSED, "not_ready"),
    (&REFUSED, "failed"),
    (&REFUSED, "weightless"),
    (&REFUSED, "out_of_service"),
    (&REFUSED, "avoided"),
    (&REFUSED, "deadline"),
    (&REFUSED, "too_many_waiting"),
    (&REFUSED, "panicked"),
];

/// See the module.
#[derive(Debug)]
pub(super) struct Counts {
    service: Arc<str>,
    /// Successes are not among them, and failures are those that endpoints counted.
    counted: [AtomicU64; SERIES.len()],
    /// All calls that ended, whatever became of them.
    finished: AtomicU64,
    /// Cancelled calls that endpoints counted as failures.
    doubted: AtomicU64,
    told: [AtomicU64; SERIES.len()],
    begun: AtomicBool,
}

impl Counts {
    pub(super) fn new(service: Arc<str>) -> Self {
        Self {
            service,
            counted: [const { AtomicU64::new(0) }; SERIES.len()],
            finished: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
            told: [const { AtomicU64::new(0) }; SERIES.len()],
            begun: AtomicBool::new(false),
        }
    }

    pub(super) fn add(&self, what: Count, by: u64) {
        if let Some(count) = self.counted.get(what as usize) {
            count.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// An endpoint counted so many calls, and so many failures among them.
    pub(super) fn ended(&self, calls: u64, failures: u64) {
        self.add(Count::Failure, failures);
        self.finished.fetch_add(calls, Ordering::Relaxed);
    }

    pub(super) fn doubt(&self) {
        self.doubted.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, what: Count) -> u64 {
        self.counted.get(what as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many successes and failures there are, as far as it is known.
    ///
    /// A call ends a moment before it is judged. One that is between the two may be told as a success
    /// that it turns out not to be, and the next one is not told then.
    fn judged(&self) -> (u64, u64) {
        let (calls, failures) = (self.finished.load(Ordering::Relaxed), self.get(Count::Failure));
        let doubted = self.doubted.load(Ordering::Relaxed);
        let none = self.get(Count::Ignored) + self.get(Count::Cancelled).saturating_sub(doubted);
        let successes = calls.saturating_sub(failures).saturating_sub(none);
        let overloaded = self.get(Count::Overloaded);
        (successes, failures.saturating_sub(overloaded).saturating_sub(doubted))
    }

    /// Tells what has come since the last time: whether anything has.
    pub(super) fn tell(&self) -> bool {
        let begins = !self.begun.swap(true, Ordering::Relaxed);
        let (successes, failures) = self.judged();
        let mut news = false;
        let all = SERIES.iter().zip(&self.counted).zip(&self.told).enumerate();
        for (place, ((series, counted), told)) in all {
            let now = match place {
                _ if place == Count::Success as usize => successes,
                _ if place == Count::Failure as usize => failures,
                _ => counted.load(Ordering::Relaxed),
            };
            let now = if place == Count::Waited as usize { now / 1_000 } else { now };
            // Whoever else tells now tells the other part of it.
            let more = now.saturating_sub(told.fetch_max(now, Ordering::Relaxed));
            news |= more > 0;
            // What never happens is not worth a series, but for what every rate is a part of.
            if more > 0 || (begins && place <= Count::Failure as usize) {
                self.tell_one(*series, more);
            }
        }
        news
    }

    fn tell_one(&self, (figure, value): Series, by: u64) {
        let service = (SERVICE, &*self.service);
        match figure.label {
            Some(label) => count(figure, &[service, (label, value)], by),
            None => count(figure, &[service], by),
        }
    }
}
