//! In place of the library's module of this name: every step that threads can see is one at which the
//! scheduler may let another thread run.

use std::sync::Arc;

pub(crate) use shuttle::sync::atomic;

fn step() {
    shuttle::thread::yield_now();
}

pub(crate) struct ArcSwap<T>(arc_swap::ArcSwap<T>);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<T>> {
        step();
        self.0.load()
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        step();
        self.0.load_full()
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        step();
        self.0.store(value);
        step();
    }
}

pub(crate) struct Notify(tokio::sync::Notify);

impl Notify {
    pub(crate) fn new() -> Self {
        Self(tokio::sync::Notify::new())
    }

    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        step();
        self.0.notified()
    }

    pub(crate) fn notify_waiters(&self) {
        step();
        self.0.notify_waiters();
    }
}
