//! What people write: a call that is awaited in a task that is spawned, with a body that holds a `dyn
//! Error`. That it compiles is half of the test.

use std::error::Error;

use bytes::Bytes;
use discovery_tower::HttpClient;
use discovery_tower::http::{Replay, RetryLayer};
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service as _, ServiceExt as _};

use crate::{Counting, server, text};

type Boxed = BoxBody<Bytes, Box<dyn Error + Send + Sync>>;

fn request() -> Request<Boxed> {
    let body = Full::from("abc").map_err(|never| match never {}).boxed();
    Request::put("http://orders/").body(body).unwrap()
}

#[tokio::test]
async fn calls_with_boxed_errors_are_awaited_in_tasks() {
    let server = server().await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);

    let mut client: HttpClient<Boxed> = HttpClient::new(registry.source());
    let plain = tokio::spawn(async move {
        let first = text(client.call(request()).await.unwrap()).await;
        let second = text(client.ready().await.unwrap().call(request()).await.unwrap()).await;
        [first, second]
    });
    for seen in plain.await.unwrap() {
        assert!(seen.contains("body=abc"), "{seen}");
    }

    let client: HttpClient<Replay<Boxed>> = HttpClient::new(registry.source());
    let mut client = RetryLayer::new(1).layer(client);
    let again = tokio::spawn(async move {
        let first = text(client.call(request()).await.unwrap()).await;
        let second = text(client.ready().await.unwrap().call(request()).await.unwrap()).await;
        [first, second]
    });
    for seen in again.await.unwrap() {
        assert!(seen.contains("body=abc"), "{seen}");
    }
}
