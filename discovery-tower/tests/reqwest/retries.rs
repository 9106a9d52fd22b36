//! Instances that cannot be reached, and those that fail.

use std::io;

use discovery_core::{Instance, MemoryRegistry};
use discovery_tower::http::{RetryLayer, Tries};
use discovery_tower::reqwest::SendThrough as _;
use discovery_tower::{HttpClient, HttpVersion};
use futures::stream;
use http::StatusCode;
use reqwest::Body;
use tower::Layer as _;

use crate::server::{Server, soon};
use crate::support::server::{Shut, refused, shutting};
use crate::{Client, echoing, registry, requests, send, served_by};

fn streaming() -> Body {
    Body::wrap_stream(stream::iter(["one ", "two"].map(Ok::<_, io::Error>)))
}

#[tokio::test]
async fn connections_are_there_before_a_request_is_sent() {
    let live = echoing().await;
    let registry = registry([refused().as_str(), &live.address]);
    let client: Client = HttpClient::new(registry);
    for _ in 0..20 {
        let request = requests().post("http://orders/").body(streaming());
        let response = send(&client, request).await.unwrap();
        assert_eq!(served_by(&response), "1");
        assert_eq!(response.text().await.unwrap(), "one two");
    }
}

#[tokio::test]
async fn what_may_be_done_twice_is_tried_again_elsewhere_with_its_body() {
    let (live, failing) = (echoing().await, Server::saying(HttpVersion::Http1, 503).await);
    let lost = shutting(Shut::Reset).await;
    let registry = registry([lost.as_str(), &failing.address, &live.address]);
    let client = RetryLayer::new(2).layer(HttpClient::new(registry));
    let mut tried = 0;
    for n in 0..20 {
        let tries = Tries::default();
        let body = if n % 2 == 0 { streaming() } else { Body::from("one two") };
        let request = http::Request::put("http://orders/").extension(tries.clone());
        let request = reqwest::Request::try_from(request.body(body).unwrap()).unwrap();
        let response = soon(request.send_through(&client)).await.unwrap();
        assert_eq!((response.status(), served_by(&response).as_str()), (StatusCode::OK, "2"));
        assert_eq!(response.text().await.unwrap(), "one two");
        tried += tries.get();
    }
    assert!(tried > 20, "nobody else was tried");
}

#[tokio::test]
async fn what_may_not_is_the_callers() {
    let registry = MemoryRegistry::new();
    let lost = shutting(Shut::Reset).await;
    registry.insert(Instance::parse("orders", "7", &lost).unwrap());
    let client = RetryLayer::new(2).layer(HttpClient::new(registry));
    let error = soon(requests().post("http://orders/").send_through(&client)).await.unwrap_err();
    let call = error.call().unwrap();
    assert_eq!(call.endpoint().unwrap().to_string(), "orders/7");
    assert!(!call.is_unsent() && !error.is_timeout());
    assert_eq!(error.to_string(), call.to_string());
}
