//! What a registration can be told about its application: the watchdog and the health function, against
//! real etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{NOW, instance, key, registry};
use discovery_core::{
    Instance, InstanceStatus, Registrar as _, Registration, RegistrationState, Weight,
};
use discovery_etcd::{EtcdConfig, EtcdRegistry, RegisterOptions, Watchdog};
use discovery_test_support::{Etcd, Truth, Version, eventually, on_all_versions, slack};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

/// The shortest that etcd grants by default.
const TTL: Duration = Duration::from_secs(2);
/// An application is taken for dead after three times that.
const PATIENCE: Duration = Duration::from_secs(6);
/// etcd looks for leases that are over twice a second.
const EXPIRY: Duration = Duration::from_secs(1);

async fn started(version: Version) -> (Etcd, Truth) {
    let etcd = Etcd::start(version).await;
    let truth = Truth::new(etcd.client_addr());
    (etcd, truth)
}

async fn there(truth: &Truth, id: &str) -> bool {
    truth.get(key("orders", id)).await.unwrap().is_some()
}

async fn registered(registration: &Registration) {
    tokio::time::timeout(slack(NOW), registration.registered())
        .await
        .unwrap_or_else(|_| panic!("not registered: {:?}", registration.status()))
        .unwrap();
}

/// Whether the status blames the application, and says what etcd has.
fn is_blamed(registration: &Registration, still_there: bool) -> bool {
    let status = registration.status();
    let says = |error: Option<&discovery_core::SourceError>| {
        error.is_some_and(|error| error.to_string().contains("no sign of life"))
    };
    let fits = match &status.state {
        RegistrationState::Registered => still_there,
        RegistrationState::Registering(error) => !still_there && says(error.as_ref()),
        _ => false,
    };
    fits && says(status.last_error.as_ref())
}

/// Silent, gone, back: `lease` is for how long the key stays after it is taken for dead.
async fn falls_silent(truth: &Truth, registration: &Registration, dog: &Watchdog, lease: Duration) {
    let id = registration.key().id.to_string();
    for _ in 0..2 {
        let silent = Instant::now();
        let trusted = PATIENCE.mul_f64(0.96);
        dog.alive();
        // A key is moved to a shared lease after it was put, so its revision may change.
        let created = async || {
            let kv = truth.get(key("orders", &id)).await.unwrap();
            kv.map(|kv| kv.create_revision)
        };
        let before = created().await;
        assert!(before.is_some());
        while silent.elapsed() < trusted {
            assert_eq!(created().await, before, "it may be alive");
            sleep(Duration::from_millis(50)).await;
        }
        eventually(EXPIRY, "it is blamed", async || {
            let there = there(truth, &id).await;
            if is_blamed(registration, there) { Ok(()) } else { Err(registration.status()) }
        })
        .await;
        eventually(lease + EXPIRY, "the key is gone", async || !there(truth, &id).await).await;
        eventually(NOW, "it is blamed", async || is_blamed(registration, false)).await;
        sleep(TTL).await;
        assert!(!there(truth, &id).await, "nobody has said anything");
        dog.alive();
        eventually(NOW, "the key is back", async || there(truth, &id).await).await;
        registered(registration).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_falls_silent_goes_and_is_back_with_its_next_sign_of_life() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        let registry = registry(etcd.url());
        let with = |id: &str, options: RegisterOptions| {
            let dog = Watchdog::new();
            let options = options.ttl(TTL).watchdog(&dog);
            (registry.register_with(instance("orders", id, 1), options), dog)
        };
        let (own, own_dog) = with("own", RegisterOptions::new());
        let (shared, shared_dog) = with("shared", RegisterOptions::new().share_lease(true));
        let unwatched = registry.register(instance("orders", "unwatched", 1));
        for registration in [&own, &shared, &unwatched] {
            registered(registration).await;
        }
        let unwatched_key = truth.get(key("orders", "unwatched")).await.unwrap();
        futures::join!(
            falls_silent(&truth, &own, &own_dog, TTL),
            // A shared lease goes on for others, so the key is deleted at once.
            falls_silent(&truth, &shared, &shared_dog, Duration::ZERO),
        );
        assert_eq!(truth.get(key("orders", "unwatched")).await.unwrap(), unwatched_key);
        // One that is taken for dead can leave like any other.
        eventually(PATIENCE + EXPIRY, "it is blamed", async || {
            is_blamed(&own, there(&truth, "own").await) && is_blamed(&shared, false)
        })
        .await;
        for registration in [own, shared, unwatched] {
            registration.deregister().await.unwrap();
        }
        assert_eq!(truth.range(crate::support::PREFIX).await.unwrap().len(), 0);
        eventually(NOW, "no lease is left", async || truth.leases().await.unwrap().is_empty())
            .await;
    })
    .await;
}

/// A runtime of one thread that can be blocked, with a registration that it watches over.
struct Application {
    /// `None` when it is being dropped, which no runtime may do to another.
    runtime: Option<Runtime>,
}

impl Application {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: Some(runtime.unwrap()) }
    }

    async fn register(&self, url: String, id: &'static str) -> Registration {
        let work = async move {
            let options = RegisterOptions::new().watchdog(&Watchdog::of_this_runtime());
            let registry = EtcdRegistry::new(EtcdConfig::new([url]).ttl(TTL)).unwrap();
            let registration = registry.register_with(instance("orders", id, 1), options);
            registered(&registration).await;
            registration
        };
        self.runtime.as_ref().unwrap().spawn(work).await.unwrap()
    }

    /// Blocks the only worker until what this returns is dropped.
    async fn block(&self) -> std::sync::mpsc::Sender<()> {
        let (go, wait) = std::sync::mpsc::channel();
        let (blocked, blocks) = oneshot::channel();
        self.runtime.as_ref().unwrap().spawn(async move {
            blocked.send(()).unwrap();
            let _ = wait.recv();
        });
        blocks.await.unwrap();
        go
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_runtime_is_blocked_for_good_goes_and_one_that_runs_stays() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        let (hangs, runs) = (Application::new(), Application::new());
        let hanging = hangs.register(etcd.url(), "hangs").await;
        let running = runs.register(etcd.url(), "runs").await;
        let before = truth.get(key("orders", "runs")).await.unwrap();
        let from = Instant::now();
        let blocked = hangs.block().await;
        sleep_until(from + PATIENCE - 2 * EXPIRY).await;
        assert!(there(&truth, "hangs").await, "it may only be busy");
        let most = TTL + 4 * EXPIRY;
        eventually(most, "the key is gone", async || !there(&truth, "hangs").await).await;
        eventually(NOW, "it is blamed", async || is_blamed(&hanging, false)).await;
        sleep(TTL).await;
        assert!(!there(&truth, "hangs").await);
        drop(blocked);
        eventually(NOW, "the key is back", async || there(&truth, "hangs").await).await;
        sleep_until(from + 2 * PATIENCE).await;
        assert_eq!(truth.get(key("orders", "runs")).await.unwrap(), before);
        assert!(matches!(running.status().state, RegistrationState::Registered));
    })
    .await;
}

/// How the application is.
const WELL: u8 = 0;
const UNWELL: [(&str, u8); 5] = [
    ("it says no", 1),
    ("it never answers", 2),
    ("it panics", 3),
    ("it panics before there is anything to await", 4),
    ("it blocks its thread", 5),
];
/// How often it is asked.
const EVERY: Duration = Duration::from_millis(50);

/// Waits until etcd has this status.
async fn has(truth: &Truth, status: &str, why: &str) {
    eventually(NOW, format!("{status}: {why}"), async || {
        let kv = truth.get(key("orders", "1")).await.unwrap();
        let value = kv.map(|kv| serde_json::from_slice::<serde_json::Value>(&kv.value).unwrap());
        // Up is what is not said.
        let seen = value.map(|value| value["status"].as_str().unwrap_or("up").to_owned());
        if seen.as_deref() == Some(status) { Ok(()) } else { Err(seen) }
    })
    .await;
}

fn asked(registry: &EtcdRegistry, instance: Instance, mood: &Arc<AtomicU8>) -> Registration {
    let mood = mood.clone();
    let options = RegisterOptions::new().health_every(EVERY, move || {
        let mood = mood.load(Ordering::Relaxed);
        assert_ne!(mood, 4, "a fault of the test");
        if mood == 5 {
            thread::sleep(10 * EVERY);
        }
        async move {
            match mood {
                2 => std::future::pending().await,
                3 => panic!("a fault of the test"),
                _ => mood == WELL,
            }
        }
    });
    registry.register_with(instance, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_application_that_is_not_well_is_out_of_service_until_it_is() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        let mood = Arc::new(AtomicU8::new(WELL));
        let registration = asked(&registry(etcd.url()), instance("orders", "1", 1), &mood);
        registered(&registration).await;
        has(&truth, "up", "at first").await;
        let lease = truth.get(key("orders", "1")).await.unwrap().unwrap().lease;
        for (why, unwell) in UNWELL {
            mood.store(unwell, Ordering::Relaxed);
            has(&truth, "out_of_service", why).await;
            // What the program itself wants is not changed, and other updates come through.
            assert_eq!(registration.instance().status, InstanceStatus::Up);
            registration.update(|instance| instance.weight = Weight::new(unwell.into())).unwrap();
            registered(&registration).await;
            has(&truth, "out_of_service", why).await;
            mood.store(WELL, Ordering::Relaxed);
            has(&truth, "up", why).await;
        }
        let kv = truth.get(key("orders", "1")).await.unwrap().unwrap();
        assert_eq!(kv.lease, lease);
        assert!(String::from_utf8_lossy(&kv.value).contains(r#""weight":5"#));
        registration.deregister().await.unwrap();
        assert!(!there(&truth, "1").await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_drains_goes_on_draining_however_its_application_is() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        let mood = Arc::new(AtomicU8::new(WELL));
        let registration = asked(&registry(etcd.url()), instance("orders", "1", 1), &mood);
        registered(&registration).await;
        registration.drain();
        registered(&registration).await;
        has(&truth, "draining", "as wanted").await;
        for now in [1, WELL] {
            mood.store(now, Ordering::Relaxed);
            let until = Instant::now() + 6 * EVERY;
            while Instant::now() < until {
                has(&truth, "draining", "as before").await;
                sleep(EVERY / 5).await;
            }
        }
        // It was unwell before it drained, and still is when it wants to be up again.
        mood.store(1, Ordering::Relaxed);
        sleep(4 * EVERY).await;
        registration.update(|instance| instance.status = InstanceStatus::Up).unwrap();
        registered(&registration).await;
        has(&truth, "out_of_service", "it is not well").await;
        registration.drain();
        has(&truth, "draining", "as wanted").await;
    })
    .await;
}
