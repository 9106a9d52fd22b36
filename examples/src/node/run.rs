//! The life of a node: serve, register, and at the end go without anybody noticing.

use std::time::Duration;

use discovery_core::{
    Address, Instance, InstanceId, Invalid, Registration, RegistrationState, ServiceName,
};
use discovery_etcd::format::{FormatName, Unencodable};
use tokio::time::sleep;

use super::registration::{Reason, watch};
use super::{Behaviour, Node, NodeOptions, OnConflictOption};
use crate::fault::Fault;
use crate::output;
use crate::program::Program;
use crate::server::{self, Server};
use crate::shutdown::Signals;

/// How long it waits for etcd to show that it is draining.
const DRAIN_SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// How long it tries to deregister what etcd may never have had.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(1);

/// How long it gives requests in flight.
const FINISH_WITHIN: Duration = Duration::from_secs(30);

impl Program for NodeOptions {
    async fn run(self) -> Result<(), Fault> {
        let mut signals = Signals::new()
            .map_err(|error| Fault::failed(format!("cannot wait for signals: {error}")))?;
        let missing = || Fault::usage("--service is missing");
        let service = self.service.clone().ok_or_else(missing)?;
        let registry = self.etcd.registry(|config| config.ttl(self.ttl))?;
        let (listener, bound) = server::bind("--listen", &self.listen).await?;
        let own = Address::from_socket("http", bound).map_err(|error| internal(&error))?;
        let address = self.advertise.clone().unwrap_or_else(|| own.clone());
        let id = self.id_at(&address)?;
        let instance = self.instance(service.clone(), id.clone(), address.clone());
        registry.check(&instance).map_err(|error| self.cannot_be(&error))?;
        if bound.ip().is_unspecified() && self.advertise.is_none() {
            tracing::warn!(%address, "registering an address that only this machine can reach; see --advertise");
        }

        let behaviour = Behaviour {
            delay: Duration::from_millis(self.delay_ms),
            fail_rate: self.fail_rate,
            fails_slowly: false,
        };
        let node = Node::new(service.clone(), id.clone(), behaviour);
        let server = node.serve(listener);

        let wait = self.on_conflict == OnConflictOption::Wait;
        let registration = registry.register(instance, wait, address == own);
        tracing::info!(%service, %id, %address, listen = %bound, "serving; registering");

        let ready = || {
            // A closed stdout is no reason not to serve.
            let _ = output::line(&format!("ready id={id} service={service} address={address}"));
        };
        match watch(&registration, &mut signals, ready).await? {
            Reason::Signal(signal) => {
                tracing::info!(%service, %id, signal, "stopping");
                let drain = Duration::from_millis(self.drain_ms);
                stop(&node, server, registration, drain, &mut signals).await;
                let _ = output::line(&format!("stopped id={id}"));
                Ok(())
            }
            Reason::Conflict(conflict) => Err(Fault::Conflict(conflict.to_string())),
        }
    }
}

impl NodeOptions {
    /// The id it was given, or the one by which others will know it.
    fn id_at(&self, address: &Address) -> Result<InstanceId, Fault> {
        let id = match (&self.id, self.etcd.format) {
            (Some(id), _) => return Ok(id.clone()),
            (None, FormatName::Heartbeat) => InstanceId::new(address.as_str()),
            (None, _) => InstanceId::new(uuid::Uuid::new_v4().to_string()),
        };
        id.map_err(|error| internal(&error))
    }

    /// What was given that the format cannot hold.
    fn cannot_be(&self, error: &Unencodable) -> Fault {
        if self.id.is_some() && error.field() == "instance id" {
            return Fault::option("--id", error.value(), error.reason());
        }
        Fault::usage(format!("--format {}: {error}", self.etcd.format))
    }

    fn instance(&self, service: ServiceName, id: InstanceId, address: Address) -> Instance {
        let mut instance = Instance::new(service, id, address);
        instance.weight = self.weight;
        instance.zone.clone_from(&self.zone);
        instance
    }
}

/// Says that it will go, goes on serving for a while, deregisters, and finishes what it has begun.
async fn stop(
    node: &Node,
    server: Server,
    registration: Registration,
    drain: Duration,
    signals: &mut Signals,
) {
    node.drain();
    let status = registration.status();
    let was_there = status.applied > 0;
    if matches!(status.state, RegistrationState::Registered) {
        registration.drain();
        if signals.or_enough(DRAIN_SHOWN_WITHIN, registration.registered()).await.is_none() {
            tracing::warn!("etcd does not show yet that this node is draining");
        }
        signals.or_enough(drain, sleep(drain)).await;
    }
    let within = if was_there { Registration::DEREGISTER_WITHIN } else { FORGOTTEN_WITHIN };
    if let Err(error) = registration.deregister_within(within).await {
        tracing::warn!(%error, "could not deregister");
    }
    if signals.or_enough(FINISH_WITHIN, server.finish()).await.is_none() {
        tracing::warn!("requests in flight were cut off");
    }
}

fn internal(error: &Invalid) -> Fault {
    Fault::failed(error.to_string())
}
