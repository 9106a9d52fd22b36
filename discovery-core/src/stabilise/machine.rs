//! Decides which removals pass. No I/O and no clock of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::Stabilise;
use super::crowd::{Crowd, Place, REMEMBERED, Span};
use crate::{Instance, InstanceKey, InstanceStatus, Publisher, Replacement, ServiceName, Update};

type Out = Publisher<InstanceKey, Instance>;
type Batch = Vec<Update<InstanceKey, Arc<Instance>>>;

/// A key that the source no longer has and readers still see.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// Vanished then; waits for company.
    Waiting(Span),
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
    /// Since when the source has been out of touch, if it is.
    lost: Option<Instant>,
    /// When it was in touch again, after the last time that it was not.
    back: Option<Instant>,
    held: HashMap<InstanceKey, Held>,
    /// When something about a key may be due. Not taken back when the key is: see `held`.
    due: BTreeMap<Instant, Vec<InstanceKey>>,
    /// How many readers see of each service, held ones included.
    sizes: HashMap<ServiceName, usize>,
}

impl Stabiliser {
    /// A stabiliser for one watch of a registry; `all` says that it sees every service.
    pub fn new(rules: Stabilise, crowd: &Crowd, all: bool) -> Self {
        let place = crowd.join(all);
        Self {
            rules,
            place,
            lost: None,
            back: None,
            held: HashMap::new(),
            due: BTreeMap::new(),
            sizes: HashMap::new(),
        }
    }

    /// When [`tick`](Self::tick) may have something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.keys().next().copied()
    }

    /// Whether readers see this key although the source no longer has it.
    pub fn is_held(&self, key: &InstanceKey) -> bool {
        self.held.contains_key(key)
    }

    fn hold(&mut self, key: InstanceKey, held: Held) {
        self.due.entry(self.due_at(held)).or_default().push(key.clone());
        self.held.insert(key, held);
    }

    fn due_at(&self, held: Held) -> Instant {
        match held {
            Held::Waiting(span) => span.seen + self.rules.company,
            Held::Suspect(until) => until,
        }
    }

    /// How many suspects there are.
    pub fn suspects(&self) -> usize {
        self.held.values().filter(|held| matches!(held, Held::Suspect(_))).count()
    }

    /// The source has lost touch: what is missing when it is back went at some time meanwhile.
    pub fn lost(&mut self, now: Instant) {
        self.lost.get_or_insert(now);
        self.place.is_lost(true);
    }

    /// The source never really lost touch. (A [`commit`](Self::commit) says so, too.)
    pub fn found(&mut self) {
        self.lost = None;
        self.place.is_lost(false);
    }

    /// The source says that these keys changed, as one batch.
    pub fn apply(&mut self, batch: Batch, revision: Option<u64>, out: &mut Out, now: Instant) {
        // What this batch itself says of a key counts before what readers see of it.
        let mut latest: HashMap<InstanceKey, Arc<Instance>> = HashMap::new();
        let removes = batch.iter().any(|update| matches!(update, Update::Remove(_)));
        if !removes && self.held.is_empty() {
            return self.publish(batch, revision, out);
        }
        let mut passed = Batch::with_capacity(batch.len());
        for update in batch {
            match &update {
                Update::Insert(key, instance) => {
                    self.held.remove(key);
                    if removes {
                        latest.insert(key.clone(), instance.clone());
                    }
                }
                Update::Remove(key) => {
                    let instance = latest.remove(key).or_else(|| out.get(key));
                    let span = Span { seen: now, since: now };
                    if instance.is_some_and(|instance| self.holds(key, &instance, span)) {
                        continue;
                    }
                }
            }
            passed.push(update);
        }
        self.publish(passed, revision, out);
    }

    /// The source says that what was staged is the whole set. A held key that was staged has come
    /// back; whoever stages must not [`keep`](Replacement::keep) one that [is held](Self::is_held).
    pub fn commit(
        &mut self,
        mut staged: Replacement<InstanceKey, Instance>,
        revision: Option<u64>,
        out: &mut Out,
        now: Instant,
    ) -> bool {
        let missing = staged.missing();
        let span = Span { seen: now, since: self.lost.unwrap_or(now).min(now) };
        if self.lost.is_some() {
            self.back = Some(now);
        }
        self.found();
        let held = std::mem::take(&mut self.held);
        for (key, instance) in missing {
            if let Some(held) = held.get(&key) {
                self.held.insert(key.clone(), *held);
                staged.keep(&key);
            } else if self.holds(&key, &instance, span) {
                staged.keep(&key);
            }
        }
        let done = staged.commit(revision);
        self.sizes.clear();
        out.for_each_key(|key| match self.sizes.get_mut(&key.service) {
            Some(size) => *size += 1,
            None => drop(self.sizes.insert(key.service.clone(), 1)),
        });
        self.place.has(out.len());
        done
    }

    /// Decides what is due.
    pub fn tick(&mut self, out: &mut Out, now: Instant) {
        let later = self.due.split_off(&(now + Duration::from_nanos(1)));
        let due = std::mem::replace(&mut self.due, later);
        // Those that vanished in one batch are judged alike.
        let mut judged: HashMap<(ServiceName, Span), bool> = HashMap::new();
        let mut batch = Batch::new();
        for key in due.into_values().flatten() {
            let Some(&held) = self.held.get(&key) else { continue };
            if self.due_at(held) > now {
                // It came back and vanished again.
                continue;
            }
            let mass = match held {
                Held::Waiting(span) => {
                    let (rules, service) = (&self.rules, &key.service);
                    *judged.entry((service.clone(), span)).or_insert_with(|| {
                        let size = self.sizes.get(service).copied().unwrap_or_default();
                        // Of an outage that is not over for all, it is not known how many went.
                        let back = self.back.is_some_and(|back| span.seen <= back + REMEMBERED);
                        (back && self.place.any_is_lost())
                            || self.place.is_mass(rules, service, size, span)
                    })
                }
                Held::Suspect(_) => false,
            };
            if let Some(instance) = out.get(&key).filter(|_| mass) {
                self.hold(key.clone(), Held::Suspect(now + self.rules.suspect));
                let mut suspect = (*instance).clone();
                suspect.suspect = true;
                batch.push(Update::Insert(key, Arc::new(suspect)));
            } else {
                self.held.remove(&key);
                batch.push(Update::Remove(key));
            }
        }
        if !batch.is_empty() {
            self.publish(batch, None, out);
        }
    }

    /// Whether the removal of this instance has to wait.
    fn holds(&mut self, key: &InstanceKey, instance: &Instance, span: Span) -> bool {
        if self.held.contains_key(key) {
            return true;
        }
        if self.rules.is_off() || instance.status == InstanceStatus::Draining {
            return false;
        }
        self.place.vanished(key, span, self.rules.company);
        self.hold(key.clone(), Held::Waiting(span));
        true
    }

    fn publish(&mut self, batch: Batch, revision: Option<u64>, out: &mut Out) {
        let (sizes, mut news) = (&mut self.sizes, false);
        out.apply_and(batch, revision, |key, there| {
            news = true;
            match (sizes.get_mut(&key.service), there) {
                (Some(size), true) => *size += 1,
                (Some(size), false) if *size > 1 => *size -= 1,
                (None, true) => drop(sizes.insert(key.service.clone(), 1)),
                (_, false) => drop(sizes.remove(&key.service)),
            }
        });
        // Most batches only say something new of what is there.
        if news {
            self.place.has(out.len());
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
