//! Instances of the service `orders` and gateways, as processes, at a real etcd.

use std::collections::BTreeSet;
use std::time::Duration;

use discovery_test_support::{Etcd, eventually};
use serde_json::Value;

use super::{GATEWAY, Http, NODE, Program, SOON};

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

/// What is in etcd of `orders`.
pub(crate) async fn registered(etcd: &Etcd) -> Vec<Value> {
    let all = etcd.truth().range("/services/orders/").await.unwrap();
    all.values().map(|kv| serde_json::from_slice(&kv.value).unwrap()).collect()
}

/// The ids of these.
pub(crate) fn ids<'a>(instances: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    instances.into_iter().map(|each| each["id"].as_str().unwrap().to_owned()).collect()
}

/// A server that says nothing and has an id of its own making: when it is in etcd and up, with its id and
/// address. There may be none beside it that starts.
pub(crate) async fn server(etcd: &Etcd, binary: &str) -> (Program, String, String) {
    let before = ids(&registered(etcd).await);
    let nothing: &[&str] = &[];
    let server = Program::start_with(binary, nothing, &[("DISCOVERY_ETCD", &etcd.url())]);
    let instance = eventually(SOON, "it is registered", async || {
        let all = registered(etcd).await;
        let mut up = all.into_iter().filter(|each| each["status"] == "up");
        let new = up.find(|each| !before.contains(each["id"].as_str().unwrap()));
        new.ok_or_else(|| server.stderr())
    })
    .await;
    let text = |name: &str| instance[name].as_str().unwrap().to_owned();
    (server, text("id"), text("address"))
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
