//! A client of the service `orders`, by its name: each request goes to an instance that is alive.
#![allow(clippy::print_stdout)]

use bytes::Bytes;
use clap::Parser;
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_tower::HttpClient;
use discovery_tower::http::{RetryLayer, ServedBy};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service as _};

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
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = EtcdRegistry::new(EtcdConfig::new(Options::parse().etcd))?;
    let mut services = RetryLayer::new(2).layer(HttpClient::new(registry));
    for number in 1..=10 {
        let request = Request::get(format!("http://orders/v1/{number}"));
        let response = services.call(request.body(Full::<Bytes>::default())?).await?;
        let by = response.extensions().get::<ServedBy>().map(|by| by.0.to_string());
        println!("{} by {}", response.status(), by.unwrap_or_default());
        let body = response.into_body().collect().await?.to_bytes();
        println!("{}", String::from_utf8_lossy(&body));
    }
    Ok(())
}
