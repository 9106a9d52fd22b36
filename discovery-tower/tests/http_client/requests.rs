//! Requests and responses: they come to the instances as they were sent, and go on elsewhere.

use std::time::Duration;

use discovery_test_support::eventually;
use discovery_tower::balance::{CallError, Ejection, Standing, Unavailable};
use discovery_tower::http::{RetryLayer, Tries};
use discovery_tower::{Avoid, ClientError, HttpClient, HttpErrorKind, HttpVersion, PoolConfig};
use discovery_tower::{HttpClientBuilder, HttpError, Limits};
use http::{Method, Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tower::{Layer as _, Service as _};

use crate::server::Server;
use crate::support::server::{Shut, refused, shutting};
use crate::{Body, Counting, empty, get, send, served_by, server, streaming, text};

#[tokio::test]
async fn each_name_goes_to_its_own_service() {
    let (orders, users) = (server().await, server().await);
    let registry = Counting::default();
    registry.insert("orders", "7", &orders.address);
    registry.insert("users", "1", &users.address);
    let client = registry.client();
    for _ in 0..20 {
        let (order, user) = tokio::join!(
            send(&client, get("http://orders/v1/7?a=b")),
            send(&client, get("http://users/me")),
        );
        let (order, user) = (order.unwrap(), user.unwrap());
        assert_eq!((served_by(&order), served_by(&user)), ("orders/7".into(), "users/1".into()));
        let host = orders.address.strip_prefix("http://").unwrap();
        let seen = text(order).await;
        assert!(seen.contains("/v1/7?a=b") && seen.contains(host), "{seen}");
        assert!(text(user).await.contains("/me"));
    }
    assert_eq!((orders.requests(), users.requests()), (20, 20));
    assert_eq!(registry.watches(), 2);
    let mut names: Vec<_> = client.services().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["orders".parse().unwrap(), "users".parse().unwrap()]);
}

#[tokio::test]
async fn a_body_that_streams_arrives_whole_over_both_protocols() {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = Server::start(version).await;
        let registry = Counting::default();
        registry.insert("orders", "7", &server.address);
        let client = HttpClientBuilder::new(registry.source())
            .pool(PoolConfig::default().protocol(version))
            .build();
        let request = Request::post("http://orders/").body(streaming(20)).unwrap();
        let response = send(&client, request).await.unwrap();
        let seen = text(response).await;
        assert!(seen.contains("abcdefghijklmnopqrst"), "{version:?}: {seen}");
    }
}

#[tokio::test]
async fn head_has_a_response_without_a_body() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let client = registry.client();
    for _ in 0..3 {
        let request = Request::builder().method(Method::HEAD).uri("http://orders/");
        let response = send(&client, request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().contains_key("content-length"));
        assert!(response.body().is_end_stream());
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    assert_eq!(server.accepted(), 1, "the connection is as good as new");
}

#[tokio::test]
async fn a_request_that_cannot_reach_one_instance_goes_to_another_streaming_body_and_all() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "dead", &refused());
    registry.insert("orders", "live", &server.address);
    let client = registry.client();
    for _ in 0..20 {
        let request = Request::post("http://orders/").body(streaming(3)).unwrap();
        let response = send(&client, request).await.unwrap();
        assert_eq!(served_by(&response), "orders/live");
        assert!(text(response).await.contains("abc"));
    }
}

#[tokio::test]
async fn an_instance_that_restarts_serves_again() {
    let mut server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let limits = Limits::default().failed(Duration::from_millis(50));
    let client = HttpClientBuilder::new(registry.source()).limits(limits).build();
    for _ in 0..3 {
        let serves = async || match send(&client, get("http://orders/")).await {
            Ok(response) => Ok(text(response).await),
            Err(error) => Err(error),
        };
        eventually(Duration::from_secs(20), "an answer", serves).await;
        server.kill().await;
        send(&client, get("http://orders/")).await.unwrap_err();
        server.start_again().await;
    }
    assert_eq!(registry.watches(), 1);
}

#[tokio::test]
async fn while_one_instance_restarts_the_other_serves() {
    let mut servers = [server().await, server().await];
    let registry = Counting::default();
    registry.insert("orders", "0", &servers[0].address);
    registry.insert("orders", "1", &servers[1].address);
    let mut client = RetryLayer::new(1).layer(HttpClient::new(registry.source()));
    for n in [0, 1] {
        let other = format!("orders/{}", 1 - n);
        // Both have connections that will be lost.
        let serves = async || {
            let response = client.call(get("http://orders/")).await.unwrap();
            let by = served_by(&response);
            text(response).await;
            by != other
        };
        eventually(Duration::from_secs(20), "it serves", serves).await;
        servers[n].kill().await;
        for _ in 0..20 {
            let response = client.call(get("http://orders/")).await.unwrap();
            assert_eq!(served_by(&response), other);
            text(response).await;
        }
        servers[n].start_again().await;
    }
}

#[tokio::test]
async fn the_error_of_an_instance_is_told_with_its_name() {
    let registry = Counting::default();
    registry.insert("orders", "7", &shutting(Shut::Reset).await);
    let client = registry.client();
    let error = send(&client, get("http://orders/")).await.unwrap_err();
    assert_eq!(error.endpoint().unwrap().to_string(), "orders/7");
    assert!(error.downcast_ref::<HttpError<Body>>().unwrap().is_reset());
    assert!(!error.clone().is_unsent());
    assert!(error.to_string().ends_with("no response: connection reset"), "{error}");
}

#[tokio::test]
async fn a_retry_goes_to_another_instance() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "live", &server.address);
    registry.insert("orders", "resets", &shutting(Shut::Reset).await);
    let client = HttpClient::new(registry.source());
    let mut client = RetryLayer::new(1).layer(client);
    let mut tried = 0;
    for _ in 0..10 {
        let tries = Tries::default();
        let mut request = get("http://orders/");
        request.extensions_mut().insert(tries.clone());
        let response = client.call(request).await.unwrap();
        assert_eq!(served_by(&response), "orders/live");
        text(response).await;
        tried += tries.get();
    }
    assert!(tried > 10, "the other one was never tried");
}

#[tokio::test]
async fn what_is_to_be_avoided_is_and_with_nobody_left_the_last_response_stands() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let client = registry.client();
    let mut avoid = Avoid::new();
    avoid.add("orders/7".split_once('/').map(key).unwrap());
    let mut request = get("http://orders/");
    request.extensions_mut().insert(avoid);
    let error = send(&client, request).await.unwrap_err();
    let avoided = Unavailable::Avoided;
    assert!(
        matches!(&error, ClientError::Call(CallError::Unavailable { reason, .. }) if *reason == avoided),
        "{error}"
    );

    let lonely = Counting::default();
    lonely.insert("orders", "7", &shutting(Shut::Reset).await);
    let mut client = RetryLayer::new(3).layer(HttpClient::new(lonely.source()));
    let error = client.call(get("http://orders/")).await.unwrap_err();
    assert_eq!(error.endpoint().unwrap().to_string(), "orders/7");
    assert!(error.to_string().contains("no response"), "{error}");
}

fn key((service, id): (&str, &str)) -> discovery_core::InstanceKey {
    discovery_core::InstanceKey::new(service.parse().unwrap(), id.parse().unwrap())
}

#[tokio::test]
async fn an_instance_with_an_https_address_is_an_error_of_the_call() {
    let registry = Counting::default();
    registry.insert("orders", "7", "https://127.0.0.1:9");
    let limits = Limits::default().failed(Duration::from_millis(50));
    let client = HttpClientBuilder::new(registry.source()).limits(limits).build();
    let error = send(&client, get("http://orders/")).await.unwrap_err();
    let ClientError::Call(CallError::Unavailable { causes, .. }) = &error else {
        panic!("{error:?}");
    };
    let cause = causes[0].error.downcast_ref::<HttpError<Body>>().unwrap();
    assert_eq!(cause.kind(), HttpErrorKind::Unsupported);
    assert!(error.is_unsent());
}

#[tokio::test]
async fn an_instance_that_fails_is_left_out_as_the_client_is_told() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "live", &server.address);
    registry.insert("orders", "resets", &shutting(Shut::Reset).await);
    let ejection = Ejection::default().consecutive(1).panic_percent(200);
    let client = HttpClientBuilder::new(registry.source()).ejection(ejection).build();
    let left_out = async || {
        if let Ok(response) = send(&client, get("http://orders/")).await {
            text(response).await;
        }
        let endpoints = client.services()[0].1.endpoints();
        let standings = endpoints.iter().map(|view| (view.key.id.to_string(), view.standing));
        let standings: Vec<_> = standings.collect();
        let out = ("resets".to_owned(), Standing::Ejected);
        if standings.contains(&out) { Ok(()) } else { Err(standings) }
    };
    eventually(Duration::from_secs(10), "it is left out", left_out).await;
    for _ in 0..20 {
        let response = send(&client, get("http://orders/")).await.unwrap();
        assert_eq!(served_by(&response), "orders/live");
        text(response).await;
    }
}
