//! A gateway in this process and instances of the tests' own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use clap::Parser as _;
use discovery_core::{Instance, MemoryRegistry, Source};
use discovery_examples::gateway::{GatewayOptions, serve};
use discovery_examples::server::Server;
use discovery_test_support::eventually;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::{Answer, Http, SOON, request};

/// A gateway to what is in a registry of its own.
pub(crate) struct Gateway {
    pub(crate) registry: MemoryRegistry,
    pub(crate) address: String,
    pub(crate) http: Http,
    _server: Server,
}

impl Gateway {
    pub(crate) async fn start(args: &[&str]) -> Self {
        let registry = MemoryRegistry::new();
        let (server, address) = gateway(&registry, args).await;
        Self { registry, address, http: Http::new(), _server: server }
    }

    pub(crate) fn add(&self, service: &str, id: &str, address: &str) {
        self.registry.insert(Instance::parse(service, id, address).unwrap());
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.http.get(format!("{}{path}", self.address)).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &'static str) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.http.send(request(method, &format!("{}{path}", self.address), body)).await
    }

    /// How many retries it counts.
    pub(crate) async fn retries(&self, service: &str) -> u64 {
        let metrics = self.get("/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let name = format!("gateway_retries_total{{service=\"{service}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name}in {metrics}")).parse().unwrap()
    }

    /// Waits until the gateway knows this many instances.
    pub(crate) async fn knows(&self, service: &str, count: usize) {
        eventually(SOON, format!("{count} instances of {service}"), async || {
            let listed = self.get("/services").await.json();
            let listed = listed["services"][service].as_array().map_or(0, Vec::len);
            if listed == count { Ok(()) } else { Err(listed) }
        })
        .await;
    }
}

pub(crate) async fn gateway(source: &dyn Source, args: &[&str]) -> (Server, String) {
    let args = ["gateway"].iter().chain(args);
    let options = GatewayOptions::try_parse_from(args).unwrap();
    let (listener, address) = listen().await;
    (serve(source, listener, &options).unwrap(), address)
}

pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// An address where nobody listens.
pub(crate) async fn nowhere() -> String {
    listen().await.1
}

/// An instance that answers by `answer`.
pub(crate) async fn instance<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> (Server, String)
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let (listener, address) = listen().await;
    (Server::start(listener, answer), address)
}

/// An instance that answers with this status and counts its requests.
pub(crate) async fn counting(status: u16) -> (Server, String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let (server, address) = instance(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut answer = Response::new(Full::new(body));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            answer
        }
    })
    .await;
    (server, address, count)
}

/// An instance that takes connections and whole requests and closes without an answer.
pub(crate) async fn resetting() -> (String, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (address, count)
}

/// An instance that takes connections and requests and never answers.
pub(crate) async fn hanging() -> (String, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            held.push(stream);
        }
    });
    (address, count)
}

pub(crate) fn count(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}
