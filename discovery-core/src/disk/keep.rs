//! The task behind a watch: passes on what the source has, or what was saved while it has nothing, and
//! has the set saved.

use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_core::Stream as _;
use tokio::task::{JoinHandle, consume_budget, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::file::Place;
use super::format::{Saved, Unusable};
use super::options::LastGoodOptions;
use super::save::{Saver, later};
use super::status::FromDisk;
use crate::combine::take;
use crate::{
    Change, Instance, InstanceChanges, InstanceKey, Publisher, State, Status, StatusReader, Update,
};

type Out = Publisher<InstanceKey, Instance>;

/// How long the last write may hold up the end of the watch.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the saved set. It is of interest until the source has loaded.
enum Disk {
    Reading(JoinHandle<Result<Option<Saved>, Unusable>>),
    Read(HashMap<InstanceKey, Instance>, FromDisk),
    /// Readers have been told it.
    Shown(FromDisk),
    Nothing,
}

/// On the way out, because there is no reader.
struct Leaving {
    by: Instant,
    /// Whether the last write was begun.
    saved: bool,
}

struct Keeper {
    input: InstanceChanges,
    status: StatusReader,
    /// Whether `status` may change again.
    status_changes: bool,
    /// Whether it has changed since readers were told.
    status_news: bool,
    /// What the source said since its last whole batch was passed on; `None`: gone.
    changes: HashMap<InstanceKey, Option<Arc<Instance>>>,
    /// Whether that is a whole batch.
    synced: bool,
    /// Whether the set is the source's.
    loaded: bool,
    /// Whether it is fresh, or was when the source was closed.
    fresh: bool,
    /// Whether the set is one that was fresh: it is worth saving also when the source has been lost since.
    good: bool,
    disk: Disk,
    show_disk_at: Instant,
    place: Arc<Place>,
    saver: Saver,
    leaving: Option<Leaving>,
}

/// Keeps `out` until nobody reads it any more or the source is closed.
pub(super) async fn keep(input: InstanceChanges, out: Out, place: Place, options: LastGoodOptions) {
    let place = Arc::new(place);
    let at = place.clone();
    let now = Instant::now();
    let keeper = Keeper {
        status: input.status(),
        input,
        status_changes: true,
        status_news: true,
        changes: HashMap::new(),
        synced: false,
        loaded: false,
        fresh: false,
        good: false,
        disk: Disk::Reading(spawn_blocking(move || at.read(SystemTime::now()))),
        show_disk_at: later(now, options.grace),
        saver: Saver::new(place.clone(), &options),
        place,
        leaving: None,
    };
    keeper.run(out).await;
}

impl Keeper {
    async fn run(mut self, mut out: Out) {
        loop {
            // A source that always has something must not keep others from the thread.
            consume_budget().await;
            // Read before the changes are, so that it is never ahead of the set.
            let status = self.status.get();
            let goes_on = poll_fn(|cx| Poll::Ready(self.drain(cx))).await;
            self.pass_on(&mut out, &status);
            if !goes_on {
                return self.close(out).await;
            }
            let now = Instant::now();
            if out.is_unused() {
                if self.may_leave(&out, now) {
                    match out.finish_if_unused() {
                        Ok(()) => return,
                        Err(used) => out = used,
                    }
                }
            } else {
                self.leaving = None;
            }
            if self.save_at().is_some_and(|due| due <= now) {
                self.saver.start(instances(&out), now);
            }
            self.wait(&out).await;
        }
    }

    /// Takes what the source has; `false` when it has been closed.
    fn drain(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { input, changes, synced, loaded, .. } = self;
        take(input, cx, |change| note(changes, synced, *loaded, change))
    }

    /// Tells readers what there is now.
    fn pass_on(&mut self, out: &mut Out, status: &Status) {
        if self.loaded {
            self.follow(out, status);
        } else if self.synced && status.loaded {
            let set = mem::take(&mut self.changes).into_iter();
            out.replace_as(set.filter_map(|(key, instance)| Some((key, instance?))), status);
            if let Disk::Shown(_) = mem::replace(&mut self.disk, Disk::Nothing) {
                tracing::info!(path = ?self.place.path(), "the source has loaded");
            }
            self.loaded = true;
            (self.synced, self.status_news) = (false, false);
            self.fresh = status.is_fresh();
            self.good = self.fresh;
            self.saver.changed();
        } else {
            self.fall_back(out, status);
        }
    }

    /// The source has loaded: what it says is passed on.
    fn follow(&mut self, out: &mut Out, status: &Status) {
        if mem::take(&mut self.synced) && !self.changes.is_empty() {
            let batch =
                mem::take(&mut self.changes).into_iter().map(|(key, instance)| match instance {
                    Some(instance) => Update::Insert(key, instance),
                    None => Update::Remove(key),
                });
            out.apply(batch, status.revision);
            // Of a closed source it counts how it was before.
            let closed = matches!(status.state, State::Closed);
            self.good = if closed { self.fresh } else { status.is_fresh() };
            self.saver.changed();
        }
        // Whether it is closed is told by the end of its stream, when all has been passed on.
        if mem::take(&mut self.status_news) && !matches!(status.state, State::Closed) {
            out.restate(status);
            self.fresh = status.is_fresh();
            self.good |= self.fresh;
        }
    }

    /// The source has not loaded: what was saved stands in for it, once its grace is over.
    fn fall_back(&mut self, out: &mut Out, status: &Status) {
        // It has loaded, and its set is about to come; or it was closed.
        if !matches!(status.state, State::Loading(_)) {
            return;
        }
        let news = mem::take(&mut self.status_news);
        self.disk = match mem::replace(&mut self.disk, Disk::Nothing) {
            Disk::Read(set, from) if self.show_disk_at <= Instant::now() => {
                let (path, instances) = (self.place.path(), set.len());
                let status = from.status(status);
                let cause = status.state.error().map(tracing::field::display);
                tracing::warn!(?path, instances, cause, "serving the last good set");
                out.replace_as(set, &status);
                Disk::Shown(from)
            }
            Disk::Shown(from) => {
                if news {
                    out.restate(&from.status(status));
                }
                Disk::Shown(from)
            }
            other => {
                if news {
                    out.restate(status);
                }
                other
            }
        };
    }

    /// When something is to be saved.
    fn save_at(&self) -> Option<Instant> {
        self.saver.due().filter(|_| self.fresh || self.is_owed())
    }

    /// Whether there is a good set that differs from what is saved.
    fn is_owed(&self) -> bool {
        self.good && self.saver.is_dirty()
    }

    /// Whether nothing is left to do for a set without readers. Begins the last write.
    fn may_leave(&mut self, out: &Out, now: Instant) -> bool {
        let is_owed = self.is_owed();
        let leaving = self.leaving.get_or_insert(Leaving { by: now + LEAVE_WITHIN, saved: false });
        let wanted = is_owed && !leaving.saved;
        if wanted && !self.saver.is_running() {
            leaving.saved = true;
            self.saver.start(instances(out), now);
        }
        !self.saver.is_running() || leaving.by <= now
    }

    /// Ends the streams, and has saved what there was last.
    async fn close(mut self, out: Out) {
        let now = Instant::now();
        let last = self.is_owed().then(|| instances(&out));
        out.close();
        let save = async {
            // One after the other: the last set is the one that stays.
            if self.saver.is_running() {
                self.saver.written().await;
            }
            if let Some(last) = last {
                self.saver.start(last, now);
                self.saver.written().await;
            }
        };
        // At the deadline what is being written goes on without us.
        let _ = timeout_at(now + LEAVE_WITHIN, save).await;
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, out: &Out) {
        let mut deadline = self.save_at();
        let mut by = |at: Instant| deadline = Some(deadline.map_or(at, |first| first.min(at)));
        if matches!(self.disk, Disk::Read(..)) {
            by(self.show_disk_at);
        }
        if let Some(leaving) = &self.leaving {
            by(leaving.by);
        }
        let Self { input, status, status_changes, disk, place, saver, .. } = self;
        tokio::select! {
            changed = status.changed(), if *status_changes => {
                *status_changes = changed;
                self.status_news |= changed;
            }
            change = next(input) => {
                // Its end is seen when it is drained.
                if let Some(change) = change {
                    note(&mut self.changes, &mut self.synced, self.loaded, change);
                }
            }
            read = read(disk) => *disk = found(read, place),
            () = saver.written() => {}
            () = out.unused(), if self.leaving.is_none() => {}
            () = reached(deadline) => {}
        }
    }
}

fn instances(out: &Out) -> Vec<Arc<Instance>> {
    out.snapshot().into_iter().map(|(_, instance)| instance).collect()
}

fn note(
    changes: &mut HashMap<InstanceKey, Option<Arc<Instance>>>,
    synced: &mut bool,
    loaded: bool,
    change: Change<InstanceKey, Arc<Instance>>,
) {
    match change {
        Change::Insert(key, instance) => drop(changes.insert(key, Some(instance))),
        // Before it has loaded, what came and went must not pile up.
        Change::Remove(key) if !loaded => drop(changes.remove(&key)),
        Change::Remove(key) => drop(changes.insert(key, None)),
        Change::Synced => *synced = true,
    }
}

async fn next(input: &mut InstanceChanges) -> Option<Change<InstanceKey, Arc<Instance>>> {
    poll_fn(|cx| Pin::new(&mut *input).poll_next(cx)).await
}

/// Waits for the saved set; for ever if it is not being read. Cancel safe.
async fn read(disk: &mut Disk) -> Result<Option<Saved>, Unusable> {
    let Disk::Reading(reading) = disk else { return pending().await };
    reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
}

fn found(read: Result<Option<Saved>, Unusable>, place: &Place) -> Disk {
    match read {
        // To nobody is an empty set of more use than to know that nothing is known.
        Ok(Some(saved)) if saved.set.is_empty() => Disk::Nothing,
        Ok(Some(saved)) => Disk::Read(saved.set, FromDisk::new(saved.at, saved.age)),
        Ok(None) => Disk::Nothing,
        Err(reason) => {
            let path = place.path();
            tracing::warn!(?path, %reason, "the saved last good set is ignored");
            Disk::Nothing
        }
    }
}

/// Waits until then; for ever if there is no such time.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
