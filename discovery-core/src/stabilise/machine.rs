//! Decides which removals pass. No I/O and no clock of its own.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Stabilise;
use super::crowd::{Crowd, Place};
use crate::{Instance, InstanceKey, InstanceStatus, Publisher, Replacement, ServiceName, Update};

type Out = Publisher<InstanceKey, Instance>;
type Batch = Vec<Update<InstanceKey, Arc<Instance>>>;

/// A key that the source no longer has and readers still see.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// Vanished then; waits for company.
    Waiting(Instant),
    /// Kept until then.
    Suspect(Instant),
}

/// Stands between a source and its [`Publisher`]; see the [module](super).
///
/// The source says what changed to the stabiliser instead of the publisher, and calls
/// [`tick`](Self::tick) at the time of [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Stabiliser {
    rules: Stabilise,
    place: Place,
    held: HashMap<InstanceKey, Held>,
    /// How many readers see of each service, held ones included.
    sizes: HashMap<ServiceName, usize>,
}

impl Stabiliser {
    /// A stabiliser for one watch of a registry; `all` says that it sees every service.
    pub fn new(rules: Stabilise, crowd: &Crowd, all: bool) -> Self {
        Self { rules, place: crowd.join(all), held: HashMap::new(), sizes: HashMap::new() }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.values().map(|held| self.due(*held)).min()
    }

    fn due(&self, held: Held) -> Instant {
        match held {
            Held::Waiting(since) => since + self.rules.company,
            Held::Suspect(until) => until,
        }
    }

    /// How many suspects there are.
    pub fn suspects(&self) -> usize {
        self.held.values().filter(|held| matches!(held, Held::Suspect(_))).count()
    }

    /// The source says that these keys changed, as one batch.
    pub fn apply(&mut self, batch: Batch, revision: Option<u64>, out: &mut Out, now: Instant) {
        // What this batch itself says of a key counts before what readers see of it.
        let mut latest: HashMap<InstanceKey, Arc<Instance>> = HashMap::new();
        let mut passed = Batch::with_capacity(batch.len());
        for update in batch {
            match &update {
                Update::Insert(key, instance) => {
                    self.held.remove(key);
                    latest.insert(key.clone(), instance.clone());
                }
                Update::Remove(key) => {
                    let instance = latest.remove(key).or_else(|| out.get(key));
                    if instance.is_some_and(|instance| self.holds(key, &instance, now)) {
                        continue;
                    }
                }
            }
            passed.push(update);
        }
        self.publish(passed, revision, out);
    }

    /// The source says that what was staged is the whole set.
    pub fn commit(
        &mut self,
        mut staged: Replacement<InstanceKey, Instance>,
        revision: Option<u64>,
        out: &mut Out,
        now: Instant,
    ) -> bool {
        let missing = staged.missing();
        // Who is held and not missing has come back.
        let held = std::mem::take(&mut self.held);
        for (key, instance) in missing {
            if let Some(held) = held.get(&key) {
                self.held.insert(key.clone(), *held);
                staged.keep(&key);
            } else if self.holds(&key, &instance, now) {
                staged.keep(&key);
            }
        }
        let done = staged.commit(revision);
        self.sizes.clear();
        for (key, _) in out.snapshot() {
            *self.sizes.entry(key.service).or_default() += 1;
        }
        self.place.has(out.len());
        done
    }

    /// Decides what is due.
    pub fn tick(&mut self, out: &mut Out, now: Instant) {
        let due = self.held.iter().filter(|(_, held)| now >= self.due(**held));
        let due: Vec<_> = due.map(|(key, held)| (key.clone(), *held)).collect();
        let mut batch = Batch::new();
        for (key, held) in due {
            let size = self.sizes.get(&key.service).copied().unwrap_or_default();
            match (held, out.get(&key)) {
                (Held::Waiting(since), Some(instance))
                    if self.place.is_mass(&self.rules, &key.service, size, since) =>
                {
                    self.held.insert(key.clone(), Held::Suspect(now + self.rules.suspect));
                    let mut suspect = (*instance).clone();
                    suspect.suspect = true;
                    batch.push(Update::Insert(key, Arc::new(suspect)));
                }
                _ => {
                    self.held.remove(&key);
                    batch.push(Update::Remove(key));
                }
            }
        }
        if !batch.is_empty() {
            self.publish(batch, None, out);
        }
    }

    /// Whether the removal of this instance has to wait.
    fn holds(&mut self, key: &InstanceKey, instance: &Instance, now: Instant) -> bool {
        if self.held.contains_key(key) {
            return true;
        }
        if self.rules.is_off() || instance.status == InstanceStatus::Draining {
            return false;
        }
        self.place.vanished(key.clone(), now, now.checked_sub(self.rules.company * 3));
        self.held.insert(key.clone(), Held::Waiting(now));
        true
    }

    fn publish(&mut self, batch: Batch, revision: Option<u64>, out: &mut Out) {
        // A key can come more than once.
        let mut there: HashMap<&InstanceKey, bool> = HashMap::new();
        for update in &batch {
            let (Update::Insert(key, _) | Update::Remove(key)) = update;
            there.insert(key, matches!(update, Update::Insert(..)));
        }
        for (key, there) in there {
            let size = self.sizes.entry(key.service.clone()).or_default();
            match (out.get(key).is_some(), there) {
                (false, true) => *size += 1,
                (true, false) => *size = size.saturating_sub(1),
                _ => {}
            }
            if *size == 0 {
                self.sizes.remove(&key.service);
            }
        }
        out.apply(batch, revision);
        self.place.has(out.len());
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
