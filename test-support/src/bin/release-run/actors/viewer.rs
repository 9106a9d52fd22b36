//! A reader of a stream, which notes all it is told and when.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use discovery_core::{Change, InstanceChanges, Status, StatusReader};
use futures::StreamExt as _;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    check::{Told, Viewed},
    journal::Journal,
    meaning::{Key, Seen},
};

pub(crate) type Set = BTreeMap<Key, (Arc<Seen>, bool)>;

struct Shared {
    viewed: Mutex<Viewed>,
    /// What comes of applying all that was told.
    set: Mutex<Set>,
    /// Its source is closed on purpose.
    closed: AtomicBool,
    ended: AtomicBool,
}

pub(crate) struct Viewer {
    shared: Arc<Shared>,
    status: StatusReader,
    polls: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Viewer {
    /// One that reads from now on.
    pub(crate) fn new(
        name: String,
        scope: Option<&str>,
        guarded: bool,
        changes: InstanceChanges,
        journal: &Arc<Journal>,
    ) -> Self {
        let status = changes.status();
        let viewed = Viewed {
            name: name.clone(),
            scope: scope.map(ToOwned::to_owned),
            guarded,
            told: Vec::new(),
        };
        let shared = Arc::new(Shared {
            viewed: Mutex::new(viewed),
            set: Mutex::default(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let (polls, gate) = watch::channel(true);
        let tasks = [
            tokio::spawn(read(changes, gate, Arc::clone(&shared), Arc::clone(journal))),
            tokio::spawn(heed(name, status.clone(), Arc::clone(journal))),
        ];
        Self { shared, status, polls, tasks }
    }

    /// Stops to poll, or goes on.
    pub(crate) fn polls(&self, polls: bool) {
        self.polls.send_replace(polls);
    }

    pub(crate) fn status(&self) -> Status {
        self.status.get()
    }

    pub(crate) fn name(&self) -> String {
        lock(&self.shared.viewed).name.clone()
    }

    pub(crate) fn is_guarded(&self) -> bool {
        lock(&self.shared.viewed).guarded
    }

    /// Whether what it has is what is there. Of keys that hold no instance it may have anything.
    pub(crate) fn sees(
        &self,
        there: &BTreeMap<Key, Option<Arc<Seen>>>,
    ) -> Result<(), (Option<Key>, String)> {
        let status = self.status();
        if !status.is_fresh() {
            return Err((None, format!("it is not fresh: {:?}", status.state)));
        }
        let viewed = lock(&self.shared.viewed);
        let watches = |key: &Key| {
            viewed.scope.as_ref().is_none_or(|scope| {
                key.strip_prefix(scope.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        let set = lock(&self.shared.set);
        for (key, seen) in there.iter().filter(|(key, _)| watches(key)) {
            if let Some(good) = seen
                && set.get(key) != Some(&(good.clone(), false))
            {
                let what = format!("{key} is {good} and it has {:?}", set.get(key));
                return Err((Some(key.clone()), what));
            }
        }
        match set.keys().find(|key| !there.contains_key(*key)) {
            Some(key) => {
                let what = format!("{key} is gone and it has {:?}", set.get(key));
                Err((Some(key.clone()), what))
            }
            None => Ok(()),
        }
    }

    /// Whether it has this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        lock(&self.shared.set).contains_key(key)
    }

    /// From now on its stream may end.
    pub(crate) fn may_end(&self) {
        self.shared.closed.store(true, Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.shared.ended.load(Relaxed)
    }

    /// All it was told.
    pub(crate) fn viewed(&self) -> Viewed {
        lock(&self.shared.viewed).clone()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(
    mut changes: InstanceChanges,
    mut gate: watch::Receiver<bool>,
    shared: Arc<Shared>,
    journal: Arc<Journal>,
) {
    loop {
        if gate.wait_for(|polls| *polls).await.is_err() {
            return;
        }
        let told = tokio::select! {
            told = changes.next() => told,
            _ = gate.wait_for(|polls| !polls) => continue,
        };
        let at = journal.now();
        let told = match told {
            Some(Change::Insert(key, instance)) => {
                let key: Key = key.to_string().into();
                let (seen, suspect) = (Arc::new(Seen::told(&instance)), instance.suspect);
                lock(&shared.set).insert(key.clone(), (seen.clone(), suspect));
                Told::Insert { key, seen, suspect }
            }
            Some(Change::Remove(key)) => {
                let key: Key = key.to_string().into();
                lock(&shared.set).remove(&key);
                Told::Remove(key)
            }
            Some(_) => Told::Synced,
            None if shared.closed.load(Relaxed) => {
                shared.ended.store(true, Relaxed);
                return;
            }
            None => {
                lock(&shared.viewed).told.push((at, Told::Ended));
                return;
            }
        };
        lock(&shared.viewed).told.push((at, told));
    }
}

/// Notes how the source is doing.
async fn heed(name: String, mut status: StatusReader, journal: Arc<Journal>) {
    let mut last = String::new();
    loop {
        let state = status.get().state;
        let now = match state.error() {
            Some(error) => format!("{}: {error}", state.name()),
            None => state.name().to_owned(),
        };
        if now != last {
            journal.note(format!("{name} is {now}"));
            last = now;
        }
        if !status.changed().await {
            return;
        }
    }
}
