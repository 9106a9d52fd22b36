//! A call on its way: what is counted when it begins, and when it ends, however it ends.

use std::sync::Arc;

use super::hub::{Event, Hub};
use super::member::Gate;
use super::parts::Parts;
use super::policy::{Finished, Policy};
use super::protocol::{Keyed, Origin};
use super::{Member, Outcome};

/// Runs what a user has given us: `None` if it panics. What it was at is its own affair; ours are
/// atomics that were not touched.
#[inline]
pub(crate) fn guarded<R>(run: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
}

/// An endpoint and the service that reaches it.
pub(crate) struct Endpoint<T: Parts> {
    pub(crate) member: Member<T::Key, T::Endpoint, T::Load>,
    pub(crate) service: T::Service,
    /// Its place in the driver's books.
    pub(crate) id: usize,
    pub(crate) hub: Arc<Hub<T>>,
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
        let pending = endpoint.member.begin();
        guarded(|| endpoint.hub.policy.started(endpoint.member.load(), pending, now));
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
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.member.unbegin();
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
        Some(Completion { endpoint, started: self.started, ended: false })
    }
}

impl<T: Parts> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.end(self.started, Outcome::Cancelled);
        }
    }
}

/// A call whose response has come, to be told its [`Outcome`]. Dropped untold, it was
/// [cancelled](Outcome::Cancelled).
pub struct Completion<K> {
    endpoint: Arc<dyn Ending<K>>,
    started: u64,
    ended: bool,
}

pub(crate) trait Ending<K>: Keyed<K> {
    /// A call that began then has ended.
    fn ended(self: Arc<Self>, started: u64, outcome: Outcome);
}

impl<K: 'static> Completion<K> {
    /// The key of the endpoint.
    pub fn endpoint(&self) -> &K {
        self.endpoint.key()
    }

    /// The call is over, and this is what became of it.
    pub fn end(mut self, outcome: Outcome) -> Origin<K> {
        self.ended = true;
        self.endpoint.clone().ended(self.started, outcome);
        Origin::new(self.endpoint.clone())
    }
}

impl<K> Drop for Completion<K> {
    fn drop(&mut self) {
        if !self.ended {
            self.endpoint.clone().ended(self.started, Outcome::Cancelled);
        }
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
        let (member, hub) = (&self.member, &self.hub);
        let now = hub.policy_now();
        let pending = member.end();
        match outcome {
            Outcome::Success => {
                member.succeeded();
                if member.gate() == Gate::Probation {
                    hub.tell(Event::Passed(self.clone()));
                }
            }
            Outcome::Failure => self.struck(),
            Outcome::Overloaded { retry_after } => {
                member.failed();
                hub.tell(Event::Overloaded(self.clone(), retry_after));
            }
            Outcome::Ignore | Outcome::Cancelled => {}
        }
        let elapsed = now.saturating_sub(started);
        let call = Finished { outcome, elapsed, now, pending };
        // This may run while another panic unwinds.
        guarded(|| hub.policy.finished(member.load(), call));
        hub.consider_review(now);
    }

    #[cold]
    fn struck(self: &Arc<Self>) {
        let (member, hub) = (&self.member, &self.hub);
        let in_a_row = member.failed();
        let enough = hub.strikes > 0 && in_a_row.is_multiple_of(hub.strikes);
        if enough || member.is_suspect() || member.gate() == Gate::Probation {
            hub.tell(Event::Struck(self.clone()));
        }
    }
}

impl<T: Parts> Keyed<T::Key> for Endpoint<T> {
    fn key(&self) -> &T::Key {
        self.member.key()
    }
}

impl<T: Parts> Ending<T::Key> for Endpoint<T> {
    #[inline]
    fn ended(self: Arc<Self>, started: u64, outcome: Outcome) {
        self.end(started, outcome);
    }
}
