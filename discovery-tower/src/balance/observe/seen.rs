//! What a balancer's calls and its driver say of what happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::counts::{Count, Counts};
use super::gauges::Shown;
use super::{facade, figures};
use crate::balance::ejection::Why;
use crate::balance::error::{CallError, Unavailable};
use crate::balance::member::Member;

pub(crate) use super::telling::Telling;

/// Tells the recorder what each figure means.
pub(crate) fn describe() {
    figures::ALL.iter().for_each(facade::describe);
}

/// A request that failed could be tried at another instance, and is, or is not for the sake of the
/// budget.
#[cfg(feature = "http")]
pub(crate) fn retried(service: Option<&str>, again: bool) {
    let decision = if again { "again" } else { "refused" };
    let labels = [(figures::SERVICE, service.unwrap_or_default()), ("decision", decision)];
    facade::count(&figures::RETRIES, &labels, 1);
}

/// What happens to one balancer.
#[derive(Debug)]
pub(crate) struct Seen(
    // Apart from what every call reads.
    Box<Inner>,
);

#[derive(Debug)]
struct Inner {
    counts: Counts,
    shown: Shown,
}

/// What of an endpoint's calls is among the counts of its balancer.
#[derive(Debug, Default)]
pub(crate) struct Told {
    finished: AtomicU64,
    failures: AtomicU64,
}

impl Told {
    /// These calls are another's, who has them counted.
    pub(crate) fn skip(&self, finished: u64, failures: u64) {
        self.finished.store(finished, Ordering::Relaxed);
        self.failures.store(failures, Ordering::Relaxed);
    }
}

impl Seen {
    pub(crate) fn new(name: Option<&Arc<str>>) -> Self {
        let service = name.cloned().unwrap_or_default();
        Self(Box::new(Inner { counts: Counts::new(service.clone()), shown: Shown::new(service) }))
    }

    /// A call ended that says nothing of its endpoint.
    pub(crate) fn ignored(&self) {
        self.add(Count::Ignored);
    }

    /// A call ended with an endpoint that asks to be left alone.
    pub(crate) fn overloaded(&self) {
        self.add(Count::Overloaded);
    }

    /// A call was cancelled, and the endpoint is to blame or not.
    pub(crate) fn cancelled(&self, blamed: bool) {
        if blamed {
            self.0.counts.doubt();
        }
        self.add(Count::Cancelled);
    }

    /// An endpoint did not get a request: another one is sought.
    pub(crate) fn passed_on(&self) {
        self.add(Count::PassedOn);
    }

    /// An endpoint could not be connected to.
    pub(crate) fn unready(&self) {
        self.add(Count::ConnectionFailures);
    }

    /// An endpoint is left out.
    pub(crate) fn ejected(&self, why: Why) {
        self.add(match why {
            Why::Consecutive => Count::OutConsecutive,
            Why::SuccessRate => Count::OutSuccessRate,
            Why::Probation => Count::OutProbation,
            Why::Suspect => Count::OutSuspect,
            Why::Overloaded => Count::OutOverloaded,
        });
    }

    /// A call was sent to nobody, for this reason.
    pub(crate) fn refused<K>(&self, error: &CallError<K>) {
        self.add(match error {
            CallError::NotLoaded { .. } => Count::NotLoaded,
            CallError::NoEndpoints { .. } => Count::NoEndpoints,
            CallError::Unavailable { reason, .. } => match reason {
                Unavailable::NotReady => Count::NotReady,
                Unavailable::Failed => Count::Failed,
                Unavailable::Weightless => Count::Weightless,
                Unavailable::OutOfService => Count::OutOfService,
                Unavailable::Avoided => Count::Avoided,
            },
            CallError::Deadline { .. } => Count::Deadline,
            CallError::TooManyWaiting { .. } => Count::TooManyWaiting,
            CallError::Panicked { .. } => Count::Panicked,
            // It was sent.
            CallError::Failed { .. } => return,
        });
    }

    /// A call waits for an endpoint from now on, until this is dropped.
    pub(crate) fn waits(&self) -> Waiting<'_> {
        Waiting { seen: self, since: Instant::now() }
    }

    /// Adds up what an endpoint has counted since the last time.
    pub(crate) fn fold<K, E, L>(&self, member: &Member<K, E, L>) {
        let told = member.told();
        let part =
            |told: &AtomicU64, now: u64| now.saturating_sub(told.fetch_max(now, Ordering::Relaxed));
        let finished = part(&told.finished, member.finished());
        let failures = part(&told.failures, member.failures());
        if finished > 0 || failures > 0 {
            self.0.counts.ended(finished, failures);
        }
    }

    /// The last handle is gone: what the balancer has is not to be shown any more.
    pub(crate) fn leave(&self) {
        self.0.counts.tell();
        self.0.shown.leave();
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(super) fn shown(&self) -> &Shown {
        &self.0.shown
    }

    fn add(&self, what: Count) {
        self.0.counts.add(what, 1);
    }
}

impl Drop for Seen {
    /// The last call has ended.
    fn drop(&mut self) {
        self.leave();
    }
}

/// A call that waits. Dropped, it waits no longer.
pub(crate) struct Waiting<'a> {
    seen: &'a Seen,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let counts = &self.seen.0.counts;
        counts.add(Count::Waits, 1);
        let took = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.add(Count::Waited, took);
    }
}
