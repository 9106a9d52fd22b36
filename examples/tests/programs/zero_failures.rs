//! Not one request fails: at 1000 a second, half of them with bodies, while instances are replaced and
//! etcd is killed, and, of those that may be done twice, while instances are killed.
//!
//! In the short form some thousand requests, in the long one at least 100 000 of each kind. These alone,
//! with their counts:
//!
//! ```console
//! $ scripts/zero-failures [--long]
//! ```
#![allow(clippy::print_stdout, reason = "counts are what these are run for")]

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use discovery_core::InstanceKey;
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_examples::grpc::orders::orders_client::OrdersClient;
use discovery_examples::grpc::orders::{GetRequest, Order};
use discovery_test_support::{Etcd, eventually, long, slack, versions};
use discovery_tower::grpc::Channel;
use discovery_tower::http::{ClientBody, FromEndpoint as _, RetryLayer};
use discovery_tower::reqwest::SendThrough as _;
use discovery_tower::{ClientError, HttpClient};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, Layer as _, Service};

use crate::support::load::Load;
use crate::support::nodes::{gateway, ready, server};
use crate::support::{AXUM_SERVER, Answer, GRPC_SERVER, Http, Program, SOON};

const INSTANCES: usize = 5;
const CALLERS: usize = 64;
const RATE: u32 = 1000;

/// Of which POST is never sent twice.
const GET_POST: &[Method] = &[Method::GET, Method::POST];
/// What may be done twice, without a body and with one.
const GET_PUT: &[Method] = &[Method::GET, Method::PUT];
/// The same, of gRPC: what was said to be such.
const GET: &[Method] = &[Method::GET];

fn least(short: usize) -> usize {
    if long() { 100_000 } else { short }
}

/// What the instances are.
#[derive(Clone, Copy)]
enum Kind {
    Node,
    /// Another program of the examples, which makes its id.
    Server(&'static str),
}

/// Instances of `orders`, the oldest first, and who tells of them.
struct Site {
    etcd: Etcd,
    kind: Kind,
    nodes: VecDeque<(String, Program)>,
    /// All there ever were.
    ids: BTreeSet<String>,
}

impl Site {
    async fn start(kind: Kind) -> Self {
        let etcd = Etcd::start(versions()[0]).await;
        let mut site = Self { etcd, kind, nodes: VecDeque::new(), ids: BTreeSet::new() };
        for _ in 0..INSTANCES {
            site.add().await;
        }
        site
    }

    /// One more, of a new id.
    async fn add(&mut self) {
        let (node, id) = match self.kind {
            Kind::Node => {
                let id = format!("n{}", self.ids.len());
                (ready(&self.etcd, &id, &["--delay-ms=2"]).await.0, id)
            }
            Kind::Server(binary) => {
                let (server, id, _) = server(&self.etcd, binary).await;
                (server, id)
            }
        };
        self.ids.insert(id.clone());
        self.nodes.push_back((id, node));
    }

    /// SIGTERM to the oldest, and another one in its place.
    async fn replace(&mut self) {
        let (id, node) = self.nodes.pop_front().unwrap();
        assert_eq!(node.stop().await, Some(0), "{id}: {}", node.stderr());
        self.add().await;
    }

    /// SIGKILL to the oldest, and another one in its place.
    async fn kill(&mut self) {
        let (_, node) = self.nodes.pop_front().unwrap();
        node.process.kill();
        self.add().await;
    }

    /// Each instance is replaced twice or more often, and etcd killed and started again in between.
    async fn replaced(mut self, name: &str, load: Load, least: usize) {
        let begun = Instant::now();
        let (mut rounds, mut etcd_killed) = (0, 0);
        load.goes_on(CALLERS * 4).await;
        while rounds < 2 || load.count() < least {
            for _ in 0..INSTANCES {
                self.replace().await;
                load.goes_on(100).await;
            }
            rounds += 1;
            if rounds % 4 == 1 {
                self.etcd.kill();
                load.goes_on(500).await;
                self.etcd.restart().await;
                etcd_killed += 1;
            }
        }
        let text = format!(
            "{} instances replaced, etcd killed and started again {etcd_killed} times",
            rounds * INSTANCES
        );
        self.end(name, load, least, begun, &text).await;
    }

    /// Each instance is killed, once or more often.
    async fn killed(mut self, name: &str, load: Load, least: usize) {
        let begun = Instant::now();
        let mut killed = 0;
        load.goes_on(CALLERS * 4).await;
        while killed < INSTANCES || load.count() < least {
            self.kill().await;
            killed += 1;
            load.goes_on(500).await;
        }
        self.end(name, load, least, begun, &format!("{killed} instances killed")).await;
    }

    async fn end(self, name: &str, load: Load, least: usize, begun: Instant, what: &str) {
        // Those that are there last have come to serve.
        let serve: Vec<_> = self.nodes.iter().map(|(id, _)| id.clone()).collect();
        eventually(SOON * 3, format!("{serve:?} serve"), async || {
            let by = load.during(Duration::from_millis(300)).await.by;
            if serve.iter().all(|id| by.contains_key(id)) { Ok(()) } else { Err(by) }
        })
        .await;
        let seconds = begun.elapsed().as_secs();
        let all = load.finish().await;
        println!(
            "{name}: {} requests in {seconds} s, {what}: {} failed, the slowest took {:?}",
            all.all,
            all.failures.len(),
            all.slowest
        );
        all.none_failed(least);
        let by: BTreeSet<_> = all.by.into_keys().collect();
        assert_eq!(by, self.ids, "not all of them have served, or others");
    }
}

/// Callers of a gateway.
async fn by_gateway(site: &Site, methods: &'static [Method]) -> (Program, Load) {
    let (gateway, address) = gateway(&site.etcd, &[]).await;
    let http = Http::new();
    eventually(SOON, "the gateway serves", async || {
        http.get(format!("{address}/send/orders")).await.status == 200
    })
    .await;
    (gateway, Load::start(&address, CALLERS, RATE, methods))
}

/// Callers of a client in this process, by the name of the service.
fn by_name<S>(client: S, methods: &'static [Method]) -> Load
where
    S: Service<Request<Full<Bytes>>, Response = Response<ClientBody>, Error = ClientError>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let send = move |request| {
        let mut client = client.clone();
        async move {
            let response = client.call(request).await.map_err(|error| error.to_string())?;
            let by = response.endpoint().cloned();
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            let answer = Answer { status: head.status, headers: head.headers, body };
            served(answer, by)
        }
    };
    load("http://orders", send, methods)
}

/// Callers with reqwest, of the servers of axum.
fn by_reqwest<S, R>(client: S, methods: &'static [Method]) -> Load
where
    S: Service<Request<reqwest::Body>, Response = Response<R>, Error = ClientError>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    R: http_body::Body<Data = Bytes> + Send + Sync + 'static,
    R::Error: Into<BoxError>,
{
    let requests = reqwest::Client::new();
    let send = move |request: Request<Full<Bytes>>| {
        let (client, requests) = (client.clone(), requests.clone());
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let body = body.to_bytes();
            let (request, expected) = if head.method == Method::GET {
                let number = head.uri.path().rsplit('/').next().unwrap_or_default();
                (
                    requests.get(format!("http://orders/v1/{number}")),
                    format!("order {number}").into(),
                )
            } else {
                (requests.request(head.method, "http://orders/v1").body(body.clone()), body)
            };
            let response =
                request.send_through(&client).await.map_err(|error| error.to_string())?;
            let by = response.endpoint().cloned();
            let status = response.status();
            let body = response.bytes().await.map_err(|error| format!("{error:?}"))?;
            if status != StatusCode::OK || body != expected {
                return Err(format!("{status} by {by:?} says {body:?}"));
            }
            served(as_of_a_node(&head.uri, by.as_ref()), by)
        }
    };
    load("http://orders", send, methods)
}

/// Callers with the client that tonic generated, of the servers of gRPC: a GET is an order asked for, and
/// whatever has a body one that is placed, by a stream, which is never sent twice.
fn by_grpc(channel: Channel, methods: &'static [Method]) -> Load {
    let client = OrdersClient::new(channel);
    let send = move |request: Request<Full<Bytes>>| {
        let mut client = client.clone();
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let number = head.uri.path().rsplit('/').next().and_then(|number| number.parse().ok());
            let number = number.unwrap_or_default();
            let (by, is_right) = if head.method == Method::GET {
                let order = client.get(GetRequest { number }).await.map_err(told)?;
                (order.endpoint().cloned(), order.get_ref().number == number)
            } else {
                let item = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                let orders = vec![Order { number, item }; 3];
                let placed = client.place(stream::iter(orders)).await.map_err(told)?;
                (placed.endpoint().cloned(), placed.get_ref().count == 3)
            };
            if !is_right {
                return Err(format!("{by:?} answers another request"));
            }
            served(as_of_a_node(&head.uri, by.as_ref()), by)
        }
    };
    load("http://orders", send, methods)
}

fn told(status: tonic::Status) -> String {
    format!("{status:?}")
}

/// What a node would have answered: whose answer is the right one.
fn as_of_a_node(uri: &Uri, by: Option<&InstanceKey>) -> Answer {
    let body = serde_json::json!({ "path": uri.path(), "id": by.map(|key| key.id.as_str()) });
    Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: body.to_string().into() }
}

/// The answer as the gateway gives it, with who served it.
fn served(mut answer: Answer, by: Option<InstanceKey>) -> Result<Answer, String> {
    let id = by.ok_or_else(|| format!("nobody served it: {answer:?}"))?.id;
    let id = HeaderValue::try_from(id.as_str()).map_err(|error| error.to_string())?;
    answer.headers.insert("x-served-by", id);
    Ok(answer)
}

/// All callers send by this.
fn load<S, F>(url: &str, send: S, methods: &'static [Method]) -> Load
where
    S: Fn(Request<Full<Bytes>>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Answer, String>> + Send + 'static,
{
    let caller = || {
        let send = send.clone();
        move |request| {
            let answer = tokio::time::timeout(slack(Duration::from_secs(20)), send(request));
            async { answer.await.map_err(|_| "no answer in time".to_owned())? }
        }
    };
    Load::through(url, caller, CALLERS, RATE, methods)
}

fn registry(site: &Site) -> EtcdRegistry {
    EtcdRegistry::new(EtcdConfig::new([site.etcd.url()])).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_33_through_the_gateway_while_instances_are_replaced_and_etcd_is_killed() {
    let site = Site::start(Kind::Node).await;
    let (gateway, load) = by_gateway(&site, GET_POST).await;
    site.replaced("gateway", load, least(6000)).await;
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_33_through_the_client_by_name_while_instances_are_replaced_and_etcd_is_killed() {
    let site = Site::start(Kind::Node).await;
    // Nothing is tried again here: what is asked to go is not asked any more.
    let load = by_name(HttpClient::new(registry(&site)), GET_POST);
    site.replaced("client by name", load, least(6000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_33_with_reqwest_and_axum_while_instances_are_replaced_and_etcd_is_killed() {
    let site = Site::start(Kind::Server(AXUM_SERVER)).await;
    let load = by_reqwest(HttpClient::new(registry(&site)), GET_POST);
    site.replaced("reqwest and axum", load, least(6000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_through_the_gateway_while_instances_are_killed() {
    let site = Site::start(Kind::Node).await;
    let (gateway, load) = by_gateway(&site, GET_PUT).await;
    site.killed("gateway", load, least(4000)).await;
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_through_the_client_by_name_while_instances_are_killed() {
    let site = Site::start(Kind::Node).await;
    let client = RetryLayer::new(2).layer(HttpClient::new(registry(&site)));
    let load = by_name(client, GET_PUT);
    site.killed("client by name", load, least(4000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_33_through_the_channel_of_grpc_while_instances_are_replaced_and_etcd_is_killed() {
    let site = Site::start(Kind::Server(GRPC_SERVER)).await;
    let channel = Channel::new(&registry(&site), &"orders".parse().unwrap());
    let load = by_grpc(channel, GET_POST);
    site.replaced("gRPC", load, least(6000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_through_the_channel_of_grpc_while_instances_are_killed() {
    let site = Site::start(Kind::Server(GRPC_SERVER)).await;
    let retry = RetryLayer::new(2).repeating(|head| head.uri.path() == "/orders.Orders/Get");
    let channel = Channel::builder(&registry(&site), &"orders".parse().unwrap());
    let load = by_grpc(channel.retry(retry).build(), GET);
    site.killed("gRPC", load, least(4000)).await;
}
