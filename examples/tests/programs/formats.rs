//! The programs and instances that stand in etcd in another format than the native one.

use crate::support::{GATEWAY, Http, NODE, Program, SOON, WATCH};
use discovery_test_support::{Etcd, eventually, on_each_version};
use http::StatusCode;
use serde_json::Value;

const HEARTBEAT: &str = "--format=heartbeat";

fn start(binary: &str, etcd: &Etcd, args: &[&str]) -> Program {
    let etcd = format!("--etcd={}", etcd.url());
    Program::start(binary, &[&[HEARTBEAT, &etcd], args].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_put_by_any_tool_is_seen_and_reached() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let gateway = start(GATEWAY, &etcd, &["--listen=127.0.0.1:0"]);
        let address = gateway.address().await;
        let watch = start(WATCH, &etcd, &["--service=worker"]);
        watch.line(&[r#""change":"synced""#]).await;

        // One that serves, in etcd as anybody could have put it.
        let native = format!("--etcd={}", etcd.url());
        let server = Program::start(NODE, &["--service=other", "--id=x", &native]);
        let url = server.address().await;
        let key = format!("heartbeat|worker|{url}");
        etcd.truth().put(&key, &url).await.unwrap();
        etcd.truth()
            .put("heartbeat|worker2|http://127.0.0.1:9", "http://127.0.0.1:9")
            .await
            .unwrap();
        etcd.truth().put("heartbeat|worker|http://127.0.0.1:1", "").await.unwrap();
        let insert = format!(r#"{{"change":"insert","service":"worker","id":"{url}","#);
        let line = watch.line(&[&insert]).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["endpoint"]["address"], url.as_str());
        eventually(SOON, "the gateway lists it", async || {
            let page = http.get(format!("{address}/services")).await.json();
            let (one, two) = (&page["services"]["worker"][0]["id"], &page["services"]["worker2"]);
            let seen = *one == url.as_str() && two.as_array().is_some_and(|two| two.len() == 1);
            if seen { Ok(()) } else { Err(page) }
        })
        .await;
        let answer = http.get(format!("{address}/send/worker/a")).await;
        assert_eq!((answer.status, answer.served_by()), (StatusCode::OK, &*url));

        etcd.truth().delete(&key).await.unwrap();
        watch.line(&[&format!(r#"{{"change":"remove","service":"worker","id":"{url}"}}"#)]).await;
        assert!(!watch.stdout().contains("127.0.0.1:9"), "{}", watch.stdout());
        let said = watch.stderr().lines().filter(|line| line.contains("not an instance")).count();
        assert_eq!(said, 1, "{}", watch.stderr());
        assert_eq!(gateway.stop().await, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stands_there_as_a_heartbeat_with_a_lease_and_is_known_by_its_url() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let gateway = start(GATEWAY, &etcd, &["--listen=127.0.0.1:0", "--prefix=/x"]);
        let address = gateway.address().await;
        let warned = gateway.stderr().lines().filter(|line| line.contains("--prefix")).count();
        assert_eq!(warned, 1, "{}", gateway.stderr());

        let node = start(NODE, &etcd, &["--service=worker"]);
        let ready = node.line(&["ready "]).await;
        let url = node.address().await;
        assert_eq!(ready, format!("ready id={url} service=worker address={url}"));
        assert!(!node.stderr().contains("--prefix"), "{}", node.stderr());
        let key = format!("heartbeat|worker|{url}");
        let entry = etcd.truth().get(&key).await.unwrap().expect("it said ready");
        assert_eq!(entry.value, url.as_bytes());
        assert_ne!(entry.lease, 0);
        assert_eq!(etcd.truth().count("heartbeat|").await.unwrap(), 1);

        eventually(SOON, "the gateway reaches it", async || {
            let answer = http.get(format!("{address}/send/worker")).await;
            answer.status == StatusCode::OK && answer.served_by() == url
        })
        .await;
        let answer = http.get(&url).await;
        assert_eq!(answer.header("x-instance"), url);
        assert_eq!(node.stop().await, Some(0));
        assert!(node.stdout().ends_with(&format!("stopped id={url}\n")), "{}", node.stdout());
        assert_eq!(etcd.truth().get(&key).await.unwrap(), None);
    })
    .await;
}
