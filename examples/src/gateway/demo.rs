//! A registry in memory and four nodes in this process: something to try without etcd.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{
    Address, Instance, InstanceId, Invalid, MemoryRegistry, Registrar as _, Registration,
    ServiceName, Source,
};

use crate::fault::Fault;
use crate::node::{Behaviour, Node};
use crate::server::{self, Server};

/// How long most nodes take for an answer.
const USUAL: Duration = Duration::from_millis(10);

/// The nodes and their registry, which live as long as this does.
pub(super) struct Demo {
    registry: MemoryRegistry,
    _nodes: Vec<(Server, Registration)>,
}

impl Demo {
    /// Starts the nodes `demo-1` to `demo-4` of the service `demo`: the third is ten times slower, the
    /// fourth fails for one request in five.
    pub(super) async fn start() -> Result<Self, Fault> {
        let registry = MemoryRegistry::new();
        let usual = Behaviour { delay: USUAL, fail_rate: 0.0, fails_slowly: true };
        let slow = Behaviour { delay: USUAL * 10, ..usual };
        let faulty = Behaviour { fail_rate: 0.2, ..usual };
        let mut nodes = Vec::new();
        for (number, behaviour) in (1..).zip([usual, usual, slow, faulty]) {
            nodes.push(node(&registry, &format!("demo-{number}"), behaviour).await?);
        }
        Ok(Self { registry, _nodes: nodes })
    }

    /// The registry as a source.
    pub(super) fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.registry.clone())
    }

    /// Says on stderr what to try.
    pub(super) fn hints(address: SocketAddr) {
        tracing::info!(
            "four nodes of the service demo: demo-3 is 10 times slower, demo-4 fails 20 %"
        );
        tracing::info!("try: curl -i http://{address}/send/demo/some/path?x=1");
        tracing::info!(
            "try: for i in $(seq 100); do curl -s -o /dev/null -D - http://{address}/send/demo | grep x-served-by; done | sort | uniq -c"
        );
        tracing::info!("try: curl http://{address}/services");
        tracing::info!("try: curl http://{address}/metrics");
    }
}

async fn node(
    registry: &MemoryRegistry,
    id: &str,
    behaviour: Behaviour,
) -> Result<(Server, Registration), Fault> {
    let (listener, bound) = server::bind("--demo", "127.0.0.1:0").await?;
    let fault = |error: Invalid| Fault::failed(error.to_string());
    let service = ServiceName::new("demo").map_err(fault)?;
    let id = InstanceId::new(id).map_err(fault)?;
    let address = Address::from_socket("http", bound).map_err(fault)?;
    let server = Node::new(service.clone(), id.clone(), behaviour).serve(listener);
    Ok((server, registry.register(Instance::new(service, id, address))))
}
