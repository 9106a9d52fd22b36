//! Ordinary hosts: they pass through if that is allowed.

use std::time::Duration;

use discovery_test_support::eventually_eq;
use discovery_tower::http::RetryLayer;
use discovery_tower::{ClientError, HttpClientBuilder, HttpError, HttpErrorKind, Limits};
use tower::{Layer as _, Service as _};

use crate::support::server::{Shut, refused, shutting};
use crate::{Body, Client, Counting, get, send, served_by, server, text};

fn local(registry: &Counting) -> HttpClientBuilder {
    let local = |uri: &http::Uri| uri.host().is_some_and(|host| host == "127.0.0.1");
    HttpClientBuilder::new(registry.source()).pass_through(local)
}

#[tokio::test]
async fn a_host_that_is_allowed_is_reached_and_others_are_services() {
    let (host, orders) = (server().await, server().await);
    let registry = Counting::default();
    registry.insert("orders", "7", &orders.address);
    let client: Client = local(&registry).build();
    for _ in 0..3 {
        let response = send(&client, get(&format!("{}/a?b=c", host.address))).await.unwrap();
        let authority = host.address.strip_prefix("http://").unwrap();
        assert_eq!(served_by(&response), format!("127.0.0.1/{authority}"));
        let seen = text(response).await;
        assert!(seen.contains("/a?b=c") && seen.contains(authority), "{seen}");
    }
    assert_eq!((host.accepted(), host.requests()), (1, 3));
    assert_eq!((registry.watches(), client.services().len()), (0, 0));

    let response = send(&client, get("http://orders/")).await.unwrap();
    assert_eq!(served_by(&response), "orders/7");
    let error = send(&client, get("http://localhost:80/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Port { .. }), "{error:?}");
    let error = send(&client, get("https://127.0.0.1/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Scheme { .. }), "{error:?}");
    let error = send(&client, get("http://127.0.0.1:0/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Invalid(_)), "{error:?}");
}

#[tokio::test]
async fn a_host_that_nobody_allowed_is_refused() {
    let host = server().await;
    let client = Counting::default().client();
    let error = send(&client, get(&host.address)).await.unwrap_err();
    assert!(matches!(error, ClientError::Port { .. }), "{error:?}");
    assert_eq!(host.accepted(), 0);
}

#[tokio::test]
async fn a_host_that_fails_says_so_and_is_not_asked_twice() {
    let limits = Limits::default().failed(Duration::from_millis(50));
    let client: Client = local(&Counting::default()).limits(limits).build();
    let error = send(&client, get(&refused())).await.unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(error.is_unsent());

    let resets = shutting(Shut::Reset).await;
    let mut client = RetryLayer::new(3).layer(local(&Counting::default()).build());
    let error = client.call(get(&resets)).await.unwrap_err();
    let lost = error.downcast_ref::<HttpError<discovery_tower::http::Replay<Body>>>().unwrap();
    assert_eq!(lost.kind(), HttpErrorKind::Reset);
}

#[tokio::test]
async fn there_are_no_more_hosts_than_allowed_and_the_one_unused_for_longest_goes() {
    let servers = [server().await, server().await, server().await];
    let client: Client = local(&Counting::default()).max_hosts(2).build();
    for server in &servers {
        text(send(&client, get(&server.address)).await.unwrap()).await;
    }
    servers[0].opened(0).await;
    assert_eq!((servers[1].open(), servers[2].open()), (1, 1));

    let held = [1, 2].map(|n: usize| {
        let mut client = client.clone();
        let request = get(&format!("{}/held", servers[n].address));
        tokio::spawn(async move { client.call(request).await })
    });
    for server in &servers[1..] {
        server.holding(1).await;
    }
    let error = send(&client, get(&servers[0].address)).await.unwrap_err();
    assert!(matches!(error, ClientError::TooMany { limit: 2, .. }), "{error:?}");
    for (server, held) in servers[1..].iter().zip(held) {
        server.release();
        text(held.await.unwrap().unwrap()).await;
    }
    text(send(&client, get(&servers[0].address)).await.unwrap()).await;
}

#[tokio::test]
async fn a_host_that_is_not_used_is_let_go() {
    let host = server().await;
    let client: Client = local(&Counting::default()).idle(Duration::from_millis(50)).build();
    text(send(&client, get(&host.address)).await.unwrap()).await;
    assert_eq!(host.open(), 1);
    eventually_eq(Duration::from_secs(10), "connections", 0, async || host.open()).await;
    text(send(&client, get(&host.address)).await.unwrap()).await;
}
