//! Each endpoint mapped, or only those that are wanted.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Context;

use super::{KeyPart, Part, take};
use crate::publish::Derive;
use crate::{
    Change, Changes, InstanceChanges, InstanceKey, Publisher, ServiceName, Source, Status, Update,
};

struct FilterMap<K: KeyPart, E: Part + PartialEq, F> {
    input: Changes<K, E>,
    f: F,
}

impl<K, E, O, F> Derive<K, O> for FilterMap<K, E, F>
where
    K: KeyPart,
    E: Part + PartialEq,
    O: Part + PartialEq,
    F: FnMut(&K, &Arc<E>) -> Option<Arc<O>> + Send,
{
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Publisher<K, O>) -> bool {
        let mut batch = Vec::new();
        let mut synced = false;
        let more = take(&mut self.input, cx, |change| match change {
            Change::Insert(key, endpoint) => batch.push(match (self.f)(&key, &endpoint) {
                Some(endpoint) => Update::Insert(key, endpoint),
                None => Update::Remove(key),
            }),
            Change::Remove(key) => batch.push(Update::Remove(key)),
            Change::Synced => synced = true,
        });
        out.apply(batch, None);
        if synced {
            out.fresh();
        }
        more
    }
}

pub(super) fn same_as_input(inputs: &[Status]) -> Status {
    inputs.first().cloned().unwrap_or_else(Status::new)
}

impl<K: KeyPart, E: Part + PartialEq> Changes<K, E> {
    fn derive_each<O: Part + PartialEq>(
        self,
        f: impl FnMut(&K, &Arc<E>) -> Option<Arc<O>> + Send + 'static,
    ) -> Changes<K, O> {
        let status = self.status();
        Changes::derived(Box::new(FilterMap { input: self, f }), vec![status], same_as_input)
    }

    /// The same keys, each endpoint mapped by `f`. An update that `f` maps to an equal endpoint is
    /// not told.
    pub fn map_endpoints<O: Part + PartialEq>(
        self,
        mut f: impl FnMut(&K, &E) -> O + Send + 'static,
    ) -> Changes<K, O> {
        self.derive_each(move |key, endpoint| Some(Arc::new(f(key, endpoint))))
    }

    /// Only the endpoints that are `wanted`. One that stops being wanted is removed.
    pub fn filter_endpoints(self, mut wanted: impl FnMut(&K, &E) -> bool + Send + 'static) -> Self {
        self.derive_each(move |key, endpoint| wanted(key, endpoint).then(|| endpoint.clone()))
    }
}

/// See [`map`].
pub struct Mapped<S, F, E> {
    source: S,
    f: Arc<F>,
    from: PhantomData<fn(E)>,
}

/// A source with each endpoint of `source` mapped by `f`.
pub fn map<E, O, S, F>(source: S, f: F) -> Mapped<S, F, E>
where
    S: Source<E>,
    E: PartialEq,
    F: Fn(&InstanceKey, &E) -> O + Part,
{
    Mapped { source, f: Arc::new(f), from: PhantomData }
}

impl<E, O, S, F> Source<O> for Mapped<S, F, E>
where
    S: Source<E>,
    E: Part + PartialEq,
    O: Part + PartialEq,
    F: Fn(&InstanceKey, &E) -> O + Part,
{
    fn watch(&self, service: &ServiceName) -> InstanceChanges<O> {
        let f = self.f.clone();
        self.source.watch(service).map_endpoints(move |key, endpoint| f(key, endpoint))
    }

    fn watch_all(&self) -> InstanceChanges<O> {
        let f = self.f.clone();
        self.source.watch_all().map_endpoints(move |key, endpoint| f(key, endpoint))
    }
}

/// See [`filter`].
pub struct Filtered<S, F> {
    source: S,
    wanted: Arc<F>,
}

/// A source with only those endpoints of `source` that are `wanted`.
pub fn filter<E, S, F>(source: S, wanted: F) -> Filtered<S, F>
where
    S: Source<E>,
    E: PartialEq,
    F: Fn(&InstanceKey, &E) -> bool + Part,
{
    Filtered { source, wanted: Arc::new(wanted) }
}

impl<E, S, F> Source<E> for Filtered<S, F>
where
    S: Source<E>,
    E: Part + PartialEq,
    F: Fn(&InstanceKey, &E) -> bool + Part,
{
    fn watch(&self, service: &ServiceName) -> InstanceChanges<E> {
        let wanted = self.wanted.clone();
        self.source.watch(service).filter_endpoints(move |key, endpoint| wanted(key, endpoint))
    }

    fn watch_all(&self) -> InstanceChanges<E> {
        let wanted = self.wanted.clone();
        self.source.watch_all().filter_endpoints(move |key, endpoint| wanted(key, endpoint))
    }
}

impl<S: fmt::Debug, F, E> fmt::Debug for Mapped<S, F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Filtered<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filtered").field("source", &self.source).finish_non_exhaustive()
    }
}
