//! Which endpoint a request goes to.
//!
//! A [`Policy`] is asked for each request, with the request, among the endpoints that can be used now,
//! and is told how each call went. What it computes of the set as a whole it computes off the path of
//! calls, when the set changes, from the members, among them those that cannot be used for the moment:
//! a ring of all members does not turn when one of them is out for a minute. It has its former result
//! then, so that positions and counters survive.

mod choose;
mod latency;
mod least_pending;
mod peak_ewma;

use std::sync::Arc;
use std::time::Duration;

pub use least_pending::LeastPending;
pub use peak_ewma::PeakEwma;

use super::{Member, Outcome};
use choose::{SCAN, better_of_two, fewest, least, one_of};

/// Decides which endpoint a request goes to.
///
/// Times are nanoseconds since the balancer was made, so that they fit an atomic. A clock may stand
/// still between two of them. A policy that panics fails the call; nothing else is lost by it.
pub trait Policy<Req, K, E>: Send + Sync + 'static {
    /// What is kept of each endpoint, in atomics: calls to it begin and end at the same time.
    type Load: Send + Sync + 'static;
    /// What is computed of the set as a whole, such as a ring. `()` if nothing is.
    type State: Send + Sync + 'static;

    /// Whether [`started`](Self::started) and [`finished`](Self::finished) want to know the time.
    /// Reading a clock takes longer than picking.
    const TIMED: bool;
    /// How often [`review`](Self::review) is run while calls end; never, if `None`.
    const REVIEW: Option<Duration> = None;

    /// What is kept of an endpoint that is new, or has a new connection.
    fn load(&self) -> Self::Load;

    /// Computes what is to be known of the set, whenever it has changed: the members, used or not, and
    /// the former result. It is not called for a change of state that leaves the members as they are.
    fn state<'a>(
        &self,
        members: impl ExactSizeIterator<Item = &'a Member<K, E, Self::Load>>,
        former: Option<Arc<Self::State>>,
    ) -> Arc<Self::State>
    where
        K: 'a,
        E: 'a;

    /// The place of the endpoint that this request goes to, or `None` if it can go to none of them.
    fn pick(
        &self,
        request: &Req,
        among: &impl Candidates<K, E, Self::Load, State = Self::State>,
    ) -> Option<usize>;

    /// Whether a call is timed that begins while so many endpoints can be used: asked only if the
    /// policy is [timed](Self::TIMED) at all. A call that is not is told the time 0 wherever it is told
    /// a time, and no review follows from it.
    fn is_timed(&self, usable: usize) -> bool {
        let _ = usable;
        true
    }

    /// A call begins, while `waiting` others have no response yet. `now` is 0 if the call is not
    /// [timed](Self::is_timed).
    fn started(&self, load: &Self::Load, waiting: u32, now: u64) {
        let _ = (load, waiting, now);
    }

    /// A call has its response, while it goes on being pending. What became of it may be known later
    /// only. `now` is 0 if the call is not [timed](Self::is_timed).
    fn answered(&self, load: &Self::Load, now: u64) {
        let _ = (load, now);
    }

    /// What became of a call is known. It may be pending for longer, while its response is read; if it
    /// fails then after all, this is told, too.
    fn finished(&self, load: &Self::Load, call: Finished) {
        let _ = (load, call);
    }

    /// Looks at all members, off the path of calls, every [`REVIEW`](Self::REVIEW) while calls end.
    fn review<'a>(
        &self,
        members: impl ExactSizeIterator<Item = &'a Member<K, E, Self::Load>>,
        now: u64,
    ) where
        K: 'a,
        E: 'a,
    {
        let _ = (members, now);
    }

    /// What one more call would cost at this endpoint, for people to look at: of two, the lower one is
    /// preferred.
    fn cost(&self, member: &Member<K, E, Self::Load>, now: u64) -> f64;
}

/// A call of which it is known what became of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Finished {
    /// What became of it.
    pub outcome: Outcome,
    /// How long the response took, in nanoseconds; 0 if the call is not timed.
    pub elapsed: u64,
    /// The time now; 0 if the call is not timed.
    pub now: u64,
    /// How many other calls to the endpoint are under way.
    pub pending: u32,
}

/// The endpoints that can be used now, as a policy sees them. Their order says nothing.
pub trait Candidates<K, E, L> {
    /// What the policy has computed of the set.
    type State;

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at this place.
    fn get(&self, place: usize) -> Option<&Member<K, E, L>>;

    /// Whether this request may go there: it is not to be avoided by this request, did not just become
    /// unusable, and is not on probation with its hands full.
    fn is_free(&self, place: usize) -> bool;

    /// The one at this place, if it is [free](Self::is_free).
    fn free(&self, place: usize) -> Option<&Member<K, E, L>> {
        self.get(place).filter(|_| self.is_free(place))
    }

    /// Tells all that are [free](Self::is_free), with their places.
    fn each_free<'a>(&'a self, mut each: impl FnMut(usize, &'a Member<K, E, L>))
    where
        E: 'a,
        K: 'a,
        L: 'a,
    {
        for place in 0..self.len() {
            if let Some(member) = self.free(place) {
                each(place, member);
            }
        }
    }

    /// A place, drawn in proportion to the weights; of those whose slow start has begun, less often.
    /// It may not be [free](Self::is_free). 0 if there are none.
    fn draw(&self) -> usize;

    /// Whether all have the same [effective weight](Member::weight).
    fn is_even(&self) -> bool;

    /// A number below this bound, or 0 if that is 0.
    fn below(&self, bound: usize) -> usize;

    /// What the policy has computed of the set.
    fn state(&self) -> &Self::State;

    /// The time, in nanoseconds since the balancer was made; 0 if the call is not timed.
    fn now(&self) -> u64;
}
