//! The reading side: a stream of what this reader is owed.

use std::fmt;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::{FusedStream, Stream};

use super::publisher::Publisher;
use super::shared::{Shared, Told};
use crate::{Change, Status, StatusReader};

/// What a derived stream does when polled: take what its inputs have and tell `out`.
pub(crate) trait Derive<K: Hash + Eq + Clone, E: PartialEq>: Send {
    /// Drains the inputs until each is `Pending` (with the waker registered) or has ended; `false`
    /// when no more will ever come.
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Publisher<K, E>) -> bool;
}

struct Derived<K: Hash + Eq + Clone, E: PartialEq> {
    from: Box<dyn Derive<K, E>>,
    out: Option<Publisher<K, E>>,
    own: Reading<K, E>,
}

/// A place among the readers of a publisher.
struct Reading<K: Hash + Eq + Clone, E: PartialEq> {
    shared: Arc<Shared<K, E>>,
    id: usize,
}

impl<K: Hash + Eq + Clone, E: PartialEq> Reading<K, E> {
    fn poll(&self, cx: &Context<'_>) -> Told<K, E> {
        self.shared.lock().next(self.id, cx.waker())
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Drop for Reading<K, E> {
    fn drop(&mut self) {
        if self.shared.lock().drop_reader(self.id) {
            // The permit is kept for a publisher that asks later.
            self.shared.unused.notify_one();
        }
    }
}

enum Inner<K: Hash + Eq + Clone, E: PartialEq> {
    Reading(Reading<K, E>),
    Derived(Box<Derived<K, E>>),
    Ended,
}

/// A reader's stream of [`Change`]s, with the [status](Self::status) of the source beside it.
///
/// Keeps the [laws](Change). Dropping it ends the reader's part; dropping the last reader of a watch
/// stops the watch. Polling is cancel safe.
#[must_use = "a stream does nothing unless polled"]
pub struct Changes<K: Hash + Eq + Clone, E: PartialEq> {
    inner: Inner<K, E>,
    status: StatusReader,
}

impl<K: Hash + Eq + Clone, E: PartialEq> Changes<K, E> {
    pub(super) fn reading(shared: Arc<Shared<K, E>>, id: usize) -> Self {
        let status = StatusReader::one(shared.status.subscribe());
        Self { inner: Inner::Reading(Reading { shared, id }), status }
    }

    /// A stream that is computed from other streams, without a task: the inputs are drained when it
    /// is polled, into a publisher of its own that has this one reader.
    pub(crate) fn derived(
        from: Box<dyn Derive<K, E>>,
        inputs: Vec<StatusReader>,
        combine: fn(&[Status]) -> Status,
    ) -> Self {
        let out = Publisher::new();
        let Self { inner, .. } = out.subscribe();
        let Inner::Reading(own) = inner else { return Self::ended(out.status()) };
        let status = StatusReader::derived(inputs, own.shared.status.subscribe(), combine);
        Self { inner: Inner::Derived(Box::new(Derived { from, out: Some(out), own })), status }
    }

    fn ended(status: StatusReader) -> Self {
        Self { inner: Inner::Ended, status }
    }

    /// The status of the source, to read and to await.
    pub fn status(&self) -> StatusReader {
        self.status.clone()
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Unpin for Changes<K, E> {}

impl<K: Hash + Eq + Clone, E: PartialEq> Stream for Changes<K, E> {
    type Item = Change<K, Arc<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Told<K, E> {
        let told = match &mut self.inner {
            Inner::Reading(reading) => reading.poll(cx),
            Inner::Derived(derived) => derived.poll(cx),
            Inner::Ended => Poll::Ready(None),
        };
        if let Poll::Ready(None) = told {
            self.inner = Inner::Ended;
        }
        told
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> Derived<K, E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Told<K, E> {
        // The inputs coalesce by themselves: they are drained only when nothing is left to tell.
        // What the draining tells `out` is for this very poll: nobody need be woken for it.
        let told = self.own.poll(&Context::from_waker(Waker::noop()));
        let Some(out) = self.out.as_mut().filter(|_| told.is_pending()) else { return told };
        if !self.from.drain(cx, out)
            && let Some(out) = self.out.take()
        {
            out.close();
        }
        self.own.poll(cx)
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> FusedStream for Changes<K, E> {
    fn is_terminated(&self) -> bool {
        matches!(self.inner, Inner::Ended)
    }
}

impl<K: Hash + Eq + Clone, E: PartialEq> fmt::Debug for Changes<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("status", &self.status.get()).finish_non_exhaustive()
    }
}
