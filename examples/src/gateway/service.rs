//! One service as the gateway has it: its instances, its balancer, and what its requests share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use discovery_core::{
    Instance, InstanceId, InstanceKey, InstanceStatus, Publisher, ServiceName, Update,
};
use discovery_tower::{HttpMaker, LoadMeasure};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::retry::budget::TpsBudget;

use super::asked::{InstanceBalance, balance};
use super::body::Outgoing;
use super::metrics::ServiceMetrics;
use super::resting::Resting;
use super::retry;

/// The body of what is forwarded.
pub(super) type SendBody = Outgoing<Incoming>;

/// How all services reach their instances.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) maker: HttpMaker<SendBody>,
    pub(super) measure: LoadMeasure,
}

/// See the module.
pub(super) struct Service {
    pub(super) name: ServiceName,
    pub(super) budget: TpsBudget,
    pub(super) resting: Resting,
    pub(super) metrics: ServiceMetrics,
    set: Mutex<Set>,
    reach: Reach,
    /// Made when the first request comes.
    balance: OnceLock<InstanceBalance>,
}

struct Set {
    instances: BTreeMap<InstanceId, Arc<Instance>>,
    /// What the balancer is told.
    offered: Publisher<InstanceKey, Instance>,
    /// Since when there has been no instance.
    empty_since: Option<Instant>,
}

impl Service {
    pub(super) fn new(name: ServiceName, reach: Reach, metrics: ServiceMetrics) -> Self {
        let mut offered = Publisher::new();
        offered.fresh();
        let set = Set { instances: BTreeMap::new(), offered, empty_since: Some(Instant::now()) };
        Self {
            name,
            budget: retry::budget(),
            resting: Resting::default(),
            metrics,
            set: Mutex::new(set),
            reach,
            balance: OnceLock::new(),
        }
    }

    /// The instances now, by their ids.
    pub(super) fn instances(&self) -> Vec<Arc<Instance>> {
        self.lock().instances.values().cloned().collect()
    }

    /// Since when there has been no instance, if there is none.
    pub(super) fn empty_since(&self) -> Option<Instant> {
        self.lock().empty_since
    }

    /// The balancer over the instances.
    pub(super) fn balance(&self) -> InstanceBalance {
        let make = || {
            let changes = self.lock().offered.subscribe();
            balance(changes, self.reach.maker.clone(), self.reach.measure).named(&self.name)
        };
        self.balance.get_or_init(make).clone()
    }

    /// Changes the instances; returns how many there are then.
    pub(super) fn apply(&self, batch: Vec<Update<InstanceKey, Arc<Instance>>>) -> usize {
        let mut set = self.lock();
        let count = set.apply(batch);
        self.resting.only_suspects(|key| set.is_suspect(key));
        count
    }

    /// An instance failed. A suspect is out then, for as long as it is one; another instance rests if
    /// it is `out_of_reach`.
    pub(super) fn failed(&self, key: &InstanceKey, out_of_reach: bool) {
        // Held until it is noted, so that no change of the instance comes in between.
        let set = self.lock();
        if set.is_suspect(key) {
            tracing::debug!(instance = %key, "a suspect failed: it rests");
            self.resting.add_suspect(key);
        } else if out_of_reach {
            self.resting.add(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn apply(&mut self, batch: Vec<Update<InstanceKey, Arc<Instance>>>) -> usize {
        let wanted_before = self.instances.values().any(|instance| is_wanted(instance));
        for update in &batch {
            match update {
                Update::Insert(key, instance) => {
                    self.instances.insert(key.id.clone(), instance.clone());
                }
                Update::Remove(key) => {
                    self.instances.remove(&key.id);
                }
                _ => {}
            }
        }
        let wanted = self.instances.values().any(|instance| is_wanted(instance));
        if wanted && wanted_before {
            self.offered.apply(batch, None);
        } else {
            // When all want to go, it is better to ask one of those than nobody: they still serve.
            let last = (!wanted).then_some(InstanceStatus::Draining);
            let set = self.instances.values().map(|instance| offer(instance, last));
            self.offered.replace(set, None);
        }
        match (self.instances.is_empty(), self.empty_since) {
            (true, None) => self.empty_since = Some(Instant::now()),
            (false, Some(_)) => self.empty_since = None,
            _ => {}
        }
        self.instances.len()
    }

    fn is_suspect(&self, key: &InstanceKey) -> bool {
        self.instances.get(&key.id).is_some_and(|instance| instance.suspect)
    }
}

/// Whether the balancer gives it requests.
pub(super) fn is_wanted(instance: &Instance) -> bool {
    instance.status == InstanceStatus::Up && instance.weight.get() > 0
}

/// The instance as the balancer is told of it: one with the status `last` counts as up.
fn offer(instance: &Arc<Instance>, last: Option<InstanceStatus>) -> (InstanceKey, Arc<Instance>) {
    let key = instance.key();
    if last != Some(instance.status) {
        return (key, instance.clone());
    }
    let mut up = (**instance).clone();
    up.status = InstanceStatus::Up;
    (key, Arc::new(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, status: InstanceStatus) -> Update<InstanceKey, Arc<Instance>> {
        let mut instance = Instance::parse("a", id, "http://127.0.0.1:1").unwrap();
        instance.status = status;
        Update::Insert(instance.key(), Arc::new(instance))
    }

    fn set() -> Set {
        Set { instances: BTreeMap::new(), offered: Publisher::new(), empty_since: None }
    }

    /// The ids of those that the balancer gives requests.
    fn wanted(set: &Set) -> String {
        let offered = set.offered.snapshot().into_iter();
        let wanted = offered.filter(|(_, instance)| is_wanted(instance));
        let mut ids: Vec<_> = wanted.map(|(key, _)| key.id.to_string()).collect();
        ids.sort();
        ids.join(" ")
    }

    #[test]
    fn one_that_is_draining_is_asked_only_when_there_is_no_other() {
        use InstanceStatus::{Draining, Starting, Up};
        let mut set = set();
        set.apply(vec![instance("1", Up), instance("2", Up), instance("3", Starting)]);
        assert_eq!(wanted(&set), "1 2");
        set.apply(vec![instance("1", Draining)]);
        assert_eq!(wanted(&set), "2");
        set.apply(vec![instance("2", Draining)]);
        assert_eq!(wanted(&set), "1 2");
        set.apply(vec![instance("3", Up)]);
        assert_eq!(wanted(&set), "3");
        assert_eq!(set.instances.len(), 3);
    }

    #[test]
    fn it_is_known_since_when_it_is_empty() {
        let mut set = set();
        assert_eq!(set.apply(vec![instance("1", InstanceStatus::Up)]), 1);
        assert!(set.empty_since.is_none());
        let key = InstanceKey::new("a".parse().unwrap(), "1".parse().unwrap());
        assert_eq!(set.apply(vec![Update::Remove(key)]), 0);
        let since = set.empty_since.unwrap();
        set.apply(Vec::new());
        assert_eq!(set.empty_since, Some(since));
        assert_eq!(wanted(&set), "");
    }
}
