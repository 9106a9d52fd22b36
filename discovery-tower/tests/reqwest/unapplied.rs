//! What a `reqwest::Client` does when it sends, it does not do here.

use std::time::Duration;

use discovery_tower::HttpVersion;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

use crate::server::{Server, empty, full, reply};
use crate::{over, requests, send};

#[tokio::test]
async fn redirects_are_not_followed() {
    let servers = [Server::start(HttpVersion::Http1, |request| async move {
        assert_eq!(request.uri().path(), "/old");
        let mut response = reply(302, empty());
        response.headers_mut().insert("location", "http://orders/new".parse().unwrap());
        Some(response)
    })
    .await];
    let client = over(&servers);
    let response = send(&client, requests().get("http://orders/old")).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!((response.url().path(), servers[0].asked()), ("/old", 1));
}

#[tokio::test]
async fn the_headers_and_the_limit_that_a_client_adds_are_not_added() {
    let servers = [Server::start(HttpVersion::Http1, |request| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
        Some(reply(200, full(names.join(" "))))
    })
    .await];
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", "1".parse().unwrap());
    let requests = reqwest::Client::builder()
        .default_headers(headers.clone())
        .user_agent("mine")
        .timeout(Duration::from_millis(1))
        .build()
        .unwrap();
    let client = over(&servers);
    let response = send(&client, requests.get("http://orders/")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "host");

    // Those of the request itself are.
    for (name, value) in [(USER_AGENT, "mine"), (ACCEPT, "*/*"), (ACCEPT_ENCODING, "gzip")] {
        headers.insert(name, value.parse().unwrap());
    }
    let request = requests.get("http://orders/").headers(headers);
    let text = send(&client, request).await.unwrap().text().await.unwrap();
    for name in ["x-tenant", "user-agent", "accept", "accept-encoding"] {
        assert!(text.split(' ').any(|there| there == name), "{name}: {text}");
    }
}

#[tokio::test]
async fn what_comes_compressed_stays_so_and_cookies_are_headers() {
    let servers = [Server::start(HttpVersion::Http1, |request| async move {
        assert!(!request.headers().contains_key("cookie"));
        let mut response = reply(200, full([0x1f, 0x8b, 8].as_slice()));
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        response.headers_mut().insert("set-cookie", "a=b".parse().unwrap());
        Some(response)
    })
    .await];
    let client = over(&servers);
    for _ in 0..2 {
        let response = send(&client, requests().get("http://orders/")).await.unwrap();
        assert_eq!(response.headers()["set-cookie"], "a=b");
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert_eq!(response.bytes().await.unwrap(), [0x1f, 0x8b, 8].as_slice());
    }
}
