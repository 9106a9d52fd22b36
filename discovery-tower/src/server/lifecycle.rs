//! The registration of a server, from when it is ready until nobody is sent to it any more. The same for
//! a server of ours and for one that somebody else runs.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{
    Health, Instance, InstanceStatus, Registration, RegistrationError, RegistrationState,
    Unconfirmed,
};
use tokio::time::sleep;

use super::error::ServerError;
use super::patience::Patience;
use super::stage::Progress;

/// How long it waits for the registry to show that the instance is draining.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// How long it tries to take away what the registry may never have had.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(1);

/// How a server is registered and goes.
#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) registration: Registration,
    pub(super) health: Option<Health>,
    /// How long it goes on serving after it was shown that it will go.
    pub(super) drain: Duration,
    pub(super) progress: Progress,
}

impl Lifecycle {
    /// Keeps the registration true until `shutdown` resolves or the registration ends, then leaves:
    /// when it returns, nobody is to be sent here any more. Dropped, it drops the registration.
    ///
    /// `Ok` tells whether the registry may have the instance still.
    ///
    /// # Errors
    /// [`ServerError::Registration`] if the registration ended by itself.
    pub(super) async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        patience: &mut Patience,
    ) -> Result<Option<Unconfirmed>, ServerError> {
        let ended = tokio::select! {
            // Who is told to stop does so, whatever else there is to say.
            biased;
            () = shutdown => None,
            error = self.ended() => Some(error),
            () = self.keep_true() => None,
        };
        if ended.is_some() {
            // The caller is told why.
            tracing::warn!(key = %self.registration.key(), "cannot be registered any longer: stopping");
        }
        let unconfirmed = self.leave(ended.is_none(), patience).await;
        ended.map_or(Ok(unconfirmed), |error| Err(error.into()))
    }

    /// Waits for the registration to end by itself.
    async fn ended(&self) -> RegistrationError {
        let Instance { service, id, address, .. } = &*self.registration.instance();
        let mut status = self.registration.watch_status();
        let mut told = false;
        loop {
            let state = status.borrow_and_update().state.clone();
            match state {
                RegistrationState::Registered if !told => {
                    told = true;
                    tracing::info!(%service, %id, %address, "serving and registered");
                }
                RegistrationState::Conflict(conflict) if !conflict.waiting => {
                    return RegistrationError::Conflict(conflict);
                }
                RegistrationState::Refused(cause) => return RegistrationError::Refused(cause),
                RegistrationState::Deregistered | RegistrationState::Abandoned(_) => break,
                _ => {}
            }
            if status.changed().await.is_err() {
                break;
            }
        }
        RegistrationError::Ended(self.registration.key().clone())
    }

    /// Registers what the application says of itself.
    async fn keep_true(&self) {
        let Some(health) = self.health.clone() else { return pending().await };
        let tell = |well| {
            let update = self.registration.update(|instance| {
                // It is no longer asked when it drains: see `run`.
                instance.status =
                    if well { InstanceStatus::Up } else { InstanceStatus::OutOfService };
            });
            // Only a change of the id could be refused.
            drop(update);
        };
        health.follow(tell).await;
    }

    /// Says that it will go, goes on serving for a while, and deregisters if it is `registered` still.
    async fn leave(self, registered: bool, patience: &mut Patience) -> Option<Unconfirmed> {
        let Self { registration, drain, progress, .. } = self;
        let key = registration.key().clone();
        progress.drain();
        // Whoever was never there is known to nobody.
        let known = registration.status().applied > 0;
        if known {
            tracing::info!(%key, "draining");
            registration.drain();
            if patience.wait(SHOWN_WITHIN, registration.registered()).await.is_none() {
                tracing::warn!(%key, "the registry does not show yet that it is draining");
            }
            patience.wait(drain, sleep(drain)).await;
        }
        if !registered {
            return None;
        }
        let within = if known { Registration::DEREGISTER_WITHIN } else { FORGOTTEN_WITHIN };
        let left = registration.deregister_within(within).await;
        match &left {
            Ok(()) => tracing::info!(%key, "deregistered"),
            Err(error) => tracing::warn!(%error, "could not deregister"),
        }
        left.err()
    }

    /// The instance as it should be registered now.
    pub(super) fn instance(&self) -> Arc<Instance> {
        self.registration.instance()
    }
}
