//! What etcd itself says was written: every revision, with what it changed.
//!
//! The recorder watches the whole key space through etcd's JSON gateway, from the first revision on, and
//! after every break from the one that follows the last it has. Each revision of a store changes at least
//! one key, so a number that is missing is a loss, and so is a store that goes back without having been
//! wiped; and at every quiet point what was recorded is held against a plain read. Nothing that a viewer
//! can have seen is out of its reach: stores are compacted only up to where it is, and wiped only after
//! the networks were cut and it had read to the end. If something is lost all the same, the run proves
//! nothing and says so.

mod gateway;
mod recorder;

use std::{collections::BTreeMap, time::Duration};

use discovery_test_support::Snapshot;

pub(crate) use self::recorder::Recorder;

/// What one revision did to one key; `None`: it was deleted.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// One revision.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) revision: i64,
    /// When it was recorded, since the start of the run.
    pub(crate) at: Duration,
    pub(crate) events: Vec<Event>,
}

/// The life of one store, from empty to its wipe. It starts at revision 1, where nothing is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epoch {
    /// Revisions 2, 3, and so on.
    pub(crate) written: Vec<Written>,
    /// The set at the last snapshot it was held against, and how many revisions it includes.
    proven: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    proven_to: usize,
}

impl Epoch {
    /// The revision that was recorded last.
    pub(crate) fn revision(&self) -> i64 {
        self.written.last().map_or(1, |written| written.revision)
    }

    /// Takes the next revision.
    fn add(&mut self, written: Written) -> Result<(), String> {
        let last = self.revision();
        if written.revision != last + 1 {
            return Err(format!("revision {} was told after {last}", written.revision));
        }
        self.written.push(written);
        Ok(())
    }

    /// Holds what was recorded against a snapshot of all keys, which must not be of the future.
    fn prove(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        while let Some(next) = self.written.get(self.proven_to)
            && next.revision <= snapshot.revision
        {
            for event in &next.events {
                match &event.value {
                    Some(value) => {
                        self.proven.insert(event.key.clone(), (value.clone(), next.revision));
                    }
                    None => drop(self.proven.remove(&event.key)),
                }
            }
            self.proven_to += 1;
        }
        let last = self.proven_to.checked_sub(1).and_then(|last| self.written.get(last));
        let proven_revision = last.map_or(1, |written| written.revision);
        if proven_revision != snapshot.revision {
            return Err(format!(
                "{proven_revision} is held against a snapshot of {}",
                snapshot.revision
            ));
        }
        let same = self.proven.len() == snapshot.kvs.len()
            && self.proven.iter().all(|(key, (value, revision))| {
                snapshot
                    .kvs
                    .get(key)
                    .is_some_and(|kv| kv.value == *value && kv.mod_revision == *revision)
            });
        if same {
            Ok(())
        } else {
            Err(format!("what was recorded up to {} is not what is there", snapshot.revision))
        }
    }
}

#[cfg(test)]
mod tests {
    use discovery_test_support::Kv;

    use super::*;

    fn written(revision: i64, key: &str, value: Option<&str>) -> Written {
        let value = value.map(|value| value.as_bytes().to_vec());
        let event = Event { key: key.into(), value };
        Written { revision, at: Duration::ZERO, events: vec![event] }
    }

    fn snapshot(revision: i64, keys: &[(&str, &str, i64)]) -> Snapshot {
        let kv = |value: &str, mod_revision| Kv {
            value: value.into(),
            create_revision: mod_revision,
            mod_revision,
            version: 1,
            lease: 0,
        };
        let kvs = keys.iter().map(|(key, value, at)| (key.as_bytes().to_vec(), kv(value, *at)));
        Snapshot { revision, kvs: kvs.collect() }
    }

    #[test]
    fn a_revision_that_is_missing_is_a_loss() {
        let mut epoch = Epoch::default();
        epoch.add(written(2, "a", Some("1"))).unwrap();
        assert!(epoch.clone().add(written(4, "a", None)).is_err());
        assert!(epoch.clone().add(written(2, "a", None)).is_err());
        epoch.add(written(3, "a", None)).unwrap();
    }

    #[test]
    fn what_was_recorded_is_held_against_what_is_there() {
        let mut epoch = Epoch::default();
        epoch.add(written(2, "a", Some("1"))).unwrap();
        epoch.add(written(3, "b", Some("2"))).unwrap();
        epoch.prove(&snapshot(2, &[("a", "1", 2)])).unwrap();
        assert!(epoch.clone().prove(&snapshot(3, &[("a", "1", 2)])).is_err(), "b is missing");
        assert!(epoch.clone().prove(&snapshot(3, &[("a", "1", 2), ("b", "x", 3)])).is_err());
        assert!(epoch.clone().prove(&snapshot(4, &[("a", "1", 2), ("b", "2", 3)])).is_err());
        epoch.prove(&snapshot(3, &[("a", "1", 2), ("b", "2", 3)])).unwrap();
        epoch.add(written(4, "a", None)).unwrap();
        epoch.prove(&snapshot(4, &[("b", "2", 3)])).unwrap();
    }
}
