//! Follows what a viewer was told along the history.
//!
//! At each `Synced` the viewer's set must be the set at one revision. Which one it does not say, so the
//! earliest is taken that fits and is not before the last one taken: whatever fits later from a later
//! choice fits from the earliest as well, so this finds a way through the history if there is one.
//!
//! A value that is no instance stands for what was known of its key: what the viewer had, or any good
//! value since its last `Synced`, for a viewer that lists anew has not seen those between. A guarded
//! viewer may go on having what is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Raw, Step, Told, Viewed, Violation};
use crate::meaning::{Key, Seen};

/// What happened to a key since the last match.
#[derive(Debug, Default)]
struct Between {
    goods: Vec<Arc<Seen>>,
    gone: bool,
}

struct Follower<'a> {
    viewed: &'a Viewed,
    epochs: &'a [Vec<Step>],
    /// The revision under consideration: this epoch, after so many steps.
    epoch: usize,
    taken: usize,
    /// What is in etcd there. Never `Gone`.
    raw: BTreeMap<Key, Raw>,
    /// What the viewer has.
    set: BTreeMap<Key, (Arc<Seen>, bool)>,
    /// What it had at the last match, of keys that it was told of since.
    before: BTreeMap<Key, Option<Arc<Seen>>>,
    between: BTreeMap<Key, Between>,
    /// Keys that were deleted, with no good value since that the viewer was told of: one that was not
    /// may have been missed between two lists.
    vanished: BTreeSet<Key>,
    /// Keys of which the viewer does not have what it may have.
    wrong: BTreeSet<Key>,
    /// The first key that is wrong at the nearest revision.
    wrong_key: Option<Key>,
}

/// Checks laws 1 to 4 of what a viewer was told; `epochs` is the history. Returns how many changes were
/// checked.
pub(crate) fn follow(viewed: &Viewed, epochs: &[Vec<Step>]) -> Result<usize, Violation> {
    let mut follower = Follower {
        viewed,
        epochs,
        epoch: 0,
        taken: 0,
        raw: BTreeMap::new(),
        set: BTreeMap::new(),
        before: BTreeMap::new(),
        between: BTreeMap::new(),
        vanished: BTreeSet::new(),
        wrong: BTreeSet::new(),
        wrong_key: None,
    };
    for (at, told) in &viewed.told {
        follower.told(told).map_err(|what| Violation {
            at: *at,
            viewer: Some(viewed.name.clone()),
            key: told.key().or(follower.wrong_key.as_ref()).cloned(),
            what: format!("{}: {what}", viewed.name),
        })?;
    }
    Ok(viewed.told.len())
}

impl Follower<'_> {
    fn told(&mut self, told: &Told) -> Result<(), String> {
        match told {
            Told::Insert { key, seen, suspect } => {
                let new = (seen.clone(), *suspect);
                if self.set.get(key) == Some(&new) {
                    return Err(format!("law 2: Insert of {key} with what it was: {seen}"));
                }
                if !self.is_watched(key) {
                    return Err(format!("law 1: Insert of {key}, which it does not watch"));
                }
                if *suspect && !self.viewed.guarded {
                    return Err(format!("law 1: {key} is a suspect without protection"));
                }
                self.change(key, Some(new));
            }
            Told::Remove(key) => {
                if !self.set.contains_key(key) {
                    return Err(format!("law 3: Remove of {key}, which is not there"));
                }
                self.change(key, None);
            }
            Told::Synced => self.find()?,
            Told::Ended => return Err("law 4: the stream ended and nobody had closed it".into()),
        }
        Ok(())
    }

    fn change(&mut self, key: &Key, new: Option<(Arc<Seen>, bool)>) {
        let old = match new {
            Some(new) => self.set.insert(key.clone(), new),
            None => self.set.remove(key),
        };
        self.before.entry(key.clone()).or_insert(old.map(|(seen, _)| seen));
        self.judge(key);
    }

    /// Goes on to the first revision that fits.
    fn find(&mut self) -> Result<(), String> {
        let from = self.place();
        let mut best = (usize::MAX, String::new());
        while !self.wrong.is_empty() {
            if self.wrong.len() < best.0 {
                self.wrong_key = self.wrong.first().cloned();
                best = (self.wrong.len(), format!("at {}: {}", self.place(), self.difference()));
            }
            if !self.step() {
                return Err(format!(
                    "law 1: its set at Synced is that of no revision from {from} on; nearest {}",
                    best.1
                ));
            }
        }
        self.before.clear();
        self.between.clear();
        Ok(())
    }

    /// Takes the next revision; `false` if there is none.
    fn step(&mut self) -> bool {
        let Some(step) = self.epochs.get(self.epoch).and_then(|epoch| epoch.get(self.taken)) else {
            return self.enter();
        };
        self.taken += 1;
        for (key, raw) in &step.changes {
            if !self.is_watched(key) {
                continue;
            }
            match raw {
                Raw::Good(seen) => {
                    let between = self.between.entry(key.clone()).or_default();
                    between.goods.push(seen.clone());
                    let is_told = self.before.contains_key(key)
                        && self.set.get(key) == Some(&(seen.clone(), false));
                    if is_told {
                        self.vanished.remove(key);
                    }
                    self.raw.insert(key.clone(), raw.clone());
                }
                Raw::Poison => drop(self.raw.insert(key.clone(), Raw::Poison)),
                Raw::Gone => self.delete(key.clone()),
            }
            self.judge(key);
        }
        true
    }

    fn delete(&mut self, key: Key) {
        self.raw.remove(&key);
        self.between.entry(key.clone()).or_default().gone = true;
        self.vanished.insert(key);
    }

    /// Begins with the next epoch, whose store is empty; `false` if there is none.
    fn enter(&mut self) -> bool {
        if self.epoch + 1 >= self.epochs.len() {
            return false;
        }
        self.epoch += 1;
        self.taken = 0;
        let keys: BTreeSet<_> = self.raw.keys().chain(self.set.keys()).cloned().collect();
        for key in keys {
            self.delete(key.clone());
            self.judge(&key);
        }
        true
    }

    fn judge(&mut self, key: &Key) {
        if self.is_right(key) {
            self.wrong.remove(key);
        } else {
            self.wrong.insert(key.clone());
        }
    }

    fn is_right(&self, key: &Key) -> bool {
        let raw = self.raw.get(key).unwrap_or(&Raw::Gone);
        let guarded = self.viewed.guarded;
        match (raw, self.set.get(key)) {
            (Raw::Good(good), Some((seen, suspect))) => seen == good && !suspect,
            (Raw::Good(_), None) => false,
            (Raw::Gone, None) => true,
            (Raw::Gone, Some((seen, _))) => guarded && self.could_have(key, seen),
            (Raw::Poison, Some((seen, suspect))) => {
                (guarded || !suspect) && self.could_have(key, seen)
            }
            (Raw::Poison, None) => self.could_miss(key),
        }
    }

    fn before(&self, key: &Key) -> Option<&Arc<Seen>> {
        match self.before.get(key) {
            Some(before) => before.as_ref(),
            None => self.set.get(key).map(|(seen, _)| seen),
        }
    }

    fn could_have(&self, key: &Key, seen: &Arc<Seen>) -> bool {
        self.before(key) == Some(seen)
            || self.between.get(key).is_some_and(|between| between.goods.contains(seen))
    }

    fn could_miss(&self, key: &Key) -> bool {
        self.before(key).is_none()
            || self.between.get(key).is_some_and(|between| between.gone)
            || (self.viewed.guarded && self.vanished.contains(key))
    }

    fn is_watched(&self, key: &Key) -> bool {
        self.viewed.scope.as_ref().is_none_or(|scope| {
            key.strip_prefix(scope.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    }

    fn place(&self) -> String {
        let revision = self
            .taken
            .checked_sub(1)
            .and_then(|last| Some((self.epochs.get(self.epoch)?.get(last)?.revision, self.at())));
        match revision {
            Some((revision, at)) => {
                format!("revision {revision} of epoch {} (recorded at {at:.3?})", self.epoch + 1)
            }
            None => format!("the empty store of epoch {}", self.epoch + 1),
        }
    }

    fn at(&self) -> Duration {
        let step = self.taken.checked_sub(1).and_then(|last| self.epochs[self.epoch].get(last));
        step.map_or(Duration::ZERO, |step| step.at)
    }

    /// The first few keys that are wrong.
    fn difference(&self) -> String {
        let one = |key: &Key| {
            let seen = match self.set.get(key) {
                Some((seen, suspect)) => {
                    format!("{seen}{}", if *suspect { " suspect" } else { "" })
                }
                None => "nothing".to_owned(),
            };
            let raw = match self.raw.get(key) {
                Some(Raw::Good(good)) => good.to_string(),
                Some(_) => "poison".to_owned(),
                None => "nothing".to_owned(),
            };
            format!("{key}: the viewer has {seen}, etcd {raw}")
        };
        let first: Vec<_> = self.wrong.iter().take(3).map(one).collect();
        format!("{} keys differ: {}", self.wrong.len(), first.join("; "))
    }
}
