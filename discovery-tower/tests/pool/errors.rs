//! What is said of requests that have no response.

use std::error::Error as _;
use std::io;

use bytes::Bytes;
use discovery_core::Instance;
use discovery_tower::{HttpErrorKind, HttpVersion, PoolConfig, PooledMaker};
use futures::stream;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::server::{Server, soon};
use super::support::server::{Shut, refused, shutting};
use super::{both, call, empty, endpoint, get, post, served, streaming, text, untouched};

#[tokio::test]
async fn reset_or_closed_before_the_head_may_have_been_acted_on() {
    for (shut, cause) in
        [(Shut::Reset, "connection reset"), (Shut::Close, "the connection was closed")]
    {
        let address = shutting(shut).await;
        let error = call(&endpoint(&address, PoolConfig::default()), get("/")).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Reset, "{error}");
        assert!(error.is_reset() && !error.is_unsent());
        assert_eq!(error.to_string(), format!("orders/7 at {address}: no response: {cause}"));
        assert!(error.source().is_some(), "the chain is kept");
        assert!(error.take_request().is_some(), "nothing of an empty body is lost");

        let error =
            call(&endpoint(&address, PoolConfig::default()), post(streaming(3))).await.unwrap_err();
        assert!(error.is_reset() && !error.is_unsent(), "{error}");
        assert!(error.take_request().is_none(), "its body was read");
    }
}

#[tokio::test]
async fn killed_during_a_request_the_instance_may_have_acted_on_it() {
    for config in both() {
        let (mut server, endpoint) = served(&config).await;
        let held = super::begin(&endpoint, get("/held")).await;
        server.holding(1).await;
        server.kill().await;
        let error = soon(held).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Reset, "{error:?}");
        assert!(error.take_request().is_some(), "nothing of an empty body is lost");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_another_error() {
    let endpoint = endpoint(&shutting(Shut::Nonsense).await, PoolConfig::default());
    let error = call(&endpoint, post(streaming(1))).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Other, "{error}");
    assert!(!error.is_unsent() && !error.is_reset());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_blamed_on_the_instance() {
    const ECONNRESET: i32 = 104;
    for config in both() {
        let server = Server::start(config.protocol).await;
        let instance = Instance::parse("orders", "7", &server.address).unwrap();
        for broken in [io::Error::from_raw_os_error(ECONNRESET), io::Error::other("no disk")] {
            let words = broken.to_string();
            let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Err(broken)];
            let request = Request::post("/").body(StreamBody::new(stream::iter(frames))).unwrap();
            let endpoint = PooledMaker::with(config.clone()).endpoint(&instance);
            let error = soon(endpoint.oneshot(request)).await.unwrap_err();
            assert_eq!(error.kind(), HttpErrorKind::Request, "{error:?}");
            assert!(!error.is_reset() && !error.is_unsent());
            assert_eq!(error.cause(), format!("the request body: {words}"));
            assert!(error.take_request().is_none(), "its body was read");
        }
    }
}

#[tokio::test]
async fn a_body_that_panics_costs_no_more_than_its_connection() {
    for config in both() {
        let (server, endpoint) = served(&config).await;
        text(call(&endpoint, post(streaming(1))).await.unwrap()).await;
        let error = call(&endpoint, post(untouched())).await.unwrap_err();
        assert!(!error.is_unsent() && error.take_request().is_none(), "{error:?}");
        for _ in 0..3 {
            text(call(&endpoint, post(streaming(1))).await.unwrap()).await;
        }
        assert_eq!(server.accepted(), 2);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_an_error_of_its_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!";
            socket.write_all(half).await.unwrap();
        }
    });
    let endpoint = endpoint(&address, PoolConfig::default().max_connections(1));
    for _ in 0..3 {
        let response = call(&endpoint, get("/")).await.unwrap();
        assert!(soon(response.into_body().collect()).await.is_err());
    }
}

#[tokio::test]
async fn connect_and_what_was_not_made_ready_are_given_back() {
    for config in both() {
        let (server, endpoint) = served(&config).await;
        let request = Request::connect("a:80").body(empty()).unwrap();
        let error = call(&endpoint, request).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Request);
        assert_eq!(error.take_request().unwrap().uri().to_string(), "a:80");
        text(call(&endpoint, post(streaming(1))).await.unwrap()).await;
        assert_eq!(server.accepted(), 1, "and the connection was not lost with it");
    }
}

#[test]
fn without_a_runtime_it_says_so() {
    let mut endpoint = endpoint(&refused(), PoolConfig::default());
    assert_eq!(endpoint.protocol(), HttpVersion::Http1);
    let error = futures::executor::block_on(endpoint.ready()).map(drop).unwrap_err();
    assert!(error.cause().contains("runtime"), "{error}");
}

#[test]
fn endpoints_go_to_any_thread() {
    fn check<T: Clone + Send + Sync + 'static>(_: &T) {}
    check(&endpoint("a", PoolConfig::default()));
    let text = format!("{:?}", endpoint("a", PoolConfig::default()));
    assert!(text.contains("orders/7") && text.contains("http://a"), "{text}");
}
