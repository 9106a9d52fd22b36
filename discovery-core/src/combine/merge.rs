//! The union of several sets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::Context;

use super::{DynSource, KeyPart, Part, take};
use crate::publish::Derive;
use crate::{
    Change, Changes, InstanceChanges, Publisher, ServiceName, Source, SourceError, State, Status,
    Update,
};

struct Input<K: KeyPart, E: Part + PartialEq> {
    /// `None` once it has ended; what it had stays.
    changes: Option<Changes<K, E>>,
    table: HashMap<K, Arc<E>>,
}

struct Merge<K: KeyPart, E: Part + PartialEq> {
    inputs: Vec<Input<K, E>>,
}

impl<K: KeyPart, E: Part + PartialEq> Derive<K, E> for Merge<K, E> {
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Publisher<K, E>) -> bool {
        let mut touched = Vec::new();
        let mut synced = false;
        for input in &mut self.inputs {
            let Some(changes) = &mut input.changes else { continue };
            let table = &mut input.table;
            let more = take(changes, cx, |change| match change {
                Change::Insert(key, endpoint) => {
                    touched.push(key.clone());
                    table.insert(key, endpoint);
                }
                Change::Remove(key) => {
                    table.remove(&key);
                    touched.push(key);
                }
                Change::Synced => synced = true,
            });
            if !more {
                input.changes = None;
            }
        }
        let batch = touched.into_iter().map(|key| {
            match self.inputs.iter().find_map(|input| input.table.get(&key)) {
                Some(endpoint) => Update::Insert(key, endpoint.clone()),
                None => Update::Remove(key),
            }
        });
        out.apply(batch, None);
        if synced {
            out.fresh();
        }
        self.inputs.iter().any(|input| input.changes.is_some())
    }
}

fn combined(inputs: &[Status]) -> Status {
    let open = || inputs.iter().filter(|status| !matches!(status.state, State::Closed));
    let last_error = || inputs.iter().find_map(|status| status.last_error.clone());
    let Some(first) = open().next() else {
        return inputs.first().cloned().unwrap_or_else(Status::of_nothing);
    };
    let loaded = inputs.iter().any(|status| status.loaded);
    // The oldest trouble is what the union is stale since; without trouble, it is fresh since the
    // last input became so.
    let troubled = open().filter(|status| !status.is_fresh());
    let (state, at) = match troubled.min_by_key(|status| status.since_instant) {
        Some(status) => {
            let error = status.state.error().cloned();
            let state = if loaded {
                State::Stale(error.unwrap_or_else(|| {
                    SourceError::new("one of the merged sources has not loaded yet")
                }))
            } else {
                State::Loading(error)
            };
            (state, status)
        }
        None => (State::Fresh, open().max_by_key(|status| status.since_instant).unwrap_or(first)),
    };
    Status {
        state,
        since: at.since,
        since_instant: at.since_instant,
        loaded,
        last_error: last_error(),
        revision: None,
        endpoints: 0,
    }
}

/// The union of several streams; see the [table](super). It ends when all of them have ended.
pub fn merge_changes<K: KeyPart, E: Part + PartialEq>(
    inputs: impl IntoIterator<Item = Changes<K, E>>,
) -> Changes<K, E> {
    let inputs: Vec<_> = inputs
        .into_iter()
        .map(|changes| Input { changes: Some(changes), table: HashMap::new() })
        .collect();
    let statuses = inputs.iter().flat_map(|i| &i.changes).map(Changes::status).collect();
    Changes::derived(Box::new(Merge { inputs }), statuses, combined)
}

/// See [`merge`].
pub struct Merged<E: PartialEq>(Vec<DynSource<E>>);

/// The union of several sources; see the [table](super).
pub fn merge<E: PartialEq>(sources: impl IntoIterator<Item = Arc<dyn Source<E>>>) -> Merged<E> {
    Merged(sources.into_iter().collect())
}

impl<E: Part + PartialEq> Source<E> for Merged<E> {
    fn watch(&self, service: &ServiceName) -> InstanceChanges<E> {
        merge_changes(self.0.iter().map(|source| source.watch(service)))
    }

    fn watch_all(&self) -> InstanceChanges<E> {
        merge_changes(self.0.iter().map(Source::watch_all))
    }
}

impl<E: PartialEq> fmt::Debug for Merged<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merged").field("sources", &self.0.len()).finish()
    }
}
