//! Figures of registrations.

use std::sync::{Mutex, PoisonError};

use discovery_core::RegistrationState;

use super::facade::{count, set};
use super::figures::{CONFLICTS, REGISTRATIONS, REREGISTRATIONS};
use super::outcome::renewals;

/// The states that do not end a registration at once, by their place in the count.
const STAGES: [&str; 5] = ["registering", "registered", "conflict", "deregistering", "abandoned"];
const REGISTERING: usize = 0;
const REGISTERED: usize = 1;
const CONFLICT: usize = 2;

/// How many registrations of the process are in each stage.
static COUNTS: Mutex<[u32; STAGES.len()]> = Mutex::new([0; STAGES.len()]);

/// Counts what becomes of one registration.
#[derive(Debug)]
pub(crate) struct Registration {
    stage: Option<usize>,
    /// It was registered, and is not or is not known to be.
    lost: bool,
}

impl Registration {
    pub(crate) fn new() -> Self {
        count(&REREGISTRATIONS, &[], 0);
        count(&CONFLICTS, &[], 0);
        renewals();
        let mut new = Self { stage: None, lost: false };
        new.turn(Some(REGISTERING));
        new
    }

    /// It is in this state now.
    pub(crate) fn report(&mut self, state: &RegistrationState) {
        let stage = match state {
            RegistrationState::Registering(_) => Some(REGISTERING),
            RegistrationState::Registered => Some(REGISTERED),
            RegistrationState::Conflict(_) => Some(CONFLICT),
            RegistrationState::Deregistering => Some(3),
            RegistrationState::Abandoned(_) => Some(4),
            _ => None,
        };
        if stage == Some(CONFLICT) && self.stage != stage {
            count(&CONFLICTS, &[], 1);
        }
        if stage == Some(REGISTERED) {
            count(&REREGISTRATIONS, &[], u64::from(self.lost));
            self.lost = false;
        } else if self.stage == Some(REGISTERED) {
            self.lost = true;
        }
        self.turn(stage);
    }

    /// Tells the counts under their lock, so that the last word is about the last change.
    fn turn(&mut self, stage: Option<usize>) {
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut self.stage, stage);
        for (stage, name) in STAGES.iter().enumerate() {
            if before == Some(stage) {
                counts[stage] = counts[stage].saturating_sub(1);
            }
            if self.stage == Some(stage) {
                counts[stage] += 1;
            }
            set(&REGISTRATIONS, &[("state", name)], f64::from(counts[stage]));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.turn(None);
    }
}
