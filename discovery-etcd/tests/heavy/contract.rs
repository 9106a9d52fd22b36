//! The contract test kit on etcd: every law of a change stream, and a random history, with a faulty
//! network between the source and a real etcd.

use std::time::Duration;

use crate::support::{instance, instance_key, key, registry, value};
use discovery_core::testkit::{self, Faults, Subject};
use discovery_core::{
    Changes, Instance, InstanceKey, ServiceName, Source as _, StatusReader, Update,
};
use discovery_etcd::EtcdRegistry;
use discovery_test_support::{Etcd, Op, Proxy, Truth, Version, eventually, long, on_each_version};

struct OverEtcd {
    truth: Truth,
    proxy: Proxy,
    registry: EtcdRegistry,
    /// `None`: all services.
    service: Option<ServiceName>,
    /// The status of a reader that is kept, to wait by.
    kept: Changes<InstanceKey, Instance>,
    // Last: everything else goes before etcd does.
    _etcd: Etcd,
}

impl OverEtcd {
    async fn start(version: Version, all: bool) -> Self {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        let registry = registry(proxy.url());
        let service = (!all).then(|| "orders".parse().unwrap());
        let kept = open(&registry, service.as_ref());
        kept.status().loaded().await.unwrap();
        let truth = Truth::new(etcd.client_addr());
        Self { truth, proxy, registry, service, kept, _etcd: etcd }
    }

    async fn until(&self, what: &str, fresh: bool) {
        eventually(crate::support::NOW_AFTER_OUTAGE, what, async || {
            self.kept.status().get().is_fresh() == fresh
        })
        .await;
    }
}

fn open(registry: &EtcdRegistry, service: Option<&ServiceName>) -> Changes<InstanceKey, Instance> {
    match service {
        Some(service) => registry.watch(service),
        None => registry.watch_all(),
    }
}

impl Subject for OverEtcd {
    type Key = InstanceKey;
    type Endpoint = Instance;
    type Reader = Changes<InstanceKey, Instance>;

    fn key(&self, number: u16) -> InstanceKey {
        // In a watch of all services, keys of several.
        let service = if self.service.is_none() && number % 2 == 1 { "users" } else { "orders" };
        instance_key(service, &number.to_string())
    }

    fn endpoint(&self, key: u16, version: u16) -> Instance {
        let key = self.key(key);
        instance(key.service.as_str(), key.id.as_str(), version + 1)
    }

    fn open(&mut self) -> Self::Reader {
        open(&self.registry, self.service.as_ref())
    }

    async fn apply(&mut self, batch: Vec<Update<InstanceKey, Instance>>) {
        let ops = batch.into_iter().map(|update| match update {
            Update::Insert(k, endpoint) => Op::put(
                key(k.service.as_str(), k.id.as_str()),
                value(endpoint.address.port().unwrap()),
            ),
            Update::Remove(k) => Op::delete(key(k.service.as_str(), k.id.as_str())),
            other => panic!("{other:?}"),
        });
        let ops: Vec<_> = ops.collect();
        if !ops.is_empty() {
            self.truth.txn(ops).await.unwrap();
        }
    }

    fn status(&self, reader: &Self::Reader) -> Option<StatusReader> {
        Some(reader.status())
    }

    fn settles_within(&self) -> Option<Duration> {
        Some(discovery_test_support::slack(crate::support::NOW_AFTER_OUTAGE))
    }

    fn faults(&self) -> Faults {
        Faults::Changing
    }

    async fn fail(&mut self) {
        self.proxy.refuse();
        self.until("stale", false).await;
    }

    async fn recover(&mut self) {
        // What happened meanwhile cannot be read from history.
        let head = self.truth.revision().await.unwrap();
        let _ = self.truth.compact(head, true).await;
        self.proxy.pass();
        self.until("fresh", true).await;
    }

    fn can_close(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        self.registry.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_the_laws_for_one_service() {
    on_each_version(async |version| testkit::check(OverEtcd::start(version, false).await).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_the_laws_for_all_services() {
    on_each_version(async |version| testkit::check(OverEtcd::start(version, true).await).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_history_through_etcd() {
    on_each_version(async |version| {
        let steps = if long() { 20_000 } else { 300 };
        let seed = rand::random();
        testkit::random_history(OverEtcd::start(version, true).await, seed, steps).await;
    })
    .await;
}
