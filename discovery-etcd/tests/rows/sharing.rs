//! Registrations that share a lease, against real etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, instance, key, value};
use discovery_core::{Registrar as _, Registration, RegistrationState};
use discovery_etcd::{EtcdConfig, EtcdRegistry, OnConflict, RegisterOptions};
use discovery_test_support::{
    Etcd, Kv, Proxy, Truth, Version, eventually, eventually_eq, on_all_versions, on_each_version,
    slack,
};
use futures::future::{join_all, try_join_all};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};

const MANY: u16 = 100;
const TTL: Duration = Duration::from_secs(3);
/// etcd looks for leases that are over twice a second.
const EXPIRY: Duration = Duration::from_secs(1);

/// What a second is enough for is not done while the other tests use the machine.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// One etcd, and a registry that reaches it by a way of its own.
struct Site {
    etcd: Etcd,
    truth: Truth,
    proxy: Proxy,
    registry: EtcdRegistry,
}

impl Site {
    async fn start(version: Version) -> Self {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let proxy = Proxy::start(etcd.client_addr());
        let config = EtcdConfig::new([proxy.url()]).ttl(TTL).suspects_for(Duration::ZERO);
        Self { truth, registry: EtcdRegistry::new(config).unwrap(), proxy, etcd }
    }

    fn share(&self, id: u16) -> Registration {
        self.registry.register_with(instance("orders", &id.to_string(), id), shared())
    }

    async fn many(&self) -> Vec<Registration> {
        let all: Vec<_> = (1..=MANY).map(|id| self.share(id)).collect();
        registered(&all, NOW_AFTER_OUTAGE).await;
        all
    }

    async fn entries(&self) -> BTreeMap<Vec<u8>, Kv> {
        self.truth.range(PREFIX).await.unwrap()
    }

    async fn get(&self, id: u16) -> Option<Kv> {
        self.truth.get(key("orders", &id.to_string())).await.unwrap()
    }

    async fn leases(&self) -> Vec<i64> {
        self.truth.leases().await.unwrap()
    }

    /// Waits until there are exactly these keys, all of them under the only lease there is; which one.
    async fn settled(&self, ids: impl IntoIterator<Item = u16>, within: Duration) -> i64 {
        let expected: BTreeSet<_> =
            ids.into_iter().map(|id| key("orders", &id.to_string()).into_bytes()).collect();
        eventually(within, "all under one lease", async || {
            let leases = self.truth.leases().await.map_err(|error| error.to_string())?;
            let [lease] = leases[..] else { return Err(format!("{} leases", leases.len())) };
            let found = self.truth.lease(lease).await.map_err(|error| error.to_string())?;
            let keys: BTreeSet<_> = found.into_iter().flat_map(|lease| lease.keys).collect();
            let all = self.entries().await.len();
            let fits = keys == expected && all == expected.len();
            if fits { Ok(lease) } else { Err(format!("{} keys, {all} in all", keys.len())) }
        })
        .await
    }
}

fn shared() -> RegisterOptions {
    RegisterOptions::new().share_lease(true)
}

async fn registered(all: &[Registration], within: Duration) {
    let each = all.iter().map(async |registration| {
        tokio::time::timeout(slack(within), registration.registered())
            .await
            .unwrap_or_else(|_| panic!("not registered: {:?}", registration.status()))
            .unwrap();
    });
    join_all(each).await;
}

fn move_to(registration: &Registration, port: u16) {
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    registration.update(|instance| instance.address = address).unwrap();
}

fn says(kv: &Kv, port: u16) -> bool {
    String::from_utf8_lossy(&kv.value).contains(&format!("127.0.0.1:{port}\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_share_one_lease_and_one_connection_until_the_last_has_left() {
    let _shared = MACHINE.read().await;
    on_all_versions(async |version| {
        let site = Site::start(version).await;
        let mut all = site.many().await;
        let lease = site.settled(1..=MANY, NOW).await;
        assert_eq!((site.proxy.accepted(), site.proxy.open()), (1, 1), "connections");

        for registration in &all {
            move_to(registration, 1_000);
        }
        registered(&all, NOW).await;
        assert_eq!(site.settled(1..=MANY, NOW).await, lease);
        let before = site.entries().await;
        assert!(before.values().all(|kv| says(kv, 1_000) && kv.lease == lease));

        let leaver = all.swap_remove(6);
        leaver.deregister().await.unwrap();
        assert_eq!(site.get(7).await, None);
        let mut others = before;
        others.remove(key("orders", "7").as_bytes()).unwrap();
        let until = Instant::now() + TTL + EXPIRY;
        while Instant::now() < until {
            // Nothing is put again, either: the entries have their revisions.
            assert_eq!(site.entries().await, others);
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(site.leases().await, [lease]);

        let last = all.pop().unwrap();
        try_join_all(all.into_iter().map(Registration::deregister)).await.unwrap();
        assert_eq!(site.entries().await.len(), 1);
        assert_eq!(site.leases().await, [lease], "somebody needs it");
        last.deregister().await.unwrap();
        assert_eq!(site.entries().await, BTreeMap::new());
        eventually_eq(NOW, "leases", vec![], async || site.leases().await).await;
        assert_eq!(site.proxy.accepted(), 1, "connections");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_lease_that_is_revoked_is_replaced_by_one_and_all_are_back() {
    let _alone = MACHINE.write().await;
    on_each_version(async |version| {
        let site = Site::start(version).await;
        let all = site.many().await;
        let mut lease = site.settled(1..=MANY, NOW).await;
        for _ in 0..3 {
            site.truth.revoke(lease).await.unwrap();
            let back = async || site.entries().await.len();
            eventually_eq(NOW, "keys", usize::from(MANY), back).await;
            let next = site.settled(1..=MANY, NOW).await;
            assert_ne!(std::mem::replace(&mut lease, next), next);
            registered(&all, NOW).await;
        }
        assert_eq!(site.proxy.accepted(), 1, "connections");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_back_after_an_outage_longer_than_the_lease() {
    let _shared = MACHINE.read().await;
    on_all_versions(async |version| {
        let site = Site::start(version).await;
        let all = site.many().await;
        let first = site.settled(1..=MANY, NOW).await;
        let unsure = async || {
            let is_sure =
                |one: &&Registration| matches!(one.status().state, RegistrationState::Registered);
            all.iter().filter(is_sure).count()
        };

        // etcd dies. Leases do not grow older while it is dead.
        site.etcd.kill();
        eventually_eq(TTL + EXPIRY, "sure to be registered", 0, unsure).await;
        sleep(EXPIRY).await;
        site.etcd.restart().await;
        registered(&all, NOW_AFTER_OUTAGE).await;
        site.settled(1..=MANY, NOW_AFTER_OUTAGE).await;

        // The net fails, and they do.
        site.proxy.black_hole();
        eventually_eq(TTL + 2 * EXPIRY, "leases", vec![], async || site.leases().await).await;
        assert_eq!(site.entries().await, BTreeMap::new());
        eventually_eq(NOW, "sure to be registered", 0, unsure).await;
        site.proxy.pass();
        registered(&all, NOW_AFTER_OUTAGE).await;
        assert_ne!(site.settled(1..=MANY, NOW_AFTER_OUTAGE).await, first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_come_through_connections_that_are_cut() {
    let _shared = MACHINE.read().await;
    on_all_versions(async |version| {
        let site = Site::start(version).await;
        let all = site.many().await;
        let lease = site.settled(1..=MANY, NOW).await;
        for round in 1..=10_u16 {
            let half = all.len() / 2;
            all[..half].iter().for_each(|one| move_to(one, 1_000 + round));
            sleep(Duration::from_millis(u64::from(round))).await; // among the answers
            site.proxy.cut_once();
            all[half..].iter().for_each(|one| move_to(one, 1_000 + round));
            registered(&all, NOW_AFTER_OUTAGE).await;
            let entries = site.entries().await;
            let right = entries.values().filter(|kv| says(kv, 1_000 + round)).count();
            assert_eq!((right, entries.len()), (all.len(), all.len()), "round {round}");
        }
        assert_eq!(site.settled(1..=MANY, NOW).await, lease, "it never was in danger");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_id_is_a_conflict_and_no_concern_of_those_who_share() {
    let _shared = MACHINE.read().await;
    on_all_versions(async |version| {
        let site = Site::start(version).await;
        site.truth.put(key("orders", "1"), value(9)).await.unwrap();
        let others: Vec<_> = (2..=5).map(|id| site.share(id)).collect();
        registered(&others, NOW).await;
        let fails = shared().on_conflict(OnConflict::Fail);
        let fails = site.registry.register_with(instance("orders", "1", 1), fails);
        let error = tokio::time::timeout(slack(NOW), fails.registered()).await.unwrap();
        assert_eq!(error.unwrap_err().to_string(), "orders/1 is held by http://127.0.0.1:9");
        let waits = site.share(1);
        let conflict = async || match waits.status().state {
            RegistrationState::Conflict(conflict) => Ok(conflict.to_string()),
            other => Err(other),
        };
        let held = eventually(NOW, "the conflict", conflict).await;
        assert_eq!(held, "orders/1 is held by http://127.0.0.1:9");
        assert!(says(&site.get(1).await.unwrap(), 9));

        site.truth.delete(key("orders", "1")).await.unwrap();
        registered(std::slice::from_ref(&waits), NOW).await;
        let lease = site.settled(1..=5, NOW).await;

        // Somebody takes it from us, who stand under the shared lease.
        site.truth.put(key("orders", "1"), value(8)).await.unwrap();
        eventually(NOW, "the conflict", conflict).await;
        waits.deregister().await.unwrap();
        fails.deregister().await.unwrap();
        assert!(says(&site.get(1).await.unwrap(), 8), "it was not ours");
        registered(&others, NOW).await;
        assert_eq!(site.leases().await, [lease]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_time_to_live_has_a_lease_of_its_own() {
    let _shared = MACHINE.read().await;
    on_all_versions(async |version| {
        let site = Site::start(version).await;
        let short: Vec<_> = (1..=5).map(|id| site.share(id)).collect();
        let long = |id: u16| {
            // As written and as rounded up to it.
            let ttl = Duration::from_millis(if id.is_multiple_of(2) { 20_000 } else { 19_500 });
            site.registry.register_with(instance("orders", &id.to_string(), id), shared().ttl(ttl))
        };
        let long: Vec<_> = (6..=10).map(long).collect();
        registered(&short, NOW).await;
        registered(&long, NOW).await;
        let leases = async || {
            let mut found = Vec::new();
            for id in site.leases().await {
                let lease = site.truth.lease(id).await.unwrap();
                found.extend(lease.map(|lease| (lease.granted, lease.keys.len())));
            }
            found.sort_unstable();
            found
        };
        eventually_eq(NOW, "times to live and keys", vec![(3, 5), (20, 5)], leases).await;
        drop(long);
        eventually_eq(NOW, "times to live and keys", vec![(3, 5)], leases).await;
        registered(&short, NOW).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_dropped_goes_and_leaves_the_lease_to_those_who_stay() {
    let _shared = MACHINE.read().await;
    on_all_versions(async |version| {
        let site = Site::start(version).await;
        let mut all: Vec<_> = (1..=10).map(|id| site.share(id)).collect();
        registered(&all, NOW).await;
        let lease = site.settled(1..=10, NOW).await;
        all.truncate(4);
        assert_eq!(site.settled(1..=4, NOW).await, lease);
        // One that comes back is a new registration under the same lease.
        all.push(site.share(9));
        registered(&all, NOW).await;
        assert_eq!(site.settled([1, 2, 3, 4, 9], NOW).await, lease);
        drop(all);
        eventually_eq(NOW, "leases", vec![], async || site.leases().await).await;
        assert_eq!(site.entries().await, BTreeMap::new());

        // The registry is as good as new.
        let again = site.share(1);
        registered(std::slice::from_ref(&again), NOW).await;
        assert_ne!(site.settled([1], NOW).await, lease);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_leases_and_a_shared_one_do_not_concern_each_other() {
    let _shared = MACHINE.read().await;
    on_all_versions(async |version| {
        let site = Site::start(version).await;
        let sharing: Vec<_> = (1..=5).map(|id| site.share(id)).collect();
        let own = |id: u16| site.registry.register(instance("orders", &id.to_string(), id));
        let mut own: Vec<_> = (6..=10).map(own).collect();
        registered(&sharing, NOW).await;
        registered(&own, NOW).await;
        let count = async || site.leases().await.len();
        eventually_eq(NOW, "leases", 6, count).await;
        let of = |entries: &BTreeMap<Vec<u8>, Kv>, ids: [u16; 5]| {
            ids.map(|id| entries.get(key("orders", &id.to_string()).as_bytes()).cloned())
        };
        let before = site.entries().await;
        let lease = site.get(1).await.unwrap().lease;
        assert!(of(&before, [1, 2, 3, 4, 5]).iter().flatten().all(|kv| kv.lease == lease));
        assert!(of(&before, [6, 7, 8, 9, 10]).iter().flatten().all(|kv| kv.lease != lease));

        site.truth.revoke(lease).await.unwrap();
        eventually_eq(NOW, "keys", 10, async || site.entries().await.len()).await;
        eventually_eq(NOW, "leases", 6, count).await;
        let after = site.entries().await;
        assert_eq!(of(&after, [6, 7, 8, 9, 10]), of(&before, [6, 7, 8, 9, 10]));

        // An own lease is lost.
        site.truth.revoke(site.get(6).await.unwrap().lease).await.unwrap();
        eventually(NOW, "it is back", async || site.get(6).await).await;
        let leaver = own.pop().unwrap();
        leaver.deregister().await.unwrap();
        eventually_eq(NOW, "leases", 5, count).await;
        let later = site.entries().await;
        assert_eq!(of(&later, [1, 2, 3, 4, 5]), of(&after, [1, 2, 3, 4, 5]));
        drop(sharing);
        eventually_eq(NOW, "leases", 4, count).await;
        assert_eq!(site.entries().await.len(), 4);
    })
    .await;
}
