//! Two instances, an in-memory registry, and requests balanced over them.
#![allow(clippy::print_stdout)]

use std::future::pending;

use bytes::Bytes;
use discovery_core::{MemoryRegistry, Source};
use discovery_tower::server::{HttpServer, Server};
use discovery_tower::{PooledMaker, ServedBy, http::balance};
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio::net::TcpListener;
use tower::{Service, service_fn};

/// Serves a greeting, and registers as an instance of `hi`.
async fn serve(id: &str, registry: &MemoryRegistry) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = Server::new("hi".parse()?).id(id.parse()?);
    let member = server.register(listener.local_addr()?, registry)?;
    let hi = service_fn(|_| async { hyper::Result::Ok(Response::new(Full::<Bytes>::from("hi"))) });
    let (leave, _) = member.leave_on(pending());
    tokio::spawn(HttpServer::new().serve(listener, hi, leave));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = MemoryRegistry::new();
    serve("a", &registry).await?;
    serve("b", &registry).await?;
    let mut hi = balance(registry.watch(&"hi".parse()?), PooledMaker::<Empty<Bytes>>::new());
    for number in 1..=10 {
        let response = hi.call(Request::new(Empty::new())).await?;
        if let Some(ServedBy(by)) = response.extensions().get::<ServedBy>() {
            println!("request {number} was served by {by}");
        }
    }
    Ok(())
}
