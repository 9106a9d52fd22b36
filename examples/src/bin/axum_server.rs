//! An axum server of the service `orders`: registered when it serves, out of service while it is closed,
//! and gone without a failed request.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::routing::{get, post, put};
use clap::Parser;
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_tower::{Server, server::shutdown_signal};
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

static OPEN: AtomicBool = AtomicBool::new(true);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Options { etcd, listen } = Options::parse();
    let open = async |Path(open): Path<bool>| OPEN.store(open, Ordering::Relaxed);
    let orders = Router::new()
        .route("/v1/{number}", get(async |Path(number): Path<u32>| format!("order {number}")))
        .route("/v1", post(async |order: Bytes| order))
        .route("/open/{open}", put(open));

    let registry = EtcdRegistry::new(EtcdConfig::new(etcd))?;
    let shutdown = shutdown_signal()?;
    Server::new("orders".parse()?)
        .health(async || OPEN.load(Ordering::Relaxed))
        .serve(TcpListener::bind(listen).await?, &registry, orders, shutdown)
        .await?;
    Ok(())
}
