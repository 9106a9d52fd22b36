//! Requests that did not reach an instance go to another one, and what is said when there is none.

#[path = "../pool/server.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod pool_server;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Instance, InstanceKey, MemoryRegistry, Source as _};
use discovery_test_support::slack;
use discovery_tower::balance::{Builder, Outcome, Unavailable};
use discovery_tower::http::{Http, HttpBalance, balance};
use discovery_tower::{
    CallError, HttpMaker, HttpVersion, Limits, MakeEndpoint as _, PoolConfig, PooledMaker,
};
use futures::{StreamExt as _, stream};
use http::Request;
use tower::{BoxError, ServiceExt as _};

use self::pool_server::Server;
use super::server::{Body, data, frames, soon};
use super::support::server::{refused, unresponsive};
use super::{SECOND, VERSIONS, Watching, avoiding, post, registry, served_by, text};

fn over(registry: &MemoryRegistry, version: HttpVersion) -> HttpBalance<Body> {
    let maker = PooledMaker::with(PoolConfig::default().protocol(version));
    balance(registry.watch(&"orders".parse().unwrap()), maker)
}

/// A body in pieces that cannot be copied and does not know its length.
fn streaming(n: usize) -> Request<Body> {
    post(frames([data("request "), data(n.to_string())]))
}

/// Sends it and has it back from whoever serves, whole.
async fn deliver(balance: &HttpBalance<Body>, n: usize) -> String {
    let response = soon(balance.clone().oneshot(streaming(n))).await.unwrap();
    let by = served_by(&response).to_owned();
    assert!(text(response).await.ends_with(&format!("body=request {n}")));
    by
}

#[tokio::test]
async fn a_dead_instance_among_live_ones_costs_none_of_500_posts() {
    for version in VERSIONS {
        let live = [Server::start(version).await, Server::start(version).await];
        let dead = refused();
        let addresses = [live[0].address.as_str(), dead.as_str(), live[1].address.as_str()];
        let balance = over(&registry(addresses), version);
        let mut served = stream::iter(0..500).map(|n| deliver(&balance, n)).buffer_unordered(10);
        while let Some(by) = served.next().await {
            assert_ne!(by, "1");
        }
        assert_eq!(live[0].requests() + live[1].requests(), 500, "each was sent once");
    }
}

#[tokio::test]
async fn errors_that_a_layer_has_boxed_are_read_like_others() {
    let live = Server::start(HttpVersion::Http1).await;
    let dead = refused();
    let mut maker = HttpMaker::<Body>::default();
    let boxed = move |key: &InstanceKey, instance: &Arc<Instance>| {
        maker.make(key, instance).map_err(BoxError::from)
    };
    let watching = Watching::default();
    let registry = registry([dead.as_str(), live.address.as_str()]);
    let balance = Builder::new(registry.watch(&"orders".parse().unwrap()), boxed)
        .protocol(Http::new())
        .policy(watching.clone())
        .spawn();
    let response = soon(balance.clone().oneshot(streaming(1))).await.unwrap();
    assert_eq!(served_by(&response), "1");
    text(response).await;
    let unsent = avoiding(streaming(2), &["1"]);
    let error = soon(balance.clone().oneshot(unsent)).await.unwrap_err();
    assert!(error.is_unsent(), "{error}");
    watching.take();
    let broken = avoiding(post(frames([Err(io::Error::other("the disk is gone"))])), &["0"]);
    let error = soon(balance.clone().oneshot(broken)).await.unwrap_err();
    assert_eq!(watching.take(), [Outcome::Ignore], "{error}");
}

#[tokio::test]
async fn an_instance_that_dies_between_requests_and_comes_back_costs_none_of_500_posts() {
    for version in VERSIONS {
        let mut mortal = Server::start(version).await;
        let live = Server::start(version).await;
        let addresses = [mortal.address.clone(), live.address.clone()];
        let balance = over(&registry(addresses.iter().map(String::as_str)), version);
        for n in 0..500 {
            match n % 100 {
                20 => mortal.kill().await,
                60 => mortal.start_again().await,
                _ => {}
            }
            deliver(&balance, n).await;
        }
        assert_eq!(mortal.requests() + live.requests(), 500, "each was sent once");
    }
}

#[tokio::test]
async fn an_instance_that_closes_idle_connections_costs_no_request() {
    for version in VERSIONS {
        let server = Server::start(version).await;
        let balance = over(&registry([server.address.as_str()]), version);
        for n in 0..100 {
            deliver(&balance, n).await;
            server.close_gracefully();
            server.opened(0).await;
        }
        assert_eq!(server.requests(), 100);
        let view = &balance.endpoints()[0];
        assert_eq!((view.successes, view.failures, view.pending), (100, 0, 0));
    }
}

#[tokio::test]
async fn when_all_are_dead_the_error_tells_who_and_why_within_the_limit() {
    let addresses: Vec<_> = (0..5).map(|_| refused()).collect();
    let registry = registry(addresses.iter().map(String::as_str));
    let balance = Builder::new(registry.watch(&"orders".parse().unwrap()), PooledMaker::new())
        .protocol(Http::new())
        .limits(Limits::default().failed(Duration::from_millis(200)))
        .named("orders")
        .spawn();
    for n in 0..3 {
        let begun = tokio::time::Instant::now();
        let error = soon(balance.clone().oneshot(streaming(n))).await.unwrap_err();
        assert!(begun.elapsed() < slack(2 * SECOND), "{:?}", begun.elapsed());
        let CallError::Unavailable { service, endpoints, reason, causes, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((service.as_deref(), *endpoints), (Some("orders"), 5));
        assert_eq!(*reason, Unavailable::Failed);
        assert!((1..=3).contains(&causes.len()), "{error}");
        assert!(error.is_unsent());
        let words = error.to_string();
        assert!(words.starts_with("none of 5 endpoints of orders can be used (all have failed)"));
        for cause in causes.iter() {
            let id: usize = cause.endpoint.id.as_str().parse().unwrap();
            let told =
                format!("orders/{id} at {}: cannot connect: connection refused", addresses[id]);
            assert!(words.contains(&told), "{words}");
        }
    }
}

#[tokio::test]
async fn an_instance_that_does_not_answer_to_connect_holds_nobody_up() {
    let live = Server::start(HttpVersion::Http1).await;
    let (silent, _full) = unresponsive().await;
    let balance = over(&registry([silent.as_str(), live.address.as_str()]), HttpVersion::Http1);
    for n in 0..100 {
        assert_eq!(deliver(&balance, n).await, "1");
    }
    assert_eq!(live.requests(), 100);
}
