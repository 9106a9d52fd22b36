//! What a publisher and its readers share: the table, each reader's dirty set, and the status.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tokio::sync::{Notify, watch};

use super::table::{SlotId, Table};
use crate::{Change, State, Status};

/// Why no more changes will come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// They will.
    Open,
    /// Closed on purpose: readers end when they have been told everything.
    Closed,
    /// The publisher is gone (or the set is final): readers keep what they have and wait for ever.
    Gone,
}

/// One reader: which slots changed since it was last told of them, and what it was told then.
pub(super) struct Reader<E> {
    /// Slots below this were told once; from here on the reader knows nothing yet.
    cursor: usize,
    /// Dirty slots in the order in which they became so …
    queue: VecDeque<SlotId>,
    /// … and what the reader holds for each (`None`: nothing).
    told: HashMap<SlotId, Option<Arc<E>>>,
    /// Whether something was told since the last `Synced`.
    unsynced: bool,
    waker: Option<Waker>,
}

pub(super) struct Core<K, E> {
    pub(super) table: Table<K, E>,
    readers: Vec<Option<Reader<E>>>,
    active: usize,
    pub(super) loaded: bool,
    pub(super) end: End,
    /// The number of the last whole-set input; see `Slot::seen`.
    pub(super) generation: u32,
}

pub(super) struct Shared<K, E> {
    core: Mutex<Core<K, E>>,
    pub(super) status: watch::Sender<Status>,
    /// Told when the last reader went.
    pub(super) unused: Notify,
}

pub(super) type Told<K, E> = Poll<Option<Change<K, Arc<E>>>>;

impl<K: Hash + Eq + Clone, E: PartialEq> Shared<K, E> {
    pub(super) fn new() -> Self {
        Self {
            core: Mutex::new(Core {
                table: Table::new(),
                readers: Vec::new(),
                active: 0,
                loaded: false,
                end: End::Open,
                generation: 0,
            }),
            status: watch::Sender::new(Status::new()),
            unused: Notify::new(),
        }
    }

    /// The lock is held for one step of one party only, never over an await. A panic of a key's or
    /// an endpoint's own comparison leaves at worst one key unchanged, so poison means nothing.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core<K, E>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns the state. That it is fresh is news only if it was not.
    pub(super) fn turn(&self, state: State) {
        self.status.send_if_modified(|status| {
            let news = !(status.is_fresh() && matches!(state, State::Fresh));
            if news {
                status.turn(state);
            }
            news
        });
    }

    /// Takes over a status from elsewhere, but for what the set here decides.
    #[cfg(feature = "disk")]
    pub(super) fn restate(&self, like: &Status, loaded: bool, endpoints: usize) {
        self.status.send_replace(Status { loaded, endpoints, ..like.clone() });
    }

    /// Notes what the set is now and, if it is `whole`, that it is loaded and fresh: all at once, so
    /// that nobody reads a status of which half is old.
    pub(super) fn note(&self, endpoints: usize, revision: Option<u64>, whole: bool) {
        self.status.send_if_modified(|status| {
            let revision = revision.or(status.revision);
            let mut news = status.endpoints != endpoints || status.revision != revision;
            status.endpoints = endpoints;
            status.revision = revision;
            if whole && !(status.loaded && status.is_fresh()) {
                status.loaded = true;
                status.turn(State::Fresh);
                news = true;
            }
            news
        });
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Core<K, E> {
    pub(super) fn add_reader(&mut self) -> usize {
        let reader = Reader {
            cursor: 0,
            queue: VecDeque::new(),
            told: HashMap::new(),
            // The first `Synced` is owed even for an empty set.
            unsynced: true,
            waker: None,
        };
        self.active += 1;
        if let Some(free) = self.readers.iter().position(Option::is_none) {
            self.readers[free] = Some(reader);
            return free;
        }
        // Most have one reader only.
        self.readers.reserve_exact(1);
        self.readers.push(Some(reader));
        self.readers.len() - 1
    }

    /// Says whether it was the last.
    pub(super) fn drop_reader(&mut self, id: usize) -> bool {
        let Some(reader) = self.readers.get_mut(id).and_then(Option::take) else { return false };
        for slot in reader.queue {
            self.settle(slot);
        }
        self.active -= 1;
        self.active == 0
    }

    /// Outdates the whole-set input that is under way, if one is.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    pub(super) fn unused(&self) -> bool {
        self.active == 0
    }

    /// Sets the key's value if it differs; says whether it did. `new` is told of a key that was not there.
    pub(super) fn insert(&mut self, key: K, value: Arc<E>, new: impl FnOnce(&K)) -> bool {
        let Some((id, former)) = self.table.insert(key, value, same) else { return false };
        if former.is_none()
            && let Some(key) = self.table.get(id).and_then(|slot| slot.key.as_ref())
        {
            new(key);
        }
        self.mark(id, former);
        true
    }

    /// Removes the key if it is there; says whether it was.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        self.table.find(key).is_some_and(|slot| self.remove_slot(slot))
    }

    pub(super) fn remove_slot(&mut self, slot: SlotId) -> bool {
        let Some(former) = self.table.take(slot) else { return false };
        self.mark(slot, Some(former));
        self.table.release(slot);
        true
    }

    /// Notes for every reader that the slot no longer holds `former`.
    fn mark(&mut self, id: SlotId, former: Option<Arc<E>>) {
        let mut owed = 0;
        for reader in self.readers.iter_mut().flatten() {
            if (id as usize) < reader.cursor
                && let Entry::Vacant(entry) = reader.told.entry(id)
            {
                entry.insert(former.clone());
                reader.queue.push_back(id);
                owed += 1;
            }
        }
        if let Some(slot) = self.table.get_mut(id) {
            slot.owed += owed;
        }
    }

    /// One reader no longer needs the slot.
    fn settle(&mut self, id: SlotId) {
        if let Some(slot) = self.table.get_mut(id) {
            slot.owed = slot.owed.saturating_sub(1);
        }
        self.table.release(id);
    }

    /// The wakers of all waiting readers, to be woken once the lock is released.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().flatten().filter_map(|reader| reader.waker.take()).collect()
    }

    /// The next change that reader `id` is owed.
    pub(super) fn next(&mut self, id: usize, waker: &Waker) -> Told<K, E> {
        // A reader's id is good for as long as the reader lives.
        let Some(reader) = self.readers.get_mut(id).and_then(Option::as_mut) else {
            return Poll::Ready(None);
        };
        while let Some(slot_id) = reader.queue.pop_front() {
            let told = reader.told.remove(&slot_id).flatten();
            let Some(slot) = self.table.get_mut(slot_id) else { continue };
            slot.owed = slot.owed.saturating_sub(1);
            let change = match (&slot.key, &slot.value, told) {
                (Some(key), Some(now), Some(told)) if !same(now, &told) => {
                    Some(Change::Insert(key.clone(), now.clone()))
                }
                (Some(key), Some(now), None) => Some(Change::Insert(key.clone(), now.clone())),
                (Some(key), None, Some(_)) => Some(Change::Remove(key.clone())),
                _ => None,
            };
            if slot.value.is_none() {
                self.table.release(slot_id);
            }
            if let Some(change) = change {
                reader.unsynced = true;
                return Poll::Ready(Some(change));
            }
        }
        while let Some(slot) = self.table.slots().get(reader.cursor) {
            reader.cursor += 1;
            if let (Some(key), Some(value)) = (&slot.key, &slot.value) {
                reader.unsynced = true;
                return Poll::Ready(Some(Change::Insert(key.clone(), value.clone())));
            }
        }
        if self.loaded && reader.unsynced {
            reader.unsynced = false;
            // A burst must not be paid for until the next one.
            if reader.told.capacity() > 1024 {
                reader.told = HashMap::new();
                reader.queue = VecDeque::new();
            }
            return Poll::Ready(Some(Change::Synced));
        }
        if self.end == End::Closed {
            return Poll::Ready(None);
        }
        match &mut reader.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Poll::Pending
    }
}

fn same<E: PartialEq>(a: &Arc<E>, b: &Arc<E>) -> bool {
    Arc::ptr_eq(a, b) || **a == **b
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = Core<u32, u32>;

    fn core() -> Small {
        let core = Shared::new().core.into_inner();
        let mut core = core.unwrap_or_else(PoisonError::into_inner);
        core.loaded = true;
        core
    }

    fn drain(core: &mut Small, reader: usize) -> usize {
        std::iter::from_fn(|| match core.next(reader, Waker::noop()) {
            Poll::Ready(told) => told,
            Poll::Pending => None,
        })
        .count()
    }

    fn owed(core: &Small, reader: usize) -> usize {
        let reader = core.readers[reader].as_ref().unwrap();
        assert_eq!(reader.queue.len(), reader.told.len());
        reader.told.len()
    }

    fn set(core: &mut Small, key: u32, value: u32) {
        core.insert(key, Arc::new(value), |_| ());
    }

    #[test]
    fn slots_of_removed_keys_serve_again_however_slow_readers_are() {
        let mut core = core();
        let (slow, eager) = (core.add_reader(), core.add_reader());
        for round in 0..1000 {
            for key in 0..4 {
                // Other keys in each round; the slow reader looks at every tenth.
                set(&mut core, round * 4 + key, round);
            }
            drain(&mut core, eager);
            for key in 0..4 {
                assert!(core.remove(&(round * 4 + key)));
            }
            drain(&mut core, eager);
            if round % 10 == 0 {
                drain(&mut core, slow);
            }
        }
        drain(&mut core, slow);
        let most = core.table.slots().len();
        assert!(most <= 4 * 11, "{most} slots");
        assert!(core.table.slots().iter().all(|slot| slot.key.is_none() && slot.owed == 0));
        assert_eq!((core.table.len(), owed(&core, slow), owed(&core, eager)), (0, 0, 0));
    }

    #[test]
    fn a_reader_that_does_not_poll_is_owed_one_entry_for_each_key_and_its_drop_frees_them() {
        let mut core = core();
        let slow = core.add_reader();
        for key in 0..10 {
            set(&mut core, key, 0);
        }
        assert_eq!(owed(&core, slow), 0, "a new reader needs no entries");
        drain(&mut core, slow);
        for value in 1..100 {
            for key in 0..10 {
                set(&mut core, key, value);
            }
        }
        assert_eq!(owed(&core, slow), 10);
        for key in 0..10 {
            core.remove(&key);
        }
        assert_eq!((owed(&core, slow), core.table.slots().len()), (10, 10));
        assert!(core.drop_reader(slow));
        assert!(core.table.slots().iter().all(|slot| slot.key.is_none() && slot.owed == 0));
        assert!(!core.drop_reader(slow), "only once");
    }

    #[test]
    fn what_a_reader_owes_for_a_burst_is_given_back() {
        let mut core = core();
        let reader = core.add_reader();
        for value in 0..2 {
            for key in 0..5000 {
                set(&mut core, key, value);
            }
            drain(&mut core, reader);
        }
        let reader = core.readers[reader].as_ref().unwrap();
        assert_eq!((reader.told.capacity(), reader.queue.capacity()), (0, 0));
    }

    #[test]
    fn a_key_may_come_back_to_its_slot_or_to_another_one() {
        let mut core = core();
        let reader = core.add_reader();
        set(&mut core, 1, 1);
        drain(&mut core, reader);
        // Back before the reader looked: the slot is still its own.
        core.remove(&1);
        set(&mut core, 1, 2);
        assert_eq!((core.table.slots().len(), drain(&mut core, reader)), (1, 2));
        // Gone and told: the slot serves another key, and the first one gets a new slot.
        core.remove(&1);
        drain(&mut core, reader);
        set(&mut core, 2, 2);
        set(&mut core, 1, 1);
        assert_eq!((core.table.slots().len(), drain(&mut core, reader)), (2, 3));
    }

    #[test]
    fn places_of_dropped_readers_serve_again() {
        let mut core = core();
        for _ in 0..100 {
            let (a, b) = (core.add_reader(), core.add_reader());
            assert!(!core.drop_reader(a) && core.drop_reader(b));
        }
        assert_eq!(core.readers.len(), 2);
        assert!(core.unused());
    }
}
