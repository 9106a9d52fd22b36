//! What a newcomer runs first.

use std::collections::BTreeMap;

use crate::support::{GATEWAY, Http, Program, SOON, request};
use bytes::Bytes;
use discovery_test_support::eventually;
use futures_util::StreamExt as _;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

async fn demo(args: &[&str]) -> (Program, String) {
    let gateway = Program::start(GATEWAY, &[&["--demo", "--listen=127.0.0.1:0"], args].concat());
    let address = gateway.address().await;
    (gateway, address)
}

#[tokio::test]
async fn requests_are_balanced_and_failures_are_retried() {
    let (gateway, address) = demo(&[]).await;
    let http = Http::new();
    let mut served = BTreeMap::<String, u32>::new();
    for number in 0..200 {
        let answer = http.get(format!("{address}/send/demo/a/{number}?b=c")).await;
        assert_eq!(answer.status, StatusCode::OK);
        let by = answer.served_by().to_owned();
        let body = json!({ "service": "demo", "id": by, "path": format!("/a/{number}?b=c") });
        assert_eq!(answer.json(), body);
        assert_eq!(answer.header("x-instance"), by);
        *served.entry(by).or_default() += 1;
    }
    let count = |id: &str| served.get(id).copied().unwrap_or_default();
    assert!(count("demo-1") > 10 && count("demo-2") > 10, "{served:?}");
    // One that is ten times slower than the others is hardly asked.
    assert!(count("demo-3") < 50, "{served:?}");
    assert_eq!(gateway.stdout(), format!("listening address={address}\n"));
}

#[tokio::test]
async fn the_faulty_one_shows_without_retries() {
    let (_gateway, address) = demo(&["--retries=0"]).await;
    let http = Http::new();
    eventually(SOON * 3, "demo-4 fails", async || {
        let answer = http.get(format!("{address}/send/demo")).await;
        answer.status == StatusCode::INTERNAL_SERVER_ERROR && answer.served_by() == "demo-4"
    })
    .await;
}

#[tokio::test]
async fn the_pages() {
    let (gateway, address) = demo(&["--policy=least-pending", "--workers=1"]).await;
    let http = Http::new();
    let get = async |path: &str| http.get(format!("{address}{path}")).await;

    let services = get("/services").await;
    assert_eq!(
        (services.status, services.header("content-type")),
        (StatusCode::OK, "application/json")
    );
    let services = services.json();
    let source = &services["source"];
    assert_eq!((&source["state"], &source["error"]), (&json!("fresh"), &json!(null)));
    assert!(source["revision"].is_null());
    source["since"].as_str().unwrap().parse::<jiff::Timestamp>().expect("RFC 3339");
    let demo = services["services"]["demo"].as_array().unwrap();
    let ids: Vec<_> = demo.iter().map(|instance| instance["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["demo-1", "demo-2", "demo-3", "demo-4"]);
    let first = json!({
        "id": "demo-1", "address": demo[0]["address"], "weight": 1, "zone": null, "status": "up"
    });
    assert_eq!(demo[0], first);

    let sent = get("/send").await.json();
    assert_eq!(sent["demo"]["status"], 200);
    assert!(sent["demo"]["served_by"].as_str().unwrap().starts_with("demo-"));
    assert_eq!(get("/healthz").await.status, StatusCode::OK);

    let metrics = get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("gateway_requests_total{service=\"demo\",status=\"2xx\"} 1\n"), "{text}");
    assert!(text.contains("gateway_source_state{state=\"fresh\"} 1\n"), "{text}");
    // The library's own: what its balancer knows of the instances and of the call.
    eventually(SOON * 3, "the balancer's figures", async || {
        let text = String::from_utf8(get("/metrics").await.body.to_vec()).unwrap();
        let has = |figure: &str| text.lines().any(|line| line == figure);
        let all = [
            "# TYPE discovery_balance_calls_total counter",
            "discovery_balance_calls_total{service=\"demo\",outcome=\"success\"} 1",
            "discovery_balance_endpoints{service=\"demo\",standing=\"up\"} 4",
            "discovery_balance_panic{service=\"demo\"} 0",
            "discovery_balance_stale_seconds{service=\"demo\"} 0",
        ]
        .into_iter()
        .all(has);
        if all { Ok(()) } else { Err(text) }
    })
    .await;

    for (path, status, part) in [
        ("/", 404, "/send/SERVICE"),
        ("/send/", 404, "/send/"),
        ("/nothing", 404, "/nothing"),
        ("/send/a:b", 400, "a:b"),
        ("/send/none", 503, "no instances of none"),
    ] {
        let answer = get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(answer.error().contains(part), "{path}: {answer:?}");
        assert_eq!(answer.served_by(), "");
    }
    assert_eq!(get("/send/none").await.error(), "no instances of none");
    let posted = http.post(format!("{address}/services"), "").await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test]
async fn head_and_other_methods_are_forwarded() {
    let (_gateway, address) = demo(&[]).await;
    let http = Http::new();
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        // The faulty one may have answered what must not be repeated.
        eventually(SOON, format!("{method} is answered"), async || {
            let sent = request(method.clone(), &format!("{address}/send/demo/x"), "body");
            let answer = http.send(sent).await;
            assert!(answer.served_by().starts_with("demo-"), "{answer:?}");
            answer.status == StatusCode::OK
        })
        .await;
    }
}

#[tokio::test]
async fn at_the_end_it_finishes_what_is_in_flight() {
    let (gateway, address) = demo(&[]).await;
    let http = Http::new();
    let (body, pieces) = mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), pieces))
    });
    let sent =
        Request::put(format!("{address}/send/demo/slow")).body(StreamBody::new(pieces.boxed()));
    let answer = tokio::spawn(async move { http.head(sent.unwrap()).await });
    // Taken by the one who forwards it.
    body.send(Bytes::from_static(b"half ")).await.unwrap();
    body.reserve().await.unwrap();

    // Closed when the gateway waits for those alone that have something to answer.
    let host = address.trim_start_matches("http://");
    let mut idle = TcpStream::connect(host).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n");
    idle.write_all(head.as_bytes()).await.unwrap();
    idle.readable().await.unwrap();

    let end = async {
        eventually(SOON, "nobody listens", async || TcpStream::connect(host).await.is_err()).await;
        tokio::time::timeout(SOON, idle.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        assert!(gateway.process.is_running());
        body.send(Bytes::from_static(b"whole")).await.unwrap();
        drop(body);
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"{\"service\":\"demo\""));
    };
    let (code, ()) = tokio::join!(gateway.stop(), end);
    assert_eq!(code, Some(0));
}
