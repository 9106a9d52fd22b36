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
    let mut teller = Teller { ready: Some(ready), held: None };
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

struct Teller<R> {
    ready: Option<R>,
    /// The conflict that was told last, so that a long one is told once.
    held: Option<Conflict>,
}

impl<R: FnOnce()> Teller<R> {
    /// Tells what the user is to know beside the logs of the registration itself.
    fn tell(
        &mut self,
        registration: &Registration,
        state: &RegistrationState,
    ) -> Result<Option<Reason>, Fault> {
        match state {
            RegistrationState::Registered => {
                self.held = None;
                if let Some(ready) = self.ready.take() {
                    ready();
                }
            }
            RegistrationState::Conflict(conflict) if !conflict.waiting => {
                return Ok(Some(Reason::Conflict(conflict.clone())));
            }
            RegistrationState::Conflict(conflict) if self.held.as_ref() != Some(conflict) => {
                self.held = Some(conflict.clone());
                // Not a log line: it is there whatever RUST_LOG says.
                output::notice(&format!("{conflict}; waiting until the holder is gone"));
            }
            RegistrationState::Refused(error) => {
                return Err(Fault::usage(format!("{}: {error}", registration.key())));
            }
            RegistrationState::Deregistered | RegistrationState::Abandoned(_) => {
                let key = registration.key();
                return Err(Fault::failed(format!("{key}: the registration has ended")));
            }
            _ => {}
        }
        Ok(None)
    }
}
