//! Time that runs out: before an instance has the request, while it has it, and while its body is read.

use std::time::Duration;

use discovery_core::{InstanceChanges, Publisher, ServiceName, Source, SourceError};
use discovery_test_support::{eventually, slack};
use discovery_tower::balance::{CallError, Ejection, Standing, Unavailable};
use discovery_tower::http::{BodyError, Deadline, Replay, RetryLayer, Tries};
use discovery_tower::{ClientError, HttpClient, HttpClientBuilder, HttpErrorKind, Limits};
use discovery_tower::{HttpError, HttpVersion, PoolConfig};
use http::Request;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tower::{Layer as _, Service as _};

use crate::raw::Raw;
use crate::raw::Step::{Pause, Say};
use crate::server::Server;
use crate::support::server::unresponsive;
use crate::{Body, Client, Counting, get, send, served_by, server, text};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(10);

fn by(deadline: Deadline, uri: &str) -> Request<Body> {
    let mut request = get(uri);
    request.extensions_mut().insert(deadline);
    request
}

/// One failure is enough for an instance to be left out, whoever is left.
fn strict(registry: &Counting) -> HttpClientBuilder {
    let ejection = Ejection::default().consecutive(1).panic_percent(200);
    HttpClientBuilder::new(registry.source()).ejection(ejection)
}

/// The error of a call whose time is over while an instance has it: on a machine that is busy it may be
/// over before.
async fn taken(mut call: impl AsyncFnMut() -> ClientError) -> ClientError {
    let timeout = async || {
        let error = call().await;
        assert!(error.is_timeout(), "{error:?}");
        if error.endpoint().is_some() { Ok(error) } else { Err(error) }
    };
    eventually(SOON, "an instance has it", timeout).await
}

fn standing(client: &Client, id: &str) -> Standing {
    let endpoints = client.services()[0].1.endpoints();
    endpoints.iter().find(|view| view.key.id.as_str() == id).unwrap().standing
}

#[tokio::test]
async fn an_instance_that_does_not_answer_in_time_is_named_and_let_go() {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = Server::start(version).await;
        let registry = Counting::default();
        registry.insert("orders", "7", &server.address);
        let builder =
            HttpClientBuilder::new(registry.source()).pool(PoolConfig::default().protocol(version));
        let held = "http://orders/held";
        let plain: Client = builder.clone().build();
        let limited: Client = builder.clone().timeout(SHORT).build();
        let long: Client = builder.clone().timeout(LONG).build();
        for (client, time) in [
            (&limited, None),
            // The earlier one counts.
            (&limited, Some(LONG)),
            (&long, Some(SHORT)),
            (&plain, Some(SHORT)),
        ] {
            let request =
                || time.map_or_else(|| get(held), |time| by(Deadline::within(time), held));
            let error = taken(async || send(client, request()).await.unwrap_err()).await;
            assert!(!error.is_unsent(), "{error:?}");
            assert_eq!(error.endpoint().unwrap().to_string(), "orders/7");
            assert_eq!(error.kind(), Some(HttpErrorKind::Timeout));
            let text = error.to_string();
            assert!(text.contains("no response: not within"), "{text}");
            server.holding(0).await;
        }
        // Others go on.
        text(send(&plain, get("http://orders/")).await.unwrap()).await;
    }
}

#[tokio::test]
async fn it_is_a_failure_of_the_instance() {
    let (slow, quick) = (server().await, server().await);
    quick.release();
    let registry = Counting::default();
    registry.insert("orders", "slow", &slow.address);
    registry.insert("orders", "quick", &quick.address);
    let client: Client = strict(&registry).timeout(SHORT).build();
    let left_out = async || {
        let _ = send(&client, get("http://orders/held")).await;
        standing(&client, "slow") == Standing::Ejected
    };
    eventually(SOON, "it is left out", left_out).await;
    let serves = async || send(&client, get("http://orders/held")).await;
    let response = eventually(SOON, "an answer", serves).await;
    assert_eq!(served_by(&response), "orders/quick");
}

#[tokio::test]
async fn what_has_no_time_left_is_not_sent_and_nobody_is_to_blame() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let client: Client = strict(&registry).build();
    text(send(&client, get("http://orders/")).await.unwrap()).await;
    for _ in 0..3 {
        let late = by(Deadline::at(Instant::now()), "http://orders/");
        let error = send(&client, late).await.unwrap_err();
        assert!(error.is_timeout() && error.is_unsent(), "{error:?}");
        assert!(error.to_string().contains(" deadline has passed"), "{error}");
    }
    assert_eq!(server.requests(), 1);
    text(send(&client, get("http://orders/")).await.unwrap()).await;
    assert_eq!(standing(&client, "7"), Standing::Up);
}

/// Never knows anything.
struct Silent(Publisher<discovery_core::InstanceKey, discovery_core::Instance>);

impl Silent {
    fn new() -> Self {
        let mut publisher = Publisher::new();
        publisher.trouble(SourceError::new("the registry is away"));
        Self(publisher)
    }
}

impl Source for Silent {
    fn watch(&self, _: &ServiceName) -> InstanceChanges {
        self.0.subscribe()
    }

    fn watch_all(&self) -> InstanceChanges {
        self.0.subscribe()
    }
}

#[tokio::test]
async fn before_an_instance_has_it_the_error_says_what_it_waited_for() {
    let client: Client = HttpClientBuilder::new(Silent::new()).timeout(SHORT).build();
    let error = send(&client, get("http://orders/")).await.unwrap_err();
    let ClientError::Call(CallError::Deadline { waiting }) = &error else { panic!("{error:?}") };
    assert!(matches!(**waiting, CallError::NotLoaded { .. }), "{error:?}");
    assert!(error.is_timeout() && error.is_unsent() && error.endpoint().is_none());
    let text = error.to_string();
    assert!(text.starts_with("the deadline has passed: the endpoints of orders are not known yet"));
    assert!(text.ends_with("the registry is away"), "{text}");

    let (address, _full) = unresponsive().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &address);
    let client: Client = HttpClientBuilder::new(registry.source()).build();
    let connecting = async || {
        let request = by(Deadline::within(SHORT), "http://orders/");
        let error = send(&client, request).await.unwrap_err();
        let ClientError::Call(CallError::Deadline { waiting }) = &error else {
            panic!("{error:?}")
        };
        let reason = Unavailable::NotReady;
        matches!(&**waiting, CallError::Unavailable { reason: why, .. } if *why == reason)
    };
    eventually(SOON, "it waits for an instance", connecting).await;
}

#[tokio::test]
async fn when_the_limits_end_it_first_it_is_no_deadline() {
    let limits = Limits::default().load(SHORT);
    let client: Client = HttpClientBuilder::new(Silent::new()).limits(limits).timeout(LONG).build();
    let error = send(&client, get("http://orders/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Call(CallError::NotLoaded { .. })), "{error:?}");
    assert!(!error.is_timeout());
}

#[tokio::test]
async fn within_a_retry_layer_each_attempt_has_its_time() {
    let (slow, quick) = (server().await, server().await);
    quick.release();
    let registry = Counting::default();
    registry.insert("orders", "slow", &slow.address);
    registry.insert("orders", "quick", &quick.address);
    let timeout = slack(Duration::from_millis(500));
    let client = HttpClientBuilder::new(registry.source()).timeout(timeout).build();
    let mut client = RetryLayer::new(1).layer(client);
    let mut tried = 0;
    for _ in 0..10 {
        let tries = Tries::default();
        let mut request = get("http://orders/held");
        request.extensions_mut().insert(tries.clone());
        let response = client.call(request).await.unwrap();
        assert_eq!(served_by(&response), "orders/quick");
        text(response).await;
        tried += tries.get();
    }
    assert!(tried > 10, "the other one was never tried");
}

#[tokio::test]
async fn a_deadline_is_one_for_all_attempts() {
    let servers = [server().await, server().await, server().await];
    let registry = Counting::default();
    for (n, server) in servers.iter().enumerate() {
        registry.insert("orders", &n.to_string(), &server.address);
    }
    let client = HttpClient::new(registry.source());
    let layer = RetryLayer::new(5).observed_by(|what| panic!("there is no time: {what:?}"));
    let mut client = layer.layer(client);
    let mut tries = Tries::default();
    let call = async || {
        tries = Tries::default();
        let mut request = by(Deadline::within(SHORT), "http://orders/held");
        request.extensions_mut().insert(tries.clone());
        client.call(request).await.unwrap_err()
    };
    let error = taken(call).await;
    assert_eq!(error.kind(), Some(HttpErrorKind::Timeout));
    assert!(error.downcast_ref::<HttpError<Replay<Body>>>().is_some());
    assert_eq!(tries.get(), 1);
}

#[tokio::test]
async fn a_body_of_which_nothing_comes_is_an_error_and_a_failure_of_the_instance() {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = Server::start(version).await;
        let registry = Counting::default();
        registry.insert("orders", "7", &server.address);
        let idle = slack(Duration::from_millis(200));
        let client: Client =
            strict(&registry).pool(PoolConfig::default().protocol(version)).body_idle(idle).build();
        // Not while nobody reads.
        let mut response = send(&client, get("http://orders/trickle")).await.unwrap();
        tokio::time::sleep(idle * 2).await;
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "begin ");
        tokio::time::sleep(idle * 2).await;
        assert_eq!(standing(&client, "7"), Standing::Up);

        let error = response.body_mut().frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Idle { .. }) && error.is_timeout(), "{error:?}");
        let words = "the body of the response of orders/7 stopped: nothing came for";
        assert_eq!(error.to_string(), format!("{words} {idle:?}"));
        assert!(response.body_mut().frame().await.is_none());
        let left_out = async || standing(&client, "7") == Standing::Ejected;
        eventually(SOON, "it is left out", left_out).await;
    }
}

#[tokio::test]
async fn a_body_that_comes_slowly_but_comes_is_read_to_its_end() {
    let registry = Counting::default();
    let head = Say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let piece = [Pause(Duration::from_millis(200)), Say("1\r\na\r\n")];
    let pieces = std::iter::repeat_n(piece, 12).flatten();
    let server = Raw::start([head].into_iter().chain(pieces).chain([Say("0\r\n\r\n")])).await;
    registry.insert("orders", "7", &server.address);
    let client: Client = strict(&registry).body_idle(Duration::from_secs(2)).build();
    let response = send(&client, get("http://orders/")).await.unwrap();
    assert_eq!(text(response).await, "aaaaaaaaaaaa");
    assert_eq!(standing(&client, "7"), Standing::Up);
}
