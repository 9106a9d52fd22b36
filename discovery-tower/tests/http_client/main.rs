//! The client by the names of services, against real servers and the in-memory registry.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

mod deadlines;
mod hosts;
mod life;
mod limits;
mod names;
mod raw;
mod requests;
#[allow(dead_code, reason = "it does more than is asked of it here")]
#[path = "../pool/server.rs"]
mod server;
mod spawned;
#[cfg(feature = "tls")]
mod tls;
mod wrong;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use discovery_core::{Instance, InstanceChanges, MemoryRegistry, ServiceName, Source};
use discovery_tower::http::{ClientBody, FromEndpoint as _};
use discovery_tower::{ClientError, HttpClient, HttpVersion};
use futures::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use tower::Service as _;

use server::Server;

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Client = HttpClient<Body>;
type Outcome = Result<Response<ClientBody>, ClientError>;

/// A registry that knows how often it was asked, and how many still listen.
#[derive(Clone, Default)]
struct Counting {
    registry: MemoryRegistry,
    watches: Arc<AtomicUsize>,
    listening: Arc<()>,
}

impl Counting {
    fn insert(&self, service: &str, id: &str, address: &str) {
        self.registry.insert(Instance::parse(service, id, address).unwrap());
    }

    /// How often it was asked for the instances of a service.
    fn watches(&self) -> usize {
        self.watches.load(Ordering::SeqCst)
    }

    /// How many of those who asked still listen.
    fn listening(&self) -> usize {
        Arc::strong_count(&self.listening) - 1
    }

    fn source(&self) -> Watched {
        Watched {
            registry: self.registry.clone(),
            watches: self.watches.clone(),
            listening: Arc::downgrade(&self.listening),
        }
    }

    fn client(&self) -> Client {
        HttpClient::new(self.source())
    }
}

/// What a client has of it, which does not itself count as listening.
struct Watched {
    registry: MemoryRegistry,
    watches: Arc<AtomicUsize>,
    listening: std::sync::Weak<()>,
}

impl Source for Watched {
    fn watch(&self, service: &ServiceName) -> InstanceChanges {
        self.watches.fetch_add(1, Ordering::SeqCst);
        let listens = self.listening.upgrade();
        self.registry.watch(service).filter_endpoints(move |_, _| listens.is_some())
    }

    fn watch_all(&self) -> InstanceChanges {
        unreachable!("nobody asks for all")
    }
}

async fn server() -> Server {
    Server::start(HttpVersion::Http1).await
}

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

async fn send(client: &Client, request: Request<Body>) -> Outcome {
    client.clone().call(request).await
}

async fn text(response: Response<ClientBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn served_by<T>(response: &Response<T>) -> String {
    response.endpoint().unwrap().to_string()
}
