//! The writing side: a source says "this is the whole set now" or "these keys changed".

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use super::reader::Changes;
use super::shared::{End, Shared};
#[cfg(feature = "disk")]
use crate::Status;
use crate::{SourceError, State, StatusReader};

/// One key's part in a batch of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update<K, E> {
    /// The key has this value now.
    Insert(K, E),
    /// The key is gone.
    Remove(K),
}

/// The writing side of a set of endpoints; [`Changes`] are its readers.
///
/// It diffs, coalesces for each reader and fans out; a source need not know what was there before.
/// There is one writer: writing takes `&mut self`. No method waits.
///
/// Dropped without [`close`](Self::close) (its source panicked, say), it leaves its readers with the
/// last set, stale for ever, not ended.
///
/// ```
/// use discovery_core::{Change, Publisher, Update};
/// use futures::StreamExt as _;
/// # futures::executor::block_on(async {
/// let mut publisher = Publisher::new();
/// let mut changes = publisher.subscribe();
/// publisher.replace([("a", 1), ("b", 2)], None);
/// publisher.apply([Update::Insert("b", 3), Update::Remove("a")], None);
/// publisher.close();
/// // Before the reader looked, "a" came and went and "b" changed: it is told what is there.
/// assert_eq!(changes.next().await, Some(Change::Insert("b", 3.into())));
/// assert_eq!(changes.next().await, Some(Change::Synced));
/// assert_eq!(changes.next().await, None);
/// # });
/// ```
pub struct Publisher<K: Hash + Eq + Clone, E: PartialEq> {
    shared: Arc<Shared<K, E>>,
    ended: bool,
}

impl<K: Hash + Eq + Clone, E: PartialEq> Default for Publisher<K, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> fmt::Debug for Publisher<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("status", &*self.shared.status.borrow())
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Publisher<K, E> {
    /// A publisher that has not loaded, with no readers.
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared::new()), ended: false }
    }

    /// A new reader. It is told the whole set first.
    pub fn subscribe(&self) -> Changes<K, E> {
        Changes::reading(self.shared.clone(), self.shared.lock().add_reader())
    }

    /// A handle that makes readers and does not keep the publisher alive.
    pub fn subscriber(&self) -> Subscriber<K, E> {
        Subscriber { shared: Arc::downgrade(&self.shared) }
    }

    /// The status, to read and to await.
    pub fn status(&self) -> StatusReader {
        StatusReader::one(self.shared.status.subscribe())
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<Arc<E>> {
        self.shared.lock().table.value(key).cloned()
    }

    /// How many keys the set has.
    pub fn len(&self) -> usize {
        self.shared.lock().table.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the set.
    pub fn snapshot(&self) -> Vec<(K, Arc<E>)> {
        let core = self.shared.lock();
        let slots = core.table.slots().iter();
        slots.filter_map(|slot| Some((slot.key.clone()?, slot.value.clone()?))).collect()
    }

    /// Looks at each key of the set, without a copy of it.
    pub(crate) fn for_each_key(&self, look: impl FnMut(&K)) {
        let core = self.shared.lock();
        let slots = core.table.slots().iter();
        slots
            .filter(|slot| slot.value.is_some())
            .filter_map(|slot| slot.key.as_ref())
            .for_each(look);
    }

    /// The set is now exactly this: what differs is told to readers, as one batch. The source counts
    /// as loaded and fresh. Of a key given twice, the later value counts.
    pub fn replace<V: Into<Arc<E>>>(
        &mut self,
        set: impl IntoIterator<Item = (K, V)>,
        revision: Option<u64>,
    ) {
        let mut replacement = self.replacement();
        replacement.extend(set);
        replacement.commit(revision);
    }

    /// [`replace`](Self::replace) with a status from elsewhere: that of the source which the set is
    /// from, or of a set that is known to be old. Nobody sees the one without the other.
    #[cfg(feature = "disk")]
    pub(crate) fn replace_as<V: Into<Arc<E>>>(
        &mut self,
        set: impl IntoIterator<Item = (K, V)>,
        status: &Status,
    ) {
        let mut replacement = self.replacement();
        replacement.extend(set);
        replacement.commit_and(|shared, endpoints| shared.restate(status, true, endpoints));
    }

    /// The status is now this one from elsewhere, but for what the set here decides.
    #[cfg(feature = "disk")]
    pub(crate) fn restate(&mut self, status: &Status) {
        let core = self.shared.lock();
        self.shared.restate(status, core.loaded, core.table.len());
    }

    /// Starts to say what the whole set is now, in parts; readers see nothing of it until
    /// [`Replacement::commit`].
    ///
    /// One at a time, and nothing in between: to begin another one, or to [`apply`](Self::apply)
    /// changes, outdates it, and its commit then does nothing.
    pub fn replacement(&mut self) -> Replacement<K, E> {
        let generation = self.shared.lock().next_generation();
        Replacement { shared: self.shared.clone(), generation, staged: Vec::new(), unknown: 0 }
    }

    /// These keys changed, as one batch: a reader that drains sees all of it. It changes neither
    /// whether the source has loaded nor whether it is stale.
    pub fn apply<V: Into<Arc<E>>>(
        &mut self,
        batch: impl IntoIterator<Item = Update<K, V>>,
        revision: Option<u64>,
    ) {
        self.apply_and(batch, revision, |_, _| ());
    }

    /// [`apply`](Self::apply), and `look` is shown each key that came or went, with whether it is there
    /// now. It is called under the lock.
    pub(crate) fn apply_and<V: Into<Arc<E>>>(
        &mut self,
        batch: impl IntoIterator<Item = Update<K, V>>,
        revision: Option<u64>,
        mut look: impl FnMut(&K, bool),
    ) {
        // Whatever the iterator does is not done under the lock.
        let batch = batch.into_iter().map(|update| match update {
            Update::Insert(key, value) => Update::Insert(key, value.into()),
            Update::Remove(key) => Update::Remove(key),
        });
        let batch: Vec<Update<K, Arc<E>>> = batch.collect();
        let mut core = self.shared.lock();
        core.next_generation();
        let mut changed = false;
        for update in batch {
            changed |= match update {
                Update::Insert(key, value) => core.insert(key, value, |key| look(key, true)),
                Update::Remove(key) => {
                    let gone = core.remove(&key);
                    if gone {
                        look(&key, false);
                    }
                    gone
                }
            };
        }
        self.shared.note(core.table.len(), revision, false);
        let wakers = if changed { core.wakers() } else { Vec::new() };
        drop(core);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// What the publisher has been told by [`apply`](Self::apply) is the whole set: the source has
    /// loaded and is fresh.
    pub fn fresh(&mut self) {
        let mut core = self.shared.lock();
        let first = !std::mem::replace(&mut core.loaded, true);
        let wakers = if first { core.wakers() } else { Vec::new() };
        self.shared.note(core.table.len(), None, true);
        drop(core);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// The source is in trouble. If it has loaded, its set stays and is stale from now on; if not, it
    /// goes on loading and says what stands in the way.
    pub fn trouble(&mut self, error: SourceError) {
        let loaded = self.shared.lock().loaded;
        self.shared.turn(if loaded { State::Stale(error) } else { State::Loading(Some(error)) });
    }

    /// Ends the streams of all readers, once each has been told everything.
    pub fn close(mut self) {
        self.end(End::Closed, Some(State::Closed));
    }

    /// The set is final: readers keep it, as it is and with the status it has, for as long as they
    /// like.
    pub fn freeze(mut self) {
        self.end(End::Gone, None);
    }

    /// Whether there is no reader.
    pub fn is_unused(&self) -> bool {
        self.shared.lock().unused()
    }

    /// Waits until there is no reader. Cancel safe. A publisher that never had one counts as unused.
    pub async fn unused(&self) {
        loop {
            let told = self.shared.unused.notified();
            if self.shared.lock().unused() {
                return;
            }
            told.await;
        }
    }

    /// Ends the publisher if it has no reader, so that no [`Subscriber`] can make another.
    ///
    /// # Errors
    /// Gives the publisher back if a reader came meanwhile.
    pub fn finish_if_unused(mut self) -> Result<(), Self> {
        let unused = {
            let mut core = self.shared.lock();
            if core.unused() {
                core.end = End::Gone;
            }
            core.unused()
        };
        if !unused {
            return Err(self);
        }
        self.ended = true;
        Ok(())
    }

    fn end(&mut self, end: End, state: Option<State>) {
        self.ended = true;
        let mut core = self.shared.lock();
        core.end = end;
        let wakers = core.wakers();
        if let Some(state) = state {
            self.shared.turn(state);
        }
        drop(core);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Drop for Publisher<K, E> {
    fn drop(&mut self) {
        if !self.ended {
            self.trouble(SourceError::new("the source stopped without being closed"));
            self.end(End::Gone, None);
        }
    }
}

/// A whole set being told to a [`Publisher`], in parts (the pages of a list, say). Dropped before
/// [`commit`](Self::commit), it has changed nothing.
///
/// Values that the publisher has already are not kept a second time.
pub struct Replacement<K: Hash + Eq + Clone, E: PartialEq> {
    shared: Arc<Shared<K, E>>,
    generation: u32,
    staged: Vec<(K, Arc<E>)>,
    /// How many of these have no slot yet.
    unknown: usize,
}

impl<K: Hash + Eq + Clone, E: PartialEq> Replacement<K, E> {
    /// The key has this value in the new set.
    pub fn insert(&mut self, key: K, value: impl Into<Arc<E>>) {
        self.extend([(key, value)]);
    }

    /// These keys have these values in the new set.
    pub fn extend<V: Into<Arc<E>>>(&mut self, part: impl IntoIterator<Item = (K, V)>) {
        // Values that differ go through `staged` even for a live key: readers must not see half.
        for (key, value) in part {
            let value = value.into();
            // Locked for one key at a time: the iterator may take long (decode, say).
            let mut core = self.shared.lock();
            if core.generation != self.generation {
                // Outdated: the marks are another one's now.
                return;
            }
            let slot = core.table.find(&key).and_then(|id| core.table.get_mut(id));
            if let Some(slot) = slot {
                let again = std::mem::replace(&mut slot.seen, self.generation) == self.generation;
                if !again && slot.value.as_ref().is_some_and(|old| **old == *value) {
                    continue;
                }
            } else {
                self.unknown += 1;
            }
            self.staged.push((key, value));
        }
    }

    /// The key is in the new set with whatever value it has; says whether it has one.
    pub fn keep(&mut self, key: &K) -> bool {
        let mut core = self.shared.lock();
        let outdated = core.generation != self.generation;
        let Some(slot) = core.table.find(key).and_then(|id| core.table.get_mut(id)) else {
            return false;
        };
        if !outdated {
            slot.seen = self.generation;
        }
        slot.value.is_some()
    }

    /// What the publisher has and this new set, so far, has not.
    pub fn missing(&self) -> Vec<(K, Arc<E>)> {
        let core = self.shared.lock();
        let missing = core.table.slots().iter().filter(|slot| slot.seen != self.generation);
        missing.filter_map(|slot| Some((slot.key.clone()?, slot.value.clone()?))).collect()
    }

    /// The set is complete: what differs is told to readers, as one batch. The source counts as
    /// loaded and fresh. `false`: it was outdated (see [`Publisher::replacement`]), and nothing was
    /// changed.
    pub fn commit(self, revision: Option<u64>) -> bool {
        self.commit_and(|shared, endpoints| shared.note(endpoints, revision, true))
    }

    /// `note` brings the status up to date; it is told how many endpoints there are now.
    fn commit_and(self, note: impl FnOnce(&Shared<K, E>, usize)) -> bool {
        let Self { shared, generation, staged, unknown } = self;
        let mut core = shared.lock();
        if core.generation != generation || core.end != End::Open {
            return false;
        }
        let mut changed = false;
        let mut gone = Vec::new();
        for (id, slot) in (0..).zip(core.table.slots()) {
            if slot.value.is_some() && slot.seen != generation {
                gone.push(id);
            }
        }
        // Removals first, so that their slots serve again.
        for id in gone {
            changed |= core.remove_slot(id);
        }
        core.table.reserve(unknown);
        for (key, value) in staged {
            changed |= core.insert(key, value, |_| ());
        }
        changed |= !std::mem::replace(&mut core.loaded, true);
        note(&shared, core.table.len());
        let wakers = if changed { core.wakers() } else { Vec::new() };
        drop(core);
        wakers.into_iter().for_each(std::task::Waker::wake);
        true
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> fmt::Debug for Replacement<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").field("staged", &self.staged.len()).finish_non_exhaustive()
    }
}

/// Makes readers of a [`Publisher`] without keeping it alive, so that several users of one service
/// can share one watch. Cheap to clone.
pub struct Subscriber<K: Hash + Eq + Clone, E: PartialEq> {
    /// Weak: who keeps this for later keeps neither the set, nor those waiting who await the status.
    shared: Weak<Shared<K, E>>,
}

impl<K: Hash + Eq + Clone, E: PartialEq> Subscriber<K, E> {
    /// A new reader; `None` when the publisher has ended.
    pub fn subscribe(&self) -> Option<Changes<K, E>> {
        let shared = self.shared.upgrade()?;
        let mut core = shared.lock();
        if core.end != End::Open {
            return None;
        }
        let id = core.add_reader();
        drop(core);
        Some(Changes::reading(shared, id))
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Subscriber<K, E> {
    /// Whether the publisher has ended.
    pub fn is_ended(&self) -> bool {
        self.shared.upgrade().is_none_or(|shared| shared.lock().end != End::Open)
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Clone for Subscriber<K, E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> fmt::Debug for Subscriber<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").finish_non_exhaustive()
    }
}
