//! The failure rows about access: users, roles and tokens.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, key, value};
use discovery_core::{Registrar as _, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, Proxy, Truth, Version, eventually, on_each_version};
use tokio::time::sleep;

/// etcd with users; `orders` may read and write what is under the prefix.
async fn started(version: Version) -> (Etcd, Truth) {
    let etcd = Etcd::builder(version).flag("auth-token-ttl", 3).start().await;
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
