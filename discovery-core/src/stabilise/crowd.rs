//! Who vanished lately, over all watches of one registry: services of a single instance are covered
//! only if they are looked at together.

use std::collections::HashMap;
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
}

#[derive(Debug, Default)]
struct Watched {
    all: bool,
    instances: usize,
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

impl Place {
    /// The watch has so many instances in its set.
    pub(super) fn has(&self, instances: usize) {
        if let Some(watched) = self.crowd.lock().watched.get_mut(&self.id) {
            watched.instances = instances;
        }
    }

    /// The key vanished unannounced. What happened before `forget` is of no interest any more.
    pub(super) fn vanished(&self, key: InstanceKey, at: Instant, forget: Option<Instant>) {
        let mut state = self.crowd.lock();
        if let Some(forget) = forget {
            state.vanished.retain(|_, at| *at >= forget);
        }
        state.vanished.insert(key, at);
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
        let near = |time: &Instant| distance(*time, at) <= rules.company;
        let mut of_service = 0;
        let mut of_all = 0;
        for (key, _) in state.vanished.iter().filter(|(_, time)| near(time)) {
            of_all += 1;
            of_service += usize::from(key.service == *service);
        }
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

fn distance(a: Instant, b: Instant) -> Duration {
    a.saturating_duration_since(b).max(b.saturating_duration_since(a))
}
