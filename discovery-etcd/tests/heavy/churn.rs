//! The failure rows about coming and going, and about an etcd that is full.

use std::time::Duration;

use crate::support::{NOW, PREFIX, View, instance, key, registry, value};
use discovery_core::{Registrar as _, RegistrationState, Source as _};
use discovery_test_support::{Etcd, Proxy, Truth, eventually, eventually_eq, on_each_version};
use futures::{FutureExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

/// How many tasks the runtime has, whatever they do.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Row 21: etcd is full.
#[tokio::test(flavor = "multi_thread")]
async fn row_21_in_a_full_etcd_what_is_registered_stays_and_the_rest_waits() {
    on_each_version(async |version| {
        let etcd = Etcd::builder(version).quota(4 << 20).start().await;
        let truth = Truth::new(etcd.client_addr());
        let registry = registry(etcd.url());
        let view = View::new(registry.watch_all());
        let first = registry.register(instance("orders", "1", 1));
        first.registered().await.unwrap();
        let kv = truth.get(key("orders", "1")).await.unwrap();

        let filler = "x".repeat(500_000);
        eventually(Duration::from_secs(20), "it is full", async || {
            truth.put("/filler", &filler).await.is_err()
        })
        .await;
        let second = registry.register(instance("orders", "2", 2));
        eventually(Duration::from_secs(5), "the status says why", async || {
            match second.status().state {
                RegistrationState::Registering(Some(error))
                    if error.to_string().contains("space exceeded") =>
                {
                    Ok(())
                }
                other => Err(other),
            }
        })
        .await;
        let until = Instant::now() + Duration::from_secs(8); // longer than the lease lives
        while Instant::now() < until {
            assert_eq!(truth.get(key("orders", "1")).await.unwrap(), kv);
            sleep(Duration::from_millis(100)).await;
        }
        view.until_true(&truth, PREFIX, NOW).await;

        truth.compact(truth.revision().await.unwrap(), true).await.unwrap();
        truth.defragment().await.unwrap();
        truth.clear_space_alarm().await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), second.registered()).await.unwrap().unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
    })
    .await;
}

/// Row 27: an instance that comes and goes all the time.
#[tokio::test(flavor = "multi_thread")]
async fn row_27_a_flapping_instance_leaves_nothing_behind() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let proxy = Proxy::start(etcd.client_addr());
        let registry = registry(proxy.url());
        let view = View::new(registry.watch_all());
        let mut after_one = (0, 0);
        for round in 1..=20 {
            let registration = registry.register(instance("orders", "1", round));
            registration.registered().await.unwrap();
            sleep(Duration::from_millis(200)).await; // the row's own time
            registration.deregister().await.unwrap();
            if round == 1 {
                view.until_true(&truth, PREFIX, NOW).await;
                after_one = (tasks(), proxy.open());
            }
        }
        view.until_true(&truth, PREFIX, NOW).await;
        assert_eq!(view.set().len(), 0);
        assert_eq!(view.changes(), 40, "each coming and going was seen");
        assert_eq!(truth.leases().await.unwrap(), Vec::<i64>::new());
        eventually(NOW, format!("no more tasks, connections than {after_one:?}"), async || {
            let now = (tasks(), proxy.open());
            if now.0 <= after_one.0 && now.1 <= after_one.1 { Ok(()) } else { Err(now) }
        })
        .await;

        // And where it ends by staying, it is seen to stay.
        let registration = registry.register(instance("orders", "1", 21));
        registration.registered().await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        assert_eq!(view.set().len(), 1);
        registration.deregister().await.unwrap();
    })
    .await;
}

/// Row 35: readers dropped at random points.
#[tokio::test(flavor = "multi_thread")]
async fn row_35_dropped_readers_leave_no_watch() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        for port in 1..=20 {
            truth.put(key("orders", &port.to_string()), value(port)).await.unwrap();
        }
        let proxy = Proxy::start(etcd.client_addr());
        let registry = registry(proxy.url());
        let watchers = async || truth.metric("etcd_debugging_mvcc_watcher_total").await.unwrap();
        // What one reader leaves behind is not more than what many do.
        View::new(registry.watch_all()).until_true(&truth, PREFIX, NOW).await;
        eventually_eq(NOW, "watches left", Some(0.0), watchers).await;
        let after_one = (tasks(), proxy.open());
        let seed = rand::random();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut kept = Vec::new();
        for _ in 0..1_000 {
            let mut changes = registry.watch(&"orders".parse().unwrap());
            for _ in 0..rng.random_range(0..5) {
                if rng.random_bool(0.5) {
                    tokio::task::yield_now().await;
                } else {
                    sleep(Duration::from_micros(rng.random_range(0..3_000))).await;
                }
                let _ = changes.next().now_or_never();
            }
            if rng.random_bool(0.3) {
                kept.push(changes);
            }
            if rng.random_bool(0.1) {
                kept.clear();
            }
        }
        drop(kept);
        eventually_eq(NOW, format!("watches left (seed {seed})"), Some(0.0), watchers).await;
        eventually(NOW, format!("no more tasks, connections than {after_one:?}"), async || {
            let now = (tasks(), proxy.open());
            if now.0 <= after_one.0 && now.1 <= after_one.1 { Ok(()) } else { Err(now) }
        })
        .await;
        assert_eq!(truth.leases().await.unwrap(), Vec::<i64>::new());
        let view = View::new(registry.watch_all());
        view.until_true(&truth, PREFIX, NOW).await;
    })
    .await;
}
