//! The programs and a real etcd: instances that come, go and die in it are followed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::nodes::{gateway, listed, lists, node, ready};
use crate::support::{Http, Program, SOON, WATCH, request};
use discovery_test_support::{Etcd, eventually, on_each_version, slack};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

fn watch(etcd: &Etcd, args: &[&str]) -> Program {
    let etcd = format!("--etcd={}", etcd.url());
    Program::start(WATCH, &[&[etcd.as_str()], args].concat())
}

async fn state(http: &Http, gateway: &str) -> Value {
    http.get(format!("{gateway}/services")).await.json()["source"].clone()
}

/// Requests without a pause, until it is stopped.
struct Load {
    workers: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    fn start(gateway: &str, method: Method) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..8 {
            let url = format!("{gateway}/send/orders/load");
            let (method, stop, answered) = (method.clone(), stop.clone(), answered.clone());
            workers.spawn(async move {
                let http = Http::new();
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match http.try_send(request(method.clone(), &url, "")).await {
                        Ok(answer) if answer.status == StatusCode::OK => {}
                        failed => failures.push(format!("{failed:?}")),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                failures
            });
        }
        Self { workers, stop, answered }
    }

    /// Waits until this many more have been answered.
    async fn goes_on(&self, more: usize) {
        let target = self.answered.load(Ordering::Relaxed) + more;
        eventually(SOON * 2, format!("{more} more requests are answered"), async || {
            self.answered.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    /// Ends it; none of the requests may have failed.
    async fn none_failed(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> = self.workers.join_all().await.into_iter().flatten().collect();
        let count = self.answered.load(Ordering::Relaxed);
        assert!(
            failures.is_empty(),
            "{} of {count} failed: {:?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        assert!(count > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_come_and_go_are_followed() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let (_gateway, address) = gateway(&etcd, &[]).await;
        let watch = watch(&etcd, &[]);
        watch.line(&[r#""change":"synced""#]).await;
        let mut nodes = Vec::new();
        for id in ["a", "b", "c"] {
            nodes.push(ready(&etcd, id, &["--zone=z", "--weight=2"]).await);
        }
        lists(&http, &address, SOON, &["a up", "b up", "c up"]).await;
        let page = http.get(format!("{address}/metrics")).await;
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        for figure in [
            "gateway_endpoints{service=\"orders\"} 3",
            "discovery_etcd_lists_total{prefix=\"/services/\"} 1",
        ] {
            assert!(page.lines().any(|line| line == figure), "{figure} is not in\n{page}");
        }
        let mut served = BTreeSet::new();
        eventually(SOON, "all of them are asked", async || {
            let answer = http.get(format!("{address}/send/orders/x")).await;
            assert_eq!(answer.status, StatusCode::OK);
            served.insert(answer.served_by().to_owned());
            served.len() == 3
        })
        .await;
        let inserted =
            watch.line(&[r#"{"change":"insert","service":"orders","id":"b","endpoint":{"#]).await;
        let inserted: Value = serde_json::from_str(&inserted).unwrap();
        assert_eq!(inserted["endpoint"]["address"], json!(nodes[1].1));
        assert_eq!(
            (&inserted["endpoint"]["zone"], &inserted["endpoint"]["weight"]),
            (&json!("z"), &json!(2))
        );

        // What any other tool puts there is an instance too, and one where nobody is costs nobody.
        let by_hand = r#"{"Id":"x","Name":"orders","Address":"http://127.0.0.1:9"}"#;
        etcd.truth().put("/services/orders/x", by_hand).await.unwrap();
        lists(&http, &address, SOON, &["a up", "b up", "c up", "x up"]).await;
        watch.line(&[r#""change":"insert""#, r#""id":"x""#, "http://127.0.0.1:9"]).await;
        let load = Load::start(&address, Method::POST);
        load.goes_on(1000).await;
        load.none_failed().await;
        etcd.truth().delete("/services/orders/x").await.unwrap();
        lists(&http, &address, SOON, &["a up", "b up", "c up"]).await;
        watch.line(&[r#"{"change":"remove","service":"orders","id":"x"}"#]).await;

        // One that is told to go is announced, and nobody notices.
        let load = Load::start(&address, Method::POST);
        load.goes_on(500).await;
        assert_eq!(nodes[0].0.stop().await, Some(0));
        assert!(nodes[0].0.stdout().ends_with("stopped id=a\n"), "{}", nodes[0].0.stdout());
        lists(&http, &address, SOON, &["b up", "c up"]).await;
        load.goes_on(500).await;
        load.none_failed().await;
        assert_eq!(etcd.truth().count("/services/orders/").await.unwrap(), 2);
        watch.line(&[r#""id":"a""#, r#""status":"draining""#]).await;
        assert_eq!(watch.stop().await, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_killed_costs_nobody_a_request() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let (gateway, address) = gateway(&etcd, &[]).await;
        let (_a, _) = ready(&etcd, "a", &["--ttl=3"]).await;
        let (b, _) = ready(&etcd, "b", &["--ttl=3"]).await;
        let (_c, _) = ready(&etcd, "c", &["--ttl=3"]).await;
        lists(&http, &address, SOON, &["a up", "b up", "c up"]).await;
        let load = Load::start(&address, Method::GET);
        load.goes_on(500).await;
        b.process.kill();
        load.goes_on(500).await;
        // By its lease: the time to live, and etcd looks for the dead every half second.
        lists(&http, &address, SOON, &["a up", "c up"]).await;
        load.goes_on(200).await;
        load.none_failed().await;
        assert_eq!(gateway.stop().await, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_may_go_and_come_back() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let (_gateway, address) = gateway(&etcd, &[]).await;
        let watch = watch(&etcd, &["--service=orders"]);
        let (_a, _) = ready(&etcd, "a", &["--ttl=30"]).await;
        lists(&http, &address, SOON, &["a up"]).await;
        watch.line(&[r#""id":"a""#]).await;
        assert_eq!(state(&http, &address).await["state"], "fresh");
        let load = Load::start(&address, Method::GET);

        etcd.kill();
        let stale = eventually(SOON, "the gateway is stale", async || {
            let state = state(&http, &address).await;
            if state["state"] == "stale" { Ok(state) } else { Err(state) }
        })
        .await;
        assert!(stale["error"].is_string(), "{stale}");
        assert_eq!(listed(&http, &address).await, ["a up"]);
        watch.line(&[r#"{"status":"stale","error":""#]).await;
        load.goes_on(300).await;

        etcd.restart().await;
        eventually(SOON, "the gateway is fresh", async || {
            let state = state(&http, &address).await;
            if state["state"] == "fresh" { Ok(()) } else { Err(state) }
        })
        .await;
        let (_b, _) = ready(&etcd, "b", &[]).await;
        lists(&http, &address, SOON, &["a up", "b up"]).await;
        watch.line(&[r#""change":"insert""#, r#""id":"b""#]).await;
        load.none_failed().await;
        assert!(!watch.stdout().contains("remove"), "{}", watch.stdout());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_they_wait_and_say_so() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        etcd.kill();
        let http = Http::new();
        let (_gateway, address) = gateway(&etcd, &[]).await;
        let watch = watch(&etcd, &[]);
        let waiting = node(&etcd, "a", &[]);
        let given_up = node(&etcd, "b", &[]);
        for program in [&waiting, &given_up] {
            eventually(SOON, "the node says that etcd is away", async || {
                let stderr = program.stderr();
                if stderr.contains("refused") { Ok(()) } else { Err(stderr) }
            })
            .await;
        }
        let warns = || watch.stderr().lines().filter(|line| line.contains("WARN")).count();
        eventually(SOON, "watch says that etcd is away", async || warns() > 0).await;
        assert_eq!(
            http.get(format!("{address}/healthz")).await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        let before = Instant::now();
        let answer = http.get(format!("{address}/send/orders")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.error().contains("refused"), "{answer:?}");
        assert!(before.elapsed() < slack(Duration::from_secs(7)));
        // One that waits can be told to stop.
        let before = Instant::now();
        assert_eq!(given_up.stop().await, Some(0));
        assert!(before.elapsed() < slack(Duration::from_secs(3)));
        assert_eq!(given_up.stdout(), "stopped id=b\n");

        etcd.restart().await;
        waiting.line(&["ready id=a"]).await;
        watch.line(&[r#""change":"insert""#, r#""id":"a""#]).await;
        assert!(watch.stdout().starts_with(r#"{"change":"#), "{}", watch.stdout());
        assert_eq!(warns(), 1, "{}", watch.stderr());
        lists(&http, &address, SOON, &["a up"]).await;
        assert_eq!(http.get(format!("{address}/healthz")).await.status, StatusCode::OK);
        assert_eq!(waiting.stop().await, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_stopped_while_etcd_is_away() {
    on_each_version(async |version| {
        for silent in [false, true] {
            let etcd = Etcd::start(version).await;
            let http = Http::new();
            let (node, address) = ready(&etcd, "a", &["--ttl=5", "--delay-ms=1500"]).await;
            // Gone, or there without a word.
            if silent {
                etcd.pause();
            } else {
                etcd.kill();
            }
            let before = Instant::now();
            let (code, answer) = tokio::join!(node.stop(), http.get(&address));
            let took = before.elapsed();
            assert_eq!(code, Some(0), "{}", node.stderr());
            // A second for etcd to show it, half of one for callers to see it, and three to take it away.
            assert!(took < slack(Duration::from_secs(7)), "{took:?}: {}", node.stderr());
            assert_eq!((answer.status, answer.header("x-instance")), (StatusCode::OK, "a"));
            assert!(node.stdout().ends_with("\nstopped id=a\n"), "{}", node.stdout());
            let warns =
                |text| node.stderr().lines().any(|it| it.contains("WARN") && it.contains(text));
            assert!(warns("could not confirm that orders/a is gone"), "{}", node.stderr());
            if silent {
                etcd.resume();
            } else {
                etcd.restart().await;
            }
            // Its lease takes it away, and nobody is there who would bring it back.
            eventually(Duration::from_secs(5) + SOON, "it is gone", async || {
                etcd.truth().get("/services/orders/a").await.is_ok_and(|value| value.is_none())
            })
            .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_while_etcd_is_away_serves_what_was_there() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let directory = tempfile::tempdir().unwrap();
        let last_good = format!("--last-good={}", directory.path().join("sets").display());
        let (node, _) = ready(&etcd, "a", &["--ttl=600"]).await;
        let (before, address) = gateway(&etcd, &[&last_good]).await;
        lists(&http, &address, SOON, &["a up"]).await;
        let file = directory.path().join("sets/all.last-good");
        eventually(SOON, "it is saved", async || file.exists()).await;
        assert_eq!(before.stop().await, Some(0));

        etcd.kill();
        let (after, address) = gateway(&etcd, &[&last_good]).await;
        lists(&http, &address, SOON, &["a up"]).await;
        let source = state(&http, &address).await;
        assert_eq!(source["state"], json!("stale"));
        let error = source["error"].as_str().unwrap();
        assert!(error.starts_with("from disk, saved ") && error.contains("refused"), "{error}");
        assert_eq!(http.get(format!("{address}/send/orders/x")).await.served_by(), "a");
        // The same option in a file. Another prefix is another place, of which nothing is known.
        let config = directory.path().join("config.toml");
        let text = format!("last-good = '{}'", directory.path().join("sets").display());
        std::fs::write(&config, text).unwrap();
        let config = format!("--config={}", config.display());
        let seen = watch(&etcd, &[&config]);
        seen.line(&[r#"{"status":"stale","error":"from disk, saved "#]).await;
        seen.line(&[r#""change":"insert""#, r#""id":"a""#]).await;
        let elsewhere = watch(&etcd, &[&config, "--prefix=/other"]);
        eventually(SOON, "the file is refused", async || {
            elsewhere.stderr().contains("the saved last good set is ignored")
        })
        .await;
        assert_eq!(elsewhere.stdout(), "");

        etcd.restart().await;
        let (_second, _) = ready(&etcd, "b", &[]).await;
        lists(&http, &address, SOON, &["a up", "b up"]).await;
        seen.line(&[r#""change":"insert""#, r#""id":"b""#]).await;
        assert_eq!(state(&http, &address).await["state"], json!("fresh"));
        let twice = seen.stdout().lines().filter(|line| line.contains(r#""id":"a""#)).count();
        assert_eq!(twice, 1, "what is as it was is not told again");
        for program in [after, seen, elsewhere, node] {
            assert_eq!(program.stop().await, Some(0));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_held_is_not_taken() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let (first, held_by) = ready(&etcd, "a", &[]).await;
        let told = async |program: &Program| {
            eventually(SOON, "the holder is named", async || {
                let stderr = program.stderr();
                let lines = stderr.lines().filter(|line| line.contains(&held_by)).count();
                if lines == 1 { Ok(()) } else { Err(stderr) }
            })
            .await;
        };
        let second = node(&etcd, "a", &[]);
        told(&second).await;
        let third = node(&etcd, "a", &["--on-conflict=fail"]);
        assert_eq!(third.ended().await, Some(3));
        told(&third).await;
        // Also one that waits can be told to stop, and leaves the holder alone.
        let fourth = node(&etcd, "a", &[]);
        told(&fourth).await;
        assert_eq!(fourth.stop().await, Some(0));
        let value = etcd.truth().get("/services/orders/a").await.unwrap().unwrap();
        let value: Value = serde_json::from_slice(&value.value).unwrap();
        assert_eq!(value["address"], json!(held_by));

        assert_eq!(second.stdout(), "");
        assert_eq!(first.stop().await, Some(0));
        second.line(&["ready id=a"]).await;
        told(&second).await;
        assert_eq!(second.stop().await, Some(0));
        assert_eq!(etcd.truth().count("/services/").await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_predecessor_at_our_own_address_is_replaced() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let (first, address) = ready(&etcd, "a", &["--ttl=600"]).await;
        first.process.kill();
        let listen = format!("--listen={}", address.trim_start_matches("http://"));
        let (second, same) = ready(&etcd, "a", &[&listen, "--weight=3"]).await;
        assert_eq!(same, address);
        let value = etcd.truth().get("/services/orders/a").await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&value.value).contains("\"weight\":3"));
        second.process.kill();

        // But not if the address is only said to be ours.
        let advertise = format!("--advertise={address}");
        let other = node(&etcd, "a", &[&advertise]);
        eventually(SOON, "the holder is named", async || other.stderr().contains("held by")).await;
        assert_eq!(other.stdout(), "");
        assert_eq!(other.stop().await, Some(0));
    })
    .await;
}
