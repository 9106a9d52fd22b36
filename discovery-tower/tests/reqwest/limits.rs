//! How long a request may take.

use std::time::Duration;

use discovery_test_support::eventually_eq;
use discovery_tower::http::RetryLayer;
use discovery_tower::reqwest::{SendError, SendThrough as _};
use discovery_tower::{HttpClientBuilder, HttpVersion};
use tokio::sync::oneshot;
use tower::Layer as _;

use crate::server::{Answer, Body, Server, data, gated, reply, soon};
use crate::{Client, echoing, over, registry, requests, send};

const LIMIT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

/// Never answers.
async fn hanging() -> Server {
    Server::start(HttpVersion::Http1, |_| std::future::pending::<Answer>()).await
}

/// Begins to answer, and never goes on.
async fn stuck() -> Server {
    Server::start(HttpVersion::Http1, |_| async {
        let (_, never) = oneshot::channel();
        let body: Body = gated(data("begin"), never, []);
        Some(reply(200, body))
    })
    .await
}

fn pending(client: &Client) -> u32 {
    client.services()[0].1.endpoints().iter().map(|view| view.pending).sum()
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_an_error_that_says_so() {
    let servers = [hanging().await];
    let client = over(&servers);
    let error = send(&client, requests().get("http://orders/").timeout(LIMIT)).await.unwrap_err();
    assert!(matches!(&error, SendError::TimedOut { host, limit }
        if &**host == "orders" && *limit == LIMIT));
    assert!(error.is_timeout() && error.call().is_none());
    assert_eq!(error.to_string(), "no response from orders within 100ms");
    assert_eq!(pending(&client), 0, "it was given up");
    eventually_eq(LONG, "requests under way", 0, async || servers[0].under_way()).await;
}

#[tokio::test]
async fn a_limit_of_the_client_is_a_timeout_too() {
    let servers = [hanging().await];
    let registry = registry(servers.iter().map(|server| server.address.as_str()));
    let builder = HttpClientBuilder::new(registry).timeout(LIMIT);
    let once: Client = builder.clone().build();
    let retried = RetryLayer::new(1).layer(builder.build());
    let request = || requests().get("http://orders/");
    let errors = [
        soon(request().send_through(&once)).await.unwrap_err(),
        soon(request().send_through(&retried)).await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_timeout() && error.call().is_some(), "{error:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_in_time_is_an_error_that_reqwest_takes_for_a_timeout() {
    let servers = [stuck().await];
    let client = over(&servers);
    let request = requests().get("http://orders/").timeout(10 * LIMIT);
    let mut response = send(&client, request).await.unwrap();
    assert_eq!(soon(response.chunk()).await.unwrap().unwrap(), "begin");
    assert_eq!(pending(&client), 1);
    let error = soon(response.chunk()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(format!("{error:?}").contains("the response did not end within 1s"), "{error:?}");
    assert_eq!(pending(&client), 0, "it was given up, though the response is held");
    assert!(soon(response.chunk()).await.unwrap().is_none());
}

#[tokio::test]
async fn the_limit_holds_over_all_attempts_and_is_not_felt_by_who_is_quick() {
    let (resets, hangs) = (shutting().await, hanging().await);
    let retried = RetryLayer::new(5)
        .layer(discovery_tower::HttpClient::new(registry([resets.as_str(), &hangs.address])));
    let request = requests().get("http://orders/").timeout(LIMIT);
    assert!(soon(request.send_through(&retried)).await.unwrap_err().is_timeout());

    let servers = [echoing().await];
    let client = over(&servers);
    for limit in [LONG, Duration::MAX] {
        let request = requests().post("http://orders/").body("all of it").timeout(limit);
        assert_eq!(send(&client, request).await.unwrap().text().await.unwrap(), "all of it");
    }
}

async fn shutting() -> String {
    crate::support::server::shutting(crate::support::server::Shut::Reset).await
}

#[tokio::test]
async fn who_gives_up_cancels() {
    let servers = [hanging().await];
    let client = over(&servers);
    let sending = requests().get("http://orders/").send_through(&client);
    let task = tokio::spawn(sending);
    eventually_eq(LONG, "requests under way", 1, async || servers[0].under_way()).await;
    task.abort();
    eventually_eq(LONG, "requests under way", 0, async || servers[0].under_way()).await;
    assert_eq!(pending(&client), 0);
}
