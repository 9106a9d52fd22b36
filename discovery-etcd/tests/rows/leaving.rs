//! The failure row about leaving while everything is being put right again.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, instance, key};
use discovery_core::Registration;
use discovery_etcd::{EtcdConfig, EtcdRegistry, RegisterOptions};
use discovery_test_support::{
    Direction, Etcd, Proxy, Truth, Version, eventually_eq, long, on_all_versions, slack,
};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep, sleep_until};

/// Registrations that share a net, and so what is done to it.
const TOGETHER: usize = 5;
const NETS: usize = 5;
/// The shortest that etcd grants by default.
const TTL: Duration = Duration::from_secs(2);
/// etcd looks for leases that are over twice a second.
const EXPIRY: Duration = Duration::from_secs(1);

/// Row 7: deregister races with recovery.
#[tokio::test(flavor = "multi_thread")]
async fn row_7_who_leaves_during_a_recovery_is_gone_and_does_not_come_back() {
    let seed: u64 = rand::random();
    let rounds = if long() { 1_000 } else { 50 };
    let waves = rounds / (TOGETHER * NETS);
    on_all_versions(async |version| race(version, seed, waves, false).await).await;
}

/// Row 7, where the lease lives on for others: only a delete takes a key away.
#[tokio::test(flavor = "multi_thread")]
async fn row_7_who_shares_a_lease_and_leaves_during_a_recovery_does_not_come_back_either() {
    let seed: u64 = rand::random();
    let rounds = if long() { 1_000 } else { 50 };
    let waves = rounds / (TOGETHER * NETS);
    on_all_versions(async |version| race(version, seed, waves, true).await).await;
}

/// With `shared` leases, one in each net stays until the end.
async fn race(version: Version, seed: u64, waves: usize, shared: bool) {
    let etcd = Etcd::start(version).await;
    let truth = Truth::new(etcd.client_addr());
    let gone = Gone { truth: &truth, seed, keys: Mutex::default() };
    let nets = (0..NETS).map(async |net| {
        let proxy = Proxy::start(etcd.client_addr());
        let config = EtcdConfig::new([proxy.url()]).ttl(TTL);
        let registry = EtcdRegistry::new(config).unwrap();
        let rng = &mut StdRng::seed_from_u64(seed.wrapping_add(net as u64));
        let register = |id: &str| {
            let options = RegisterOptions::new().share_lease(shared);
            registry.register_with(instance("orders", id, 1), options)
        };
        let stays = shared.then(|| register(&format!("{net}-stays")));
        for wave in 0..waves {
            let ids: Vec<_> = (0..TOGETHER).map(|one| format!("{net}-{wave}-{one}")).collect();
            let registrations: Vec<_> = ids.iter().map(|id| register(id)).collect();
            for registration in registrations.iter().chain(&stays) {
                tokio::time::timeout(slack(NOW_AFTER_OUTAGE), registration.registered())
                    .await
                    .unwrap_or_else(|_| panic!("seed {seed}: {:?}", registration.status()))
                    .unwrap();
            }
            let wave = Wave { truth: &truth, proxy: &proxy, gone: &gone, seed, shared };
            wave.roll(registrations, rng).await;
        }
        (stays, proxy)
    });
    let rounds = async {
        let stay = join_all(nets).await;
        gone.all().await;
        let (stay, ways): (Vec<_>, Vec<_>) = stay.into_iter().unzip();
        for one in stay.into_iter().flatten() {
            one.deregister().await.unwrap();
        }
        ways
    };
    let _ways = tokio::select! {
        ways = rounds => ways,
        never = gone.watch() => match never {},
    };
    assert_eq!(truth.range(PREFIX).await.unwrap(), BTreeMap::new(), "seed {seed}");
    // A shared lease goes after the last of those who used it.
    let within = if shared { NOW } else { Duration::ZERO };
    let leases = async || truth.leases().await.unwrap();
    eventually_eq(within, format!("seed {seed}: leases"), Vec::new(), leases).await;
}

/// Some registrations behind one net, and what happens to them.
struct Wave<'a> {
    truth: &'a Truth,
    proxy: &'a Proxy,
    gone: &'a Gone<'a>,
    seed: u64,
    shared: bool,
}

impl Wave<'_> {
    async fn roll(&self, registrations: Vec<Registration>, rng: &mut StdRng) {
        let start = Instant::now();
        let within = |rng: &mut StdRng, most_ms: u64| {
            start + Duration::from_micros(rng.random_range(0..most_ms * 1_000))
        };
        // Something to put right for each of them when it leaves, or for some the net alone.
        let harms: Vec<_> = registrations.iter().map(|_| rng.random_range(0_u8..5)).collect();
        let fault = rng.random_range(0..8);
        // The outage is over before the deadline, or after it; or it is longer than the leases live, and
        // the recovery comes behind it.
        let outage = rng.random_range(0..4);
        let (cut, pass) = match outage {
            0 | 1 => (within(rng, 10), within(rng, 1_500)),
            2 => (within(rng, 10), start + Registration::DEREGISTER_WITHIN + EXPIRY / 2),
            _ => (start, start + TTL + EXPIRY),
        };
        let moments: Vec<_> = registrations
            .iter()
            .map(|_| match outage {
                3 => pass - start + Duration::from_micros(rng.random_range(0..1_000_000)),
                _ if rng.random_bool(0.7) => Duration::from_micros(rng.random_range(0..8_000)),
                _ => Duration::from_micros(rng.random_range(0..60_000)),
            })
            .collect();
        let net = async {
            sleep_until(cut).await;
            let proxy = self.proxy;
            match fault {
                0 => proxy.cut_once(),
                1 => proxy.reset_once(),
                2 => proxy.cut(),
                3 => proxy.refuse(),
                4 => proxy.black_hole(),
                5 => proxy.black_hole_one_way(Direction::ToClient),
                6 => proxy.hold(Direction::ToServer),
                _ => proxy.hold(Direction::ToClient),
            }
            sleep_until(pass).await;
            proxy.pass();
            Instant::now()
        };
        let cases = registrations.into_iter().zip(harms).zip(moments);
        let leaving = cases.map(async |((registration, harm), moment)| {
            let id = registration.key().id.to_string();
            self.harm(&id, harm).await;
            let at = Instant::now() + moment;
            sleep_until(at).await;
            let left = registration.deregister().await;
            let most = Registration::DEREGISTER_WITHIN + Duration::from_secs(1);
            assert!(at.elapsed() < slack(most), "seed {}: {:?}", self.seed, at.elapsed());
            if left.is_ok() {
                self.gone.promise(&id, Instant::now());
            }
            (id, left)
        });
        let (passed, left) = futures::join!(net, join_all(leaving));
        // Who could not be sure is gone once etcd is in reach and the lease's time is over.
        for (id, left) in left {
            let Err(error) = left else { continue };
            // A shared lease may have been renewed at the very end.
            let most = if self.shared { TTL + EXPIRY } else { TTL };
            assert!(error.gone_within.is_none_or(|time| time <= most), "{id}: {error}");
            self.gone.promise(&id, passed.max(Instant::now()) + slack(TTL + EXPIRY));
        }
    }

    async fn harm(&self, id: &str, harm: u8) {
        let key = key("orders", id);
        match harm {
            0 => drop(self.truth.delete(key).await.unwrap()),
            1..4 => {
                if let Some(kv) = self.truth.get(key).await.unwrap() {
                    // It may have gone by itself in between.
                    self.truth.revoke(kv.lease).await.ok();
                }
            }
            _ => {} // the net is enough
        }
    }
}

/// Who must not be in etcd any more, and from when on.
struct Gone<'a> {
    truth: &'a Truth,
    seed: u64,
    keys: Mutex<BTreeMap<Vec<u8>, Instant>>,
}

impl Gone<'_> {
    fn promise(&self, id: &str, from: Instant) {
        self.keys.lock().unwrap().insert(key("orders", id).into_bytes(), from);
    }

    /// Looks all the time.
    async fn watch(&self) -> std::convert::Infallible {
        loop {
            let now = Instant::now();
            let mut there = self.truth.range(PREFIX).await.unwrap();
            {
                let keys = self.keys.lock().unwrap();
                there.retain(|key, _| keys.get(key).is_some_and(|from| *from <= now));
            }
            assert!(there.is_empty(), "seed {}: still there or back again: {there:?}", self.seed);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the last of them to have gone.
    async fn all(&self) {
        let last = self.keys.lock().unwrap().values().max().copied();
        sleep_until(last.unwrap_or_else(Instant::now) + TTL).await;
    }
}
