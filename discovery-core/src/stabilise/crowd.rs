//! Who vanished lately, over all watches of one registry: services of a single instance are covered
//! only if they are looked at together.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Stabilise;
use crate::{InstanceKey, ServiceName};

/// Shared by all [`Stabiliser`](super::Stabiliser)s of one registry. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Crowd(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// What each watch has in its set.
    watched: HashMap<u64, Watched>,
    /// When a key vanished unannounced. A key that several watches saw vanish counts once.
    vanished: HashMap<InstanceKey, Span>,
    /// The same in the order in which it was seen, to forget by. A key that vanished again is in it
    /// twice.
    order: VecDeque<(Span, InstanceKey)>,
    /// How many of them vanished when, of all services and of each, so that judging one of a crowd
    /// does not look at all of it.
    all: Spans,
    services: HashMap<ServiceName, Spans>,
}

#[derive(Debug, Default)]
struct Watched {
    all: bool,
    instances: usize,
    /// Whether its source has lost touch.
    lost: bool,
}

/// When something vanished: as it was seen, or, after its watch was out of touch, at some time
/// between then and when it was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// When it was missed. First, so that spans are in the order of that.
    pub(super) seen: Instant,
    /// Since when it may have been gone.
    pub(super) since: Instant,
}

/// How many vanished in each span.
#[derive(Debug, Default)]
struct Spans(BTreeMap<Span, usize>);

impl Spans {
    fn add(&mut self, span: Span) {
        *self.0.entry(span).or_default() += 1;
    }

    fn remove(&mut self, span: Span) {
        if let Some(count) = self.0.get_mut(&span) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&span);
            }
        }
    }

    /// How many may have vanished within `distance` of the span.
    fn near(&self, span: Span, distance: Duration) -> usize {
        let first = span.since.checked_sub(distance).unwrap_or(span.since);
        let first = Span { seen: first, since: first.checked_sub(FAR).unwrap_or(first) };
        let last = span.seen + distance;
        let near = self.0.range(first..).filter(|(other, _)| other.since <= last);
        near.map(|(_, count)| count).sum()
    }
}

/// How long it is known who vanished: watches that were out of touch come back one by one.
pub(super) const REMEMBERED: Duration = Duration::from_secs(30);
/// Longer than anything is out of touch.
const FAR: Duration = Duration::from_secs(3600 * 24 * 365);

/// One watch's place in the crowd.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    id: u64,
}

impl Crowd {
    /// A crowd of nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// `all`: the watch sees every service.
    pub(super) fn join(&self, all: bool) -> Place {
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        state.watched.insert(id, Watched { all, ..Watched::default() });
        Place { crowd: self.clone(), id }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What happened before that time is of no interest any more.
    fn forget_before(&mut self, time: Instant) {
        while self.order.front().is_some_and(|(span, _)| span.seen < time) {
            let Some((span, key)) = self.order.pop_front() else { return };
            if self.vanished.get(&key) == Some(&span) {
                self.forget(&key);
            }
        }
    }

    fn forget(&mut self, key: &InstanceKey) {
        let Some(span) = self.vanished.remove(key) else { return };
        self.all.remove(span);
        if let Some(spans) = self.services.get_mut(&key.service) {
            spans.remove(span);
            if spans.0.is_empty() {
                self.services.remove(&key.service);
            }
        }
    }
}

impl Place {
    /// The watch has so many instances in its set.
    pub(super) fn has(&self, instances: usize) {
        if let Some(watched) = self.crowd.lock().watched.get_mut(&self.id) {
            watched.instances = instances;
        }
    }

    /// The key vanished unannounced, and may have company for that long.
    pub(super) fn vanished(&self, key: &InstanceKey, span: Span, company: Duration) {
        let mut state = self.crowd.lock();
        if let Some(before) = span.seen.checked_sub(company + REMEMBERED) {
            state.forget_before(before);
        }
        state.forget(key);
        state.order.push_back((span, key.clone()));
        state.vanished.insert(key.clone(), span);
        state.all.add(span);
        state.services.entry(key.service.clone()).or_default().add(span);
    }

    /// The watch has lost touch with its source, or has it again.
    pub(super) fn is_lost(&self, lost: bool) {
        if let Some(watched) = self.crowd.lock().watched.get_mut(&self.id) {
            watched.lost = lost;
        }
    }

    /// Whether a watch of the registry is out of touch.
    pub(super) fn any_is_lost(&self) -> bool {
        self.crowd.lock().watched.values().any(|watched| watched.lost)
    }

    /// Whether a key of a service with `instances` that vanished in that span was one of many.
    pub(super) fn is_mass(
        &self,
        rules: &Stabilise,
        service: &ServiceName,
        instances: usize,
        span: Span,
    ) -> bool {
        let state = self.crowd.lock();
        let of_service =
            state.services.get(service).map_or(0, |spans| spans.near(span, rules.company));
        let of_all = state.all.near(span, rules.company);
        // Who watches everything knows best how many there are.
        let watched = || state.watched.values();
        let all = watched().filter(|watched| watched.all).map(|watched| watched.instances).max();
        let all = all.unwrap_or_else(|| watched().map(|watched| watched.instances).sum());
        let mass = |vanished: usize, of: usize| {
            vanished >= rules.least
                && vanished.saturating_mul(100) > of.saturating_mul(rules.percent.into())
        };
        mass(of_service, instances) || mass(of_all, all)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().watched.remove(&self.id);
    }
}
