//! How a registration behaves.

use std::time::Duration;

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
#[derive(Clone, Debug, Default)]
pub struct RegisterOptions {
    pub(crate) on_conflict: OnConflict,
    pub(crate) replace_same_address: bool,
    pub(crate) ttl: Option<Duration>,
}

impl RegisterOptions {
    /// The defaults: wait in a conflict, replace nobody, the time to live of the configuration.
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
}
