//! The registry that programs hold: a source and a registrar in one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use discovery_core::stabilise::{Crowd, Stabilise, Stabiliser};
use discovery_core::{
    Changes, Desired, Instance, InstanceChanges, InstanceKey, Publisher, Registrar, Registration,
    RegistrationState, RegistrationStatus, ServiceName, Source, SourceError, Subscriber,
};
use rand::rngs::{SmallRng, StdRng};
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{ConfigError, Credentials, EtcdConfig, LONGEST_TTL, whole_seconds};
use crate::format::{Encoded, Format, FormatName};
use crate::link::Link;
use crate::observe;
use crate::register::{
    self, Keeper, OnConflict, Plan, RegisterOptions, Shared, SharedLease, Tenancy, Thread, Told,
};
use crate::rotation::Rotation;
use crate::watch::{Follower, Machine, Translator};
use crate::wire::{ChannelMaker, EtcdConnector, EtcdWire};

/// How often a registration's key is read even though its watch says nothing.
const VERIFY_EVERY: Duration = Duration::from_secs(10);
/// The same where many share a lease.
const VERIFY_SHARED_EVERY: Duration = Duration::from_secs(60);

/// etcd as a [`Source`] of instances and a [`Registrar`]. Cheap to clone; clones share the watches.
///
/// All watches share one connection and are tasks on the runtime within which the registry was made;
/// a watch ends when its last reader is dropped. All registrations share another connection, on a
/// thread of their own, so that a runtime that is blocked loses no lease; a registration ends when its
/// handle is dropped.
#[derive(Clone)]
pub struct EtcdRegistry(Arc<Inner>);

struct Inner {
    config: EtcdConfig,
    connector: EtcdConnector,
    format: Arc<dyn Format>,
    runtime: Handle,
    /// Begins by chance, so that many clients spread over the members.
    rotation: Rotation,
    link: Link<EtcdWire>,
    /// `None`: all services.
    watches: Mutex<HashMap<Option<ServiceName>, Subscriber<InstanceKey, Instance>>>,
    stabilise: Stabilise,
    /// All watches together tell a mass removal.
    crowd: Crowd,
    closed: watch::Sender<bool>,
    thread: Thread,
    /// The registrations' connection, from the first one on.
    registrations: OnceLock<Link<EtcdWire>>,
    /// Shared leases, by their time to live.
    shared: Mutex<HashMap<Duration, Shared>>,
}

/// Makes a registry where the configuration alone will not do.
#[derive(Default)]
pub struct EtcdRegistryBuilder {
    format: Option<Arc<dyn Format>>,
    channel: Option<ChannelMaker>,
}

impl EtcdRegistryBuilder {
    /// Keys and values in a format of your own, instead of the configured one and its prefix.
    #[must_use]
    pub fn format(mut self, format: Arc<dyn Format>) -> Self {
        self.format = Some(format);
        self
    }

    /// Connections made by a function of your own, given the endpoint: through a tunnel, say, or with
    /// TLS settings that [`EtcdConfig`] does not know. It is called for each attempt, which is given
    /// up after 3 s. The channel must be connected (not lazy), be one connection (not balanced), and
    /// should not dial again by itself. The type is tonic 0.14's.
    #[must_use]
    pub fn channel<F, E>(mut self, make: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<tonic::transport::Channel, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let make = Arc::new(make);
        self.channel = Some(Arc::new(move |endpoint| {
            // On a task of its own: what the function does is not ours to die of.
            let (make, mut made) = (make.clone(), JoinSet::new());
            made.spawn(async move { make(endpoint).await.map_err(Into::into) });
            Box::pin(async move {
                match made.join_next().await {
                    Some(Ok(channel)) => channel,
                    Some(Err(error)) => Err(error.into()),
                    None => Err("the function that makes channels was not run".into()),
                }
            })
        }));
        self
    }

    /// The registry; see [`EtcdRegistry::new`].
    ///
    /// # Errors
    /// As [`EtcdRegistry::new`].
    pub fn build(self, config: EtcdConfig) -> Result<EtcdRegistry, ConfigError> {
        let config = config.checked()?;
        observe::describe();
        let runtime = Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let name: FormatName = config.format_name()?;
        let format = self.format.unwrap_or_else(|| name.format(&config.prefix));
        let suspects = Duration::from_secs(config.suspect_seconds);
        let first = rand::rng().random_range(0..config.endpoints.len());
        let rotation = Rotation::new(&config.endpoints, first);
        let connector = EtcdConnector::new(&config, self.channel);
        let counting = observe::Link::Watches.counting(connector.clone());
        let (link, work) = Link::new(counting, rotation.clone(), config.follow_members, rng());
        runtime.spawn(work);
        Ok(EtcdRegistry(Arc::new(Inner {
            config,
            connector,
            format,
            runtime,
            rotation,
            link,
            watches: Mutex::default(),
            stabilise: Stabilise::new().suspects_for(suspects),
            crowd: Crowd::new(),
            closed: watch::Sender::new(false),
            thread: Thread::default(),
            registrations: OnceLock::new(),
            shared: Mutex::default(),
        })))
    }
}

impl fmt::Debug for EtcdRegistryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRegistryBuilder").field("format", &self.format).finish_non_exhaustive()
    }
}

impl EtcdRegistry {
    /// A registry in the etcd that `config` describes. It reads the files that are named and talks to
    /// nobody: etcd being away is no error.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot work, or says that there is no tokio runtime.
    pub fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        Self::builder().build(config)
    }

    /// For a registry that needs more than a configuration can say.
    pub fn builder() -> EtcdRegistryBuilder {
        EtcdRegistryBuilder::default()
    }

    /// [`new`](Self::new) with a format of your own, instead of the configured one and its prefix.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_format(config: EtcdConfig, format: Arc<dyn Format>) -> Result<Self, ConfigError> {
        Self::builder().format(format).build(config)
    }

    /// How instances stand in etcd.
    pub fn format(&self) -> &Arc<dyn Format> {
        &self.0.format
    }

    /// Authenticate as this user from now on. What was denied is tried again at once.
    pub fn set_credentials(&self, user: impl Into<String>, password: impl Into<String>) {
        self.0.connector.set_credentials(Credentials::new(user.into(), password.into()));
        self.0.link.retry();
        if let Some(registrations) = self.0.registrations.get() {
            registrations.retry();
        }
    }

    /// [`Registrar::register`] with options. An instance that the [format](Self::format) cannot hold is
    /// [refused](RegistrationState::Refused) at once.
    pub fn register_with(&self, instance: Instance, options: RegisterOptions) -> Registration {
        let instance = Arc::new(instance);
        match self.0.register(&instance, options) {
            Ok(registration) => registration,
            Err(cause) => refused(instance, cause),
        }
    }

    /// Ends all watches made by this registry and its clones: their streams end once readers have
    /// been told everything. Registrations go on until they are deregistered.
    pub fn close(&self) {
        self.0.closed.send_replace(true);
    }

    fn subscribe(&self, service: Option<&ServiceName>) -> InstanceChanges {
        let inner = &self.0;
        let mut watches = lock(&inner.watches);
        let live = watches.get(&service.cloned()).and_then(Subscriber::subscribe);
        live.unwrap_or_else(|| {
            // Watches that have ended must not pile up.
            watches.retain(|_, subscriber| !subscriber.is_ended());
            let publisher = Publisher::new();
            let changes: Changes<_, _> = publisher.subscribe();
            watches.insert(service.cloned(), publisher.subscriber());
            let prefix = inner.format.prefix(service);
            let (label, status) = (prefix.clone(), publisher.status());
            let follower = Follower::new(
                inner.link.join(),
                Machine::new(prefix, inner.config.audit(), SmallRng::from_rng(&mut rand::rng())),
                Translator::new(inner.format.clone(), service.cloned()),
                publisher,
                Stabiliser::new(inner.stabilise, &inner.crowd, service.is_none()),
            );
            let following = Box::new(follower).follow(inner.closed.subscribe());
            if observe::ON {
                inner.runtime.spawn(observe::showing(label, status, Box::pin(following)));
            } else {
                // One task among many: no larger than it needs to be.
                inner.runtime.spawn(following);
            }
            changes
        })
    }
}

impl Inner {
    fn register(
        &self,
        instance: &Arc<Instance>,
        options: RegisterOptions,
    ) -> Result<Registration, SourceError> {
        let Encoded { key: raw_key, .. } =
            self.format.encode(instance).map_err(SourceError::new)?;
        let seconds = options.ttl.map_or(self.config.ttl_seconds, whole_seconds);
        let ttl = Duration::from_secs(seconds.clamp(1, LONGEST_TTL));
        let share_lease = options.share_lease;
        let plan = Plan {
            raw_key,
            key: instance.key(),
            ttl,
            on_conflict: options.on_conflict,
            replace_same_address: options.replace_same_address,
            share_lease,
            verify_every: if share_lease { VERIFY_SHARED_EVERY } else { VERIFY_EVERY },
            format: self.format.clone(),
        };
        let wanted = plan.wanted(instance, 1, 1).map_err(|refused| refused.cause)?;
        let holds = plan.holds();
        let link = self.registrations()?;
        let first = Desired::Present { instance: instance.clone(), version: 1 };
        let (desired, wishes) = watch::channel(first);
        let (status, statuses) = watch::channel(RegistrationStatus::new());
        let told = Told {
            desired: wishes,
            home: share_lease.then(|| self.tenancy(link, ttl)).transpose()?,
            healthy: options.health.map(|health| {
                let (healthy, said) = watch::channel(true);
                self.runtime.spawn(register::ask_health(health, healthy));
                said
            }),
            watched: options.watchdog.map(|watchdog| watchdog.watched(ttl)),
        };
        let machine = register::Machine::new(plan, wanted, rng(), Instant::now());
        let keeper = Keeper::new(link.join(), machine, told, status);
        self.thread.spawn(Box::new(keeper).keep()).map_err(no_thread)?;
        let registration = Registration::new(instance.clone(), statuses, move |wish| {
            desired.send_if_modified(|desired| {
                // A dropped handle does not take back an orderly leave.
                let keeps = matches!(desired, Desired::Absent { .. });
                if !keeps {
                    *desired = wish;
                }
                !keeps
            });
        });
        Ok(registration.holding(holds))
    }

    /// The registrations' link.
    fn registrations(&self) -> Result<&Link<EtcdWire>, SourceError> {
        if let Some(link) = self.registrations.get() {
            return Ok(link);
        }
        let counting = observe::Link::Registrations.counting(self.connector.clone());
        let rotation = self.rotation.clone();
        let (link, work) = Link::new(counting, rotation, self.config.follow_members, rng());
        self.thread.spawn(work).map_err(no_thread)?;
        // If somebody else was quicker, ours ends at once: nobody uses it.
        Ok(self.registrations.get_or_init(|| link))
    }

    /// The use of the lease that all registrations with this time to live share.
    fn tenancy(&self, link: &Link<EtcdWire>, ttl: Duration) -> Result<Tenancy, SourceError> {
        let mut shared = lock(&self.shared);
        if let Some(tenancy) = shared.get(&ttl).and_then(Shared::tenancy) {
            return Ok(tenancy);
        }
        let (lease, tenancy) = SharedLease::new(link.join(), ttl, rng());
        self.thread.spawn(lease.keep()).map_err(no_thread)?;
        shared.insert(ttl, Shared::of(&tenancy));
        Ok(tenancy)
    }
}

fn no_thread(error: std::io::Error) -> SourceError {
    let cause = format!("cannot start the thread that keeps registrations: {error}");
    SourceError::new(cause)
}

fn rng() -> StdRng {
    StdRng::from_rng(&mut rand::rng())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A registration that never was.
fn refused(instance: Arc<Instance>, cause: SourceError) -> Registration {
    tracing::warn!(key = %instance.key(), error = %cause, "cannot be registered");
    let mut status = RegistrationStatus::new();
    status.state = RegistrationState::Refused(cause);
    let (_, statuses) = watch::channel(status);
    Registration::new(instance, statuses, |_| ())
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
        f.debug_struct("EtcdRegistry").field("format", &self.0.format).finish_non_exhaustive()
    }
}
