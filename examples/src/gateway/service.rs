//! One service as the gateway has it: its instances, its balancer, and what its requests share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use discovery_core::{
    Instance, InstanceChanges, InstanceId, InstanceKey, Publisher, ServiceName, Update,
};
use discovery_tower::balance::{Builder, CallError, LeastPending, Limits, PeakEwma};
use discovery_tower::http::pool::{PooledBody, PooledMaker};
use discovery_tower::http::{Http, Replay, Retried, RetryLayer, Tracked};
use http::{Request, Response};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Layer as _;
use tower::util::BoxCloneSyncService;

use super::metrics::ServiceMetrics;
use super::options::Policy;

/// The body of what is forwarded: what a client sends, or nothing.
pub(super) type SendBody = Either<Incoming, Empty<Bytes>>;

/// The body of what comes back.
pub(super) type Answered = Tracked<PooledBody, InstanceKey>;

/// Sends requests to instances, again and elsewhere as far as that is allowed.
pub(super) type Sender =
    BoxCloneSyncService<Request<SendBody>, Response<Answered>, CallError<InstanceKey>>;

/// How all services reach their instances.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) maker: PooledMaker<Replay<SendBody>>,
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    pub(super) retries: u32,
}

/// See the module.
pub(super) struct Service {
    pub(super) name: ServiceName,
    pub(super) metrics: ServiceMetrics,
    set: Mutex<Set>,
    reach: Reach,
    /// Made when the first request comes.
    sender: OnceLock<Sender>,
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
        Self { name, metrics, set: Mutex::new(set), reach, sender: OnceLock::new() }
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
    pub(super) fn sender(&self) -> Sender {
        let make = || {
            let changes = self.lock().offered.subscribe();
            self.reach.sender(changes, &self.name, self.metrics.clone())
        };
        self.sender.get_or_init(make).clone()
    }

    /// Changes the instances; returns how many there are then.
    pub(super) fn apply(&self, batch: Vec<Update<InstanceKey, Arc<Instance>>>) -> usize {
        self.lock().apply(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn apply(&mut self, batch: Vec<Update<InstanceKey, Arc<Instance>>>) -> usize {
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
        self.offered.apply(batch, None);
        match (self.instances.is_empty(), self.empty_since) {
            (true, None) => self.empty_since = Some(Instant::now()),
            (false, Some(_)) => self.empty_since = None,
            _ => {}
        }
        self.instances.len()
    }
}

impl Reach {
    fn sender(
        &self,
        changes: InstanceChanges,
        name: &ServiceName,
        metrics: ServiceMetrics,
    ) -> Sender {
        let retry = RetryLayer::new(self.retries).observed_by(move |retried| match retried {
            Retried::Again => metrics.retried(),
            Retried::Refused => metrics.refused(),
            _ => {}
        });
        let status = changes.status();
        let balance = Builder::new(changes, self.maker.clone())
            .protocol(Http::new())
            .named(name.as_str())
            .status(status)
            .limits(self.limits);
        match self.policy {
            Policy::P2c | Policy::PeakEwma => {
                Sender::new(retry.layer(balance.policy(PeakEwma::new()).spawn()))
            }
            Policy::LeastPending => {
                Sender::new(retry.layer(balance.policy(LeastPending::new()).spawn()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_since_when_it_is_empty() {
        let mut set =
            Set { instances: BTreeMap::new(), offered: Publisher::new(), empty_since: None };
        let instance = Instance::parse("a", "1", "http://127.0.0.1:1").unwrap();
        let insert = Update::Insert(instance.key(), Arc::new(instance));
        assert_eq!(set.apply(vec![insert]), 1);
        assert!(set.empty_since.is_none());
        let key = InstanceKey::new("a".parse().unwrap(), "1".parse().unwrap());
        assert_eq!(set.apply(vec![Update::Remove(key)]), 0);
        let since = set.empty_since.unwrap();
        set.apply(Vec::new());
        assert_eq!(set.empty_since, Some(since));
    }
}
