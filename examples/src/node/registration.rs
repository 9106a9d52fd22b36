//! What a node does about the news of its registration.

use discovery_core::{Conflict, Registration, RegistrationState};

use crate::fault::Fault;
use crate::output;
use crate::shutdown::Signals;

/// Why the node stops.
pub(super) enum Reason {
    /// It was told to.
    Signal(&'static str),
    /// Somebody else holds its id, and it does not wait.
    Conflict(Conflict),
}

/// Watches over a registration until the node is to stop; calls `ready` when it stands for the first
/// time.
pub(super) async fn watch(
    registration: &Registration,
    signals: &mut Signals,
    ready: impl FnOnce(),
) -> Result<Reason, Fault> {
    let mut status = registration.watch_status();
    let mut teller = Teller { ready: Some(ready), told: Told::Nothing };
    loop {
        let state = status.borrow_and_update().state.clone();
        if let Some(reason) = teller.tell(registration, &state)? {
            return Ok(reason);
        }
        tokio::select! {
            signal = signals.next() => return Ok(Reason::Signal(signal)),
            changed = status.changed() => if changed.is_err() {
                let key = registration.key();
                return Err(Fault::failed(format!("{key}: nobody keeps it registered any more")));
            },
        }
    }
}

/// What the user was told last, so that a long trouble is told once.
#[derive(PartialEq)]
enum Told {
    Nothing,
    Registered,
    Trouble,
    Held(Conflict),
}

struct Teller<R> {
    ready: Option<R>,
    told: Told,
}

impl<R: FnOnce()> Teller<R> {
    fn tell(
        &mut self,
        registration: &Registration,
        state: &RegistrationState,
    ) -> Result<Option<Reason>, Fault> {
        let key = registration.key();
        match state {
            RegistrationState::Registered if self.told != Told::Registered => {
                self.told = Told::Registered;
                if let Some(ready) = self.ready.take() {
                    ready();
                } else {
                    tracing::info!(%key, "registered again");
                }
            }
            RegistrationState::Registering(Some(error)) if self.told != Told::Trouble => {
                self.told = Told::Trouble;
                let lost = self.ready.is_none();
                tracing::warn!(%key, %error, lost, "not registered; trying until it is");
            }
            RegistrationState::Registering(None) if self.told == Told::Registered => {
                self.told = Told::Nothing;
                tracing::warn!(%key, "the registration was lost; registering anew");
            }
            RegistrationState::Conflict(conflict) if !conflict.waiting => {
                return Ok(Some(Reason::Conflict(conflict.clone())));
            }
            RegistrationState::Conflict(conflict) if !matches!(&self.told, Told::Held(told) if told == conflict) =>
            {
                self.told = Told::Held(conflict.clone());
                // Not a log line: it is there whatever RUST_LOG says.
                output::notice(&format!("{conflict}; waiting until the holder is gone"));
            }
            RegistrationState::Deregistered | RegistrationState::Abandoned(_) => {
                return Err(Fault::failed(format!("{key}: the registration has ended")));
            }
            _ => {}
        }
        Ok(None)
    }
}
