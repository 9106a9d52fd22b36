//! What a publisher promises beyond the laws of its streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use discovery_core::{Change, Changes, Publisher, SourceError, State, Update};
use futures::stream::FusedStream as _;
use futures::{FutureExt as _, StreamExt as _};

type Text = Change<&'static str, Arc<u32>>;

fn poll(changes: &mut Changes<&'static str, u32>) -> Poll<Option<Text>> {
    changes.poll_next_unpin(&mut Context::from_waker(Waker::noop()))
}

/// All that is told until `Pending` or the end.
fn drain(changes: &mut Changes<&'static str, u32>) -> Vec<Text> {
    std::iter::from_fn(|| match poll(changes) {
        Poll::Ready(told) => told,
        Poll::Pending => None,
    })
    .collect()
}

fn set(publisher: &Publisher<&'static str, u32>) -> BTreeMap<&'static str, u32> {
    publisher.snapshot().into_iter().map(|(key, value)| (key, *value)).collect()
}

fn insert(key: &'static str, value: u32) -> Text {
    Change::Insert(key, Arc::new(value))
}

#[test]
fn before_it_has_loaded_there_is_no_synced() {
    let mut publisher = Publisher::new();
    let mut changes = publisher.subscribe();
    assert_eq!(drain(&mut changes), []);
    publisher.apply([Update::Insert("a", 1)], None);
    assert_eq!(drain(&mut changes), [insert("a", 1)]);
    assert!(!publisher.status().get().loaded);
    publisher.fresh();
    assert_eq!(drain(&mut changes), [Change::Synced]);
    publisher.fresh();
    assert_eq!(drain(&mut changes), []);

    let mut empty = Publisher::<&str, u32>::new();
    let mut changes = empty.subscribe();
    empty.replace([("a", 1); 0], None);
    assert_eq!(drain(&mut changes), [Change::Synced]);
}

#[test]
fn a_replacement_that_is_dropped_half_way_changes_nothing() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1), ("b", 2)], Some(7));
    let mut changes = publisher.subscribe();
    drain(&mut changes);
    publisher.trouble(SourceError::new("cut off"));
    let mut replacement = publisher.replacement();
    replacement.insert("a", 9);
    replacement.insert("c", 3);
    assert!(replacement.keep(&"b"));
    drop(replacement);
    assert_eq!(drain(&mut changes), []);
    assert_eq!(set(&publisher), [("a", 1), ("b", 2)].into());
    let status = publisher.status().get();
    assert!(status.is_stale());
    assert_eq!((status.revision, status.endpoints), (Some(7), 2));

    // What the dropped one had marked does not count for the next one.
    publisher.replace([("a", 1)], Some(8));
    assert_eq!(drain(&mut changes), [Change::Remove("b"), Change::Synced]);
    let status = publisher.status().get();
    assert!(status.is_fresh());
    assert_eq!((status.revision, status.endpoints), (Some(8), 1));
}

#[test]
fn readers_see_nothing_of_a_replacement_before_its_commit() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1), ("b", 2)], None);
    let mut changes = publisher.subscribe();
    drain(&mut changes);
    let mut replacement = publisher.replacement();
    replacement.extend([("b", 3), ("c", 4)]);
    assert_eq!(drain(&mut changes), []);
    replacement.commit(None);
    let told = drain(&mut changes);
    assert_eq!(told.len(), 4);
    assert_eq!(told[3], Change::Synced);
    for change in [Change::Remove("a"), insert("b", 3), insert("c", 4)] {
        assert!(told.contains(&change), "{told:?}");
    }
}

#[test]
fn an_outdated_replacement_harms_nobody() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1), ("b", 2)], None);
    let mut first = publisher.replacement();
    let mut second = publisher.replacement();
    second.insert("a", 1);
    assert!(second.keep(&"b"));
    first.insert("a", 1);
    assert!(first.keep(&"b"));
    first.insert("c", 9);
    second.commit(None);
    assert_eq!(set(&publisher), [("a", 1), ("b", 2)].into());
    first.commit(None);
    assert_eq!(set(&publisher), [("a", 1), ("b", 2)].into());
}

#[test]
fn of_a_key_given_twice_the_later_value_counts() {
    let mut publisher = Publisher::new();
    publisher.replace([("new", 1), ("new", 2)], None);
    assert_eq!(set(&publisher), [("new", 2)].into());
    // Also when the earlier or the later one is what was there.
    publisher.replace([("new", 2), ("new", 3)], None);
    assert_eq!(set(&publisher), [("new", 3)].into());
    publisher.replace([("new", 4), ("new", 3)], None);
    assert_eq!(set(&publisher), [("new", 3)].into());
    publisher.replace([("new", 3), ("new", 4), ("new", 3)], None);
    assert_eq!(set(&publisher), [("new", 3)].into());
    publisher.apply([Update::Insert("new", 5), Update::Insert("new", 6)], None);
    assert_eq!(set(&publisher), [("new", 6)].into());
    let mut changes = publisher.subscribe();
    drain(&mut changes);
    publisher.apply([Update::Remove("new"), Update::Insert("new", 6)], None);
    assert_eq!(drain(&mut changes), []);
    publisher.apply([Update::Insert("new", 7), Update::Remove("new")], None);
    assert_eq!(drain(&mut changes), [Change::Remove("new"), Change::Synced]);
}

#[test]
fn keep_takes_the_value_that_is_there() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1), ("b", 2), ("c", 3)], None);
    let mut slow = publisher.subscribe();
    drain(&mut slow);
    publisher.apply([Update::<_, u32>::Remove("c")], None);
    let mut replacement = publisher.replacement();
    assert!(replacement.keep(&"a"));
    assert!(!replacement.keep(&"never"));
    // Gone, though a reader is still owed the news.
    assert!(!replacement.keep(&"c"));
    replacement.commit(None);
    assert_eq!(set(&publisher), [("a", 1)].into());
}

#[test]
fn dropped_without_close_it_leaves_readers_stale_and_not_ended() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1)], None);
    let mut changes = publisher.subscribe();
    let subscriber = publisher.subscriber();
    drop(publisher);
    assert_eq!(drain(&mut changes), [insert("a", 1), Change::Synced]);
    assert_eq!(poll(&mut changes), Poll::Pending);
    assert!(!changes.is_terminated());
    let status = changes.status().get();
    assert!(status.is_stale() && status.loaded, "{status:?}");
    assert!(status.state.error().unwrap().to_string().contains("without being closed"));
    assert!(subscriber.subscribe().is_none());

    let never = Publisher::<&str, u32>::new();
    let mut changes = never.subscribe();
    drop(never);
    assert_eq!(poll(&mut changes), Poll::Pending);
    assert!(matches!(changes.status().get().state, State::Loading(Some(_))));
}

#[test]
fn a_panic_of_the_source_is_no_end_either() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1)], None);
    let mut changes = publisher.subscribe();
    let source = std::thread::spawn(move || {
        publisher.apply(
            [1, 2].map(|n| if n == 2 { panic!("bug") } else { Update::Insert("b", n) }),
            None,
        );
    });
    assert!(source.join().is_err());
    assert_eq!(drain(&mut changes), [insert("a", 1), Change::Synced]);
    assert!(changes.status().get().is_stale());
}

#[test]
fn closed_it_tells_everything_first_and_stays_ended() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1)], None);
    let mut changes = publisher.subscribe();
    let mut untold = publisher.subscribe();
    drain(&mut changes);
    publisher.apply([Update::Insert("b", 2), Update::Remove("a")], None);
    publisher.close();
    let told = drain(&mut changes);
    assert_eq!(told.len(), 3);
    assert_eq!(told[2], Change::Synced);
    assert_eq!(drain(&mut untold), [insert("b", 2), Change::Synced]);
    for changes in [&mut changes, &mut untold] {
        for _ in 0..3 {
            assert_eq!(poll(changes), Poll::Ready(None));
        }
        assert!(changes.is_terminated());
        assert!(matches!(changes.status().get().state, State::Closed));
    }
}

#[test]
fn frozen_it_stays_as_it_was() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1)], Some(3));
    let mut changes = publisher.subscribe();
    let subscriber = publisher.subscriber();
    publisher.freeze();
    assert_eq!(drain(&mut changes), [insert("a", 1), Change::Synced]);
    assert_eq!(poll(&mut changes), Poll::Pending);
    let status = changes.status().get();
    assert!(status.is_fresh());
    assert_eq!(status.revision, Some(3));
    assert!(subscriber.subscribe().is_none());
}

#[test]
fn equal_values_are_told_once_and_the_first_arc_stays() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1)], None);
    let first = publisher.get(&"a").unwrap();
    publisher.apply([Update::Insert("a", 1)], None);
    publisher.replace([("a", 1)], None);
    assert!(Arc::ptr_eq(&first, &publisher.get(&"a").unwrap()));
}

#[test]
fn unused_waits_for_the_last_reader() {
    let mut publisher = Publisher::<&str, u32>::new();
    publisher.fresh();
    assert!(publisher.unused().now_or_never().is_some(), "never had one");
    let (first, second) = (publisher.subscribe(), publisher.subscribe());
    assert!(publisher.unused().now_or_never().is_none());
    let waker = futures::task::noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut unused = Box::pin(publisher.unused());
    assert!(unused.poll_unpin(&mut cx).is_pending());
    drop(first);
    assert!(unused.poll_unpin(&mut cx).is_pending());
    drop(second);
    assert!(unused.poll_unpin(&mut cx).is_ready());
    drop(unused);
    // The last reader went and another one came before anybody asked.
    drop(publisher.subscribe());
    let third = publisher.subscribe();
    assert!(publisher.unused().now_or_never().is_none());
    drop(third);
    assert!(publisher.unused().now_or_never().is_some());
}

#[test]
fn it_finishes_only_without_readers_and_then_there_are_no_more() {
    let mut publisher = Publisher::<&str, u32>::new();
    publisher.fresh();
    let subscriber = publisher.subscriber();
    let publisher = {
        let reader = subscriber.subscribe().unwrap();
        let publisher = publisher.finish_if_unused().unwrap_err();
        drop(reader);
        publisher
    };
    assert!(publisher.finish_if_unused().is_ok());
    assert!(subscriber.subscribe().is_none());
}

#[test]
fn a_change_in_between_outdates_a_replacement() {
    let mut publisher = Publisher::new();
    publisher.replace([("a", 1), ("b", 2)], None);
    let mut replacement = publisher.replacement();
    replacement.extend([("a", 1), ("b", 2)]);
    publisher.apply([Update::<_, i32>::Remove("a")], None);
    assert!(!replacement.commit(None), "it said that \"a\" is unchanged");
    assert_eq!(publisher.len(), 1);
}
