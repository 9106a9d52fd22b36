//! The failure row about one client that watches many services, some of them bad.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, Set, View, instance_key, key, value};
use discovery_core::{ServiceName, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Etcd, Op, Proxy, Truth, Version, eventually, eventually_eq, on_all_versions, on_each_version,
    slack,
};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

const SERVICES: usize = 500;
/// May not be read.
const DENIED: usize = 17;
/// Holds values that are no instances, beside one that is.
const POISONED: usize = 23;

const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";
const RANGES: &str = "etcd_debugging_mvcc_range_total";

/// Names that one prefix tells from the denied one.
fn service(number: usize) -> String {
    if number == DENIED { "denied".into() } else { format!("open-{number}") }
}

/// etcd with users and all services, of one instance each; and a client that may not read one of them.
async fn started(version: Version) -> (Etcd, Truth, Proxy, EtcdRegistry) {
    // A login is slow on purpose, and this is not about logins.
    let etcd = Etcd::builder(version).flag("bcrypt-cost", 4).start().await;
    let open = Truth::new(etcd.client_addr());
    let instances = (0..SERVICES).map(|number| Op::put(key(&service(number), "1"), value(1)));
    open.txn_all(instances).await.unwrap();
    for (id, poison) in [("2", "{"), ("3", ""), ("4", r#"{"address":7}"#)] {
        open.put(key(&service(POISONED), id), poison).await.unwrap();
    }
    let auth = open.auth();
    auth.add_user("orders", "secret").await.unwrap();
    auth.add_role("services").await.unwrap();
    auth.allow("services", "/services/open-").await.unwrap();
    auth.grant_role("orders", "services").await.unwrap();
    let root = auth.enable("root").await.unwrap();

    let proxy = Proxy::start(etcd.client_addr());
    let config = EtcdConfig::new([proxy.url()]).credentials("orders", "secret");
    let registry = EtcdRegistry::new(config.suspects_for(Duration::ZERO)).unwrap();
    (etcd, root, proxy, registry)
}

/// A reader of each service. Returns when all that can be read have been.
async fn watched(registry: &EtcdRegistry) -> Vec<View> {
    let names = (0..SERVICES).map(|number| service(number).parse::<ServiceName>().unwrap());
    let views: Vec<_> = names.map(|name| View::new(registry.watch(&name))).collect();
    join_all(good(&views).map(|(_, view)| view.until_fresh(NOW_AFTER_OUTAGE))).await;
    views
}

/// All but the denied one, with their numbers.
fn good(views: &[View]) -> impl Iterator<Item = (usize, &View)> {
    views.iter().enumerate().filter(|(number, _)| *number != DENIED)
}

fn set(number: usize, port: u16) -> Set {
    let instance = instance_key(&service(number), "1");
    Set::from([(instance, format!("http://127.0.0.1:{port}"))])
}

async fn metric(truth: &Truth, name: &str) -> f64 {
    truth.metric(name).await.unwrap().expect("etcd has this metric")
}

/// Row 38: one bad service among many.
#[tokio::test(flavor = "multi_thread")]
async fn row_38_a_denied_service_and_a_poisoned_one_disturb_no_other() {
    on_all_versions(async |version| {
        let (etcd, truth, _proxy, registry) = started(version).await;
        let views = watched(&registry).await;
        for (number, view) in good(&views) {
            eventually_eq(NOW, "its set", set(number, 1), async || view.set()).await;
        }
        let denied = &views[DENIED];
        eventually(NOW, "the denied one says why", async || {
            let status = denied.status();
            let why = status.state.error().map(ToString::to_string).unwrap_or_default();
            if !status.loaded && why.contains("permission denied") { Ok(()) } else { Err(why) }
        })
        .await;

        // A watch that has been silent for 3 s for the first time counts its keys, and that is a read too.
        sleep(Duration::from_secs(4)).await;
        // For longer than the denied one waits before it tries again.
        let since: Vec<_> = good(&views).map(|(_, view)| view.status().since_instant).collect();
        let ranges = metric(&truth, RANGES).await;
        let mut port = 1;
        let until = Instant::now() + Duration::from_secs(14);
        while Instant::now() < until {
            port += 1;
            let changed =
                |number: usize| (number + usize::from(port)).is_multiple_of(50) && number != DENIED;
            let puts = (0..SERVICES).filter(|number| changed(*number));
            let puts = puts.map(|number| Op::put(key(&service(number), "1"), value(port)));
            truth.txn_all(puts).await.unwrap();
            let put = Instant::now();
            for (number, view) in good(&views).filter(|(number, _)| changed(*number)) {
                eventually(NOW, "the change", async || view.set() == set(number, port)).await;
            }
            assert!(put.elapsed() < slack(NOW), "it took {:?}", put.elapsed());
            sleep(Duration::from_millis(200)).await;
        }
        let now: Vec<_> = good(&views).map(|(_, view)| view.status().since_instant).collect();
        assert!(now == since, "each was fresh all the time");
        // The denied one's own attempts do not get that far.
        let ranges = metric(&truth, RANGES).await - ranges;
        assert!(ranges < 10.0, "{ranges} reads of the store: there were new lists");
        assert!(!denied.status().loaded && denied.told().is_empty());

        // It has not been forgotten, either.
        truth.auth().allow("services", "/services/denied/").await.unwrap();
        denied.until_fresh(Duration::from_secs(13)).await;
        eventually_eq(NOW, "its set", set(DENIED, 1), async || denied.set()).await;
        drop((views, etcd));
    })
    .await;
}

/// Row 38: all watches of a client share one connection, also when it has been lost.
#[tokio::test(flavor = "multi_thread")]
async fn row_38_many_watches_share_one_connection() {
    on_each_version(async |version| {
        let (etcd, truth, proxy, registry) = started(version).await;
        let views = watched(&registry).await;
        assert_eq!((proxy.accepted(), proxy.open()), (1, 1), "connections made, and open");
        proxy.cut_once();
        let puts = (0..SERVICES).map(|number| Op::put(key(&service(number), "1"), value(2)));
        truth.txn_all(puts).await.unwrap();
        let loaded = join_all(good(&views).map(async |(number, view)| {
            eventually(NOW_AFTER_OUTAGE, "the change", async || view.set() == set(number, 2)).await;
        }));
        loaded.await;
        assert_eq!((proxy.accepted(), proxy.open()), (2, 1), "connections made, and open");
        drop((views, etcd));
    })
    .await;
}

/// Row 38: each watch ends with its last reader, whatever it shares with others.
#[tokio::test(flavor = "multi_thread")]
async fn row_38_a_watch_that_is_left_alone_goes_on() {
    on_each_version(async |version| {
        let (etcd, truth, _proxy, registry) = started(version).await;
        let mut views = watched(&registry).await;
        let watchers = async || metric(&truth, WATCHERS).await.to_string();
        eventually_eq(NOW, "watches", (SERVICES - 1).to_string(), watchers).await;
        let last = views.swap_remove(POISONED);
        drop(views);
        eventually_eq(NOW, "watches", "1".into(), watchers).await;
        for port in [2, 3] {
            truth.put(key(&service(POISONED), "1"), value(port)).await.unwrap();
            eventually(NOW, "the change", async || last.set() == set(POISONED, port)).await;
        }
        assert!(last.status().is_fresh());
        drop(last);
        eventually_eq(NOW, "watches", "0".into(), watchers).await;
        drop(etcd);
    })
    .await;
}
