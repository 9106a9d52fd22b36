//! The failure row about many clients of an etcd that is away and comes back.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, key, value};
use discovery_core::{Registrar as _, Registration, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Etcd, Proxy, Truth, Version, eventually, eventually_eq, long, on_all_versions, slack,
};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

/// One attempt in so long, on average.
const ATTEMPT_EVERY: Duration = Duration::from_secs(2);

/// How long etcd is away. Not shorter in the short form: the first attempts come quickly, and are to count.
const AWAY: Duration = Duration::from_secs(30);

fn clients() -> u16 {
    if long() { 500 } else { 100 }
}

async fn started(version: Version) -> (Etcd, Truth, Proxy) {
    let etcd = Etcd::start(version).await;
    let truth = Truth::new(etcd.client_addr());
    // It goes on accepting while etcd is away, and so counts each attempt.
    let proxy = Proxy::start(etcd.client_addr());
    (etcd, truth, proxy)
}

fn registry(proxy: &Proxy) -> EtcdRegistry {
    let config = EtcdConfig::new([proxy.url()]).suspects_for(Duration::ZERO);
    EtcdRegistry::new(config).unwrap()
}

/// Lets etcd be away. Returns how many connections each client of `proxy` tried to make a second.
async fn outage(etcd: &Etcd, proxy: &Proxy, clients: u16) -> f64 {
    etcd.kill();
    let (start, before) = (Instant::now(), proxy.accepted());
    sleep(AWAY).await; // the row's own time
    let tried = u32::try_from(proxy.accepted() - before).unwrap();
    let each = f64::from(tried) / f64::from(clients);
    let rate = each / start.elapsed().as_secs_f64();
    etcd.restart().await;
    rate
}

fn assert_patient(rate: f64) {
    let most = 1.0 / ATTEMPT_EVERY.as_secs_f64();
    assert!(rate <= most, "a client tried {rate:.2} times a second, at most {most} is right");
}

/// Row 36, watching.
#[tokio::test(flavor = "multi_thread")]
async fn row_36_many_readers_of_an_etcd_that_is_away_are_patient_and_soon_back() {
    on_all_versions(async |version| {
        let count = clients();
        let (etcd, truth, proxy) = started(version).await;
        for port in 1..=10 {
            truth.put(key("orders", &port.to_string()), value(port)).await.unwrap();
        }
        let views: Vec<_> = (0..count).map(|_| View::new(registry(&proxy).watch_all())).collect();
        join_all(views.iter().map(|view| view.until_fresh(NOW_AFTER_OUTAGE))).await;

        let rate = outage(&etcd, &proxy, count).await;
        let back = Instant::now();
        truth.put(key("orders", "new"), value(99)).await.unwrap();
        join_all(views.iter().map(|view| view.until_fresh(NOW_AFTER_OUTAGE))).await;
        assert!(back.elapsed() < slack(NOW_AFTER_OUTAGE), "{:?}", back.elapsed());
        let right = crate::support::oracle(&truth, PREFIX).await.unwrap();
        for view in &views {
            eventually_eq(NOW, "its set", right.clone(), async || view.set()).await;
            assert!(!view.was_emptied());
        }
        assert_patient(rate);
    })
    .await;
}

/// Row 36, registering.
#[tokio::test(flavor = "multi_thread")]
async fn row_36_many_who_are_registered_are_patient_and_soon_back() {
    on_all_versions(async |version| {
        let count = clients();
        let (etcd, truth, proxy) = started(version).await;
        let ids = (1..=count).map(|id| id.to_string());
        let registrations: Vec<_> =
            ids.map(|id| registry(&proxy).register(instance("orders", &id, 1))).collect();
        for registration in &registrations {
            let registered =
                tokio::time::timeout(slack(NOW_AFTER_OUTAGE), registration.registered());
            registered.await.unwrap().unwrap();
        }

        let rate = outage(&etcd, &proxy, count).await;
        eventually_eq(NOW_AFTER_OUTAGE, "all are registered", usize::from(count), async || {
            truth.range(PREFIX).await.unwrap().len()
        })
        .await;
        // And each of them knows, with a lease that it has renewed.
        eventually(NOW_AFTER_OUTAGE, "all say so", async || {
            let statuses = registrations.iter().map(Registration::status);
            let late: Vec<_> = statuses
                .filter(|status| status.remaining().is_none_or(|left| left.is_zero()))
                .collect();
            if late.is_empty() { Ok(()) } else { Err(late) }
        })
        .await;
        assert_patient(rate);
        join_all(registrations.into_iter().map(Registration::deregister)).await;
    })
    .await;
}
