//! What a registry can be told while it runs and when it is built, against real etcd.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, key, value};
use discovery_core::{Registrar as _, Registration, RegistrationState, Source as _, Weight};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Cluster, Etcd, Op, Proxy, Truth, Version, eventually, on_all_versions, on_each_version, slack,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tracing_subscriber::filter::LevelFilter;

async fn registered(registration: &Registration, within: Duration) {
    tokio::time::timeout(slack(within), registration.registered())
        .await
        .unwrap_or_else(|_| panic!("not registered: {:?}", registration.status()))
        .unwrap();
}

/// etcd with users; `orders` may read and write what is under the prefix.
async fn with_users(version: Version) -> (Etcd, Truth) {
    // A login is slow on purpose, and this is not about logins.
    let etcd = Etcd::builder(version).flag("bcrypt-cost", 4).start().await;
    let open = Truth::new(etcd.client_addr());
    let auth = open.auth();
    auth.add_user("orders", "right").await.unwrap();
    auth.add_role("services").await.unwrap();
    auth.allow("services", PREFIX).await.unwrap();
    auth.grant_role("orders", "services").await.unwrap();
    let root = auth.enable("root").await.unwrap();
    (etcd, root)
}

fn as_orders(url: String, password: &str) -> EtcdRegistry {
    let config = EtcdConfig::new([url]).credentials("orders", password);
    EtcdRegistry::new(config.ttl(Duration::from_secs(5)).suspects_for(Duration::ZERO)).unwrap()
}

async fn until_denied(view: &View, within: Duration) {
    eventually(within, "the view is denied", async || {
        let error = view.status().state.error().map(ToString::to_string).unwrap_or_default();
        let denied = ["authentication failed", "invalid auth token", "permission denied"];
        if denied.iter().any(|text| error.contains(text)) { Ok(()) } else { Err(error) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_password_works_at_once_where_a_wrong_one_was_denied() {
    on_all_versions(async |version| {
        let (etcd, truth) = with_users(version).await;
        let registry = as_orders(etcd.url(), "wrong");
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        until_denied(&view, NOW).await;
        eventually(NOW, "the registration is denied", async || match registration.status().state {
            RegistrationState::Registering(Some(error))
                if error.to_string().contains("authentication failed") =>
            {
                Ok(())
            }
            other => Err(other),
        })
        .await;
        // Another wrong one changes nothing.
        registry.set_credentials("orders", "wrong as well");
        sleep(NOW).await;
        assert!(!view.status().loaded);
        registry.set_credentials("orders", "right");
        registered(&registration, NOW).await;
        view.until_true(&truth, PREFIX, NOW).await;
        assert_eq!(view.set().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_after_the_password_was_set_right_does_not_wait_for_those_who_were_denied() {
    on_all_versions(async |version| {
        let (etcd, truth) = with_users(version).await;
        let registry = as_orders(etcd.url(), "wrong");
        for password in ["right", "wrong"] {
            let denied = View::new(registry.watch_all());
            if password == "right" {
                until_denied(&denied, NOW).await;
            } else {
                denied.until_fresh(NOW).await;
            }
            drop(denied);
            registry.set_credentials("orders", password);
        }
        // The other way round, with somebody there already when the password comes.
        let registry = as_orders(etcd.url(), "wrong");
        let denied = View::new(registry.watch_all());
        until_denied(&denied, NOW).await;
        drop(denied);
        let view = View::new(registry.watch(&"orders".parse().unwrap()));
        registry.set_credentials("orders", "right");
        view.until_true(&truth, PREFIX, NOW).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_in_etcd_can_be_changed_here() {
    on_all_versions(async |version| {
        let (etcd, truth) = with_users(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        let registry = as_orders(proxy.url(), "right");
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        registered(&registration, NOW).await;
        view.until_true(&truth, PREFIX, NOW).await;
        let before = truth.get(key("orders", "1")).await.unwrap();
        for password in ["second", "third"] {
            truth.auth().change_password("orders", password).await.unwrap();
            // Whatever is known by an old token is lost with the connection.
            proxy.cut_once();
            until_denied(&view, NOW_AFTER_OUTAGE).await;
            registration
                .update(|instance| instance.zone = Some(password.parse().unwrap()))
                .unwrap();
            truth.put(key("orders", "2"), value(2)).await.unwrap();
            assert_eq!(view.set().len(), if password == "second" { 1 } else { 2 });
            registry.set_credentials("orders", password);
            view.until_true(&truth, PREFIX, NOW).await;
            registered(&registration, NOW).await;
        }
        let after = truth.get(key("orders", "1")).await.unwrap();
        assert_eq!(after.unwrap().lease, before.unwrap().lease);
        registration.deregister().await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
    })
    .await;
}

fn to(url: String, follow: bool) -> View {
    let config = EtcdConfig::new([url]).follow_members(follow).suspects_for(Duration::ZERO);
    View::new(EtcdRegistry::new(config).unwrap().watch_all())
}

/// Waits until a write by this member is done: a leader may be missing.
async fn put(truth: &Truth, id: &str) {
    let truth = truth.deadline(Duration::from_millis(500));
    eventually(Duration::from_secs(20), "a write", async || {
        truth.put(key("orders", id), value(1)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_members_needs_one_url_and_who_does_not_waits_for_it() {
    on_each_version(async |version| {
        let cluster = Cluster::start(version, 3).await;
        let first = cluster.member(0);
        let (follows, waits) = (to(first.url(), true), to(first.url(), false));
        put(first.truth(), "1").await;
        for view in [&follows, &waits] {
            view.until_true(first.truth(), PREFIX, NOW).await;
        }
        first.kill();
        let truth = cluster.member(1).truth();
        put(truth, "2").await;
        follows.until_true(truth, PREFIX, NOW_AFTER_OUTAGE).await;
        waits.until_stale(NOW).await;
        sleep(NOW_AFTER_OUTAGE).await;
        assert!(follows.status().is_fresh() && waits.status().is_stale());
        assert_eq!((follows.set().len(), waits.set().len()), (2, 1));
        first.restart().await;
        waits.until_true(truth, PREFIX, NOW_AFTER_OUTAGE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_removed_is_not_used_any_more() {
    on_each_version(async |version| {
        let cluster = Cluster::start(version, 4).await;
        let first = cluster.member(0);
        // Known as a member, and of no configuration.
        let view = to(first.url(), true);
        put(first.truth(), "1").await;
        view.until_true(first.truth(), PREFIX, NOW).await;
        let removed = cluster.member(3);
        let members = first.truth().members().await.unwrap();
        assert_eq!(members.len(), 4);
        // Not before all members have been in touch for a while.
        eventually(Duration::from_secs(20), "it is removed", async || {
            first.truth().remove_member(members[&removed.url()]).await
        })
        .await;
        eventually(Duration::from_secs(10), "it stops", async || !removed.is_running()).await;
        assert_eq!(first.truth().members().await.unwrap().len(), 3);

        // The view learns of it where it goes next.
        first.kill();
        put(cluster.member(1).truth(), "2").await;
        view.until_true(cluster.member(1).truth(), PREFIX, NOW_AFTER_OUTAGE).await;
        first.restart().await;
        let knocks = Arc::new(AtomicU16::new(0));
        let (listener, count) = (TcpListener::bind(removed.client_addr()).await, knocks.clone());
        let listener = listener.unwrap();
        let door = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Whichever it uses, it is driven from there, twice round.
        for round in 0..2 {
            for number in 0..3 {
                let away = cluster.member(number);
                away.kill();
                let other = cluster.member((number + 1) % 3).truth();
                put(other, &format!("{round}-{number}")).await;
                view.until_true(other, PREFIX, NOW_AFTER_OUTAGE).await;
                away.restart().await;
            }
        }
        assert_eq!(knocks.load(Ordering::Relaxed), 0, "attempts to reach the removed one");
        door.abort();
    })
    .await;
}

/// What the made-up host of the configuration is not.
const NOWHERE: &str = "http://etcd.invalid:2379";

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_made_by_the_given_function_and_its_errors_are_told() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let proxy = Proxy::start(etcd.client_addr());
        let (calls, url) = (Arc::new(AtomicU64::new(0)), proxy.url());
        let broken = Arc::new(Mutex::new(Some("the tunnel has no light")));
        let (counted, state) = (calls.clone(), broken.clone());
        let dial = move |endpoint: String| {
            assert_eq!(endpoint, NOWHERE);
            counted.fetch_add(1, Ordering::Relaxed);
            let broken = *state.lock().unwrap();
            let url = url.clone();
            async move {
                match broken {
                    Some(error) => Err(Box::<dyn std::error::Error + Send + Sync>::from(error)),
                    None => Ok::<Channel, _>(Endpoint::from_shared(url)?.connect().await?),
                }
            }
        };
        let config = EtcdConfig::new([NOWHERE]).suspects_for(Duration::ZERO);
        let registry = EtcdRegistry::builder().channel(dial).build(config).unwrap();
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        let tells = |error: String| {
            let fits = error.contains("the tunnel has no light") && error.contains("etcd.invalid");
            if fits { Ok(()) } else { Err(error) }
        };
        eventually(NOW, "the view tells", async || {
            tells(view.status().state.error().map(ToString::to_string).unwrap_or_default())
        })
        .await;
        eventually(NOW, "the registration tells", async || match registration.status().state {
            RegistrationState::Registering(Some(error)) => tells(error.to_string()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(proxy.accepted(), 0);

        *broken.lock().unwrap() = None;
        registered(&registration, NOW_AFTER_OUTAGE).await;
        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        for round in 1..=3 {
            let before = calls.load(Ordering::Relaxed);
            proxy.cut_once();
            truth.put(key("orders", "2"), value(round)).await.unwrap();
            view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
            // The watches' connection and the registrations'.
            let both = async || calls.load(Ordering::Relaxed) >= before + 2;
            eventually(NOW_AFTER_OUTAGE, "two calls", both).await;
            // That it was called is not that it has connected; this needs both new connections.
            registration.update(|instance| instance.weight = Weight::new(1 + round)).unwrap();
            registered(&registration, NOW_AFTER_OUTAGE).await;
            view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        }
        registration.deregister().await.unwrap();
    })
    .await;
}

/// Who awaits the status of a watch that nobody reads is told that there is none.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_watch_without_readers_is_not_awaited_for_ever() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let registry = crate::support::registry(etcd.url());
        let never = async |mut status: discovery_core::StatusReader| {
            let waited = status.wait_for(|status| status.endpoints == 7);
            tokio::time::timeout(slack(NOW), waited).await.expect("it is told").unwrap_err()
        };
        let status = registry.watch_all().status();
        never(status).await;
        let view = View::new(registry.watch_all());
        view.until_fresh(NOW).await;
        let status = registry.watch_all().status();
        let waiting = tokio::spawn(async move { never(status).await });
        drop(view);
        assert!(waiting.await.unwrap().0.loaded);
        // Etcd away, and a service by name.
        etcd.kill();
        let status = registry.watch(&"orders".parse().unwrap()).status();
        assert!(!never(status).await.0.loaded);
        etcd.restart().await;
        View::new(registry.watch_all()).until_fresh(NOW_AFTER_OUTAGE).await;
    })
    .await;
}

/// All that is logged, of all tests of this program.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The processor time of this thread.
fn cpu() -> Duration {
    const TICKS_A_SECOND: u64 = 100;
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, rest) = text.rsplit_once(") ").unwrap();
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND)
}

const BUSY: Duration = Duration::from_secs(10);
const KEYS: u64 = 1_000;
/// Nobody else's service: what is logged of it is told by that.
const AUDITED: &str = "audited";

#[tokio::test(flavor = "multi_thread")]
async fn audits_of_a_busy_prefix_find_nothing_to_repair_and_cost_little() {
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(move || sink.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let put = |id: u64, port| Op::put(key(AUDITED, &id.to_string()), value(port));
        truth.txn_all((0..KEYS).map(|id| put(id, 1))).await.unwrap();
        let ranges =
            async || truth.metric("etcd_debugging_mvcc_range_total").await.unwrap().unwrap();

        log.0.lock().unwrap().clear();
        let (url, addr) = (etcd.url(), etcd.client_addr());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        // On a thread of its own, whose processor time is only its.
        let watching = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let config = EtcdConfig::new([url]).audit_every(Duration::from_secs(1));
                let config = config.suspects_for(Duration::ZERO);
                let service = AUDITED.parse().unwrap();
                let view = View::new(EtcdRegistry::new(config).unwrap().watch(&service));
                view.until_fresh(NOW_AFTER_OUTAGE).await;
                let before = cpu();
                ready.send(()).unwrap();
                stopped.await.unwrap();
                let used = cpu().checked_sub(before).unwrap();
                view.until_true(&Truth::new(addr), PREFIX, NOW).await;
                used
            })
        });
        is_ready.await.unwrap();
        let before = ranges().await;
        let until = Instant::now() + BUSY;
        let (mut port, mut writes) = (1, 0);
        while Instant::now() < until {
            port = port % 60_000 + 1;
            // Puts, deletes and what comes back, all the time while audits are read.
            let from = u64::from(port) * 7 % KEYS;
            let ops = (0..50).map(|step| {
                let id = (from + step * 3) % KEYS;
                match (u64::from(port) + step) % 4 {
                    0 => Op::delete(key(AUDITED, &id.to_string())),
                    _ => put(id, port),
                }
            });
            truth.txn(ops).await.unwrap();
            writes += 50;
            sleep(Duration::from_millis(5)).await;
        }
        let ranges = ranges().await - before;
        stop.send(()).unwrap();
        let used = tokio::task::spawn_blocking(|| watching.join().unwrap()).await.unwrap();
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let own: Vec<_> = log.lines().filter(|line| line.contains(AUDITED)).collect();
        // It was listed once, and that is all there is to tell.
        assert!(own.len() == 1 && own[0].contains("watching etcd"), "{own:#?}");
        // An audit takes 2 s to be believed, and the next one is due a second later.
        assert!((2.0..=10.0).contains(&ranges), "{ranges} reads of the store");
        assert!(used < BUSY / 4, "{used:?} of processor time for {writes} writes");
    })
    .await;
}
