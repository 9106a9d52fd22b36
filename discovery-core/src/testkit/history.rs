//! The sets that a source went through, against which readers are held.

use std::collections::VecDeque;
use std::sync::Arc;

use super::subject::Set;

/// Numbered versions of the set; the oldest ones are dropped when no reader can be at them.
pub(super) struct History<K, E> {
    first: usize,
    sets: VecDeque<Set<K, Arc<E>>>,
}

impl<K: Ord + Clone, E: PartialEq> History<K, E> {
    pub(super) fn new(set: Set<K, Arc<E>>) -> Self {
        Self { first: 0, sets: VecDeque::from([set]) }
    }

    /// The number of the latest version.
    pub(super) fn now(&self) -> usize {
        self.first + self.sets.len() - 1
    }

    pub(super) fn latest(&self) -> &Set<K, Arc<E>> {
        &self.sets[self.sets.len() - 1]
    }

    /// Adds a version; says whether it differs from the one before.
    pub(super) fn push(&mut self, set: Set<K, Arc<E>>) -> bool {
        let differs = *self.latest() != set;
        if differs {
            self.sets.push_back(set);
        }
        differs
    }

    /// The first version from number `from` on that is `set`.
    pub(super) fn find(&self, from: usize, set: &Set<K, Arc<E>>) -> Option<usize> {
        let skip = from.saturating_sub(self.first);
        let found = self.sets.iter().skip(skip).position(|version| version == set)?;
        Some(self.first + skip + found)
    }

    /// Forgets what is older than `version`.
    pub(super) fn forget_before(&mut self, version: usize) {
        while self.first < version && self.sets.len() > 1 {
            self.sets.pop_front();
            self.first += 1;
        }
    }
}
