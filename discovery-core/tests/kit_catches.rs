//! The test kit itself: a source that breaks a law is caught, and the law is named.
#![cfg(feature = "testkit")]

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use discovery_core::testkit::{self, Checked, Faults, Subject};
use discovery_core::{Change, Changes, Publisher, SourceError, StatusReader, Update};
use futures::{Stream, StreamExt as _};

/// How a source misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// Not at all.
    Well,
    LeavesOut,
    GoesBack,
    InsertsTwice,
    RemovesTwice,
    EndsOnFault,
    EmptiesOnFault,
    HidesFault,
    NeverEnds,
    NotFused,
    TellsHalf,
    Blocks,
    WakesNobody,
    KeepsFirstWaker,
    WorksOn,
    ForgetsSynced,
}

type Item = Change<u16, Arc<u16>>;

/// A reader that bends what a good one tells.
struct Bent {
    how: How,
    good: Changes<u16, u16>,
    failed: Rc<Cell<bool>>,
    /// Readers that have not drained.
    behind: Rc<Cell<usize>>,
    set: BTreeMap<u16, Arc<u16>>,
    next: VecDeque<Poll<Option<Item>>>,
    first_waker: Option<Waker>,
    synced: usize,
    ended: usize,
}

impl Bent {
    fn bend(&mut self, told: Poll<Option<Item>>) {
        use Change::{Insert, Remove, Synced};
        use Poll::{Pending, Ready};
        match &told {
            Ready(Some(Insert(key, value))) => drop(self.set.insert(*key, value.clone())),
            Ready(Some(Remove(key))) => drop(self.set.remove(key)),
            Ready(Some(Synced)) => self.synced += 1,
            Ready(None) => self.ended += 1,
            _ => {}
        }
        match (self.how, told) {
            (How::LeavesOut, Ready(Some(Insert(3, _) | Remove(3)))) => {}
            (How::GoesBack, Ready(Some(Synced))) if self.set.contains_key(&4) => {
                let back = [Synced, Remove(4), Synced];
                self.next.extend(back.map(|change| Ready(Some(change))));
            }
            (How::InsertsTwice, Ready(Some(Insert(key, value)))) => {
                self.next.push_back(Ready(Some(Insert(key, value.clone()))));
                self.next.push_back(Ready(Some(Insert(key, value))));
            }
            (How::RemovesTwice, Ready(Some(Remove(key)))) => {
                self.next.push_back(Ready(Some(Remove(key))));
                self.next.push_back(Ready(Some(Remove(key))));
            }
            (How::EndsOnFault, Pending) if self.failed.get() => self.next.push_back(Ready(None)),
            (How::NeverEnds, Ready(None)) => self.next.push_back(Pending),
            (How::NotFused, Ready(None)) if self.ended > 1 => {
                self.next.push_back(Ready(Some(Synced)));
            }
            (How::TellsHalf, Ready(Some(Insert(0, value)))) => {
                self.next.push_back(Ready(Some(Insert(0, value))));
                self.next.push_back(Ready(Some(Synced)));
            }
            (How::ForgetsSynced, Ready(Some(Synced))) if self.synced > 1 => {}
            (_, told) => self.next.push_back(told),
        }
    }
}

impl Stream for Bent {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            if let Some(next) = self.next.pop_front() {
                if next.is_pending() {
                    self.behind.set(0);
                }
                return next;
            }
            let waker = match self.how {
                How::WakesNobody => Waker::noop().clone(),
                How::KeepsFirstWaker => {
                    self.first_waker.get_or_insert_with(|| cx.waker().clone()).clone()
                }
                _ => cx.waker().clone(),
            };
            let told = self.good.poll_next_unpin(&mut Context::from_waker(&waker));
            self.bend(told);
        }
    }
}

struct Source {
    how: How,
    publisher: Option<Publisher<u16, u16>>,
    failed: Rc<Cell<bool>>,
    behind: Rc<Cell<usize>>,
}

impl Source {
    fn new(how: How) -> Self {
        let mut publisher = Publisher::new();
        publisher.fresh();
        Self { how, publisher: Some(publisher), failed: Rc::default(), behind: Rc::default() }
    }
}

impl Subject for Source {
    type Key = u16;
    type Endpoint = u16;
    type Reader = Bent;

    fn key(&self, number: u16) -> u16 {
        number
    }

    fn endpoint(&self, _: u16, version: u16) -> u16 {
        version
    }

    fn open(&mut self) -> Bent {
        Bent {
            how: self.how,
            good: self.publisher.as_ref().unwrap().subscribe(),
            failed: self.failed.clone(),
            behind: self.behind.clone(),
            set: BTreeMap::new(),
            next: VecDeque::new(),
            first_waker: None,
            synced: 0,
            ended: 0,
        }
    }

    fn status(&self, reader: &Bent) -> Option<StatusReader> {
        Some(reader.good.status())
    }

    async fn apply(&mut self, batch: Vec<Update<u16, u16>>) {
        if self.how == How::Blocks && self.behind.get() > 0 {
            std::future::pending::<()>().await;
        }
        self.behind.set(1);
        self.publisher.as_mut().unwrap().apply(batch, None);
    }

    fn settles_within(&self) -> Option<Duration> {
        (self.how == How::Blocks).then_some(Duration::from_secs(1))
    }

    fn faults(&self) -> Faults {
        Faults::Idle
    }

    async fn fail(&mut self) {
        self.failed.set(true);
        if self.how == How::EmptiesOnFault {
            self.publisher.as_mut().unwrap().replace(BTreeMap::<u16, u16>::new(), None);
        }
        if self.how != How::HidesFault {
            self.publisher.as_mut().unwrap().trouble(SourceError::new("cut off"));
        }
    }

    async fn recover(&mut self) {
        self.failed.set(false);
        self.publisher.as_mut().unwrap().fresh();
    }

    fn can_close(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        self.publisher.take().unwrap().close();
    }

    fn is_working(&self) -> Option<bool> {
        let unused = self.publisher.as_ref().is_none_or(Publisher::is_unused);
        Some(!unused || self.how == How::WorksOn)
    }
}

/// What the test panics with; empty if it does not.
fn panic_of(test: impl FnOnce()) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(test)) else { return String::new() };
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "another payload".into())
}

fn run(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future);
}

#[test]
fn a_good_source_passes() {
    run(async {
        testkit::check(Source::new(How::Well)).await;
        testkit::random_history(Source::new(How::Well), 1, 5_000).await;
    });
}

#[test]
fn the_check_names_the_law_that_is_broken() {
    for (how, expected) in [
        (How::LeavesOut, "law 1 "),
        (
            How::GoesBack,
            "law 1 (at Synced a reader has the source's set at one moment) is broken: the set went back",
        ),
        (How::InsertsTwice, "law 2 "),
        (How::RemovesTwice, "law 3 "),
        (How::EndsOnFault, "law 4 "),
        (How::EmptiesOnFault, "law 4 "),
        (
            How::HidesFault,
            "law 4 (only closing ends a stream, for good, and no fault ends it or empties the set) is broken: the status is not stale",
        ),
        (How::NeverEnds, "law 4 "),
        (How::NotFused, "law 4 "),
        (How::TellsHalf, "law 5 "),
        (How::Blocks, "law 6 "),
        (How::WakesNobody, "law 7 "),
        (How::KeepsFirstWaker, "law 7 "),
        (How::WorksOn, "law 7 "),
        (How::ForgetsSynced, "the law of Synced "),
    ] {
        let message = panic_of(|| run(testkit::check(Source::new(how))));
        assert!(message.starts_with(expected), "{how:?}: {message:?}");
    }
}

#[test]
fn the_random_history_catches_them_too_and_says_how_to_repeat_it() {
    for (how, expected) in [
        (How::LeavesOut, "law 1 "),
        (How::InsertsTwice, "law 2 "),
        (How::RemovesTwice, "law 3 "),
        (How::EndsOnFault, "law 4 "),
        (How::EmptiesOnFault, "law 4 "),
        (How::WakesNobody, "law 7 "),
        (How::KeepsFirstWaker, "law 7 "),
        (How::WorksOn, "law 7 "),
        (How::ForgetsSynced, "the law of Synced "),
    ] {
        let history = || panic_of(|| run(testkit::random_history(Source::new(how), 42, 20_000)));
        let message = history();
        assert!(message.starts_with(expected), "{how:?}: {message:?}");
        assert!(message.contains("random history with seed 42, step "), "{message:?}");
        assert_eq!(message, history(), "a seed repeats the history");
    }
}

/// A source that sends every change to every reader: the obvious one, and wrong.
#[derive(Default)]
struct Replaying {
    truth: BTreeMap<u16, u16>,
    readers: Vec<std::rc::Weak<Queue>>,
}

#[derive(Default)]
struct Queue {
    items: std::cell::RefCell<VecDeque<Item>>,
    waker: Cell<Option<Waker>>,
}

struct Replayed(Rc<Queue>);

impl Stream for Replayed {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let next = self.0.items.borrow_mut().pop_front();
        if next.is_none() {
            self.0.waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(next)
    }
}

impl Subject for Replaying {
    type Key = u16;
    type Endpoint = u16;
    type Reader = Replayed;

    fn key(&self, number: u16) -> u16 {
        number
    }

    fn endpoint(&self, _: u16, version: u16) -> u16 {
        version
    }

    fn open(&mut self) -> Replayed {
        let queue = Rc::<Queue>::default();
        let inserts = self.truth.iter().map(|(key, value)| Change::Insert(*key, Arc::new(*value)));
        queue.items.borrow_mut().extend(inserts.chain([Change::Synced]));
        self.readers.push(Rc::downgrade(&queue));
        Replayed(queue)
    }

    async fn apply(&mut self, batch: Vec<Update<u16, u16>>) {
        let mut changes = Vec::new();
        for update in batch {
            match update {
                Update::Insert(key, value) if self.truth.insert(key, value) != Some(value) => {
                    changes.push(Change::Insert(key, Arc::new(value)));
                }
                Update::Remove(key) if self.truth.remove(&key).is_some() => {
                    changes.push(Change::Remove(key));
                }
                _ => {}
            }
        }
        if changes.is_empty() {
            return;
        }
        for reader in self.readers.iter().filter_map(std::rc::Weak::upgrade) {
            let mut items = reader.items.borrow_mut();
            if items.back() == Some(&Change::Synced) {
                items.pop_back();
            }
            items.extend(changes.iter().cloned().chain([Change::Synced]));
            if let Some(waker) = reader.waker.take() {
                waker.wake();
            }
        }
    }
}

#[test]
fn a_source_that_replays_every_change_breaks_law_6() {
    let message = panic_of(|| run(testkit::check(Replaying::default())));
    assert!(message.starts_with("law 6 "), "{message:?}");
    let message = panic_of(|| run(testkit::random_history(Replaying::default(), 5, 100_000)));
    assert!(message.starts_with("law 6 "), "{message:?}");
}

#[test]
fn a_checked_stream_panics_at_the_item_that_breaks_a_law() {
    type Items = Vec<Poll<Option<Change<&'static str, u16>>>>;
    use Change::{Insert, Remove, Synced};
    fn item(change: Change<&'static str, u16>) -> Poll<Option<Change<&'static str, u16>>> {
        Poll::Ready(Some(change))
    }
    let panic_after = |items: Items| {
        let mut items = items.into_iter();
        let stream = futures::stream::poll_fn(move |_| items.next().unwrap());
        let mut checked = Checked::new(stream);
        let polls = Cell::new(0);
        let message = panic_of(|| {
            let mut cx = Context::from_waker(Waker::noop());
            loop {
                // The items run out by a panic of another kind.
                let _ = checked.poll_next_unpin(&mut cx);
                polls.set(polls.get() + 1);
            }
        });
        (message, polls.get())
    };
    let good = vec![
        Poll::Pending,
        item(Insert("a", 1)),
        Poll::Pending,
        item(Synced),
        item(Insert("a", 2)),
        item(Remove("a")),
        item(Insert("a", 2)),
        item(Synced),
        Poll::Pending,
        item(Insert("a", 3)),
        Poll::Ready(None),
        Poll::Ready(None),
    ];
    let all = good.len();
    assert_eq!(panic_after(good.clone()), ("another payload".into(), all));
    for (bad, law) in [
        (vec![item(Insert("a", 1)), item(Insert("a", 1))], "law 2 "),
        (vec![item(Insert("a", 1)), item(Remove("b"))], "law 3 "),
        (vec![Poll::Ready(None), item(Synced)], "law 4 "),
        (vec![Poll::Ready(None), Poll::Pending], "law 4 "),
        (vec![item(Synced), item(Insert("a", 1)), Poll::Pending], "the law of Synced "),
    ] {
        let last = bad.len() - 1;
        let (message, polls) = panic_after(bad);
        assert!(message.starts_with(law), "{message:?}");
        assert_eq!(polls, last, "{message:?}");
    }
}
