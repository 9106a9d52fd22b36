//! The failure rows about an etcd that hangs, lags, forgets, or is cut off: nothing breaks, so nothing
//! says so, and it must be noticed all the same.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, key, registry, value};
use discovery_core::{Registrar as _, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Cluster, Direction, Etcd, GrpcProxy, Proxy, Truth, eventually, on_all_versions, slack,
};
use tokio::time::{Instant, sleep};

async fn fill(truth: &Truth, count: u16) {
    for port in 1..=count {
        truth.put(key("orders", &port.to_string()), value(port)).await.unwrap();
    }
}

fn of(urls: impl IntoIterator<Item = String>) -> EtcdRegistry {
    let config = EtcdConfig::new(urls).ttl(Duration::from_secs(6)).suspects_for(Duration::ZERO);
    EtcdRegistry::new(config).unwrap()
}

/// Row 3: etcd pauses for less than the leases live.
#[tokio::test(flavor = "multi_thread")]
async fn row_3_a_short_pause_changes_nothing() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let proxy = Proxy::start(etcd.client_addr());
        let registry = of([proxy.url()]);
        let registration = registry.register(instance("orders", "1", 1));
        registration.registered().await.unwrap();
        let view = View::new(registry.watch_all());
        view.until_true(&truth, PREFIX, NOW).await;
        let (before, changes) = (truth.range(PREFIX).await.unwrap(), view.changes());
        let connections = proxy.accepted();

        etcd.pause();
        sleep(Duration::from_secs(4)).await; // the row's own time
        etcd.resume();

        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            assert_eq!(truth.range(PREFIX).await.unwrap(), before, "the same lease, the same key");
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(view.changes(), changes);
        assert!(proxy.accepted() - connections <= 3, "{}", proxy.accepted() - connections);
    })
    .await;
}

/// Row 11: the store is wiped, with the same name and cluster id.
#[tokio::test(flavor = "multi_thread")]
async fn row_11_a_wiped_store_is_noticed() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        fill(&truth, 20).await;
        let view = View::new(registry(etcd.url()).watch_all());
        view.until_true(&truth, PREFIX, NOW).await;
        etcd.wipe().await;
        // Its revisions are far behind those that were seen.
        truth.put(key("orders", "other"), value(99)).await.unwrap();
        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        truth.put(key("orders", "another"), value(98)).await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        assert_eq!(view.set().len(), 2);
    })
    .await;
}

/// Row 12: a member is cut off from its cluster and keeps its connections.
#[tokio::test(flavor = "multi_thread")]
async fn row_12_a_member_without_its_cluster_is_left() {
    on_all_versions(async |version| {
        let cluster = Cluster::start(version, 3).await;
        let truth = Truth::new(cluster.member(0).client_addr());
        fill(&truth, 3).await;
        // All of them, so that every one that is left behind is tried; and one that knows no other.
        let everywhere = View::new(of(cluster.urls()).watch_all());
        let alone = View::new(of([cluster.member(0).url()]).watch_all());
        for view in [&everywhere, &alone] {
            view.until_true(&truth, PREFIX, NOW).await;
        }
        cluster.member(1).pause();
        cluster.member(2).pause();
        for view in [&everywhere, &alone] {
            view.until_stale(Duration::from_secs(9)).await;
            assert_eq!(view.set().len(), 3);
        }
        cluster.member(1).resume();
        cluster.member(2).resume();
        cluster.leader().await;
        eventually(NOW_AFTER_OUTAGE, "a write", async || {
            truth.put(key("orders", "4"), value(4)).await
        })
        .await;
        for view in [&everywhere, &alone] {
            view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
            assert!(!view.was_emptied());
        }
    })
    .await;
}

/// Row 13: a half-open connection, with another endpoint to go to.
#[tokio::test(flavor = "multi_thread")]
async fn row_13_a_half_open_connection_is_noticed_and_left() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let (used, other) = (Proxy::start(etcd.client_addr()), Proxy::start(etcd.client_addr()));
        // So that both the watches and the registrations are there.
        other.refuse();
        fill(&truth, 2).await;
        let registry = of([used.url(), other.url()]);
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "own", 9));
        registration.registered().await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        let lease = truth.get(key("orders", "own")).await.unwrap().unwrap().lease;

        other.pass();
        used.black_hole();
        let cut = Instant::now();
        truth.put(key("orders", "1"), value(100)).await.unwrap();
        view.until_stale(Duration::from_secs(6)).await;
        view.until_true(&truth, PREFIX, Duration::from_secs(6)).await;
        assert!(cut.elapsed() < slack(Duration::from_secs(16)), "{:?}", cut.elapsed());
        assert!(other.accepted() > 0);
        // The registration moved too, with its lease.
        sleep(Duration::from_secs(7).saturating_sub(cut.elapsed())).await; // longer than it lives
        assert_eq!(truth.get(key("orders", "own")).await.unwrap().unwrap().lease, lease);
        registration.deregister().await.unwrap();
    })
    .await;
}

/// Row 14: the connection is alive and what the server says comes late.
#[tokio::test(flavor = "multi_thread")]
async fn row_14_a_starved_watch_is_stale_and_does_not_list_for_ever() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let proxy = Proxy::start(etcd.client_addr());
        fill(&truth, 50).await;
        let view = View::new(registry(proxy.url()).watch_all());
        view.until_true(&truth, PREFIX, NOW).await;
        proxy.delay(Direction::ToClient, Duration::from_secs(8));
        let bytes = proxy.bytes(Direction::ToClient);
        truth.put(key("orders", "1"), value(100)).await.unwrap();
        view.until_stale(Duration::from_secs(6)).await;
        sleep(Duration::from_secs(8)).await; // the row's own time
        assert!(view.status().is_stale());
        assert_eq!(view.set().len(), 50);
        let listed = proxy.bytes(Direction::ToClient) - bytes;
        assert!(listed < 20_000, "{listed} bytes: it lists in a loop");
        proxy.pass();
        view.until_true(&truth, PREFIX, Duration::from_secs(10)).await;
    })
    .await;
}

/// Row 41: etcd's gRPC proxy in between, which answers no probes, and a long silence.
#[tokio::test(flavor = "multi_thread")]
async fn row_41_a_proxy_that_answers_no_probes_is_not_taken_for_dead() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let grpc = GrpcProxy::start(&etcd).await;
        let proxy = Proxy::start(grpc.addr());
        fill(&truth, 2).await;
        let view = View::new(registry(proxy.url()).watch_all());
        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        let connections = proxy.accepted();
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            assert!(view.status().is_fresh(), "{:?}", view.status());
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(proxy.accepted(), connections, "no reconnect");
        truth.put(key("orders", "3"), value(3)).await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        grpc.process().kill();
        view.until_stale(NOW).await;
    })
    .await;
}
