//! Endpoints that connect before they are given a request, against real sockets.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

mod connecting;
mod ending;
mod errors;
mod http1;
mod http2;
mod server;

use std::convert::Infallible;

use bytes::Bytes;
use discovery_core::Instance;
use discovery_tower::{
    HttpError, HttpVersion, PoolConfig, PooledBody, PooledEndpoint, PooledMaker, ServedBy,
};
use futures::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use tower::{Service as _, ServiceExt as _};

use server::{Server, soon};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Endpoint = PooledEndpoint<Body>;
type Outcome = Result<Response<PooledBody>, HttpError<Body>>;

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A body that comes in pieces and cannot be copied.
fn streaming(pieces: u8) -> Body {
    let frames = (0..pieces).map(|n| Ok(Frame::data(Bytes::from(vec![b'a' + n]))));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body that fails the test if anybody asks for a piece of it.
fn untouched() -> Body {
    let frames = stream::poll_fn(|_| panic!("the body was read"));
    StreamBody::new(frames).boxed_unsync()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(empty()).unwrap()
}

fn post(body: Body) -> Request<Body> {
    Request::post("/").body(body).unwrap()
}

fn endpoint(address: &str, config: PoolConfig) -> Endpoint {
    let instance = Instance::parse("orders", "7", address).unwrap();
    PooledMaker::with(config).endpoint(&instance)
}

fn http2() -> PoolConfig {
    PoolConfig::default().protocol(HttpVersion::Http2)
}

fn both() -> [PoolConfig; 2] {
    [PoolConfig::default(), http2()]
}

async fn served(config: &PoolConfig) -> (Server, Endpoint) {
    let server = Server::start(config.protocol).await;
    let endpoint = endpoint(&server.address, config.clone());
    (server, endpoint)
}

/// Sends a request as a balancer does: a clone is made ready, then called.
async fn call(endpoint: &Endpoint, request: Request<Body>) -> Outcome {
    soon(endpoint.clone().oneshot(request)).await
}

/// Sends a request and does not wait for more than that it is on its way.
async fn begin(
    endpoint: &Endpoint,
    request: Request<Body>,
) -> tokio::task::JoinHandle<Result<String, HttpError<Body>>> {
    let mut endpoint = endpoint.clone();
    soon(endpoint.ready()).await.unwrap();
    let response = endpoint.call(request);
    tokio::spawn(async move { Ok(text(response.await?).await) })
}

async fn text(response: Response<PooledBody>) -> String {
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn failure(mut endpoint: Endpoint) -> HttpError<Body> {
    soon(endpoint.ready()).await.map(drop).unwrap_err()
}

fn served_by<T>(response: &Response<T>) -> String {
    response.extensions().get::<ServedBy>().unwrap().0.to_string()
}

/// For a test with random parts; shown when it fails.
#[expect(clippy::print_stdout, reason = "only seen with a failure")]
fn seed() -> u64 {
    let seed = rand::random();
    println!("seed {seed}");
    seed
}
