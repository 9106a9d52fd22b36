//! Protection from mass removal, on real etcd.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, instance_key, key, value};
use discovery_core::{Change, Registrar as _, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, Truth, eventually, on_each_version};

/// Keeps suspects for so many seconds.
fn registry(etcd: &Etcd, suspects: u64) -> EtcdRegistry {
    let config = EtcdConfig::new([etcd.url()]).ttl(Duration::from_secs(5));
    EtcdRegistry::new(config.suspects_for(Duration::from_secs(suspects))).unwrap()
}

fn suspects(view: &View) -> usize {
    let mut suspects = BTreeSet::new();
    for change in view.told() {
        match change {
            Change::Insert(key, instance) if instance.suspect => drop(suspects.insert(key)),
            Change::Insert(key, _) | Change::Remove(key) => drop(suspects.remove(&key)),
            _ => {}
        }
    }
    suspects.len()
}

/// Row 4: etcd pauses for longer than the leases live and deletes all of them at its return.
#[tokio::test(flavor = "multi_thread")]
async fn row_4_a_pause_longer_than_the_leases_is_not_seen() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let registry = registry(&etcd, 10);
        let services = ["a", "b", "c", "d", "e"];
        let registrations: Vec<_> = services
            .into_iter()
            .zip(1..)
            .map(|(service, port)| registry.register(instance(service, "1", port)))
            .collect();
        for registration in &registrations {
            registration.registered().await.unwrap();
        }
        // Services of one instance each, watched together and one by one.
        let mut views = vec![View::new(registry.watch_all())];
        for service in services {
            views.push(View::new(registry.watch(&service.parse().unwrap())));
        }
        views[0].until_true(&truth, PREFIX, NOW).await;
        let leases = truth.leases().await.unwrap();

        etcd.pause();
        tokio::time::sleep(Duration::from_secs(10)).await; // the row's own time
        etcd.resume();

        eventually(NOW_AFTER_OUTAGE, "all have a new lease", async || {
            let now = truth.leases().await.unwrap_or_default();
            let new = now.iter().filter(|lease| !leases.contains(lease)).count();
            if new == services.len() && now.len() == new { Ok(()) } else { Err(now) }
        })
        .await;
        views[0].until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        for view in &views {
            view.until_fresh(NOW_AFTER_OUTAGE).await;
            let removed = |change: &Change<_, _>| matches!(change, Change::Remove(_));
            assert!(!view.told().iter().any(removed), "nobody was seen to go");
        }
        for registration in registrations {
            registration.deregister().await.unwrap();
        }
    })
    .await;
}

/// Row 25 with protection: at once when announced, soon when alone, after a while when many go.
#[tokio::test(flavor = "multi_thread")]
async fn row_25_how_the_last_ones_leave() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let view = View::new(registry(&etcd, 4).watch_all());
        for port in 1..=4 {
            truth.put(key("a", &port.to_string()), value(port)).await.unwrap();
        }
        view.until_true(&truth, PREFIX, NOW).await;

        truth.delete(key("a", "1")).await.unwrap();
        view.until_true(&truth, PREFIX, Duration::from_secs(2)).await;
        assert_eq!(suspects(&view), 0);

        truth.delete_prefix(PREFIX).await.unwrap();
        eventually(NOW, "three suspects", async || suspects(&view) == 3).await;
        assert_eq!(view.set().len(), 3, "they are still served");
        // One of them comes back.
        truth.put(key("a", "2"), value(2)).await.unwrap();
        eventually(NOW, "two suspects", async || suspects(&view) == 2).await;
        view.until_true(&truth, PREFIX, Duration::from_secs(6)).await;

        let draining = value(2).replace('}', r#","status":"draining"}"#);
        truth.put(key("a", "2"), draining).await.unwrap();
        eventually(NOW, "draining", async || view.set().contains_key(&instance_key("a", "2")))
            .await;
        truth.delete(key("a", "2")).await.unwrap();
        eventually(Duration::from_millis(400), "gone at once", async || view.set().is_empty())
            .await;
    })
    .await;
}
