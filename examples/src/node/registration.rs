//! How a node is registered, and what it tells its user of that.

use discovery_core::{
    Conflict, Instance, Registrar, Registration, RegistrationState, RegistrationStatus,
};
use tokio::sync::watch;

use crate::etcd::Registry;
use crate::output;

/// Registers a node by its options; calls `ready` when it stands for the first time.
pub(super) struct Registering<'a, R> {
    pub(super) registry: &'a Registry,
    /// Whether it waits while somebody else holds the id.
    pub(super) wait: bool,
    /// Whether a holder with its own address is its dead predecessor.
    pub(super) replace_same_address: bool,
    pub(super) ready: R,
}

impl<R> Registrar for Registering<'_, R>
where
    R: Fn() + Clone + Send + Sync + 'static,
{
    fn register(&self, instance: Instance) -> Registration {
        let registration = self.registry.register(instance, self.wait, self.replace_same_address);
        tokio::spawn(tell(registration.watch_status(), self.ready.clone()));
        registration
    }
}

/// Tells what the user is to know beside the logs, until the registration ends.
async fn tell(mut status: watch::Receiver<RegistrationStatus>, ready: impl Fn()) {
    let mut told = false;
    // The conflict that was told last, so that a long one is told once.
    let mut held: Option<Conflict> = None;
    loop {
        let state = status.borrow_and_update().state.clone();
        match state {
            RegistrationState::Registered => {
                held = None;
                if !std::mem::replace(&mut told, true) {
                    ready();
                }
            }
            RegistrationState::Conflict(conflict)
                if conflict.waiting && held.as_ref() != Some(&conflict) =>
            {
                // Not a log line: it is there whatever RUST_LOG says.
                output::notice(&format!("{conflict}; waiting until the holder is gone"));
                held = Some(conflict);
            }
            _ => {}
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
