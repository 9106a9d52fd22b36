//! What becomes of connections when nobody needs them.

use std::time::Duration;

use discovery_tower::PoolConfig;
use tower::{Service as _, ServiceExt as _};

use super::server::soon;
use super::{begin, both, call, get, post, served, streaming, text};

#[tokio::test]
async fn with_the_last_clone_idle_connections_close_and_requests_in_flight_finish() {
    for config in both() {
        let (server, endpoint) = served(&config).await;
        let held = begin(&endpoint, get("/held")).await;
        server.holding(1).await;
        let mut other = endpoint.clone();
        soon(other.ready()).await.unwrap();
        let trickling = soon(other.call(get("/trickle"))).await.unwrap();
        text(call(&endpoint, post(streaming(2))).await.unwrap()).await;
        let in_use = server.open().min(2);
        drop(other);
        text(call(&endpoint, post(streaming(2))).await.unwrap()).await;

        drop(endpoint);
        server.opened(in_use).await;
        assert!(!held.is_finished());
        server.release();
        assert!(soon(held).await.unwrap().unwrap().starts_with("GET "));
        assert_eq!(text(trickling).await, "begin end");
        server.opened(0).await;
    }
}

#[tokio::test]
async fn a_reservation_ends_with_its_clone_and_is_not_cloned() {
    let config = PoolConfig::default().max_connections(1);
    let (server, endpoint) = served(&config).await;
    let mut holder = endpoint.clone();
    soon(holder.ready()).await.unwrap();
    let mut copy = holder.clone();
    assert!(futures::poll!(copy.ready()).is_pending(), "there is one connection");
    let mut waiting = endpoint.clone();
    assert!(futures::poll!(waiting.ready()).is_pending());
    drop(copy);
    drop(holder);
    soon(waiting.ready()).await.unwrap();
    drop((waiting, endpoint));
    server.opened(0).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_is_not_used_for_the_time_set_is_closed() {
    for config in both() {
        let (server, endpoint) = served(&config.idle_timeout(Duration::from_millis(50))).await;
        text(call(&endpoint, post(streaming(2))).await.unwrap()).await;
        server.opened(0).await;
        text(call(&endpoint, post(streaming(2))).await.unwrap()).await;
        assert_eq!(server.accepted(), 2);
        // And one that is in use is not.
        let held = begin(&endpoint, get("/held")).await;
        server.holding(1).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(server.open(), 1);
        server.release();
        soon(held).await.unwrap().unwrap();
        server.opened(0).await;
    }
}

#[tokio::test]
async fn no_more_than_the_maximum_are_kept_idle() {
    let (server, endpoint) = served(&PoolConfig::default().max_idle(2)).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(begin(&endpoint, get("/held")).await);
    }
    server.holding(6).await;
    assert_eq!(server.open(), 6);
    server.release();
    for held in held {
        soon(held).await.unwrap().unwrap();
    }
    server.opened(2).await;
}

#[tokio::test]
async fn a_request_that_is_cancelled_leaves_nothing_behind() {
    for config in both() {
        let (server, endpoint) = served(&config.max_connections(1)).await;
        for round in 0..20 {
            let held = begin(&endpoint, get("/held")).await;
            server.holding(1).await;
            held.abort();
            server.holding(0).await;
            let response = call(&endpoint, post(streaming(2))).await;
            let response = response.unwrap_or_else(|error| panic!("{round}: {error}"));
            text(response).await;
        }
        assert_eq!(server.open(), 1);
    }
}
