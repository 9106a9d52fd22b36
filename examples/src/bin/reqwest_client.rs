//! The same with reqwest: it makes the requests and reads the responses.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use clap::Parser;
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_tower::HttpClient;
use discovery_tower::http::{FromEndpoint as _, RetryLayer};
use discovery_tower::reqwest::SendThrough as _;
use tower::Layer as _;

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
    let services = RetryLayer::new(2).layer(HttpClient::new(registry));
    let requests = reqwest::Client::new(); // it never connects
    for number in 1..=10 {
        let order = serde_json::json!({ "number": number, "of": "shoes" });
        let request = requests.post("http://orders/v1").json(&order);
        let request = request.timeout(Duration::from_secs(5));
        let response = request.send_through(&services).await?.error_for_status()?;
        let by = response.endpoint().map(ToString::to_string);
        println!("{} by {}", response.status(), by.unwrap_or_default());
        println!("{}", response.json::<serde_json::Value>().await?);
    }
    Ok(())
}
