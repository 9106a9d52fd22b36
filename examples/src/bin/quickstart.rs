//! Two instances, an in-memory registry, and requests balanced over them.
#![allow(clippy::print_stdout)]

use bytes::Bytes;
use discovery_core::{Instance, MemoryRegistry, Source};
use discovery_tower::{PooledMaker, ServedBy, http::balance};
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower::Service;

/// Serves a greeting, and registers as an instance of `hi`.
async fn serve(id: &str, registry: &MemoryRegistry) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    registry.insert(Instance::parse("hi", id, &listener.local_addr()?.to_string())?);
    let hi = service_fn(|_| async { hyper::Result::Ok(Response::new(Full::<Bytes>::from("hi"))) });
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), hi));
        }
    });
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
