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
    vanished: HashMap<InstanceKey, Instant>,
    /// The same in the order of time, to forget by. A key that vanished again is in it twice.
    order: VecDeque<(Instant, InstanceKey)>,
    /// How many of them vanished when, of all services and of each, so that judging one of a crowd
    /// does not look at all of it.
    all: Times,
    services: HashMap<ServiceName, Times>,
}

#[derive(Debug, Default)]
struct Watched {
    all: bool,
    instances: usize,
}

/// How many happened at each time.
#[derive(Debug, Default)]
struct Times(BTreeMap<Instant, usize>);

impl Times {
    fn add(&mut self, at: Instant) {
        *self.0.entry(at).or_default() += 1;
    }

    fn remove(&mut self, at: Instant) {
        if let Some(count) = self.0.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&at);
            }
        }
    }

    /// How many happened within `distance` of `at`.
    fn near(&self, at: Instant, distance: Duration) -> usize {
        let from = at.checked_sub(distance).unwrap_or(at);
        self.0.range(from..=at + distance).map(|(_, count)| count).sum()
    }
}

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
        state.watched.insert(id, Watched { all, instances: 0 });
        Place { crowd: self.clone(), id }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What happened before that time is of no interest any more.
    fn forget_before(&mut self, time: Instant) {
        while self.order.front().is_some_and(|(at, _)| *at < time) {
            let Some((at, key)) = self.order.pop_front() else { return };
            if self.vanished.get(&key) == Some(&at) {
                self.forget(&key);
            }
        }
    }

    fn forget(&mut self, key: &InstanceKey) {
        let Some(at) = self.vanished.remove(key) else { return };
        self.all.remove(at);
        if let Some(times) = self.services.get_mut(&key.service) {
            times.remove(at);
            if times.0.is_empty() {
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
    pub(super) fn vanished(&self, key: &InstanceKey, at: Instant, company: Duration) {
        let mut state = self.crowd.lock();
        if let Some(before) = at.checked_sub(company * 3) {
            state.forget_before(before);
        }
        state.forget(key);
        state.order.push_back((at, key.clone()));
        state.vanished.insert(key.clone(), at);
        state.all.add(at);
        state.services.entry(key.service.clone()).or_default().add(at);
    }

    /// Whether a key of a service with `instances` that vanished `at` that time was one of many.
    pub(super) fn is_mass(
        &self,
        rules: &Stabilise,
        service: &ServiceName,
        instances: usize,
        at: Instant,
    ) -> bool {
        let state = self.crowd.lock();
        let of_service =
            state.services.get(service).map_or(0, |times| times.near(at, rules.company));
        let of_all = state.all.near(at, rules.company);
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
