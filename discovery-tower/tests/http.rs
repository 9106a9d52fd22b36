//! HTTP endpoints against real sockets: where requests go, what their errors say, and what is given
//! back.
#![cfg(feature = "http")]

mod support;

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Instance, InstanceStatus, MemoryRegistry, Source as _};
use discovery_tower::http::p2c;
use discovery_tower::{
    Avoid, BalanceError, HttpConfig, HttpError, HttpErrorKind, HttpMaker, LoadMeasure, ServedBy,
};
use futures::stream;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use support::server::{Server, Shut, refused, shutting};
use tower::{Service as _, ServiceExt as _};

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A body that comes in pieces and cannot be copied.
fn streaming(pieces: u8) -> Body {
    let frames = (0..pieces).map(|n| Ok(Frame::data(Bytes::from(vec![b'a' + n]))));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(empty()).unwrap()
}

fn post(body: Body) -> Request<Body> {
    Request::post("/").body(body).unwrap()
}

fn instance(id: &str, address: &str) -> Instance {
    Instance::parse("orders", id, address).unwrap()
}

async fn send(
    address: &str,
    request: Request<Body>,
) -> Result<Response<Incoming>, HttpError<Body>> {
    HttpMaker::new().endpoint(&instance("7", address)).oneshot(request).await
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn served_by<T>(response: &Response<T>) -> &str {
    response.extensions().get::<ServedBy>().unwrap().0.id.as_str()
}

fn inner(error: &BalanceError) -> &HttpError<Body> {
    error.http::<Body>().unwrap_or_else(|| panic!("not of an endpoint: {error}"))
}

#[tokio::test]
async fn a_request_keeps_all_but_its_place() {
    let server = Server::start().await;
    for uri in ["/a/b?c=d", "http://elsewhere:1/a/b?c=d", "https://elsewhere/a/b?c=d"] {
        let mut request = get(uri);
        *request.method_mut() = Method::PATCH;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert("host", "elsewhere".parse().unwrap());
        request.headers_mut().insert("x-kept", "1".parse().unwrap());
        *request.body_mut() = streaming(3);
        let response = send(&server.address, request).await.unwrap();
        assert_eq!(served_by(&response), "7");
        let host = server.address.strip_prefix("http://").unwrap();
        let seen = format!("PATCH /a/b?c=d HTTP/1.1 host={host} kept=1 body=abc");
        assert_eq!(text(response).await, seen);
    }
    assert!(
        text(send(&server.address, get("http://elsewhere")).await.unwrap())
            .await
            .contains("GET / ")
    );
}

#[tokio::test]
async fn connections_are_shared_and_kept() {
    let server = Server::start().await;
    let maker = HttpMaker::new();
    for _ in 0..50 {
        let endpoint = maker.clone().endpoint(&instance("7", &server.address));
        text(endpoint.oneshot(get("/")).await.unwrap()).await;
    }
    // A connection is back in the pool a moment after the body has ended.
    assert!(server.connections() < 25, "{}", server.connections());
}

#[tokio::test]
async fn refused_the_whole_request_comes_back_streaming_body_and_all() {
    let address = refused();
    let mut request = post(streaming(3));
    request.headers_mut().insert("x-kept", "1".parse().unwrap());
    request.extensions_mut().insert(7_u8);
    let error = send(&address, request).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("orders/7 at {address}: cannot connect: connection refused")
    );
    assert_eq!(error.cause(), "connection refused");
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    assert!(error.is_unsent() && !error.is_reset() && !error.is_avoided());
    assert_eq!(error.key().to_string(), "orders/7");
    assert_eq!(error.address().as_str(), address);
    assert!(error.source().is_some(), "the chain is kept");

    let back = error.clone().take_request().unwrap();
    assert!(error.take_request().is_none(), "there is one request");
    assert_eq!((back.uri().to_string(), back.method()), ("/".to_owned(), &Method::POST));
    assert!(back.headers().get("host").is_none());
    assert_eq!(back.extensions().get(), Some(&7_u8));

    let server = Server::start().await;
    let response = send(&server.address, back).await.unwrap();
    assert!(text(response).await.ends_with("kept=1 body=abc"));
}

#[tokio::test]
async fn a_host_that_is_unknown_and_a_connection_that_takes_too_long_are_unsent() {
    let unknown = send("http://nowhere.invalid:80", post(streaming(1))).await.unwrap_err();
    // Where no name server answers, it takes too long.
    let (kind, text) = (unknown.kind(), unknown.to_string());
    assert!(matches!(kind, HttpErrorKind::Connect | HttpErrorKind::ConnectTimeout), "{text}");
    assert!(text.starts_with("orders/7 at http://nowhere.invalid:80: cannot connect: "), "{text}");
    assert!(unknown.is_unsent() && unknown.take_request().is_some());

    let (address, _full) = support::server::unresponsive().await;
    let config = HttpConfig::default().connect_timeout(Duration::from_millis(100));
    let endpoint = HttpMaker::with(config).endpoint(&instance("7", &address));
    let slow = endpoint.oneshot(post(streaming(1))).await.unwrap_err();
    assert_eq!(slow.kind(), HttpErrorKind::ConnectTimeout, "{slow}");
    assert_eq!(slow.cause(), "no connection within 100ms");
    assert!(slow.is_unsent() && slow.take_request().is_some());
}

#[tokio::test]
async fn reset_or_closed_before_the_head_may_have_been_acted_on() {
    for (shut, cause) in
        [(Shut::Reset, "connection reset"), (Shut::Close, "the connection was closed")]
    {
        let address = shutting(shut).await;
        let error = send(&address, get("/")).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Reset, "{error}");
        assert!(error.is_reset() && !error.is_unsent());
        assert_eq!(error.to_string(), format!("orders/7 at {address}: no response: {cause}"));
        assert!(error.take_request().is_some(), "nothing of an empty body is lost");

        let error = send(&address, post(streaming(3))).await.unwrap_err();
        assert!(error.is_reset() && !error.is_unsent(), "{error}");
        assert!(error.take_request().is_none(), "its body was read");
    }
}

#[tokio::test]
async fn what_is_no_answer_and_a_body_that_fails_are_other_errors() {
    let address = shutting(Shut::Nonsense).await;
    let error = send(&address, get("/")).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Other, "{error}");
    assert!(!error.is_unsent() && !error.is_reset());

    let server = Server::start().await;
    let broken = StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>("the disk is gone")]));
    let endpoint = HttpMaker::new().endpoint(&instance("7", &server.address));
    let error = endpoint.oneshot(Request::post("/").body(broken).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Request, "{error}");
    assert!(error.cause().contains("the disk is gone"), "{error}");
    assert!(!error.is_unsent());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_blamed_on_the_instance() {
    // What a body says that is itself read from a connection, as Linux numbers it.
    const ECONNRESET: i32 = 104;
    let server = Server::start().await;
    for broken in [io::Error::from_raw_os_error(ECONNRESET), io::ErrorKind::UnexpectedEof.into()] {
        let words = broken.to_string();
        let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Err(broken)];
        let body = StreamBody::new(stream::iter(frames));
        let endpoint = HttpMaker::new().endpoint(&instance("7", &server.address));
        let error = endpoint.oneshot(Request::post("/").body(body).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Request, "{error}");
        assert!(!error.is_reset() && !error.is_unsent(), "{error}");
        assert!(error.cause().contains(&words), "{error}");
        assert!(error.take_request().is_none(), "its body was read");
    }
}

#[tokio::test]
async fn a_connection_closed_on_arrival_never_loses_an_unsent_request() {
    let address = shutting(Shut::OnArrival).await;
    let maker = HttpMaker::new();
    for _ in 0..200 {
        let endpoint = maker.endpoint(&instance("7", &address));
        let error = endpoint.oneshot(post(streaming(2))).await.unwrap_err();
        assert!(error.is_unsent() || error.is_reset(), "{error:?}");
        assert_eq!(error.is_unsent(), !error.is_reset());
        if error.is_unsent() {
            assert!(error.take_request().is_some(), "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    for address in ["https://a", "grpc://a", "unix:///run/a"] {
        let error = send(address, post(streaming(1))).await.unwrap_err();
        let scheme = address.split(':').next().unwrap();
        assert_eq!(error.kind(), HttpErrorKind::Unsupported);
        assert!(error.to_string().contains(&format!("{scheme}:// are not supported")), "{error}");
        assert!(error.is_unsent() && error.take_request().is_some());
    }
    let request = Request::connect("a:80").body(empty()).unwrap();
    let error = send(&refused(), request).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Request);
    assert_eq!(error.take_request().unwrap().uri().to_string(), "a:80");
}

#[tokio::test]
async fn an_avoided_instance_gives_the_request_back() {
    let server = Server::start().await;
    let mut avoid = Avoid::new();
    avoid.add(instance("7", &server.address).key());
    let mut request = post(streaming(1));
    request.extensions_mut().insert(avoid);
    let error = send(&server.address, request).await.unwrap_err();
    assert!(error.is_avoided() && error.is_unsent());
    assert!(error.take_request().is_some());
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_retry_goes_to_another_instance_whatever_their_loads() {
    let live = Server::start().await;
    for measure in [LoadMeasure::default(), LoadMeasure::PendingRequests] {
        let registry = MemoryRegistry::new();
        registry.insert(instance("dead", &refused()));
        registry.insert(instance("live", &live.address));
        let mut orders = p2c(registry.watch(&"orders".parse().unwrap()), HttpMaker::new(), measure);
        let mut retried = 0;
        for _ in 0..100 {
            if let Err(error) = orders.call(post(streaming(3))).await {
                retried += 1;
                let error = inner(&error);
                assert_eq!(error.key().id.as_str(), "dead");
                let mut request = error.take_request().unwrap();
                let mut avoid = Avoid::new();
                avoid.add(error.key().clone());
                request.extensions_mut().insert(avoid);
                let response = orders.call(request).await.unwrap();
                assert_eq!(served_by(&response), "live");
                assert!(text(response).await.ends_with("body=abc"));
            }
        }
        assert!(retried > 0, "the dead one is tried by those who do not know");

        // Nobody else: told at once, and the one avoided is not lost to others.
        let mut request = get("/");
        let mut avoid = Avoid::new();
        avoid.add(instance("dead", "a").key());
        avoid.add(instance("live", "a").key());
        request.extensions_mut().insert(avoid);
        let error = orders.call(request).await.unwrap_err();
        assert!(inner(&error).is_avoided(), "{error}");
        registry.remove(&instance("dead", "a").key());
        assert_eq!(served_by(&orders.call(get("/")).await.unwrap()), "live");
    }
}

#[tokio::test]
async fn only_instances_that_are_up_and_have_weight_get_requests() {
    let servers = [
        Server::start().await,
        Server::start().await,
        Server::start().await,
        Server::start().await,
    ];
    let registry = MemoryRegistry::new();
    let mut orders =
        p2c(registry.watch(&"orders".parse().unwrap()), HttpMaker::new(), LoadMeasure::default());
    let status = [InstanceStatus::Starting, InstanceStatus::Draining, InstanceStatus::OutOfService];
    for ((id, server), status) in ["0", "1", "2"].iter().zip(&servers).zip(status) {
        let mut instance = instance(id, &server.address);
        instance.status = status;
        registry.insert(instance);
    }
    let mut weightless = instance("3", &servers[3].address);
    weightless.weight = "0".parse().unwrap();
    registry.insert(weightless);
    assert!(matches!(orders.call(get("/")).await, Err(BalanceError::NoInstances { .. })));

    let mut up = instance("0", &servers[0].address);
    registry.insert(up.clone());
    for _ in 0..20 {
        let response = orders.call(get("/")).await.unwrap();
        assert_eq!(served_by(&response), "0");
        text(response).await;
    }
    up.weight = "5".parse().unwrap();
    registry.insert(up.clone());
    assert_eq!(served_by(&orders.call(get("/")).await.unwrap()), "0");

    up.status = InstanceStatus::Draining;
    registry.insert(up);
    registry.insert(instance("1", &servers[1].address));
    for _ in 0..20 {
        assert_eq!(served_by(&orders.call(get("/")).await.unwrap()), "1");
    }
}

#[tokio::test]
async fn a_removed_instance_gets_nothing_new_and_finishes_what_it_has() {
    let server = Server::start().await;
    let registry = MemoryRegistry::new();
    registry.insert(instance("7", &server.address));
    let orders =
        p2c(registry.watch(&"orders".parse().unwrap()), HttpMaker::new(), LoadMeasure::default());
    let in_flight = tokio::spawn(orders.clone().call(get("/held")));
    server.holding(1).await;
    registry.remove(&instance("7", "a").key());
    let nobody = orders.clone().call(get("/")).await;
    assert!(matches!(nobody, Err(BalanceError::NoInstances { .. })));
    assert!(!in_flight.is_finished());
    server.release();
    let response = in_flight.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(response).await.starts_with("GET /held"));
}

#[tokio::test]
async fn any_body_type_will_do() {
    let server = Server::start().await;
    let endpoint = HttpMaker::new().endpoint(&instance("7", &server.address));
    let request = Request::post("/").body(Full::new(Bytes::from_static(b"xyz"))).unwrap();
    assert!(text(endpoint.oneshot(request).await.unwrap()).await.ends_with("body=xyz"));
}
