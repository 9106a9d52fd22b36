//! The periodic audit: etcd's keys and revisions, listed at one revision while events go on, are held
//! against what is known.
//!
//! What differs is a *doubt*, because either side may be ahead of the other. Events that come a little
//! later explain it, or it stands: then something was missed.

use std::collections::HashMap;

/// So many are evidence enough.
const MOST: usize = 64;

/// Why a key is in doubt.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    /// The audit has it at this revision; it was not known, or older.
    Behind(i64),
    /// The audit, at this revision, does not have it; it was known then.
    Extra(i64),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Audit {
    doubts: HashMap<Box<[u8]>, Doubt>,
    /// Keys that were deleted since it began, and when.
    deleted: HashMap<Box<[u8]>, i64>,
}

impl Audit {
    /// The audit has the key at this revision; `known` is as of which one it is known.
    pub(super) fn has(&mut self, key: &[u8], revision: i64, known: Option<i64>) {
        if known.is_none_or(|known| known < revision) {
            self.doubt(key, Doubt::Behind(revision));
        }
    }

    /// The audit, complete at revision `at`, does not have this key, which is known as of `known`.
    pub(super) fn lacks(&mut self, key: &[u8], at: i64, known: i64) {
        // One that it has, but that was learned of only after that, is in doubt already.
        if known <= at && !self.doubts.contains_key(key) {
            self.doubt(key, Doubt::Extra(at));
        }
    }

    /// The key was deleted meanwhile.
    pub(super) fn deleted(&mut self, key: &[u8], revision: i64) {
        self.deleted.insert(key.into(), revision);
    }

    /// How many keys still are not as the audit said. `known` says as of which revision a key is.
    pub(super) fn settle(self, known: impl Fn(&[u8]) -> Option<i64>) -> usize {
        let stands = |key: &[u8], doubt: &Doubt| match *doubt {
            Doubt::Behind(revision) => {
                known(key).is_none_or(|known| known < revision)
                    && self.deleted.get(key).is_none_or(|deleted| *deleted < revision)
            }
            Doubt::Extra(at) => known(key).is_some_and(|known| known <= at),
        };
        self.doubts.iter().filter(|(key, doubt)| stands(key, doubt)).count()
    }

    fn doubt(&mut self, key: &[u8], doubt: Doubt) {
        if self.doubts.len() < MOST {
            self.doubts.insert(key.into(), doubt);
        }
    }
}
