//! A registration that was taken away and confirmed never comes back.

use super::{Left, Raw, Step, Violation};

/// Checks that what left is not there from its place in the history on.
pub(crate) fn stays_away(left: &Left, epochs: &[Vec<Step>]) -> Result<(), Violation> {
    let is_it = |raw: &Raw| matches!(raw, Raw::Good(seen) if seen.tag() == Some(left.tag));
    let mut there = false;
    for (number, epoch) in epochs.iter().enumerate().skip(left.epoch) {
        let is_over = |revision| number > left.epoch || revision >= left.revision;
        there = false;
        for step in epoch {
            for (_, raw) in step.changes.iter().filter(|(key, _)| *key == left.key) {
                there = is_it(raw);
            }
            if there && is_over(step.revision) {
                return Err(violation(left, step));
            }
        }
    }
    // The place may be the last revision, or behind it.
    match epochs.last().and_then(|epoch| epoch.last()) {
        Some(step) if there => Err(violation(left, step)),
        _ => Ok(()),
    }
}

fn violation(left: &Left, step: &Step) -> Violation {
    let Left { key, tag, epoch, revision } = left;
    Violation {
        at: step.at,
        viewer: None,
        key: Some(key.clone()),
        what: format!(
            "{key} (registration {tag}) was deregistered by revision {revision} of epoch {}, \
             and is there at revision {}",
            epoch + 1,
            step.revision
        ),
    }
}
