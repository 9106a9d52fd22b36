//! What readiness says of an instance that cannot be connected to, and how often it is tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use discovery_test_support::{eventually, eventually_eq, slack};
use discovery_tower::http::pool::{Open, Opening, Tcp};
use discovery_tower::{HttpErrorKind, HttpVersion, PoolConfig};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{Service as _, ServiceExt as _};

use super::server::{Server, soon};
use super::support::server::{Shut, refused, shutting, unresponsive};
use super::{both, call, endpoint, failure, get, http2, post, served, streaming, text, untouched};

/// Counts what it is asked for.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl Counting {
    fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Open for Counting {
    fn supports(&self, scheme: &str) -> bool {
        Tcp.supports(scheme)
    }

    fn open(
        &self,
        address: &discovery_core::Address,
        protocol: HttpVersion,
        patience: Duration,
    ) -> Opening {
        self.0.fetch_add(1, Ordering::SeqCst);
        Tcp.open(address, protocol, patience)
    }
}

#[tokio::test]
async fn refused_it_is_not_ready_and_no_request_is_lost() {
    for config in both() {
        let address = refused();
        let endpoint = endpoint(&address, config);
        let error = failure(endpoint.clone()).await;
        assert_eq!(error.kind(), HttpErrorKind::Connect);
        assert_eq!(error.cause(), "connection refused");
        assert_eq!(
            error.to_string(),
            format!("orders/7 at {address}: cannot connect: connection refused")
        );
        assert!(error.is_unsent() && error.take_request().is_none());

        // Who does not ask whether it is ready gets the request back, and nobody has read it.
        let error = soon(endpoint.clone().call(post(untouched()))).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Returned, "{error}");
        assert!(error.is_unsent());
        let back = error.take_request().unwrap();
        assert_eq!(back.uri(), "/");
        assert!(back.headers().is_empty());
    }
}

#[tokio::test]
async fn a_black_hole_is_given_up_at_the_deadline() {
    let (address, _full) = unresponsive().await;
    let limit = Duration::from_millis(100);
    for config in both() {
        let begun = Instant::now();
        let error = failure(endpoint(&address, config.connect_timeout(limit))).await;
        assert_eq!(error.kind(), HttpErrorKind::ConnectTimeout, "{error}");
        assert_eq!(error.cause(), "no connection within 100ms");
        assert!(begun.elapsed() >= limit && begun.elapsed() < slack(limit * 10));
    }
}

#[tokio::test]
async fn an_instance_that_accepts_and_never_speaks_http2_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let limit = Duration::from_millis(100);
    let error = failure(endpoint(&address, http2().connect_timeout(limit))).await;
    assert_eq!(error.kind(), HttpErrorKind::ConnectTimeout, "{error}");
    assert_eq!(error.cause(), "no connection within 100ms");
}

#[tokio::test]
async fn an_instance_that_speaks_something_else_than_http2_is_not_ready() {
    for shut in [Shut::Nonsense, Shut::Close, Shut::OnArrival] {
        let error = failure(endpoint(&shutting(shut).await, http2())).await;
        assert_eq!(error.kind(), HttpErrorKind::Connect, "{error}");
    }
    let server = Server::start(HttpVersion::Http1).await;
    let error = failure(endpoint(&server.address, http2())).await;
    assert_eq!(error.kind(), HttpErrorKind::Connect, "{error}");
    assert!(error.cause().contains("is not HTTP/2"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused_by_name() {
    for address in ["https://a", "grpcs://a", "unix:///run/a"] {
        for config in both() {
            let error = failure(endpoint(address, config)).await;
            let scheme = address.split(':').next().unwrap();
            assert_eq!(error.kind(), HttpErrorKind::Unsupported);
            assert!(error.to_string().contains(&format!("{scheme}:// are not")), "{error}");
        }
    }
}

#[tokio::test]
async fn one_failure_is_told_to_all_who_waited_and_then_at_once() {
    let opener = Counting::default();
    for config in both() {
        let endpoint = endpoint(&refused(), config.open(opener.clone()));
        let before = opener.asked();
        let waiting = (0..20).map(|_| failure(endpoint.clone()));
        for error in join_all(waiting).await {
            assert_eq!(error.kind(), HttpErrorKind::Connect);
        }
        assert!(opener.asked() - before <= 20, "as many attempts as callers, or fewer");
    }
}

#[tokio::test]
async fn refused_again_and_again_it_is_tried_ever_less() {
    for config in both() {
        let opener = Counting::default();
        let endpoint = endpoint(&refused(), config.open(opener.clone()));
        let (begun, mut failures) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(2) {
            let error = failure(endpoint.clone()).await;
            assert_eq!(error.cause(), "connection refused", "the last cause");
            failures += 1;
            tokio::task::yield_now().await;
        }
        assert!(failures > 1_000, "{failures}");
        // Full jitter over 50, 100, 200, … ms: about six, and hardly ever more than twice that.
        assert!((2..=16).contains(&opener.asked()), "{}", opener.asked());
    }
}

#[tokio::test]
async fn a_listener_that_closes_at_once_is_not_flooded() {
    let opener = Counting::default();
    let address = shutting(Shut::OnArrival).await;
    let endpoint = endpoint(&address, PoolConfig::default().open(opener.clone()));
    let (begun, mut failures) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(2) {
        let error = call(&endpoint, post(streaming(2))).await.unwrap_err();
        assert!(error.is_unsent() || error.is_reset(), "{error:?}");
        if error.kind() == HttpErrorKind::Returned {
            assert!(error.take_request().is_some(), "{error:?}");
        }
        failures += 1;
        tokio::task::yield_now().await;
    }
    assert!(failures > 100, "{failures}");
    assert!((2..=16).contains(&opener.asked()), "{}", opener.asked());
}

#[tokio::test]
async fn back_again_it_serves_within_the_rest_that_it_was_given() {
    for config in both() {
        let (mut server, endpoint) = served(&config).await;
        text(call(&endpoint, post(streaming(1))).await.unwrap()).await;
        server.kill().await;
        let begun = Instant::now();
        let mut failures = 0;
        while begun.elapsed() < Duration::from_millis(200) {
            let error = call(&endpoint, post(streaming(1))).await.unwrap_err();
            assert!(error.is_unsent(), "{error:?}");
            failures += 1;
            tokio::task::yield_now().await;
        }
        assert!(failures > 10, "{failures}");
        server.start_again().await;
        eventually(Duration::from_secs(10), "it serves again", async || {
            call(&endpoint, post(streaming(1))).await.map(drop)
        })
        .await;
        text(call(&endpoint, post(streaming(3))).await.unwrap()).await;
    }
}

#[tokio::test]
async fn callers_on_an_empty_pool_make_as_many_connections_as_they_are() {
    let opener = Counting::default();
    let config = PoolConfig::default().open(opener.clone());
    let (server, endpoint) = served(&config).await;
    let ready = join_all((0..5).map(|_| async {
        let mut endpoint = endpoint.clone();
        soon(endpoint.ready()).await.unwrap();
        endpoint
    }))
    .await;
    assert_eq!(opener.asked(), 5);
    drop(ready);
    for _ in 0..20 {
        text(call(&endpoint, post(streaming(1))).await.unwrap()).await;
    }
    assert_eq!((opener.asked(), server.accepted()), (5, 5));
}

/// Opens nothing until it may; how many wait for that.
#[derive(Clone, Debug)]
struct Held(Counting, Arc<Semaphore>);

impl Open for Held {
    fn supports(&self, scheme: &str) -> bool {
        Tcp.supports(scheme)
    }

    fn open(
        &self,
        address: &discovery_core::Address,
        version: HttpVersion,
        patience: Duration,
    ) -> Opening {
        let (opening, may) = (self.0.open(address, version, patience), self.1.clone());
        Box::pin(async move {
            may.acquire().await?.forget();
            opening.await
        })
    }
}

#[tokio::test]
async fn a_burst_makes_no_more_connections_at_a_time_than_wait_and_than_eight_or_over_http2_one() {
    for (config, waiting, at_a_time) in [
        (PoolConfig::default(), 1, 1),
        (PoolConfig::default(), 3, 3),
        (PoolConfig::default(), 20, 8),
        (PoolConfig::default().max_connections(2), 20, 2),
        (http2(), 20, 1),
    ] {
        let server = Server::start(config.protocol).await;
        let held = Held(Counting::default(), Arc::new(Semaphore::new(0)));
        let config = config.connect_timeout(Duration::from_secs(60)).open(held.clone());
        let endpoint = endpoint(&server.address, config.clone());
        let calls: Vec<_> =
            (0..waiting).map(|_| tokio::spawn(endpoint.clone().oneshot(get("/held")))).collect();
        let begun = || held.0.asked();
        eventually(Duration::from_secs(10), "all wait", async || {
            format!("{endpoint:?}").contains(&format!("waiting: {waiting}"))
        })
        .await;
        eventually_eq(Duration::from_secs(10), "connections", at_a_time, async || begun()).await;
        // Each that is made, and is not enough, makes room for one more.
        held.1.add_permits(1);
        server.holding(if config.protocol == HttpVersion::Http2 { waiting } else { 1 }).await;
        let more = match config.protocol {
            HttpVersion::Http1 if config.max_connections > 2 => (at_a_time + 1).min(waiting),
            _ => at_a_time,
        };
        eventually_eq(Duration::from_secs(10), "connections begun", more, async || begun()).await;
        held.1.add_permits(waiting);
        server.release();
        for call in calls {
            text(soon(call).await.unwrap().unwrap()).await;
        }
        assert!(begun() <= waiting, "{} for {waiting}", begun());
        assert_eq!(server.accepted() == 1, config.protocol == HttpVersion::Http2 || waiting == 1);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_waits_for_any_more_serves_the_next() {
    for config in both() {
        let (server, endpoint) = served(&config).await;
        let mut impatient = endpoint.clone();
        let polled = futures::poll!(impatient.ready());
        assert!(polled.is_pending());
        drop(impatient);
        server.opened(1).await;
        text(call(&endpoint, post(streaming(1))).await.unwrap()).await;
        assert_eq!(server.accepted(), 1, "the first was not thrown away");
    }
}

#[tokio::test]
async fn a_host_with_several_addresses_is_reached_at_any_of_them() {
    // A name of both ::1 and 127.0.0.1, or only of the latter, with nobody at ::1.
    let (server, _) = served(&PoolConfig::default()).await;
    let port = server.address.rsplit_once(':').unwrap().1;
    let endpoint = endpoint(&format!("http://localhost:{port}"), PoolConfig::default());
    let response = call(&endpoint, post(streaming(2))).await.unwrap();
    assert!(text(response).await.contains(&format!("host=localhost:{port} body=ab")));
}
