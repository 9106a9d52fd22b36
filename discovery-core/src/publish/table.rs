//! The publisher's set: keys and values in numbered slots, so that a reader can note a key in four
//! bytes and walk the whole set with a cursor.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

/// A slot's number. Four thousand million keys are enough for anybody; see [`Table::slot_for`].
pub(super) type SlotId = u32;

pub(super) struct Slot<K, E> {
    /// `None`: the slot is free.
    pub(super) key: Option<K>,
    /// `None` with a key: gone from the set, but a reader is still owed the news.
    pub(super) value: Option<Arc<E>>,
    /// How many readers have this slot in their dirty set.
    pub(super) owed: u32,
    /// The last whole-set input that had this key.
    pub(super) seen: u32,
}

pub(super) struct Table<K, E> {
    hasher: DefaultHashBuilder,
    index: HashTable<SlotId>,
    slots: Vec<Slot<K, E>>,
    free: Vec<SlotId>,
    live: usize,
}

impl<K: Hash + Eq + Clone, E> Table<K, E> {
    pub(super) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
        }
    }

    /// How many keys are in the set.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Every slot, free ones included.
    pub(super) fn slots(&self) -> &[Slot<K, E>] {
        &self.slots
    }

    pub(super) fn find(&self, key: &K) -> Option<SlotId> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |&id| self.key_is(id, key)).copied()
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&Slot<K, E>> {
        self.slots.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot<K, E>> {
        self.slots.get_mut(id as usize)
    }

    pub(super) fn value(&self, key: &K) -> Option<&Arc<E>> {
        self.get(self.find(key)?)?.value.as_ref()
    }

    /// Makes room for `more` further keys at once.
    pub(super) fn reserve(&mut self, more: usize) {
        let more = more.saturating_sub(self.free.len());
        if self.slots.is_empty() {
            // Most sets are those of a service, small, and stay for long as they are.
            self.slots.reserve_exact(more);
        } else {
            self.slots.reserve(more);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.reserve(more, |&id| rehash(slots, hasher, id));
    }

    /// Sets the value of `key` and returns its slot and the former value; `None` if that is the `same`,
    /// which then stays.
    pub(super) fn insert(
        &mut self,
        key: K,
        value: Arc<E>,
        same: impl Fn(&Arc<E>, &Arc<E>) -> bool,
    ) -> Option<(SlotId, Option<Arc<E>>)> {
        let id = self.slot_for(key);
        let slot = &mut self.slots[id as usize];
        if slot.value.as_ref().is_some_and(|former| same(former, &value)) {
            return None;
        }
        let former = slot.value.replace(value);
        if former.is_none() {
            self.live += 1;
        }
        Some((id, former))
    }

    /// Takes the value out of the slot. The slot keeps its key until [`release`](Self::release).
    pub(super) fn take(&mut self, id: SlotId) -> Option<Arc<E>> {
        let value = self.get_mut(id)?.value.take()?;
        self.live -= 1;
        Some(value)
    }

    /// Frees the slot if nothing needs it any more: no value, and no reader to be told.
    pub(super) fn release(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if slot.value.is_some() || slot.owed > 0 {
            return;
        }
        if let Some(key) = slot.key.take() {
            let hash = self.hasher.hash_one(&key);
            if let Ok(entry) = self.index.find_entry(hash, |&other| other == id) {
                entry.remove();
            }
            self.free.push(id);
        }
    }

    fn slot_for(&mut self, key: K) -> SlotId {
        let hash = self.hasher.hash_one(&key);
        if let Some(&id) = self.index.find(hash, |&id| self.key_is(id, &key)) {
            return id;
        }
        let slot = Slot { key: Some(key), value: None, owed: 0, seen: 0 };
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize] = slot;
            id
        } else {
            // 2^32 slots of 48 bytes are 200 GB: memory ends first.
            let id = SlotId::try_from(self.slots.len()).unwrap_or(SlotId::MAX);
            self.slots.push(slot);
            id
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, id, |&id| rehash(slots, hasher, id));
        id
    }

    fn key_is(&self, id: SlotId, key: &K) -> bool {
        self.slots.get(id as usize).is_some_and(|slot| slot.key.as_ref() == Some(key))
    }
}

fn rehash<K: Hash, E>(slots: &[Slot<K, E>], hasher: &DefaultHashBuilder, id: SlotId) -> u64 {
    // Every indexed slot has a key.
    slots.get(id as usize).and_then(|slot| slot.key.as_ref()).map_or(0, |key| hasher.hash_one(key))
}
