//! Where a source is checked: the subject, what it should have, and the steps that can be taken.

use std::fmt::Write as _;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::checked::{Broken, SYNCED_LAST};
use super::history::History;
use super::probe::{Item, Probe};
use super::subject::{Faults, Set, Subject};
use crate::{Status, Update};

pub(super) struct Stage<S: Subject> {
    pub(super) subject: S,
    /// What was given to the source …
    pub(super) truth: Set<S::Key, S::Endpoint>,
    /// … and what readers may see of it.
    pub(super) history: History<S::Key, S::Endpoint>,
    pub(super) failed: bool,
    /// What is being done: for messages.
    pub(super) doing: &'static str,
    pub(super) seed_and_step: Option<(u64, usize)>,
    /// The law that is broken by a set which the source never had.
    pub(super) strange_set_breaks: u8,
    /// How many keys can have been in the set.
    keys: usize,
}

impl<S: Subject> Stage<S> {
    pub(super) fn new(subject: S) -> Self {
        let truth = subject.initial();
        let history = History::new(shared(subject.visible(&truth)));
        Self {
            keys: truth.len() + usize::from(super::KEYS),
            subject,
            truth,
            history,
            failed: false,
            doing: "start",
            seed_and_step: None,
            strange_set_breaks: 1,
        }
    }

    pub(super) fn violated(&self, broken: &Broken) -> ! {
        let mut place = self.doing.to_owned();
        if let Some((seed, step)) = self.seed_and_step {
            // Writing to a String does not fail.
            let _ = write!(place, "; random history with seed {seed}, step {step}");
        }
        panic!("{broken} [{place}]")
    }

    pub(super) fn fault(&self, law: u8, how: impl Into<String>) -> ! {
        self.violated(&Broken::new(law, how))
    }

    /// Whether what the source accepts can be polled at once.
    pub(super) fn synchronous(&self) -> bool {
        self.subject.settles_within().is_none()
    }

    pub(super) fn insert(&self, key: u16, version: u16) -> Update<S::Key, S::Endpoint> {
        Update::Insert(self.subject.key(key), self.subject.endpoint(key, version))
    }

    pub(super) fn remove(&self, key: u16) -> Update<S::Key, S::Endpoint> {
        Update::Remove(self.subject.key(key))
    }

    pub(super) fn open(&mut self) -> Probe<S> {
        // A reader that is cut off may be given what the source had at any time.
        let from = if self.failed || !self.synchronous() { 0 } else { self.history.now() };
        Probe::new(self.subject.open(), from)
    }

    /// Makes the change; says whether readers are owed something for it.
    pub(super) async fn apply(&mut self, batch: Vec<Update<S::Key, S::Endpoint>>) -> bool {
        for update in &batch {
            match update {
                Update::Insert(key, endpoint) => {
                    self.truth.insert(key.clone(), endpoint.clone());
                }
                Update::Remove(key) => {
                    self.truth.remove(key);
                }
            }
        }
        match self.subject.settles_within() {
            None => self.subject.apply(batch).await,
            Some(time) => {
                let accepted = tokio::time::timeout(time, self.subject.apply(batch)).await;
                if accepted.is_err() {
                    self.fault(6, format!("the source did not accept a change within {time:?}"));
                }
            }
        }
        let visible = self.subject.visible(&self.truth);
        self.history.push(shared(visible))
    }

    pub(super) async fn fail(&mut self) {
        self.failed = true;
        self.subject.fail().await;
    }

    pub(super) async fn recover(&mut self) {
        self.subject.recover().await;
        self.failed = false;
    }

    /// Whether the source can be changed now.
    pub(super) fn can_change(&self) -> bool {
        self.subject.can_change() && (!self.failed || self.subject.faults() == Faults::Changing)
    }

    /// Polls once and checks what comes.
    pub(super) fn poll(&self, probe: &mut Probe<S>) -> Poll<Option<Item<S>>> {
        let slept = probe.sleeps();
        let told = match probe.poll() {
            Ok(told) => told,
            Err(broken) => self.violated(&broken),
        };
        match &told {
            Poll::Ready(None) => self.fault(4, "the stream ended and nobody had closed the source"),
            // Another thread may be between telling and waking.
            Poll::Ready(Some(change)) if slept && self.synchronous() => {
                self.fault(7, format!("{change:?} came after Pending and woke nobody"))
            }
            Poll::Ready(Some(Item::<S>::Synced)) => self.hold_against_history(probe),
            _ => {}
        }
        told
    }

    /// At `Synced` the reader has a set that the source had, and not before the one it had last.
    fn hold_against_history(&self, probe: &mut Probe<S>) {
        let set = &probe.ledger.set;
        if let Some(version) = self.history.find(probe.version, set) {
            probe.version = version;
            return;
        }
        let law = if self.failed && set.is_empty() { 4 } else { self.strange_set_breaks };
        let latest = self.history.latest();
        let how = if self.history.find(0, set).is_some() {
            format!("the set went back to {set:?}; the source has {latest:?}")
        } else {
            format!("the source never had the reader's set {set:?}; it has {latest:?}")
        };
        self.fault(law, how)
    }

    /// Polls until `Pending`; says how many items came.
    pub(super) fn drain(&self, probe: &mut Probe<S>) -> usize {
        // In between, a source that is not synchronous may change and tell more.
        // A derived stream tells the rest of what it took from its inputs before it looks there again.
        let most = if self.synchronous() { 2 } else { 1000 } * (self.keys + 1);
        let mut items = 0;
        while self.poll(probe).is_ready() {
            items += 1;
            if items > most {
                let keys = self.keys;
                self.fault(6, format!("{items} items were owed for a set of {keys} keys at most"));
            }
        }
        if self.synchronous() && !self.failed {
            self.expect_latest(probe);
            probe.version = self.history.now();
        }
        items
    }

    fn is_at_latest(&self, probe: &Probe<S>) -> bool {
        probe.ledger.synced && probe.ledger.set == *self.history.latest()
    }

    fn expect_latest(&self, probe: &Probe<S>) {
        if self.is_at_latest(probe) {
            return;
        }
        if !probe.ledger.loaded {
            self.fault(
                SYNCED_LAST,
                "a reader of a loaded source drained to Pending without Synced",
            );
        }
        let (set, latest) = (&probe.ledger.set, self.history.latest());
        self.fault(1, format!("a drained reader has {set:?}; the source has {latest:?}"))
    }

    /// Lets the reader catch up with the source, which must be without faults: at once if it is
    /// synchronous, else within its time and polling only when woken.
    pub(super) async fn converge(&self, probe: &mut Probe<S>) {
        let Some(time) = self.subject.settles_within() else {
            self.drain(probe);
            return;
        };
        let deadline = Instant::now() + time;
        loop {
            if !probe.sleeps() {
                self.drain(probe);
            }
            if self.is_at_latest(probe) {
                return;
            }
            if timeout_at(deadline, probe.woken()).await.is_err() {
                self.never_caught_up(probe, time);
            }
        }
    }

    fn never_caught_up(&self, probe: &mut Probe<S>, time: Duration) -> ! {
        let had = probe.ledger.set.clone();
        if let Poll::Ready(Some(change)) = self.poll(probe) {
            self.fault(7, format!("{change:?} came after Pending and woke nobody for {time:?}"));
        }
        let latest = self.history.latest();
        self.fault(6, format!("after {time:?} a reader has {had:?}; the source has {latest:?}"))
    }

    /// The source was closed: the reader is told what it is owed and ends for good.
    pub(super) async fn end(&self, probe: &mut Probe<S>) {
        let deadline = self.subject.settles_within().map(|time| Instant::now() + time);
        let mut polls = 0;
        while !probe.ledger.ended {
            match probe.poll() {
                Ok(Poll::Ready(Some(Item::<S>::Synced))) => self.hold_against_history(probe),
                Ok(Poll::Ready(_)) => {}
                Ok(Poll::Pending) => match deadline {
                    Some(deadline) if timeout_at(deadline, probe.woken()).await.is_ok() => {}
                    _ => self.fault(4, "the source was closed and the stream did not end"),
                },
                Err(broken) => self.violated(&broken),
            }
            polls += 1;
            if polls > 1000 * (self.keys + 1) {
                self.fault(4, "the source was closed and the stream tells more and more");
            }
        }
        for _ in 0..3 {
            if let Err(broken) = probe.poll() {
                self.violated(&broken);
            }
        }
        let closed = |status: &Status| matches!(status.state, crate::State::Closed);
        self.expect_status(probe, 4, "closed", closed).await;
    }

    /// Waits for a status of the reader, if it has one.
    pub(super) async fn expect_status(
        &self,
        probe: &Probe<S>,
        law: u8,
        text: &str,
        wanted: impl Fn(&Status) -> bool,
    ) {
        let Some(mut status) = self.subject.status(&probe.reader) else { return };
        let reached = match self.subject.settles_within() {
            None => wanted(&status.get()),
            Some(time) => {
                let waited = tokio::time::timeout(time, status.wait_for(&wanted)).await;
                matches!(waited, Ok(Ok(_)))
            }
        };
        if !reached {
            self.fault(law, format!("the status is not {text} but {:?}", status.get()));
        }
    }

    /// Checks that the work behind the readers goes on, or that it has stopped.
    pub(super) async fn expect_working(&self, wanted: bool) {
        let deadline = self.subject.settles_within().map(|time| Instant::now() + time);
        while self.subject.is_working() == Some(!wanted) {
            if deadline.is_none_or(|deadline| Instant::now() > deadline) {
                let how = if wanted {
                    "the work behind the readers stands still while there is one"
                } else {
                    "the work behind the readers goes on after the last was dropped"
                };
                self.fault(7, how);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn shared<K: Ord, E>(set: Set<K, E>) -> Set<K, Arc<E>> {
    set.into_iter().map(|(key, endpoint)| (key, Arc::new(endpoint))).collect()
}
