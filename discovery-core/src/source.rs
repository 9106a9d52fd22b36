//! What a backend offers to those who look for services.

use std::sync::Arc;

use crate::{Changes, Instance, InstanceKey, ServiceName};

/// A stream of changes to the instances of one service or of many.
pub type InstanceChanges<E = Instance> = Changes<InstanceKey, E>;

/// Discovers: turns a service name into a stream of changes.
///
/// Object safe, so that a program can choose its backend when it runs (`Arc<dyn Source>`). Written
/// with a [`Publisher`](crate::Publisher), a source keeps the [laws](crate::Change) without further
/// ado. `E` is what it knows of an endpoint, usually an [`Instance`].
///
/// Asking never fails and never waits: trouble is told by the status beside the stream.
pub trait Source<E: PartialEq = Instance>: Send + Sync {
    /// The instances of one service. Readers of the same service share one watch where the backend
    /// can do that.
    fn watch(&self, service: &ServiceName) -> InstanceChanges<E>;

    /// The instances of all services, in one watch.
    fn watch_all(&self) -> InstanceChanges<E>;
}

impl<E: PartialEq, S: Source<E> + ?Sized> Source<E> for Arc<S> {
    fn watch(&self, service: &ServiceName) -> InstanceChanges<E> {
        (**self).watch(service)
    }

    fn watch_all(&self) -> InstanceChanges<E> {
        (**self).watch_all()
    }
}

impl<E: PartialEq, S: Source<E> + ?Sized> Source<E> for Box<S> {
    fn watch(&self, service: &ServiceName) -> InstanceChanges<E> {
        (**self).watch(service)
    }

    fn watch_all(&self) -> InstanceChanges<E> {
        (**self).watch_all()
    }
}

impl<E: PartialEq, S: Source<E> + ?Sized> Source<E> for &S {
    fn watch(&self, service: &ServiceName) -> InstanceChanges<E> {
        (**self).watch(service)
    }

    fn watch_all(&self) -> InstanceChanges<E> {
        (**self).watch_all()
    }
}
