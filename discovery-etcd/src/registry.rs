//! The registry that programs hold: a source and a registrar in one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery_core::stabilise::{Crowd, Stabilise, Stabiliser};
use discovery_core::{
    Changes, Desired, Instance, InstanceChanges, InstanceKey, Publisher, Registrar, Registration,
    RegistrationStatus, ServiceName, Source, Subscriber,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{ConfigError, EtcdConfig, LONGEST_TTL, whole_seconds};
use crate::native::Native;
use crate::register::{OnConflict, RegisterOptions, keep};
use crate::rotation::Rotation;
use crate::watch::{Machine, follow};
use crate::wire::EtcdConnector;

/// etcd as a [`Source`] of instances and a [`Registrar`]. Cheap to clone; clones share the watches.
///
/// Each watch and each registration is a task on the runtime within which the registry was made. A
/// watch ends when its last reader is dropped; a registration when its handle is.
#[derive(Clone)]
pub struct EtcdRegistry(Arc<Inner>);

struct Inner {
    connector: Arc<EtcdConnector>,
    native: Native,
    ttl: Duration,
    runtime: Handle,
    /// Begins by chance, so that many clients spread over the members.
    rotation: Rotation,
    /// `None`: all services.
    watches: Mutex<HashMap<Option<ServiceName>, Subscriber<InstanceKey, Instance>>>,
    stabilise: Stabilise,
    /// All watches together tell a mass removal.
    crowd: Crowd,
    closed: watch::Sender<bool>,
}

impl EtcdRegistry {
    /// A registry in the etcd that `config` describes. It reads the files that are named and talks to
    /// nobody: etcd being away is no error.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot work, or says that there is no tokio runtime.
    pub fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let runtime = Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let native = Native::new(config.prefix.clone());
        let ttl = Duration::from_secs(config.ttl_seconds);
        let suspects = Duration::from_secs(config.suspect_seconds);
        let stabilise = Stabilise::new().suspects_for(suspects);
        let first = rand::rng().random_range(0..config.endpoints.len());
        let rotation = Rotation::new(&config.endpoints, first);
        let connector = Arc::new(EtcdConnector::new(config));
        Ok(Self(Arc::new(Inner {
            connector,
            native,
            ttl,
            runtime,
            rotation,
            watches: Mutex::default(),
            stabilise,
            crowd: Crowd::new(),
            closed: watch::Sender::new(false),
        })))
    }

    /// [`Registrar::register`] with options.
    pub fn register_with(&self, instance: Instance, options: RegisterOptions) -> Registration {
        let inner = &self.0;
        let instance = Arc::new(instance);
        let key = instance.key();
        let first = Desired::Present { instance: instance.clone(), version: 1 };
        let (desired, wishes) = watch::channel(first);
        let (status, statuses) = watch::channel(RegistrationStatus::new());
        let ttl = options
            .ttl
            .map_or(inner.ttl, |ttl| Duration::from_secs(whole_seconds(ttl).clamp(1, LONGEST_TTL)));
        let plan = crate::register::Plan {
            raw_key: inner.native.key(&key),
            key: key.clone(),
            ttl,
            on_conflict: options.on_conflict,
            replace_same_address: options.replace_same_address,
            rotation: inner.rotation.clone(),
            address_of: Native::address_of,
        };
        let rng = StdRng::from_rng(&mut rand::rng());
        inner.runtime.spawn(keep(inner.connector.clone(), plan, rng, wishes, status));
        Registration::new(instance, statuses, move |wish| {
            desired.send_if_modified(|desired| {
                // A dropped handle does not take back an orderly leave.
                let keeps = matches!(desired, Desired::Absent { .. });
                if !keeps {
                    *desired = wish;
                }
                !keeps
            });
        })
    }

    /// Ends all watches made by this registry and its clones: their streams end once readers have
    /// been told everything. Registrations go on until they are deregistered.
    pub fn close(&self) {
        self.0.closed.send_replace(true);
    }

    fn subscribe(&self, service: Option<&ServiceName>) -> InstanceChanges {
        let inner = &self.0;
        let mut watches = inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let live = watches.get(&service.cloned()).and_then(Subscriber::subscribe);
        live.unwrap_or_else(|| {
            // Watches that have ended must not pile up.
            watches.retain(|_, subscriber| !subscriber.is_ended());
            let publisher = Publisher::new();
            let changes: Changes<_, _> = publisher.subscribe();
            watches.insert(service.cloned(), publisher.subscriber());
            let prefix = inner.native.prefix(service);
            let rng = StdRng::from_rng(&mut rand::rng());
            inner.runtime.spawn(follow(
                inner.connector.clone(),
                Machine::new(prefix, inner.rotation.clone(), rng, Instant::now()),
                inner.native.clone(),
                publisher,
                Stabiliser::new(inner.stabilise, &inner.crowd, service.is_none()),
                inner.closed.subscribe(),
            ));
            changes
        })
    }
}

impl Source for EtcdRegistry {
    fn watch(&self, service: &ServiceName) -> InstanceChanges {
        self.subscribe(Some(service))
    }

    fn watch_all(&self) -> InstanceChanges {
        self.subscribe(None)
    }
}

impl Registrar for EtcdRegistry {
    /// Registers with the default options: in a conflict it waits.
    fn register(&self, instance: Instance) -> Registration {
        self.register_with(instance, RegisterOptions::new().on_conflict(OnConflict::Wait))
    }
}

impl fmt::Debug for EtcdRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRegistry").field("native", &self.0.native).finish_non_exhaustive()
    }
}
