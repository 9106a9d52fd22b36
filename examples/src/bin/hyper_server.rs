//! A server of the service `orders` without a framework: a function from hyper's requests to responses.

use bytes::Bytes;
use clap::Parser;
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_tower::{Server, server::shutdown_signal};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Options {
    /// etcd's addresses, with commas between them
    #[arg(
        long,
        env = "DISCOVERY_ETCD",
        value_name = "URL",
        value_delimiter = ',',
        required = true
    )]
    etcd: Vec<String>,
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
}

async fn orders(request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let mut response = match (head.method, head.uri.path().strip_prefix("/v1")) {
        (Method::POST, Some("")) => {
            return Ok(Response::new(body.collect().await?.to_bytes().into()));
        }
        (Method::GET, Some(rest)) if rest.len() > 1 => {
            return Ok(Response::new(Full::from(format!("order {}", &rest[1..]))));
        }
        _ => Response::new(Full::default()),
    };
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Options { etcd, listen } = Options::parse();
    let registry = EtcdRegistry::new(EtcdConfig::new(etcd))?;
    let shutdown = shutdown_signal()?;
    Server::new("orders".parse()?)
        .serve(TcpListener::bind(listen).await?, &registry, tower::service_fn(orders), shutdown)
        .await?;
    Ok(())
}
