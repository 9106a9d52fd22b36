//! Requests made with reqwest and sent by the names of services, against real servers.

mod limits;
mod names;
mod requests;
mod resolver;
mod retries;
#[allow(dead_code, reason = "it does more than is asked of it here")]
#[path = "../http_balance/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod unapplied;

use discovery_core::{Instance, MemoryRegistry};
use discovery_tower::HttpClient;
use discovery_tower::http::FromEndpoint as _;
use discovery_tower::reqwest::{SendError, SendThrough as _};
use discovery_tower::{ClientError, HttpVersion};
use reqwest::{Body, RequestBuilder, Response};

use server::{Server, soon};

type Client = HttpClient<Body>;

/// The instances `0`, `1` and so on of `orders` at these addresses.
fn registry<'a>(addresses: impl IntoIterator<Item = &'a str>) -> MemoryRegistry {
    let registry = MemoryRegistry::new();
    for (id, address) in addresses.into_iter().enumerate() {
        registry.insert(Instance::parse("orders", &id.to_string(), address).unwrap());
    }
    registry
}

fn over(servers: &[Server]) -> Client {
    HttpClient::new(registry(servers.iter().map(|server| server.address.as_str())))
}

/// What makes requests.
fn requests() -> reqwest::Client {
    reqwest::Client::new()
}

async fn echoing() -> Server {
    Server::saying(HttpVersion::Http1, 200).await
}

async fn send(client: &Client, request: RequestBuilder) -> Result<Response, SendError> {
    soon(request.send_through(client)).await
}

async fn refused(client: &Client, request: RequestBuilder) -> ClientError {
    let error = send(client, request).await.unwrap_err();
    error.call().unwrap_or_else(|| panic!("{error}")).clone()
}

fn served_by(response: &Response) -> String {
    response.endpoint().unwrap().id.to_string()
}
