//! One writer and many readers, each on a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use discovery_core::combine::{failover_changes, merge_changes};
use discovery_core::{Change, Changes, Publisher, Subscriber, Update};
use futures::executor::block_on;
use futures::{FutureExt as _, StreamExt as _};

/// Pairs of keys; both of a pair always have the same value.
const PAIRS: u32 = 8;
const ROUNDS: u32 = 20_000;

fn write(publisher: &mut Publisher<u32, u32>, round: u32) {
    let pair = round % PAIRS * 2;
    if round.is_multiple_of(97) {
        let all = (0..PAIRS * 2).map(|key| (key, round));
        publisher.replace(all, Some(round.into()));
    } else if round.is_multiple_of(11) {
        publisher.apply([Update::<_, u32>::Remove(pair), Update::Remove(pair + 1)], None);
    } else {
        publisher.apply([Update::Insert(pair, round), Update::Insert(pair + 1, round)], None);
    }
}

/// Reads to the end, checking at each `Synced` that no pair is torn and nothing is told in vain.
fn read(changes: Changes<u32, u32>) -> BTreeMap<u32, u32> {
    let mut changes = changes;
    let mut set: BTreeMap<u32, Arc<u32>> = BTreeMap::new();
    while let Some(change) = block_on(changes.next()) {
        match change {
            Change::Insert(key, value) => {
                assert_ne!(set.get(&key), Some(&value), "law 2");
                set.insert(key, value);
            }
            Change::Remove(key) => assert!(set.remove(&key).is_some(), "law 3"),
            Change::Synced => {
                for pair in 0..PAIRS {
                    assert_eq!(set.get(&(pair * 2)), set.get(&(pair * 2 + 1)), "law 5: {set:?}");
                }
            }
            _ => unreachable!(),
        }
    }
    set.into_iter().map(|(key, value)| (key, *value)).collect()
}

#[test]
fn readers_on_threads_see_whole_batches_and_end_with_the_same_set() {
    let mut publisher = Publisher::new();
    publisher.fresh();
    let subscriber = publisher.subscriber();
    let stop = Arc::new(AtomicBool::new(false));
    // Readers that come and go, half-way.
    let passers_by = thread::spawn({
        let (subscriber, stop) = (subscriber.clone(), stop.clone());
        move || {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                let Some(mut changes) = subscriber.subscribe() else { break };
                for _ in 0..rounds % 7 {
                    let _ = block_on(changes.next());
                }
                rounds += 1;
            }
        }
    });
    let plain = [publisher.subscribe(), publisher.subscribe()];
    let mapped = publisher.subscribe().map_endpoints(|_, value| *value);
    let merged = merge_changes([publisher.subscribe().filter_endpoints(|_, _| true)]);
    let never = Publisher::new();
    let failover = failover_changes([never.subscribe(), publisher.subscribe()]);
    let readers: Vec<_> = plain
        .into_iter()
        .chain([mapped, merged, failover])
        .map(|changes| thread::spawn(move || read(changes)))
        .collect();
    for round in 0..ROUNDS {
        write(&mut publisher, round);
        if round.is_multiple_of(64) {
            thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    // It may be waiting for a change.
    publisher.apply([Update::Insert(0, ROUNDS), Update::Insert(1, ROUNDS)], None);
    let last: BTreeMap<_, _> = publisher.snapshot().into_iter().map(|(k, v)| (k, *v)).collect();
    publisher.close();
    passers_by.join().unwrap();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), last);
    }
}

/// Nobody gets a reader of a publisher that has finished, and no publisher finishes that has one.
#[test]
fn finishing_races_with_subscribing() {
    fn read(subscriber: &Subscriber<u32, u32>, finished: &AtomicBool) {
        let Some(mut changes) = subscriber.subscribe() else { return };
        // The publisher was not finished: it cannot be before this reader has seen a change.
        while changes.next().now_or_never().is_none() {
            assert!(!finished.load(Ordering::SeqCst), "a reader of a finished publisher");
            thread::yield_now();
        }
    }
    for _ in 0..1000 {
        let mut publisher = Publisher::<u32, u32>::new();
        let subscriber = publisher.subscriber();
        let finished = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let finished = finished.clone();
            move || read(&subscriber, &finished)
        });
        while let Err(still) = publisher.finish_if_unused() {
            publisher = still;
            publisher.fresh();
        }
        finished.store(true, Ordering::SeqCst);
        reader.join().unwrap();
    }
}
