//! A publisher with readers that wait, and what is done to it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use discovery_benches::instances;
use discovery_core::{Change, Instance, InstanceChanges, InstanceKey, Publisher, Update};
use futures::StreamExt as _;

use crate::feed::{Feed, Keys};

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) struct Subject {
    pub(crate) publisher: Publisher<InstanceKey, Instance>,
    readers: Vec<InstanceChanges>,
    wakes: Arc<Wakes>,
    waker: Waker,
    feed: Feed,
}

impl Subject {
    /// A publisher that has not loaded, and its readers.
    pub(crate) fn new(readers: usize) -> Self {
        let publisher = Publisher::new();
        let readers = (0..readers).map(|_| publisher.subscribe()).collect();
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(wakes.clone());
        Self { publisher, readers, wakes, waker, feed: Feed::new(0) }
    }

    /// A publisher of so many instances; all its readers know them and wait for a change.
    pub(crate) fn with(count: usize, readers: usize) -> Self {
        let mut subject = Self::new(readers);
        subject.publisher.replace(instances(count), Some(1));
        assert_eq!(subject.drain(), count * readers);
        subject.feed = Feed::new(count);
        subject
    }

    /// All readers take what they are owed and wait for more; says how many changes it was.
    pub(crate) fn drain(&mut self) -> usize {
        let mut cx = Context::from_waker(&self.waker);
        let mut told = 0;
        for reader in &mut self.readers {
            let mut synced = false;
            while let Poll::Ready(change) = reader.poll_next_unpin(&mut cx) {
                synced = matches!(change, Some(Change::Synced));
                told += usize::from(!synced);
                black_box(change);
            }
            assert!(synced, "a reader that drained saw `Synced` last");
        }
        told
    }

    /// Makes so many changes, one at a time, and returns how long it took until all readers had them.
    pub(crate) fn change(&mut self, keys: Keys, times: u64) -> Duration {
        let updates = (0..times).map(|_| {
            let (key, value) = self.feed.next(keys);
            Update::Insert(key, value)
        });
        let updates: Vec<_> = updates.collect();
        let expected = updates.len() * self.readers.len();
        let woken = self.wakes.0.load(Ordering::Relaxed);
        let mut told = 0;
        let start = Instant::now();
        for (revision, update) in (2..).zip(updates) {
            self.publisher.apply([update], Some(revision));
            told += self.drain();
        }
        let taken = start.elapsed();
        let woken = self.wakes.0.load(Ordering::Relaxed) - woken;
        assert_eq!((woken, told), (expected, expected), "each change wakes and reaches each");
        taken
    }
}
