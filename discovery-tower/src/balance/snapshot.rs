//! The set as calls see it: immutable, and replaced as a whole when it changes.

use std::sync::Arc;

use super::Member;
use super::error::{Cause, Unavailable};
use super::flight::{Endpoint, Picked, guarded};
use super::hub::Hub;
use super::member::{FULL, Gate};
use super::parts::Parts;
use super::pieces::Pieces;
use super::policy::{Candidates, Policy};
use super::protocol::Protocol;
use super::weights::Weights;

pub(crate) struct Snapshot<T: Parts> {
    /// Those that can be used.
    pub(crate) ready: Pieces<Arc<Endpoint<T>>>,
    pub(crate) weights: Weights,
    /// Whether all of them have the same effective weight.
    pub(crate) even: bool,
    /// The others.
    pub(crate) rest: Pieces<Arc<Endpoint<T>>>,
    pub(crate) state: Arc<T::State>,
    /// Whether the source has said once what there is.
    pub(crate) loaded: bool,
    /// Whether so many are out that all are used.
    pub(crate) panic: bool,
    pub(crate) others: Others<T::Key>,
}

/// Why members are not among those that can be used.
#[derive(Debug)]
pub(crate) struct Others<K> {
    /// How many have not connected yet.
    pub(crate) connecting: usize,
    /// How many failed when they were last tried.
    pub(crate) failed: usize,
    /// How many have a weight of 0.
    pub(crate) weightless: usize,
    pub(crate) causes: Arc<[Cause<K>]>,
}

impl<K> Others<K> {
    pub(crate) fn none() -> Self {
        Self { connecting: 0, failed: 0, weightless: 0, causes: Arc::new([]) }
    }

    /// Why nobody can be used.
    pub(crate) fn reason(&self) -> Unavailable {
        if self.connecting > 0 {
            Unavailable::NotReady
        } else if self.failed > 0 {
            Unavailable::Failed
        } else if self.weightless > 0 {
            Unavailable::Weightless
        } else {
            Unavailable::OutOfService
        }
    }
}

/// A policy or a protocol panicked.
pub(crate) struct Panicked(pub(crate) &'static str);

impl<T: Parts> Snapshot<T> {
    pub(crate) fn empty(state: Arc<T::State>) -> Self {
        Self {
            ready: Pieces::default(),
            weights: Weights::Equal,
            even: true,
            rest: Pieces::default(),
            state,
            loaded: false,
            panic: false,
            others: Others::none(),
        }
    }

    /// How many there are in all.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.rest.len()
    }

    /// All there are.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Endpoint<T>>> {
        self.ready.iter().chain(self.rest.iter())
    }

    /// Picks for this request, among those that were not tried for it. If there is `nobody_else`, those
    /// on probation take it however many calls they have.
    #[inline]
    pub(crate) fn pick(
        &self,
        hub: &Hub<T>,
        request: &T::Request,
        tried: &[Arc<Endpoint<T>>],
        nobody_else: bool,
    ) -> Result<Option<(Picked<T>, T::Service)>, Panicked> {
        if self.ready.len() == 0 {
            return Ok(None);
        }
        let now = hub.now_of_call(self.ready.len()).ok_or(Panicked("policy"))?;
        let among = Among { snapshot: self, hub, request, tried, now, all: nobody_else };
        let place = guarded(|| hub.policy.pick(request, &among)).ok_or(Panicked("policy"))?;
        let endpoint = place.and_then(|place| self.ready.get(place));
        Ok(endpoint.map(|endpoint| {
            // How long a suspect took decides whether it is out.
            let untimed = Hub::<T>::TIMED && now == 0;
            let suspect = untimed && endpoint.member.is_suspect();
            let now = if suspect { hub.now() } else { now };
            (Picked::new(endpoint.clone(), now), endpoint.service.clone())
        }))
    }

    /// Whether one more call may go to an endpoint.
    #[inline]
    pub(crate) fn is_open(&self, endpoint: &Endpoint<T>) -> bool {
        match endpoint.member.gate() {
            Gate::Open => true,
            Gate::Probation => endpoint.member.pending() == 0 || self.panic,
            Gate::Closed => false,
        }
    }

    /// Whether there are endpoints that this request could go to, had it not to avoid them.
    pub(crate) fn is_avoided(
        &self,
        hub: &Hub<T>,
        request: &T::Request,
        tried: &[Arc<Endpoint<T>>],
    ) -> bool {
        let among = Among { snapshot: self, hub, request, tried, now: 0, all: true };
        self.ready.iter().any(|endpoint| {
            among.is_open(endpoint)
                && !among.was_tried(endpoint)
                && guarded(|| hub.protocol.avoids(request, endpoint.member.key())).unwrap_or(false)
        })
    }
}

/// Those that can be used, as the policy sees them for one request.
struct Among<'a, T: Parts> {
    snapshot: &'a Snapshot<T>,
    hub: &'a Hub<T>,
    request: &'a T::Request,
    tried: &'a [Arc<Endpoint<T>>],
    now: u64,
    /// Whether those on probation are used like the others.
    all: bool,
}

impl<T: Parts> Among<'_, T> {
    #[inline]
    fn is_free(&self, endpoint: &Arc<Endpoint<T>>) -> bool {
        self.is_open(endpoint)
            && !self.was_tried(endpoint)
            && !self.hub.protocol.avoids(self.request, endpoint.member.key())
    }

    #[inline]
    fn is_open(&self, endpoint: &Endpoint<T>) -> bool {
        self.snapshot.is_open(endpoint) || self.all && endpoint.member.gate() != Gate::Closed
    }

    /// Draws by weights, where those in their slow start are passed over as often as is left of it.
    #[inline(never)]
    fn draw_uneven(&self) -> usize {
        let draw = || self.snapshot.weights.draw(self.len(), &self.hub.random);
        for _ in 0..16 {
            let place = draw();
            let ramp = self.get(place).map_or(FULL, Member::ramp);
            if ramp >= FULL || self.hub.random.below(FULL.into()) < u64::from(ramp) {
                return place;
            }
        }
        draw()
    }

    #[inline]
    fn was_tried(&self, endpoint: &Arc<Endpoint<T>>) -> bool {
        self.tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint))
    }
}

impl<T: Parts> Candidates<T::Key, T::Endpoint, T::Load> for Among<'_, T> {
    type State = T::State;

    #[inline]
    fn len(&self) -> usize {
        self.snapshot.ready.len()
    }

    #[inline]
    fn get(&self, place: usize) -> Option<&Member<T::Key, T::Endpoint, T::Load>> {
        self.snapshot.ready.get(place).map(|endpoint| &endpoint.member)
    }

    #[inline]
    fn is_free(&self, place: usize) -> bool {
        self.free(place).is_some()
    }

    #[inline]
    fn free(&self, place: usize) -> Option<&Member<T::Key, T::Endpoint, T::Load>> {
        let endpoint = self.snapshot.ready.get(place)?;
        self.is_free(endpoint).then_some(&endpoint.member)
    }

    #[inline]
    fn each_free<'a>(
        &'a self,
        mut each: impl FnMut(usize, &'a Member<T::Key, T::Endpoint, T::Load>),
    ) {
        let mut place = 0;
        for piece in self.snapshot.ready.pieces() {
            for endpoint in piece {
                if self.is_free(endpoint) {
                    each(place, &endpoint.member);
                }
                place += 1;
            }
        }
    }

    #[inline]
    fn draw(&self) -> usize {
        if self.snapshot.even { self.below(self.len()) } else { self.draw_uneven() }
    }

    #[inline]
    fn is_even(&self) -> bool {
        self.snapshot.even
    }

    #[inline]
    fn below(&self, bound: usize) -> usize {
        self.hub.random.below(bound as u64) as usize
    }

    #[inline]
    fn state(&self) -> &T::State {
        &self.snapshot.state
    }

    #[inline]
    fn now(&self) -> u64 {
        self.now
    }
}
