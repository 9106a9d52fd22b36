//! The balancer over connections to real servers: what HTTP and gRPC say of instances, what becomes of
//! requests that were not sent, and trying again.
#![cfg(feature = "http")]

mod bodies;
mod grpc;
mod http_outcomes;
mod keys;
mod layered;
mod retry;
mod retry_bodies;
mod server;
mod spawned;
#[path = "../support/mod.rs"]
mod support;
mod unsent;
mod watching;

use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Instance, InstanceKey, MemoryRegistry, Source as _};
use discovery_test_support::eventually_eq;
use discovery_tower::balance::{
    Balance, Builder, CallError, Ejection, EndpointView, Protocol, Standing,
};
use discovery_tower::http::Tracked;
use discovery_tower::{
    Avoid, HttpError, HttpVersion, PoolConfig, PooledBody, PooledEndpoint, PooledMaker, ServedBy,
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use server::{Body, Server, empty, soon};
use watching::Watching;

const SECOND: Duration = Duration::from_secs(1);
const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];

type Bal<C, B = Body> = Balance<InstanceKey, Instance, PooledEndpoint<B>, Request<B>, Watching, C>;
type Answered = Result<Response<Tracked<PooledBody, InstanceKey>>, CallError<InstanceKey>>;

/// What a protocol gives of calls to pooled endpoints, as those of HTTP and gRPC do.
trait Reads:
    Protocol<
        Request<Body>,
        Response<PooledBody>,
        HttpError<Body>,
        InstanceKey,
        Response = Response<Tracked<PooledBody, InstanceKey>>,
    >
{
}

impl<C> Reads for C where
    C: Protocol<
            Request<Body>,
            Response<PooledBody>,
            HttpError<Body>,
            InstanceKey,
            Response = Response<Tracked<PooledBody, InstanceKey>>,
        >
{
}

fn key(id: &str) -> InstanceKey {
    InstanceKey::new("orders".parse().unwrap(), id.parse().unwrap())
}

/// The instances `0`, `1`, `2` and so on at these addresses.
fn registry<'a>(addresses: impl IntoIterator<Item = &'a str>) -> MemoryRegistry {
    let registry = MemoryRegistry::new();
    let instances = addresses.into_iter().enumerate();
    registry
        .replace(instances.map(|(id, at)| Instance::parse("orders", &id.to_string(), at).unwrap()));
    registry
}

fn addresses(servers: &[Server]) -> impl Iterator<Item = &str> {
    servers.iter().map(|server| server.address.as_str())
}

/// A balancer over these servers, when all are up, and what it is told of its calls.
async fn watched<C: Reads>(
    version: HttpVersion,
    protocol: C,
    ejection: Ejection,
    servers: &[Server],
) -> (Bal<C>, Watching) {
    let watching = Watching::default();
    let maker = PooledMaker::with(PoolConfig::default().protocol(version));
    let balance =
        Builder::new(registry(addresses(servers)).watch(&"orders".parse().unwrap()), maker)
            .protocol(protocol)
            .policy(watching.clone())
            .ejection(ejection)
            .named("orders")
            .spawn();
    eventually_eq(10 * SECOND, "instances that are up", servers.len(), async || {
        balance.endpoints().iter().filter(|view| view.standing == Standing::Up).count()
    })
    .await;
    (balance, watching)
}

/// Nobody is ever left out.
async fn plain<C: Reads>(
    version: HttpVersion,
    protocol: C,
    servers: &[Server],
) -> (Bal<C>, Watching) {
    watched(version, protocol, Ejection::never(), servers).await
}

fn view<C: Reads>(balance: &Bal<C>, id: &str) -> EndpointView<InstanceKey, Instance> {
    let all = balance.endpoints();
    all.into_iter().find(|view| view.key == key(id)).expect("an instance with this id")
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(empty()).unwrap()
}

fn post(body: Body) -> Request<Body> {
    Request::post("/").body(body).unwrap()
}

fn avoiding<B>(mut request: Request<B>, ids: &[&str]) -> Request<B> {
    let mut avoid = Avoid::new();
    for id in ids {
        avoid.add(key(id));
    }
    request.extensions_mut().insert(avoid);
    request
}

async fn call<C: Reads>(balance: &Bal<C>, request: Request<Body>) -> Answered {
    soon(balance.clone().oneshot(request)).await
}

/// Sends a request and reads the response to its end: status and body.
async fn ask<C: Reads>(balance: &Bal<C>, request: Request<Body>) -> (u16, String) {
    let response = call(balance, request).await.unwrap();
    (response.status().as_u16(), text(response).await)
}

async fn text<R>(response: Response<R>) -> String
where
    R: http_body::Body<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn served_by<R>(response: &Response<R>) -> &str {
    response.extensions().get::<ServedBy>().expect("who served").0.id.as_str()
}
