//! The life of a node: serve, register, and at the end go without anybody noticing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use discovery_core::{
    Address, Instance, InstanceId, InstanceKey, Invalid, RegistrationError, ServiceName,
};
use discovery_etcd::format::{FormatName, Unencodable};
use discovery_tower::server::{Advertise, Server, ServerError};
use tower::service_fn;

use super::registration::Registering;
use super::{Behaviour, Node, NodeOptions, OnConflictOption};
use crate::fault::Fault;
use crate::output;
use crate::program::Program;
use crate::server;
use crate::shutdown::Signals;

impl Program for NodeOptions {
    async fn run(self) -> Result<(), Fault> {
        let signals = Signals::new()
            .map_err(|error| Fault::failed(format!("cannot wait for signals: {error}")))?;
        let missing = || Fault::usage("--service is missing");
        let service = self.service.clone().ok_or_else(missing)?;
        let registry = self.etcd.registry(|config| config.ttl(self.ttl))?;
        let (listener, bound) = server::bind("--listen", &self.listen).await?;
        let own = self.own_address(bound);
        let address = match &self.advertise {
            Some(address) => address.clone(),
            None => own.clone()?,
        };
        let id = self.id_at(&address)?;
        let instance = self.instance(service.clone(), id.clone(), address.clone());
        registry.check(&instance).map_err(|error| self.cannot_be(&error))?;

        let behaviour = Behaviour {
            delay: Duration::from_millis(self.delay_ms),
            fail_rate: self.fail_rate,
            fails_slowly: false,
        };
        let answer = Node::new(service.clone(), id.clone(), behaviour).answering();
        let answer = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });

        let key = instance.key();
        let ready = {
            let line = format!("ready id={id} service={service} address={address}");
            // A closed stdout is no reason not to serve.
            move || drop(output::line(&line))
        };
        let registering = Registering {
            registry: &registry,
            wait: self.on_conflict == OnConflictOption::Wait,
            replace_same_address: own.is_ok_and(|own| own == address),
            ready,
        };
        let (signal, again) = signals.twice();
        let shutdown = async {
            let signal = signal.await;
            tracing::info!(%key, signal, "stopping");
        };
        tracing::info!(%key, %address, listen = %bound, "serving; registering");
        let mut server = Server::new(service)
            .id(id.clone())
            .advertise(Advertise::address(address))
            .weight(self.weight)
            .drain_for(Duration::from_millis(self.drain_ms))
            .hurry_on(again);
        if let Some(zone) = self.zone.clone() {
            server = server.zone(zone);
        }
        let served = server.serve(listener, registering, answer, shutdown).await;
        served.map_err(|error| fault(&key, &error))?;
        let _ = output::line(&format!("stopped id={id}"));
        Ok(())
    }
}

impl NodeOptions {
    /// The address by which others reach what listens at `bound`.
    fn own_address(&self, bound: SocketAddr) -> Result<Address, Fault> {
        let own = Advertise::default().resolve("http", bound);
        own.map_err(|error| {
            Fault::option("--listen", &self.listen, format!("{error} with --advertise"))
        })
    }

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

/// Why it ended without being told to.
fn fault(key: &InstanceKey, error: &ServerError) -> Fault {
    match error {
        ServerError::Registration(RegistrationError::Conflict(conflict)) => {
            Fault::Conflict(conflict.to_string())
        }
        ServerError::Registration(RegistrationError::Refused(cause)) => {
            Fault::usage(format!("{key}: {cause}"))
        }
        error => Fault::failed(error.to_string()),
    }
}

fn internal(error: &Invalid) -> Fault {
    Fault::failed(error.to_string())
}
