//! How a registration behaves.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use discovery_core::Health;

use super::Watchdog;

/// What to do when somebody else's registration holds the id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnConflict {
    /// Report it and register when the holder is gone.
    #[default]
    Wait,
    /// Report it and end the registration.
    Fail,
}

/// How a registration behaves.
#[derive(Clone, Default)]
pub struct RegisterOptions {
    pub(crate) on_conflict: OnConflict,
    pub(crate) replace_same_address: bool,
    pub(crate) ttl: Option<Duration>,
    pub(crate) share_lease: bool,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) health: Option<Health>,
}

impl RegisterOptions {
    /// The defaults: wait in a conflict, replace nobody, the time to live of the configuration, a lease
    /// of its own, and nobody asks how the application is.
    pub fn new() -> Self {
        Self::default()
    }

    /// What to do when somebody else holds the id.
    #[must_use]
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.on_conflict = on_conflict;
        self
    }

    /// Until registered for the first time, take a holder with exactly our address for our dead
    /// predecessor and replace it. Only for who listens on that very address: nobody else can be
    /// alive there.
    #[must_use]
    pub fn replace_same_address(mut self, replace: bool) -> Self {
        self.replace_same_address = replace;
        self
    }

    /// How long the registration outlives its process, in whole seconds (rounded up, at least 1,
    /// at most a day).
    /// etcd grants no less than 1.5 election timeouts.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Share one lease with all registrations of this registry that do so too and have the same time
    /// to live. For programs with hundreds of registrations: there is one renewal for all of them.
    ///
    /// What it costs: a lease that is lost takes all of them at once. To register takes four calls to
    /// etcd instead of two, because the key is put under a lease of its own first: an own lease can be
    /// revoked, which is what makes [`deregister`](discovery_core::Registration::deregister) certain,
    /// and a shared one cannot. And a key that somebody else changed without our watch being told is
    /// found within a minute instead of 10 s.
    #[must_use]
    pub fn share_lease(mut self, share: bool) -> Self {
        self.share_lease = share;
        self
    }

    /// Stop renewing when the application has shown no sign of life for three times the time to live.
    /// (With a [shared lease](Self::share_lease) the key is deleted instead.)
    #[must_use]
    pub fn watchdog(mut self, watchdog: &Watchdog) -> Self {
        self.watchdog = Some(watchdog.clone());
        self
    }

    /// Ask the application every 5 s whether it is well. As long as it says no, or nothing for so long,
    /// an instance that is [up](discovery_core::InstanceStatus::Up) is registered as
    /// [out of service](discovery_core::InstanceStatus::OutOfService). It is asked on the runtime
    /// within which the registry was made.
    #[must_use]
    pub fn health<F>(self, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.health_every(Health::EVERY, ask)
    }

    /// [`health`](Self::health) at another interval, at least 10 ms.
    #[must_use]
    pub fn health_every<F>(
        mut self,
        every: Duration,
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.health = Some(Health::new(ask).every(every));
        self
    }
}

impl fmt::Debug for RegisterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterOptions")
            .field("on_conflict", &self.on_conflict)
            .field("replace_same_address", &self.replace_same_address)
            .field("ttl", &self.ttl)
            .field("share_lease", &self.share_lease)
            .field("watchdog", &self.watchdog)
            .field("health", &self.health)
            .finish()
    }
}
