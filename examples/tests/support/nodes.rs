//! Nodes of the service `orders` and gateways, as processes, at a real etcd.

use std::time::Duration;

use discovery_test_support::{Etcd, eventually};
use serde_json::Value;

use super::{GATEWAY, Http, NODE, Program};

/// Starts a node.
pub(crate) fn node(etcd: &Etcd, id: &str, args: &[&str]) -> Program {
    let etcd = format!("--etcd={}", etcd.url());
    let id = format!("--id={id}");
    let own = ["--service=orders", &etcd, &id];
    Program::start(NODE, &[&own, args].concat())
}

/// A node that is in etcd, and its address.
pub(crate) async fn ready(etcd: &Etcd, id: &str, args: &[&str]) -> (Program, String) {
    let node = node(etcd, id, args);
    let line = node.line(&["ready "]).await;
    let address = node.address().await;
    assert_eq!(line, format!("ready id={id} service=orders address={address}"));
    let key = etcd.truth().get(format!("/services/orders/{id}")).await.unwrap();
    assert!(key.is_some(), "said ready before it was in etcd");
    (node, address)
}

/// A gateway that listens, and its address.
pub(crate) async fn gateway(etcd: &Etcd, args: &[&str]) -> (Program, String) {
    let etcd = format!("--etcd={}", etcd.url());
    let own = ["--listen=127.0.0.1:0", &etcd];
    let gateway = Program::start(GATEWAY, &[&own, args].concat());
    let address = gateway.address().await;
    (gateway, address)
}

/// The ids and statuses of `orders` as the gateway lists them.
pub(crate) async fn listed(http: &Http, gateway: &str) -> Vec<String> {
    let page = http.get(format!("{gateway}/services")).await.json();
    let orders = page["services"]["orders"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    orders.iter().map(|each| format!("{} {}", text(&each["id"]), text(&each["status"]))).collect()
}

/// Waits until the gateway lists these.
pub(crate) async fn lists(http: &Http, gateway: &str, limit: Duration, expected: &[&str]) {
    eventually(limit, format!("the gateway lists {expected:?}"), async || {
        let seen = listed(http, gateway).await;
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .await;
}
