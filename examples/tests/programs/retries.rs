//! When the gateway tries another instance, and when it does not.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::support::SOON;
use crate::support::instances::{Gateway, count, counting, nowhere, resetting};
use discovery_test_support::eventually;
use http::StatusCode;

#[tokio::test]
async fn what_was_not_sent_goes_to_another_instance_whatever_the_method() {
    let (_server, address, _) = counting(200).await;
    let large = "x".repeat(1_000_000).leak();
    for (method, body) in
        [("GET", ""), ("POST", "small"), ("POST", &*large), ("PUT", "small"), ("PATCH", "x")]
    {
        let gateway = Gateway::start(&["--policy=least-pending"]).await;
        gateway.add("orders", "dead", &nowhere().await);
        gateway.add("orders", "alive", &address);
        gateway.knows("orders", 2).await;
        for _ in 0..20 {
            let answer = gateway.send(method, "/send/orders", body).await;
            assert_eq!((answer.status, answer.served_by()), (StatusCode::OK, "alive"), "{method}");
            assert_eq!(answer.body, body, "{method}");
        }
        // Nothing was sent twice: who cannot be connected to has never had it.
        assert_eq!(gateway.retries("orders").await, 0);
    }
}

#[tokio::test]
async fn a_lost_connection_is_followed_by_another_attempt_only_if_it_may_be_repeated() {
    let gateway = Gateway::start(&["--policy=least-pending"]).await;
    let (address, resets) = resetting().await;
    let (_server, good, _) = counting(200).await;
    gateway.add("orders", "bad", &address);
    gateway.add("orders", "good", &good);
    gateway.knows("orders", 2).await;
    let before = count(&resets);
    for method in ["GET", "DELETE", "OPTIONS", "PUT"].iter().cycle().take(40) {
        let body = if *method == "PUT" { "body" } else { "" };
        let answer = gateway.send(method, "/send/orders", body).await;
        assert_eq!((answer.status, answer.served_by()), (StatusCode::OK, "good"), "{method}");
        assert_eq!(answer.body, body);
    }
    assert!(count(&resets) > before, "the bad one was never asked");
    eventually(SOON, "a POST is lost", async || {
        let before = count(&resets);
        let answer = gateway.send("POST", "/send/orders", "body").await;
        match count(&resets) - before {
            0 => {
                assert_eq!(answer.status, StatusCode::OK);
                false
            }
            times => {
                assert_eq!((answer.status, times), (StatusCode::BAD_GATEWAY, 1), "{answer:?}");
                assert!(answer.error().contains("orders/bad at http://"), "{answer:?}");
                true
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_retried_elsewhere_as_often_as_told() {
    let gateway = Gateway::start(&["--retries=2"]).await;
    let mut servers = Vec::new();
    for (id, status) in [("a", 500), ("b", 502), ("c", 503), ("d", 504)] {
        let (server, address, count) = counting(status).await;
        gateway.add("orders", id, &address);
        servers.push((server, count));
    }
    gateway.knows("orders", 4).await;
    let all = || servers.iter().map(|(_, each)| count(each)).collect::<Vec<_>>();
    let answer = gateway.send("PUT", "/send/orders", "body").await;
    // The last answer is passed on as it is.
    assert!(answer.status.is_server_error());
    assert_eq!(answer.body, "body");
    assert!(["a", "b", "c", "d"].contains(&answer.served_by()));
    assert_eq!(all().iter().sum::<usize>(), 3);
    assert!(all().iter().all(|count| *count <= 1), "asked twice: {:?}", all());
    let answer = gateway.send("POST", "/send/orders", "body").await;
    assert!(answer.status.is_server_error());
    assert_eq!(all().iter().sum::<usize>(), 4);

    // With nobody else to ask, the answer there is counts.
    let gateway = Gateway::start(&[]).await;
    let (_server, address, count) = counting(503).await;
    gateway.add("orders", "a", &address);
    gateway.knows("orders", 1).await;
    let answer = gateway.get("/send/orders").await;
    assert_eq!((answer.status, answer.served_by()), (StatusCode::SERVICE_UNAVAILABLE, "a"));
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_body_too_long_to_be_kept_is_sent_once() {
    let gateway = Gateway::start(&[]).await;
    let mut counts = Vec::new();
    let mut servers = Vec::new();
    for id in ["a", "b"] {
        let (server, address, count) = counting(500).await;
        gateway.add("orders", id, &address);
        counts.push(count);
        servers.push(server);
    }
    gateway.knows("orders", 2).await;
    let long = "x".repeat(64 * 1024 + 1).leak();
    let all = || counts.iter().map(|each| count(each)).sum::<usize>();
    gateway.send("PUT", "/send/orders", long).await;
    assert_eq!(all(), 1);
    gateway.send("PUT", "/send/orders", &long[1..]).await;
    assert_eq!(all(), 3);
}

#[tokio::test]
async fn retries_end_with_the_budget() {
    let gateway = Gateway::start(&["--retries=1"]).await;
    let mut counts = Vec::new();
    let mut servers = Vec::new();
    for id in ["a", "b"] {
        let (server, address, count) = counting(500).await;
        gateway.add("orders", id, &address);
        counts.push(count);
        servers.push(server);
    }
    gateway.knows("orders", 2).await;
    let started = Instant::now();
    for _ in 0..400 {
        gateway.get("/send/orders").await;
    }
    let retries = counts.iter().map(|each| count(each)).sum::<usize>() - 400;
    // 10 s of 10 each in advance, a fifth of the requests, and 10 for each second that this took.
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let most = 100 + 80 + 10 * seconds;
    assert!((100..=most).contains(&retries), "{retries} retries in {seconds} s");
    assert_eq!(gateway.retries("orders").await, u64::try_from(retries).unwrap());
}
