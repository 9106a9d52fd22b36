//! Proves the laws over what was recorded. Pure: the history and what was told go in, what was broken
//! comes out.

mod calm;
mod follower;
mod leaving;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

pub(crate) use self::{
    calm::{Calm, keeps_all},
    follower::follow,
    leaving::stays_away,
};
use crate::{
    history::Epoch,
    meaning::{self, Key, Seen},
};

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    Good(Arc<Seen>),
    /// Something that is no instance.
    Poison,
    Gone,
}

/// What one revision did to instances.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) revision: i64,
    pub(crate) at: Duration,
    pub(crate) changes: Vec<(Key, Raw)>,
}

/// What a viewer was told.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Insert {
        key: Key,
        seen: Arc<Seen>,
        suspect: bool,
    },
    Remove(Key),
    Synced,
    /// The stream ended although nobody had closed it.
    Ended,
}

/// All that a viewer was told.
#[derive(Debug, Clone)]
pub(crate) struct Viewed {
    pub(crate) name: String,
    /// The service it watches; `None`: all.
    pub(crate) scope: Option<String>,
    /// Whether it is protected from mass removal, so that it may see suspects.
    pub(crate) guarded: bool,
    pub(crate) told: Vec<(Duration, Told)>,
}

/// A deregistration that was confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) key: Key,
    /// Which registration it was.
    pub(crate) tag: u64,
    /// The place in the history by which it was over.
    pub(crate) epoch: usize,
    pub(crate) revision: i64,
}

/// Something that must not be.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// When.
    pub(crate) at: Duration,
    /// The viewer it concerns, if one.
    pub(crate) viewer: Option<String>,
    /// The key it concerns, if one.
    pub(crate) key: Option<Key>,
    pub(crate) what: String,
}

impl Told {
    /// The key it is about.
    pub(crate) fn key(&self) -> Option<&Key> {
        match self {
            Self::Insert { key, .. } | Self::Remove(key) => Some(key),
            Self::Synced | Self::Ended => None,
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert { key, seen, suspect: false } => write!(f, "Insert {key} {seen}"),
            Self::Insert { key, seen, suspect: true } => write!(f, "Insert {key} {seen} suspect"),
            Self::Remove(key) => write!(f, "Remove {key}"),
            Self::Synced => write!(f, "Synced"),
            Self::Ended => write!(f, "the stream ended"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}:", self.revision)?;
        for (key, raw) in &self.changes {
            match raw {
                Raw::Good(seen) => write!(f, " put {key} {seen};")?,
                Raw::Poison => write!(f, " put {key} poison;")?,
                Raw::Gone => write!(f, " delete {key};")?,
            }
        }
        Ok(())
    }
}

/// The history in terms of instances. Keys that are none are left out, their revisions are not.
pub(crate) fn steps(epochs: &[Epoch]) -> Vec<Vec<Step>> {
    let step = |written: &crate::history::Written| Step {
        revision: written.revision,
        at: written.at,
        changes: written
            .events
            .iter()
            .filter_map(|event| {
                let raw = match &event.value {
                    None => Raw::Gone,
                    Some(value) => {
                        meaning::value(value).map_or(Raw::Poison, |seen| Raw::Good(Arc::new(seen)))
                    }
                };
                Some((meaning::key(&event.key)?, raw))
            })
            .collect(),
    };
    epochs.iter().map(|epoch| epoch.written.iter().map(step).collect()).collect()
}
