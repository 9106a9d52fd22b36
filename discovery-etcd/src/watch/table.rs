//! What is known of etcd's keys: as of which revision each is, and which instances its record stands
//! for. A delete carries no value, and a value can come to name others: what is no longer there is
//! found here.
//!
//! The instances themselves are the publisher's. Here are their keys, whose text is shared with it;
//! values are remembered only of records that are made of several keys.

use std::collections::BTreeMap;

use discovery_core::InstanceKey;
use hashbrown::HashMap;

use crate::format::Entry;

type Key = Box<[u8]>;

/// The instances that a record stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    One(InstanceKey),
    /// None, too: an empty list takes no memory of its own.
    Many(Box<[InstanceKey]>),
}

impl Stands {
    pub(super) fn none() -> Self {
        Self::Many(Box::default())
    }

    pub(super) fn keys(&self) -> &[InstanceKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

impl<'a> FromIterator<&'a InstanceKey> for Stands {
    fn from_iter<I: IntoIterator<Item = &'a InstanceKey>>(keys: I) -> Self {
        let mut keys = keys.into_iter();
        match (keys.next(), keys.next()) {
            (None, _) => Self::none(),
            (Some(one), None) => Self::One(one.clone()),
            (Some(one), Some(two)) => {
                Self::Many([one, two].into_iter().chain(keys).cloned().collect())
            }
        }
    }
}

/// A key that is a record by itself.
#[derive(Debug)]
struct Whole {
    revision: i64,
    /// The mark of the list or audit that had it last.
    seen: u32,
    /// Whether it is known from an event or a complete list.
    settled: bool,
    stands: Stands,
}

/// One of several keys that make a record.
#[derive(Debug)]
struct Part {
    revision: i64,
    seen: u32,
    value: Box<[u8]>,
}

type Parts = BTreeMap<Key, Part>;

#[derive(Debug)]
struct Joined {
    stands: Stands,
    parts: Parts,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Table {
    whole: HashMap<Key, Whole>,
    joined: HashMap<Key, Joined>,
    /// The mark of the current list or audit. 0 is nobody's.
    mark: u32,
    /// Records that stand for others than before, as the list says that is not complete yet.
    changed: HashMap<Key, Stands>,
    /// The several-key records of the list that is not complete yet.
    listed: HashMap<Key, Parts>,
}

/// What is known of whole records as events tell it.
impl Table {
    /// The record has a new value. `read` is told what it stood for and says what it stands for from now
    /// on; that it cannot be read (`None`) changes nothing. Returns what it stood for, if that differs.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        revision: i64,
        read: impl FnOnce(&[InstanceKey]) -> Option<Stands>,
    ) -> Stands {
        let Some(known) = self.whole.get_mut(key) else {
            let stands = read(&[]).unwrap_or_else(Stands::none);
            self.whole.insert(key.into(), Whole { revision, seen: 0, settled: true, stands });
            return Stands::none();
        };
        known.revision = revision;
        let Some(stands) = read(known.stands.keys()) else { return Stands::none() };
        known.settled = true;
        if known.stands == stands {
            // The texts that are there are shared already.
            return Stands::none();
        }
        std::mem::replace(&mut known.stands, stands)
    }

    /// The record is gone; returns what it stood for.
    pub(super) fn remove(&mut self, key: &[u8]) -> Stands {
        self.whole.remove(key).map_or_else(Stands::none, |known| known.stands)
    }
}

/// What is known of records of several keys as events tell it.
impl Table {
    pub(super) fn put_part(&mut self, name: &[u8], key: &[u8], revision: i64, value: Vec<u8>) {
        let part = Part { revision, seen: 0, value: value.into() };
        if !self.joined.contains_key(name) {
            let joined = Joined { stands: Stands::none(), parts: Parts::new() };
            self.joined.insert(name.into(), joined);
        }
        if let Some(joined) = self.joined.get_mut(name) {
            joined.parts.insert(key.into(), part);
        }
    }

    pub(super) fn remove_part(&mut self, name: &[u8], key: &[u8]) {
        if let Some(joined) = self.joined.get_mut(name) {
            joined.parts.remove(key);
        }
    }

    /// The keys and values of a record, none if it is gone; and what it stands for.
    pub(super) fn parts(&self, name: &[u8]) -> (Vec<Entry<'_>>, &[InstanceKey]) {
        let joined = self.joined.get(name);
        joined
            .map_or_else(Default::default, |joined| (entries(&joined.parts), joined.stands.keys()))
    }

    /// The record stands for these from now on; returns what it stood for. One without keys is gone.
    pub(super) fn join(&mut self, name: &[u8], stands: Stands) -> Stands {
        let Some(joined) = self.joined.get_mut(name) else { return Stands::none() };
        let before = std::mem::replace(&mut joined.stands, stands);
        if joined.parts.is_empty() {
            self.joined.remove(name);
        }
        before
    }
}

/// A whole list, told in pages. Until it is complete, what is known of instances stays: it may never be.
impl Table {
    pub(super) fn begin_list(&mut self) {
        self.next_mark();
        // What a list brought that broke off nobody was told.
        self.whole.retain(|_, known| known.settled);
        self.changed.clear();
        self.listed.clear();
    }

    /// The record is in the list. `read` is as for [`put`](Self::put); if it cannot be read, returns what
    /// it stood for.
    pub(super) fn list(
        &mut self,
        key: Vec<u8>,
        revision: i64,
        read: impl FnOnce(&[u8], &[InstanceKey]) -> Option<Stands>,
    ) -> Option<Stands> {
        let seen = self.mark;
        let Some(known) = self.whole.get_mut(key.as_slice()) else {
            let stands = read(&key, &[]).unwrap_or_else(Stands::none);
            self.whole.insert(key.into(), Whole { revision, seen, settled: false, stands });
            return None;
        };
        (known.revision, known.seen) = (revision, seen);
        let Some(stands) = read(&key, known.stands.keys()) else {
            return Some(known.stands.clone());
        };
        if known.stands != stands {
            self.changed.insert(key.into(), stands);
        }
        None
    }

    /// The key of a record of several is in the list.
    pub(super) fn list_part(&mut self, name: &[u8], key: Vec<u8>, revision: i64, value: Vec<u8>) {
        let part = Part { revision, seen: self.mark, value: value.into() };
        if !self.listed.contains_key(name) {
            self.listed.insert(name.into(), Parts::new());
        }
        if let Some(parts) = self.listed.get_mut(name) {
            parts.insert(key.into(), part);
        }
    }

    /// The list is complete: records that are not in it are forgotten. `decode` says what those of
    /// several keys stand for, given what they stood for.
    pub(super) fn end_list(
        &mut self,
        mut decode: impl FnMut(&[u8], &[Entry<'_>], Stands) -> Stands,
    ) {
        let mark = self.mark;
        self.whole.retain(|_, known| {
            known.settled = true;
            known.seen == mark
        });
        for (key, stands) in self.changed.drain() {
            if let Some(known) = self.whole.get_mut(&key) {
                known.stands = stands;
            }
        }
        let mut before = std::mem::take(&mut self.joined);
        for (name, parts) in std::mem::take(&mut self.listed) {
            let stood = before.remove(&name).map_or_else(Stands::none, |joined| joined.stands);
            let stands = decode(&name, &entries(&parts), stood);
            self.joined.insert(name, Joined { stands, parts });
        }
        // What a burst needed is not kept for ever.
        self.whole.shrink_to(self.whole.len() * 2);
    }
}

/// For the audit: keys and revisions.
impl Table {
    pub(super) fn next_mark(&mut self) -> u32 {
        self.mark = self.mark.wrapping_add(1).max(1);
        self.mark
    }

    /// As of which revision a key is; `name` is its record's, if that has several keys.
    pub(super) fn revision(&self, name: Option<&[u8]>, key: &[u8]) -> Option<i64> {
        match name {
            None => self.whole.get(key).map(|known| known.revision),
            Some(name) => self.joined.get(name)?.parts.get(key).map(|part| part.revision),
        }
    }

    /// The same for a key that the audit has.
    pub(super) fn mark(&mut self, name: Option<&[u8]>, key: &[u8]) -> Option<i64> {
        let mark = self.mark;
        let (revision, seen) = match name {
            None => self.whole.get_mut(key).map(|known| (known.revision, &mut known.seen)),
            Some(name) => {
                let part = self.joined.get_mut(name)?.parts.get_mut(key);
                part.map(|part| (part.revision, &mut part.seen))
            }
        }?;
        *seen = mark;
        Some(revision)
    }

    /// The keys that the audit does not have, and their revisions.
    pub(super) fn unmarked(&self) -> impl Iterator<Item = (&[u8], i64)> {
        let mark = self.mark;
        let whole = self.whole.iter().map(|(key, known)| (key, known.revision, known.seen));
        let parts = self.joined.values().flat_map(|joined| &joined.parts);
        let parts = parts.map(|(key, part)| (key, part.revision, part.seen));
        let all = whole.chain(parts).filter(move |(_, _, seen)| *seen != mark);
        all.map(|(key, revision, _)| (&**key, revision))
    }
}

fn entries(parts: &Parts) -> Vec<Entry<'_>> {
    parts.iter().map(|(key, part)| Entry { key, value: &part.value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_costs_little_beside_its_own_bytes() {
        assert!(size_of::<(Key, Whole)>() <= 64, "{}", size_of::<(Key, Whole)>());
    }
}
