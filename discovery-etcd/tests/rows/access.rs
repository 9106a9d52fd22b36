//! The failure rows about access: users, roles and tokens.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, key, value};
use discovery_core::{Registrar as _, Source as _, SourceError};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, Proxy, Truth, Version, eventually, on_each_version, slack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// etcd with users; `orders` may read and write what is under the prefix.
async fn started(version: Version) -> (Etcd, Truth) {
    with_users(Etcd::builder(version).flag("auth-token-ttl", 3).start().await).await
}

/// Passwords are checked quickly: this is about how often.
async fn quick(version: Version) -> (Etcd, Truth) {
    with_users(Etcd::builder(version).flag("bcrypt-cost", 4).start().await).await
}

async fn with_users(etcd: Etcd) -> (Etcd, Truth) {
    let open = Truth::new(etcd.client_addr());
    let auth = open.auth();
    auth.add_user("orders", "secret").await.unwrap();
    auth.add_role("services").await.unwrap();
    auth.allow("services", PREFIX).await.unwrap();
    auth.grant_role("orders", "services").await.unwrap();
    let root = auth.enable("root").await.unwrap();
    (etcd, root)
}

fn registry(url: String, password: &str) -> EtcdRegistry {
    let config = EtcdConfig::new([url]).credentials("orders", password);
    let config = config.ttl(Duration::from_secs(5)).suspects_for(Duration::ZERO);
    EtcdRegistry::new(config).unwrap()
}

/// Row 19: the token expires while nothing needs it, and then something does.
#[tokio::test(flavor = "multi_thread")]
async fn row_19_an_expired_token_is_replaced() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        let registry = registry(proxy.url(), "secret");
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        registration.registered().await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        sleep(Duration::from_secs(6)).await; // the token's time is over
        registration.update(|instance| instance.address = "127.0.0.1:2".parse().unwrap()).unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        registration.registered().await.unwrap();
        sleep(Duration::from_secs(6)).await; // again
        proxy.cut_once();
        truth.put(key("orders", "2"), value(2)).await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        sleep(Duration::from_secs(6)).await; // again
        registration.deregister().await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
    })
    .await;
}

/// Row 20: access is taken away and given back.
#[tokio::test(flavor = "multi_thread")]
async fn row_20_lost_access_is_said_and_found_again() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        truth.put(key("orders", "1"), value(1)).await.unwrap();
        let view = View::new(registry(proxy.url(), "secret").watch_all());
        view.until_true(&truth, PREFIX, NOW).await;

        truth.auth().revoke_role("orders", "services").await.unwrap();
        proxy.cut_once();
        let stale = view.until_stale(NOW).await;
        eventually(NOW_AFTER_OUTAGE, "the status says why", async || {
            let error = view.status().state.error().map(ToString::to_string).unwrap_or_default();
            if error.contains("permission denied") { Ok(()) } else { Err(error) }
        })
        .await;
        assert_eq!(view.set().len(), 1);
        let connections = proxy.accepted();
        sleep(Duration::from_secs(4)).await; // long enough for a hasty one
        assert!(proxy.accepted() - connections <= 1, "tried again slowly");
        assert_eq!(view.status().since, stale.since);

        truth.auth().grant_role("orders", "services").await.unwrap();
        truth.put(key("orders", "2"), value(2)).await.unwrap();
        view.until_true(&truth, PREFIX, Duration::from_secs(13)).await;
    })
    .await;
}

/// How many passwords etcd has checked so far.
async fn authentications(etcd: &Etcd) -> u64 {
    let mut socket = TcpStream::connect(etcd.client_addr()).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("grpc_server_handled_total"), "{text}");
    let of_auth = |line: &&str| {
        line.starts_with("grpc_server_handled_total{") && line.contains("\"Authenticate\"")
    };
    let numbers = text.lines().filter(of_auth).map(|line| line.rsplit(' ').next().unwrap());
    numbers.map(|number| number.parse::<u64>().unwrap()).sum()
}

/// To check a password takes etcd a tenth of a second of a processor.
#[tokio::test(flavor = "multi_thread")]
async fn row_20_many_who_are_denied_have_no_password_checked_for_it() {
    on_each_version(async |version| {
        let (etcd, truth) = quick(version).await;
        let registry = registry(etcd.url(), "secret");
        let allowed = View::new(registry.watch(&"orders".parse().unwrap()));
        allowed.until_fresh(NOW).await;
        truth.auth().revoke_role("orders", "services").await.unwrap();
        let denied = |number: usize| {
            let service = format!("service-{number}").parse().unwrap();
            View::new(registry.watch(&service))
        };
        let views: Vec<_> = (0..40).map(denied).collect();
        let registrations: Vec<_> = (0..10)
            .map(|number| registry.register(instance("orders", &number.to_string(), 1)))
            .collect();
        let all_are_denied = async || {
            let errors = views
                .iter()
                .map(|view| view.status().last_error)
                .chain(registrations.iter().map(|registration| registration.status().last_error));
            let says = |error: &Option<_>| {
                error.as_ref().is_some_and(|error: &SourceError| {
                    error.to_string().contains("permission denied")
                })
            };
            errors.filter(|error| !says(error)).count()
        };
        eventually(NOW_AFTER_OUTAGE, "all are denied", async || all_are_denied().await == 0).await;
        let before = authentications(&etcd).await;
        // One for each connection, and those of this test.
        assert!(before <= 6, "{before} authentications to begin with");
        let until = Instant::now() + Duration::from_secs(13); // each has tried again by then
        while Instant::now() < until {
            let more = authentications(&etcd).await - before;
            assert!(more <= 3, "{more} more authentications");
            sleep(Duration::from_millis(200)).await;
        }

        truth.auth().grant_role("orders", "services").await.unwrap();
        for view in &views {
            view.until_fresh(Duration::from_secs(13)).await;
        }
        for registration in registrations {
            let registered = registration.registered();
            tokio::time::timeout(slack(Duration::from_secs(13)), registered)
                .await
                .unwrap()
                .unwrap();
        }
    })
    .await;
}

/// Nor is one that was refused checked for each of them; another one is at once.
#[tokio::test(flavor = "multi_thread")]
async fn row_20_a_password_that_was_refused_is_not_checked_for_all_who_want_it() {
    on_each_version(async |version| {
        let (etcd, truth) = quick(version).await;
        let registry = registry(etcd.url(), "secret");
        let before = View::new(registry.watch(&"orders".parse().unwrap()));
        before.until_fresh(NOW).await;
        truth.auth().change_password("orders", "other").await.unwrap();
        let views: Vec<_> = (0..40)
            .map(|number| View::new(registry.watch(&format!("s{number}").parse().unwrap())))
            .collect();
        eventually(NOW_AFTER_OUTAGE, "all say why", async || {
            let errors = views.iter().map(|view| view.status().last_error);
            let errors: Vec<_> = errors.map(|error| error.map(|it| it.to_string())).collect();
            let says = |error: &Option<String>| {
                error.as_ref().is_some_and(|error| error.contains("authentication failed"))
            };
            if errors.iter().all(says) { Ok(()) } else { Err(errors) }
        })
        .await;
        let begun = authentications(&etcd).await;
        assert!(begun <= 6, "{begun} authentications to begin with");
        let until = Instant::now() + Duration::from_secs(13); // each has tried again by then
        while Instant::now() < until {
            let more = authentications(&etcd).await - begun;
            assert!(more <= 3, "{more} more authentications");
            sleep(Duration::from_millis(200)).await;
        }
        registry.set_credentials("orders", "other");
        for view in &views {
            view.until_fresh(NOW).await;
        }
        assert!(before.status().is_fresh());
    })
    .await;
}

/// A wrong password is said, and is no reason to give up.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_tried_again_slowly() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let view = View::new(registry(etcd.url(), "later").watch_all());
        eventually(NOW, "the status says why", async || {
            let error = view.status().state.error().map(ToString::to_string).unwrap_or_default();
            if error.contains("authentication failed") { Ok(()) } else { Err(error) }
        })
        .await;
        let error = view.status().state.error().unwrap().to_string();
        assert!(!error.contains("later"), "the password is in {error}");
        truth.auth().change_password("orders", "later").await.unwrap();
        view.until_true(&truth, PREFIX, Duration::from_secs(13)).await;
    })
    .await;
}
