//! What servers and callers do that they should not, or do seldom: the right error, or it passes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use discovery_test_support::{eventually, eventually_eq};
use discovery_tower::balance::{Ejection, Standing};
use discovery_tower::http::{BodyError, ClientBody};
use discovery_tower::{HttpClient, HttpClientBuilder, HttpErrorKind, HttpVersion, PoolConfig};
use futures::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tower::{BoxError, Service as _};

use crate::raw::Raw;
use crate::raw::Step::{self, Hear, Hold, Say, Stay};
use crate::{Client, Counting, get, send, server, text};

const SOON: Duration = Duration::from_secs(10);

/// One failure is enough for an instance to be left out, whoever is left.
fn strict(registry: &Counting) -> HttpClientBuilder {
    let ejection = Ejection::default().consecutive(1).panic_percent(200);
    HttpClientBuilder::new(registry.source()).ejection(ejection)
}

async fn raw(steps: impl IntoIterator<Item = Step>) -> (Raw, Counting, Client) {
    let server = Raw::start(steps).await;
    let registry = Counting::default();
    registry.insert("orders", "7", &server.address);
    let client = strict(&registry).build();
    (server, registry, client)
}

fn standing<B>(client: &HttpClient<B>) -> Standing
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    client.services()[0].1.endpoints()[0].standing
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_an_error_that_names_the_instance() {
    let endless = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(1 << 20));
    for answer in [
        "what?\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/2.0 200 OK\r\n\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        endless.leak(),
    ] {
        let (_server, _registry, client) = raw([Say(answer), Stay]).await;
        let error = send(&client, get("http://orders/")).await.unwrap_err();
        assert_eq!(error.kind(), Some(HttpErrorKind::Other), "{answer:.40}: {error}");
        assert_eq!(error.endpoint().unwrap().to_string(), "orders/7");
        assert!(!error.is_unsent() && !error.is_timeout());
        assert!(error.to_string().contains(": failed: "), "{error}");
        let left_out = async || standing(&client) == Standing::Ejected;
        eventually(SOON, "it is left out", left_out).await;
    }
}

#[tokio::test]
async fn closed_before_or_within_the_head_there_is_no_response() {
    for said in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\na: b\r\n"]
    {
        let (_server, _registry, client) = raw([Say(said)]).await;
        let error = send(&client, get("http://orders/")).await.unwrap_err();
        assert_eq!(error.kind(), Some(HttpErrorKind::Reset), "{said:?}: {error}");
        assert!(error.to_string().contains("no response: the connection was closed"), "{error}");
        assert!(!error.is_unsent());
    }
}

#[tokio::test]
async fn closed_within_the_body_it_broke_off_and_the_instance_has_failed() {
    for said in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let (_server, _registry, client) = raw([Say(said)]).await;
        let mut response = send(&client, get("http://orders/")).await.unwrap();
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "hello");
        let error = response.body_mut().frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Broken { .. }), "{error:?}");
        assert_eq!(error.endpoint().unwrap().to_string(), "orders/7");
        let words = "the body of the response of orders/7 broke off: the connection was closed";
        assert_eq!(error.to_string(), words);
        assert!(response.body_mut().frame().await.is_none());
        let left_out = async || standing(&client) == Standing::Ejected;
        eventually(SOON, "it is left out", left_out).await;
    }
    let nonsense = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let (_server, _registry, client) = raw([Say(nonsense), Stay]).await;
    let response = send(&client, get("http://orders/")).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert!(matches!(error, BodyError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn without_a_length_a_body_ends_with_its_connection() {
    let (_server, _registry, client) = raw([Say("HTTP/1.1 200 OK\r\n\r\nhello")]).await;
    assert_eq!(text(send(&client, get("http://orders/")).await.unwrap()).await, "hello");
    assert_eq!(standing(&client), Standing::Up);
}

#[tokio::test]
async fn a_status_that_has_no_body_has_none_whatever_its_head_says() {
    for (said, status) in [
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", StatusCode::NO_CONTENT),
        ("HTTP/1.1 204 No Content\r\n\r\n", StatusCode::NO_CONTENT),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", StatusCode::NOT_MODIFIED),
    ] {
        let (server, _registry, client) = raw([Say(said), Hear("\r\n\r\n"), Say(said), Stay]).await;
        for _ in 0..2 {
            let response = send(&client, get("http://orders/")).await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.body().is_end_stream());
            assert_eq!(text(response).await, "");
        }
        assert_eq!(server.heard().matches("GET / HTTP/1.1").count(), 2);
    }
}

#[tokio::test]
async fn what_comes_before_the_answer_is_not_the_answer() {
    let (_server, _registry, client) = raw([
        Say("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"),
        Say("HTTP/1.1 102 Processing\r\n\r\n"),
        Say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        Stay,
    ])
    .await;
    let response = send(&client, get("http://orders/")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "ok");
}

fn expecting() -> Request<crate::Body> {
    let request = Request::post("http://orders/").header("expect", "100-continue");
    request.body(crate::streaming(3)).unwrap()
}

#[tokio::test]
async fn an_expectation_passes_whether_it_is_met_or_not() {
    let (server, _registry, client) = raw([
        Say("HTTP/1.1 100 Continue\r\n\r\n"),
        Hear("0\r\n\r\n"),
        Say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        Stay,
    ])
    .await;
    assert_eq!(text(send(&client, expecting()).await.unwrap()).await, "ok");
    assert!(server.heard().contains("expect: 100-continue"), "{}", server.heard());

    let refusal = "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n";
    let (_server, _registry, client) = raw([Say(refusal), Stay]).await;
    assert_eq!(send(&client, expecting()).await.unwrap().status(), 417);
}

/// A body without end, and by what it is seen that nobody has it any more.
fn endless() -> (crate::Body, std::sync::Weak<()>) {
    let held = Arc::new(());
    let gone = Arc::downgrade(&held);
    let frames = stream::repeat_with(move || {
        let _ = &held;
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 4096])))
    });
    (StreamBody::new(frames).boxed_unsync(), gone)
}

#[tokio::test]
async fn an_answer_comes_while_a_request_without_end_goes_on_which_ends_with_its_connection() {
    let refusal = "HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (server, _registry, client) = raw([Say(refusal), Hold]).await;
    let (body, gone) = endless();
    let request = Request::post("http://orders/").body(body).unwrap();
    let response = send(&client, request).await.unwrap();
    assert_eq!(response.status(), 413);
    drop(response);
    server.release();
    eventually_eq(SOON, "bodies", 0, async || gone.strong_count()).await;
    assert_eq!(standing(&client), Standing::Up);
}

#[tokio::test]
async fn a_request_whose_body_fails_says_why_and_blames_nobody() {
    type Failing = UnsyncBoxBody<Bytes, BoxError>;
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = crate::Server::start(version).await;
        let registry = Counting::default();
        registry.insert("orders", "7", &server.address);
        let client: HttpClient<Failing> =
            strict(&registry).pool(PoolConfig::default().protocol(version)).build();
        for _ in 0..3 {
            let frames =
                [Ok(Frame::data(Bytes::from_static(b"a"))), Err("the disk is gone".into())];
            let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
            let request = Request::post("http://orders/held").body(body).unwrap();
            let error = client.clone().call(request).await.unwrap_err();
            assert_eq!(error.kind(), Some(HttpErrorKind::Request), "{version:?} {error:?}");
            assert!(error.to_string().ends_with("the request body: the disk is gone"), "{error}");
            assert!(!error.is_unsent());
        }
        assert_eq!(standing(&client), Standing::Up);
    }
}

/// Answers with the trailers of the request, in trailers.
async fn echoing_trailers(version: HttpVersion) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<Incoming>| async move {
                let body = request.into_body().collect().await.unwrap();
                let trailers = body.trailers().cloned().unwrap_or_default();
                let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
                let frames = stream::iter(frames.map(Ok::<_, Infallible>));
                Response::builder().header("trailer", "x-sum").body(StreamBody::new(frames))
            });
            let io = TokioIo::new(socket);
            if version == HttpVersion::Http2 {
                let serve = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(serve.serve_connection(io, answer));
            } else {
                tokio::spawn(http1::Builder::new().serve_connection(io, answer));
            }
        }
    });
    address
}

#[tokio::test]
async fn trailers_pass_both_ways_over_both_protocols() {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let registry = Counting::default();
        registry.insert("orders", "7", &echoing_trailers(version).await);
        let client = HttpClientBuilder::new(registry.source())
            .pool(PoolConfig::default().protocol(version))
            .build();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = [Frame::data(Bytes::from_static(b"a")), Frame::trailers(trailers)];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))).boxed_unsync();
        let request = Request::post("http://orders/")
            .header("trailer", "x-sum")
            // A server of HTTP/1.1 sends trailers to those alone who say that they take them.
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let response: Response<ClientBody> = send(&client, request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "7", "{version:?}");
        assert_eq!(body.to_bytes(), "body");
    }
}

#[tokio::test]
async fn after_all_of_that_the_next_instance_serves() {
    let good = server().await;
    let registry = Counting::default();
    registry.insert("orders", "good", &good.address);
    let nonsense = Raw::start([Say("what?\r\n\r\n")]).await;
    registry.insert("orders", "bad", &nonsense.address);
    let client: Client = strict(&registry).build();
    let mut served = 0;
    for _ in 0..20 {
        match send(&client, get("http://orders/")).await {
            Ok(response) => {
                served += 1;
                text(response).await;
            }
            Err(error) => assert_eq!(error.endpoint().unwrap().id.as_str(), "bad"),
        }
    }
    assert!(served > 15, "{served}");
}
