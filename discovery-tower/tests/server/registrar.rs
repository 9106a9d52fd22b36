//! A registrar that does what a test tells it to.

use std::sync::{Arc, Mutex};

use discovery_core::{
    Desired, Instance, Registrar, Registration, RegistrationState, RegistrationStatus,
};
use tokio::sync::watch;

/// Writes down what was wanted of it, and says of it what the test wants.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) wanted: Arc<Mutex<Vec<Desired>>>,
    status: Arc<watch::Sender<RegistrationStatus>>,
}

impl Scripted {
    pub(crate) fn new(state: RegistrationState) -> Self {
        let mut status = RegistrationStatus::new();
        status.state = state;
        Self { wanted: Arc::default(), status: Arc::new(watch::Sender::new(status)) }
    }

    pub(crate) fn say(&self, state: RegistrationState, applied: u64) {
        self.status.send_modify(|status| {
            status.state = state;
            status.applied = applied;
        });
    }

    /// The last instance that was wanted, and whether it is wanted no longer.
    pub(crate) fn last(&self) -> (Option<Arc<Instance>>, bool) {
        let wanted = self.wanted.lock().unwrap();
        let instance = wanted.iter().rev().find_map(|wanted| match wanted {
            Desired::Present { instance, .. } => Some(instance.clone()),
            _ => None,
        });
        (instance, !matches!(wanted.last(), Some(Desired::Present { .. })))
    }
}

impl Registrar for Scripted {
    fn register(&self, instance: Instance) -> Registration {
        let instance = Arc::new(instance);
        let first = Desired::Present { instance: instance.clone(), version: 1 };
        self.wanted.lock().unwrap().push(first);
        let this = self.clone();
        Registration::new(instance, self.status.subscribe(), move |desired| {
            if matches!(desired, Desired::Absent { .. }) {
                let there = matches!(
                    this.status.borrow().state,
                    RegistrationState::Registered | RegistrationState::Registering(_)
                );
                if there {
                    this.say(RegistrationState::Deregistered, 0);
                }
            }
            this.wanted.lock().unwrap().push(desired);
        })
    }
}
