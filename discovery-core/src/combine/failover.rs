//! The first of several sets that is known.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::Context;

use super::{DynSource, KeyPart, Part, take};
use crate::publish::Derive;
use crate::{
    Change, Changes, InstanceChanges, Publisher, ServiceName, Source, State, Status, Update,
};

/// One input, in order of preference.
struct Input<K: KeyPart, E: Part + PartialEq> {
    changes: Changes<K, E>,
    /// What it said before it had loaded.
    table: HashMap<K, Arc<E>>,
}

struct FirstLoaded<K: KeyPart, E: Part + PartialEq> {
    /// Those that are still of interest: preferred ones that have not loaded and, last, the one in
    /// use. What has loaded never goes back to loading, so that all behind it can be dropped.
    inputs: Vec<Input<K, E>>,
    in_use: bool,
}

/// What came of draining an input.
enum Drained {
    Nothing,
    Loaded,
    Ended,
}

impl<K: KeyPart, E: Part + PartialEq> Input<K, E> {
    /// Drains an input that has not loaded into its table.
    fn drain(&mut self, cx: &mut Context<'_>) -> Drained {
        let mut loaded = false;
        let table = &mut self.table;
        let more = take(&mut self.changes, cx, |change| match change {
            Change::Insert(key, endpoint) => drop(table.insert(key, endpoint)),
            Change::Remove(key) => drop(table.remove(&key)),
            Change::Synced => loaded = true,
        });
        match (loaded, more) {
            // If it has ended, too, that is seen when it is in use.
            (true, _) => Drained::Loaded,
            (false, true) => Drained::Nothing,
            (false, false) => Drained::Ended,
        }
    }

    /// Passes on what the input in use has; `false` when it has ended.
    fn pass_on(&mut self, cx: &mut Context<'_>, out: &mut Publisher<K, E>) -> bool {
        let mut batch = Vec::new();
        let more = take(&mut self.changes, cx, |change| match change {
            Change::Insert(key, endpoint) => batch.push(Update::Insert(key, endpoint)),
            Change::Remove(key) => batch.push(Update::Remove(key)),
            Change::Synced => {}
        });
        out.apply(batch, None);
        more
    }
}

impl<K: KeyPart, E: Part + PartialEq> Derive<K, E> for FirstLoaded<K, E> {
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Publisher<K, E>) -> bool {
        let mut place = 0;
        while place < self.inputs.len() {
            if self.in_use && place + 1 == self.inputs.len() {
                return self.inputs[place].pass_on(cx, out);
            }
            match self.inputs[place].drain(cx) {
                Drained::Nothing => place += 1,
                Drained::Ended => {
                    self.inputs.remove(place);
                }
                Drained::Loaded => {
                    self.inputs.truncate(place + 1);
                    self.in_use = true;
                    out.replace(std::mem::take(&mut self.inputs[place].table), None);
                }
            }
        }
        !self.inputs.is_empty()
    }
}

fn first_loaded(inputs: &[Status]) -> Status {
    let open = || inputs.iter().filter(|status| !matches!(status.state, State::Closed));
    let preferred = inputs.iter().find(|status| status.loaded).or_else(|| open().next());
    preferred.or(inputs.first()).cloned().unwrap_or_else(Status::of_nothing)
}

/// The first of several streams that has loaded; see the [table](super).
///
/// A preferred stream that loads later takes over, in one batch. Once loaded, a stream stays in use
/// even when it is stale: no fault empties or swaps the set. It ends when the stream in use ends, or
/// when all have ended without loading.
pub fn failover_changes<K: KeyPart, E: Part + PartialEq>(
    inputs: impl IntoIterator<Item = Changes<K, E>>,
) -> Changes<K, E> {
    let inputs: Vec<_> =
        inputs.into_iter().map(|changes| Input { changes, table: HashMap::new() }).collect();
    let statuses = inputs.iter().map(|input| input.changes.status()).collect();
    Changes::derived(Box::new(FirstLoaded { inputs, in_use: false }), statuses, first_loaded)
}

/// See [`failover`].
pub struct Failover<E: PartialEq>(Vec<DynSource<E>>);

/// For each service, the first of several sources that has loaded it; see [`failover_changes`].
pub fn failover<E: PartialEq>(
    sources: impl IntoIterator<Item = Arc<dyn Source<E>>>,
) -> Failover<E> {
    Failover(sources.into_iter().collect())
}

impl<E: Part + PartialEq> Source<E> for Failover<E> {
    fn watch(&self, service: &ServiceName) -> InstanceChanges<E> {
        failover_changes(self.0.iter().map(|source| source.watch(service)))
    }

    fn watch_all(&self) -> InstanceChanges<E> {
        failover_changes(self.0.iter().map(Source::watch_all))
    }
}

impl<E: PartialEq> fmt::Debug for Failover<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover").field("sources", &self.0.len()).finish()
    }
}
