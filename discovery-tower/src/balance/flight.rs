//! A call on its way: what is counted when it begins, and when it ends, however it ends.

use std::sync::Arc;

use super::hub::{Event, Hub};
use super::member::Gate;
use super::parts::Parts;
use super::policy::{Finished, Policy};
use super::protocol::{Keyed, Origin};
use super::{Member, Outcome};

/// A call that was cancelled earlier says nothing of an endpoint, in nanoseconds.
const IMPATIENT: u64 = 100_000_000;

/// Runs what a user has given us: `None` if it panics. What it was at is its own affair; ours are
/// atomics that were not touched.
#[inline]
pub(crate) fn guarded<R>(run: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
}

/// An endpoint and the service that reaches it. What a call looks at is near the beginning, where the
/// references to it are counted.
#[repr(C)]
pub(crate) struct Endpoint<T: Parts> {
    pub(crate) hub: Arc<Hub<T>>,
    pub(crate) member: Member<T::Key, T::Endpoint, T::Load>,
    /// Its place in the driver's books.
    pub(crate) id: usize,
    pub(crate) service: T::Service,
}

/// An endpoint that was picked for a call, which counts as pending there from now on.
pub(crate) struct Picked<T: Parts> {
    /// Always there, until the call is sent.
    endpoint: Option<Arc<Endpoint<T>>>,
    started: u64,
}

impl<T: Parts> Picked<T> {
    #[inline]
    pub(crate) fn new(endpoint: Arc<Endpoint<T>>, now: u64) -> Self {
        let waiting = endpoint.member.begin();
        guarded(|| endpoint.hub.policy.started(endpoint.member.load(), waiting, now));
        Self { endpoint: Some(endpoint), started: now }
    }

    /// The call is sent: what happens from now on is the endpoint's doing.
    #[inline]
    pub(crate) fn sent(mut self) -> Flight<T> {
        Flight { endpoint: self.endpoint.take(), started: self.started }
    }

    #[inline]
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint<T>>> {
        self.endpoint.as_ref()
    }
}

impl<T: Parts> Drop for Picked<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.member.unbegin();
            endpoint.freed();
        }
    }
}

/// A call that was sent. Dropped, it was cancelled.
pub(crate) struct Flight<T: Parts> {
    endpoint: Option<Arc<Endpoint<T>>>,
    started: u64,
}

impl<T: Parts> Flight<T> {
    /// The call ended.
    #[inline]
    pub(crate) fn end(mut self, outcome: Outcome) -> Option<Arc<Endpoint<T>>> {
        let endpoint = self.endpoint.take()?;
        endpoint.end(self.started, outcome);
        Some(endpoint)
    }

    /// The endpoint; none once it ended.
    #[inline]
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint<T>>> {
        self.endpoint.as_ref()
    }

    /// Lets someone else say when it ended.
    pub(crate) fn completion(mut self) -> Option<Completion<T::Key>> {
        let endpoint = self.endpoint.take()?;
        Some(Completion { endpoint, started: self.started, took: None, told: None })
    }
}

impl<T: Parts> Drop for Flight<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.end(self.started, Outcome::Cancelled);
        }
    }
}

/// A call whose response has come, to be told its [`Outcome`].
///
/// It counts as pending until this is dropped. One that was told nothing then was
/// [cancelled](Outcome::Cancelled).
pub struct Completion<K> {
    endpoint: Arc<dyn Ending<K>>,
    started: u64,
    /// How long the response took, once it is said that it is there.
    took: Option<u64>,
    told: Option<Outcome>,
}

pub(crate) trait Ending<K>: Keyed<K> {
    /// A call that began then has its response, and goes on being pending: how long that took.
    fn answered(&self, started: u64) -> u64;
    /// What became of a call that began then, was answered, and took so long.
    fn judged(self: Arc<Self>, started: u64, took: u64, outcome: Outcome);
    /// A call that was answered is over; whether it went well to its end.
    fn release(self: Arc<Self>, well: bool);
}

impl<K: 'static> Completion<K> {
    /// The key of the endpoint.
    pub fn endpoint(&self) -> &K {
        self.endpoint.key()
    }

    /// Says that the response is there, though its outcome is not known: what it takes from now on is
    /// not the time that a response takes.
    pub fn responded(&mut self) {
        self.took();
    }

    /// Tells what became of the call. The first time counts; after a success, a failure counts too.
    pub fn tell(&mut self, outcome: Outcome) {
        let took = self.took();
        match (self.told, outcome) {
            (None, _) | (Some(Outcome::Success), Outcome::Failure) => {}
            _ => return,
        }
        self.endpoint.clone().judged(self.started, took, outcome);
        self.told = Some(outcome);
    }

    /// The call is over, and this became of it.
    pub fn end(mut self, outcome: Outcome) -> Origin<K> {
        self.tell(outcome);
        Origin::new(self.endpoint.clone())
    }
}

impl<K> Completion<K> {
    /// How long the response took, which is there now at the latest.
    fn took(&mut self) -> u64 {
        let Self { endpoint, started, took, .. } = self;
        *took.get_or_insert_with(|| endpoint.answered(*started))
    }
}

impl<K> Drop for Completion<K> {
    fn drop(&mut self) {
        let took = self.took();
        if self.told.is_none() {
            self.endpoint.clone().judged(self.started, took, Outcome::Cancelled);
        }
        self.endpoint.clone().release(self.told == Some(Outcome::Success));
    }
}

impl<K> std::fmt::Debug for Completion<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}

impl<T: Parts> Endpoint<T> {
    /// A call that began then has ended.
    #[inline]
    pub(crate) fn end(self: &Arc<Self>, started: u64, outcome: Outcome) {
        let now = self.hub.now_since(started);
        let pending = self.member.end();
        if outcome == Outcome::Success {
            self.passed();
        }
        self.judge(outcome, now.saturating_sub(started), now, pending);
        self.freed();
    }

    /// A call went well to its end.
    #[inline]
    fn passed(self: &Arc<Self>) {
        self.member.succeeded();
        if self.member.gate() == Gate::Probation {
            self.hub.tell(Event::Passed(self.clone()));
        }
    }

    /// Counts what became of a call; that it went well only for the policy.
    #[inline]
    fn judge(self: &Arc<Self>, outcome: Outcome, elapsed: u64, now: u64, pending: u32) {
        let (member, hub) = (&self.member, &self.hub);
        match outcome {
            Outcome::Failure => self.struck(),
            Outcome::Overloaded { retry_after } => {
                hub.seen.overloaded();
                member.refused();
                hub.tell(Event::Overloaded(self.clone(), retry_after));
            }
            // Who may be gone is not given the benefit of the doubt, unless nobody really waited.
            Outcome::Cancelled if member.is_suspect() && !(1..IMPATIENT).contains(&elapsed) => {
                hub.seen.cancelled(true);
                self.struck();
            }
            Outcome::Cancelled => {
                hub.seen.cancelled(false);
                member.unsaid();
            }
            Outcome::Ignore => {
                hub.seen.ignored();
                member.unsaid();
            }
            Outcome::Success => {}
        }
        let call = Finished { outcome, elapsed, now, pending };
        // This may run while another panic unwinds.
        guarded(|| hub.policy.finished(member.load(), call));
        hub.consider_review(now);
    }

    /// It has one call less: on probation that is a place for another one, which may be waited for.
    #[inline]
    fn freed(&self) {
        if self.member.gate() == Gate::Probation
            && let Some(shared) = self.hub.shared()
        {
            shared.published.notify_waiters();
        }
    }

    #[cold]
    fn struck(self: &Arc<Self>) {
        let (member, hub) = (&self.member, &self.hub);
        let in_a_row = member.failed();
        let enough = hub.strikes > 0 && in_a_row.is_multiple_of(hub.strikes);
        if member.is_suspect() {
            // Out at once: it most likely is gone.
            member.close();
        }
        if enough || member.is_suspect() || member.gate() == Gate::Probation {
            hub.tell(Event::Struck(self.clone(), enough));
        }
    }
}

impl<T: Parts> Drop for Endpoint<T> {
    /// Its last call has ended, and nobody can pick it any more.
    fn drop(&mut self) {
        self.hub.seen.fold(&self.member);
    }
}

impl<T: Parts> Keyed<T::Key> for Endpoint<T> {
    fn key(&self) -> &T::Key {
        self.member.key()
    }
}

impl<T: Parts> Ending<T::Key> for Endpoint<T> {
    fn answered(&self, started: u64) -> u64 {
        self.member.answer();
        let now = self.hub.now_since(started);
        guarded(|| self.hub.policy.answered(self.member.load(), now));
        now.saturating_sub(started)
    }

    fn judged(self: Arc<Self>, started: u64, took: u64, outcome: Outcome) {
        // The one that is judged is pending itself.
        let pending = self.member.pending().saturating_sub(1);
        self.judge(outcome, took, self.hub.now_since(started), pending);
    }

    fn release(self: Arc<Self>, well: bool) {
        self.member.release();
        if well {
            self.passed();
        }
        self.freed();
    }
}
