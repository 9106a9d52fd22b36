//! Futures that are polled by hand, and the changes that one of them takes.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use discovery_core::Change;
use futures_core::Stream;

use crate::world::Value;

/// The changes that the driver has yet to take.
#[derive(Clone, Default)]
pub struct Queue(pub Arc<Mutex<Queued>>);

#[derive(Default)]
pub struct Queued {
    pub waiting: VecDeque<Change<u32, Arc<Value>>>,
    pub taken: Vec<Change<u32, Arc<Value>>>,
    pub ended: bool,
    waker: Option<Waker>,
}

impl Queue {
    pub fn push(&self, change: Option<Change<u32, Arc<Value>>>) {
        let waker = {
            let mut queued = self.0.lock().unwrap();
            match change {
                Some(change) => queued.waiting.push_back(change),
                None => queued.ended = true,
            }
            queued.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Stream for Queue {
    type Item = Change<u32, Arc<Value>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queued = self.0.lock().unwrap();
        if let Some(change) = queued.waiting.pop_front() {
            queued.taken.push(change.clone());
            return Poll::Ready(Some(change));
        }
        queued.waker = Some(cx.waker().clone());
        if queued.ended { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// A future, and whether it was woken since it was polled.
pub struct Woken<F> {
    future: Pin<Box<F>>,
    flag: Arc<Flag>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<F: Future> Woken<F> {
    pub fn new(future: F) -> Self {
        Self { future: Box::pin(future), flag: Arc::new(Flag(AtomicBool::new(true))) }
    }

    pub fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::Relaxed)
    }

    pub fn poll(&mut self) -> Poll<F::Output> {
        self.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.flag.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}
