//! When balancers come and go.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::Source;
use discovery_test_support::eventually_eq;
use discovery_tower::{ClientError, HttpClientBuilder};
use http_body_util::BodyExt as _;
use tokio::sync::Barrier;
use tower::Service as _;

use crate::{Client, Counting, get, send, server, text};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_use_by_many_at_once_makes_one_balancer() {
    let server = server().await;
    for _ in 0..20 {
        let registry = Counting::default();
        registry.insert("orders", "7", &server.address);
        // As a program has it that chooses its registry when it runs.
        let source: Arc<dyn Source> = Arc::new(registry.source());
        let client = Client::new(source);
        let barrier = Arc::new(Barrier::new(50));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let (mut client, barrier) = (client.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    text(client.call(get("http://orders/")).await.unwrap()).await
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!((registry.watches(), registry.listening()), (1, 1));
    }
}

#[tokio::test]
async fn one_that_is_not_used_is_dropped_and_made_anew_on_the_next_use() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let idle = Duration::from_millis(50);
    let client: Client = HttpClientBuilder::new(registry.source()).idle(idle).build();
    for n in 1..4 {
        text(send(&client, get("http://orders/")).await.unwrap()).await;
        eventually_eq(SOON, "watches", 0, async || registry.listening()).await;
        server.opened(0).await;
        assert_eq!((registry.watches(), client.services().len()), (n, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_it_is_kept_and_not_much_longer() {
    let registry = Counting::default();
    let client = registry.client();
    // Nobody is called: with the clock paused, connections would time out.
    let ask = async || send(&client, get("http://orders/")).await.unwrap_err();
    for _ in 0..3 {
        ask().await;
        tokio::time::sleep(Duration::from_secs(599)).await;
    }
    assert_eq!((registry.watches(), registry.listening()), (1, 1));
    ask().await;
    tokio::time::sleep(Duration::from_secs(676)).await;
    assert_eq!((registry.watches(), registry.listening()), (1, 0));
    ask().await;
    assert_eq!((registry.watches(), registry.listening()), (2, 1));
}

#[tokio::test]
async fn nothing_is_dropped_while_a_call_is_under_way_or_a_body_is_read() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    registry.insert("users", "1", &server.address);
    let idle = Duration::from_millis(20);
    let client: Client = HttpClientBuilder::new(registry.source()).idle(idle).build();
    // Others come and go meanwhile: that long it takes for one that is not used.
    let others = async |n: usize| {
        for _ in 0..n {
            send(&client, get("http://users/")).await.unwrap();
            eventually_eq(SOON, "services", 1, async || client.services().len()).await;
        }
    };

    let mut held = client.clone();
    let held = tokio::spawn(async move { held.call(get("http://orders/held")).await });
    server.holding(1).await;
    others(3).await;
    assert_eq!(client.services()[0].0.as_str(), "orders");
    let mut trickle = send(&client, get("http://orders/trickle")).await.unwrap();
    others(3).await;
    server.release();
    text(held.await.unwrap().unwrap()).await;
    assert!(trickle.body_mut().frame().await.unwrap().is_ok());
    others(3).await;
    assert_eq!(client.services()[0].0.as_str(), "orders");
    trickle.into_body().collect().await.unwrap();
    eventually_eq(SOON, "services", 0, async || client.services().len()).await;
    eventually_eq(SOON, "watches", 0, async || registry.listening()).await;
}

#[tokio::test]
async fn a_call_or_a_body_that_is_given_up_keeps_nothing() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let idle = Duration::from_millis(20);
    let client: Client = HttpClientBuilder::new(registry.source()).idle(idle).build();
    drop(send(&client, get("http://orders/trickle")).await.unwrap());
    eventually_eq(SOON, "watches", 0, async || registry.listening()).await;
    let mut held = client.clone();
    let held = tokio::spawn(async move { held.call(get("http://orders/held")).await });
    server.holding(1).await;
    held.abort();
    eventually_eq(SOON, "watches", 0, async || registry.listening()).await;
    assert_eq!(registry.watches(), 2);
}

#[tokio::test]
async fn with_the_last_clone_all_watches_end_and_connections_close() {
    let servers = [server().await, server().await];
    let registry = Counting::default();
    registry.insert("orders", "7", &servers[0].address);
    registry.insert("users", "1", &servers[1].address);
    let client = registry.client();
    let clone = client.clone();
    for uri in ["http://orders/", "http://users/"] {
        text(send(&client, get(uri)).await.unwrap()).await;
    }
    drop(client);
    text(send(&clone, get("http://orders/")).await.unwrap()).await;
    assert_eq!(registry.listening(), 2);
    assert_eq!((servers[0].open(), servers[1].open()), (1, 1));
    drop(clone);
    eventually_eq(SOON, "watches", 0, async || registry.listening()).await;
    servers[0].opened(0).await;
    servers[1].opened(0).await;
}

#[tokio::test]
async fn what_is_under_way_outlives_the_last_clone() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let client = registry.client();
    let trickle = send(&client, get("http://orders/trickle")).await.unwrap();
    let held = tokio::spawn(client.clone().call(get("http://orders/held")));
    server.holding(1).await;
    drop(client);
    eventually_eq(SOON, "watches", 0, async || registry.listening()).await;
    assert_eq!(server.open(), 2);
    server.release();
    trickle.into_body().collect().await.unwrap();
    text(held.await.unwrap().unwrap()).await;
    server.opened(0).await;
}

#[tokio::test]
async fn there_are_no_more_services_than_allowed_and_none_in_use_goes() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let client: Client = HttpClientBuilder::new(registry.source()).max_services(2).build();
    let held = tokio::spawn(client.clone().call(get("http://orders/held")));
    server.holding(1).await;
    for n in 0..20 {
        let unknown = send(&client, get(&format!("http://unknown-{n}/"))).await.unwrap_err();
        assert!(matches!(unknown, ClientError::Call(_)), "{unknown:?}");
    }
    assert_eq!(client.services().len(), 2);
    eventually_eq(SOON, "watches", 2, async || registry.listening()).await;
    server.release();
    text(held.await.unwrap().unwrap()).await;
    assert_eq!(registry.watches(), 21);
}
