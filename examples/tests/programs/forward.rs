//! What the gateway makes of a request, seen by instances of the tests' own.

use std::time::{Duration, Instant};

use crate::support::instances::{Gateway, count, counting, gateway, instance, listen, nowhere};
use crate::support::{Http, SOON};
use bytes::Bytes;
use discovery_core::{Instance, InstanceStatus, Publisher, SourceError};
use discovery_core::{InstanceChanges, ServiceName, Source};
use discovery_examples::server::Server;
use discovery_test_support::eventually;
use futures_util::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

#[tokio::test]
async fn headers_are_those_of_a_forwarded_request() {
    let gateway = Gateway::start(&[]).await;
    let (_server, address) = instance(async |request: Request<Incoming>| {
        let headers = request.headers().iter();
        let headers: Value = headers
            .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
            .collect();
        let seen = json!({ "uri": request.uri().to_string(), "headers": headers });
        let answer = Response::builder()
            .status(StatusCode::CREATED)
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("x-served-by", "a lie")
            .header("x-kept", "yes");
        answer.body(Full::from(seen.to_string())).unwrap()
    })
    .await;
    gateway.add("orders", "a", &address);
    gateway.knows("orders", 1).await;
    let sent = Request::post(format!("{}/send/orders/v1/x%20y?q=1&r=%2F", gateway.address))
        .header("connection", "keep-alive, x-mine")
        .header("x-mine", "1")
        .header("te", "trailers")
        .header("proxy-authorization", "secret")
        .header("x-forwarded-for", "192.0.2.1")
        .header("forwarded", "for=192.0.2.1")
        .header("x-forwarded-host", "a lie")
        .header("x-kept", "yes")
        .body(Full::from("body"));
    let answer = gateway.http.send(sent.unwrap()).await;
    assert_eq!((answer.status, answer.served_by()), (StatusCode::CREATED, "a"));
    assert_eq!(answer.header("x-kept"), "yes");
    assert!(!answer.headers.contains_key("x-hop") && !answer.headers.contains_key("keep-alive"));

    let seen = answer.json();
    assert_eq!(seen["uri"], "/v1/x%20y?q=1&r=%2F");
    let own = gateway.address.trim_start_matches("http://");
    let expected = json!({
        "host": address.trim_start_matches("http://"),
        "x-forwarded-for": "192.0.2.1, 127.0.0.1",
        "forwarded": format!("for=192.0.2.1, for=127.0.0.1;host=\"{own}\";proto=http"),
        "x-forwarded-host": own,
        "x-kept": "yes",
        "content-length": "4",
    });
    assert_eq!(seen["headers"], expected);
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let gateway = Gateway::start(&[]).await;
    let (listener, address) = listen().await;
    // Sends back every piece at once.
    let _server = Server::start(listener, async |request: Request<Incoming>| {
        Response::new(request.into_body())
    });
    gateway.add("echo", "a", &address);
    gateway.knows("echo", 1).await;
    for method in [Method::POST, Method::PUT] {
        let (sender, pieces) = mpsc::channel::<Bytes>(1);
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
            let piece = pieces.recv().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(piece)), pieces))
        });
        let sent = Request::builder().method(method).uri(format!("{}/send/echo", gateway.address));
        let http = Http::new();
        let head = http.head(sent.body(StreamBody::new(pieces.boxed())).unwrap());
        sender.send(Bytes::from_static(b"first")).await.unwrap();
        let mut body = head.await.into_body();
        // Each piece comes back before the next one is sent.
        let mut next = async || {
            let piece = tokio::time::timeout(SOON, body.frame()).await.expect("a piece in time");
            piece.map(|piece| piece.unwrap().into_data().unwrap())
        };
        assert_eq!(next().await.unwrap(), "first");
        sender.send(Bytes::from_static(b"second")).await.unwrap();
        assert_eq!(next().await.unwrap(), "second");
        drop(sender);
        assert_eq!(next().await, None);
    }
}

#[tokio::test]
async fn large_bodies_pass() {
    let gateway = Gateway::start(&[]).await;
    let (_server, address, _) = counting(200).await;
    gateway.add("echo", "a", &address);
    gateway.knows("echo", 1).await;
    let large = "x".repeat(5_000_000).leak();
    for method in ["POST", "PUT"] {
        let answer = gateway.send(method, "/send/echo", large).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, large.len()));
    }
}

#[tokio::test]
async fn an_instance_that_cannot_be_reached_is_502_with_the_cause() {
    let gateway = Gateway::start(&[]).await;
    gateway.add("orders", "dead", &nowhere().await);
    gateway.knows("orders", 1).await;
    for method in ["GET", "POST"] {
        let answer = gateway.send(method, "/send/orders", "body").await;
        assert_eq!((answer.status, answer.served_by()), (StatusCode::BAD_GATEWAY, ""));
        let error = answer.error();
        assert!(error.contains("orders/dead") && error.contains("refused"), "{error}");
    }
    let sent = gateway.get("/send").await.json();
    assert_eq!(
        (&sent["orders"]["status"], &sent["orders"]["served_by"]),
        (&json!(502), &json!(null))
    );
    assert!(sent["orders"]["error"].as_str().unwrap().contains("refused"));
}

#[tokio::test]
async fn too_slow_is_504_over_all_attempts() {
    let gateway = Gateway::start(&["--timeout-ms=300", "--retries=5"]).await;
    let (_server, address) = instance(async |_| {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut answer = Response::new(Full::from(""));
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer
    })
    .await;
    for id in ["a", "b", "c"] {
        gateway.add("orders", id, &address);
    }
    gateway.knows("orders", 3).await;
    let before = Instant::now();
    let answer = gateway.get("/send/orders").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert!(answer.error().contains("orders") && answer.error().contains("300 ms"), "{answer:?}");
}

#[tokio::test]
async fn a_service_without_instances_is_told_at_once_and_shown() {
    let gateway = Gateway::start(&[]).await;
    let (_server, address, asked) = counting(200).await;
    gateway.add("orders", "a", &address);
    gateway.knows("orders", 1).await;
    assert_eq!(gateway.get("/send/orders").await.status, StatusCode::OK);

    gateway.registry.replace([]);
    eventually(SOON, "an empty list", async || {
        gateway.get("/services").await.json()["services"]["orders"] == json!([])
    })
    .await;
    for service in ["orders", "never"] {
        let answer = gateway.get(&format!("/send/{service}")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json(), json!({ "error": format!("no instances of {service}") }));
    }
    let sent = gateway.get("/send").await.json();
    let expected = json!({ "status": 503, "served_by": null, "error": "no instances of orders" });
    assert_eq!(sent, json!({ "orders": expected }));
    assert_eq!(count(&asked), 1);
}

#[tokio::test]
async fn one_that_is_draining_gets_no_new_requests_unless_there_is_no_other() {
    let gateway = Gateway::start(&[]).await;
    let (_server_a, a, asked_a) = counting(200).await;
    let (_server_b, b, asked_b) = counting(200).await;
    gateway.add("orders", "b", &b);
    let mut draining = Instance::parse("orders", "a", &a).unwrap();
    draining.status = InstanceStatus::Draining;
    gateway.registry.insert(draining);
    gateway.knows("orders", 2).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/send/orders").await.served_by(), "b");
    }
    assert_eq!((count(&asked_a), count(&asked_b)), (0, 20));
    gateway.registry.remove(&Instance::parse("orders", "b", &b).unwrap().key());
    gateway.knows("orders", 1).await;
    assert_eq!(gateway.get("/send/orders").await.served_by(), "a");
}

#[tokio::test]
async fn a_tunnel_is_refused() {
    let gateway = Gateway::start(&[]).await;
    let (_server, address, asked) = counting(200).await;
    gateway.add("orders", "a", &address);
    gateway.knows("orders", 1).await;
    let host = gateway.address.trim_start_matches("http://").to_owned();
    let mut client = TcpStream::connect(&host).await.unwrap();
    let head =
        format!("CONNECT /send/orders HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert_eq!(count(&asked), 0);
}

/// A source that never loads.
struct Never(Publisher<discovery_core::InstanceKey, Instance>);

impl Source for Never {
    fn watch(&self, _: &ServiceName) -> InstanceChanges {
        self.0.subscribe()
    }

    fn watch_all(&self) -> InstanceChanges {
        self.0.subscribe()
    }
}

#[tokio::test]
async fn before_it_has_loaded_requests_wait_for_a_while_and_are_told_why() {
    let mut publisher = Publisher::new();
    publisher.trouble(SourceError::new("nobody listens there"));
    let mut source = Never(publisher);
    let (_server, address) = gateway(&source, &["--timeout-ms=200"]).await;
    let http = Http::new();
    for path in ["/send/orders", "/send", "/healthz"] {
        let answer = http.get(format!("{address}{path}")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(answer.error().contains("nobody listens there"), "{path}: {answer:?}");
    }
    let listed = http.get(format!("{address}/services")).await.json();
    assert_eq!(listed["source"]["state"], "loading");
    assert_eq!(listed["source"]["error"], "nobody listens there");
    assert_eq!(listed["services"], json!({}));

    // One that waits has its answer when the set comes.
    let (_server, patient) = gateway(&source, &[]).await;
    let (_instance, target, asked) = counting(200).await;
    let url = format!("{patient}/send/orders");
    let waiting = tokio::spawn(async move { Http::new().get(url).await });
    let stale = http.get(format!("{patient}/healthz")).await;
    assert_eq!(stale.status, StatusCode::SERVICE_UNAVAILABLE);
    let instance = Instance::parse("orders", "a", &target).unwrap();
    source.0.replace([(instance.key(), instance)], Some(9));
    assert_eq!(waiting.await.unwrap().served_by(), "a");
    assert_eq!(count(&asked), 1);

    source.0.trouble(SourceError::new("gone"));
    let listed = http.get(format!("{patient}/services")).await.json();
    let source = &listed["source"];
    assert_eq!(
        (&source["state"], &source["revision"], &source["error"]),
        (&json!("stale"), &json!(9), &json!("gone"))
    );
    assert_eq!(http.get(format!("{patient}/healthz")).await.status, StatusCode::OK);
    assert_eq!(http.get(format!("{patient}/send/orders")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let gateway = Gateway::start(&[]).await;
    let (ended, mut has_ended) = mpsc::channel::<()>(1);
    let (started, mut has_started) = mpsc::channel::<()>(1);
    let (_server, address) = instance(move |_| {
        let (ended, started) = (ended.clone(), started.clone());
        async move {
            // Dropped with the request.
            let _ended = ended;
            started.send(()).await.unwrap();
            std::future::pending().await
        }
    })
    .await;
    gateway.add("orders", "a", &address);
    gateway.knows("orders", 1).await;
    let host = gateway.address.trim_start_matches("http://").to_owned();
    let mut client = TcpStream::connect(&host).await.unwrap();
    client
        .write_all(format!("GET /send/orders HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    tokio::time::timeout(SOON, has_started.recv()).await.unwrap();
    drop(client);
    // Only the instance's own sender is left, which lives as long as its server.
    eventually(SOON, "the request ends", async || has_ended.sender_strong_count() == 1).await;
    has_ended.close();
}
