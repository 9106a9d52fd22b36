//! The entries of the books, by id and by key. An endpoint keeps its id while it is there, so that what is
//! told of a service finds its entry without looking at the key.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::entry::Entry;
use crate::balance::flight::Endpoint;
use crate::balance::parts::Parts;

pub(super) struct Entries<T: Parts> {
    slots: Vec<Option<Entry<T>>>,
    vacant: Vec<usize>,
    /// Ids by their keys, each with its hash: a table that grows would else look at all keys again.
    by_key: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

impl<T: Parts> Default for Entries<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

/// A hash of 32 bits as one of 64, of which the table uses the lowest and the highest.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<T: Parts> Entries<T> {
    pub(super) fn get(&self, id: usize) -> Option<&Entry<T>> {
        self.slots.get(id)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: usize) -> Option<&mut Entry<T>> {
        self.slots.get_mut(id)?.as_mut()
    }

    /// The entry whose present service this is.
    pub(super) fn of(&mut self, endpoint: &Arc<Endpoint<T>>) -> Option<&mut Entry<T>> {
        self.get_mut(endpoint.id).filter(|entry| Arc::ptr_eq(&entry.endpoint, endpoint))
    }

    /// The id of the endpoint with this key.
    pub(super) fn find(&self, key: &T::Key) -> Option<usize> {
        let hash = self.hash(key);
        let is_it = |&(other, id): &(u32, u32)| {
            other == hash && self.get(id as usize).is_some_and(|entry| entry.member().key() == key)
        };
        self.by_key.find(spread(hash), is_it).map(|&(_, id)| id as usize)
    }

    /// An id that nobody has. It is to be [given](Self::insert) to somebody.
    pub(super) fn vacancy(&mut self) -> usize {
        self.vacant.pop().unwrap_or(self.slots.len())
    }

    pub(super) fn insert(&mut self, id: usize, entry: Entry<T>) {
        let hash = self.hash(entry.member().key());
        match self.slots.get_mut(id) {
            Some(vacant) => *vacant = Some(entry),
            None => self.slots.push(Some(entry)),
        }
        self.by_key.insert_unique(spread(hash), (hash, id as u32), |&(hash, _)| spread(hash));
    }

    pub(super) fn remove(&mut self, id: usize) -> Option<Entry<T>> {
        let entry = self.slots.get_mut(id)?.take()?;
        let hash = spread(self.hash(entry.member().key()));
        if let Ok(found) = self.by_key.find_entry(hash, |found| found.1 as usize == id) {
            found.remove();
        }
        self.vacant.push(id);
        Some(entry)
    }

    /// All there are, with their ids.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Entry<T>)> {
        self.slots.iter_mut().enumerate().filter_map(|(id, entry)| Some((id, entry.as_mut()?)))
    }

    fn hash(&self, key: &T::Key) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}
