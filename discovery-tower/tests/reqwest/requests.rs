//! What is made with reqwest comes to the instances, and what they answer is read with it.

use discovery_core::InstanceKey;
use discovery_tower::http::RetryLayer;
use discovery_tower::reqwest::SendThrough as _;
use discovery_tower::{Avoid, HttpVersion};
use futures::{StreamExt as _, stream};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use reqwest::multipart::{Form, Part};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::Layer as _;

use crate::server::{Server, data, empty, frames, full, reply, soon};
use crate::{Client, echoing, over, registry, requests, send, served_by};

/// Answers with the head and the body that came, as text.
async fn mirror(version: HttpVersion) -> Server {
    Server::start(version, |request| async move {
        let (head, body) = request.into_parts();
        let mut lines = vec![format!("{} {}", head.method, head.uri.path_and_query()?)];
        let headers = head.headers.iter();
        lines.extend(headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
        let body = body.collect().await.ok()?.to_bytes();
        lines.push(String::from_utf8_lossy(&body).into_owned());
        Some(reply(200, full(lines.join("\n"))))
    })
    .await
}

#[tokio::test]
async fn head_and_body_arrive_as_reqwest_made_them() {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = mirror(version).await;
        let host = server.address.strip_prefix("http://").unwrap().to_owned();
        let registry = registry([server.address.as_str()]);
        let pool = discovery_tower::PoolConfig::default().protocol(version);
        let client: Client = discovery_tower::HttpClientBuilder::new(registry).pool(pool).build();
        let sent = async |request| send(&client, request).await.unwrap().text().await.unwrap();

        let request = requests().post("http://orders/v1/7?a=b#part").query(&[("c", "d e")]);
        let text = sent(request.header("x-mine", "1").json(&["shoes"])).await;
        assert!(text.starts_with("POST /v1/7?a=b&c=d+e\n"), "{text}");
        assert!(text.contains("x-mine: 1\n"), "{text}");
        assert!(text.contains("content-type: application/json\n"), "{text}");
        assert!(text.contains("content-length: 9\n"), "{text}");
        assert!(text.ends_with(r#"["shoes"]"#), "{text}");
        if version == HttpVersion::Http1 {
            assert!(text.contains(&format!("host: {host}\n")), "{text}");
        }

        let text = sent(requests().put("http://orders/").form(&[("a", "b c")])).await;
        assert!(text.contains("content-type: application/x-www-form-urlencoded\n"), "{text}");
        assert!(text.ends_with("a=b+c"), "{text}");

        let text = sent(requests().get("http://me:secret@orders/").bearer_auth("k")).await;
        assert!(text.starts_with("GET /\n"), "{text}");
        assert!(text.contains("authorization: Basic bWU6c2VjcmV0\n"), "{text}");
        assert!(text.contains("authorization: Bearer k\n"), "{text}");

        let form = Form::new().text("name", "value").part("file", Part::bytes(b"bytes"));
        let text = sent(requests().post("http://orders/").multipart(form)).await;
        assert!(text.contains("content-type: multipart/form-data; boundary="), "{text}");
        assert!(text.contains("name=\"file\"\r\n\r\nbytes\r\n"), "{text}");

        let pieces = stream::iter(["one ", "two"].map(Ok::<_, std::io::Error>));
        let body = reqwest::Body::wrap_stream(pieces);
        let text = sent(requests().post("http://orders/").body(body)).await;
        assert!(text.ends_with("\none two"), "{text}");
    }
}

#[tokio::test]
async fn the_response_is_one_of_reqwest_with_the_url_and_who_served_it() {
    let servers = [Server::start(HttpVersion::Http1, |request| async move {
        Some(match request.uri().path() {
            "/json" => reply(200, full(r#"{"id": 7}"#)),
            "/stream" => reply(200, frames([data("one "), data("two")])),
            _ => reply(404, empty()),
        })
    })
    .await];
    let client = over(&servers);

    let response = send(&client, requests().get("http://orders/json")).await.unwrap();
    assert_eq!((response.status(), response.content_length()), (StatusCode::OK, Some(9)));
    assert_eq!(response.url().as_str(), "http://orders/json");
    assert_eq!(served_by(&response), "0");
    let response = response.error_for_status().unwrap();
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["id"], 7);

    let response = send(&client, requests().get("http://orders/stream")).await.unwrap();
    let pieces: Vec<_> = response.bytes_stream().map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat(), b"one two");

    let response = send(&client, requests().get("http://orders/no")).await.unwrap();
    let error = response.error_for_status().unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    assert_eq!(error.url().unwrap().as_str(), "http://orders/no");

    let response = send(&client, requests().head("http://orders/json")).await.unwrap();
    assert_eq!(response.headers()["content-length"], "9");
    assert!(response.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_request_keeps_away_from_whom_it_is_to_avoid() {
    let servers = [echoing().await, echoing().await];
    let client = over(&servers);
    for _ in 0..10 {
        let mut avoid = Avoid::new();
        avoid.add(InstanceKey::new("orders".parse().unwrap(), "0".parse().unwrap()));
        let request = http::Request::get("http://orders/").extension(avoid).body("").unwrap();
        let request = reqwest::Request::try_from(request).unwrap();
        let response = soon(request.send_through(&client)).await.unwrap();
        assert_eq!(served_by(&response), "1");
    }
}

#[tokio::test]
async fn calls_are_awaited_in_tasks() {
    let servers = [echoing().await];
    let client = over(&servers);
    let retried = RetryLayer::new(1)
        .layer(discovery_tower::HttpClient::new(registry([servers[0].address.as_str()])));
    let task = tokio::spawn(async move {
        let plain = requests().get("http://orders/").send_through(&client).await.unwrap();
        let again = requests().get("http://orders/").send_through(&retried).await.unwrap();
        (plain.status(), again.status())
    });
    assert_eq!(soon(task).await.unwrap(), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn a_connection_is_upgraded() {
    let servers = [Server::start(HttpVersion::Http1, |mut request| async move {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut upgraded = TokioIo::new(upgraded);
            let mut word = [0; 4];
            upgraded.read_exact(&mut word).await.unwrap();
            word.reverse();
            upgraded.write_all(&word).await.unwrap();
        });
        let response = http::Response::builder().status(101);
        let response = response.header("connection", "upgrade").header("upgrade", "mirror");
        Some(response.body(empty()).unwrap())
    })
    .await];
    let request = requests().get("http://orders/").header("connection", "upgrade");
    let response = send(&over(&servers), request.header("upgrade", "mirror")).await.unwrap();
    let mut upgraded = soon(response.upgrade()).await.unwrap();
    upgraded.write_all(b"abcd").await.unwrap();
    let mut word = [0; 4];
    soon(upgraded.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"dcba");
}
