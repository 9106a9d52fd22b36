//! From etcd's keys and values to the publisher's. A value that cannot be read is reported once, the
//! last good value of its key stays, and the rest goes on.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use discovery_core::{Instance, InstanceKey, Replacement, Update};

use crate::native::Native;
use crate::wire::{Event, KeyValue, Page};

/// What a key and its value mean.
enum Meaning {
    Instance(InstanceKey, Arc<Instance>),
    /// The value cannot be read; whatever was known of the key stays.
    Unreadable(InstanceKey),
    /// Not an instance's key at all.
    Nothing,
}

pub(crate) struct Translator {
    native: Native,
    /// Keys whose value (as a hash) was reported as unreadable.
    reported: HashMap<Vec<u8>, u64>,
    /// Keys whose value was reported to name another service or id.
    differing: HashSet<Vec<u8>>,
    hasher: RandomState,
}

impl Translator {
    pub(crate) fn new(native: Native) -> Self {
        Self {
            native,
            reported: HashMap::new(),
            differing: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// A page is the next part of the whole set.
    pub(crate) fn stage(
        &mut self,
        page: Page,
        replacement: &mut Replacement<InstanceKey, Instance>,
        is_held: impl Fn(&InstanceKey) -> bool,
    ) {
        let mut part = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            match self.read(entry) {
                Meaning::Instance(key, instance) => part.push((key, instance)),
                // One that vanished before has not come back with a value that cannot be read.
                Meaning::Unreadable(key) if !is_held(&key) => {
                    replacement.keep(&key);
                }
                Meaning::Unreadable(_) | Meaning::Nothing => {}
            }
        }
        replacement.extend(part);
    }

    /// The changes of one or more revisions, as one batch.
    pub(crate) fn batch(&mut self, events: Vec<Event>) -> Vec<Update<InstanceKey, Arc<Instance>>> {
        let mut batch = Vec::with_capacity(events.len());
        for event in events {
            match event {
                Event::Put(entry) => {
                    if let Meaning::Instance(key, instance) = self.read(entry) {
                        batch.push(Update::Insert(key, instance));
                    }
                }
                Event::Delete { key, .. } => {
                    self.reported.remove(&key);
                    self.differing.remove(&key);
                    if let Ok(key) = self.native.decode_key(&key) {
                        batch.push(Update::Remove(key));
                    }
                }
            }
        }
        batch
    }

    /// Forgets reports of keys that are no longer there, after a whole set was staged.
    pub(crate) fn begin(&mut self) {
        // At worst a value that is still unreadable is reported once for each connection.
        if self.reported.len() + self.differing.len() > 10_000 {
            self.reported.clear();
            self.differing.clear();
        }
    }

    fn read(&mut self, entry: KeyValue) -> Meaning {
        let KeyValue { key: raw, value, .. } = entry;
        let key = match self.native.decode_key(&raw) {
            Ok(key) => key,
            Err(error) => {
                self.report(raw, &value, &error);
                return Meaning::Nothing;
            }
        };
        match Native::decode(key.clone(), &value) {
            Ok((instance, differs)) => {
                if differs && self.differing.insert(raw.clone()) {
                    tracing::info!(%key, "its value names another service or id; the key counts");
                }
                if self.reported.remove(&raw).is_some() {
                    tracing::info!(%key, "the value can be read again");
                }
                Meaning::Instance(key, Arc::new(instance))
            }
            Err(error) => {
                self.report(raw, &value, &error);
                Meaning::Unreadable(key)
            }
        }
    }

    fn report(&mut self, raw: Vec<u8>, value: &[u8], error: &crate::native::Undecodable) {
        let hash = self.hasher.hash_one(value);
        let key = String::from_utf8_lossy(&raw).escape_debug().take(300).collect::<String>();
        if self.reported.insert(raw, hash) != Some(hash) {
            tracing::warn!(key, %error, bytes = value.len(), "not an instance; ignored");
        }
    }
}
