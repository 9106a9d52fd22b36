//! How much there is of everything at most.

use std::time::Duration;

use discovery_tower::balance::CallError;
use discovery_tower::{ClientError, HttpClientBuilder, Limits, PoolConfig};
use tower::Service as _;

use crate::{Client, Counting, get, send, server, text};

fn pool(registry: &Counting, pool: PoolConfig) -> Client {
    HttpClientBuilder::new(registry.source()).pool(pool).build()
}

async fn one() -> (crate::Server, Counting) {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    (server, registry)
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed() {
    let (server, registry) = one().await;
    let client = pool(&registry, PoolConfig::default().max_connections(2));
    let calls: Vec<_> =
        (0..20).map(|_| tokio::spawn(client.clone().call(get("http://orders/slow")))).collect();
    for call in calls {
        text(call.await.unwrap().unwrap()).await;
    }
    assert_eq!(server.requests(), 20);
    assert_eq!(server.most(), 2);
}

#[tokio::test]
async fn a_connection_that_is_not_used_is_kept_as_long_as_allowed_and_as_many_are() {
    let (server, registry) = one().await;
    let client = pool(&registry, PoolConfig::default().idle_timeout(Duration::from_millis(50)));
    text(send(&client, get("http://orders/")).await.unwrap()).await;
    server.opened(0).await;

    let client = pool(&registry, PoolConfig::default().max_idle(1));
    let calls: Vec<_> =
        (0..5).map(|_| tokio::spawn(client.clone().call(get("http://orders/held")))).collect();
    server.holding(5).await;
    server.release();
    for call in calls {
        text(call.await.unwrap().unwrap()).await;
    }
    server.opened(1).await;
}

#[tokio::test]
async fn no_more_calls_wait_than_may() {
    let (server, registry) = one().await;
    let limits = Limits::default().waiting(2);
    let client: Client = HttpClientBuilder::new(registry.source())
        .pool(PoolConfig::default().max_connections(1))
        .limits(limits)
        .build();
    let call = |client: &Client| tokio::spawn(client.clone().call(get("http://orders/held")));
    let first = call(&client);
    server.holding(1).await;
    // They are polled in the order in which they were spawned.
    let waiting = [call(&client), call(&client)];
    let error = call(&client).await.unwrap().unwrap_err();
    let ClientError::Call(CallError::TooManyWaiting { service, limit: 2 }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(service.as_deref(), Some("orders"));
    assert_eq!(error.to_string(), "2 calls wait for the endpoints of orders, and no more may");
    assert!(error.is_unsent() && !error.is_timeout());

    // When they have been served there is room again.
    server.release();
    for call in [first].into_iter().chain(waiting) {
        text(call.await.unwrap().unwrap()).await;
    }
    text(send(&client, get("http://orders/")).await.unwrap()).await;
}
