//! What is made on first use, shared, and dropped when nobody has used it for a time.
//!
//! A call reads a map that never changes: who adds to it or drops from it puts a new map in its place.
//! So a look-up takes no lock, whatever goes on elsewhere, and is as quick while hundreds of others are
//! made. First uses wait for each other, which takes some microseconds: making does not connect.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::usage::{InUse, Usage};

/// Values by name.
pub(super) struct Cache<T> {
    entries: ArcSwap<Entries<T>>,
    /// Held by who changes the map.
    change: Mutex<()>,
    max: usize,
}

type Entries<T> = HashMap<Arc<str>, Entry<T>>;

#[derive(Clone)]
struct Entry<T> {
    value: T,
    usage: Arc<Usage>,
}

/// There are as many as there may be, and all are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) limit: usize,
}

impl<T: Clone> Cache<T> {
    /// With up to `max` values; 0 is taken as 1.
    pub(super) fn new(max: usize) -> Self {
        let entries = ArcSwap::from_pointee(HashMap::new());
        Self { entries, change: Mutex::new(()), max: max.max(1) }
    }

    /// The value, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<(T, InUse)> {
        let entries = self.entries.load();
        let entry = entries.get(name)?;
        let in_use = entry.usage.enter()?;
        Some((entry.value.clone(), in_use))
    }

    /// The value, which is made if it is not there. When there are too many, the one that has not been
    /// used for longest goes.
    pub(super) fn get_or_make(
        &self,
        name: &str,
        make: impl FnOnce() -> T,
    ) -> Result<(T, InUse), Full> {
        let change = self.change();
        if let Some(found) = self.get(name) {
            return Ok(found);
        }
        let now = Instant::now();
        let mut entries = Entries::clone(&self.entries.load());
        let value = make();
        let full = Full { limit: self.max };
        let gone = if entries.len() < self.max {
            None
        } else {
            Some(oldest(&mut entries, now).ok_or(full)?)
        };
        let usage = Arc::new(Usage::new(now));
        let in_use = usage.enter().ok_or(full)?;
        entries.insert(name.into(), Entry { value: value.clone(), usage });
        let before = self.entries.swap(Arc::new(entries));
        // What is dropped may be much, and nobody is to wait for that.
        drop(change);
        drop((before, gone));
        Ok((value, in_use))
    }

    /// Drops what nobody has used for so long.
    pub(super) fn sweep(&self, idle: Duration) {
        let change = self.change();
        let now = Instant::now();
        let entries = self.entries.load_full();
        let over: Vec<_> =
            entries.iter().filter(|(_, entry)| entry.usage.close_after(idle, now)).collect();
        if over.is_empty() {
            return;
        }
        let mut left = Entries::clone(&entries);
        for (name, _) in over {
            left.remove(name);
        }
        let before = self.entries.swap(Arc::new(left));
        drop(change);
        drop((before, entries));
    }

    /// What there is.
    pub(super) fn values(&self) -> Vec<(Arc<str>, T)> {
        let entries = self.entries.load();
        entries.iter().map(|(name, entry)| (name.clone(), entry.value.clone())).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.load().len()
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        // There is nothing that a panic could leave half done.
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the one out that has not been used for longest, of those that nobody uses.
fn oldest<T>(entries: &mut Entries<T>, now: Instant) -> Option<Entry<T>> {
    let mut unused: Vec<_> = entries
        .iter()
        .filter_map(|(name, entry)| Some((entry.usage.unused(now)?, name, &entry.usage)))
        .collect();
    unused.sort_unstable_by_key(|(unused, ..)| Reverse(*unused));
    // Somebody may come in while this looks.
    let close = |(_, _, usage): &(_, _, &Arc<Usage>)| usage.close_after(Duration::ZERO, now);
    let (_, name, _) = unused.into_iter().find(close)?;
    let name = name.clone();
    entries.remove(&name)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread::ScopedJoinHandle;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_is_made_once_is_there_until_nobody_has_used_it_for_a_time() {
        let cache = Cache::new(10);
        assert!(cache.get("a").is_none());
        let (_, in_use) = cache.get_or_make("a", || 1).unwrap();
        assert_eq!(cache.get_or_make("a", || 2).unwrap().0, 1);
        tokio::time::advance(10 * IDLE).await;
        cache.sweep(IDLE);
        assert_eq!(cache.get("a").unwrap().0, 1, "it is in use");
        drop(in_use);
        cache.sweep(IDLE);
        assert!(cache.get("a").is_some(), "it was used until now");
        tokio::time::advance(IDLE).await;
        cache.sweep(IDLE);
        assert!(cache.get("a").is_none() && cache.len() == 0);
        assert_eq!(cache.get_or_make("a", || 3).unwrap().0, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn when_it_is_full_the_one_unused_for_longest_goes_and_none_that_is_used() {
        let cache = Cache::new(2);
        let second = Duration::from_secs(1);
        let (_, used) = cache.get_or_make("used", || 0).unwrap();
        tokio::time::advance(second).await;
        drop(cache.get_or_make("old", || 1).unwrap());
        tokio::time::advance(second).await;
        drop(cache.get_or_make("new", || 2).unwrap());
        assert!(cache.get("old").is_none() && cache.get("used").is_some());
        let (_, new) = cache.get("new").unwrap();
        assert_eq!(cache.get_or_make("more", || 3).unwrap_err(), Full { limit: 2 });
        assert_eq!(cache.len(), 2);
        drop(used);
        tokio::time::advance(second).await;
        drop(new);
        drop(cache.get_or_make("more", || 3).unwrap());
        assert!(cache.get("used").is_none(), "it was left before the other one");
        assert!(cache.get("new").is_some());
    }

    #[tokio::test]
    async fn the_value_is_dropped_with_its_entry() {
        let cache = Cache::new(1);
        let value = Arc::new(());
        drop(cache.get_or_make("a", || value.clone()).unwrap());
        assert_eq!(Arc::strong_count(&value), 2);
        cache.sweep(Duration::ZERO);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn none_is_dropped_while_it_is_used_and_there_is_never_another_one_beside_it() {
        let cache = Cache::new(1);
        let latest = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        let begun = std::time::Instant::now();
        let user = || {
            let mut times = 0;
            // Long enough for it to have been dropped, whatever threads do.
            let dropped = || latest.load(Ordering::SeqCst) > 10;
            while times < 20_000 || (!dropped() && begun.elapsed().as_secs() < 20) {
                times += 1;
                let make = || latest.fetch_add(1, Ordering::SeqCst) + 1;
                let (mine, in_use) = cache.get_or_make("a", make).unwrap();
                assert_eq!(latest.load(Ordering::SeqCst), mine);
                std::thread::yield_now();
                assert_eq!(latest.load(Ordering::SeqCst), mine);
                drop(in_use);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    cache.sweep(Duration::ZERO);
                }
            });
            let users: Vec<_> = (0..2).map(|_| scope.spawn(user)).collect();
            let ended: Vec<_> = users.into_iter().map(ScopedJoinHandle::join).collect();
            over.store(true, Ordering::SeqCst);
            assert!(ended.iter().all(Result::is_ok));
        });
        assert!(latest.load(Ordering::SeqCst) > 10, "it was dropped and made anew");
    }
}
