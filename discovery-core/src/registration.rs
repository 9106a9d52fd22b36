//! Registering as a desired state: the program says what should be so, a backend keeps it so.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Address, Instance, InstanceKey, InstanceStatus, Invalid, SourceError};

/// Registers instances, and keeps them registered.
///
/// Object safe, so that a program can choose its backend when it runs (`Arc<dyn Registrar>`).
pub trait Registrar: Send + Sync {
    /// Wants `instance` to be registered from now on, whatever happens to the registry meanwhile.
    /// Returns at once; see [`Registration::registered`].
    fn register(&self, instance: Instance) -> Registration;
}

impl<R: Registrar + ?Sized> Registrar for &R {
    fn register(&self, instance: Instance) -> Registration {
        (**self).register(instance)
    }
}

impl<R: Registrar + ?Sized> Registrar for Arc<R> {
    fn register(&self, instance: Instance) -> Registration {
        (**self).register(instance)
    }
}

impl<R: Registrar + ?Sized> Registrar for Box<R> {
    fn register(&self, instance: Instance) -> Registration {
        (**self).register(instance)
    }
}

/// What a program wants of its registration: what a backend's owner of it works towards.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Desired {
    /// The instance is registered as this.
    Present {
        /// What the registry should say.
        instance: Arc<Instance>,
        /// Counts the versions of the instance, from 1; echoed in
        /// [`RegistrationStatus::applied`].
        version: u64,
    },
    /// The instance is gone from the registry, and known to be gone.
    Absent {
        /// When to give up being sure.
        deadline: Instant,
    },
    /// The handle was dropped: take the instance away if that is easily done.
    Abandoned,
}

/// The state of a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not in the registry, or not known to be, and being put there. The error is what stands in the
    /// way, if anything does.
    Registering(Option<SourceError>),
    /// In the registry.
    Registered,
    /// Somebody else's registration holds the id. The backend waits for the holder to go, if so
    /// configured; otherwise the registration has ended.
    Conflict(Conflict),
    /// Being taken away.
    Deregistering,
    /// Gone from the registry; it does not come back.
    Deregistered,
    /// Ended without knowing that the registry has dropped it.
    Abandoned(Unconfirmed),
    /// The registry cannot hold such an instance, whatever happens to it: nothing was put there, and
    /// the registration has ended.
    Refused(SourceError),
}

/// An update that the registry cannot hold. What was registered before stays registered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("version {version} cannot be registered: {cause}")]
#[non_exhaustive]
pub struct RefusedUpdate {
    /// The version of the instance; see [`RegistrationStatus::applied`].
    pub version: u64,
    /// Why it cannot be held.
    pub cause: SourceError,
}

impl RefusedUpdate {
    /// See the fields.
    pub fn new(version: u64, cause: SourceError) -> Self {
        Self { version, cause }
    }
}

/// Somebody else's live registration holds the id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is held by {}", holder(.address.as_ref()))]
#[non_exhaustive]
pub struct Conflict {
    /// The contested key.
    pub key: InstanceKey,
    /// The holder's address, if its registration can be read.
    pub address: Option<Address>,
    /// Whether the backend waits for the holder to go.
    pub waiting: bool,
}

impl Conflict {
    /// A conflict over `key` with the instance at `address`.
    pub fn new(key: InstanceKey, address: Option<Address>, waiting: bool) -> Self {
        Self { key, address, waiting }
    }
}

fn holder(address: Option<&Address>) -> String {
    address.map_or_else(|| "a registration that cannot be read".into(), Address::to_string)
}

/// It could not be confirmed in time that the registry has dropped the instance.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not confirm that {key} is gone{}{}", within(*.gone_within), because(.cause.as_ref()))]
#[non_exhaustive]
pub struct Unconfirmed {
    /// The instance.
    pub key: InstanceKey,
    /// After this time, counted from when the error was made, a registry that kept running has dropped
    /// it by itself. One that restarts, or changes its leader, gives it the whole time to live once
    /// more. `None` if the time is not known.
    pub gone_within: Option<Duration>,
    /// What stood in the way.
    pub cause: Option<SourceError>,
}

impl Unconfirmed {
    /// See the fields.
    pub fn new(
        key: InstanceKey,
        gone_within: Option<Duration>,
        cause: Option<SourceError>,
    ) -> Self {
        Self { key, gone_within, cause }
    }
}

fn within(gone_within: Option<Duration>) -> String {
    gone_within
        .map(|time| {
            format!("; a registry that kept running drops it within {:.1} s", time.as_secs_f64())
        })
        .unwrap_or_default()
}

fn because(cause: Option<&SourceError>) -> String {
    cause.map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// The status of a registration at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// How it is.
    pub state: RegistrationState,
    /// The version of the instance that the registry has: the one given to [`Registrar::register`]
    /// is 1, each update counts one further. 0: none yet.
    pub applied: u64,
    /// Until when the registry keeps the instance without hearing from us, where it says so. Counted
    /// from when the last successful renewal was *sent*: an application can fence itself by it.
    pub expires: Option<Instant>,
    /// What stood in the way last, kept after it was overcome. While
    /// [`Registered`](RegistrationState::Registered), an update may be waiting because of it, or the
    /// registry be out of reach.
    pub last_error: Option<SourceError>,
    /// The last update that the registry cannot hold, if there was one. Unless a later one replaced it,
    /// the registry has an earlier version than the one wanted, and that is how it stays.
    pub refused: Option<RefusedUpdate>,
}

impl RegistrationStatus {
    /// Not registered yet.
    pub fn new() -> Self {
        Self {
            state: RegistrationState::Registering(None),
            applied: 0,
            expires: None,
            last_error: None,
            refused: None,
        }
    }

    /// Whether this version is one that the registry cannot hold.
    fn refuses(&self, version: u64) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.version >= version)
    }

    /// How long the registry keeps the instance without hearing from us again; zero if the time is
    /// over, `None` where the registry has no such time.
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.expires?.saturating_duration_since(Instant::now()))
    }
}

impl Default for RegistrationStatus {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a registration is not, and will not be, in the registry.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// Somebody else holds the id and we do not wait.
    #[error(transparent)]
    Conflict(Conflict),
    /// The registry cannot hold such an instance. After an update, the instance as it was before stays
    /// registered.
    #[error("the registry cannot hold this instance: {0}")]
    Refused(SourceError),
    /// It has been taken away, or its backend is gone.
    #[error("{0} is no longer being registered")]
    Ended(InstanceKey),
}

/// An instance that a backend keeps registered for as long as this handle lives.
///
/// Dropping it takes the instance away without waiting and without certainty; prefer
/// [`deregister`](Self::deregister).
pub struct Registration {
    key: InstanceKey,
    wanted: Mutex<Wanted>,
    tell: Box<dyn Fn(Desired) + Send + Sync>,
    /// Whether the registry can hold such an instance.
    holds: Box<dyn Fn(&Instance) -> bool + Send + Sync>,
    status: watch::Receiver<RegistrationStatus>,
}

struct Wanted {
    /// The last that the registry can hold.
    instance: Arc<Instance>,
    /// Counts all that were told.
    version: u64,
    /// The last one told is one that the registry cannot hold.
    refused: bool,
}

impl Registration {
    /// How long [`deregister`](Self::deregister) tries to be sure.
    pub const DEREGISTER_WITHIN: Duration = Duration::from_secs(3);

    /// For backends: the handle of a registration that learns of each new desired state by `tell`
    /// and says through `status` what became of it. `tell` is called with
    /// [`Desired::Abandoned`] when the handle is dropped. The first desired state (version 1) is the
    /// backend's to know.
    pub fn new(
        instance: Arc<Instance>,
        status: watch::Receiver<RegistrationStatus>,
        tell: impl Fn(Desired) + Send + Sync + 'static,
    ) -> Self {
        let key = instance.key();
        let wanted = Mutex::new(Wanted { instance, version: 1, refused: false });
        Self { key, wanted, tell: Box::new(tell), holds: Box::new(|_| true), status }
    }

    /// For backends that cannot hold every instance: `holds` says which they can. An update that is
    /// none of them is told to the backend, which [refuses](RegistrationStatus::refused) it; the
    /// next one changes what was wanted before it. Called under a lock, so it must not call back.
    #[must_use]
    pub fn holding(mut self, holds: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.holds = Box::new(holds);
        self
    }

    /// What identifies the instance.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// The instance as it should be registered: an update that the registry cannot hold changes
    /// nothing about that.
    pub fn instance(&self) -> Arc<Instance> {
        self.wanted().instance.clone()
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status now.
    pub fn status(&self) -> RegistrationStatus {
        self.status.borrow().clone()
    }

    /// The status to await changes of.
    pub fn watch_status(&self) -> watch::Receiver<RegistrationStatus> {
        self.status.clone()
    }

    /// Waits until the registry has the instance as last wanted. Cancel safe.
    ///
    /// # Errors
    /// [`RegistrationError`] when it never will. Trouble with the registry is no such error: it goes
    /// on trying, and [`status`](Self::status) says why it takes so long.
    pub async fn registered(&self) -> Result<(), RegistrationError> {
        let version = self.wanted().version;
        let mut status = self.status.clone();
        let ended = || RegistrationError::Ended(self.key.clone());
        let status = status
            .wait_for(|status| match &status.state {
                RegistrationState::Registered if status.applied >= version => true,
                _ if status.refuses(version) => true,
                RegistrationState::Registered | RegistrationState::Registering(_) => false,
                RegistrationState::Conflict(conflict) => !conflict.waiting,
                _ => true,
            })
            .await
            .map_err(|_| ended())?;
        match (&status.state, &status.refused) {
            (RegistrationState::Registered, _) if status.applied >= version => Ok(()),
            (_, Some(refused)) if refused.version >= version => {
                Err(RegistrationError::Refused(refused.cause.clone()))
            }
            (RegistrationState::Refused(cause), _) => {
                Err(RegistrationError::Refused(cause.clone()))
            }
            (RegistrationState::Conflict(conflict), _) => {
                Err(RegistrationError::Conflict(conflict.clone()))
            }
            _ => Err(ended()),
        }
    }

    /// Changes the instance: weight, zone, status, metadata, address. Returns at once; see
    /// [`registered`](Self::registered), which also says when the registry cannot hold the instance
    /// as it is now. Then what was wanted before stays wanted, and the next update changes that.
    ///
    /// # Errors
    /// [`Invalid`] if `change` touched the id or the service; nothing is changed then.
    pub fn update(&self, change: impl FnOnce(&mut Instance)) -> Result<(), Invalid> {
        let mut wanted = self.wanted();
        let mut instance = (*wanted.instance).clone();
        change(&mut instance);
        if instance.key() != self.key {
            return Err(Invalid::new(
                "registration",
                instance.key().to_string(),
                "an update cannot change the service or the id",
            ));
        }
        // After one that was refused, to want the same as before is news.
        if instance == *wanted.instance && !wanted.refused {
            return Ok(());
        }
        let instance = Arc::new(instance);
        wanted.version += 1;
        wanted.refused = !(self.holds)(&instance);
        if !wanted.refused {
            wanted.instance = instance.clone();
        }
        // Told under the lock, so that two updates cannot overtake each other.
        (self.tell)(Desired::Present { instance, version: wanted.version });
        Ok(())
    }

    /// Announces that the instance will go: its status becomes
    /// [`Draining`](InstanceStatus::Draining). Returns at once; see [`registered`](Self::registered).
    pub fn drain(&self) {
        // Only a change of the id could be refused.
        let _ = self.update(|instance| instance.status = InstanceStatus::Draining);
    }

    /// Takes the instance away, trying for [`DEREGISTER_WITHIN`](Self::DEREGISTER_WITHIN) to be
    /// sure: `Ok` means that the registry no longer has it and that it does not come back.
    ///
    /// Once polled it goes on even if the future is dropped.
    ///
    /// # Errors
    /// [`Unconfirmed`] at the deadline; it says until when the instance may still be there.
    pub async fn deregister(self) -> Result<(), Unconfirmed> {
        self.deregister_within(Self::DEREGISTER_WITHIN).await
    }

    /// [`deregister`](Self::deregister) with another deadline.
    pub async fn deregister_within(self, time: Duration) -> Result<(), Unconfirmed> {
        // The clock cannot count for ever; a year is as good.
        let deadline = Instant::now() + time.min(Duration::from_secs(3600 * 24 * 365));
        (self.tell)(Desired::Absent { deadline });
        let mut status = self.status.clone();
        let waited = status.wait_for(|status| {
            matches!(
                status.state,
                RegistrationState::Deregistered
                    | RegistrationState::Abandoned(_)
                    | RegistrationState::Refused(_)
            )
        });
        // The backend keeps the deadline itself; this one is for a backend that is gone or stuck.
        let grace = deadline + Duration::from_millis(500);
        let ended = tokio::time::timeout_at(grace, waited).await.map(drop).is_ok();
        match self.status().state {
            RegistrationState::Abandoned(unconfirmed) => return Err(unconfirmed),
            // What was refused never was there.
            RegistrationState::Deregistered | RegistrationState::Refused(_) => return Ok(()),
            // The backend ended it, and took back what it had put before that.
            RegistrationState::Conflict(conflict) if ended && !conflict.waiting => return Ok(()),
            _ => {}
        }
        let cause = SourceError::new("the backend of the registration did not answer");
        Err(Unconfirmed::new(self.key.clone(), self.status().remaining(), Some(cause)))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        (self.tell)(Desired::Abandoned);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Registration")
            .field("key", &self.key)
            .field("status", &status)
            .finish_non_exhaustive()
    }
}
