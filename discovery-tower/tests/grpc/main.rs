//! The channel for clients that tonic generates, with such a client, to servers of tonic's and to some
//! that are not so well made.

mod cancelling;
mod deadlines;
mod kinds;
#[path = "../http_balance/server.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod raw;
mod restarts;
mod retries;
mod server;
#[path = "../support/server.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod sockets;
mod statuses;
#[cfg(feature = "tls")]
mod tls;
mod unsent;
#[path = "../http_balance/watching.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod watching;

use std::time::Duration;

use discovery_core::{
    Instance, InstanceChanges, InstanceKey, MemoryRegistry, Publisher, ServiceName, Source,
};
use discovery_test_support::eventually_eq;
use discovery_test_support::orders::orders_client::OrdersClient;
use discovery_test_support::orders::{GetRequest, Order};
use discovery_tower::balance::{Ejection, EndpointView, Outcome, Standing};
use discovery_tower::grpc::{Channel, ChannelBuilder};
use discovery_tower::http::FromEndpoint as _;
use tonic::{Request, Status};

use watching::Watching;

const SECOND: Duration = Duration::from_secs(1);

type Client = OrdersClient<Channel>;

fn orders() -> ServiceName {
    "orders".parse().unwrap()
}

fn key(id: &str) -> InstanceKey {
    InstanceKey::new(orders(), id.parse().unwrap())
}

/// The instances `0`, `1`, `2` and so on at these addresses.
fn registry<'a>(addresses: impl IntoIterator<Item = &'a str>) -> MemoryRegistry {
    let registry = MemoryRegistry::new();
    let instances = addresses.into_iter().enumerate();
    registry
        .replace(instances.map(|(id, at)| Instance::parse("orders", &id.to_string(), at).unwrap()));
    registry
}

/// A channel to these addresses when all are up, to the first by name, and what its balancer is told
/// of calls. Nobody is left out.
async fn watched(
    addresses: &[&str],
    set: impl FnOnce(ChannelBuilder<Watching>) -> ChannelBuilder<Watching>,
) -> (Channel, Watching) {
    let watching = Watching::default();
    let builder = Channel::builder(&registry(addresses.iter().copied()), &orders())
        .policy(watching.clone())
        .ejection(Ejection::never());
    let channel = set(builder).build();
    up(&channel, addresses.len()).await;
    (channel, watching)
}

/// A source that says what its publisher is told.
struct Silent(Publisher<InstanceKey, Instance>);

impl Source for Silent {
    fn watch(&self, _: &ServiceName) -> InstanceChanges {
        self.0.subscribe()
    }

    fn watch_all(&self) -> InstanceChanges {
        self.0.subscribe()
    }
}

/// Waits until so many instances are up.
async fn up(channel: &Channel, count: usize) {
    eventually_eq(10 * SECOND, "instances that are up", count, async || {
        channel.endpoints().iter().filter(|view| view.standing == Standing::Up).count()
    })
    .await;
}

fn view(channel: &Channel, id: &str) -> EndpointView<InstanceKey, Instance> {
    let all = channel.endpoints();
    all.into_iter().find(|view| view.key == key(id)).expect("an instance with this id")
}

/// Waits until the balancer has been told what became of calls.
async fn told(watching: &Watching, expected: &[Outcome]) {
    let mut all = Vec::new();
    eventually_eq(10 * SECOND, "outcomes", expected.to_vec(), async || {
        all.extend(watching.take());
        all.clone()
    })
    .await;
}

fn order(number: u64) -> Order {
    Order { number, item: "tea".into() }
}

fn get(number: u64) -> Request<GetRequest> {
    Request::new(GetRequest { number })
}

/// The same with what the server is to do.
fn doing<T>(message: T, what: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("do", what.parse().unwrap());
    request
}

/// The instance that a status is from, or that failed.
fn endpoint(status: &Status) -> Option<&str> {
    Some(status.endpoint()?.id.as_str())
}

/// The instance that an answer is from.
fn served_by<T>(response: &tonic::Response<T>) -> &str {
    response.endpoint().expect("who served").id.as_str()
}
