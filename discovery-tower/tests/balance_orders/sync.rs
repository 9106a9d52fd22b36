//! In place of the library's module of this name: every step that threads can see is one at which the
//! scheduler may let another thread run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use shuttle::sync::atomic;

/// A place where another thread may run. Unlike a yield it does not ask for that.
#[derive(Default)]
pub(crate) struct Step(atomic::AtomicBool);

impl Step {
    pub(crate) fn take(&self) {
        self.0.load(Ordering::SeqCst);
    }
}

pub(crate) struct ArcSwap<T>(arc_swap::ArcSwap<T>, Step);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value), Step::default())
    }

    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.1.take();
        self.0.load()
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.1.take();
        self.0.load_full()
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        self.1.take();
        self.0.store(value);
    }
}

pub(crate) struct Notify(tokio::sync::Notify, Step);

impl Notify {
    pub(crate) fn new() -> Self {
        Self(tokio::sync::Notify::new(), Step::default())
    }

    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.1.take();
        self.0.notified()
    }

    pub(crate) fn notify_waiters(&self) {
        self.1.take();
        self.0.notify_waiters();
    }
}

pub(crate) struct AtomicWaker(futures_util::task::AtomicWaker, Step);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(futures_util::task::AtomicWaker::new(), Step::default())
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.1.take();
        self.0.register(waker);
    }

    pub(crate) fn wake(&self) {
        self.1.take();
        self.0.wake();
    }
}
