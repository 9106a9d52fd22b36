//! While nothing takes a lease, nobody who stays is lost: not even for a moment.

use super::{Raw, Step, Violation};
use crate::meaning::Key;

/// A part of the history in which no lease was in danger.
#[derive(Debug, Clone)]
pub(crate) struct Calm {
    pub(crate) epoch: usize,
    /// The last revision before it, and its last one.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Who was registered all the time.
    pub(crate) keys: Vec<Key>,
}

/// Checks that none of them was deleted.
pub(crate) fn keeps_all(calm: &Calm, epochs: &[Vec<Step>]) -> Result<(), Violation> {
    let steps = epochs.get(calm.epoch).map(Vec::as_slice).unwrap_or_default();
    let steps = steps.iter().filter(|step| step.revision > calm.from && step.revision <= calm.to);
    for step in steps {
        for (key, raw) in &step.changes {
            if *raw == Raw::Gone && calm.keys.contains(key) {
                let what = format!(
                    "{key} was lost at revision {} although nothing had endangered its lease",
                    step.revision
                );
                return Err(Violation { at: step.at, viewer: None, key: Some(key.clone()), what });
            }
        }
    }
    Ok(())
}
