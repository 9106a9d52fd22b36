//! Instances that vanish from the registry together: they are shown, still serve, and are out at their
//! first failure.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::instances::{Gateway, count, counting, hanging, nowhere, resetting};
use crate::support::{GATEWAY, Http, Program, SOON, WATCH};
use discovery_core::Instance;
use discovery_test_support::{Etcd, eventually, on_each_version};
use http::StatusCode;
use serde_json::json;

/// Longer than any test takes.
const LONG: &str = "--suspect-s=3600";
const PREFIX: &str = "/services/orders/";

fn suspect(id: &str, address: &str) -> Instance {
    let mut instance = Instance::parse("orders", id, address).unwrap();
    instance.suspect = true;
    instance
}

/// A program at this etcd.
fn start(binary: &str, etcd: &Etcd, args: &[&str]) -> Program {
    let etcd = format!("--etcd={}", etcd.url());
    Program::start(binary, &[&[etcd.as_str()], args].concat())
}

/// A gateway at this etcd, and its address. One request after the other, it asks all alike.
async fn gateway(etcd: &Etcd, args: &[&str]) -> (Program, String) {
    let own = ["--listen=127.0.0.1:0", "--policy=least-pending"];
    let gateway = start(GATEWAY, etcd, &[&own, args].concat());
    let address = gateway.address().await;
    (gateway, address)
}

/// Puts an instance by hand, as no node would come back for.
async fn put(etcd: &Etcd, id: &str, address: &str) {
    let value = json!({ "address": address }).to_string();
    etcd.truth().put(format!("{PREFIX}{id}"), value).await.unwrap();
}

/// Waits until the gateway lists these, a suspect with a question mark.
async fn lists(http: &Http, gateway: &str, expected: &[&str]) {
    eventually(SOON, format!("the gateway lists {expected:?}"), async || {
        let page = http.get(format!("{gateway}/services")).await.json();
        let orders = page["services"]["orders"].as_array().cloned().unwrap_or_default();
        let seen: Vec<_> = orders
            .iter()
            .map(|each| {
                let mark = match each.get("suspect") {
                    None => "",
                    Some(said) if *said == json!(true) => "?",
                    Some(other) => panic!("suspect: {other}"),
                };
                format!("{}{mark}", each["id"].as_str().unwrap())
            })
            .collect();
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// Waits until requests have been answered by all of these and by nobody else, without a failure.
async fn serve(http: &Http, gateway: &str, expected: &[&str]) {
    let mut by = BTreeSet::new();
    eventually(SOON, format!("{expected:?} answer"), async || {
        let answer = http.get(format!("{gateway}/send/orders")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        by.insert(answer.served_by().to_owned());
        by.len() == expected.len()
    })
    .await;
    assert!(expected.iter().all(|id| by.contains(*id)), "{by:?}");
}

#[tokio::test]
async fn a_suspect_serves_and_is_out_at_its_first_failure() {
    let gateway = Gateway::start(&["--policy=least-pending", "--retries=4"]).await;
    let (_good, good, served) = counting(200).await;
    let (_failing, failing, failures) = counting(503).await;
    let (_erring, erring, errors) = counting(500).await;
    let (resetting, resets) = resetting().await;
    gateway.registry.insert(suspect("failing", &failing));
    gateway.registry.insert(suspect("erring", &erring));
    gateway.registry.insert(suspect("resetting", &resetting));
    gateway.registry.insert(suspect("dead", &nowhere().await));
    gateway.registry.insert(suspect("good", &good));
    gateway.knows("orders", 5).await;
    let listed = gateway.get("/services").await.json();
    let marked = listed["services"]["orders"].as_array().unwrap();
    assert!(marked.iter().all(|each| each["suspect"] == json!(true)), "{listed}");

    let asked = async || {
        let retries = gateway.retries("orders").await;
        (count(&failures), count(&errors), count(&resets), retries)
    };
    eventually(SOON, "each has been asked", async || {
        let answer = gateway.get("/send/orders").await;
        assert_eq!((answer.status, answer.served_by()), (StatusCode::OK, "good"));
        let seen = asked().await;
        if seen == (1, 1, 1, 3) { Ok(()) } else { Err(seen) }
    })
    .await;
    // Whoever is alive is not out: the last one that can answer is asked all the time, and nobody else
    // is, however long they have been resting.
    let (before, started) = (count(&served), Instant::now());
    while started.elapsed() < Duration::from_millis(1200) {
        assert_eq!(gateway.get("/send/orders").await.served_by(), "good");
    }
    assert!(count(&served) > before);
    assert_eq!(asked().await, (1, 1, 1, 3));

    // With nobody else there, it is asked in spite of all.
    gateway.registry.remove(&suspect("good", &good).key());
    gateway.knows("orders", 4).await;
    let answer = gateway.send("POST", "/send/orders", "body").await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    assert_ne!(answer.body, r#"{"error":"no instances of orders"}"#);
    gateway.add("orders", "good", &good);
    gateway.knows("orders", 5).await;

    // What is a suspect no longer is simply an instance.
    let before = count(&failures);
    gateway.add("orders", "failing", &failing);
    eventually(SOON, "it is asked again and again", async || {
        assert_eq!(gateway.get("/send/orders").await.served_by(), "good");
        count(&failures) >= before + 3
    })
    .await;
}

#[tokio::test]
async fn a_suspect_that_hangs_is_out_too() {
    let gateway = Gateway::start(&["--policy=least-pending", "--timeout-ms=1500"]).await;
    let (_good, good, _) = counting(200).await;
    let (hanging, hangs) = hanging().await;
    gateway.add("orders", "good", &good);
    gateway.registry.insert(suspect("hanging", &hanging));
    gateway.knows("orders", 2).await;
    eventually(SOON, "it has been asked", async || {
        let answer = gateway.get("/send/orders").await;
        count(&hangs) == 1 && answer.status == StatusCode::GATEWAY_TIMEOUT
    })
    .await;
    for _ in 0..100 {
        assert_eq!(gateway.get("/send/orders").await.served_by(), "good");
    }
    assert_eq!(count(&hangs), 1);
}

#[tokio::test]
async fn other_failures_of_a_suspect_do_not_count() {
    let gateway = Gateway::start(&["--retries=0", "--policy=least-pending"]).await;
    let (_good, good, _) = counting(200).await;
    let (_other, other, others) = counting(501).await;
    gateway.registry.insert(suspect("good", &good));
    gateway.registry.insert(suspect("other", &other));
    gateway.knows("orders", 2).await;
    eventually(SOON, "it is asked again and again", async || {
        gateway.get("/send/orders").await;
        count(&others) >= 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vanishes_together_is_kept_as_long_as_told() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let mut servers = Vec::new();
        for id in ["a", "b", "c"] {
            let (server, address, _) = counting(200).await;
            put(&etcd, id, &address).await;
            servers.push((server, address));
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"suspect-s = 0").unwrap();
        let none = format!("--config={}", file.path().display());
        let (_keeps, keeps) = gateway(&etcd, &[LONG]).await;
        let (_short, short) = gateway(&etcd, &["--suspect-s=1"]).await;
        let (_drops, drops) = gateway(&etcd, &[&none]).await;
        let (watch, plain) = (start(WATCH, &etcd, &[LONG]), start(WATCH, &etcd, &[&none]));
        for gateway in [&keeps, &short, &drops] {
            lists(&http, gateway, &["a", "b", "c"]).await;
            serve(&http, gateway, &["a", "b", "c"]).await;
        }
        for watch in [&watch, &plain] {
            watch.line(&[r#""change":"synced""#]).await;
        }

        assert_eq!(etcd.truth().delete_prefix(PREFIX).await.unwrap(), 3);
        lists(&http, &keeps, &["a?", "b?", "c?"]).await;
        serve(&http, &keeps, &["a", "b", "c"]).await;
        for id in ["a", "b", "c"] {
            let id = format!(r#""id":"{id}""#);
            watch.line(&[r#""change":"insert""#, &id, r#""suspect":true"#]).await;
            plain.line(&[r#""change":"remove""#, &id]).await;
        }
        for gateway in [&short, &drops] {
            lists(&http, gateway, &[]).await;
            let answer = http.get(format!("{gateway}/send/orders")).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.error(), "no instances of orders");
        }
        assert!(!plain.stdout().contains("suspect"), "{}", plain.stdout());
        assert!(!watch.stdout().contains(r#""change":"remove""#), "{}", watch.stdout());

        // One that comes back is simply an instance.
        put(&etcd, "b", &servers[1].1).await;
        lists(&http, &keeps, &["a?", "b", "c?"]).await;
        lists(&http, &drops, &["b"]).await;
        serve(&http, &keeps, &["a", "b", "c"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_vanishes_alone_is_gone_in_half_a_second() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let (_server, address, _) = counting(200).await;
        for id in ["a", "b", "c"] {
            put(&etcd, id, &address).await;
        }
        let (_gateway, gateway) = gateway(&etcd, &[LONG]).await;
        let watch = start(WATCH, &etcd, &[LONG]);
        lists(&http, &gateway, &["a", "b", "c"]).await;
        watch.line(&[r#""change":"synced""#]).await;
        let started = Instant::now();
        assert!(etcd.truth().delete(format!("{PREFIX}b")).await.unwrap());
        watch.line(&[r#"{"change":"remove","service":"orders","id":"b"}"#]).await;
        assert!(started.elapsed() >= Duration::from_millis(500), "it did not wait for company");
        lists(&http, &gateway, &["a", "c"]).await;
        serve(&http, &gateway, &["a", "c"]).await;
        assert!(!watch.stdout().contains("suspect"), "{}", watch.stdout());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_ones_among_the_suspects_cost_nobody_a_request() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let http = Http::new();
        let (_server, alive, _) = counting(200).await;
        let dead = nowhere().await;
        let (resetting, resets) = resetting().await;
        for (id, address) in [("a", &alive), ("b", &dead), ("c", &resetting), ("d", &alive)] {
            put(&etcd, id, address).await;
        }
        let (_gateway, gateway) = gateway(&etcd, &[LONG]).await;
        lists(&http, &gateway, &["a", "b", "c", "d"]).await;
        assert_eq!(etcd.truth().delete_prefix(PREFIX).await.unwrap(), 4);
        lists(&http, &gateway, &["a?", "b?", "c?", "d?"]).await;
        eventually(SOON, "the one that fails has been asked", async || {
            let answer = http.get(format!("{gateway}/send/orders")).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            assert!(["a", "d"].contains(&answer.served_by()));
            count(&resets) > 0
        })
        .await;
        // After that everything is sure to be answered, also what may be sent only once.
        for _ in 0..300 {
            let answer = http.post(format!("{gateway}/send/orders"), "body").await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        }
        assert_eq!(count(&resets), 1);
    })
    .await;
}
