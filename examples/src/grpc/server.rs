//! One instance of the service: serves, registers, and goes without a call that fails.

use clap::Parser;
use discovery_core::{InstanceId, ServiceName};
use discovery_tower::Server;
use tonic::service::Routes;

use super::Shop;
use super::orders::orders_server::OrdersServer;
use crate::etcd::EtcdOptions;
use crate::fault::Fault;
use crate::program::Program;
use crate::shutdown::Signals;
use crate::{output, server};

/// One instance of a service of gRPC: serves proto/orders.proto and registers in etcd.
#[derive(Parser, Clone, Debug)]
#[command(name = "grpc_server", version)]
pub struct ServerOptions {
    /// The service it belongs to
    #[arg(long, value_name = "NAME", default_value = "orders")]
    pub service: ServiceName,

    /// Its id within the service [default: a new UUID]
    #[arg(long, value_name = "ID")]
    pub id: Option<InstanceId>,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: String,

    /// Where etcd is.
    #[command(flatten)]
    pub etcd: EtcdOptions,
}

impl Program for ServerOptions {
    async fn run(self) -> Result<(), Fault> {
        let mut signals = Signals::new()
            .map_err(|error| Fault::failed(format!("cannot wait for signals: {error}")))?;
        let registry = self.etcd.registry(|config| config)?;
        let (listener, bound) = server::bind("--listen", &self.listen).await?;
        let mut server = Server::new(self.service).scheme("grpc");
        if let Some(id) = self.id {
            server = server.id(id);
        }
        // A closed stdout is no reason not to serve.
        let _ = output::line(&format!("listening address=grpc://{bound}"));
        let shutdown = async {
            let signal = signals.next().await;
            tracing::info!(signal, "stopping");
        };
        let routes = Routes::new(OrdersServer::new(Shop));
        server
            .serve(listener, registry.registrar(), routes, shutdown)
            .await
            .map_err(|error| Fault::failed(error.to_string()))?;
        let _ = output::line("stopped");
        Ok(())
    }
}
