//! The failure row about an application that keeps its runtime from doing anything else.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::support::{NOW, instance, key};
use discovery_core::{Registrar as _, Registration, RegistrationState};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, Kv, Truth, Version, on_all_versions, slack};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

const WORKERS: usize = 3;

/// The runtime of an application, not the one that the test looks on from.
struct Application {
    /// `None` when it is being dropped, which no runtime may do to another.
    runtime: Option<Runtime>,
    workers: usize,
}

impl Application {
    fn of_threads(workers: usize) -> Self {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(workers).enable_all().build().unwrap();
        Self { runtime: Some(runtime), workers }
    }

    /// Runs `work` as an application would.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.as_ref().unwrap().spawn(work).await.unwrap()
    }

    async fn registered(&self, etcd: &Etcd, id: &'static str, ttl: u64) -> Registration {
        let config = EtcdConfig::new([etcd.url()]).ttl(Duration::from_secs(ttl));
        self.run(async move {
            let registration =
                EtcdRegistry::new(config).unwrap().register(instance("orders", id, 1));
            registration.registered().await.unwrap();
            registration
        })
        .await
    }

    /// Keeps every worker busy for `time`. Returns when all of them are.
    async fn block(&self, time: Duration) {
        let all = Arc::new(Barrier::new(self.workers + 1));
        for _ in 0..self.workers {
            let all = all.clone();
            self.runtime.as_ref().unwrap().spawn(async move {
                all.wait();
                thread::sleep(time);
            });
        }
        tokio::task::spawn_blocking(move || all.wait()).await.unwrap();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Blocks an application that is registered with a time to live of `ttl` s for `blocked` s: its lease
/// lives on, then and afterwards.
async fn lives_on(version: Version, workers: usize, ttl: u64, blocked: u64) {
    let etcd = Etcd::start(version).await;
    let truth = Truth::new(etcd.client_addr());
    let application = Application::of_threads(workers);
    let registration = application.registered(&etcd, "1", ttl).await;
    let now = async || -> Option<Kv> { truth.get(key("orders", "1")).await.unwrap() };
    let before = now().await;
    assert!(before.is_some());

    let blocked = Duration::from_secs(blocked);
    application.block(blocked).await;
    let until = Instant::now() + blocked + Duration::from_secs(ttl);
    while Instant::now() < until {
        assert_eq!(now().await, before, "the same lease, never put again");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(matches!(registration.status().state, RegistrationState::Registered));
    application.run(async { registration.deregister().await.unwrap() }).await;
    assert_eq!(now().await, None);
}

/// Row 39: every worker is blocked for half the lease's time.
#[tokio::test(flavor = "multi_thread")]
async fn row_39_a_blocked_runtime_does_not_lose_the_lease() {
    on_all_versions(async |version| lives_on(version, WORKERS, 10, 5).await).await;
}

/// Row 39: renewing does not need the application's runtime.
#[tokio::test(flavor = "multi_thread")]
async fn row_39_a_runtime_blocked_for_longer_than_the_lease_lives_does_not_lose_it() {
    on_all_versions(async |version| lives_on(version, WORKERS, 3, 9).await).await;
}

/// Row 39: the same where there is one worker alone.
#[tokio::test(flavor = "multi_thread")]
async fn row_39_a_single_worker_blocked_for_longer_than_the_lease_lives_does_not_lose_it() {
    on_all_versions(async |version| lives_on(version, 1, 3, 9).await).await;
}

/// Row 39: what was to be done while everything was blocked is done as soon as it is not.
#[tokio::test(flavor = "multi_thread")]
async fn row_39_an_update_made_while_blocked_comes_through() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let application = Application::of_threads(WORKERS);
        let registration = application.registered(&etcd, "1", 5).await;
        let blocked = Duration::from_secs(2);
        application.block(blocked).await;
        registration.update(|instance| instance.zone = Some("there".parse().unwrap())).unwrap();
        let registered = tokio::time::timeout(slack(blocked + NOW), registration.registered());
        registered.await.unwrap().unwrap();
        let kv = truth.get(key("orders", "1")).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&kv.value).contains("there"));
        application.run(async { registration.deregister().await.unwrap() }).await;
    })
    .await;
}
