//! What a node answers, in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Http, request};
use discovery_examples::node::{Behaviour, Node};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

async fn node(behaviour: Behaviour) -> (Arc<Node>, discovery_examples::server::Server, String) {
    let node = Node::new("orders".parse().unwrap(), "7".parse().unwrap(), behaviour);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = node.serve(listener);
    (node, server, address)
}

#[tokio::test]
async fn it_answers_with_its_name() {
    let (_node, _server, address) = node(Behaviour::default()).await;
    let http = Http::new();
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let answer = http.send(request(method, &format!("{address}/a/b"), "body")).await;
        assert_eq!((answer.status, answer.header("x-instance")), (StatusCode::OK, "7"));
        assert_eq!(answer.body, r#"{"service":"orders","id":"7","path":"/a/b"}"#);
    }
    // Only a POST there is for it.
    let answer = http.get(format!("{address}/control")).await;
    assert_eq!(answer.json()["path"], "/control");
}

#[tokio::test]
async fn it_can_be_told_to_be_slow_and_to_fail() {
    let (_node, _server, address) = node(Behaviour::default()).await;
    let http = Http::new();
    let control = async |body| http.post(format!("{address}/control"), body).await;

    let answer = control(r#"{"delay_ms":80,"fail_rate":0}"#).await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::OK, json!({ "delay_ms": 80, "fail_rate": 0.0 }))
    );
    let before = Instant::now();
    assert_eq!(http.get(&address).await.status, StatusCode::OK);
    assert!(before.elapsed() >= Duration::from_millis(80));

    // Failures are not slow: a node with an hour's delay fails at once.
    control(r#"{"delay_ms":3600000,"fail_rate":1}"#).await;
    let answer = http.get(&address).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.header("x-instance"), "7");

    control(r#"{"delay_ms":0,"fail_rate":0.5}"#).await;
    let mut failed = 0;
    for _ in 0..400 {
        failed += u32::from(http.get(&address).await.status != StatusCode::OK);
    }
    // Seven standard deviations.
    assert!((130..=270).contains(&failed), "{failed} of 400");
}

#[tokio::test]
async fn what_it_is_told_wrong_is_named_and_changes_nothing() {
    let behaviour = Behaviour { fail_rate: 1.0, ..Behaviour::default() };
    let (_node, _server, address) = node(behaviour).await;
    let http = Http::new();
    for (body, part) in [
        ("", "JSON"),
        ("{", "JSON"),
        (r#"{"delay_ms":0,"fail_rate":2}"#, "fail_rate 2"),
        (r#"{"fail_rate":0,"delay_ms":"x"}"#, "delay_ms \"x\""),
        (r#"{"fail_rate":0,"other":1}"#, "other"),
    ] {
        let answer = http.post(format!("{address}/control"), body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.error().contains(part), "{body}: {answer:?}");
    }
    let long = " ".repeat(100_000).leak();
    let answer = http.post(format!("{address}/control"), long).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(http.get(&address).await.status, StatusCode::INTERNAL_SERVER_ERROR);
}
