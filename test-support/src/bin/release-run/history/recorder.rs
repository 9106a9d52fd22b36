//! The task that records, from whichever member answers.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use discovery_test_support::{Snapshot, Truth, slack};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Epoch, Written, gateway::Watch};

/// A watch that is silent for so long is asked about.
const SILENCE: Duration = Duration::from_millis(500);
const QUESTION: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// How far the recording is.
#[derive(Debug, Clone, Default)]
struct Progress {
    revision: i64,
    /// Why the history is not whole.
    lost: Option<String>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    epochs: Mutex<Vec<Epoch>>,
    progress: watch::Sender<Progress>,
}

/// Records all that is written.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    members: Vec<SocketAddr>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Recorder {
    /// One that does not record yet; times are counted from `start`.
    pub(crate) fn new(members: Vec<SocketAddr>, start: Instant) -> Self {
        let shared = Shared { start, epochs: Mutex::default(), progress: watch::Sender::default() };
        Self { shared: Arc::new(shared), members, task: Mutex::default() }
    }

    /// Starts with a store that was empty a moment ago.
    pub(crate) fn start_epoch(&self) {
        self.stop();
        self.shared.with(|epochs| epochs.push(Epoch::default()));
        self.shared.progress.send_modify(|progress| progress.revision = 1);
        let task = tokio::spawn(record(Arc::clone(&self.shared), self.members.clone()));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Records no more.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    /// The number of the epoch, from 0, and the last revision recorded in it.
    pub(crate) fn place(&self) -> (usize, i64) {
        self.shared.with(|epochs| {
            (epochs.len().saturating_sub(1), epochs.last().map_or(1, Epoch::revision))
        })
    }

    /// Why the history is not whole, if it is not.
    pub(crate) fn lost(&self) -> Option<String> {
        self.shared.progress.borrow().lost.clone()
    }

    /// When something was recorded last.
    pub(crate) fn last_write(&self) -> Duration {
        self.shared.with(|epochs| {
            let written = epochs.iter().rev().find_map(|epoch| epoch.written.last());
            written.map_or(Duration::ZERO, |written| written.at)
        })
    }

    /// Waits until everything up to `revision` is recorded, or never will be.
    pub(crate) async fn until(&self, revision: i64) {
        let mut progress = self.shared.progress.subscribe();
        let there = |now: &Progress| now.revision >= revision || now.lost.is_some();
        // The sender is ours.
        drop(progress.wait_for(there).await);
    }

    /// Holds what was recorded against a snapshot of all keys.
    pub(crate) async fn prove(&self, snapshot: &Snapshot) {
        self.until(snapshot.revision).await;
        let proof = self.shared.with(|epochs| match epochs.last_mut() {
            Some(epoch) => epoch.prove(snapshot),
            None => Ok(()),
        });
        if let Err(why) = proof {
            self.shared.lose(why);
        }
    }

    /// All that was recorded.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        self.shared.with(|epochs| epochs.clone())
    }
}

impl Shared {
    fn with<T>(&self, use_it: impl FnOnce(&mut Vec<Epoch>) -> T) -> T {
        use_it(&mut self.epochs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lose(&self, why: String) {
        self.progress.send_modify(|progress| {
            progress.lost.get_or_insert(why);
        });
    }

    fn revision(&self) -> i64 {
        self.progress.borrow().revision
    }

    /// Takes the changes of one answer: of whole revisions, in order.
    fn add(&self, answer: super::gateway::Answer) -> Result<(), String> {
        let at = self.start.elapsed();
        let mut all: Vec<Written> = Vec::new();
        for (revision, event) in answer {
            match all.last_mut() {
                Some(last) if last.revision == revision => last.events.push(event),
                _ => all.push(Written { revision, at, events: vec![event] }),
            }
        }
        let revision = self.with(|epochs| {
            let Some(epoch) = epochs.last_mut() else { return Ok(1) };
            all.into_iter().try_for_each(|written| epoch.add(written))?;
            Ok::<_, String>(epoch.revision())
        })?;
        self.progress.send_modify(|progress| progress.revision = revision);
        Ok(())
    }
}

async fn record(shared: Arc<Shared>, members: Vec<SocketAddr>) {
    for member in members.iter().cycle() {
        let truth = Truth::new(*member).deadline(slack(QUESTION));
        // A store that is behind what was recorded has lost something, whatever it says next.
        match truth.revision().await {
            Ok(head) if head < shared.revision() => {
                let last = shared.revision();
                shared.lose(format!("{member} is at revision {head} and was at {last}"));
                return;
            }
            Ok(_) => {
                if let Err(why) = follow(&shared, *member, &truth).await {
                    shared.lose(why);
                    return;
                }
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// Records from one member for as long as it answers; an error is a loss.
async fn follow(shared: &Shared, member: SocketAddr, truth: &Truth) -> Result<(), String> {
    let Ok(mut watch) = Watch::open(member, shared.revision() + 1).await else { return Ok(()) };
    let mut suspected = false;
    loop {
        match timeout(slack(SILENCE), watch.next()).await {
            Ok(Ok(answer)) if answer.is_empty() => {}
            Ok(Ok(answer)) => {
                shared.add(answer)?;
                suspected = false;
            }
            Ok(Err(why)) if why.contains("compact_revision") => return Err(why),
            Ok(Err(_)) => return Ok(()),
            Err(_) => match truth.revision().await {
                Ok(head) if head <= shared.revision() => suspected = false,
                // It says something else elsewhere, and has had the time to say it here.
                Ok(_) if suspected => return Ok(()),
                Ok(_) => suspected = true,
                Err(_) => return Ok(()),
            },
        }
    }
}
